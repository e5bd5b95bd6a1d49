"""Rows that end with what the module itself takes for padding."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rnncore.export.tracing.example import Input
from rnncore.export.tracing.padding import padded_behind
from rnncore.export.verification.bench import Bench, Question
from rnncore.export.verification.cases import Case
from rnncore.runtime import Model
from rnncore.runtime.format.axes import BATCH

SIZES = ((2, 7, 0.7), (1, 9, 0.4), (3, 8, 1.0))  # (batch, time, share of the longest row)
AMONG = 0.3


def padded_cases(bench: Bench, model: Model) -> Iterator[Case]:
    """Padded rows, and rows with padding among their steps; what the module does not run is left out."""
    ends = {place: axis for place, own in enumerate(bench.example.inputs) if (axis := _steps_axis(own)) is not None}
    for rows, steps, most in SIZES if ends else ():
        batch, time = bench.near(rows, steps)
        tensors = bench.draw(batch, time)
        others = most * torch.rand(batch - 1, generator=bench.generator)
        shares = torch.cat([torch.tensor([most]), others.sort(descending=True).values])
        for place, axis in ends.items():
            own, value = bench.example.inputs[place], tensors[place]
            lengths = (shares * value.shape[axis]).ceil().clamp(min=1).long().tolist()
            tensors[place] = padded_behind(value, lengths, own.padding or 0, own.axes.index(BATCH), axis)
        if not bench.reference.failure(tensors):
            detail = f"rows padded behind {[round(share, 2) for share in shares.tolist()]} of the steps"
            yield bench.asked(model, Question("whole", batch, time, tensors, detail))
    if ends:
        batch, time = bench.near(2, 7)
        tensors = bench.draw(batch, time)
        for place, axis in ends.items():
            drawn = torch.rand(tensors[place].shape, generator=bench.generator).to(tensors[place].device)
            drawn.select(axis, 0).fill_(1)
            tensors[place] = tensors[place].masked_fill(drawn < AMONG, bench.example.inputs[place].padding or 0)
        if not bench.reference.failure(tensors):
            yield bench.asked(model, Question("whole", batch, time, tensors, "padding among the steps"))


def _steps_axis(own: Input) -> int | None:
    """The axis along which an input is padded, None if the module does not count its steps."""
    free = [place for place, axis in enumerate(own.axes) if axis is not None and axis != BATCH]
    return free[0] if own.padding is not None and free and BATCH in own.axes else None
