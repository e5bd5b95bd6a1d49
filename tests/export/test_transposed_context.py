"""Transposed convolutions whose end is cut off, as decoders of speech have them: the steps before a chunk are carried."""

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


class Up(nn.Module):
    """A layer, and a transposed convolution over its steps, over bands beside them or not."""

    def __init__(self, bands: bool, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.layer, self.bands = nn.GRU(4, 4, batch_first=True), bands
        self.more = (width - 1) * dilation + 1 - stride
        self.conv: nn.Module = nn.ConvTranspose1d(4, 3, width, stride, dilation=dilation)
        if bands:
            self.conv = nn.ConvTranspose2d(2, 3, (3, width), (2, stride), dilation=(1, dilation))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)[0].mT
        y = self.conv(y.unflatten(1, (2, 2)) if self.bands else y)
        return torch.tanh(y[..., : -self.more] if self.more > 0 else y)


@settings(max_examples=5, deadline=None)
@given(bands=st.booleans(), width=st.integers(2, 5), stride=st.integers(1, 3), dilation=st.integers(1, 2))
def test_they_stream(
    tmp_path_factory: pytest.TempPathFactory, bands: bool, width: int, stride: int, dilation: int
) -> None:
    if (width - 1) * dilation + 1 < stride:
        return
    torch.manual_seed(0)
    module, path = Up(bands, width, stride, dilation).eval(), tmp_path_factory.mktemp("up") / "m.onnx"
    report = export(module, path, torch.randn(2, 7, 4))
    assert report.causal
    x = torch.randn(1, 11, 4)
    with torch.no_grad():
        right = module(x).numpy()
    model = load(path)
    np.testing.assert_allclose(model.run(x.numpy()), right, **TOLERANCE)
    with model.stream() as stream:
        found = [stream.push(chunk.numpy()) for chunk in x[0].split([1, 2, 5, 3])]
    np.testing.assert_allclose(np.concatenate(found, -1), right[0], **TOLERANCE)


def test_what_is_not_cut_off_is_for_whole_sequences(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One step more than the input has: what the last step adds to it no chunk but the last may answer."""
    torch.manual_seed(0)
    module = Up(False, 3, 1, 1)
    module.more = 1
    assert not export(module.eval(), tmp_path_factory.mktemp("up") / "m.onnx", torch.randn(2, 7, 4)).causal
