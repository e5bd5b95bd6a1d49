"""A mask as an index in a loop: what it keeps is as long as the values say, which no file can follow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime.errors import ExportError


class Kept(nn.Module):
    """Takes the padding out of each row, and puts it back."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        rows = [row[row != 8] for row in ids]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return self.gru(self.table(padded))[0]


def test_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="forward reads the value of a tensor") as caught:
        export(Kept().eval(), tmp_path / "m.onnx", torch.randint(0, 8, (3, 7)))
    assert "vmap" not in str(caught.value)
    assert Path(__file__).name in str(caught.value)
