"""Run a program of statements and loops on tensors: eagerly, or while torch traces it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Constant, Input, LayerCall, Weight, leaves, mapped
from rnncore.export.tracing.rolling.merging import Program, Run, Statement
from rnncore.export.tracing.rolling.relations import Inside, Number, Outside
from rnncore.export.tracing.rolling.writes import StartPart
from rnncore.layers import Recurrent
from rnncore.runtime.errors import ExportError

aten = torch.ops.aten
Lookup = Callable[[Any], Any]


def execute(statement: Statement, lookup: Lookup) -> list[Any]:
    """The results of a statement whose arguments ``lookup`` gives."""
    args, kwargs = statement.op.with_arguments(listed(mapped(statement.arguments, lookup)))
    if statement.op.target is aten.full.default and isinstance(args[1], Tensor):  # the number of this iteration
        return [args[1].to(statement.op.dtypes[0]).expand(args[0])]
    result = statement.op.target(*args, **kwargs)
    return list(result) if isinstance(result, list | tuple) else [result]


def listed(value: Any) -> Any:
    """Tuples inside the arguments as lists, which is what torch's operators take; the outer two stay."""
    args, named = value
    return tuple(_as_list(v) for v in args), tuple(_as_list(v) for v in named)


def _as_list(value: Any) -> Any:
    return [_as_list(v) for v in value] if isinstance(value, tuple) else value


def take(value: Tensor, dim: int, index: Number, turns: Any, sizes: Mapping[str, Any], *, ordered: bool) -> Tensor:
    """The entries ``index`` along ``dim`` of all iterations, as [turns, ...].

    ordered: by iteration; else in the order in which they stand, which is the reverse where the index goes down.
    """
    start, step = index.start(sizes), int(index.step)
    if isinstance(index.start, Formula) and index.start.constant and start < 0:
        start = start + value.shape[dim]
    low = start if step > 0 else start + (turns - 1) * step
    whole = abs(step) == 1 and isinstance(low, int) and low == 0 and str(turns) == str(value.shape[dim])
    if not whole:
        value = aten.slice.Tensor(value, dim, low, low + (turns - 1) * abs(step) + 1, abs(step))
    value = value.movedim(dim, 0) if dim != 0 else value
    return value.flip(0) if step < 0 and ordered else value


class Evaluation:
    """One run of a program.

    weight: a parameter or buffer by path.  layers: recurrent layers by name.  sizes: of the free axes.
    loop: (number, place, part) -> what it gave in all iterations, [turns, ...], and whether these stand in reverse.
    """

    def __init__(
        self,
        program: Program,
        tensors: Sequence[Tensor],
        sizes: Mapping[str, Any],
        weight: Callable[[str], Tensor],
        layers: Mapping[str, Recurrent],
    ) -> None:
        self.program = program
        self.sizes = sizes
        self._tensors = tensors
        self._weight = weight
        self._layers = layers
        self._results: dict[int, list[Any]] = {}
        self.loop: Callable[[int, int, int], tuple[Tensor, bool]] = _no_loops
        self.last: Callable[[int, int, int], Tensor | None] = lambda loop, place, part: None

    def value(self, value: Any) -> Any:
        """What a value of the program is in this run."""
        match value:
            case Formula():
                return value(self.sizes)
            case Input():
                return self._tensors[value.index]
            case Weight():
                return self._weight(value.path)
            case Constant():
                return value.tensor()
            case Outside(part=Formula()):
                return self._entry(value.op, value.part(self.sizes))
            case Outside():
                if value.op not in self._results and self._is_list_of_any_length(value.op):
                    return self._entry(value.op, value.part)
                if value.op not in self._results:
                    self.run(value.op)
                return self._results[value.op][value.part]
            case Inside():
                return self._inside(value)
            case StartPart():
                index = value.index.start(self.sizes) + value.index.step
                return aten.select.int(self.value(value.value), value.dim, index)
        return value

    def run(self, number: int) -> None:
        """Run the statement outside of loops under this number."""
        statement = self.program.statements[number]
        runs = [v for v in leaves(statement.arguments) if isinstance(v, Run)]
        if runs:
            self._results[number] = [self._joined(statement)]
        elif isinstance(statement.op.target, LayerCall):
            self._results[number] = self._call(statement.op.target, [self.value(v) for v in statement.arguments[0]])
        else:
            self._results[number] = execute(statement, self.value)

    def _is_list_of_any_length(self, number: int) -> bool:
        """Whether a statement makes a list that is as long as an axis, such as ``for x in inputs``: a trace makes none."""
        statement = self.program.statements[number]
        place = {aten.unbind.int: 1, aten.split.Tensor: 2}.get(statement.op.target)  # of the axis among the arguments
        if place is None:
            return False
        args = [self.value(v) for v in statement.arguments[0]]
        if statement.op.target is aten.split.Tensor and not isinstance(args[1], int):
            return False  # so many parts, each as large as an axis
        return not isinstance(args[0].shape[args[place] if len(args) > place else 0], int)

    def _entry(self, number: int, index: Any) -> Tensor:
        """Entry ``index`` of the list that the statement under this number makes of one tensor."""
        statement = self.program.statements[number]
        args = [self.value(v) for v in statement.arguments[0]]
        if statement.op.target is aten.unbind.int:
            return aten.select.int(args[0], args[1] if len(args) > 1 else 0, index)
        if statement.op.target is aten.split.Tensor and isinstance(args[1], int):
            start = index * args[1]
            return aten.slice.Tensor(args[0], args[2] if len(args) > 2 else 0, start, start + args[1])
        raise ExportError(f"a loop over time cannot be rolled: it reads the end of what {statement.op.target} gives")

    def _call(self, call: LayerCall, arguments: list[Any]) -> list[Any]:
        lengths = arguments.pop() if call.has_lengths else None
        x, *states = arguments
        y, final = self._layers[call.name](x, tuple(states) if call.given else None, lengths)
        return [y, *final]

    def _inside(self, value: Inside) -> Any:
        count = self.program.blocks[value.loop].count
        at_end = value.iteration(self.sizes) - count(self.sizes)
        from_end = isinstance(at_end, int) or str(at_end).lstrip("-").isdigit()
        if from_end and int(at_end) == -1:
            last = self.last(value.loop, value.place, value.part)
            if last is not None:
                return last
        along, reverse = self.loop(value.loop, value.place, value.part)
        index = value.iteration(self.sizes)
        if reverse:
            index = count(self.sizes) - 1 - index
        return aten.select.int(along, 0, index)

    def _joined(self, statement: Statement) -> Tensor:
        """``stack`` or ``cat`` of a list with results of many iterations in it."""
        target = statement.op.target
        if target not in (aten.stack.default, aten.cat.default):
            raise ExportError(f"a list of the results of a loop goes into {target}; stack or cat is what can be rolled")
        entries, *rest = statement.arguments[0]
        dim = int(self.value(rest[0])) if rest else 0
        rank = len(statement.op.shapes[0]) - (target is aten.stack.default)
        dim = dim % (rank + (target is aten.stack.default))
        pieces = []
        for entry in entries:
            if isinstance(entry, Run):
                pieces.append(self._run_piece(entry, dim, stacked=target is aten.stack.default))
            else:
                value = self.value(entry)
                pieces.append(value.unsqueeze(dim) if target is aten.stack.default else value)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)

    def _run_piece(self, run: Run, dim: int, *, stacked: bool) -> Tensor:
        columns = []
        turns = run.turns(self.sizes)
        for place, part in run.places:
            along, reverse = self.loop(run.loop, place, part)
            count = self.program.blocks[run.loop].count(self.sizes)
            first = run.first(self.sizes)
            start, step = (count - 1 - first, -run.step) if reverse else (first, run.step)
            columns.append(take(along, 0, Number(_Given(start), step), turns, self.sizes, ordered=True))
        whole = columns[0] if len(columns) == 1 else torch.stack(columns, 1).flatten(0, 1)
        if stacked:
            return whole.movedim(0, dim) if dim else whole
        return whole.movedim(0, dim).flatten(dim, dim + 1) if dim else whole.flatten(0, 1)


class _Given:
    """A number that is known already, where a formula is expected."""

    constant = False

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, sizes: Mapping[str, Any]) -> Any:
        return self._value


def given(value: Any) -> Any:
    """A formula that is ``value``."""
    return _Given(value)


def _no_loops(loop: int, place: int, part: int) -> tuple[Tensor, bool]:
    raise ExportError("a value of a loop is read before the loop")
