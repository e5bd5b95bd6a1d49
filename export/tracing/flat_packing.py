"""Code that reads ``packed.data`` step by step, as ``batch_sizes`` says: of rows that are all full, it reads a sequence.

Torch lays packed rows out as one long tensor, all rows of the first step, then those of the second.  Full rows have equally
many at every step: ``data[i : i + batch_sizes[t]]`` is step t of [time, batch, ...], and this is how it is written down while
a module is recorded (:mod:`rnncore.export.tracing.rolling.recording`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnncore.export.tracing.packing import PackObserver, PaddedPacker, packing_by


@dataclass(frozen=True)
class Place:
    """Which of the packed rows a slice takes: step number ``step`` of ``rows``, None for all rows of a single step."""

    rows: int
    step: int | None


class FlatPacker:
    """Packs and unpacks rows that are all full, in torch's own layout, with operations that can be traced.

    batch_of: rows of a step, by the number of all that were packed together.
    """

    def __init__(self) -> None:
        self.batch_of: dict[int, int] = {}

    def pack(self, input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
        """Stand in for ``pack_padded_sequence``."""
        x = input.transpose(0, 1) if batch_first else input
        steps, rows = x.shape[:2]
        self.batch_of[steps * rows] = rows
        order = None if enforce_sorted else torch.arange(rows)
        return PackedSequence(x.flatten(0, 1), torch.full((steps,), rows), order, order)

    def place(self, x: Tensor, extent: Sequence[Any]) -> Place | None:
        """What ``x`` is sliced to by (axis, start, end, step), which may be left out; None if that is nothing of packed rows."""
        given: list[Any] = [*extent, *(0, 0, None, 1)[len(extent) :]]
        axis, start, end, step = given
        start, size = start or 0, x.shape[0] if x.dim() else 0
        if axis or step != 1 or end is None or start < 0 or end > size:
            return None
        rows = self.batch_of.get(size)
        if rows is not None and end - start == rows and start % rows == 0:
            return Place(rows, start // rows)
        return Place(size, None) if size in self.batch_of.values() and (start, end) == (0, size) else None

    def pad(
        self, sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: Any
    ) -> tuple[Tensor, Tensor]:
        """Stand in for ``pad_packed_sequence``."""
        steps, rows = len(sequence.batch_sizes), self.batch_of[sequence.data.shape[0]]
        y = sequence.data.unflatten(0, (steps, rows))
        return (y.transpose(0, 1) if batch_first else y), torch.full((rows,), steps)

    def forward(self, layer: nn.RNNBase, sequence: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """The layer on [time, batch, ...]."""
        x, _ = self.pad(sequence, layer.batch_first, 0.0, None)
        y, final = layer(x, hx)
        y = (y.transpose(0, 1) if layer.batch_first else y).flatten(0, 1)
        return PackedSequence(y, *sequence[1:]), final


def packer_of(module: nn.Module) -> FlatPacker | PaddedPacker:
    """What packs while ``module`` is recorded, of which nothing is kept."""
    return FlatPacker() if getattr(module, "flat", False) is True else PaddedPacker(listed=True)


def packs(module: nn.Module, run: Any) -> bool:
    """Whether ``module`` packs sequences when ``run`` calls it."""
    observer = PackObserver()
    with packing_by(observer), torch.no_grad():
        run()
    return bool(observer.lengths)
