"""What moves into a loop because it makes less: of what the loop reads at every step, or of what is kept of every step.

A gate for each head that is spread over a matrix memory is small outside of the loop and large as what a step reads; what a
query reads of the memory is small, where the memory of every step fills gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rnncore.export.tracing.rolling.log import leaves
from rnncore.export.tracing.rolling.merging import Statement
from rnncore.export.tracing.rolling.relations import Fixed, ListItem, LoopItem, Number, Same

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "convolution", "embedding")
_WORTH = 64
"""An operation more in a step is worth so many numbers of the example that need not be kept of every step.

So few because what needs no state is taken out of the loop again, see :mod:`rnncore.export.lowering.loop_fission`, where it is
known what it makes.
"""

Key = tuple[int, int]
"""A place and the part of its result."""


@dataclass(frozen=True)
class Sizes:
    """The statements of one iteration, and the results of which something outside reads those of all iterations."""

    statements: Sequence[Statement]
    needed: Collection[Key]

    def shrinking(self, core: set[int], after: set[int], before: set[int]) -> set[int]:
        """Those of ``after`` that make so much less of what the step gives that they had better be part of it."""

        def cost(moved: Sequence[int]) -> int:
            inside = core.union(moved)
            given = self._read(after.difference(moved), inside) | {key for key in self.needed if key[0] in inside}
            return self._numbers(given) + self._numbers(self._read(inside, before)) + _WORTH * len(moved)

        moved: list[int] = []
        best, least = 0, cost(moved)
        for place in sorted(after):
            behind = {key[0] for key in self._read([place], after)}
            if behind.issubset(moved) and not self._multiplies_weights(place) and not self._reads_items(place):
                moved.append(place)
                if (found := cost(moved)) < least:
                    best, least = len(moved), found
        return set(moved[:best])

    def growing(self, core: set[int], before: set[int]) -> set[int]:
        """Those of ``before`` that make so much more of what they are given that they had better be part of the step."""
        moved: set[int] = set()
        for place in sorted(before):
            if self._given(place) >= self._made(place, core | before):
                continue
            with_users = {place}
            for user in sorted(before):
                if self._read([user], with_users):
                    with_users.add(user)
            own = with_users - moved
            movable = not any(
                self._reads_items(p) or self._is_product(p) or any(key[0] == p for key in self.needed) for p in own
            )
            if movable and self._read_by_step(core, before, moved | own) + _WORTH * len(own) < self._read_by_step(
                core, before, moved
            ):
                moved |= own
        return moved

    def sunk(self, before: set[int], core: set[int]) -> set[int]:
        """Cheap operations of ``before`` that only make what the loop reads larger: they go with it into the loop."""
        sunk: set[int] = set()
        for place in sorted(before, reverse=True):
            users = [p for p in (*before, *core) if any(key[0] == place for key in self._read([p], {place}))]
            if any(p in before and p not in sunk for p in users) or place in {p for p, _ in self.needed}:
                continue
            # What nothing reads, such as the buffer that a logsigmoid gives beside, is not looked up in the loop.
            if self._reads_items(place) or self._is_product(place):
                continue
            if self._given(place) < self._made(place, users):
                sunk.add(place)
        return sunk

    def _relations(self, place: int) -> Iterable[Any]:
        return leaves(self.statements[place].arguments)

    def _read(self, readers: Iterable[int], of: Collection[int]) -> set[Key]:
        """What ``readers`` read of the places ``of`` in the same iteration."""
        return {
            (relation.place, relation.part)
            for place in readers
            for relation in self._relations(place)
            if isinstance(relation, Same) and relation.place in of
        }

    def _read_by_step(self, core: set[int], before: set[int], moved: set[int]) -> int:
        return self._numbers(self._read(core | moved, before - moved))

    def _numbers(self, keys: Iterable[Key]) -> int:
        return sum(torch.Size(self.statements[place].op.shapes[part]).numel() for place, part in keys)

    def _given(self, place: int) -> int:
        return sum(self._numbers([(r.place, r.part)]) for r in self._relations(place) if isinstance(r, Same))

    def _made(self, place: int, users: Iterable[int]) -> int:
        return self._numbers(self._read(users, {place}))

    def _reads_items(self, place: int) -> bool:
        return any(isinstance(relation, Number | ListItem | LoopItem) for relation in self._relations(place))

    def _is_product(self, place: int) -> bool:
        return self.statements[place].op.name in _PRODUCTS and not self._is_outer(place)

    def _is_outer(self, place: int) -> bool:
        """Whether it multiplies columns by rows, which sums up nothing and is no more work than any other operation."""
        op = self.statements[place].op
        first = next((r for r in self._relations(place) if isinstance(r, Same)), None)
        if op.name != "bmm" or first is None:
            return False
        return self.statements[first.place].op.shapes[first.part][-1] == 1

    def _multiplies_weights(self, place: int) -> bool:
        return self._is_product(place) and any(isinstance(relation, Fixed) for relation in self._relations(place))
