"""What the places of a loop's body read and give, from iteration to iteration, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from rnncore.export.tracing.rolling.evaluation import Evaluation, execute
from rnncore.export.tracing.rolling.merging import Program, Statement
from rnncore.export.tracing.rolling.plan import LoopPlan
from rnncore.export.tracing.rolling.relations import Carried, Fixed, ListItem, LoopItem, Number, Same

aten = torch.ops.aten
Key = Any  # (place, part), or a relation to something along time


class Places:
    """The places of the loop that ``plan`` rolls."""

    def __init__(self, program: Program, plan: LoopPlan) -> None:
        self.program, self.plan = program, plan

    def statement(self, place: int) -> Statement:
        """What stands at a place."""
        return self.plan.block.statements[place]

    def moving(self, places: Iterable[int]) -> list[Any]:
        """What these places read that moves along a list or along the results of another loop."""
        relations = [r for place in places for r in self.plan.relations(place)]
        return list(dict.fromkeys(r for r in relations if isinstance(r, ListItem | LoopItem)))

    def runs_backward(self) -> bool:
        """Whether everything along time is read from its end: the loop is then an ordinary one in reverse."""
        steps = [self.index(place)[1].step for place in self.plan.before if self.is_item(place)]
        steps += [relation.step for relation in self.moving([*self.plan.before, *self.plan.core])]
        return bool(steps) and all(step < 0 for step in steps)

    def is_item(self, place: int) -> bool:
        """Whether a place picks the entry of this iteration from something fixed."""
        statement = self.statement(place)
        if statement.op.target not in (aten.select.int, aten.slice.Tensor):
            return False
        base, _, index, *rest = statement.arguments[0]
        is_fixed = isinstance(base, Fixed) or (isinstance(base, Same) and base.place in self.plan.fixed)
        ends = not rest or isinstance(rest[0], Number)
        return is_fixed and isinstance(index, Number) and ends and int(index.step) == index.step

    def index(self, place: int) -> tuple[int, Number]:
        """The axis that such a place picks from, and which entry."""
        _, dim, index, *_ = self.statement(place).arguments[0]
        return int(dim.value({})), index

    def outputs(self) -> list[tuple[int, int]]:
        """Results of the step that are read after it."""
        read = [
            (r.place, r.part) for place in self.plan.after for r in self.plan.relations(place) if isinstance(r, Same)
        ]
        return list(dict.fromkeys([*self.plan.needed, *read]))

    def keys_read(self, places: Iterable[int], of: set[int]) -> list[Key]:
        """What ``places`` read that changes from iteration to iteration, besides results of their own."""
        found: dict[Key, None] = {}
        for place in places:
            for relation in self.plan.relations(place):
                if isinstance(relation, Same) and relation.place in of:
                    found[relation.place, relation.part] = None
                elif isinstance(relation, Number | ListItem | LoopItem):
                    found[relation] = None
        return list(found)

    def is_read(self, key: tuple[int, int], own: set[int]) -> bool:
        """Whether a result is read by places that are not ``own``, or after the loop."""
        others = {*self.plan.before, *self.plan.core, *self.plan.after} - own
        return key in self.plan.needed or any(
            isinstance(r, Same) and (r.place, r.part) == key for p in others for r in self.plan.relations(p)
        )

    def lookup(self, evaluation: Evaluation, known: Mapping[Key, Any]) -> Callable[[Any], Any]:
        """The value of a relation, from what is ``known`` of this iteration, or of all."""

        def lookup(relation: Any) -> Any:
            if isinstance(relation, Same):
                return known[relation.place, relation.part]
            if isinstance(relation, Carried):
                return known[relation.place, relation.part, len(relation.starts)]
            if isinstance(relation, Fixed):
                return known[relation.value] if relation.value in known else evaluation.value(relation.value)
            return known[relation] if isinstance(relation, Number | ListItem | LoopItem) else relation

        return lookup

    def interpret(self, places: Iterable[int], evaluation: Evaluation, known: dict[Key, Any]) -> None:
        """Run ``places`` in their order; what they give is put in ``known``."""
        lookup = self.lookup(evaluation, known)
        for place in places:
            for part, result in enumerate(execute(self.statement(place), lookup)):
                known[place, part] = result
