"""torch's recurrent functions are caught wherever they are called from, with the weights that they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow
TOLERANCE = {"rtol": 0, "atol": fixed("float32 fused operator")}


class Doubling(nn.LSTM):
    """A subclass with a forward of its own around torch's."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        y, state = super().forward(input, hx)
        return (y * 2 if isinstance(y, Tensor) else y._replace(data=y.data * 2)), state


class Dropped(nn.Module):
    """Weight drop as language models do it: the weight of the layer inside is computed at every call."""

    def __init__(self, layer: nn.GRU, *, within: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self._within = within
        raw = layer._parameters.pop("weight_hh_l0")
        self.holder.weight_hh_l0_raw = nn.Parameter(raw.detach())

    @property
    def holder(self) -> nn.Module:
        """The module that has the raw weight."""
        return self.layer if self._within else self

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight_hh_l0 = nn.functional.dropout(self.holder.weight_hh_l0_raw, 0.5, self.training)
        return self.layer(x)[0]


class Functional(nn.Module):
    """A call of the function itself, and a twin with other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ParameterList(torch.randn(*s) * 0.3 for s in ((28, 6), (28, 7), (28,), (28,)))
        self.b = nn.ParameterList(torch.randn(*s) * 0.3 for s in ((5, 7), (5, 5)))

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(1, x.shape[0], 7)
        y = torch.lstm(x, (h, h), list(self.a), True, 1, 0.0, False, False, True)[0]
        h = x.new_zeros(1, x.shape[0], 5)
        return torch.rnn_relu(y, h, list(self.b), False, 1, 0.0, False, False, True)[0]


class Everything(nn.Module):
    """One of each, one behind the other; the subclass runs time first."""

    def __init__(self) -> None:
        super().__init__()
        self.subclass = Doubling(4, 9, 2, proj_size=5)
        self.weight = parametrizations.weight_norm(nn.LSTM(5, 7, batch_first=True), "weight_hh_l0")
        self.spectral = parametrizations.spectral_norm(nn.RNN(7, 6, bias=False, batch_first=True), "weight_ih_l0")
        self.pruned = nn.GRU(6, 7, batch_first=True)
        prune.l1_unstructured(self.pruned, "weight_hh_l0", 0.5)
        self.pruned.register_forward_hook(lambda module, given, result: (result[0] + 1, result[1]))
        self.dropped = Dropped(nn.GRU(7, 6, batch_first=True))
        self.within = Dropped(nn.GRU(6, 6, batch_first=True), within=True)
        self.functional = Functional()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.subclass(x.transpose(0, 1))[0].transpose(0, 1)
        y, (h, _) = self.weight(y)
        y = self.within(self.dropped(self.pruned(self.spectral(y)[0])[0]))
        return {"y": self.functional(y), "h": h[0]}


def test_every_way_to_call_them_is_caught_and_streams(tmp_path: Path) -> None:
    module = Everything().eval()
    module.within(
        torch.randn(2, 9, 6)
    )  # in eval mode it sets the raw weight itself, which is a parameter twice from then on
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 9, 4))
    names = {state.name for state in report.signature.states}
    layers = {f"subclass.layers.{i}" for i in range(2)} | {f"{n}.layers.0" for n in ("weight", "spectral", "pruned")}
    layers |= {
        "dropped.layer.layers.0",
        "within.layer.layers.0",
        "functional.lstm.layers.0",
        "functional.rnn_relu.layers.0",
    }
    assert {name.rpartition(".")[0] for name in names} == layers
    model = load(report.path)
    x = torch.randn(3, 17, 4)
    with torch.no_grad():
        expected = module(x)
    got = model.run(x.numpy())
    for name in ("y", "h"):
        np.testing.assert_allclose(got[name], expected[name], **TOLERANCE)
    with model.stream() as stream:
        parts = [stream.push(x[0, a:b].numpy())["y"] for a, b in ((0, 5), (5, 6), (6, 17))]
    np.testing.assert_allclose(np.concatenate(parts), expected["y"][0], **TOLERANCE)
    assert "subclass.weight_hh_l0" in dict(module.named_parameters()), "the user's module was changed"


class Packs(nn.Module):
    """A bidirectional subclass and a parametrised layer on packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Doubling(4, 5, batch_first=True, bidirectional=True)
        self.second = parametrizations.weight_norm(nn.GRU(10, 6, batch_first=True), "weight_hh_l0")

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, h = self.second(self.first(packed)[0])
        return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0], h[0]


def test_packed_sequences_go_through_subclasses(tmp_path: Path) -> None:
    module = randomize(Packs().eval(), 3)
    example = (torch.randn(3, 7, 4), torch.tensor([7, 2, 5]))
    # Said by hand: without gradients torch's packed kernel takes rows of any width, so probing finds that axis free.
    axes = {"x": ("batch", "time", None), "lengths": ("batch",)}
    model = load(export(module, tmp_path / "model.onnx", example, axes=axes).path)
    x, lengths = torch.randn(4, 11, 4), torch.tensor([3, 11, 1, 6])
    with torch.no_grad():
        y, h = module(x, lengths)
    got = model.run(x.numpy(), lengths=lengths.numpy())
    np.testing.assert_allclose(got["output_0"], y, **TOLERANCE)
    np.testing.assert_allclose(got["output_1"], h, **TOLERANCE)


class FromInputs(nn.Module):
    """Weights that another input computes."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(3, 5 * 5)
        self.read = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.make(x[..., :3].mean((0, 1))).view(5, 5)
        h = x.new_zeros(1, x.shape[0], 5)
        return torch.rnn_tanh(x, h, [self.read, weight], False, 1, 0.0, False, False, True)[0]


def test_weights_made_of_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"FromInputs calls .* with weights that depend on the inputs"):
        export(FromInputs().eval(), tmp_path / "model.onnx", torch.randn(2, 6, 4))


class SameNames(nn.Module):
    """Outputs under names that torch gives to values inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(11, 4), nn.GRU(4, 5, batch_first=True)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        y = self.layer(self.embedding(ids))[0]
        return {"embedding": y.relu(), "relu": y.sigmoid(), "sigmoid": y.relu() + 1}


def test_outputs_keep_their_names(tmp_path: Path) -> None:
    module = SameNames().eval()
    ids = torch.randint(11, (2, 6))
    got = load(export(module, tmp_path / "model.onnx", ids).path).run(ids.numpy())
    with torch.no_grad():
        for name, value in module(ids).items():
            np.testing.assert_allclose(got[name], value, **TOLERANCE)
