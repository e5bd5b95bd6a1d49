"""Modules are called in many ways: nested inputs and outputs, given states, shared layers, training mode."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.export import export
from rnncore.runtime import InputError
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow


@dataclass
class Ends:
    h: Tensor
    c: Tensor
    remark: str = "of the upper layer"


class Speech(nn.Module):
    """Nested inputs of three dtypes, nested outputs with and without time, a dropout, a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(23, 5)
        self.shared = rnncore.GRU(5, 5, learn_initial_state=True)
        self.dropout = nn.Dropout(0.5)
        self.top = nn.LSTM(8, 7, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, sound: dict[str, Tensor], ids: Tensor, speaker: Tensor, gain: float = 1.0) -> dict[str, object]:
        once, _ = self.shared(sound["frames"] + self.embedding(ids))
        twice, _ = self.shared(self.dropout(once))
        who = speaker.unsqueeze(1).expand(-1, ids.shape[1], -1)
        y, (h, c) = self.top(torch.cat((twice, who), 2))
        return {"y": y * gain, "ends": Ends(h[-1], c[-1]), "loud": sound["energy"] > 0}


def example(batch: int, time: int, seed: int = 0) -> dict[str, object]:
    random = torch.Generator().manual_seed(seed)
    return {
        "sound": {
            "frames": torch.randn(batch, time, 5, generator=random),
            "energy": torch.randn(batch, time, 1, generator=random),
        },
        "ids": torch.randint(23, (batch, time), generator=random),
        "speaker": torch.randn(batch, 3, generator=random),
    }


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[Speech, runtime.Model]:
    """A module in training mode, exported with all the options that have to do with names."""
    module = randomize(Speech(), 5).train()
    before, parameters = copy.deepcopy(module.state_dict()), list(module.parameters())
    report = export(
        module,
        tmp_path_factory.mktemp("speech") / "model.onnx",
        {**example(2, 4), "gain": 0.5},
        streaming=True,
        lengths=True,
        output_names=("y", "h", "c", "loud"),
        metadata={"rnncore.tokenizer": "{}", "author": "somebody"},
    )
    assert all(part.training for part in module.modules())
    assert [id(p) for p in module.parameters()] == [id(p) for p in parameters]
    assert all(p.requires_grad and p.grad is None for p in parameters)
    assert type(module.top) is nn.LSTM
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    return copy.deepcopy(module).eval(), runtime.load(report.path)


def flat(call: dict[str, object]) -> dict[str, np.ndarray]:
    sound = call["sound"]
    assert isinstance(sound, dict)
    tensors = {**{f"sound_{name}": tensor for name, tensor in sound.items()}, **call}
    return {name: tensor.numpy() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def test_nested_inputs_and_outputs(speech: tuple[Speech, runtime.Model]) -> None:
    module, model = speech
    assert model.inputs == ("sound_frames", "sound_energy", "ids", "speaker")
    assert model.outputs == ("y", "h", "c", "loud")
    call = example(7, 13, seed=4)
    got = model.run(**flat(call))
    with torch.no_grad():
        expected = module(**call, gain=0.5)
    for name, want in zip(
        model.outputs, (expected["y"], expected["ends"].h, expected["ends"].c, expected["loud"]), strict=True
    ):
        assert got[name].dtype == want.numpy().dtype
        np.testing.assert_allclose(got[name], want, rtol=0, atol=fixed("float32 same steps"), err_msg=name)


def test_layer_used_twice_has_two_states(speech: tuple[Speech, runtime.Model]) -> None:
    _, model = speech
    names = [state.name for state in model.signature.states]
    assert names[:2] == ["shared.layers.0.h", "shared.layers.0@1.h"] and len(names) == 6
    call = flat(example(1, 9, seed=8))
    whole = model.run(**call)
    with model.stream() as stream:
        parts = [
            stream.push(**{n: v[0] if n == "speaker" else v[0, a:b] for n, v in call.items()})
            for a, b in ((0, 1), (1, 5), (5, 5), (5, 9))
        ]
    np.testing.assert_allclose(
        np.concatenate([part["y"] for part in parts]), whole["y"][0], rtol=0, atol=fixed("float32 same steps")
    )
    np.testing.assert_allclose(parts[-1]["c"], whole["c"][0], rtol=0, atol=fixed("float32 same steps"))


def test_metadata_of_the_caller_is_in_the_file(speech: tuple[Speech, runtime.Model]) -> None:
    _, model = speech
    assert model.metadata["rnncore.tokenizer"] == "{}"
    assert "author" not in model.metadata  # the runtime shows its own entries only


class Decoder(nn.Module):
    """The state comes in and goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = rnncore.Recurrent(rnncore.LSTMCell(5, 7, peephole="current"))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.layer(x, state)


def test_given_states_are_inputs_and_returned_states_outputs(folder: Path) -> None:
    module = randomize(Decoder().eval(), 5)
    h, c = torch.randn(2, 7), torch.randn(2, 7)
    report = export(module, folder / "model.onnx", (torch.randn(2, 4, 5), (h, c)), streaming=False)
    model = runtime.load(report.path)
    assert model.inputs == ("x", "state_0", "state_1") and model.outputs == ("output_0", "output_1_0", "output_1_1")
    assert not model.causal
    x, h, c = torch.randn(3, 9, 5), torch.randn(3, 7), torch.randn(3, 7)
    with torch.no_grad():
        y, ends = module(x, (h, c))
    for got, want in zip(model.run(x.numpy(), h.numpy(), c.numpy()).values(), (y, *ends), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=fixed("float32 same steps"))
    with pytest.raises(InputError, match="state_1"):
        model.run(x.numpy(), h.numpy())


def test_given_states_that_come_back_are_states_of_a_file_that_streams(folder: Path) -> None:
    module = randomize(Decoder().eval(), 5)
    example = (torch.randn(2, 4, 5), (torch.randn(2, 7), torch.randn(2, 7)))
    model = runtime.load(export(module, folder / "model.onnx", example).path)
    assert model.inputs == ("x",) and model.outputs == ("output_0",)
    x, h, c = torch.randn(1, 9, 5), torch.randn(1, 7), torch.randn(1, 7)
    with torch.no_grad():
        y, ends = module(x, (h, c))
    with model.stream() as stream:
        stream.set_state({"state_0": h[0].numpy(), "state_1": c[0].numpy()})
        parts = [stream.push(x[0, a:b].numpy()) for a, b in ((0, 4), (4, 5), (5, 9))]
        found = stream.state
    np.testing.assert_allclose(np.concatenate(parts), y[0], rtol=0, atol=fixed("float32 same steps"))
    for got, want in zip(found.values(), ends, strict=True):
        np.testing.assert_allclose(got, want[0], rtol=0, atol=fixed("float32 same steps"))


class Towers(nn.Module):
    """Two towers over one torch.nn layer, and a rnncore cell that runs in two layers."""

    def __init__(self) -> None:
        super().__init__()
        lstm, cell = nn.LSTM(5, 7, batch_first=True), rnncore.GRUCell(7, 3, reset="before")
        self.left = nn.ModuleDict({"below": lstm, "above": rnncore.Recurrent(cell)})
        self.right = nn.ModuleDict({"below": lstm, "above": rnncore.Recurrent(cell, reverse=True)})

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (
            tower["above"](tower["below"](value)[0])[0] for tower, value in ((self.left, x), (self.right, other))
        )
        return left, right


def test_towers_share_their_weights(folder: Path) -> None:
    """A layer in two places, and two layers around one cell: weights once, answers as in PyTorch.

    Exported in the middle of a training with autocast, whose rounding is nothing for a file.
    """
    module = randomize(Towers().eval(), 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = export(module, folder / "model.onnx", (torch.randn(2, 4, 5), torch.randn(2, 4, 5)))
        assert torch.is_autocast_enabled("cpu")
    x, other = torch.randn(3, 9, 5), torch.randn(3, 9, 5)
    with torch.no_grad():
        expected = module(x, other)
    got = runtime.load(report.path).run(x.numpy(), other.numpy())
    for name, want in zip(("output_0", "output_1"), expected, strict=True):
        np.testing.assert_allclose(got[name], want, rtol=0, atol=fixed("float32 same steps"))
    stored = onnx.load(report.path).graph.initializer
    matrices = sum(len(t.raw_data) // 4 for t in stored if len(t.dims) == 2)
    assert matrices == sum(p.numel() for p in module.parameters() if p.dim() == 2)
