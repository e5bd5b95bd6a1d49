"""A row of a batch against the row alone: other rows, their padding and its own padding must not show."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rnncore.export.tracing.example import are_shares
from rnncore.export.tracing.masks import masked_behind
from rnncore.export.tracing.padding import padded_behind
from rnncore.export.verification.bench import Bench, Question
from rnncore.export.verification.cases import Case, why_refused
from rnncore.runtime import Model
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.axes import base_of, known_size
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
            question = Question("ragged", batch, time, own, detail, lengths.numpy())
            if int(lengths.max()) == time or not bench.reference.failure(own):
                yield bench.asked(model, question, lengths)
            tensors = _zeros_beyond(bench, tensors, lengths)  # as the runtime pads a list of rows
        try:
            got = bench.run(model, tensors, lengths)
        except InputError as refusal:
            note = why_refused(refusal)
            yield Question("ragged", batch, time, tensors, detail).failed(note)
            continue
        for row, length in enumerate(lengths.tolist()):
            alone = bench.cut(tensors, row, length)
            if bench.reference.failure(alone):
                continue  # too short for the module itself
            question = Question("ragged", 1, length, alone, f"row {row} of a batch padded to {time}, alone")
            yield bench.judge(question, model, bench.row(model, got, row, length, (batch, time)))


def counted_cases(bench: Bench, model: Model) -> Iterator[Case]:
    """Rows of different counts along an axis, the first of them full, or a little less; what the module does not run is left out.

    Where no row is full PyTorch's answer may be shorter: the file's goes on with zeros.  Counts that are all 1 are not asked:
    PyTorch spreads a mask of one place over all of them.
    """
    shares = [own.name for own in bench.example.inputs if are_shares(own.value)]
    names = [*bench.example.counts, *shares]
    for batch, time, left_out in ((4, 11, 0), (2, 5, 0), (3, 9, 1)) if names else ():
        batch, time = bench.near(batch, time)
        tensors = bench.draw(batch, time)
        for place, name in enumerate(bench.example.names):
            if name in shares:
                fewer = 0.05 + 0.95 * torch.rand(batch - 1, generator=bench.generator).sort(descending=True).values
                tensors[place] = torch.cat([torch.ones(1), fewer]).to(tensors[place])
            elif name in bench.example.counts:
                full = int(tensors[place].max())
                most = max(min(2, full), full - left_out)
                fewer = torch.randint(1, most + 1, (batch - 1,), generator=bench.generator).sort(descending=True).values
                tensors[place] = torch.cat([torch.tensor([most]), fewer]).to(tensors[place])
        detail = ", ".join(f"{n} {t.tolist()}" for n, t in bench.named(tensors) if n in names)
        if not bench.reference.failure(tensors):
            yield bench.asked(model, Question("whole", batch, time, tensors, detail, may_be_shorter=left_out > 0))


def masked_cases(bench: Bench, model: Model) -> Iterator[Case]:
    """Rows of fewer steps than the batch has, as masks say it; what the module does not run is left out.

    The first row is full or, of a file that does not stream, none: PyTorch may answer for fewer steps then, as must the file.
    """
    masks = [place for place, own in enumerate(bench.example.inputs) if own.filling is not None and BATCH in own.axes]
    sizes = [(4, 11, 1.0), (2, 5, 1.0), *[(3, 9, 0.7)] * (not model.signature.causal)]
    for rows, steps, most in sizes if masks else ():
        batch, time = bench.near(rows, steps)
        tensors = bench.draw(batch, time)
        shares = most * torch.cat([torch.ones(1), torch.rand(batch - 1, generator=bench.generator)])
        for place in masks:
            own, mask = bench.example.inputs[place], tensors[place]
            along = own.axes.index(TIME) if TIME in own.axes else mask.dim() - 1
            counts = (shares * mask.shape[along]).ceil().clamp(min=1)
            tensors[place] = masked_behind(mask, counts, int(own.filling or 0), own.axes.index(BATCH), along)
        if not bench.reference.failure(tensors):
            detail = f"masked behind {[round(share, 2) for share in shares.tolist()]} of the steps"
            yield bench.asked(model, Question("whole", batch, time, tensors, detail))


def _lengths(bench: Bench, batch: int, longest: int) -> Tensor:
    lengths = torch.randint(1, longest + 1, (batch,), generator=bench.generator)
    lengths[-1] = longest
    lengths = torch.tensor([bench.near(1, length)[1] for length in lengths.tolist()])
    return lengths.sort(descending=True).values if bench.example.sorted_lengths else lengths


def _zeros_beyond(bench: Bench, tensors: list[Tensor], lengths: Tensor) -> list[Tensor]:
    results = []
    for known, tensor in zip(bench.example.inputs, tensors, strict=True):
        timed = [(place, axis) for place, axis in enumerate(known.axes) if axis and base_of(axis) == TIME]
        if BATCH in known.axes and timed:
            place, axis = timed[0]
            ends = [known_size(axis, {TIME: length}) for length in lengths.tolist()]
            tensor = padded_behind(tensor, ends, 0, known.axes.index(BATCH), place)
        results.append(tensor)
    return results
