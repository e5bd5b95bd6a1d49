"""Values from outside that a loop reads: weights are the cell's own, all else is captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Constant, Input, Weight, leaves
from rnncore.export.tracing.rolling.merging import Run
from rnncore.export.tracing.rolling.places import Places
from rnncore.export.tracing.rolling.relations import Fixed, Inside, Outside, Same
from rnncore.export.tracing.rolling.writes import StartPart


@dataclass(frozen=True)
class LoopValues:
    """weights and captured: values, or places that are the same in every iteration.

    inside: such places, in order, that are made of weights alone, so that the step makes them itself.
    """

    weights: list[Any]
    captured: list[Any]
    inside: list[int]

    @classmethod
    def of(cls, places: Places) -> LoopValues:
        """Those that the core of the loop reads."""
        return _Sorter(places).sorted()


class _Sorter:
    def __init__(self, places: Places) -> None:
        self._places, self._plan = places, places.plan
        self._captured: dict[Any, None] = {}
        self._weights: dict[Any, None] = {}

    def sorted(self) -> LoopValues:
        for place in self._plan.core:
            for relation in self._plan.relations(place):
                self._note(relation)
        for place, part, _ in self._plan.states:
            self._note(Same(place, part))
        return LoopValues(list(self._weights), list(self._captured), self._inside())

    def _inside(self) -> list[int]:
        inside: set[int] = set()
        todo = [r.place for p in self._plan.core for r in self._plan.relations(p) if isinstance(r, Same)]
        todo += [place for place, _, _ in self._plan.states]
        while todo:
            place = todo.pop()
            if place in self._plan.fixed and place not in inside and self._place_of_weights(place):
                inside.add(place)
                todo += [r.place for r in self._plan.relations(place) if isinstance(r, Same)]
        return sorted(inside)

    def _note_weights(self, value: Any) -> None:
        if isinstance(value, Weight | Constant):
            self._weights[value] = None
        elif isinstance(value, Outside):
            for v in leaves(self._places.program.statements[value.op].arguments):
                self._note_weights(v)

    def _note(self, relation: Any) -> None:
        if isinstance(relation, Same) and relation.place in self._plan.fixed:
            if self._place_of_weights(relation.place):
                for r in self._plan.relations(relation.place):
                    self._note(r)
            else:
                self._captured[relation.place, relation.part] = None
        elif isinstance(relation, Fixed) and isinstance(relation.value, Input | Weight | Constant | Outside | Inside):
            if self._made_of_weights(relation.value):
                self._note_weights(relation.value)
            else:
                self._captured[relation.value] = None

    def _made_of_weights(self, value: Any) -> bool:
        if isinstance(value, Outside):
            return all(self._made_of_weights(v) for v in leaves(self._places.program.statements[value.op].arguments))
        if isinstance(value, Formula):
            return value.constant
        return not isinstance(value, Input | Inside | Run | StartPart)

    def _place_of_weights(self, place: int) -> bool:
        for r in self._plan.relations(place):
            if isinstance(r, Same):
                if not self._place_of_weights(r.place):
                    return False
            elif not isinstance(r, Fixed) or not self._made_of_weights(r.value):
                return False
        return True
