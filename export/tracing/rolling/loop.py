"""One rolled loop: what it reads for all iterations at once, its recurrent call, what is made of its results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.rolling.cell import Packing, RolledCell, StepLayout
from rnncore.export.tracing.rolling.evaluation import Evaluation, execute, given, listed, take
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Constant, Input, Log, Weight, leaves, mapped
from rnncore.export.tracing.rolling.merging import Program, Run, Statement
from rnncore.export.tracing.rolling.plan import LoopPlan
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Number, Outside, Same
from rnncore.export.tracing.rolling.spread import over_all
from rnncore.export.tracing.rolling.writes import StartPart
from rnncore.layers import Recurrent
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import BATCH, TIME

aten = torch.ops.aten
_LISTS = (aten.cat.default, aten.stack.default)
_BY_ROWS = (
    "convolution",
    "native_batch_norm",
    "native_batch_norm_legit_no_training",
    "max_pool2d_with_indices",
    "avg_pool2d",
)
Key = Any  # (place, part), or a relation to something along time
_PLAIN_ROWS = Formula(((1, (BATCH,)),))


class RolledLoop:
    """The loop number ``number`` of ``program``, made ready once; :meth:`run` runs it in an evaluation."""

    def __init__(
        self, program: Program, plan: LoopPlan, number: int, log: Log, weight: Callable[[str], Tensor]
    ) -> None:
        self.program, self.plan, self.number = program, plan, number
        self.log = log
        self._weight = weight
        self.reverse = self._runs_backward()
        self.layer: Recurrent | None = None
        self._reads = self._keys_read(plan.core, {*plan.before})
        carried = [
            (place, part) for place, part, _ in plan.states if place in plan.before
        ]  # an entry of the step before
        self._reads += [key for key in carried if key not in self._reads]
        self._gives = [key for key in self._outputs() if key[0] in plan.core]
        self._weights: list[Any] = []
        self._captured: list[Any] = []
        self._rows = self._row_count()
        if plan.states:
            self._sort_values()
            self.layer = Recurrent(self._cell(), reverse=self.reverse)

    # What the loop is made of.

    def _statement(self, place: int) -> Statement:
        return self.plan.block.statements[place]

    def _moving(self, places: Iterable[int]) -> list[Any]:
        relations = [r for place in places for r in self.plan.relations(place)]
        return list(dict.fromkeys(r for r in relations if isinstance(r, ListItem | LoopItem)))

    def _runs_backward(self) -> bool:
        """Whether everything along time is read from its end: the loop is then an ordinary one in reverse."""
        steps = [self._index(place)[1].step for place in self.plan.before if self._is_item(place)]
        steps += [relation.step for relation in self._moving([*self.plan.before, *self.plan.core])]
        return bool(steps) and all(step < 0 for step in steps)

    def _is_item(self, place: int) -> bool:
        """Whether a place picks the entry of this iteration from something fixed."""
        statement = self._statement(place)
        if statement.op.target not in (aten.select.int, aten.slice.Tensor):
            return False
        base, _, index, *rest = statement.arguments[0]
        is_fixed = isinstance(base, Fixed) or (isinstance(base, Same) and base.place in self.plan.fixed)
        ends = not rest or isinstance(rest[0], Number)
        return is_fixed and isinstance(index, Number) and ends and int(index.step) == index.step

    def _index(self, place: int) -> tuple[int, Number]:
        _, dim, index, *_ = self._statement(place).arguments[0]
        return int(dim.value({})), index

    def _outputs(self) -> list[tuple[int, int]]:
        """Results of the step that are read after it."""
        read = [
            (r.place, r.part) for place in self.plan.after for r in self.plan.relations(place) if isinstance(r, Same)
        ]
        return list(dict.fromkeys([*self.plan.needed, *read]))

    def _keys_read(self, places: Iterable[int], of: set[int]) -> list[Key]:
        """What ``places`` read that changes from iteration to iteration, besides results of their own."""
        found: dict[Key, None] = {}
        for place in places:
            for relation in self.plan.relations(place):
                if isinstance(relation, Same) and relation.place in of:
                    found[relation.place, relation.part] = None
                elif isinstance(relation, Number | ListItem | LoopItem):
                    found[relation] = None
        return list(found)

    # Values from outside: weights are the cell's own, all else is captured.

    def _made_of_weights(self, value: Any) -> bool:
        if isinstance(value, Outside):
            return all(self._made_of_weights(v) for v in leaves(self.program.statements[value.op].arguments))
        if isinstance(value, Formula):
            return value.constant
        return not isinstance(value, Input | Inside | Run | StartPart)

    def _place_of_weights(self, place: int) -> bool:
        for r in self.plan.relations(place):
            if isinstance(r, Same):
                if not self._place_of_weights(r.place):
                    return False
            elif not isinstance(r, Fixed) or not self._made_of_weights(r.value):
                return False
        return True

    def _sort_values(self) -> None:
        captured: dict[Any, None] = {}
        weights: dict[Any, None] = {}

        def note_weights(value: Any) -> None:
            if isinstance(value, Weight | Constant):
                weights[value] = None
            elif isinstance(value, Outside):
                for v in leaves(self.program.statements[value.op].arguments):
                    note_weights(v)

        def note(relation: Any) -> None:
            if isinstance(relation, Same) and relation.place in self.plan.fixed:
                if self._place_of_weights(relation.place):
                    for r in self.plan.relations(relation.place):
                        note(r)
                else:
                    captured[relation.place, relation.part] = None
            elif isinstance(relation, Fixed) and isinstance(
                relation.value, Input | Weight | Constant | Outside | Inside
            ):
                if self._made_of_weights(relation.value):
                    note_weights(relation.value)
                else:
                    captured[relation.value] = None

        for place in self.plan.core:
            for relation in self.plan.relations(place):
                note(relation)
        for place, part, _ in self.plan.states:
            note(Same(place, part))
        self._weights, self._captured = list(weights), list(captured)
        inside: set[int] = set()
        todo = [r.place for p in self.plan.core for r in self.plan.relations(p) if isinstance(r, Same)]
        todo += [place for place, _, _ in self.plan.states]
        while todo:
            place = todo.pop()
            if place in self.plan.fixed and place not in inside and self._place_of_weights(place):
                inside.add(place)
                todo += [r.place for r in self.plan.relations(place) if isinstance(r, Same)]
        self._fixed_inside = sorted(inside)

    def _shape(self, value: Any) -> tuple[tuple[int, ...], tuple[Any, ...], torch.dtype]:
        """Shape in the log, shape as formulas, dtype of a value or a place."""
        if isinstance(value, tuple):
            statement, part = self._statement(value[0]), value[1]
        elif isinstance(value, Outside):
            # All entries of a list that a formula picks from have one shape.
            statement, part = self.program.statements[value.op], value.part if isinstance(value.part, int) else 0
        elif isinstance(value, Inside):
            statement, part = self.program.blocks[value.loop].statements[value.place], value.part
        else:
            shape = self.log.shapes[value]
            return shape, self.program.input_shapes.get(value, shape), self.log.dtypes[value]
        return statement.op.shapes[part], statement.shapes[part], statement.op.dtypes[part]

    def _row_count(self) -> Formula:
        """How many rows the loop has: one for each of the batch, or several, such as both directions of a sequence."""
        formulas = [f for place, part, _ in self.plan.states for f in self._shape((place, part))[1] if f is not None]
        found = [f for f in formulas if BATCH in f.axes and len(f.terms) == 1 and TIME not in f.axes and f.divisor == 1]
        return _PLAIN_ROWS if _PLAIN_ROWS in found or not found else found[0]

    def _packing(self, key: Key, what: str, *, may_be_free: bool = False) -> Packing:
        if isinstance(key, Number):
            return Packing((), None, torch.int64 if isinstance(key.step, int) else torch.float32)
        if isinstance(key, ListItem):
            statement = self.program.statements[key.op]
            formulas, dtype = statement.shapes[0], statement.op.dtypes[0]
        elif isinstance(key, LoopItem):
            statement = self.program.blocks[key.loop].statements[key.place]
            formulas, dtype = statement.shapes[key.part], statement.op.dtypes[key.part]
        else:
            _, formulas, dtype = self._shape(key)
        batch = [axis for axis, f in enumerate(formulas) if f is not None and f.terms == self._rows.terms]
        others = [f for axis, f in enumerate(formulas) if axis not in batch[:1]]
        free = tuple((axis, f) for axis, f in enumerate(others) if f is not None and not f.constant)
        if None in others or (free and not may_be_free) or any(BATCH in f.axes for _, f in free):
            line = self._statement(key[0]).op.lines[-1:] if isinstance(key, tuple) else ()
            raise ExportError(
                f"a loop over time cannot be rolled: {what} has a size that is not the same in every step, or follows an "
                f"axis of the inputs{''.join(f'{chr(10)}  {at}' for at in line)}"
            )
        shape = tuple(f(self.log.sizes) for f in others if f is not None)
        return Packing(shape, batch[0] if batch else None, dtype, free)

    def _cell(self) -> RolledCell:
        states: dict[str, Packing] = {}
        starts: list[Any] = []
        for (place, part, delay), relation in self.plan.states.items():
            packing = self._packing((place, part), "a value that it carries", may_be_free=True)
            if packing.batch_axis is None:
                raise ExportError(
                    "a loop over time cannot be rolled: a value that it carries has no batch axis, so rows cannot be kept "
                    f"apart\n  {(self._statement(place).op.lines or ['?'])[-1]}"
                )
            name = self._name(place, states)
            for i in range(delay):
                states[name if i == 0 else f"{name}_{i + 1}_ago"] = packing
                starts.append(relation.starts[delay - 1 - i])
        self._starts, self._state_packings = starts, list(states.values())
        constants = self._constant_starts()
        weights = [self._weight(w.path) if isinstance(w, Weight) else w.tensor() for w in self._weights]
        captured = []
        for value in self._captured:
            shape, formulas, dtype = self._shape(value)
            free = tuple(axis for axis, f in enumerate(formulas) if isinstance(f, Formula) and not f.constant)
            captured.append((torch.zeros(shape, dtype=dtype), free))
        self._axes = self._axes_of_captured()
        return RolledCell(
            self._step,
            StepLayout(
                [self._packing(key, "a value that it reads in every step") for key in self._reads],
                [self._packing(key, "a value that it gives in every step", may_be_free=True) for key in self._gives],
                states,
            ),
            weights,
            constants,
            captured,
        )

    def _axes_of_captured(self) -> dict[str, tuple[int, int]]:
        """Where in captured values the sizes of free axes can be read off."""
        found: dict[str, tuple[int, int]] = {}
        for i, value in enumerate(self._captured):
            for axis, formula in enumerate(self._shape(value)[1]):
                if isinstance(formula, Formula) and len(formula.terms) == 1 and formula.divisor == 1:
                    factor, names = formula.terms[0]
                    if factor == 1 and len(names) == 1:
                        found.setdefault(names[0], (i, axis))
        return found

    def _name(self, place: int, taken: Mapping[str, Any]) -> str:
        """The name of the user's variable, if the line of code is an assignment."""
        import linecache

        name = "state"
        for line in reversed(self._statement(place).op.lines):
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
                rows = self._start_rows(evaluation.value(start), packing, self._rows(evaluation.sizes))
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
        dtype = self._float()
        value = value if isinstance(value, Tensor) else torch.tensor(float(value))
        if packing.batch_axis is None:
            return packing.rows(value, batch, dtype)
        shape = [*packing.shape[: packing.batch_axis], batch, *packing.shape[packing.batch_axis :]]
        if value.dim() != len(shape) or any(str(a) != str(b) for a, b in zip(value.shape, shape, strict=True)):
            value = value.expand(shape)
        return packing.rows(value, batch, dtype)

    def _float(self) -> torch.dtype:
        floats = [d for s in self.plan.block.statements for d in s.op.dtypes if d.is_floating_point]
        return floats[0] if floats else torch.float32

    # One step, and all steps at once.

    def _lookup(self, evaluation: Evaluation, known: Mapping[Key, Any]) -> Callable[[Any], Any]:
        def lookup(relation: Any) -> Any:
            if isinstance(relation, Same):
                return known[relation.place, relation.part]
            if isinstance(relation, Carried):
                return known[relation.place, relation.part, len(relation.starts)]
            if isinstance(relation, Fixed):
                return known[relation.value] if relation.value in known else evaluation.value(relation.value)
            return known[relation] if isinstance(relation, Number | ListItem | LoopItem) else relation

        return lookup

    def _interpret(self, places: Iterable[int], evaluation: Evaluation, known: dict[Key, Any]) -> None:
        lookup = self._lookup(evaluation, known)
        for place in places:
            for part, result in enumerate(execute(self._statement(place), lookup)):
                known[place, part] = result

    def _step(
        self, reads: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`rnncore.export.tracing.rolling.cell.RolledCell`."""
        table = dict(zip(self._weights, weights, strict=True))
        paths = {w.path: tensor for w, tensor in table.items() if isinstance(w, Weight)}
        batch = states[0].shape[self._state_packings[0].batch_axis or 0]
        sizes: dict[str, Any] = {name: captured[i].shape[axis] for name, (i, axis) in self._axes.items()}
        sizes |= self._batch_of(batch, sizes)
        evaluation = Evaluation(self.program, [], sizes, paths.__getitem__, {})
        known: dict[Key, Any] = {**table, **dict(zip(self._captured, captured, strict=True))}
        known.update(zip(self._reads, reads, strict=False))
        at = iter(states)
        chains: dict[Key, list[Tensor]] = {}
        for place, part, delay in self.plan.states:
            chains[place, part, delay] = [next(at) for _ in range(delay)]
            known[place, part, delay] = chains[place, part, delay][-1]
        self._interpret(self._fixed_inside, evaluation, known)
        self._interpret(self.plan.core, evaluation, known)
        new = []
        for (place, part, _), chain in chains.items():
            new += [known[place, part], *chain[:-1]]
        return [known[key] for key in self._gives], new

    def _batch_of(self, rows: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """The batch that gives so many rows, nothing where other axes decide as well and are not known in a step."""
        each, names = self._rows.terms[0]
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
        self._interpret(self.plan.fixed, evaluation, fixed)
        along = self._items(evaluation, fixed, turns)
        rest = [place for place in self.plan.before if not self._is_item(place)]
        self._all_at_once(rest, evaluation, fixed, along, turns)
        finals: dict[tuple[int, int], Tensor] = {}
        if self.layer is not None:
            finals = self._recur(evaluation, fixed, along, turns)
        self._all_at_once(self.plan.after, evaluation, fixed, along, turns)
        for key in self.plan.needed:
            if key[0] in self.plan.fixed:
                along[key] = fixed[key].unsqueeze(0).expand(turns, *fixed[key].shape)
        return along, finals

    def _items(self, evaluation: Evaluation, fixed: Mapping[Key, Any], turns: Any) -> dict[Key, Tensor]:
        along: dict[Key, Tensor] = {}
        ordered = not self.reverse
        for place in self.plan.before:
            if self._is_item(place):
                along[place, 0] = self._item(place, self._lookup(evaluation, fixed), turns, evaluation)
        for relation in self._moving([*self.plan.before, *self.plan.core, *self.plan.after]):
            index = Number(relation.start, relation.step)
            if isinstance(relation, LoopItem):
                values, backward = evaluation.loop(relation.loop, relation.place, relation.part)
                if backward:
                    end = self.program.blocks[relation.loop].count(evaluation.sizes) - 1
                    index = Number(given(end - relation.start(evaluation.sizes)), -relation.step)
                along[relation] = take(values, 0, index, turns, evaluation.sizes, ordered=True)
                if self.reverse:
                    along[relation] = along[relation].flip(0)
            else:
                along[relation] = self._list_item(relation, index, turns, evaluation, ordered)
        return along

    def _item(self, place: int, lookup: Callable[[Any], Any], turns: Any, evaluation: Evaluation) -> Tensor:
        statement = self._statement(place)
        dim, index = self._index(place)
        base = lookup(statement.arguments[0][0])
        dim = dim % base.dim()
        if statement.op.target is aten.select.int:
            return take(base, dim, index, turns, evaluation.sizes, ordered=not self.reverse)
        width = statement.op.shapes[0][dim]
        picked = [
            take(
                base,
                dim,
                Number(given(index.start(evaluation.sizes) + k), index.step),
                turns,
                evaluation.sizes,
                ordered=not self.reverse,
            )
            for k in range(width)
        ]
        return picked[0].unsqueeze(dim + 1) if width == 1 else torch.stack(picked, dim + 1)

    def _list_item(
        self, relation: ListItem, index: Number, turns: Any, evaluation: Evaluation, ordered: bool
    ) -> Tensor:
        statement = self.program.statements[relation.op]
        args: list[Any] = [evaluation.value(v) for v in statement.arguments[0]]
        if statement.op.target is aten.unbind.int:
            dim = (args[1] if len(args) > 1 else 0) % args[0].dim()
            return take(args[0], dim, index, turns, evaluation.sizes, ordered=ordered)
        if statement.op.target is aten.split.Tensor and isinstance(args[1], int):
            dim = (args[2] if len(args) > 2 else 0) % args[0].dim()
            pieces = args[0].unflatten(dim, (-1, args[1])) if args[1] > 1 else args[0].unsqueeze(dim + 1)
            return take(pieces, dim, index, turns, evaluation.sizes, ordered=ordered)
        raise ExportError(f"a loop over time cannot be rolled: it goes through the results of {statement.op.target}")

    def _all_at_once(
        self,
        places: Sequence[int],
        evaluation: Evaluation,
        fixed: Mapping[Key, Any],
        along: dict[Key, Tensor],
        turns: Any,
    ) -> None:
        """Run ``places`` for all iterations: what they give is put in ``along``."""
        for n, place in enumerate(places):
            # Under vmap torch takes the sizes of these for constants.
            joins, rows = self._statement(place).op.target in _LISTS, self._rows_along(place, along, places[:n])
            if joins or rows is not None:
                self._all_at_once(places[:n], evaluation, fixed, along, turns)
                if joins:
                    along[place, 0] = self._joined_at_once(place, evaluation, fixed, along, turns)
                else:
                    self._rows_at_once(place, rows, evaluation, fixed, along)
                places = places[n + 1 :]
                self._all_at_once(places, evaluation, fixed, along, turns)
                return
        if not places:
            return
        own = set(places)
        keys = [k for k in self._keys_read(places, {p[0] for p in along if isinstance(p, tuple)} - own)]
        for key in keys:
            if isinstance(key, Number):
                along[key] = self._numbers(key, turns, evaluation)
        wanted = [
            (p, part)
            for p in places
            for part in range(len(self._statement(p).op.shapes))
            if self._is_read((p, part), own)
        ]

        def step(*values: Tensor) -> tuple[Tensor, ...]:
            known = {**fixed, **dict(zip(keys, values, strict=True))}
            self._interpret(places, evaluation, known)
            return tuple(known[key] for key in wanted)

        spread = self._spread(places, evaluation, {**fixed, **{key: along[key] for key in keys}}, set(keys))
        if all(key in spread for key in wanted):
            along.update((key, spread[key]) for key in wanted)
        else:
            along.update(zip(wanted, torch.vmap(step)(*(along[key] for key in keys)), strict=True))

    def _spread(
        self, places: Sequence[int], evaluation: Evaluation, known: dict[Key, Any], moving: set[Key]
    ) -> dict[Key, Tensor]:
        """What ``places`` give in all iterations, as far as :func:`over_all` knows; ``moving``: what of ``known`` does."""

        def moves(relation: Any) -> bool:
            return ((relation.place, relation.part) if isinstance(relation, Same) else relation) in moving

        found: dict[Key, Tensor] = {}
        for place in places:
            statement = self._statement(place)
            args, named = listed(mapped(statement.arguments, self._lookup(evaluation, known)))
            flags = [any(moves(relation) for relation in leaves(argument)) for argument in statement.arguments[0]]
            if any(moves(relation) for relation in leaves(statement.arguments[1])):
                return {}
            args, named = statement.op.with_arguments((args, named))
            result = over_all(statement.op.target, args, named, flags)
            if not isinstance(result, Tensor) or statement.op.several or result.dtype != statement.op.dtypes[0]:
                return {}
            known[place, 0] = found[place, 0] = result
            moving.add((place, 0))
        return found

    def _joined_at_once(
        self, place: int, evaluation: Evaluation, fixed: Mapping[Key, Any], along: Mapping[Key, Tensor], turns: Any
    ) -> Tensor:
        """``cat`` or ``stack`` of one iteration for all of them."""
        statement = self._statement(place)
        entries, *rest = statement.arguments[0]
        dim = int(evaluation.value(rest[0].value)) if rest else 0
        found = []
        for relation in entries:
            key = (relation.place, relation.part) if isinstance(relation, Same) else relation
            if key in along:
                found.append(along[key])
            else:
                value = self._lookup(evaluation, fixed)(relation)
                found.append(value.unsqueeze(0).expand(turns, *value.shape))
        return statement.op.target(found, dim + 1 if dim >= 0 else dim)

    def _rows_along(self, place: int, along: Mapping[Key, Tensor], before: Sequence[int]) -> Key | None:
        """What a layer of images reads, if that is its only argument that differs between iterations."""
        op = self._statement(place).op
        if str(op.target).removeprefix("aten.").partition(".")[0].lstrip("_") not in _BY_ROWS:
            return None
        own = {(r.place, r.part) if isinstance(r, Same) else r for r in self.plan.relations(place)}
        differ = [k for k in own if k in along or (isinstance(k, tuple) and k[0] in before)]
        first = self._statement(place).arguments[0][0]
        key = (first.place, first.part) if isinstance(first, Same) else first
        return key if differ == [key] and len(op.shapes[0]) > 2 else None

    def _rows_at_once(
        self, place: int, key: Key, evaluation: Evaluation, fixed: Mapping[Key, Any], along: dict[Key, Tensor]
    ) -> None:
        """A layer of images on all iterations, as more rows."""
        images = along[key]
        lookup = self._lookup(evaluation, {**fixed, key: images.flatten(0, 1)})
        for part, value in enumerate(execute(self._statement(place), lookup)):
            if isinstance(value, Tensor) and value.dim() > 2:  # not the statistics that a normalisation gives beside
                along[place, part] = value.unflatten(0, images.shape[:2])

    def _is_read(self, key: tuple[int, int], own: set[int]) -> bool:
        others = {*self.plan.before, *self.plan.core, *self.plan.after} - own
        return key in self.plan.needed or any(
            isinstance(r, Same) and (r.place, r.part) == key for p in others for r in self.plan.relations(p)
        )

    def _numbers(self, number: Number, turns: Any, evaluation: Evaluation) -> Tensor:
        steps = torch.arange(turns)
        if self.reverse:
            steps = steps.flip(0)
        return steps * number.step + number.start(evaluation.sizes)

    def _recur(
        self, evaluation: Evaluation, fixed: Mapping[Key, Any], along: dict[Key, Tensor], turns: Any
    ) -> dict[tuple[int, int], Tensor]:
        assert self.layer is not None and isinstance(self.layer.cell, RolledCell)
        cell, batch, dtype = self.layer.cell, self._rows(evaluation.sizes), self._float()
        for key in self._reads:
            if isinstance(key, Number) and key not in along:
                along[key] = self._numbers(key, turns, evaluation)
        packed = [self._packing(key, "").packed(along[key], batch, dtype) for key in self._reads]
        packed = packed or [torch.zeros(1, 1, 1, dtype=dtype).expand(batch, turns, 1)]
        x = torch.cat(packed, 2) if len(packed) > 1 else packed[0]
        known = {**fixed}
        cell.captured = tuple(known[v] if v in known else evaluation.value(v) for v in self._captured)
        state = None
        if cell.starts is None:
            rows = [
                self._start_rows(evaluation.value(start), p.at(evaluation.sizes), batch)
                for start, p in zip(self._starts, self._state_packings, strict=True)
            ]
            state = tuple(r if p.shape else r.unsqueeze(1) for r, p in zip(rows, self._state_packings, strict=True))
        packings = [self._packing(key, "", may_be_free=True).at(evaluation.sizes) for key in self._gives]
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
