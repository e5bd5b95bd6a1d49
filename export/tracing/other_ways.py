"""What a module asks for on the ways that its trace did not go.

Beyond a size at which ``forward`` branches it may branch again (``if T > 100: if T > 200: ...``); the trace knows the first
question only.  So it is traced once more on the other side of each, as far as :data:`MOST_TRACES` allow.
"""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import nn

from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example, Extent
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.packing import PaddedPacker, packing_by
from rnncore.export.tracing.recorder import PlaceholderRecorder
from rnncore.export.tracing.size_limits import Guard, SizeLimits, Sizes, find_size_limits
from rnncore.export.tracing.torch_onnx import to_program
from rnncore.export.tracing.trace import Trace, TracedModule, axes_of_symbols
from rnncore.placeholder import recording
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import BATCH, TIME

LEAST_RANGE = 8
"""Lengths next to each other that a file takes at least; a condition such as ``time % 4 == 0`` leaves single ones."""
FAR = 64  # steps to both sides of the example where these are looked for
MOST_TRACES = 4
"""Further traces of one module; each takes about a second."""


def with_other_ways(
    limits: SizeLimits, module: nn.Module, operators: Operators, example: Example, traced_at: Sizes, most_steps: int
) -> SizeLimits:
    """``limits`` of ``module`` at ``traced_at``, and those that it has on the other side of each guard.

    A way that cannot be traced, or at which the module fails, has none.
    """
    if not set(example.axis_names) <= set(traced_at):
        return limits  # sizes of other axes are not among those that are tried
    known = {guard.text: guard for guard in limits.guards}
    waiting, found = [guard for guard in limits.guards if set(guard.axes) <= set(traced_at)], [limits]
    for _ in range(MOST_TRACES):
        sizes = next((s for guard in waiting if (s := _other_side(guard, traced_at, most_steps)) is not None), None)
        if sizes is None:
            break
        waiting = [guard for guard in waiting if guard.holds(sizes)]  # the others are beyond now
        try:
            more = _limits_at(module, operators, example, sizes)
        except ExportError:
            continue
        found.append(more)
        fresh = [guard for guard in more.guards if guard.text not in known]
        known.update((guard.text, guard) for guard in fresh)
        # What holds here and not where the trace was is the question that led here, asked from the other side.
        waiting += [guard for guard in fresh if set(guard.axes) <= set(traced_at) and guard.holds(traced_at)]
    numbers = tuple(dict.fromkeys(number for one in found for number in one.numbers))
    return SizeLimits(tuple(known.values()), numbers, max(one.reach for one in found))


def steps_of_own_way(traced: Trace, example: Example) -> int | None:
    """Steps at which to trace so that ``forward`` goes the way of the user's example; None if the trace does already."""
    shapes = [(i.axes, i.value.shape) for i in example.inputs]
    own = {str(axis): size for axes, shape in shapes for axis, size in zip(axes, shape, strict=True) if axis}
    if TIME not in own:
        return None
    broken = [g for g in traced.limits.guards if set(g.axes) <= {BATCH, TIME} <= set(own) and not g.holds(own)]
    if not any(TIME in guard.axes for guard in broken):
        return None
    takes = example.extents.get(TIME, Extent(TIME)).takes
    others = {size for axis, size in traced.sizes.items() if axis != TIME}
    near = [own[TIME] + more for more in (1, 3, 2, 0, -1)]  # an odd one of a stride, if that is no other way
    possible = [n for n in near if n > 1 and n not in others and takes(n)]
    guards = [g for g in traced.limits.guards if set(g.axes) <= set(own)]

    def goes_the_same_way(size: int) -> bool:
        return all(g.holds({**own, TIME: size}) == g.holds(own) for g in guards)

    near_own = [n for n in range(max(1, own[TIME] - FAR), own[TIME] + FAR) if takes(n)]
    before = [n for n in near_own if n <= own[TIME]][::-1]
    alike = [*takewhile(goes_the_same_way, before), *takewhile(goes_the_same_way, near_own[len(before) :])]
    if len(alike) < min(LEAST_RANGE, len(near_own)):
        return None  # a way of single lengths, such as multiples of a chunk, is none that a file could keep to
    return next((n for n in possible if goes_the_same_way(n)), None)


def _other_side(guard: Guard, traced_at: Sizes, most_steps: int) -> Sizes | None:
    """Sizes at which ``guard`` does not hold, the others as they were."""
    if not guard.own:
        return None
    for axis in guard.axes:
        for size in guard.turns(axis, traced_at, most_steps):
            for near in (size, size - 1):
                sizes = {**traced_at, axis: near}
                if near > 1 and not guard.holds(sizes):
                    return sizes
    return None


def _limits_at(module: nn.Module, operators: Operators, example: Example, sizes: Sizes) -> SizeLimits:
    recorder = PlaceholderRecorder(module, operators.layers)
    traced = TracedModule(module, example, recorder, operators, False).eval()
    axes = [i.axes for i in example.inputs]
    dynamic = (tuple({i: torch.export.Dim.AUTO for i, a in enumerate(axis) if a} for axis in axes),)
    tensors = tuple(example.draw(sizes, torch.Generator().manual_seed(0)))
    with unchanged(module), recording(recorder), packing_by(PaddedPacker()), operators.answering():
        program = to_program(traced, tensors, dynamic, what=type(module).__name__)
    return find_size_limits(program, axes_of_symbols(program, axes), TIME)
