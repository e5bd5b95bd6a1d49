"""Modules that go another way with the fewest steps: the file takes at least one more, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.verification.cases import why_refused
from rnncore.runtime import load
from rnncore.runtime.errors import InputError
from tests.export.rolled import TOLERANCE


class AllButTheFirst(nn.Module):
    """One step less than the input has, decoded one by one: none of one step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        found = torch.zeros(x.shape[0], x.shape[1] - 1, 5)
        for t in range(x.shape[1] - 1):
            h = self.cell(x[:, t + 1] - x[:, t], h)
            found[:, t] = h
        return found


class WithoutOne(nn.Module):
    """A sequence of one step is not normed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)[0]
        kept = []
        for t in range(x.shape[1]):
            kept.append(y[:, t] * 0.5 if x.shape[1] == 1 else y[:, t])
        return torch.stack(kept, 1)


@pytest.mark.parametrize("kind", [AllButTheFirst, WithoutOne])
def test_the_file_takes_one_step_more(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, 4))
    model = load(report.path)
    for batch, time in ((1, 2), (3, 9)):
        x = torch.randn(batch, time, 4)
        with torch.no_grad():
            wanted = module(x).numpy()
        np.testing.assert_allclose(model.run(x.numpy()), wanted, **TOLERANCE)
    x = torch.randn(2, 1, 4)
    try:
        got = model.run(x.numpy())
    except InputError as refusal:
        assert "at least 2" in str(refusal)
    else:  # there is no other way after all
        with torch.no_grad():
            np.testing.assert_allclose(got, module(x).numpy(), **TOLERANCE)


def test_what_onnxruntime_says_stays_out_of_a_report() -> None:
    text = (
        "onnxruntime could not run the model on this input: Non-zero status code returned while running If node. "
        "Name:'module.module.cells.1.layers.0/If_104' Status Message: Non-zero status code returned while running Gemm node. "
        "Name:'fused module.module.cells.1.layers.0/Gemm_5' Status Message: Gemm: Invalid bias shape for broadcast"
    )
    assert why_refused(InputError(text)) == "the file fails on it, at the Gemm of layer 'cells.1.layers.0'"
    assert why_refused(InputError("x: expected 3 axes\nmore")) == "the file refuses it: x: expected 3 axes"
