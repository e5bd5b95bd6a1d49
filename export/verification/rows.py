"""A row of a batch against the row alone: other rows, their padding and its own padding must not show."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rnncore.export.verification.bench import Bench, Question
from rnncore.export.verification.cases import Case
from rnncore.export.verification.reference import first_line
from rnncore.runtime import Model
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.signature import BATCH, TIME

ROWS = (2, 7)  # (batch, time) of rows without padding
RAGGED_SIZES = ((4, 11, 11), (3, 13, 8))  # (batch, time, longest): arrays may be longer than their longest row


def row_cases(bench: Bench, model: Model) -> Iterator[Case]:
    """Each row of a full batch."""
    batch, time = bench.near(*ROWS)
    tensors = bench.draw(batch, time)
    if bench.reference.failure(tensors):
        return
    got = bench.run(model, tensors)
    for row in range(batch):
        alone = bench.cut(tensors, row, time)
        if not bench.reference.failure(alone):
            question = Question("rows", 1, time, alone, f"row {row} of a batch of {batch}")
            yield bench.judge(question, model, bench.row(model, got, row, time, (batch, time)))


def ragged_cases(bench: Bench, model: Model) -> Iterator[Case]:
    """Padded batches: what the module says about them if it knows lengths, and each row alone, cut to its length."""
    for batch, steps, longest in RAGGED_SIZES:
        batch, time = bench.near(batch, steps)
        tensors = bench.draw(batch, time)
        lengths = _lengths(bench, batch, longest)
        detail = f"lengths {lengths.tolist()}"
        if bench.example.lengths is not None:
            own = bench.with_lengths(tensors, lengths)
            yield bench.asked(model, Question("ragged", batch, time, own, detail, lengths.numpy()), lengths)
            tensors = _zeros_beyond(bench, tensors, lengths)  # as the runtime pads a list of rows
        try:
            got = bench.run(model, tensors, lengths)
        except InputError as refusal:
            note = f"the file refuses it: {first_line(refusal)}"
            yield Question("ragged", batch, time, tensors, detail).failed(note)
            continue
        for row, length in enumerate(lengths.tolist()):
            alone = bench.cut(tensors, row, length)
            if bench.reference.failure(alone):
                continue  # too short for the module itself
            question = Question("ragged", 1, length, alone, f"row {row} of a batch padded to {time}, alone")
            yield bench.judge(question, model, bench.row(model, got, row, length, (batch, time)))


def _lengths(bench: Bench, batch: int, longest: int) -> Tensor:
    lengths = torch.randint(1, longest + 1, (batch,), generator=bench.generator)
    lengths[-1] = longest
    lengths = torch.tensor([bench.near(1, length)[1] for length in lengths.tolist()])
    return lengths.sort(descending=True).values if bench.example.sorted_lengths else lengths


def _zeros_beyond(bench: Bench, tensors: list[Tensor], lengths: Tensor) -> list[Tensor]:
    results = []
    for known, tensor in zip(bench.example.inputs, tensors, strict=True):
        if BATCH in known.axes and TIME in known.axes:
            tensor = tensor.clone()
            by_row = tensor.movedim((known.axes.index(BATCH), known.axes.index(TIME)), (0, 1))
            for row, length in enumerate(lengths.tolist()):
                by_row[row, length:] = 0
        results.append(tensor)
    return results
