"""A first step that the code treats by itself (``if h is None``, ``if t == 0``), put back into its loop.

Such a step stands outside of the loop, which then begins with a state that was computed from the input: nothing that a
stream could carry.  Where the step does what all others do, with states that stood before it, the loop begins one step
earlier.  Else the loop computes both in every step, and a state of its own says which of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rnncore.export.tracing.rolling.first_step_matching import Key, Matching, earlier, equal, plus
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Input, Op, leaves, mapped
from rnncore.export.tracing.rolling.merging import Block, Program, Run, Statement
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, LoopItem, Outside, Same
from rnncore.runtime.format.axes import BATCH, TIME

aten = torch.ops.aten
Label = Any
"""A place of the new loop: ("old", place), ("copy", operation outside), ("chosen", key), ("flag", kind), ("asks", kind)."""
_FIRST = Formula(((0, ()),))


class _Separate(Exception):
    """The first step stays outside of the loop."""


def with_first_steps(program: Program) -> Program | None:
    """``program`` with the first steps of its loops in them; None if all are.  What is given stays as it is."""
    current, changed = program, False
    for number in range(len(program.blocks)):
        try:
            current, changed = _Joiner(current, number).run(), True
        except _Separate:
            continue
    return current if changed else None


class _Joiner:
    """Makes the program in which loop ``number`` has one step more."""

    def __init__(self, program: Program, number: int) -> None:
        self._program, self._number, self._block = program, number, program.blocks[number]
        self._starts = self._carried()
        self._matching = Matching(program, self._block, self._starts, every=True)
        if not all(map(self._is_regular, self._starts)):
            self._matching = Matching(program, self._block, self._starts, every=False)
        self._chosen = [key for key in self._starts if not self._is_regular(key)]
        self._copies: dict[int, Statement] = {}
        self._outside = list(program.statements)
        self._flags: dict[Any, Carried] = {}
        self._zeros: dict[Key, Outside] = {}
        self._first = {key: self._relation(self._starts[key]) for key in self._chosen}
        self._refuse_circles()
        self._new = self._places()
        self._numbers = {label: n for n, label in enumerate(self._new)}

    def _carried(self) -> dict[Key, Any]:
        found: dict[Key, Any] = {}
        for statement in self._block.statements:
            for r in leaves(statement.arguments):
                if isinstance(r, Carried) and (
                    len(r.starts) != 1 or found.setdefault((r.place, r.part), r.starts[0]) != r.starts[0]
                ):
                    raise _Separate
        if not any(isinstance(start, Outside) and self._follows_time(start) for start in found.values()):
            raise _Separate
        return found

    def _is_regular(self, key: Key) -> bool:
        """Whether the state comes out of the first step as out of any other."""
        return self._matching.is_at(self._starts[key], *key) and key in self._matching.before

    def _follows_time(self, value: Any) -> bool:
        """Whether a value from outside is computed from what moves along time."""
        todo, seen = [value], set()
        while todo:
            value = todo.pop()
            if isinstance(value, Outside) and value.op not in seen:
                seen.add(value.op)
                statement = self._program.statements[value.op]
                todo += leaves(statement.arguments)
                if any(f is None or TIME in f.axes for shape in statement.shapes for f in shape):
                    return True
            elif isinstance(value, Input):
                if any(f is None or TIME in f.axes for f in self._program.input_shapes.get(value, (None,))):
                    return True
            elif isinstance(value, Inside | Run) or (isinstance(value, Formula) and TIME in value.axes):
                return True
        return False

    # The step that stands outside, as places of the loop.

    def _relation(self, value: Any) -> Any:
        """What a value of the first step is in the loop, where only its numbers in that step matter."""
        place = self._matching.place_of(value)
        if place is not None and place not in self._matching.waiting:
            return Same(("old", place), value.part)  # type: ignore[arg-type]
        moving = self._matching.moving_of(value)
        if moving is not None:
            return moving
        if not self._follows_time(value):
            return Fixed(value)
        if not isinstance(value, Outside) or not isinstance(value.part, int):
            raise _Separate
        if value.op not in self._copies:
            self._copies[value.op] = self._copy(self._program.statements[value.op])
        return Same(("copy", value.op), value.part)  # type: ignore[arg-type]

    def _copy(self, statement: Statement) -> Statement:
        sizes = [f for shape in statement.shapes for f in shape]
        if any(f is None or TIME in f.axes for f in sizes) or not isinstance(
            statement.op.target, torch._ops.OpOverload
        ):
            raise _Separate
        picked = self._matching.picked(statement)
        return replace(statement, arguments=picked or mapped(statement.arguments, self._relation))

    def _refuse_circles(self) -> None:
        """Nothing that the loop reads may be computed from the states after its first step."""
        starts = {v.op for v in self._starts.values() if isinstance(v, Outside) and self._follows_time(v)}
        todo: list[Any] = [*self._matching.before.values()]
        for statement in (*self._block.statements, *self._copies.values()):
            for r in leaves(statement.arguments):
                todo += [r.value] if isinstance(r, Fixed) else [Outside(r.op, 0)] if hasattr(r, "op") else []
        seen: set[int] = set()
        while todo:
            value = todo.pop()
            if isinstance(value, Outside) and value.op not in seen:
                seen.add(value.op)
                todo += leaves(self._program.statements[value.op].arguments)
        if seen & starts:
            raise _Separate

    # The loop with that step.

    def _places(self) -> dict[Label, Statement]:
        waiting, old = self._matching.waiting, self._block.statements
        found: dict[Label, Statement] = {}
        for place in (p for p in range(len(old)) if p not in waiting):
            found["old", place] = replace(old[place], arguments=mapped(old[place].arguments, self._moved))
        for number, statement in self._copies.items():
            found["copy", number] = statement
        asks = {key: self._asks(key, found) for key in self._chosen}
        for place in sorted(waiting):
            found["old", place] = replace(old[place], arguments=mapped(old[place].arguments, self._moved))
            for key in self._chosen:
                if key[0] == place:
                    found["chosen", key] = self._choice(key, asks[key])
        for key in self._chosen:  # of places that do not wait
            found.setdefault(("chosen", key), self._choice(key, asks[key]))
        return found

    def _shape(self, key: Key) -> tuple[tuple[int, ...], tuple[Formula, ...]]:
        """The shape of a carried value in the log, and as formulas; without free axes but that of the batch."""
        statement = self._block.statements[key[0]]
        formulas = tuple(f for f in statement.shapes[key[1]] if f is not None and f.axes <= {BATCH})
        if len(formulas) < len(statement.shapes[key[1]]) or not statement.op.dtypes[key[1]].is_floating_point:
            raise _Separate
        return statement.op.shapes[key[1]], formulas

    def _full(self, like: Op, shape: Sequence[int], formulas: Sequence[Formula], dtype: torch.dtype) -> Outside:
        """A tensor of zeros, outside."""
        op = Op(aten.full.default, (tuple(shape), 0.0), {"dtype": dtype}, [tuple(shape)], [dtype], False, (), like.path)
        self._outside.append(Statement(op, ((tuple(formulas), 0.0), (dtype,)), [tuple(formulas)]))
        return Outside(len(self._outside) - 1, 0)

    def _asks(self, key: Key, found: dict[Label, Statement]) -> Label:
        """The place that asks whether this step is the first, one flag for all states of a shape; added to ``found``."""
        shape, formulas = self._shape(key)
        axes = [axis for axis, f in enumerate(formulas) if BATCH in f.axes]
        if len(axes) != 1:
            raise _Separate
        op = self._block.statements[key[0]].op
        dtype, one = op.dtypes[key[1]], Formula(((1, ()),))
        kind = (len(shape), axes[0], formulas[axes[0]], dtype)
        if kind not in self._flags:
            own = tuple(n if axis == axes[0] else 1 for axis, n in enumerate(shape))
            sizes = tuple(f if axis == axes[0] else one for axis, f in enumerate(formulas))
            flag = Carried(("flag", kind), 0, (self._full(op, own, sizes, dtype),))  # type: ignore[arg-type]
            self._flags[kind] = flag
            after = Op(aten.clamp.default, (), {}, [own], [dtype], False, (), op.path)
            asks = Op(aten.lt.Scalar, (), {}, [own], [torch.bool], False, (), op.path)
            found["flag", kind] = Statement(after, ((flag, Fixed(1.0)), ()), [sizes])
            found["asks", kind] = Statement(asks, ((flag, Fixed(0.5)), ()), [sizes])
        return ("asks", kind)

    def _choice(self, key: Key, asks: Label) -> Statement:
        own = self._block.statements[key[0]]
        part, start = key[1], self._starts[key]
        if isinstance(start, Outside) and isinstance(start.part, int):
            other = self._program.statements[start.op]
            if other.shapes[start.part] != own.shapes[part] or other.op.dtypes[start.part] != own.op.dtypes[part]:
                raise _Separate
        op = replace(own.op, target=aten.where.self, args=(), kwargs={}, shapes=[own.op.shapes[part]], several=False)
        op.dtypes = [own.op.dtypes[part]]
        values = (Same(asks, 0), self._first[key], Same(("old", key[0]), part))  # type: ignore[arg-type]
        return Statement(op, (values, ()), [own.shapes[part]])

    def _label(self, key: Key) -> tuple[Label, int]:
        return (("chosen", key), 0) if key in self._chosen else (("old", key[0]), key[1])

    def _moved(self, relation: Any) -> Any:
        """A relation of the old loop in the new one."""
        if isinstance(relation, Same):
            return Same(*self._label((relation.place, relation.part)))
        if isinstance(relation, Carried):
            key = (relation.place, relation.part)
            return Carried(*self._label(key), (self._before(key),))
        return earlier(relation)

    def _before(self, key: Key) -> Any:
        if key not in self._chosen:
            return self._matching.before[key]
        shape, formulas = self._shape(key)
        op = self._block.statements[key[0]].op
        if key not in self._zeros:
            self._zeros[key] = self._full(op, shape, formulas, op.dtypes[key[1]])
        return self._zeros[key]

    # The program around it.

    def run(self) -> Program:
        """The program."""
        own = [
            replace(statement, arguments=mapped(statement.arguments, self._numbered))
            for statement in self._new.values()
        ]
        blocks = [
            Block(plus(block.count, 1), own)
            if n == self._number
            else Block(block.count, [self._around(statement) for statement in block.statements])
            for n, block in enumerate(self._program.blocks)
        ]
        outputs = [(name, self._outer(value)) for name, value in self._program.outputs]
        program = Program(
            [self._around(s) for s in self._outside], blocks, self._program.order, outputs, self._program.input_shapes
        )
        return _without_unused(program)

    def _numbered(self, relation: Any) -> Any:
        if isinstance(relation, Same | Carried):
            return replace(relation, place=self._numbers[relation.place])
        return relation

    def _around(self, statement: Statement) -> Statement:
        return replace(statement, arguments=self._outer(statement.arguments))

    def _at(self, place: int, part: int) -> tuple[int, int]:
        label, part = self._label((place, part))
        return self._numbers[label], part

    def _outer(self, value: Any) -> Any:
        """A value or relation outside of the loop."""
        match value:
            case tuple():
                return _with_longer_runs([self._outer(v) for v in value])
            case Outside():
                return self._after_first(value)
            case Inside(loop=self._number):
                place, part = self._at(value.place, value.part)
                return Inside(value.loop, place, plus(value.iteration, 1), part)
            case Run(loop=self._number):
                return replace(value, places=tuple(self._at(*at) for at in value.places), first=plus(value.first, 1))
            case LoopItem(loop=self._number):
                place, part = self._at(value.place, value.part)
                return LoopItem(value.loop, place, part, plus(value.start, 1), value.step)
            case Fixed():
                return Fixed(self._outer(value.value))
            case Carried():
                return replace(value, starts=tuple(self._outer(start) for start in value.starts))
        return value

    def _after_first(self, value: Outside) -> Any:
        """What the first step gave, which is the loop's now."""
        found = next((key for key, start in self._starts.items() if start == value and self._follows_time(start)), None)
        place = self._matching.place_of(value)
        if found is None and place is not None and place in self._matching.waiting:
            found = (place, value.part)
        if found is None:
            return value
        at, part = self._at(*found)
        return Inside(self._number, at, _FIRST, part)


def _with_longer_runs(entries: list[Any]) -> tuple[Any, ...]:
    """``entries`` in which a run of iterations takes in those of the first that stand beside it."""
    k = 0
    while k < len(entries):
        run = entries[k]
        if isinstance(run, Run):
            width = len(run.places)
            start = k - width if run.step == 1 else k + 1
            first = plus(run.first, -1) if run.step == 1 else _end(run)
            wanted = [Inside(run.loop, place, _FIRST, part) for place, part in run.places]
            if start >= 0 and entries[start : start + width] == wanted and equal(first, 0):
                low = min(start, k)
                first = plus(run.first, -1) if run.step == 1 else run.first
                entries[low : low + width + 1] = [replace(run, first=first, turns=plus(run.turns, 1))]
                k = low
        k += 1
    return tuple(entries)


def _end(run: Run) -> Any:
    """The iteration behind the last of a run that goes back, as far as it can be written."""
    first, turns = run.first, run.turns
    if isinstance(first, Formula) and isinstance(turns, Formula) and first.divisor == turns.divisor:
        return replace(first, terms=(*first.terms, *((-factor, names) for factor, names in turns.terms)))
    return None


def _without_unused(program: Program) -> Program:
    """``program`` without arguments of operations outside that nothing reads any more; they keep their numbers."""
    todo: list[Any] = [value for _, value in program.outputs]
    for block in program.blocks:
        for statement in block.statements:
            for r in leaves(statement.arguments):
                todo += r.starts if isinstance(r, Carried) else [r.value] if isinstance(r, Fixed) else []
                todo += [Outside(r.op, 0)] if hasattr(r, "op") and not isinstance(r, Carried | Fixed) else []
    used: set[int] = set()
    while todo:
        value = todo.pop()
        if isinstance(value, Outside) and value.op not in used:
            used.add(value.op)
            todo += leaves(program.statements[value.op].arguments)
    kept = [s if n in used else replace(s, arguments=((), ())) for n, s in enumerate(program.statements)]
    return replace(program, statements=kept)
