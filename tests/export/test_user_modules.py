"""What a user has: torch.nn layers between an embedding and a head, a deep mixed stack, a cell of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.export import export
from tests.export.backends import by_push_many, by_runtime, by_streams
from tests.export.exporting import FORMS, Exported, export_forms
from tests.export.modules import TORCH_LAYERS, ids, tagger
from tests.parity import assert_same
from tests.strategies import chunkings, randomize


@pytest.mark.slow
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "time first"])
@pytest.mark.parametrize("kind", TORCH_LAYERS)
def test_torch_layers_match_at_every_length(kind: str, batch_first: bool, tmp_path: Path) -> None:
    module = tagger(kind, batch_first=batch_first)
    exported = export_forms(module, tmp_path, ids(2, 6) if batch_first else ids(2, 6).T)
    port = exported.loop.signature.inputs[0]
    assert port.shape == (("batch", "time") if batch_first else ("time", "batch"))
    for time in (1, 2, 7, 300):
        for batch in (1, 5):
            check_tagger(exported, batch, time, batch_first)
    assert exported.loop.causal is (kind != "lstm bidirectional")


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("time", [1, 2, 7, 300])
def test_bidirectional_tagger_matches_at_every_length(both_ways: Exported, batch: int, time: int) -> None:
    check_tagger(both_ways, batch, time, batch_first=True)


def check_tagger(exported: Exported, batch: int, time: int, batch_first: bool) -> None:
    x = ids(batch, time, seed=time)
    x = x if batch_first else x.T.contiguous()
    with torch.no_grad():
        expected = {"y": exported.module(x).numpy()}
    scale = np.zeros((batch, time, 1))
    for form in FORMS:
        got = {"y": exported.models[form].run(x.numpy())}
        assert_same(got, expected, torch.float32, "onnx", depth=4, x=scale, what=f"{form} [{batch}, {time}]")


@given(form=st.sampled_from(FORMS), time=st.integers(0, 60), data=st.data())
def test_mixed_stack_streams_in_random_chunks(causal: Exported, form: str, time: int, data: st.DataObject) -> None:
    """GRU with reset before, peephole LSTM, relu RNN: in pieces as in one piece, and as PyTorch."""
    chunks = data.draw(chunkings(time, max_cuts=12))
    x = np.random.default_rng(time).standard_normal((1, time, 5)).astype(np.float32)
    model = causal.models[form]
    with torch.no_grad():
        expected = {name: value.detach().numpy() for name, value in causal.module(torch.from_numpy(x)).items()}
    for way in (by_streams(model, chunks), by_runtime(model)):
        assert_same(way(x, None), expected, torch.float32, "onnx", depth=3, x=x, what=f"{form}, chunks {chunks}")


class CounterCell(rnncore.Cell):
    """A fading memory that forgets faster the longer the stream is."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__(input_size, size, {"memory": size, "age": 1}, learn_initial_state=True)
        self.read, self.recall = nn.Linear(input_size, size), nn.Linear(size, size, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.read(x)

    def step(self, z: Tensor, memory: Tensor, age: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fresh = torch.tanh(z + self.recall(memory))
        memory = memory + (fresh - memory) / (2 + torch.log1p(age.abs()))
        return memory * torch.sigmoid(z), memory, age + 1


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_own_cell_exports_and_streams(form: str, tmp_path: Path) -> None:
    layer = randomize(rnncore.Recurrent(CounterCell(5, 7)).eval(), 8)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]

    report = export(Model(), tmp_path / "own.onnx", torch.randn(2, 4, 5), form=form, streaming=True, lengths=True)
    model = runtime.load(report.path)
    assert [state.name for state in model.signature.states] == ["layer.memory", "layer.age"]
    x = np.random.default_rng(3).standard_normal((7, 13, 5)).astype(np.float32)
    lengths = np.array([13, 0, 5, 1, 12, 13, 3])
    with torch.no_grad():
        expected = {"output": layer(torch.from_numpy(x), None, torch.from_numpy(lengths))[0].numpy()}
    chunks = [0, 1, 4, 7, 1]
    for way in (by_runtime(model), by_streams(model, chunks), by_push_many(model, chunks)):
        assert_same(way(x, lengths), expected, torch.float32, "onnx", depth=1, x=x)
