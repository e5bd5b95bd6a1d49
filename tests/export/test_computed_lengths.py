"""Lengths that a module computes of an input before it packs with them, whatever the input is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE


class Frames(nn.Module):
    """Convolutions that take ``stride`` steps at a time, then a layer over the frames that each row has."""

    def __init__(self, stride: int, *, floor: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, stride)
        self.lstm, self.speakers = nn.LSTM(4, 5, batch_first=True), nn.Embedding(6, 5)
        self._stride, self._floor = stride, floor

    def forward(self, x: Tensor, n: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        n = (n - 3) // self._stride + 1 if self._floor else torch.div(n - 3, self._stride, rounding_mode="trunc") + 1
        packed = pack_padded_sequence(y, n.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return out + self.speakers(speaker)[:, None], n


@pytest.mark.parametrize(("stride", "floor"), [(1, True), (2, True), (2, False), (4, True)])
def test_rows_of_their_own_lengths(stride: int, *, floor: bool, tmp_path: Path) -> None:
    module = Frames(stride, floor=floor).eval()
    example = (torch.randn(2, 20, 3), torch.full((2,), 20), torch.tensor([1, 5]))
    model = load(export(module, tmp_path / "model.onnx", example).path)
    assert model.signature.lengths is not None and model.signature.lengths.name == "n"
    for lengths in ([24, 11], [9], [31, 31, 15]):
        n = torch.tensor(lengths)
        x, speaker = torch.randn(len(lengths), int(n.max()), 3), torch.randint(0, 6, (len(lengths),))
        with torch.no_grad():
            wanted = module(x, n, speaker)[0]
        found = model.run(x.numpy(), speaker.numpy(), lengths=n.numpy())["output_0"]
        for row, size in enumerate((n - 3) // stride + 1):
            np.testing.assert_allclose(found[row, :size], wanted[row, :size].numpy(), **TOLERANCE)
