"""Layers whose rows are bands of a sequence, and layers along the bands of each frame: they stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE, exported

BANDS = 5


class Bands(nn.Module):
    """Dual path, as enhancers have it: along the bands both ways, then along time for each band.

    inner: with the first of them.  start: the state of the second as code hands it over.  outside: rows band by band, of all
    sequences, in place of sequence by sequence.
    """

    def __init__(self, *, inner: bool, start: str, outside: bool) -> None:
        super().__init__()
        self.along = nn.GRU(2, 3, batch_first=True, bidirectional=True)
        self.over = nn.LSTM(6 if inner else 2, 4, batch_first=True)
        self.first = nn.Parameter(torch.randn(1, 1, 4))
        self._inner, self._start, self._outside = inner, start, outside

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, bands, 2]
        batch, time = x.shape[:2]
        if self._inner:
            x = self.along(x.reshape(batch * time, BANDS, 2))[0].reshape(batch, time, BANDS, 6)
        order = (2, 0, 1, 3) if self._outside else (0, 2, 1, 3)
        rows = x.permute(order).reshape(batch * BANDS, time, -1)
        state = None
        if self._start == "zeros":
            state = (torch.zeros(1, batch * BANDS, 4), torch.zeros(1, batch * BANDS, 4))
        if self._start == "learned":
            state = (self.first.expand(1, batch * BANDS, 4).contiguous(),) * 2
        y = self.over(rows, state)[0]
        if self._outside:
            return y.reshape(BANDS, batch, time, 4).permute(1, 2, 0, 3)
        return y.reshape(batch, BANDS, time, 4).permute(0, 2, 1, 3)


def draw(batch: int, time: int) -> Tensor:
    return torch.randn(batch, time, BANDS, 2)


@pytest.mark.parametrize(
    ("inner", "start"), [(False, "none"), (True, "none"), (True, "zeros"), (False, "learned")], ids=str
)
def test_bands_stream_whoever_else_is_in_the_call(inner: bool, start: str, tmp_path: Path) -> None:
    module = Bands(inner=inner, start=start, outside=False)
    model, report = exported(module, tmp_path, draw(2, 9), draw, [(1, 1), (3, 4), (2, 23)])
    assert report.causal
    rows = draw(3, 7)
    streams = [model.stream() for _ in rows]
    begun = [stream.push(row[:3].numpy()) for stream, row in zip(streams, rows, strict=True)]
    order = [2, 0, 1]
    ended = dict(
        zip(order, model.push_many([streams[k] for k in order], [rows[k, 3:].numpy() for k in order]), strict=True)
    )
    with torch.no_grad():
        wanted = module(rows)
    for k, right in enumerate(wanted):
        np.testing.assert_allclose(np.concatenate([begun[k], ended[k]]), right.numpy(), **TOLERANCE)


def test_rows_in_another_order_are_no_stream(tmp_path: Path) -> None:
    """A state of each sequence would have to be taken from among those of all; alone in its call it streams."""
    module = Bands(inner=False, start="none", outside=True)
    _, report = exported(module, tmp_path, draw(2, 9), draw, [(3, 4)])
    assert not report.causal


def test_zeros_for_more_rows_than_the_batch_has(tmp_path: Path) -> None:
    """Dilated layers have the steps of a stride as rows: the file asked for zeros of one row each."""

    class Dilated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:  # [time, batch, 3]
            steps, batch = x.shape[:2]
            if steps % 2:
                x = torch.cat([x, x.new_zeros(1, batch, 3)])
            y = self.gru(torch.cat([x[::2], x[1::2]], 1), torch.zeros(1, 2 * batch, 4))[0]
            return torch.stack([y[:, :batch], y[:, batch:]], 1).flatten(0, 1)[:steps]

    module = Dilated().eval()
    model = load(export(module, tmp_path / "model.onnx", torch.randn(16, 2, 3)).path)
    for steps, batch in ((16, 2), (5, 3), (1, 1)):
        x = torch.randn(steps, batch, 3)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(x.numpy()), module(x).numpy(), **TOLERANCE)
