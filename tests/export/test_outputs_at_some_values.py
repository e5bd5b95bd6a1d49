"""Outputs that a module has at some values only, as ``mask if mask.any() else None``, and outputs that mix the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import VerificationError
from tests.strategies import randomize
from tests.tolerances import fixed


class Encoder(nn.Module):
    """Ids [batch, time], of which 0 stands for nothing; the last output is there only where it is met."""

    def __init__(self, *, mixes: bool = False) -> None:
        super().__init__()
        self.mixes = mixes
        self.embedding = nn.Embedding(9, 3)
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, ids: Tensor) -> dict[str, Tensor | None]:
        y, last = self.gru(self.embedding(ids))
        nothing = ids.eq(0)
        if nothing.any():
            y = y.masked_fill(nothing.unsqueeze(-1), -1.0)
        if self.mixes:
            last = torch.cat([last[0, :, :2], last[0, :, 2:]], 0).view(ids.shape[0], 4)
        else:
            last = last[0]
        return {"y": y, "last": last, "nothing": nothing if nothing.any() else None}


def test_output_that_the_example_has_not_is_left_out(tmp_path: Path) -> None:
    module = randomize(Encoder(), 0)
    report = export(module, tmp_path / "m.onnx", torch.randint(1, 9, (2, 12)))
    assert report.causal and [spec.name for spec in report.signature.outputs] == ["y", "last"]
    assert any("'nothing' is there at some values only" in remark for remark in report.verification["remarks"])
    model = load(report.path)
    for low in (0, 1):
        ids = torch.randint(low, 9, (3, 20))
        with torch.no_grad():
            right = module(ids)
        got = model.run(ids.numpy())
        for name in ("y", "last"):
            np.testing.assert_allclose(got[name], right[name].numpy(), atol=fixed("float32"))


def test_outputs_that_mix_rows_are_named(tmp_path: Path) -> None:
    module = randomize(Encoder(mixes=True), 0)
    with pytest.raises(VerificationError, match=r"mixes rows; output_names=\['y', None\] leaves it out") as refusal:
        export(module, tmp_path / "m.onnx", torch.randint(1, 9, (2, 12)))
    assert "only in 'last'" in str(refusal.value)
    report = export(module, tmp_path / "m.onnx", torch.randint(1, 9, (2, 12)), output_names=["y", None])
    ids = torch.randint(0, 9, (3, 20))
    with torch.no_grad():
        right = module(ids)["y"]
    np.testing.assert_allclose(load(report.path).run(ids.numpy()), right.numpy(), atol=fixed("float32"))
