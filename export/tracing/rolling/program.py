"""A module with loops over time as one without: the same numbers, each loop one recurrent call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.chosen_outputs import chosen_names, left_out_by
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.full_rows import FullRows
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.rolling.alignment import Aligner
from rnncore.export.tracing.rolling.constants_of_sizes import with_sizes_in_constants
from rnncore.export.tracing.rolling.counters import with_counters
from rnncore.export.tracing.rolling.evaluation import Evaluation
from rnncore.export.tracing.rolling.first_steps import with_first_steps
from rnncore.export.tracing.rolling.fitting import FRAMES
from rnncore.export.tracing.rolling.frames import are_told, frame_rules
from rnncore.export.tracing.rolling.log import Log, leaves
from rnncore.export.tracing.rolling.loop import RolledLoop, as_module
from rnncore.export.tracing.rolling.merging import Block, Merger, Program
from rnncore.export.tracing.rolling.numbers_of_sizes import has_floats_of_sizes, with_numbers_of_sizes
from rnncore.export.tracing.rolling.own_way import check_not_far, check_own_way, has_rests, own_steps
from rnncore.export.tracing.rolling.plan import LoopPlan, plan_loops
from rnncore.export.tracing.rolling.recordings import recorded
from rnncore.export.tracing.rolling.relations import Carried, Same
from rnncore.export.tracing.rolling.rows_at_once import with_rows_at_once
from rnncore.export.tracing.rolling.settled import agree
from rnncore.export.tracing.rolling.writes import Collected
from rnncore.layers import Recurrent
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH, TIME

_SHORTER = ((0, 6), (1, 6), (4, 12))
"""By how much the longest row is shorter than the array, and of how many steps that is at least; strides make it less."""


_FEW_OPERATIONS = 2000
"""So many are recorded at most where more steps are tried than mostly tell."""


class RolledProgram(nn.Module):
    """What ``module`` computes, written down as a program whose loops are rolled.

    layer_names: how layers are called in the file, by their path in this module.  left_out: outputs of ``module`` that it has at
    other values than the example's only.
    """

    left_out: tuple[str, ...] = ()

    def __init__(
        self, module: nn.Module, program: Program, log: Log, example: Example, layers: dict[str, Recurrent]
    ) -> None:
        super().__init__()
        self.module = module
        self.program = program
        self._example = example
        self._named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._plans = plan_loops(program)
        self.loops = [RolledLoop(program, plan, log, self._weight) for plan in self._plans]
        self.loop_layers = as_module(self.loops)
        self._layers = layers
        self.other_layers = nn.ModuleList(dict.fromkeys(layers.values()))
        self.layer_names = self._names()
        self.eval()

    def _weight(self, path: str) -> Tensor:
        owner, _, name = path.rpartition(".")
        return getattr(self.module.get_submodule(owner), name)

    def _names(self) -> dict[str, str]:
        known = {layer: name.replace("stack.", "") for name, layer in self._layers.items()}
        names = {path: known[m] for path, m in self.named_modules(remove_duplicate=False) if m in known}
        taken: Counter[str] = Counter()
        rolled = [loop for loop in self.loops if loop.layer is not None]
        for i, loop in enumerate(rolled):
            paths = [loop.plan.block.statements[p].op.path.split(".") for p in loop.plan.core]
            same = takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
            path = ".".join(column[0] for column in same) or "loop"
            taken[path] += 1
            names[f"loop_layers.{i}"] = path if taken[path] == 1 else f"{path}.loop_{taken[path]}"
        return names

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The outputs of the module by name."""
        tensors = [t for _, t in named_tensors([*args, *kwargs.values()], "")]
        sizes: dict[str, Any] = {}
        for own, tensor in zip(self._example.inputs, tensors, strict=True):
            for name, size in zip(own.axes, tensor.shape, strict=True):
                if name is not None:
                    sizes.setdefault(name, size)
        evaluation = Evaluation(self.program, tensors, sizes, self._weight, self._layers)
        results: dict[int, tuple[dict[tuple[int, int], Tensor], dict[tuple[int, int], Tensor]]] = {}

        def run(number: int) -> None:
            if number not in results:
                results[number] = self.loops[number].run(evaluation)

        def along(number: int, place: int, part: int) -> tuple[Tensor, bool]:
            run(number)
            return _along(self._plans[number], results[number][0], place, part), self.loops[number].reverse

        def last(number: int, place: int, part: int) -> Tensor | None:
            run(number)
            plan = self._plans[number]
            if place in plan.collected:
                return _collect(plan, plan.collected[place], results[number][0], evaluation, self.loops[number].reverse)
            return results[number][1].get((place, part))

        evaluation.loop, evaluation.last = along, last
        return {name: evaluation.value(value) for name, value in self.program.outputs}


def _along(plan: LoopPlan, results: dict[tuple[int, int], Tensor], place: int, part: int) -> Tensor:
    if place in plan.collected:
        raise ExportError("a loop over time cannot be rolled: a tensor is read while the loop still writes it")
    return results[place, part]


def _collect(
    plan: LoopPlan, what: Collected, results: dict[tuple[int, int], Tensor], evaluation: Evaluation, reverse: bool
) -> Tensor:
    """The tensor that a loop has filled."""
    source = what.source
    if isinstance(source, Carried) or not isinstance(source, Same):
        raise ExportError(
            "a loop over time cannot be rolled: it writes a value of an earlier step, or a constant, into a tensor"
        )
    values, turns = results[source.place, source.part], plan.block.count(evaluation.sizes)
    if what.index is None:
        values = values.flip(0) if reverse != what.in_front else values
        start = evaluation.value(what.start)
        dim = what.dim % start.dim()
        joined = values.movedim(0, dim).flatten(dim, dim + 1)
        return torch.cat([joined, start] if what.in_front else [start, joined], dim)
    step = int(what.index.step)
    first = what.index.start(evaluation.sizes)
    dim = what.dim
    start = evaluation.value(what.start)
    dim = dim % start.dim()
    if (step < 0) != reverse:
        values = values.flip(0)
    low = first if step > 0 else first + (turns - 1) * step
    values = values.movedim(0, dim)
    if what.wide:
        values = values.flatten(dim, dim + 1)
        width = values.shape[dim]
        return (
            values
            if _covers(what, start, width, dim, low)
            else torch.slice_scatter(start, values, dim, low, low + width, 1)
        )
    if abs(step) == 1 and _covers(what, start, turns, dim, low):
        return values if values.dtype == start.dtype else values.to(start.dtype)
    # A loop that does not turn, as over range(1, 1), gives no rows either: onnxruntime has their number from here.
    values = values.reshape([turns if axis == dim else size for axis, size in enumerate(start.shape)])
    return torch.slice_scatter(start, values, dim, low, low + (turns - 1) * abs(step) + 1, abs(step))


def _covers(what: Collected, start: Tensor, turns: Any, dim: int, low: Any) -> bool:
    return str(start.shape[dim]) == str(turns) and str(low) == "0"


def roll(
    module: nn.Module, example: Example, operators: Operators, seed: int, *, always: bool = False
) -> RolledProgram | None:
    """``module`` with its loops over time rolled; None if it has none, unless ``always``, or cannot be recorded.

    Raises:
        ExportError: it has such loops, but they cannot be rolled; says why, and where.
    """
    try:
        return _roll(module, example, operators, seed, always=always)
    except ExportError as error:
        # Code may read the lengths one by one: then rows of one length are not all that there is.
        for shorter, least in _SHORTER if example.lengths is not None or example.counts else ():
            with suppress(ExportError):
                found = _roll(module, replace(example, shorter=shorter), operators, seed, (least,))
                if found is not None:
                    return found
        if not str(error):
            return None
        raise


def _roll(
    module: nn.Module,
    example: Example,
    operators: Operators,
    seed: int,
    steps: Sequence[int] = (6, 12, 24),
    always: bool = False,
) -> RolledProgram | None:
    """The same for lengths that are all full, or differ; an empty ExportError where it cannot be recorded."""
    failure = ExportError("")
    logs: Sequence[Log] = []
    longer = (
        96 if own_steps(example) >= 96 else 25
    )  # where fewer steps go another way, or do not tell rules for sizes apart
    most = max(longer, own_steps(example))  # of raw audio, even those may be one frame
    for least in dict.fromkeys((*steps, longer, most)) if len(steps) > 1 else steps:
        if least >= longer and (not str(failure) or len(logs[0].ops) > _FEW_OPERATIONS):
            break
        try:
            logs, layers, asks, more = recorded(module, example, operators, seed, least)
            rules = frame_rules(logs)
            if str(failure) and least < most and not are_told(logs, rules):
                continue
            FRAMES.set(tuple(rules))
        except ExportError:
            raise
        except Exception as error:  # not at such sizes
            pass_on_interruption(error)
            continue
        rows = with_rows_at_once(logs)
        readings = [] if rows is None else [rows]
        readings += [logs] if example.shorter is None else []  # else numbers of rows are left in it
        for own in readings:
            try:
                found = _rolled(module, example, own, layers, seed, is_plain=not always and not asks and own is logs)
                if found is not None and has_rests(found.program):
                    check_own_way(module, found, example, seed)
                if found is not None and layers:
                    check_not_far(module, found, example, seed)
                if found is not None:
                    found.left_out = tuple(more)
                return found
            except ExportError as error:
                failure = error
    raise ExportError(f"{type(module).__name__}: {failure}{_way_out(logs)}" if str(failure) else "")


def _way_out(logs: Sequence[Log]) -> str:
    """How to leave out the outputs that stay as large as they are whatever there is of anything, such as a loss."""
    if len({len(log.outputs) for log in logs}) > 1:
        return ""
    names = chosen_names([name for name, _ in logs[0].outputs])
    shapes = zip(*([log.shape(value) for _, value in log.outputs] for log in logs), strict=True)
    found = left_out_by(names, {name for name, own in zip(names, shapes, strict=True) if len(set(own)) == 1})
    return found and f"\n  An output belongs to no row{found}"


def _rolled(
    module: nn.Module, example: Example, logs: Sequence[Log], layers: dict[str, Recurrent], seed: int, *, is_plain: bool
) -> RolledProgram | None:
    """The program that is written in ``logs``; None where no loop follows a size."""
    logs, follows = with_sizes_in_constants(logs)
    if len({len(log.ops) for log in logs}) == 1 and is_plain and not follows and not isinstance(module, FullRows):
        floats = has_floats_of_sizes(logs)
        if not floats and layers:
            return None
        try:
            program = _merged(logs)
        except ExportError:  # torch's own trace knows some of them
            return None
        if not floats and not any(
            _carries(block) for block in program.blocks
        ):  # else it goes over a window of so many steps
            return None
    else:
        program = _merged(logs)
    joined = with_first_steps(program)
    rolled = RolledProgram(module, program, logs[0], example, layers)
    if joined is not None:
        rolled = _with_joined(rolled, joined, logs[0], example, layers, seed)
    rolled.__class__ = type(type(module).__name__, (RolledProgram,), {})
    return rolled


def _carries(block: Block) -> bool:
    return any(isinstance(value, Carried) for statement in block.statements for value in leaves(statement.arguments))


def _merged(logs: Sequence[Log]) -> Program:
    return with_numbers_of_sizes(with_counters(Merger(Aligner(logs, grown=3).run()).run()))


def _with_joined(
    rolled: RolledProgram, joined: Program, log: Log, example: Example, layers: dict[str, Recurrent], seed: int
) -> RolledProgram:
    """The program with first steps in their loops where it answers as ``rolled`` does, else that."""
    try:
        other = RolledProgram(rolled.module, joined, log, example, layers)
        for sizes in ({BATCH: 2, TIME: log.sizes.get(TIME, 1)}, {BATCH: 3, TIME: 3 * log.sizes.get(TIME, 1)}):
            tensors = example.draw({**log.sizes, **sizes}, torch.Generator().manual_seed(seed))
            with torch.no_grad():
                wanted, got = ([v for _, v in named_tensors(example.call(m, tensors), "")] for m in (rolled, other))
            if not agree(got, wanted):
                return rolled
    except Exception as error:  # whatever it is, it was right before
        pass_on_interruption(error)
        return rolled
    return other
