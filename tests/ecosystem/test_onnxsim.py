"""Files of ours that onnxsim has simplified come back by ``adapt``; tests/export does the same for tools that CI has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rnncore import runtime
from rnncore.export import adapt, export
from rnncore.runtime.errors import RnncoreError
from tests.tolerances import bound

onnxsim = pytest.importorskip("onnxsim", reason="onnxsim is not installed: scripts/ecosystem installs it")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
WIDTH = 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(WIDTH, 7, 3)
        self.rnn, self.head = nn.GRU(7, 11, 2, batch_first=True), nn.Linear(11, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x.transpose(1, 2), (2, 0))
        return self.head(self.rnn(self.front(padded).transpose(1, 2))[0])


@pytest.mark.parametrize("form", ["loop", "scan", "fused"])
def test_a_simplified_file_answers_and_streams_as_before(form: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    ours, touched, again = (tmp_path / f"{name}.onnx" for name in ("ours", "touched", "again"))
    export(Net().eval(), ours, torch.randn(2, 7, WIDTH), form=form, streaming=True)
    simplified, checked = onnxsim.simplify(onnx.load(ours))
    assert checked
    onnx.save(simplified, touched)
    with pytest.raises(RnncoreError):
        runtime.load(touched)
    report = adapt(touched, again)
    assert report.signature.causal and runtime.verify(again).passed
    x = np.random.default_rng(1).standard_normal((2, 19, WIDTH)).astype(np.float32)
    wanted, model = runtime.load(ours).run(x), runtime.load(again)
    allowed = bound("float32", "onnx", length=19, depth=3)
    np.testing.assert_allclose(model.run(x), wanted, atol=allowed)
    with model.stream() as stream:
        chunks = [stream.push(x[0, :4]), stream.push(x[0, 4:])]
    np.testing.assert_allclose(np.concatenate(chunks), wanted[0], atol=allowed)
