"""Outputs that hold nothing are left out, and lengths are known by what they count, where a module is refused otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.tolerances import fixed


class Encoder(nn.Module):
    """An encoder that asks for rows that fill the array, and gives states only where it was given some."""

    def __init__(self, *, empty: bool, asks: bool) -> None:
        super().__init__()
        self.gru, self._empty, self._asks = nn.GRU(3, 4, batch_first=True), empty, asks

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
        ends = x_lens - 1
        if self._asks:
            assert x.shape[1] == int(x_lens.max())
        y = self.gru(x)[0]
        return (y, ends, torch.empty(0), torch.empty(0)) if self._empty else (y, ends)


@pytest.mark.parametrize(("empty", "asks"), [(True, False), (False, True), (True, True)])
def test_it_is_exported_and_says_so(empty: bool, asks: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Encoder(empty=empty, asks=asks).eval()
    report = export(module, tmp_path / "model.onnx", (torch.randn(2, 6, 3), torch.tensor([6, 5])))
    assert ("2 of the outputs are empty, and left out" in str(report)) == empty
    model, x, lengths = load(report.path), torch.randn(3, 8, 3), torch.tensor([8, 3, 5])
    with torch.no_grad():
        y, ends = module(x, lengths)[:2]
    got = model.run(x.numpy(), lengths.numpy())
    np.testing.assert_array_equal(got["output_1"], ends)
    for row, steps in enumerate(lengths.tolist()):
        np.testing.assert_allclose(got["output_0"][row, :steps], y[row, :steps], rtol=0, atol=fixed("float32"))
