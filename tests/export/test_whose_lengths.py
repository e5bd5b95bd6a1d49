"""Lengths that come with the first of two sequences, in a module that is taught the second: they count along the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE


class Translates(nn.Module):
    """An encoder of packed words, and a decoder that looks at what it found and is told the words so far."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.encoder = nn.LSTM(4, 3, bidirectional=True)
        self.decoder, self.out = nn.LSTM(4, 6), nn.Linear(12, 9)

    def forward(self, source: Tensor, source_len: Tensor, target: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.words(source), source_len, enforce_sorted=False)
        found = pad_packed_sequence(self.encoder(packed)[0])[0]
        y, _ = self.decoder(self.words(target))
        masked = (y.transpose(0, 1) @ found.permute(1, 2, 0)).masked_fill(
            torch.arange(found.shape[0]) >= source_len[:, None, None], -torch.inf
        )
        seen = (masked.softmax(-1) @ found.transpose(0, 1)).transpose(0, 1)
        return self.out(torch.cat([y, seen], -1))


def test_lengths_count_along_the_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Translates().eval(), tmp_path / "m.onnx"
    export(module, path, (torch.randint(9, (7, 2)), torch.full((2,), 7), torch.randint(9, (4, 2))))
    source, lengths, target = torch.randint(9, (11, 3)), torch.tensor([11, 4, 8]), torch.randint(9, (5, 3))
    with torch.no_grad():
        expected = module(source, lengths, target).numpy()
    found = load(path).run(source.numpy(), target.numpy(), lengths=lengths.numpy())
    np.testing.assert_allclose(found, expected, **TOLERANCE)
