"""Which loops a loop can be cut into, and what stays in each, see :mod:`rnncore.export.lowering.loop_fission`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, prod

import onnx_ir as ir

from rnncore.export.lowering.blocks import Blocks
from rnncore.export.lowering.memories import Memories
from rnncore.export.lowering.recurrence import RowSpec
from rnncore.export.lowering.steps import StepGraph
from rnncore.export.lowering.straight_steps import straighten
from rnncore.export.lowering.windows import Window

_LOOP_COST = 2
"""What one more loop costs at every step, in nodes."""
_GROWTH = 2
"""So many times what a step reads and gives may be kept of every step, for one of the loops."""
_FEW = 512
"""Numbers that may be kept of every step in any case: 2 KiB, of a minute of frames 12 MB."""
_PRODUCTS = ("MatMul", "Gemm", "Conv")
_NOTHING = frozenset[int]()


@dataclass(frozen=True)
class _Price:
    """What is kept of every step costs more than its node from so many numbers on.

    node: of what others read of a loop.  wide: of what has more numbers for a row than what it is made of: it is made where it
    is used.
    """

    node: int
    wide: int


_PRICES = (_Price(1024, 1024), _Price(1, 1024), _Price(1, 64))
"""For each loop: the later ones where too much would be kept by the ones before."""


@dataclass
class Stage:
    """One of the loops.

    step: what stays in it.  states: which states it carries.  read: dtype and shape of what it reads, for one row.
    before: the nodes that make what it reads, done for all steps together.
    results: what others need of it at every step: states behind the step, and what it makes of them.
    window: if it only remembers the last of what it reads, how; no loop is needed then.  linear: if its steps can be put
    together, how.
    """

    step: StepGraph
    states: list[int]
    read: list[RowSpec]
    before: list[ir.Node]
    results: list[ir.Value]
    window: Window | None = None
    linear: Blocks | Memories | None = None


@dataclass
class Stages:
    """The loops in order, and the nodes that make ``y`` of what all of them give."""

    loops: list[Stage]
    after: list[ir.Node]
    y: ir.Value


@dataclass(frozen=True)
class _Level:
    """Of one of the loops: its ``own`` states, as they are before and behind a step, all that are ``reached`` with them, what
    ``later`` loops carry, behind a step, and the nodes that earlier ones have ``taken``.
    """

    own: list[int]
    states: list[ir.Value]
    told: list[ir.Value]
    reached: list[int]
    later: list[ir.Value]
    taken: set[ir.Node]
    price: _Price

    @classmethod
    def of(cls, level: int, levels: Sequence[int], cut: Cut, taken: set[ir.Node], price: _Price) -> _Level:
        states, told = cut.states, cut.told
        own = [i for i, at in enumerate(levels) if at == level]
        return cls(
            own,
            [states[i] for i in own],
            [told[i] for i in own],
            [i for i, at in enumerate(levels) if at <= level],
            [told[i] for i, at in enumerate(levels) if at > level],
            taken,
            price,
        )


class Cut:
    """A step graph, cut by which states follow from which; ``together``: whether steps may be put together."""

    def __init__(self, step: StepGraph, count: int, *, together: bool) -> None:
        self._step = step = straighten(step) if together else step
        self._together = together
        self._z, *self.states = step.inputs
        self._count = count
        self._maker = {value: node for node in step.nodes for value in node.outputs}
        self._y, *self.told = self._as_made(step.outputs)
        self._follows = self._states_behind()

    def stages(self) -> Stages | None:
        """None if nothing is gained, or a size is unknown."""
        levels = self._levels()
        known, taken = {self._z}, set[ir.Node]()
        loops: list[Stage] = []
        for level in sorted(set(levels)):
            tried = [
                self._stage(_Level.of(level, levels, self, taken, price), known, all_that_pays=pull)
                for price in _PRICES
                for pull in (True, False)
            ]
            fitting = [stage for stage in tried if stage is not None and self._fits(stage)]
            in_chunks = [stage for stage in fitting if isinstance(stage.linear, Memories)]
            if not fitting:
                return None
            stage = (in_chunks or fitting)[0]
            loops.append(stage)
            taken = taken | set(stage.step.nodes)
            told = stage.step.outputs[len(stage.results) :]
            known |= {*told, *(self.states[i] for i in stage.states), *stage.results, *_made_by(stage.before)}
        stages = Stages(loops, self._needed([self._y], known), self._y)
        return stages if self._pays(stages) else None

    def _stage(self, at: _Level, known: set[ir.Value], *, all_that_pays: bool) -> Stage | None:
        """One loop, with all in it that spares others to keep so many numbers; None if a size is unknown.

        all_that_pays: else only what reads the largest state, such as a matrix memory, and none of the vectors beside it.
        """
        core = self._needed(at.told, known)
        inside = {node for node in core if not self._follows[node.outputs[0]].isdisjoint(at.own)}
        inside = self._with_wide(inside, at)
        carried = known | {*at.told, *at.states}
        large = 0 if all_that_pays else max(map(self._numbers, at.told))
        pulled = self._worth_pulling(inside, at, carried, large)
        inside = self._with_wide(inside | set(pulled), at)
        made = _made_by(pulled)
        results = self._wanted_by_others(at, made, carried | set(made))
        read = self._read_by(inside, at)
        specs = [row_spec(value) for value in read]
        values = [*read, *at.told, *results]
        if any(row_spec(value) is None for value in values) or not self._are_rows(values):
            return None
        # What a state becomes may be what is read, and has to be made then.
        before = self._needed(read, carried.difference(read) | known)
        step = StepGraph(
            self._step.owner,
            [*read, *at.states],
            [*results, *at.told],
            self._step.hoisted,
            [node for node in self._step.nodes if node in inside],
            len(read),
        )
        window = Window.of(step, len(results)) if results == at.told else None
        linear = self._linear(step, len(results)) if window is None else None
        return Stage(step, at.own, [spec for spec in specs if spec is not None], before, results, window, linear)

    def _linear(self, step: StepGraph, results: int) -> Blocks | Memories | None:
        return (Blocks.of(step, results) or Memories.of(step, results)) if self._together else None

    def _are_rows(self, values: Sequence[ir.Value]) -> bool:
        """Whether each has one entry for a row, not several, such as one for each head, nor one for all rows."""
        shapes = [value.shape.dims for value in (self._z, *values) if value.shape is not None]
        rows = {str(dims[0]) if dims else "" for dims in shapes}
        return len(rows) == 1

    def _wanted_by_others(self, at: _Level, made: Sequence[ir.Value], known: set[ir.Value]) -> list[ir.Value]:
        """Which of its states, and of what it ``made`` of them, a loop has to give of every step."""
        wanted = [self._y, *at.later]
        used = {*wanted, *(value for node in self._needed(wanted, known) for value in node.inputs)}
        told = [told for told, state in zip(at.told, at.states, strict=True) if not used.isdisjoint((told, state))]
        return [*told, *(value for value in made if value in used)]

    def _worth_pulling(self, inside: set[ir.Node], at: _Level, known: set[ir.Value], large: int) -> list[ir.Node]:
        """Nodes behind a loop that had better be in it, as they make less of its states, or of those of ``large`` numbers.

        The contraction of a matrix memory with a query gives a vector, which can be kept of every step where the memory
        cannot.
        """

        def cost(pulled: Sequence[ir.Node]) -> float:
            made = _made_by(pulled)
            kept = self._wanted_by_others(at, made, known | set(made))
            if not self._are_rows(kept):
                return inf
            read = self._read_by(self._with_wide(inside | set(pulled), at), at)
            return sum(map(self._numbers, [*kept, *read])) + at.price.node * _cost(pulled)

        made = {*at.states, *_made_by(inside)}
        pulled: list[ir.Node] = []
        best, least = 0, cost(pulled)
        for node in self._step.nodes:
            follows = self._follows[node.outputs[0]]
            if node in inside or follows.isdisjoint(at.own) or not follows.issubset(at.reached):
                continue
            given = (value for value in node.inputs if value is not None)
            behind = {value for value in given if not self._follows.get(value, _NOTHING).isdisjoint(at.own)}
            if behind.issubset(made) and max(map(self._numbers, behind)) >= large:
                pulled.append(node)
                made.update(node.outputs)
                if (found := cost(pulled)) < least:
                    best, least = len(pulled), found
        return pulled[:best]

    def _as_made(self, outputs: Sequence[ir.Value]) -> list[ir.Value]:
        """The outputs without the identities that tell them from each other."""
        found: list[ir.Value] = []
        for value in outputs:
            node = self._maker.get(value)
            source = node.inputs[0] if node is not None and node.op_type == "Identity" else None
            apart = source is not None and source in self._maker and source not in (*outputs[1:], *found[1:])
            found.append(source if apart and source is not None else value)
        return found

    def _states_behind(self) -> dict[ir.Value, frozenset[int]]:
        """The states from which each value follows within a step."""
        behind = {value: frozenset([i]) for i, value in enumerate(self.states)}
        for node in self._step.nodes:
            found = frozenset[int]().union(*(behind.get(v, frozenset()) for v in node.inputs if v is not None))
            behind.update(dict.fromkeys(node.outputs, found))
        return behind

    def _levels(self) -> list[int]:
        """For each state how many loops must be over before the one that carries it."""
        reach = [set(self._follows.get(value, frozenset())) | {i} for i, value in enumerate(self.told)]
        for k in range(self._count):
            for i in range(self._count):
                if k in reach[i]:
                    reach[i] |= reach[k]
        together = [frozenset(j for j in reach[i] if i in reach[j]) for i in range(self._count)]
        levels = [0] * self._count
        for i in sorted(range(self._count), key=lambda i: len(reach[i])):  # whoever follows from less comes first
            levels[i] = max((levels[j] + 1 for j in reach[i] - together[i]), default=0)
        return [max(levels[j] for j in together[i]) for i in range(self._count)]

    def _needed(self, wanted: Sequence[ir.Value], known: set[ir.Value]) -> list[ir.Node]:
        """The nodes that lead from ``known`` values to ``wanted``, in order."""
        found: set[ir.Node] = set()
        todo = [value for value in wanted if value not in known]
        while todo:
            node = self._maker.get(todo.pop())
            if node is not None and node not in found:
                found.add(node)
                todo.extend(value for value in node.inputs if value is not None and value not in known)
        return [node for node in self._step.nodes if node in found]

    def _with_wide(self, inside: set[ir.Node], at: _Level) -> set[ir.Node]:
        """The nodes of a loop, with those that spread what they are given to more numbers than are to be kept, or over rows."""
        while True:
            read = [value for value in self._read_by(inside, at) if value in self._maker]
            spreading = {
                node for value in read for node in self._spreading_to(value, at.price.wide) if node not in at.taken
            }
            if not spreading:
                return inside
            inside = inside | spreading

    def _spreading_to(self, value: ir.Value, most: int) -> list[ir.Node]:
        """The nodes that make a ``value`` of more than so many numbers of fewer; none if it is not wide, or made of as many."""
        if not self._are_rows([value]):
            return [self._maker[value]]
        found: list[ir.Node] = []
        given, todo = set[ir.Value](), [value]
        while todo:
            wide = todo.pop()
            node = self._maker.get(wide)
            if self._numbers(wide) <= most or node is None or node.op_type in _PRODUCTS:
                given.add(wide)
            elif node not in found:
                found.append(node)
                todo += [v for v in node.inputs if v is not None and (v in self._maker or v in self._step.inputs)]
        return found if sum(map(self._numbers, given)) < self._numbers(value) else []

    def _numbers(self, value: ir.Value) -> int:
        spec = row_spec(value)
        return 0 if spec is None else prod(spec[1])

    def _read_by(self, inside: set[ir.Node], at: _Level) -> list[ir.Value]:
        """What a loop of these nodes takes from outside, weights apart."""
        nodes = [node for node in self._step.nodes if node in inside]
        made = {*at.states, *_made_by(nodes)}
        taken = dict.fromkeys([*(value for node in nodes for value in node.inputs if value is not None), *at.told])
        return [v for v in taken if v not in made and (v in self._maker or v is self._z or v in self.states)]

    def _pays(self, stages: Stages) -> bool:
        """Whether a step has fewer nodes to run; of a loop that stays one, two fewer."""
        changed = len(stages.loops) > 1 or stages.loops[0].linear is not None
        if not changed and not self._together:
            return False
        loops = [stage for stage in stages.loops if stage.window is None]
        cost = sum(_cost(stage.step.nodes) + len(stage.results) for stage in loops) + _LOOP_COST * (len(loops) - 1)
        return cost < _cost(self._step.nodes) + (2 if changed else 0)

    def _fits(self, stage: Stage) -> bool:
        """Whether what is kept of every step, for a loop or by it, does not outgrow what goes in and out."""
        kept = sum(map(self._numbers, [*stage.step.inputs[: stage.step.reads], *stage.results]))
        return kept <= max(_GROWTH * (self._numbers(self._z) + self._numbers(self._y)), _FEW)


def _made_by(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    return [value for node in nodes for value in node.outputs]


def _cost(nodes: Iterable[ir.Node]) -> int:
    """In nodes; a product is two."""
    return sum(1 + (node.op_type in _PRODUCTS) for node in nodes if node.op_type != "Identity")


def row_spec(value: ir.Value) -> RowSpec | None:
    """Dtype and shape for one row; None where a size is unknown or free."""
    shape = value.shape
    if shape is None or value.dtype is None or len(shape) < 1:
        return None
    sizes = tuple(size for size in shape.dims[1:] if isinstance(size, int))
    return (value.dtype, sizes) if len(sizes) == len(shape) - 1 else None
