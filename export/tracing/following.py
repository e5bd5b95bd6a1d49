"""How the sizes of a module's outputs follow those of its inputs, fitted to what probing saw and confirmed at other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch

from rnncore.export.tracing.groups import Group, keep_to_strides, leave_empty
from rnncore.export.tracing.probing import Outcome, Place, Prober
from rnncore.runtime.format.axes import BATCH, TIME, Flat, Size, Steps
from rnncore.runtime.format.step_fitting import Unfitting, fit_steps

Names = Mapping[int, str]
"""Names of groups by their index."""

Part = str
_LATER = 3
"""So many of the least sizes that were tried may follow another rule than all others."""


class _IsProduct(Unfitting):
    """An axis of an output is as large as two of the inputs together, such as the height and the width of an image."""

    def __init__(self, axis: int, output: int, names: Sequence[str]) -> None:
        super().__init__(f"axis {axis} of output {output} is a product of {' and '.join(names)}")
        self.names = names


def fitted_shapes(
    prober: Prober, groups: list[Group], names: dict[int, str], said: Mapping[Place, str]
) -> tuple[list[Group], dict[int, str], tuple[tuple[Size, ...], ...]]:
    """The groups, their names and the shapes of the outputs; some axes begin later, or are fixed, if that makes a rule.

    Raises:
        Unfitting: the shapes follow no rule even so.
    """
    try:
        return groups, names, _output_shapes(prober, groups, names)
    except Unfitting as why:
        reason = why
    if isinstance(reason, _IsProduct):
        fewer, own = _without(groups, names, [name for name in reason.names if name != BATCH])
        with suppress(Unfitting):
            return fewer, own, _output_shapes(prober, fewer, own)
    for group in groups:
        leave_empty(prober, group)  # y[:, 4:] of four steps is nothing
    with suppress(Unfitting):
        return groups, names, _output_shapes(prober, groups, names)
    later = _begun_later(prober, groups, names)
    if later is not None:
        return groups, names, later
    # Features that view(batch, -1, 16) takes apart may be any number that fits to the steps: they are no axis of the module.
    kept = [k for k, group in enumerate(groups) if names[k] in (BATCH, TIME) or group.places[0] in said]
    if len(kept) < len(groups):
        fewer, own = [groups[k] for k in kept], {i: names[k] for i, k in enumerate(kept)}
        with suppress(Unfitting):
            return fewer, own, _output_shapes(prober, fewer, own)
    strides = {k: keep_to_strides(prober, group) for k, group in enumerate(groups) if names[k] != BATCH}
    with suppress(Unfitting):
        return groups, names, _output_shapes(prober, groups, names)
    for k, stride in strides.items():
        if names[k] == TIME and stride > 1 and groups[k].size % stride:
            size, places = groups[k].size, [prober.name(place) for place in groups[k].places]
            raise Unfitting(
                f"outputs grow by {stride} at a time while {' and '.join(places)} grows: give an example of a multiple of "
                f"{stride} there, such as {size - size % stride or stride}; it has {size}"
            )
    # What is free by accident, as in view(-1, steps, features), makes an output that follows no rule.
    kept = [k for k, group in enumerate(groups) if names[k] == BATCH or group.places[0] in said]
    fewer, own = [groups[k] for k in kept], {i: names[k] for i, k in enumerate(kept)}
    with suppress(Unfitting):
        return fewer, own, _output_shapes(prober, fewer, own)
    raise reason


def _without(groups: list[Group], names: dict[int, str], held: Sequence[str]) -> tuple[list[Group], dict[int, str]]:
    """The groups but those that are ``held`` at the example's size; if time is, the only other one besides the rows is time."""
    kept = [k for k in range(len(groups)) if names[k] not in held]
    own = {i: names[k] for i, k in enumerate(kept)}
    others = [i for i, name in own.items() if name != BATCH]
    if TIME in held and len(others) == 1:
        own[others[0]] = TIME
    return [groups[k] for k in kept], own


def _begun_later(prober: Prober, groups: Sequence[Group], names: dict[int, str]) -> tuple[tuple[Size, ...], ...] | None:
    """The shapes of the outputs without the least steps, at which ``pad(x[:, 2:], 2)`` gives more; None if that is no rule.

    The group of the steps then begins there.
    """
    for group in (group for k, group in enumerate(groups) if names[k] == TIME):
        minimum, outcomes = group.minimum, group.outcomes
        for begin in sorted(outcomes)[1 : 1 + _LATER]:
            group.minimum, group.outcomes = begin, {n: outcome for n, outcome in outcomes.items() if n >= begin}
            if begin <= group.size and len(group.outcomes) > 1:
                with suppress(Unfitting):
                    shapes = _output_shapes(prober, groups, names)
                    _begin_earlier(prober, group, {names[k]: other.size for k, other in enumerate(groups)}, shapes)
                    return shapes
        group.minimum, group.outcomes = minimum, outcomes
    return None


def _begin_earlier(prober: Prober, group: Group, sizes: Mapping[str, int], shapes: Sequence[Sequence[Size]]) -> None:
    """Lower the least size of the steps as far as ``shapes`` hold there: what was tried may lie far apart."""
    low, high = 0, group.minimum
    while high - low > group.multiple:
        middle = low + (high - low) // (2 * group.multiple) * group.multiple
        outcome = group.run(prober, middle) if middle % group.multiple == 0 else None
        given = {**sizes, TIME: middle}
        if outcome is not None and all(
            [value_of(size, given) for size in shape] == list(found)
            for shape, found in zip(shapes, outcome.shapes, strict=True)
        ):
            high, group.outcomes[middle] = middle, outcome
        else:
            low = middle
    group.minimum = high


def _output_shapes(prober: Prober, groups: Sequence[Group], names: Names) -> tuple[tuple[Size, ...], ...]:
    """Shape of each output; raises :class:`Unfitting`, with the output's index and axis, where there is no rule."""
    base = prober.run({})
    assert base is not None
    together = _together(prober, groups)
    shapes = []
    for output, shape in enumerate(base.shapes):
        sizes = [_size(prober, groups, names, (output, axis), found) for axis, found in enumerate(shape)]
        for wanted, outcome in together:
            given = {names[k]: n for k, n in wanted.items()}
            for axis, size in enumerate(sizes):
                if value_of(size, given) != outcome.shapes[output][axis]:
                    raise Unfitting(
                        f"axis {axis} of output {output} has size {outcome.shapes[output][axis]} at {given}"
                    )
        shapes.append(tuple(sizes))
    return tuple(shapes)


def value_of(size: Size, sizes: Mapping[str, int]) -> int:
    """A size as a number."""
    if isinstance(size, int):
        return size
    if isinstance(size, Flat):
        first, second = size.of
        return value_of(first, sizes) * value_of(second, sizes)
    return size.at(sizes[size.of]) if isinstance(size, Steps) else sizes[size]


def _together(prober: Prober, groups: Sequence[Group]) -> list[tuple[dict[int, int], Outcome]]:
    """Runs with all groups at other sizes than the example's."""
    runs = []
    for step in (3, 7):
        wanted = {k: group.size + (step + k) * group.multiple for k, group in enumerate(groups)}
        sizes = {place: size for k, n in wanted.items() for place, size in groups[k].sizes(n).items()}
        outcome = prober.run(sizes)
        if outcome is not None:
            runs.append((wanted, outcome))
    return runs


def _size(prober: Prober, groups: Sequence[Group], names: Names, place: tuple[int, int], found: int) -> Size:
    output, axis = place
    follows = []
    for k, group in enumerate(groups):
        points = {n: outcome.shapes[output][axis] for n, outcome in group.outcomes.items() if n >= group.minimum}
        if len(set(points.values())) > 1:
            follows.append((k, points))
    if not follows:
        return found
    if len(follows) == 1:
        k, points = follows[0]
        return fit_steps(names[k], points, lambda n: _asked(prober, groups[k], n, place), groups[k].multiple)
    if len(follows) > 2:
        raise Unfitting(f"axis {axis} of output {output} follows {len(follows)} axes of the inputs")
    if {names[k] for k, _ in follows} != {BATCH, TIME}:  # places of an image: nobody could tell how to take them apart
        if found == groups[follows[0][0]].size * groups[follows[1][0]].size:
            raise _IsProduct(axis, output, [names[k] for k, _ in follows])
        raise Unfitting(f"axis {axis} of output {output} follows two axes of the inputs, and is not batch times steps")
    # Rows times steps: with one of them as in the example, the size is a multiple of the other.  Rows are asked first: one row
    # alone is as it is in a batch, and one step alone is not where a layer goes backwards.
    (one, points_one), (two, points_two) = sorted(follows, key=lambda own: names[own[0]] != BATCH)
    for first, second in (((one, points_one), (two, points_two)), ((two, points_two), (one, points_one))):
        rows = groups[first[0]].size
        if all(size * rows == found * n for n, size in first[1].items()):
            steps = {n: size // rows for n, size in second[1].items()}
            if all(steps[n] * rows == size for n, size in second[1].items()):
                k = second[0]

                def ask(n: int, k: int = k, rows: int = rows) -> int | None:
                    size = _asked(prober, groups[k], n, place)
                    return None if size is None else size // rows

                part = fit_steps(names[k], steps, ask, groups[k].multiple)
                return _flat(prober, (groups[first[0]], groups[k]), (names[first[0]], part), place)
    raise Unfitting(f"axis {axis} of output {output} follows two axes of the inputs, and is not batch times steps")


def _flat(prober: Prober, groups: tuple[Group, Group], parts: tuple[str, Part], place: tuple[int, int]) -> Flat:
    """Which of two axes is the outer one: sizes do not tell, so the first row is asked alone."""
    output, axis = place
    rows = groups[0]
    tensors = prober.draw({})
    alone = list(tensors)
    for index, own in rows.places:
        alone[index] = alone[index].narrow(own, 0, 1)
    whole, one = prober.answer(tensors), prober.answer(alone)
    if whole is None or one is None:
        return Flat(parts)
    apart = whole[output].unflatten(axis, (-1, rows.size)).select(axis + 1, 0)
    inner_first = apart.shape == one[output].shape and torch.allclose(apart.float(), one[output].float(), atol=1e-4)
    return Flat((parts[1], parts[0])) if inner_first and one[output].shape[axis] > 1 else Flat(parts)


def _asked(prober: Prober, group: Group, n: int, place: tuple[int, int]) -> int | None:
    outcome = group.outcomes.get(n) or group.run(prober, n)
    return None if outcome is None else outcome.shapes[place[0]][place[1]]
