"""What looks back without a loop becomes a state by itself: convolutions padded on the left, shifts, sums, strides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.export import axes_modules as kinds
from tests.export.axes_modules import Net
from tests.strategies import randomize
from tests.tolerances import fixed


def made(run: Callable[..., Any], **parts: nn.Module) -> Net:
    parts = {"gru": nn.GRU(4, 5, batch_first=True), **parts}
    return randomize(Net(lambda s, x: s.gru(run(s, x))[0], **parts).eval(), 9)


def shift(x: Tensor, steps: int = 1) -> Tensor:
    return F.pad(x[:, :-steps], (0, 0, steps, 0))


def everything(s: Any, x: Tensor) -> Tensor:
    """All of it, one after the other: a state for each."""
    y = s.conv(x.mT)[..., :-4].mT
    y = y + torch.cat([s.before.expand(y.shape[0], -1, -1), y[:, :-2]], 1)
    y = y + s.bands(F.pad(y[:, None], (0, 0, 2, 0)))[:, 0]
    y = y - shift(y, 3) + 0.1 * F.pad(y, (0, 0, 2, -2))
    y = y + s.deep(y.mT)[..., : x.shape[1]].mT  # as libraries of state spaces cut what looks ahead
    return y + y.cumsum(1) / torch.arange(1, y.shape[1] + 1)[:, None]


class Everything(Net):
    def __init__(self) -> None:
        parts: dict[str, nn.Module] = {
            "conv": nn.Conv1d(4, 4, 3, padding=4, dilation=2),
            "bands": nn.Conv2d(1, 1, (3, 3), padding=(0, 1)),
            "deep": nn.Conv1d(4, 4, 4, groups=4, padding=3),
            "gru": nn.GRU(4, 5, batch_first=True),
        }
        super().__init__(lambda s, x: s.gru(everything(s, x))[0], **parts)
        self.before = nn.Parameter(torch.randn(1, 2, 4))


def streamed(model: runtime.Model, x: np.ndarray, chunks: list[int]) -> np.ndarray:
    with model.stream() as stream:
        parts, start = [], 0
        for size in chunks:
            parts.append(stream.push(x[start : start + size]))
            start += size
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def everything_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, runtime.Model]:
    module = randomize(Everything().eval(), 10)
    path = tmp_path_factory.mktemp("context") / "m.onnx"
    export(module, path, torch.randn(2, 12, 4), streaming=True)
    return module, runtime.load(path)


def test_states_are_named_by_what_they_belong_to(everything_file: tuple[nn.Module, runtime.Model]) -> None:
    _, model = everything_file
    names = {state.name: state.shape for state in model.signature.states}
    assert names["conv.context"] == ("batch", 4, 4)
    assert names["bands.context"] == ("batch", 1, 2, 4)
    assert names["deep.context"] == ("batch", 4, 3)
    assert {"context", "context.1", "sum", "steps"} < set(names)
    assert next(s for s in model.signature.states if s.name == "context").initial is not None


@settings(max_examples=15)
@given(chunks=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_context_is_carried(everything_file: tuple[nn.Module, runtime.Model], chunks: list[int]) -> None:
    module, model = everything_file
    x = torch.randn(1, max(4, sum(chunks)), 4)
    chunks = [*chunks, x.shape[1] - sum(chunks)]
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(streamed(model, x[0].numpy(), chunks), expected[0], atol=fixed("float32 long"))
    np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32 long"))


def test_streams_with_context_move_together_and_are_saved(everything_file: tuple[nn.Module, runtime.Model]) -> None:
    module, model = everything_file
    x = torch.randn(3, 14, 4)
    with torch.no_grad():
        expected = module(x).numpy()
    streams = [model.stream() for _ in range(3)]
    first = model.push_many(streams, [x[i, : 4 + i].numpy() for i in range(3)])
    streams = [model.restore(stream.save()) for stream in streams]
    with model.pool() as pool:
        pooled = [pool.restore(stream.save()) for stream in streams]
        rest = [stream.push(x[i, 4 + i :].numpy()) for i, stream in enumerate(pooled)]
    for i in range(3):
        np.testing.assert_allclose(np.concatenate([first[i], rest[i]]), expected[i], atol=fixed("float32 long"))


def test_a_convolution_that_looks_ahead_is_batch_only_by_name(tmp_path: Path) -> None:
    """And needs no recurrent layer beside it."""
    module = Net(lambda s, x: s.conv(x.mT).mT, conv=nn.Conv1d(4, 4, 3, padding=1)).eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 12, 4))
    assert not report.causal and "conv" in report.signature.not_causal_because
    assert not runtime.load(report.path).signature.states


def test_a_start_that_looks_ahead_is_not_carried(tmp_path: Path) -> None:
    module = made(lambda s, x: torch.cat([x[:, 1:2], x[:, :-1]], 1))
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 12, 4))
    assert not report.causal


STRIDED: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "every third": (lambda: kinds.every_nth(3), 3, 1),
    "strided, padded": (lambda: kinds.strided(3, 2, 1), 2, 1),
    "strided, dilated": (lambda: kinds.strided(3, 3, 2, 2), 3, 1),
    "triples": (kinds.triples, 3, 1),
    "whole windows": (kinds.whole_windows, 3, 1),
}


@pytest.mark.parametrize("kind", STRIDED)
def test_strided_models_stream_in_chunks_of_any_size(kind: str, tmp_path: Path) -> None:
    make, stride, _ = STRIDED[kind]
    module = make()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 12, 4))
    assert report.causal, report.signature.not_causal_because
    model = runtime.load(report.path)
    assert model.signature.stride == stride
    x = torch.randn(1, 6 * stride, 4)
    with torch.no_grad():
        expected = module(x)[0].numpy()
    sizes = [1, 1, 0, 4, 2, 3]
    np.testing.assert_allclose(
        streamed(model, x[0].numpy(), [*sizes, len(x[0]) - sum(sizes)]), expected, atol=fixed("float32")
    )

    with model.stream() as stream:
        first = stream.push(x[0, : stride + 1].numpy())
        assert len(first) == 1 and stream.steps == stride + 1
        twin, saved = stream.fork(), stream.save()
        rest = x[0, stride + 1 :].numpy()
        for other in (stream, twin, model.restore(saved)):
            np.testing.assert_allclose(np.concatenate([first, other.push(rest)]), expected, atol=fixed("float32"))
        stream.reset()
        np.testing.assert_allclose(stream.push(x[0].numpy()), expected, atol=fixed("float32"))

    # Together, at different places of their strides.
    streams = [model.stream() for _ in range(3)]
    starts = [0, 1, stride]
    parts = [[own] for own in model.push_many(streams, [x[0, :n].numpy() for n in starts])]
    assert [stream.steps for stream in streams] == starts
    for size in (1, stride, 2):
        chunks = [x[0, n : n + size].numpy() for n in starts]
        for own, answer in zip(parts, model.push_many(streams, chunks), strict=True):
            own.append(answer)
        starts = [n + size for n in starts]
    for own, answer in zip(parts, model.push_many(streams, [x[0, n:].numpy() for n in starts]), strict=True):
        np.testing.assert_allclose(np.concatenate([*own, answer]), expected, atol=fixed("float32"))

    with model.pool() as pool:
        pooled = pool.open()
        np.testing.assert_allclose(pooled.push(x[0, : 2 * stride].numpy()), expected[:2], atol=fixed("float32"))
        assert pooled.push(x[0, 2 * stride : 2 * stride + 1].numpy()).shape == (0, 5)
        np.testing.assert_allclose(pooled.push(x[0, 2 * stride + 1 :].numpy()), expected[2:], atol=fixed("float32"))
