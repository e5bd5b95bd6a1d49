"""A keyword spotter - convolutions over time, norms, LSTM, head - answers in pieces as in one piece, and as PyTorch."""

from __future__ import annotations

import re
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
from tests.export.modules import Spotter
from tests.parity import assert_same
from tests.strategies import chunkings, randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow

CONTEXTS = {"front.layers.0.context": 20, "front.layers.3.context": 18, "level.total": 5, "level.count": 1}


class Lengthened(nn.Module):
    """The spotter on rows cut to their lengths, one by one: what a padded batch must answer."""

    def __init__(self, spotter: Spotter) -> None:
        super().__init__()
        self.spotter = spotter

    def forward(self, x: Tensor, lengths: np.ndarray) -> np.ndarray:
        y = x.new_zeros(*x.shape[:2], 3)
        for row, n in enumerate(lengths.tolist()):
            if n:
                y[row, :n] = self.spotter(x[row : row + 1, :n])[0]
        return y.numpy()


@pytest.fixture(scope="module")
def spotter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lengthened, runtime.Model]:
    module = randomize(Spotter(), 3)
    module.norm.running_var.abs_().add_(0.5)
    module.eval()
    path = tmp_path_factory.mktemp("spotter") / "model.onnx"
    report = export(module, path, torch.randn(2, 9, 5), streaming=True, lengths=True)
    assert report.causal and report.max_error < fixed("float32")
    return Lengthened(module).eval(), runtime.load(path)


def test_every_context_is_a_state_of_the_file(spotter: tuple[Lengthened, runtime.Model]) -> None:
    _, model = spotter
    states = {state.name: state.size for state in model.signature.states}
    assert states == {**CONTEXTS, "lstm.layers.0.h": 11, "lstm.layers.0.c": 11}


@given(st.lists(st.integers(0, 17), min_size=1, max_size=5), st.data())
def test_streams_and_ragged_batches(
    spotter: tuple[Lengthened, runtime.Model], sizes: list[int], data: st.DataObject
) -> None:
    reference, model = spotter
    lengths, time = np.array(sizes), max(sizes)
    chunks = data.draw(chunkings(time, max_cuts=8))
    x = np.random.default_rng(sum(sizes)).standard_normal((len(sizes), time, 5)).astype(np.float32)
    with torch.no_grad():
        expected = {"output": reference(torch.from_numpy(x), lengths)}
    for way in (by_runtime(model), by_streams(model, chunks), by_push_many(model, chunks)):
        assert_same(way(x, lengths), expected, torch.float32, "onnx", depth=6, x=x, what=f"{lengths}, chunks {chunks}")


def test_forks_snapshots_and_pools(spotter: tuple[Lengthened, runtime.Model]) -> None:
    reference, model = spotter
    x = torch.randn(1, 11, 5)
    with torch.no_grad():
        want = reference(x, np.array([11]))[0]
    with model.stream() as stream:
        stream.push(x[0, :4].numpy())
        twins = [stream.fork(), model.restore(stream.save())]
        for twin in twins:
            np.testing.assert_allclose(twin.push(x[0, 4:].numpy()), want[4:], rtol=0, atol=fixed("float32"))
    with model.pool(max_batch=2) as pool:
        pooled = pool.open()
        parts = [pooled.push(x[0, a:b].numpy()) for a, b in ((0, 1), (1, 2), (2, 7), (7, 11))]
    np.testing.assert_allclose(np.concatenate(parts), want, rtol=0, atol=fixed("float32"))


class OnlyConvolutions(nn.Module):
    """Temporal convolutions, nothing recurrent; the second one starts from a context handed in; all states come out."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = rnncore.CausalConv1d(5, 3, 4), rnncore.CausalConv1d(3, 2, 2)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (below,) = self.below(x)
        y, (above,) = self.above(torch.relu(y), (context,))
        return y, below, above


def test_without_a_recurrent_layer_and_with_states_by_hand(tmp_path: Path) -> None:
    module = randomize(OnlyConvolutions().eval(), 5)
    report = export(module, tmp_path / "model.onnx", (torch.randn(2, 4, 5), torch.randn(2, 3)))
    model = runtime.load(report.path)
    assert not model.causal and model.inputs == ("x", "context") and len(model.outputs) == 3
    x, context = torch.randn(3, 9, 5), torch.randn(3, 3)
    with torch.no_grad():
        expected = module(x, context)
    for got, want in zip(model.run(x.numpy(), context.numpy()).values(), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=fixed("float32"))


class Careless(rnncore.StreamingLayer):
    """Returns what it must not."""

    def __init__(self) -> None:
        super().__init__(5, 3, {"past": 2})

    def advance(
        self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x, (state[0][:, :1],)


def test_wrong_layer_of_ones_own_is_named(tmp_path: Path) -> None:
    stack = rnncore.Stacked([Careless()])
    with pytest.raises(rnncore.RnncoreError, match=re.escape("Careless.advance gives y of shape")) as caught:
        export(stack, tmp_path / "model.onnx", torch.randn(2, 4, 5))
    assert "expected [batch, time, 3]" in str(caught.value) and "gives past of shape" in str(caught.value)
