"""States that keep their rows in front, as players keep them: turned round before the layer, and back behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE

SIZES = (5, 6)


class TwoStates(nn.Module):
    """[rows, layers, units] each."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(*SIZES, layers, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.layer(x.unsqueeze(1), (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()))
        return y[:, -1] * 2, h.transpose(0, 1), c.transpose(0, 1)


class BothInOne(nn.Module):
    """[rows, 2 * layers, units]: what is remembered, then the cells."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(*SIZES, layers)

    def forward(self, x: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        h, c = both.permute(1, 0, 2).contiguous().chunk(2, 0)
        y, states = self.layer(x.unsqueeze(0), (h, c))
        return y.squeeze(0) * 2, torch.cat(states, 0).permute(1, 0, 2)


@settings(max_examples=4, deadline=None)
@given(layers=st.integers(1, 3), rows=st.integers(2, 4), one=st.booleans())
def test_they_are_carried(tmp_path_factory: pytest.TempPathFactory, layers: int, rows: int, one: bool) -> None:
    torch.manual_seed(0)
    module = (BothInOne if one else TwoStates)(layers).eval()
    shapes = [(2 * layers, SIZES[1])] if one else [(layers, SIZES[1])] * 2
    path = tmp_path_factory.mktemp("states") / "m.onnx"
    report = export(module, path, (torch.randn(rows, SIZES[0]), *(torch.zeros(rows, *shape) for shape in shapes)))
    assert report.causal
    x, states, right = torch.randn(9, 1, SIZES[0]), [torch.zeros(1, *shape) for shape in shapes], []
    with torch.no_grad():
        for entry in x:
            y, *states = module(entry, *states)
            right.append(y[0].numpy())
    model = load(path)
    np.testing.assert_allclose(model.run(x.transpose(0, 1).numpy())[0], right, **TOLERANCE)
    with model.stream() as stream:
        found = [stream.push(chunk.numpy()) for chunk in x[:, 0].split([1, 3, 5])]
    np.testing.assert_allclose(np.concatenate(found), right, **TOLERANCE)
