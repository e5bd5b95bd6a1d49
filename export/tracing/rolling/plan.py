"""Which part of a loop waits for the past, which runs for all steps at once before it, and which after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from rnncore.export.tracing.rolling.log import Input, leaves
from rnncore.export.tracing.rolling.merging import Block, Program, Run
from rnncore.export.tracing.rolling.plan_sizes import Sizes
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Number, Outside, Same
from rnncore.export.tracing.rolling.writes import Collected, find_collected, with_places

aten = torch.ops.aten


@dataclass
class LoopPlan:
    """One loop, taken apart.

    needed: places and parts whose values in all iterations something outside reads.  fixed: places that are the same in
    every iteration.  before: places that run for all iterations at once, before the loop.  core: those of the step.
    after: those that run for all iterations at once, from what the step gave.  states: (place, part, delay).
    """

    block: Block
    collected: dict[int, Collected]
    needed: list[tuple[int, int]] = field(default_factory=list)
    fixed: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    core: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    states: dict[tuple[int, int, int], Carried] = field(default_factory=dict)

    def relations(self, place: int) -> list[Any]:
        """Relations of the arguments of a place."""
        return list(leaves(self.block.statements[place].arguments))


def plan_loops(program: Program) -> list[LoopPlan]:
    """The plan of every loop of ``program``."""
    plans = [LoopPlan(block, with_places(program, block, find_collected(block))) for block in program.blocks]
    for number in range(len(plans) - 1, -1, -1):  # later loops say what they need of earlier ones
        wanted = set(_read_outside(program, number))
        wanted |= {key for later in plans[number + 1 :] for key in _read_by_loop(later, number)}
        _divide(plans[number], sorted(wanted), program)
    return plans


def _read_outside(program: Program, loop: int) -> Iterable[tuple[int, int]]:
    values: list[Any] = [value for _, value in program.outputs]
    for statement in program.statements:
        values.extend(leaves(statement.arguments))
    for block in program.blocks:
        for statement in block.statements:
            for relation in leaves(statement.arguments):
                values += relation.starts if isinstance(relation, Carried) else ()
    yield from _inside(values, loop)


def _inside(values: Iterable[Any], loop: int) -> Iterable[tuple[int, int]]:
    for value in values:
        if isinstance(value, Inside) and value.loop == loop:
            yield value.place, value.part
        elif isinstance(value, Run) and value.loop == loop:
            yield from value.places
        elif hasattr(value, "value") and isinstance(value.value, Inside):
            yield from _inside([value.value], loop)


def _read_by_loop(plan: LoopPlan, loop: int) -> Iterable[tuple[int, int]]:
    for place in {*plan.fixed, *plan.before, *plan.core, *plan.after}:
        for relation in plan.relations(place):
            if isinstance(relation, LoopItem) and relation.loop == loop:
                yield relation.place, relation.part
            elif isinstance(relation, Fixed):
                yield from _inside([relation.value], loop)


def _divide(plan: LoopPlan, wanted: list[tuple[int, int]], program: Program) -> None:
    needed: list[tuple[int, int]] = []
    for place, part in wanted:
        source = plan.collected[place].source if place in plan.collected else Same(place, part)
        if isinstance(source, Same) and source.place not in plan.collected:
            needed.append((source.place, source.part))
        elif isinstance(source, Carried):
            plan.states[source.place, source.part, len(source.starts)] = source
    plan.needed = list(dict.fromkeys(needed))
    live = _live(plan)
    kind: dict[int, str] = {}
    for place in sorted(live):
        kind[place] = _kind(plan, place, kind)
    core = _behind(plan, {place for place, _, _ in plan.states}) & {p for p in live if kind[p] == "core"}
    after = {p for p in live if kind[p] == "core"} - core
    after -= _behind(plan, {p for p in after if any(isinstance(r, Carried) for r in plan.relations(p))})
    after -= _kept(plan, after, core, program)
    before = {p for p in live if kind[p] == "before"}
    core = {p for p in live if kind[p] == "core"} - after
    sizes = Sizes(plan.block.statements, plan.needed)
    shrinking = sizes.shrinking(core, after, before)
    core, after = core | shrinking, after - shrinking
    core |= sizes.growing(core, before)
    core |= sizes.sunk(before - core, core)
    plan.fixed = sorted(p for p in live if kind[p] == "fixed")
    plan.before, plan.core, plan.after = sorted(before - core), sorted(core), sorted(after)


def _live(plan: LoopPlan) -> set[int]:
    live: set[int] = set()
    todo = [place for place, _ in plan.needed] + [place for place, _, _ in plan.states]
    while todo:
        place = todo.pop()
        if place in live:
            continue
        live.add(place)
        for relation in plan.relations(place):
            if isinstance(relation, Same):
                todo.append(relation.place)
            elif isinstance(relation, Carried):
                plan.states.setdefault((relation.place, relation.part, len(relation.starts)), relation)
                todo.append(relation.place)
    return live


def _kind(plan: LoopPlan, place: int, kind: dict[int, str]) -> str:
    relations = plan.relations(place)
    if any(isinstance(r, Carried) or (isinstance(r, Same) and kind[r.place] == "core") for r in relations):
        return "core"
    moving = any(isinstance(r, Number | ListItem | LoopItem) for r in relations)
    return "before" if moving or any(isinstance(r, Same) and kind[r.place] == "before" for r in relations) else "fixed"


def _behind(plan: LoopPlan, places: set[int]) -> set[int]:
    """``places`` and everything of the same iteration that they are made of."""
    found: set[int] = set()
    todo = list(places)
    while todo:
        place = todo.pop()
        if place not in found:
            found.add(place)
            todo += [r.place for r in plan.relations(place) if isinstance(r, Same)]
    return found


def _kept(plan: LoopPlan, after: set[int], core: set[int], program: Program) -> set[int]:
    """Those of ``after`` that stay in the loop: what reads a whole sequence in every step would fill memory outside."""
    kept: set[int] = set()
    for place in sorted(after):
        for relation in plan.relations(place):
            if isinstance(relation, Fixed) and _comes_from_inputs(relation.value, program):
                kept.add(place)
            if isinstance(relation, Same) and relation.place in kept:
                kept.add(place)
    return kept | (_behind(plan, kept) & after)


def _comes_from_inputs(value: Any, program: Program) -> bool:
    if isinstance(value, Outside):
        statement = program.statements[value.op]
        return any(_comes_from_inputs(v, program) for v in leaves(statement.arguments))
    return isinstance(value, Input | Inside | Run)


Change = Callable[[Any], Any]
