"""Which axes of a module's inputs are free, which are tied to each other, and what sizes they take: found by probing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import torch

from rnncore.export.tracing.affine_ties import Follower, find_affine_ties
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.probing import Outcome, Place, Prober
from rnncore.runtime.format.axes import BATCH

_MOST_TIES = 64  # combinations of axes that are tried together for one size
_MOST_MULTIPLE = 4096
_FAR = (2, 3)  # times the size of the example
_FEWEST_BELOW = 4  # steps of the example, of which fewer are tried
_NEAR = 4  # a largest size this near the example's is common


@dataclass
class Group:
    """Axes that have one size in common, what sizes that may be, and axes whose sizes follow it."""

    places: tuple[Place, ...]
    size: int
    minimum: int = 1
    multiple: int = 1
    maximum: int | None = None
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    followers: tuple[Follower, ...] = ()

    def sizes(self, size: int) -> dict[Place, int]:
        """All axes of the group at one size."""
        return {
            **dict.fromkeys(self.places, size),
            **{follower.place: follower.at(size) for follower in self.followers},
        }

    def run(self, prober: Prober, size: int) -> Outcome | None:
        """What the module does at that size; None if it fails."""
        sizes = self.sizes(size)
        return None if min(sizes.values()) < 1 else prober.run(sizes)


def find_groups(prober: Prober, fixed: Sequence[Place], tied: Sequence[tuple[Place, ...]]) -> list[Group]:
    """All free axes of the inputs, those that belong together in one group.

    fixed: axes that are not to be asked about.  tied: groups that somebody has named.
    """
    known = {place for places in tied for place in places}
    open_places = [place for place in prober.base if place not in known and place not in fixed]
    _leave_size_one(prober, [place for place in (*open_places, *known) if prober.base[place] == 1])
    tied = [_with_partners(prober, places, open_places) for places in tied]
    open_places = [place for place in open_places if not any(place in places for places in tied)]
    groups = [Group(places, prober.base[places[0]]) for places in tied]
    alone = [place for place in open_places if _free(prober, (place,)) or _free_below(prober, place)]
    # torch packs the first rows where there are more rows than lengths: that an axis may grow does not make it free.
    doubtful = [p for p in alone if prober.base[p] > 1 and prober.run({p: prober.base[p] - 1}) is None]
    if len({index for index, _ in alone}) > 1:  # one may be a little longer than another, as labels than steps
        doubtful += [p for p in alone if p not in doubtful and prober.base[p] > 2 and not _free_far(prober, (p,))]
    groups += [Group((place,), prober.base[place]) for place in alone if place not in doubtful]
    groups += _ties(prober, [place for place in open_places if place not in alone or place in doubtful], doubtful)
    taken = {place for group in groups for place in group.places}
    left = [place for place in open_places if place not in taken and place not in alone]
    groups += [
        Group((leader,), prober.base[leader], followers=followers)
        for leader, followers in find_affine_ties(prober, left)
    ]
    rest = [place for place in doubtful if place not in taken]
    groups += [Group((place,), prober.base[place]) for place in rest if not _read_to_here(prober, place)]
    for group in groups:
        find_limits(prober, group)
    return groups


def _with_partners(prober: Prober, places: tuple[Place, ...], others: Sequence[Place]) -> tuple[Place, ...]:
    """``places``, which somebody has named, with the axes of other inputs without which they cannot shrink."""
    size = prober.base[places[0]]
    if size < 2 or prober.run(dict.fromkeys(places, size - 1)) is not None:
        return places
    mine = {index for index, _ in places}
    for place in others:
        if place[0] not in mine and prober.base[place] == size:
            together = (*places, place)
            if prober.run(dict.fromkeys(together, size - 1)) is not None:
                return together
    return places


def _leave_size_one(prober: Prober, ones: Sequence[Place]) -> None:
    """Start from sizes other than 1, where a missing tie would hide behind broadcasting."""
    firsts = [place for place in ones if place[1] == 0]
    # Of a state [layers, batch, size] it is the second axis that goes with the first one of a policy's observations.
    rows = [place for place in ones if place[1] == 1 or (place[1] == 0 and (place[0], 1) not in ones)]
    for places in (list(ones), firsts, rows, *([place] for place in ones)):
        if places and prober.run(dict.fromkeys(places, 2)) is not None:
            prober.base.update(dict.fromkeys(places, 2))
            return


def _free(prober: Prober, places: Sequence[Place]) -> bool:
    size = prober.base[places[0]]
    return any(prober.run(dict.fromkeys(places, other)) is not None for other in (size + 1, 2 * size, size + 2))


def _free_below(prober: Prober, place: Place) -> bool:
    """Whether an axis that lengths count along may be smaller, though no larger: there is room for so many steps."""
    size, base = prober.base[place], prober.run({})
    if size < _FEWEST_BELOW or base is None or not any(prober.is_lengths(index) for index in prober.counting):
        return False
    fewer = [prober.run({place: less}) for less in (size - 1, size - 2, (size + 1) // 2)]
    return all(one is not None and [n for _, n in one.calls] != [n for _, n in base.calls] for one in fewer)


def _free_far(prober: Prober, places: Sequence[Place]) -> bool:
    """Whether axes may be twice as large and half as large, not one more or less only."""
    size = prober.base[places[0]]
    return all(prober.run(dict.fromkeys(places, other)) is not None for other in (2 * size, (size + 1) // 2))


def _read_to_here(prober: Prober, place: Place) -> bool:
    """Whether the module reads as many entries as the example has, no fewer, and looks at none of those behind."""
    index, axis = place
    size = prober.base[place]
    tensors = prober.draw({place: size + 1})
    cut = [value.narrow(axis, 0, size) if i == index else value for i, value in enumerate(tensors)]
    longer, right = prober.answer(tensors), prober.answer(cut)
    if longer is None or right is None or prober.run({place: size - 1}) is not None:
        return False
    pairs = zip(longer, right, strict=True)
    is_feature = axis == tensors[index].dim() - 1 > 1  # of [batch, time, features] groups are cut out
    return (len(tensors) > 1 or is_feature) and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _ties(prober: Prober, places: Sequence[Place], doubtful: Sequence[Place]) -> list[Group]:
    """Groups of at least two axes, of equal size, that are free together only.

    Those that take one more come first: rows that a policy takes for steps may be twice as many without its states.
    doubtful: axes that may grow alone, as nobody reads what is more: that several of them may do so together ties none.
    """
    groups: list[Group] = []
    left = list(places)
    for free in (_one_more, _free):
        while not prober.exhausted:
            ties = (tie for tie in _candidates(prober, left) if free(prober, tie))
            found = next((tie for tie in ties if not {*tie} <= {*doubtful} or _free_far(prober, tie)), None)
            if found is None:
                break
            groups.append(Group(found, prober.base[found[0]]))
            find_limits(prober, groups[-1])  # before others that may be none take all runs there are
            left = [place for place in left if place not in found]
    return groups


def _one_more(prober: Prober, places: Sequence[Place]) -> bool:
    return prober.run(dict.fromkeys(places, prober.base[places[0]] + 1)) is not None


def _candidates(prober: Prober, places: Sequence[Place]) -> Iterator[tuple[Place, ...]]:
    """Axes of one size that may be tied: one or none of each input, or two of the same; likely ones first."""
    for size in dict.fromkeys(prober.base[place] for place in places):
        own = [place for place in places if prober.base[place] == size]
        inputs = sorted({index for index, _ in own})
        choices = [[None, *[place for place in own if place[0] == index]] for index in inputs]
        ties = [tuple(place for place in tie if place is not None) for tie in _some(choices)]
        ties = [tie for tie in ties if len(tie) > 1]
        ties.sort(
            key=lambda tie: (len({axis for _, axis in tie}) > 1, sum(axis for _, axis in tie) / len(tie), -len(tie))
        )
        yield from ties[:_MOST_TIES]
        for index in inputs:
            of_one = [place for place in own if place[0] == index]
            yield from ((a, b) for k, a in enumerate(of_one) for b in of_one[k + 1 :])


def _some(choices: Sequence[Sequence[Place | None]]) -> list[tuple[Place | None, ...]]:
    total = 1
    for own in choices:
        total *= len(own)
    if total > 4096:  # many inputs: all of them, at one and the same position
        positions = sorted({place[1] for own in choices for place in own if place is not None})
        return [
            tuple(next((p for p in own if p is not None and p[1] == position), None) for own in choices)
            for position in positions
        ]
    return list(product(*choices))


def find_limits(prober: Prober, group: Group) -> None:
    """The least size, the largest if there is one, and what it is a multiple of; the outcomes on the way are kept.

    A module that takes a little more than its example, and nothing far from it, has a largest size: positions of which there is
    a table, an image of which a stack of convolutions must leave one row.
    """
    size = group.size

    def works(n: int) -> bool:
        outcome = group.run(prober, n)
        if outcome is not None:
            group.outcomes[n] = outcome
        return outcome is not None and _same_ranks(outcome, prober.run({}))

    works(size)
    if not works(size + 1) and not works(size - 1) and not prober.exhausted:
        steps = [d for d in range(2, min(size, _MOST_MULTIPLE) + 1) if size % d == 0]
        group.multiple = next((d for d in steps if works(size + d)), size)
    far = [n for n in _FAR if works(n * size)]
    one = group.multiple
    if not far and not prober.exhausted:
        least, most = size // one, _FAR[0] * size // one  # the first is taken, the last is not
        while most - least > 1:
            middle = least + 1 if least - size // one < _NEAR else (least + most) // 2
            least, most = (middle, most) if works(middle * one) else (least, middle)
        group.maximum = None if prober.exhausted else least * one
    bad, good = 0, size // one  # in units of the multiple
    if works(one):
        good = 1
    while good - bad > 1:
        middle = bad + 1 if bad < 4 else (bad + good) // 2  # small limits are common
        if works(middle * one):
            good = middle
        else:
            bad = middle
    group.minimum = good * one
    # Outcomes near each other tell how an output's size follows.
    for n in (group.minimum + one, group.minimum + 2 * one, size + 2 * one, size + 3 * one):
        works(n)


def take_one_row(prober: Prober, batch: Group) -> None:
    """Let ``batch`` begin at 1 if the module takes that, however much was tried before."""
    outcome = prober.run(batch.sizes(1), needed=True)
    if outcome is not None and _same_ranks(outcome, prober.run({})):
        batch.outcomes[1] = outcome
        batch.minimum = 1


def leave_empty(prober: Prober, group: Group) -> None:
    """Take the sizes from ``group`` at which an output is empty, if all of them are small."""
    base = prober.run({})
    bad = max((n for n, outcome in group.outcomes.items() if _has_empty(outcome)), default=0)
    if not bad or bad >= group.size or base is None or _has_empty(base):
        return
    good = min(n for n in group.outcomes if n > bad)
    while good - bad > group.multiple:
        middle = bad + (good - bad) // (2 * group.multiple) * group.multiple
        outcome = group.run(prober, middle)
        bad, good = (middle, good) if outcome is None or _has_empty(outcome) else (bad, middle)
        if outcome is not None:
            group.outcomes[middle] = outcome
    group.minimum = good
    group.outcomes = {n: outcome for n, outcome in group.outcomes.items() if n >= good}


def keep_to_strides(prober: Prober, group: Group) -> int:
    """Take from ``group`` all sizes but the multiples of the stride at which outputs grow; 1 if there is none.

    Frames of 16 samples that are put together again are 16 * (n // 16) samples: at multiples of 16 as many as came in.

    Returns:
        The stride; of ``group``, unchanged, where its own size is no multiple of it.
    """
    first = _grows_at(prober, group, group.size)
    second = None if first is None else _grows_at(prober, group, first)
    if first is None or second is None or second - first < 2:
        return 1
    stride = second - first
    if first % stride or group.multiple > 1 or group.size % stride:
        return 1 if first % stride or group.multiple > 1 else stride
    group.multiple = stride
    group.minimum = -(-group.minimum // stride) * stride
    sizes = (group.minimum, group.minimum + stride, *(group.size + k * stride for k in range(1, 4)))
    tried = {n: group.run(prober, n) for n in sizes}
    group.outcomes = {n: outcome for n, outcome in group.outcomes.items() if n % stride == 0 and n >= group.minimum}
    group.outcomes |= {n: outcome for n, outcome in tried.items() if outcome is not None}
    return stride


def _grows_at(prober: Prober, group: Group, size: int) -> int | None:
    """The least size above ``size`` at which an output has another shape; None if there is none up to twice as much."""
    base, low, high = group.run(prober, size), size, 2 * size
    last = group.run(prober, high)
    if base is None or last is None or last.shapes == base.shapes:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        outcome = group.run(prober, middle)
        if outcome is None:
            return None
        low, high = (middle, high) if outcome.shapes == base.shapes else (low, middle)
    return high


def _has_empty(outcome: Outcome) -> bool:
    return any(0 in shape for shape in outcome.shapes)


def _same_ranks(outcome: Outcome, base: Outcome | None) -> bool:
    """Whether no axis came or went, as with ``squeeze`` at size 1."""
    return base is not None and [len(s) for s in outcome.shapes] == [len(s) for s in base.shapes]


def counted_inputs(
    prober: Prober, example: Example, groups: Sequence[Group], names: Mapping[int, str]
) -> dict[str, str]:
    """Inputs [batch] that count along an axis of others, beside the lengths, with the name of that axis."""
    rows = next(group.places for k, group in enumerate(groups) if names[k] == BATCH)
    counts = {}
    for index in prober.counting:
        name = example.names[index]
        if name == example.lengths or (index, 0) not in rows:
            continue
        for k, group in enumerate(groups):
            if names[k] != BATCH and counts_along(prober, index, group):
                counts[name] = names[k]
    return counts


def counts_along(prober: Prober, index: int, group: Group) -> bool:
    """Whether input ``index``, [batch], counts along the axis of ``group``."""
    sizes = (group.size + group.multiple, group.size - group.multiple)
    tried = [group.sizes(n) for n in sizes if n >= group.minimum]
    return index in prober.counting and any(prober.counts(index, group.places, own) for own in tried)


def operations_grow(group: Group) -> bool:
    """Whether an axis is one that Python loops over: the more of it, the more operations."""
    counts = [outcome.operations for _, outcome in sorted(group.outcomes.items())]
    return len(counts) > 1 and counts[-1] > counts[0] and all(a <= b for a, b in pairwise(counts))


def in_outputs(groups: Sequence[Group]) -> set[int]:
    """Groups that some output's size follows."""
    return {k for k, group in enumerate(groups) if len({o.shapes for o in group.outcomes.values()}) > 1}
