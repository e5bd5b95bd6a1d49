"""One rolled loop: what it reads for all iterations at once, its recurrent call, what is made of its results."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.rolling.all_at_once import AllAtOnce
from rnncore.export.tracing.rolling.cell import Packing, RolledCell, StepLayout
from rnncore.export.tracing.rolling.evaluation import Evaluation
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Input, Log, Weight, leaves
from rnncore.export.tracing.rolling.loop_shapes import LoopShapes
from rnncore.export.tracing.rolling.loop_values import LoopValues
from rnncore.export.tracing.rolling.merging import Program, Run
from rnncore.export.tracing.rolling.places import Key, Places
from rnncore.export.tracing.rolling.plan import LoopPlan
from rnncore.export.tracing.rolling.relations import Inside, Number, Outside
from rnncore.export.tracing.rolling.row_floats import floats_of_rows
from rnncore.export.tracing.rolling.writes import StartPart
from rnncore.layers import Recurrent
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import BATCH, TIME


class RolledLoop:
    """The loop of ``plan`` in ``program``, made ready once; :meth:`run` runs it in an evaluation."""

    def __init__(self, program: Program, plan: LoopPlan, log: Log, weight: Callable[[str], Tensor]) -> None:
        self.program, self.plan = program, plan
        self._places = Places(program, plan)
        self._shapes = LoopShapes(self._places, log)
        self._weight = weight
        self.reverse = self._places.runs_backward()
        self.layer: Recurrent | None = None
        self._joined: dict[str, tuple[str, ...]] = {}  # names of sizes that are known together only
        self._reads = self._places.keys_read(plan.core, {*plan.before})
        carried = [(place, part) for place, part, _ in plan.states]
        before = [key for key in carried if key[0] in plan.before]  # an entry of the step before
        self._reads += [key for key in before if key not in self._reads]
        self._gives = [key for key in self._places.outputs() if key[0] in plan.core]
        self._values = LoopValues([], [], [])
        self._floats = floats_of_rows(self._places, [*carried, *self._reads, *self._gives])
        if plan.states:
            self._values = LoopValues.of(self._places)
            self.layer = Recurrent(self._cell(), reverse=self.reverse)

    # What the loop is made of.

    def _cell(self) -> RolledCell:
        states: dict[str, Packing] = {}
        starts: list[Any] = []
        for (place, part, delay), relation in self.plan.states.items():
            packing = self._shapes.packing((place, part), "a value that it carries", may_be_free=True)
            if packing.batch_axis is None:
                raise ExportError(
                    "a loop over time cannot be rolled: a value that it carries has no batch axis, so rows cannot be kept "
                    f"apart\n  {(self._places.statement(place).op.lines or ['?'])[-1]}"
                )
            name = self._name(place, states)
            for i in range(delay):
                states[name if i == 0 else f"{name}_{i + 1}_ago"] = packing
                starts.append(relation.starts[delay - 1 - i])
        self._starts, self._state_packings = starts, list(states.values())
        constants = self._constant_starts()
        weights = [self._weight(w.path) if isinstance(w, Weight) else w.tensor() for w in self._values.weights]
        captured = []
        for value in self._values.captured:
            shape, formulas, dtype = self._shapes.shape(value)
            free = tuple(axis for axis, f in enumerate(formulas) if isinstance(f, Formula) and not f.constant)
            captured.append((torch.zeros(shape, dtype=dtype), free))
        self._axes = self._axes_of_captured()
        self._check_sizes()
        return RolledCell(
            self._step,
            StepLayout(
                [self._shapes.packing(key, "a value that it reads in every step") for key in self._reads],
                [
                    self._shapes.packing(key, "a value that it gives in every step", may_be_free=True)
                    for key in self._gives
                ],
                states,
                self._floats,
            ),
            weights,
            constants,
            captured,
        )

    def _axes_of_captured(self) -> dict[str, tuple[int, int]]:
        """Where in captured values the sizes of free axes can be read off.

        Of two that stand in one axis together (the places of an image) the first is as large as both, and the other is 1.
        """
        found: dict[str, tuple[int, int]] = {}
        products: dict[tuple[str, ...], tuple[int, int]] = {}
        for i, value in enumerate(self._values.captured):
            for axis, formula in enumerate(self._shapes.shape(value)[1]):
                if isinstance(formula, Formula) and len(formula.terms) == 1 and formula.divisor == 1:
                    factor, names = formula.terms[0]
                    if factor == 1 and len(names) == 1:
                        found.setdefault(names[0], (i, axis))
                    elif factor == 1 and names:
                        products.setdefault(names, (i, axis))
        for names, where in products.items():
            if not {BATCH, TIME, *found, *self._joined} & {*names}:
                found[names[0]] = where
                self._joined |= dict.fromkeys(names, names)
        return found

    def _check_sizes(self) -> None:
        """Refuse steps that need sizes which cannot be read off what they have."""
        known = {BATCH, *self._axes, *self._joined}
        for place in (*self._values.inside, *self.plan.core):
            statement = self._places.statement(place)
            for value in leaves(statement.arguments):
                terms = [names for _, names in value.terms] if isinstance(value, Formula) else []
                apart = [n for names in terms for n in names if not {*self._joined.get(n, ())} <= {*names}]
                unknown = sorted({n for names in terms for n in names if n not in known} | {*apart})
                if unknown:
                    raise ExportError(
                        f"a loop over time cannot be rolled: its step needs the size of '{unknown[0]}', which nothing that it "
                        f"reads has\n  {(statement.op.lines or ['?'])[-1]}"
                    )

    def _name(self, place: int, taken: Mapping[str, Any]) -> str:
        """The name of the user's variable, if the line of code is an assignment."""
        name = "state"
        for line in reversed(self._places.statement(place).op.lines):
            text = linecache.getline(line.file, line.number)
            found = re.match(r"\s*(?:self\.)?([A-Za-z_]\w*)\s*(?:\+|\*)?=(?!=)", text)
            if found:
                name = found[1]
                break
        return name if name not in taken else next(f"{name}_{n}" for n in range(2, 99) if f"{name}_{n}" not in taken)

    def _constant_starts(self) -> list[Tensor] | None:
        """The first values of the states, if these do not depend on the inputs; without the batch axis."""
        if not all(self._depends_on_batch_only(start) for start in self._starts):
            return None
        evaluation = Evaluation(self.program, [], _Batches(), self._weight, {})
        found = []
        if any(packing.free for packing in self._state_packings):
            return None
        for start, packing in zip(self._starts, self._state_packings, strict=True):
            with torch.no_grad():
                rows = self._start_rows(evaluation.value(start), packing, self._shapes.rows(evaluation.sizes))
            if (
                not torch.equal(rows, rows[:1].expand_as(rows)) or not torch.isfinite(rows).all()
            ):  # a file's starts are finite
                return None
            found.append((rows[0] if packing.shape else rows[0].reshape(1)).clone())
        return found

    def _depends_on_batch_only(self, value: Any) -> bool:
        if isinstance(value, Outside):
            return all(self._depends_on_batch_only(v) for v in leaves(self.program.statements[value.op].arguments))
        if isinstance(value, StartPart):
            return self._depends_on_batch_only(value.value)
        if isinstance(value, Formula):
            return True
        return not isinstance(value, Input | Inside | Run)

    def _start_rows(self, value: Any, packing: Packing, batch: Any) -> Tensor:
        dtype = self._floats
        value = value if isinstance(value, Tensor) else torch.tensor(float(value))
        if packing.batch_axis is None:
            return packing.rows(value, batch, dtype)
        shape = packing.shape_of(batch)
        if value.dim() != len(shape) or any(str(a) != str(b) for a, b in zip(value.shape, shape, strict=True)):
            value = value.expand(shape)
        return packing.rows(value, batch, dtype)

    # One step, and all steps.

    def _step(
        self, reads: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`rnncore.export.tracing.rolling.cell.RolledCell`."""
        table = dict(zip(self._values.weights, weights, strict=True))
        paths = {w.path: tensor for w, tensor in table.items() if isinstance(w, Weight)}
        batch = self._state_packings[0].rows_of(states[0])
        sizes: dict[str, Any] = {name: captured[i].shape[axis] for name, (i, axis) in self._axes.items()}
        sizes |= {name: 1 for name, names in self._joined.items() if name != names[0]}
        sizes |= self._batch_of(batch, sizes)
        evaluation = Evaluation(self.program, [], sizes, paths.__getitem__, {})
        known: dict[Key, Any] = {**table, **dict(zip(self._values.captured, captured, strict=True))}
        known.update(zip(self._reads, reads, strict=False))
        at = iter(states)
        chains: dict[Key, list[Tensor]] = {}
        for place, part, delay in self.plan.states:
            chains[place, part, delay] = [next(at) for _ in range(delay)]
            known[place, part, delay] = chains[place, part, delay][-1]
        self._places.interpret(self._values.inside, evaluation, known)
        self._places.interpret(self.plan.core, evaluation, known)
        new = []
        for (place, part, _), chain in chains.items():
            new += [known[place, part], *chain[:-1]]
        return [known[key] for key in self._gives], new

    def _batch_of(self, rows: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """The batch that gives so many rows, nothing where other axes decide as well and are not known in a step."""
        each, names = self._shapes.rows.terms[0]
        others = [name for name in names if name != BATCH]
        if any(name not in sizes for name in others):
            return {}
        for name in others:
            each = each * sizes[name]
        return {BATCH: rows if each == 1 else rows // each}

    def run(self, evaluation: Evaluation) -> tuple[dict[tuple[int, int], Tensor], dict[tuple[int, int], Tensor]]:
        """What places gave in all iterations, [turns, ...] each, and what they gave in the last."""
        turns = self.plan.block.count(evaluation.sizes)
        fixed: dict[Key, Any] = {}
        self._places.interpret(self.plan.fixed, evaluation, fixed)
        at_once = AllAtOnce(self._places, evaluation, turns, fixed, reverse=self.reverse)
        at_once.run([place for place in self.plan.before if not self._places.is_item(place)])
        finals: dict[tuple[int, int], Tensor] = {}
        if self.layer is not None:
            finals = self._recur(evaluation, fixed, at_once, turns)
        at_once.run(self.plan.after)
        for key in self.plan.needed:
            if key[0] in self.plan.fixed:
                at_once.along[key] = fixed[key].unsqueeze(0).expand(turns, *fixed[key].shape)
        return at_once.along, finals

    def _recur(
        self, evaluation: Evaluation, fixed: Mapping[Key, Any], at_once: AllAtOnce, turns: Any
    ) -> dict[tuple[int, int], Tensor]:
        assert self.layer is not None and isinstance(self.layer.cell, RolledCell)
        cell, batch, dtype = self.layer.cell, self._shapes.rows(evaluation.sizes), self._floats
        along = at_once.along
        for key in self._reads:
            if isinstance(key, Number) and key not in along:
                along[key] = at_once.numbers(key)
        packed = [self._shapes.packing(key, "").packed(along[key], batch, dtype) for key in self._reads]
        packed = packed or [torch.zeros(1, 1, 1, dtype=dtype).expand(batch, turns, 1)]
        x = torch.cat(packed, 2) if len(packed) > 1 else packed[0]
        known = {**fixed}
        cell.captured = tuple(known[v] if v in known else evaluation.value(v) for v in self._values.captured)
        state = None
        if cell.starts is None:
            rows = [
                self._start_rows(evaluation.value(start), p.at(evaluation.sizes), batch)
                for start, p in zip(self._starts, self._state_packings, strict=True)
            ]
            state = tuple(r if p.shape else r.unsqueeze(1) for r, p in zip(rows, self._state_packings, strict=True))
        packings = [self._shapes.packing(key, "", may_be_free=True).at(evaluation.sizes) for key in self._gives]
        cell.width = sum(p.size for p in packings) or None
        y, final = self.layer(x, state)
        parts = y.split([p.size for p in packings], 2) if len(packings) > 1 else [y]
        for key, packing, part in zip(self._gives, packings, parts, strict=False):
            along[key] = packing.unpacked(part)
        found: dict[tuple[int, int], Tensor] = {}
        at = iter(zip(final, self._state_packings, strict=True))
        for place, part, delay in self.plan.states:
            value, packing = next(at)
            for _ in range(delay - 1):
                next(at)
            found[place, part] = packing.value(value if packing.shape else value.squeeze(1))
        return found


class _Batches(dict[str, int]):
    """Sizes of which only the batch matters: two rows."""

    def __missing__(self, key: str) -> int:
        return 2 if key == BATCH else 5


def as_module(loops: Sequence[RolledLoop]) -> nn.ModuleList:
    """The recurrent layers of ``loops``."""
    return nn.ModuleList(loop.layer for loop in loops if loop.layer is not None)
