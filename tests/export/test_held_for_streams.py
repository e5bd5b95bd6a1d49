"""Axes of one entry that could have more are held where a file streams only then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.strategies import randomize
from tests.tolerances import fixed

AXES = {"x": ("batch", "channels", "time", None), "features": ("batch", "time", None)}


class Filtered(nn.Module):
    """A mask [batch, 1, time, bands] by a GRU, times a causal sum over what ``x`` [batch, channels, time, bands] was."""

    def __init__(self, *, looks_back: bool = True) -> None:
        super().__init__()
        self.looks_back = looks_back
        self.gru = nn.GRU(5, 5, batch_first=True)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        mask = torch.sigmoid(self.gru(features)[0]).unsqueeze(1)
        if not self.looks_back:
            return x * mask + x.mean(2, keepdim=True)
        return (F.pad(x, (0, 0, 2, 0)).unfold(2, 3, 1) * torch.tensor([0.2, 0.3, 0.5])).sum(-1) * mask


def test_axis_of_one_entry_is_held_where_the_file_streams_then(tmp_path: Path) -> None:
    module = randomize(Filtered(), 0)
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 1, 12, 5), torch.randn(2, 12, 5)))
    assert report.causal, report.signature.not_causal_because
    assert any("axis 1 is held to 1" in remark for remark in report.verification["remarks"])
    x, features = torch.randn(1, 9, 5), torch.randn(9, 5)
    with torch.no_grad():
        right = module(x[None], features[None])[0].numpy()
    with runtime.load(report.path).stream() as stream:
        parts = [stream.push(x[:, a:b].numpy(), features[a:b].numpy()) for a, b in ((0, 1), (1, 5), (5, 9))]
    np.testing.assert_allclose(np.concatenate(parts, 1), right, atol=fixed("float32"))


@pytest.mark.parametrize("options", [{}, {"axes": AXES}, {"streaming": False}])
def test_it_stays_free_where_that_is_no_help_or_not_wanted(tmp_path: Path, options: dict[str, object]) -> None:
    module = randomize(Filtered(looks_back=bool(options)), 0)
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 1, 12, 5), torch.randn(2, 12, 5)), **options)
    assert not report.causal
    x, features = torch.randn(2, 3, 7, 5), torch.randn(2, 7, 5)
    with torch.no_grad():
        right = module(x, features).numpy()
    np.testing.assert_allclose(runtime.load(report.path).run(x.numpy(), features.numpy()), right, atol=fixed("float32"))
