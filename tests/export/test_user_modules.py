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
from rnncore.runtime.errors import ExportError
from tests.export.backends import by_push_many, by_runtime, by_streams
from tests.export.exporting import FORMS, Exported, export_forms
from tests.export.modules import TORCH_LAYERS, Attentive, Reader, Shuffling, ids, tagger
from tests.parity import assert_same
from tests.strategies import chunkings, randomize
from tests.tolerances import fixed


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


X, N = torch.randn(2, 9, 5), torch.tensor([9, 4])


@pytest.mark.slow
def test_a_module_that_knows_lengths_streams_without_packing(tmp_path: Path) -> None:
    """Its layers run on through padding; in the file they heed the lengths, which no valid step can tell."""
    module = randomize(Reader(), 3)
    module.norm.running_var.abs_().add_(0.5)
    report = export(module.eval(), tmp_path / "model.onnx", (X, N), streaming=True)
    model = runtime.load(report.path)
    names = [state.name for state in model.signature.states]
    assert names == [
        *("deep.1.layer.layers.0.h", "deep.1.layer.layers.0@1.h"),
        *(f"wide.0.layer.layers.{layer}.{state}" for layer in (0, 1) for state in "hc"),
    ]
    x, lengths = torch.randn(5, 13, 5), torch.tensor([13, 1, 5, 12, 3])
    with torch.no_grad():
        expected = module(x, lengths)
    got = model.run(x.numpy(), lengths=lengths.numpy())
    for name, want in (("last_0", expected["last"][0]), ("last_1", expected["last"][1])):
        np.testing.assert_allclose(got[name], want, rtol=0, atol=fixed("float32"))
    streams = [model.stream() for _ in x]
    for end in (1, 4, 13):
        starts = [min(n, {1: 0, 4: 1, 13: 4}[end]) for n in lengths.tolist()]
        chunks = [row[a : min(n, end)].numpy() for row, a, n in zip(x, starts, lengths.tolist(), strict=True)]
        moving = [i for i, chunk in enumerate(chunks) if len(chunk)]
        for i, part in zip(
            moving, model.push_many([streams[i] for i in moving], [chunks[i] for i in moving]), strict=True
        ):
            with torch.no_grad():
                alone = module(x[i : i + 1, :end][:, : lengths[i]], torch.tensor([min(int(lengths[i]), end)]))
            np.testing.assert_allclose(part["steps"], alone["steps"][0, starts[i] :], rtol=0, atol=fixed("float32"))
            np.testing.assert_allclose(part["last_0"], alone["last"][0][0], rtol=0, atol=fixed("float32"))


@pytest.mark.slow
def test_attention_over_an_encoder_is_batch_only_and_named(tmp_path: Path) -> None:
    module = randomize(Attentive().eval(), 3)
    report = export(module, tmp_path / "model.onnx", X)
    model = runtime.load(report.path)
    because = model.signature.not_causal_because
    assert "attention: MultiheadAttention computes softmax over the time axis" in because
    assert "Attentive.forward computes max over the time axis" in because
    for time in (1, 2, 23):
        x = torch.randn(3, time, 5)
        with torch.no_grad():
            expected = module(x)
        for got, want in zip(model.run(x.numpy()).values(), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=fixed("float32"))


@pytest.mark.slow
def test_rows_that_change_places_do_not_stream(tmp_path: Path) -> None:
    """A stream alone would answer right, and two of them each other's questions."""
    report = export(randomize(Shuffling().eval(), 3), tmp_path / "model.onnx", (X, N))
    because = report.signature.not_causal_because
    assert "streams that move in one call answer differently" in because and "reorders the rows" in because


@pytest.mark.slow
def test_half_precision_runs_and_streams(tmp_path: Path) -> None:
    module = randomize(tagger("gru two layers"), 3).half()
    report = export(module, tmp_path / "model.onnx", ids(2, 6), streaming=True)
    model = runtime.load(report.path)
    assert model.metadata["rnncore.precision"] == "float16" and report.verification["tolerance"] == 0.02
    x = ids(1, 17, seed=4)
    with model.stream() as stream, torch.no_grad():
        got = np.concatenate([stream.push(x[0, a:b].numpy()) for a, b in ((0, 1), (1, 9), (9, 17))])
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, module.float()(x)[0], rtol=0, atol=fixed("float16"))


def test_bfloat16_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"embedding.weight is bfloat16 .*no CPU kernels; export a copy in float32"):
        export(tagger("gru two layers").bfloat16(), tmp_path / "model.onnx", ids(2, 6))
    assert list(tmp_path.iterdir()) == []


class Compiled(nn.Module):
    """Parts that torch.compile wraps, or compiles when they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.compile(nn.GRU(4, 3, batch_first=True))
        self.heads = nn.ModuleList([torch.compile(nn.Linear(3, 2))])
        self.heads[0].compile()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        y: Tensor = self.heads[0](self.gru(batch["x"])[0])
        return y


def test_what_torch_wraps_around_a_module_is_taken_off(tmp_path: Path) -> None:
    module = Compiled().eval()
    wrapped = torch.optim.swa_utils.AveragedModel(nn.DataParallel(torch.compile(module)))
    x = torch.randn(2, 5, 4, requires_grad=True)
    export(wrapped, tmp_path / "m.onnx", {"x": x})
    model = runtime.load(tmp_path / "m.onnx")
    with torch.no_grad():
        there = x.to(next(module.parameters()).device)  # to which nn.DataParallel moves it where there is a GPU
        expected = module.heads[0]._orig_mod(module.gru._orig_mod(there)[0])
    np.testing.assert_allclose(model.run(x.detach().numpy()), expected.cpu().numpy(), atol=fixed("float32"))
    assert isinstance(module.gru, torch._dynamo.OptimizedModule)  # the module itself is as it was
