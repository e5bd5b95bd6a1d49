"""Axes of two inputs that are free together only, one a multiple of the other and so many steps: frames and their samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rnncore.export.tracing.probing import Place, Prober

_CONFIRMED = (2, 3)  # further steps at which a relation must hold
_MOST_RATIOS = 8  # that are tried for two axes, the likeliest first
_NEAR = 2  # steps by which two axes may differ that grow alike


@dataclass(frozen=True)
class Follower:
    """An axis of size ``times * n + plus``, where ``n`` is the size of another."""

    place: Place
    times: int
    plus: int

    def at(self, size: int) -> int:
        """The size of the axis where the other has ``size``."""
        return self.times * size + self.plus


def find_affine_ties(prober: Prober, places: Sequence[Place]) -> list[tuple[Place, tuple[Follower, ...]]]:
    """Axes among ``places``, none of them free alone or with one of its own size, with those that follow them."""
    found: list[tuple[Place, tuple[Follower, ...]]] = []
    left = list(places)
    for leader in places:
        if leader in left and not prober.exhausted:
            followers = next(_followers(prober, leader, left), ())
            if followers:
                found.append((leader, followers))
                left = [place for place in left if place not in (leader, *(f.place for f in followers))]
    return found


def _followers(prober: Prober, leader: Place, places: Sequence[Place]) -> Iterator[tuple[Follower, ...]]:
    size = prober.base[leader]
    # A run that fails has come as far as the first operation that needs both: sizes that it met before are those wanted.
    grown = prober.sizes_met({leader: size + 1}) - prober.sizes_met({})
    sizes = dict.fromkeys(prober.base[place] for place in places if place[0] != leader[0])
    for own in sizes:
        ratios = [*sorted(met - own for met in grown if met > own)[:_MOST_RATIOS], *_likely(own, size)]
        together = _one_each(prober, [p for p in places if p[0] != leader[0] and prober.base[p] == own])
        for times in dict.fromkeys(ratios):
            for group in together:
                followers = tuple(Follower(place, times, own - times * size) for place in group)
                if all(
                    prober.run(_sizes(leader, size + more, followers)) is not None for more in (1, *_CONFIRMED)
                ) and not _moves_nothing(prober, leader, size, followers):
                    yield followers


def _likely(own: int, size: int) -> list[int]:
    """Ratios of two axes to try where no size was met: the quotient of ``own / size`` if it is whole, 1 if they are close.

    A module that divides by the ratio itself (``x.shape[1] // 2``) meets no size that would tell it.
    """
    return [own // size] * (own > size and own % size == 0) + [1] * (0 < abs(own - size) <= _NEAR)


def _one_each(prober: Prober, places: Sequence[Place]) -> list[tuple[Place, ...]]:
    """Each place alone, and those of all inputs that have one such place each."""
    alone: list[tuple[Place, ...]] = [(place,) for place in places]
    inputs = {index for index, _ in places}
    return alone + [tuple(places)] * (1 < len(inputs) == len(places))


def _sizes(leader: Place, size: int, followers: Sequence[Follower]) -> Mapping[Place, int]:
    return {leader: size, **{follower.place: follower.at(size) for follower in followers}}


def _moves_nothing(prober: Prober, leader: Place, size: int, followers: Sequence[Follower]) -> bool:
    """Whether the module takes the followers at other sizes too, so that there is no such relation."""
    more = {follower.place: follower.at(size + 1) + 1 for follower in followers}
    return prober.run({leader: size + 1, **more}) is not None
