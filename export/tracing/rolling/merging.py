"""One program out of aligned logs: every number a formula of the sizes, every list of many iterations a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from rnncore.export.tracing.rolling.alignment import Aligned, Loop
from rnncore.export.tracing.rolling.curves import fit_curve
from rnncore.export.tracing.rolling.fitting import Formula, fit
from rnncore.export.tracing.rolling.log import Constant, Input, Op, Ref, mapped
from rnncore.export.tracing.rolling.relations import Inside, Outside
from rnncore.runtime.errors import ExportError


@dataclass(frozen=True)
class Run:
    """Entries of a list that are what places of one loop gave, iteration by iteration.

    places: (place, part), those of one iteration.  first: the iteration of the first entries.  step: 1, or -1 backward.
    """

    loop: int
    places: tuple[tuple[int, int], ...]
    first: Any
    step: int
    turns: Any


@dataclass
class Statement:
    """One operation of the program.  arguments: as :attr:`Op.everything`, merged.  shapes: of its results, as formulas."""

    op: Op
    arguments: tuple[Any, ...]
    shapes: list[tuple[Formula | None, ...]]


@dataclass
class Block:
    """A loop of the program: statements of one iteration whose arguments are relations."""

    count: Formula
    statements: list[Statement]


@dataclass
class Program:
    """Statements outside by their number, loops by theirs, and the order of both; outputs by name; shapes of inputs."""

    statements: list[Statement]
    blocks: list[Block]
    order: list[tuple[str, int]]
    outputs: list[tuple[str, Any]]
    input_shapes: dict[Any, tuple[Formula | None, ...]]


class Merger:
    """Merges what each log has in one place."""

    def __init__(self, aligned: Aligned) -> None:
        self.aligned = aligned
        self.points = [log.sizes for log in aligned.logs]

    def run(self) -> Program:
        """The program.

        Raises:
            ExportError: something changes with the sizes in a way that no formula says; names the line of code.
        """
        statements = [self._statement(ops) for ops in self.aligned.outside]
        blocks = [self._block(loop) for loop in self.aligned.loops]
        outputs = []
        numbers = [len(log.outputs) for log in self.aligned.logs]
        if len(set(numbers)) > 1:
            raise ExportError(
                f"forward gives {min(numbers)} outputs at one size and {max(numbers)} at another, as a list of steps does, and a "
                "file has as many for every size: stack them into one tensor"
            )
        for entries in zip(*(log.outputs for log in self.aligned.logs), strict=True):
            values = [self._address(s, value) for s, (_, value) in enumerate(entries)]
            outputs.append((entries[0][0], self._merge(values, None)))
        logs = self.aligned.logs
        shapes = {
            value: tuple(fit(dims, self.points) for dims in zip(*(log.shapes[value] for log in logs), strict=True))
            for value in logs[0].shapes
            if isinstance(value, Input)
        }
        return Program(statements, blocks, self.aligned.order, outputs, shapes)

    def _address(self, s: int, value: Any) -> Any:
        return self.aligned.address(s, value) if isinstance(value, Ref) else value

    def _statement(self, ops: Sequence[Op]) -> Statement:
        everything = [mapped(op.everything, partial(self._address, s)) for s, op in enumerate(ops)]
        return Statement(ops[0], self._merge(everything, ops[0]), self._shapes(ops))

    def _shapes(self, ops: Sequence[Op]) -> list[tuple[Formula | None, ...]]:
        return [
            tuple(fit(dims, self.points) for dims in zip(*shapes, strict=True))
            for shapes in zip(*(op.shapes for op in ops), strict=False)
        ]

    def _block(self, loop: Loop) -> Block:
        statements = []
        for place in range(loop.period):
            ops = [log_ops[place] for log_ops in loop.ops]
            merged = [
                self._merge(list(column), ops[0])
                for column in zip(*(rows[place] for rows in loop.relations), strict=True)
            ]
            statements.append(Statement(ops[0], _filled(ops[0].everything, merged), self._shapes(ops)))
        return Block(loop.count, statements)

    def _merge(self, values: Sequence[Any], op: Op | None) -> Any:
        first = values[0]
        if all(isinstance(value, tuple) for value in values):
            lists = [_with_runs(value) for value in values] if _has_inside(values) else list(values)
            if len({len(value) for value in lists}) > 1:
                raise refusal(op, "a list whose length follows the number of steps in another way than a loop's")
            return tuple(self._merge(column, op) for column in zip(*lists, strict=True))
        if len({type(value) for value in values}) > 1:
            raise refusal(op, "an argument that is of another kind for other numbers of steps")
        if type(first) in (int, float):
            curve = (
                fit_curve(values, self.points) if type(first) is float and fit(values, self.points) is None else None
            )
            return curve or self._fit(values, op)
        if (
            isinstance(first, Outside)
            and len({value.op for value in values}) == 1
            and _is_followed(values, self.aligned)
        ):
            return replace(first, part=self._fit([value.part for value in values], op))
        if type(first).__module__ == Run.__module__ or type(first).__module__ == Inside.__module__:
            return replace(
                first, **{f.name: self._field(f.name, [getattr(v, f.name) for v in values], op) for f in fields(first)}
            )
        if any(value != first for value in values[1:]):
            what = "a constant" if isinstance(first, Constant) else "an argument"
            raise refusal(op, f"{what} that changes with the number of steps")
        return first

    def _field(self, name: str, values: Sequence[Any], op: Op | None) -> Any:
        if name in ("start", "iteration", "first", "turns"):
            return self._fit(values, op)
        if name in ("value", "starts"):
            return self._merge(values, op)
        if any(value != values[0] for value in values):
            raise refusal(op, "a value that comes from elsewhere for other numbers of steps")
        return values[0]

    def _fit(self, values: Sequence[Any], op: Op | None) -> Formula:
        found = fit(values, self.points)
        if found is None:
            sizes = ", ".join(f"{v} at {dict(p)}" for v, p in zip(values[:3], self.points, strict=False))
            raise refusal(op, f"a number that follows the sizes by no rule that is known ({sizes})")
        return found


def refusal(op: Op | None, what: str) -> ExportError:
    """Why a loop over time cannot be rolled, with the line of code of ``op``."""
    line = f"\n  {op.lines[-1]}" if op is not None and op.lines else ""
    return ExportError(f"a loop over time cannot be rolled: {what}{line}")


def _is_followed(values: Sequence[Outside], aligned: Aligned) -> bool:
    """Whether these are entries of a list, at a place that follows the sizes: the last step, which a loop backward peels."""
    return len({value.part for value in values}) > 1 and aligned.outside[values[0].op][0].several


def _filled(everything: tuple[Any, ...], values: Sequence[Any]) -> tuple[Any, ...]:
    """``everything`` with other leaves, in order."""
    source = iter(values)

    def take(_: Any) -> Any:
        return next(source)

    return mapped(everything, take)


def _has_inside(values: Sequence[tuple[Any, ...]]) -> bool:
    return any(isinstance(entry, Inside) for value in values for entry in value)


def _with_runs(entries: Sequence[Any]) -> tuple[Any, ...]:
    """``entries`` with each succession of iterations as one :class:`Run`."""
    found: list[Any] = []
    i = 0
    while i < len(entries):
        run = next((r for width in range(1, 5) if (r := _run(entries[i:], width)) is not None), None)
        found.append(entries[i] if run is None else run)
        i += 1 if run is None else run.turns * len(run.places)
    return tuple(found)


def _run(entries: Sequence[Any], width: int) -> Run | None:
    head = entries[: 2 * width]
    if len(head) < 2 * width or not all(isinstance(e, Inside) for e in head):
        return None
    first, step = head[0], head[width].iteration - head[0].iteration
    if step not in (1, -1) or len({(e.loop, e.iteration) for e in head[:width]}) > 1:
        return None

    def wanted(k: int) -> Inside:
        return replace(head[k % width], iteration=first.iteration + step * (k // width))

    n = next((k for k, e in enumerate(entries) if e != wanted(k)), len(entries)) // width
    places = tuple((e.place, e.part) for e in head[:width])
    return Run(first.loop, places, first.iteration, step, n) if n > 1 else None
