"""NaN in whole exports: where it shows, and what the report says; what else verification sees is in test_bench.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.export import export
from tests.export.exporting import one_trace
from tests.export.modules import Network
from tests.proof.modules import FEATURES, HIDDEN
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow
X = torch.randn(2, 6, FEATURES, generator=torch.Generator().manual_seed(1))


class First(nn.Module):
    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return both[0]


CELLS = {
    "gru": lambda: rnncore.GRUCell(FEATURES, HIDDEN),
    "lstm": lambda: rnncore.LSTMCell(FEATURES, HIDDEN, peephole="current"),
    "rnn relu": lambda: rnncore.RNNCell(FEATURES, HIDDEN, activation="relu"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_nan_shows_in_what_auto_writes_and_hides_in_fused_operators(kind: str, tmp_path: Path) -> None:
    """The report of a fused file says so; the rows beside are clean in both."""
    module = randomize(Network(rnncore.Recurrent(CELLS[kind]())).eval(), 3)
    x = X.clone()
    x[0, 2, 1] = float("nan")
    with torch.no_grad():
        wanted = torch.isnan(module(x)["y"]).numpy()
    with one_trace():
        reports = {
            form: export(module, tmp_path / f"{form}.onnx", X, form=form, lengths=False)  # type: ignore[arg-type]
            for form in ("auto", "fused")
        }
    for form, report in reports.items():
        file = runtime.load(report.path)
        shows = np.array_equal(np.isnan(file.run(x.numpy())), wanted)
        assert shows is (form == "auto"), form
        assert ("NaN in 'x' does not show in 'y'" in str(report)) is not shows
        # A batch with a NaN in it is run by the Scan beside the operator, which rounds otherwise; nothing else may differ.
        far = fixed("float32") if report.form == "fused+scan" else 0
        np.testing.assert_allclose(file.run(x.numpy())[1], file.run(X.numpy())[1], rtol=0, atol=far)
        assert [c for c in report.verification["cases"] if c["detail"].startswith("NaN in 'x' of row 0")]


def test_int8_keeps_nan_in_its_row(tmp_path: Path) -> None:
    module = randomize(nn.Sequential(nn.GRU(FEATURES, 37, batch_first=True), First()).eval(), 3)
    report = export(module, tmp_path / "m.onnx", X, quantize="int8")
    file = runtime.load(report.path)
    x = X.clone()
    x[0, 2, 1] = float("nan")
    got = file.run(x.numpy())
    assert np.isnan(got[0, 2:]).all() and np.isfinite(got[0, :2]).all()
    np.testing.assert_array_equal(got[1], file.run(X.numpy())[1])
    assert "NaN" not in str(report)
