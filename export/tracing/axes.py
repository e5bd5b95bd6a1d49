"""Name the free axes of a module's inputs, and say what sizes they take, from what probing shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import nn

from rnncore.export.tracing.example import Axes, Example, Extent, default_axes
from rnncore.export.tracing.following import fitted_shapes
from rnncore.export.tracing.groups import (
    Group,
    counted_inputs,
    counts_along,
    find_groups,
    find_limits,
    in_outputs,
    operations_grow,
    take_one_row,
)
from rnncore.export.tracing.known_rows import rows_of_inputs
from rnncore.export.tracing.probing import Place, Prober
from rnncore.export.tracing.rows_apart import loops_over_rows, rows_alone, rows_apart
from rnncore.export.tracing.rows_laid_out import tied_by_size
from rnncore.export.tracing.single_rows import as_a_list, listed_axis, why_no_batch, why_not_one_row
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH, TIME, Size, Steps, base_of, inner_shape
from rnncore.runtime.format.step_fitting import Unfitting


class NoBatchAxis(ExportError):
    """No axis of the inputs can be the batch."""


def find_axes(module: nn.Module, example: Example, given: Axes | None, seed: int = 0) -> Example:
    """``example`` with the axes that ``module`` leaves free, their limits, and how its outputs follow them.

    given: axes that the caller names; they are taken as said.

    Raises:
        ExportError: the batch axis is fixed, or an output follows the inputs by no rule that a signature can say.
    """
    prober = Prober(module, example, seed)
    if prober.run({}) is None:  # on random inputs of the example's own sizes: nothing can be learnt
        return example
    fixed, tied, said = _given(example, given or {})
    said |= dict.fromkeys(rows_of_inputs(module), BATCH)
    found = find_groups(prober, fixed, [tied[name] for name in tied])
    idle = [group for group in found if group.places[0] not in said and _is_idle(example, group)]
    groups = [g for g in found if g not in idle and (g.places[0] in said or not _by_accident(example, g))]
    prober.base.update({place: 1 for group in idle for place in group.places})
    names = _names(prober, example, groups, said)
    joined = _with_strangers(prober, example, groups, names)
    if len(joined) < len(groups):
        groups = joined
        names = _names(prober, example, groups, said)
    # Of another axis that takes a few sizes around the example's, such as the height of an image of which convolutions must
    # leave one row, the example's is what the module is for.
    kept = [
        k
        for k, group in enumerate(groups)
        if group.maximum is None or names[k] in (BATCH, TIME) or group.places[0] in said
    ]
    groups, names = [groups[k] for k in kept], {place: names[k] for place, k in enumerate(kept)}
    held = _with_ones_held(example, groups, names, given or {})
    if held is not None:
        own = tuple(replace(one, axes=tuple(held.get(one.name, one.axes))) for one in example.inputs)
        return find_axes(module, replace(example, inputs=own), held, seed)
    _check(module, example, prober, groups, names)
    timed = TIME in names.values()
    try:
        groups, names, shapes = fitted_shapes(prober, groups, names, said)
    except Unfitting as why:
        if (joint := _tied(module, example, groups, given, seed)) is not None:
            return joint
        raise ExportError(f"{type(module).__name__}: {why}; {_how(example)}") from None
    if timed and TIME not in names.values() and (joint := _tied(module, example, found, given, seed)) is not None:
        return joint
    extents = {names[k]: _extent(names[k], group, shapes) for k, group in enumerate(groups)}
    roles: dict[Place, str] = {place: names[k] for k, group in enumerate(groups) for place in group.places}
    roles |= {
        own.place: Steps(names[k], own.times, own.plus) for k, group in enumerate(groups) for own in group.followers
    }
    inputs = tuple(
        replace(own, axes=tuple(roles.get((i, axis)) for axis in range(own.value.dim())))
        for i, own in enumerate(example.inputs)
    )
    counts = counted_inputs(prober, example, groups, names) if BATCH in names.values() else {}
    return replace(example, inputs=inputs, extents=extents, output_shapes=shapes, counts=counts)


def _tied(
    module: nn.Module, example: Example, groups: Sequence[Group], given: Axes | None, seed: int
) -> Example | None:
    """``example`` where all axes of one size are one, rows or steps; None where that does not help."""
    axes = None if given else tied_by_size(example, groups)
    if axes is None:
        return None
    own = tuple(replace(one, axes=tuple(axes[one.name])) for one in example.inputs)
    with suppress(ExportError):
        found = find_axes(module, replace(example, inputs=own), axes, seed)
        return found if TIME in found.axis_names else None
    return None


def _given(example: Example, given: Axes) -> tuple[list[Place], dict[str, tuple[Place, ...]], dict[Place, str]]:
    """Axes that are fixed, groups and names, as far as the caller says them."""
    fixed: list[Place] = []
    tied: dict[str, tuple[Place, ...]] = {}
    said: dict[Place, str] = {}
    for i, own in enumerate(example.inputs):
        for axis, name in enumerate(own.axes if own.name in given else ()):
            if name is None:
                fixed.append((i, axis))
            else:
                tied[name] = (*tied.get(name, ()), (i, axis))
                said[i, axis] = name
    return fixed, tied, said


def _names(prober: Prober, example: Example, groups: Sequence[Group], said: Mapping[Place, str]) -> dict[int, str]:
    """batch, time, or a name of its own for each group."""
    names = {k: said[group.places[0]] for k, group in enumerate(groups) if group.places[0] in said}
    batch, time = _batch_and_time(prober, example, groups, set(names))
    if time is not None and example.lengths in example.names:
        own = example.names.index(example.lengths)
        counted = [k for k, group in enumerate(groups) if k not in (*names, batch) and counts_along(prober, own, group)]
        if counted and time not in counted:  # lengths are those of the steps, not of what is told
            time = counted[0]
    for role, k in ((BATCH, batch), (TIME, time)):
        if k is not None and role not in names.values():
            names[k] = role
    for k, group in enumerate(groups):
        if k not in names:
            names[k] = _own_name(example, group, names)
    return names


def _with_strangers(prober: Prober, example: Example, groups: Sequence[Group], names: Mapping[int, str]) -> list[Group]:
    """``groups``, where an input that never meets the others takes its batch and time from their usual places.

    A file has one batch axis; and two sequences that come together, such as those of two towers, stream together.
    """
    joined = list(groups)
    for role in (BATCH, TIME):
        home = next((groups[k] for k, name in names.items() if name == role), None)
        batch = next((groups[k] for k, name in names.items() if name == BATCH), None)
        if home is None or batch is None:
            continue
        known = {index for index, _ in batch.places}
        more = [
            group
            for group in groups
            if group is not home
            and group.size == home.size
            and not group.followers
            and all(
                index not in known and default_axes(example.inputs[index].value)[axis] == role
                for index, axis in group.places
            )
        ]
        if more:
            places = (*home.places, *(place for group in more for place in group.places))
            whole = Group(places, home.size, followers=home.followers)
            find_limits(prober, whole)
            joined = [whole if group is home else group for group in joined if group not in more]
    return joined


def _is_idle(example: Example, group: Group) -> bool:
    """Whether an axis is 1 in the example, and nothing happens when it grows.

    So do the layers of a state where ``zip`` goes as far as the shortest.
    """
    ones = all(example.inputs[i].value.shape[axis] == 1 for i, axis in group.places)
    return ones and len(set(group.outcomes.values())) == 1


def _by_accident(example: Example, group: Group) -> bool:
    """Whether an axis takes multiples of its size in the example only, and they are not what the module is for.

    Two frames may stand in one row, no three; points of two numbers that view(-1, 2) takes apart are more steps, of which no
    output tells.  Of features, view(-1, 80) may take any multiples that fit to the number of steps.
    """
    size = group.size
    features = all(axis == example.inputs[i].value.dim() - 1 > 1 for i, axis in group.places)
    if features and group.multiple > 1 and len({outcome.shapes for outcome in group.outcomes.values()}) == 1:
        return True
    if size == 1 or group.multiple != size or 2 * size not in group.outcomes:
        return False
    return 3 * size not in group.outcomes or len({outcome.shapes for outcome in group.outcomes.values()}) == 1


def _own_name(example: Example, group: Group, names: Mapping[int, str]) -> str:
    """The name of the input for its second axis, else name and position."""
    index, axis = group.places[0]
    name = example.inputs[index].name
    timed = any(a == TIME for a in default_axes(example.inputs[index].value)[axis : axis + 1])
    if timed and name not in (*names.values(), BATCH, TIME):
        return name
    return f"{name}_{axis}"


def _batch_and_time(
    prober: Prober, example: Example, groups: Sequence[Group], named: set[int]
) -> tuple[int | None, int | None]:
    """The groups that rows and steps of recurrent calls follow; the usual places of these axes decide where none does."""
    rows, steps = _followed(prober, groups)
    open_groups = [k for k in range(len(groups)) if k not in named]
    usual = {
        role: [
            k
            for k in open_groups
            for i, axis in groups[k].places
            if example.inputs[i].axes[axis] == role and example.inputs[i].name != example.lengths
        ]
        for role in (BATCH, TIME)
    }
    calls = len(next(iter(steps.values()))) if steps else 0
    pairs = [
        (b, t)
        for c in range(calls)
        for b in open_groups
        for t in open_groups
        if b != t and rows[b][c] and steps[t][c] and _rows_follow_only(rows, b, c)
    ]
    followed = in_outputs(groups)
    if pairs:
        best = max(pairs, key=lambda pair: (pairs.count(pair), pair[1] in followed, -pair[0] - pair[1]))
        return best
    stepped = [t for t in open_groups if any(steps.get(t, ()))]
    perhaps_rows = [k for k in open_groups if k in usual[BATCH] or set(stepped) - {k}]
    looped = [
        k for k in open_groups if operations_grow(groups[k]) and not loops_over_rows(prober, groups, k, perhaps_rows)
    ]
    looped.sort(key=lambda k: k in usual[BATCH])  # code may count the rows as well
    timed = stepped + looped
    time = next((k for k in timed if k in followed), timed[0] if timed else None)
    if time is None and not rows_alone(prober, [groups[k] for k in open_groups]):
        # No layer says which axis is time: it is in its usual place, or the only free one besides the rows that outputs follow,
        # such as the last one of a stack of convolutions.
        rest = [k for k in open_groups if k in followed and k not in usual[BATCH]]
        usually = (k for k in usual[TIME] if k not in usual[BATCH])
        time = next(usually, rest[0] if len(rest) == 1 else None)
    others = [k for k in open_groups if k != time]
    by_calls = [b for b in others if any(rows.get(b, ()))]
    batch = next((k for k in by_calls if k in usual[BATCH]), by_calls[0] if by_calls else None)
    if batch is None:
        batch = next((k for k in usual[BATCH] if k != time), None)
        if batch is not None and batch not in followed:  # an input that nobody reads tells nothing of the others
            batch = next((k for k in others if k in followed and rows_apart(prober, groups[k])), batch)
        # Of steps that are counted out there are never fewer; of rows there may be one.
        if batch is not None and time in usual[TIME] and groups[batch].minimum > 1 == groups[time].minimum:
            batch, time = (time, batch) if rows_apart(prober, groups[time]) else (batch, time)
    if batch is None:
        batch = next((k for k in others if rows_apart(prober, groups[k])), None)
    return batch, time


def _followed(prober: Prober, groups: Sequence[Group]) -> tuple[dict[int, list[bool]], dict[int, list[bool]]]:
    """For each group, whether the rows and the steps of each recurrent call follow it."""
    rows: dict[int, list[bool]] = {}
    steps: dict[int, list[bool]] = {}
    base = prober.run({})
    assert base is not None
    for k, group in enumerate(groups):
        seen = [outcome.calls for outcome in group.outcomes.values() if len(outcome.calls) == len(base.calls)]
        rows[k] = [any(calls[c][0] != base.calls[c][0] for calls in seen) for c in range(len(base.calls))]
        steps[k] = [any(calls[c][1] != base.calls[c][1] for calls in seen) for c in range(len(base.calls))]
    return rows, steps


def _rows_follow_only(rows: Mapping[int, Sequence[bool]], batch: int, call: int) -> bool:
    return all(k == batch or not follows[call] for k, follows in rows.items())


def _with_ones_held(example: Example, groups: Sequence[Group], names: Mapping[int, str], given: Axes) -> Axes | None:
    """Axes with one that is 1 in the example, and can be nothing else (``state.squeeze(0)``), fixed; None if there is none.

    It was taken for the batch, where several inputs share another axis, of more than one entry.
    """
    taken = next((groups[k] for k, name in names.items() if name == BATCH), None)
    ones = set() if taken is None else {p for p in taken.places if example.inputs[p[0]].value.shape[p[1]] == 1}
    if taken is None or taken.minimum == 1 or ones != set(taken.places):
        return None
    rows = [
        g for g in groups if g.size > 1 and len({i for i, _ in g.places}) > 1 and all(axis < 2 for _, axis in g.places)
    ]
    if len(rows) != 1 or any(example.inputs[i].name in given for i, _ in (*ones, *rows[0].places)):
        return None
    roles: dict[Place, str | None] = {place: name for k, name in names.items() for place in groups[k].places}
    roles |= {place: None for place in ones} | {place: BATCH for place in rows[0].places}
    own = {
        one.name: tuple(roles.get((i, axis)) for axis in range(one.value.dim())) for i, one in enumerate(example.inputs)
    }
    return {**given, **own}


def _check(
    module: nn.Module, example: Example, prober: Prober, groups: Sequence[Group], names: Mapping[int, str]
) -> None:
    what = type(module).__name__
    if BATCH not in names.values():
        kind = ExportError if prober.exhausted else NoBatchAxis
        raise kind(f"{what} {why_no_batch(prober, _how(example))}")
    batch = next(groups[k] for k, name in names.items() if name == BATCH)
    if batch.minimum > 1 and (listed := listed_axis(prober, batch.places)):
        raise ExportError(f"{what} {as_a_list(listed)}")
    if batch.minimum > 1 and prober.exhausted:  # one row was not tried any more
        take_one_row(prober, batch)
    if batch.minimum > 1 or batch.multiple > 1:
        raise ExportError(f"{what} {why_not_one_row(prober, batch, _how(example, groups, names))}")


def _how(example: Example, groups: Sequence[Group] = (), names: Mapping[int, str] | None = None) -> str:
    roles = {place: own for k, own in (names or {}).items() for place in groups[k].places}
    index = next((place[0] for place, own in roles.items() if own == BATCH), 0)
    first = example.inputs[index]
    usual = {(index, 0): BATCH, (index, 1): TIME}
    words = tuple((roles or usual).get((index, axis)) for axis in range(first.value.dim()))
    return f"axes={{'{first.name}': {words}}} says which axes are free, None for a fixed one"


def _extent(name: str, group: Group, shapes: Sequence[Sequence[Size]]) -> Extent:
    """Limits of an axis, and a step for sizes to try that outputs notice."""
    every = [size for shape in shapes for size in inner_shape(tuple(shape))]
    follows = [size for size in every if isinstance(size, Steps) and base_of(size) == name]
    stride = max([max(1, size.over // size.times) for size in follows], default=1)
    return Extent(name, group.minimum, group.maximum, group.multiple, stride)
