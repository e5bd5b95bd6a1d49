"""Lengths: the module's own, lifted to an input, or dropped because padding would show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import ExportError, VerificationError
from tests.export.exporting import FORMS, Exported
from tests.export.modules import MeanPool
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow

LENGTHS = np.array([9, 1, 4, 9, 2])


class MaskedMean(nn.Module):
    """Mean over the valid steps; lengths are an input of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = rnncore.Bidirectional(rnncore.LSTMCell(5, 7), rnncore.GRUCell(5, 3))

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return self.layer(x, None, n)[0].sum(1) / n.clamp(min=1).unsqueeze(1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["last_step", "mean_pool"])
def test_lengths_are_dropped_where_padding_would_show(which: str, form: str, request: pytest.FixtureRequest) -> None:
    """The file takes no lengths, and the runtime answers ragged batches all the same, one length after the other."""
    exported: Exported = request.getfixturevalue(which)
    model = exported.models[form]
    assert model.signature.lengths is None
    x = torch.randn(5, 9, 5)
    got = model.run(x.numpy(), lengths=LENGTHS)
    with torch.no_grad():
        expected = torch.cat([exported.module(x[i : i + 1, :n]) for i, n in enumerate(LENGTHS)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=fixed("float32"))


def test_lengths_demanded_where_padding_would_show(folder: Path) -> None:
    with pytest.raises(
        VerificationError, match=r"a padded batch differs from each sequence alone:\n  - ragged \(batch"
    ):
        export(randomize(MeanPool().eval(), 3), folder / "model.onnx", torch.randn(2, 4, 5), lengths=True)
    assert list(folder.iterdir()) == []


def test_own_lengths_by_name(folder: Path) -> None:
    """A name that does not look like lengths, and a dtype of the module's own; in the file lengths are int64."""
    module = randomize(MaskedMean().eval(), 3)
    example = (torch.randn(2, 4, 5), torch.tensor([4, 2], dtype=torch.int32))
    model = runtime.load(export(module, folder / "model.onnx", example, lengths="n").path)
    port = model.signature.lengths
    assert port is not None and port.name == "n" and port.dtype == "int64" and model.inputs == ("x",)
    x = torch.randn(5, 9, 5)
    lengths = torch.tensor([9, 0, 4, 9, 1])
    with torch.no_grad():
        expected = module(x, lengths)
    np.testing.assert_allclose(
        model.run(x.numpy(), lengths=lengths.numpy()), expected, rtol=0, atol=fixed("float32 same steps")
    )


def test_name_of_lengths_is_taken(folder: Path) -> None:
    class Taken(MeanPool):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return self.gru(x * lengths)[0]

    module, example = Taken().eval(), (torch.randn(2, 4, 5), torch.randn(2, 4, 1))
    with pytest.raises(ExportError, match="an input is called 'lengths' already"):
        export(module, folder / "model.onnx", example, lengths=True)
    assert list(folder.iterdir()) == []
    report = export(module, folder / "model.onnx", example)
    assert report.signature.lengths is None and report.causal
