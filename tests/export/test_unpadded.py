"""Convolutions without padding, in front of loops and among what looks back: streams give the whole."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.strategies import randomize
from tests.tolerances import fixed

WIDTH = 4


@dataclass(frozen=True)
class Stage:
    """One step of the way: what it is, and its sizes as far as it has them."""

    kind: str
    kernel: int = 1
    stride: int = 1
    dilation: int = 1

    @property
    def loops(self) -> bool:
        return self.kind in ("gru", "lstm")


class Way(nn.Module):
    """[batch, time, 4] through the stages, one after the other, behind a layer that fixes the 4."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        self.stages = stages
        self.front = nn.Linear(WIDTH, WIDTH)
        self.parts = nn.ModuleList(self._part(stage) for stage in stages)

    def _part(self, stage: Stage) -> nn.Module:
        sizes: dict[str, Any] = {"stride": stage.stride, "dilation": stage.dilation}
        if stage.kind == "bands":
            return nn.Conv2d(1, 2, (stage.kernel, 2), stride=(stage.stride, 2), dilation=(stage.dilation, 1))
        if stage.kind in ("conv", "padded", "skip"):
            return nn.Conv1d(WIDTH, WIDTH, stage.kernel, **sizes)
        if stage.kind == "gated":
            return nn.Conv1d(WIDTH, 2 * WIDTH, stage.kernel, dilation=stage.dilation)
        if stage.loops:
            return (nn.GRU if stage.kind == "gru" else nn.LSTM)(WIDTH, WIDTH, batch_first=True)
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        for stage, part in zip(self.stages, self.parts, strict=True):
            x = self._run(stage, part, x)
        return x

    def _run(self, stage: Stage, part: nn.Module, x: Tensor) -> Tensor:
        reach = (stage.kernel - 1) * stage.dilation
        if stage.kind == "bands":  # [batch, channels, time, bands]
            return part(x.unsqueeze(1)).transpose(1, 2).flatten(2)
        if stage.kind == "conv":
            return part(x.mT).mT
        if stage.kind == "padded":
            return torch.tanh(part(F.pad(x.mT, (reach, 0))).mT)
        if stage.kind == "skip":
            return part(x.mT).mT + x[:, reach:]
        if stage.kind == "gated":  # as in WaveNet: the skip is cut to what the gates leave
            gates, values = part(x.mT).chunk(2, 1)
            y = (torch.sigmoid(gates) * torch.tanh(values)).mT
            return y + x[:, -y.shape[1] :]
        if stage.kind == "pool":
            return F.avg_pool1d(x.mT, stage.kernel, stage.stride).mT
        if stage.kind == "windows":
            return x.unfold(1, stage.kernel, stage.stride).amax(-1)
        if stage.kind == "late":  # steps of their own in front are read by nobody
            return x[:, stage.kernel - 1 :]
        if stage.kind == "sum":
            return torch.tanh(x.cumsum(1) / 8)
        if stage.kind == "shift":
            return x - F.pad(x[:, :-1], (0, 0, 1, 0))
        return part(x)[0] if stage.loops else x


def own(kind: str, kernel: int = 1, stride: int = 1, dilation: int = 1) -> Stage:
    return Stage(kind, kernel, stride, dilation)


KERNELS = st.integers(2, 4)
CUTTING = st.one_of(
    st.builds(own, st.sampled_from(["conv", "bands"]), KERNELS, st.integers(1, 3), st.integers(1, 3)),
    st.builds(own, st.sampled_from(["pool", "windows"]), KERNELS, st.integers(1, 2)),
    st.builds(own, st.sampled_from(["skip", "gated"]), KERNELS, st.just(1), st.integers(1, 4)),
    st.builds(own, st.just("late"), KERNELS),
)
KEEPING = st.one_of(
    st.builds(own, st.just("padded"), KERNELS, st.just(1), st.integers(1, 2)),
    st.builds(own, st.sampled_from(["sum", "shift", "gru", "lstm"])),
)
WAYS = st.lists(st.one_of(CUTTING, CUTTING, KEEPING), min_size=1, max_size=4).map(tuple)


def chunked(stream: Any, x: np.ndarray, sizes: list[int]) -> np.ndarray:
    parts, start = [], 0
    for size in [*sizes, len(x)]:
        parts.append(stream.push(x[start : start + size]))
        start += size
    return np.concatenate(parts)


# Not shrunk: an export takes seconds, and a way prints as one line anyway.
@pytest.mark.slow
@settings(max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate], deadline=None)
@given(WAYS, st.sampled_from(["gru", "lstm", ""]), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 1 << 16))
@example((own("conv", 3, 2), own("conv", 3, 2)), "gru", [1, 1, 9, 4, 0, 6], 1)
@example((own("bands", 3, 2), own("conv", 3, 1, 2)), "lstm", [9, 1], 2)
@example((own("gated", 2, 1, 1), own("gated", 2, 1, 2), own("gated", 2, 1, 4)), "", [1] * 9, 3)
@example((own("padded", 3), own("conv", 4), own("sum"), own("conv", 2)), "gru", [3, 3, 1, 1, 5], 4)
@example((own("lstm"), own("conv", 4, 2), own("gru"), own("sum"), own("bands", 3)), "", [2, 7, 1, 1, 1], 6)
@example((own("shift"), own("conv", 5, 3), own("padded", 2)), "lstm", [2, 7, 1], 5)
def test_ways_of_every_kind(stages: tuple[Stage, ...], last: str, sizes: list[int], seed: int) -> None:
    """Streams of any chunks, alone, together at different places, and of a pool, answer as PyTorch does to the whole."""
    if not last and all(stage.kind == "late" for stage in stages):
        last = "gru"  # a file of what looks nowhere is refused
    stages = (*stages, own(last)) if last else stages
    module = Way(stages).eval()
    randomize(module, seed)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", torch.randn(2, 61, WIDTH))
        model = runtime.load(report.path)
    assert report.causal, report.signature.not_causal_because
    signature = model.signature
    xs = torch.randn(3, 83, WIDTH)
    with torch.no_grad():
        wanted = module(xs).numpy()
    count = (83 - signature.overlap) // signature.stride * wanted_steps(signature)
    wanted, rows = wanted[:, :count], xs.numpy()
    with model.stream() as stream:
        np.testing.assert_allclose(chunked(stream, rows[0], sizes), wanted[0], atol=fixed("float32"))
        twin = model.restore(stream.save())
        stream.reset()
        twin.reset()
        starts = [signature.overlap + 1, 0]
        first = model.push_many([stream, twin], [rows[1, : starts[0]], rows[2, :0]])
        second = model.push_many([twin, stream], [rows[2], rows[1, starts[0] :]])
        np.testing.assert_allclose(np.concatenate([first[0], second[1]]), wanted[1], atol=fixed("float32"))
        np.testing.assert_allclose(np.concatenate([first[1], second[0]]), wanted[2], atol=fixed("float32"))
    with model.pool(max_wait_ms=1) as pool:
        pooled = [pool.open() for _ in rows]
        futures = [(pooled[i].submit(rows[i, : 7 * i]), pooled[i].submit(rows[i, 7 * i :])) for i in range(3)]
        for i, (one, two) in enumerate(futures):
            answer = np.concatenate([one.result(), two.result()])
            np.testing.assert_allclose(answer, wanted[i], atol=fixed("float32"))


def wanted_steps(signature: Any) -> int:
    """Answers to one stride."""
    (output,) = signature.outputs
    size = output.shape[output.time_axis]
    over, times = getattr(size, "over", 1), getattr(size, "times", 1)
    return signature.stride * times // over


class LengthsFirst(nn.Module):
    """Packed rows of the module's own lengths, and a convolution without padding behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.conv = nn.LSTM(WIDTH, 6, batch_first=True), nn.Conv1d(6, 5, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]
        return self.conv(y.mT).mT


@pytest.mark.parametrize("form", ["loop", "scan", "fused", "portable"])
def test_a_loop_before_a_convolution_is_cut_in_two(form: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Way((own("lstm"), own("conv", 3), own("gru"), own("conv", 2, 2))).eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 31, WIDTH), form=form)
    assert report.causal and report.signature.overlap == 2, report.signature.not_causal_because
    assert [state.name for state in report.signature.states] == [
        "parts.0.layers.0.h",
        "parts.0.layers.0.c",
        "parts.2.layers.0.h",
    ]
    x = torch.randn(1, 30, WIDTH)
    with torch.no_grad():
        wanted = module(x)[0].numpy()
    with runtime.load(report.path).stream() as stream:
        found = chunked(stream, x[0].numpy(), [1, 4, 0, 1, 1, 9])
    np.testing.assert_allclose(found, wanted, atol=fixed("float32"))


def test_where_rows_have_lengths_no_loop_is_cut(tmp_path: Path) -> None:
    x = torch.randn(2, 31, WIDTH)
    asked = export(Way((own("gru"), own("conv", 3))), tmp_path / "asked.onnx", x, lengths=True)
    taken = export(LengthsFirst().eval(), tmp_path / "own.onnx", (x, torch.tensor([31, 24])))
    for report in (asked, taken):
        because = report.signature.not_causal_because
        assert not report.causal and "runs over time steps, and an answer wants 2 input steps before its own" in because


class OwnLengths(nn.Module):
    """Two convolutions that halve, and packed rows of the lengths that they leave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(WIDTH, 6, 3, 2), nn.Conv1d(6, 6, 3, 2)
        self.rnn = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y = self.second(self.first(x.mT).relu()).relu().mT
        left = (((lengths - 3) // 2 + 1) - 3) // 2 + 1
        packed = nn.utils.rnn.pack_padded_sequence(y, left.cpu(), batch_first=True, enforce_sorted=False)
        found = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=y.shape[1])
        return found[0]


@pytest.mark.parametrize("chunks", [[7, 4, 4], [1] * 12, [30], [6, 2, 9, 0, 3]])
def test_rows_of_their_own_lengths(chunks: list[int], tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = OwnLengths().eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 31, WIDTH), torch.tensor([31, 24])))
    assert report.causal, report.signature.not_causal_because
    model = runtime.load(report.path)
    assert (model.signature.stride, model.signature.overlap, model.signature.format_version) == (4, 3, 3)
    xs = torch.randn(2, 43, WIDTH)
    with torch.no_grad():
        wanted = module(xs, torch.tensor([43, 43])).numpy()
    with model.stream() as stream, model.stream() as other:
        np.testing.assert_allclose(chunked(stream, xs[0].numpy(), chunks), wanted[0], atol=fixed("float32"))
        stream.reset()
        parts: list[list[np.ndarray]] = [[], []]
        for start in range(0, 43, 5):  # the other is always two steps behind
            ends = (start + 5, max(start + 3, 0))
            begins = (start, max(start - 2, 0))
            given_now = [xs[i, begins[i] : ends[i]].numpy() for i in (0, 1)]
            for own_parts, answer in zip(parts, model.push_many([stream, other], given_now), strict=True):
                own_parts.append(answer)
        for i, own_parts in enumerate(parts):
            found = np.concatenate(own_parts)
            np.testing.assert_allclose(found, wanted[i, : len(found)], atol=fixed("float32"))
            assert len(found) >= 9


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: torch.maximum(x[:, 1:], x[:, :-1]) * torch.ones(WIDTH),
        lambda x: F.unfold(x.unsqueeze(1), (2, WIDTH)).mT,
    ],
    ids=["neighbours", "frames"],
)
def test_windows_by_hand_stream(forward: Any, tmp_path: Path) -> None:
    class ByHand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    report = export(ByHand(), tmp_path / "m.onnx", torch.randn(2, 21, WIDTH), axes={"x": ("batch", "time", None)})
    assert report.causal and (report.signature.stride, report.signature.overlap) == (1, 1)
    x = torch.randn(1, 19, WIDTH)
    with runtime.load(report.path).stream() as stream:
        found = chunked(stream, x[0].numpy(), [1, 1, 0, 5])
    np.testing.assert_array_equal(found, forward(x)[0].numpy())


class TwoInputs(nn.Module):
    """Ids [time, batch] through windows, features [batch, 4, time] cut to what they leave; one output is twice the other."""

    def __init__(self, kernel: int, stride: int, *, flat: bool) -> None:
        super().__init__()
        self.kernel, self.stride, self.flat = kernel, stride, flat
        self.embedding = nn.Embedding(9, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, kernel, stride)
        self.rnn, self.voice = nn.GRU(2 * WIDTH, 5), nn.Linear(3, 1)

    def forward(self, ids: Tensor, x: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(self.embedding(ids).permute(1, 2, 0))
        seen = torch.cat([y, x[:, :, self.kernel - 1 :: self.stride]], 1) + self.voice(speaker)[:, :, None]
        found = self.rnn(seen.permute(2, 0, 1))[0]
        return (found.transpose(0, 1).flatten(0, 1) if self.flat else found), 2 * found


@pytest.mark.slow
@settings(max_examples=2, phases=[Phase.explicit, Phase.generate], deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.booleans(), st.lists(st.integers(0, 7), max_size=6), st.integers(0, 99))
@example(3, 1, True, [1, 1, 4, 0, 2], 1)
@example(4, 2, False, [3, 1, 4, 0, 2], 2)
def test_several_inputs_and_outputs(kernel: int, stride: int, flat: bool, sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    module = TwoInputs(kernel, stride, flat=flat).eval()
    randomize(module, seed)
    if kernel < stride:
        return
    steps = kernel + 9 * stride
    ids, x, speaker = torch.randint(0, 9, (steps, 2)), torch.randn(2, WIDTH, steps), torch.randn(2, 3)
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", (ids, x, speaker))
        assert report.causal, report.signature.not_causal_because
        model = runtime.load(report.path)
    assert (model.signature.stride, model.signature.overlap) == (stride, kernel - stride)
    with torch.no_grad():
        wanted = module(ids, x, speaker)[1].numpy()
    for row in range(2):
        parts: list[list[np.ndarray]] = [[], []]
        with model.stream() as stream, model.pool() as pool, pool.open() as pooled:
            start = 0
            for size in [*sizes, steps]:
                end = min(start + size, steps)
                chunk = (ids[start:end, row].numpy(), x[row, :, start:end].numpy(), speaker[row].numpy())
                for own_parts, one in zip(parts, (stream, pooled), strict=True):
                    answer = one.push(*chunk)
                    first, second = answer.values()
                    np.testing.assert_array_equal(2 * first, second)
                    own_parts.append(second)
                start = end
            for own_parts in parts:
                np.testing.assert_allclose(np.concatenate(own_parts), wanted[:, row], atol=fixed("float32"))


class ByHand(nn.Module):
    """A loop in Python with a matrix for a state, a learned start and the speaker in each step, before a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.write, self.read, self.conv = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3), nn.Conv1d(3, 5, 4, 2)
        self.start = nn.Parameter(torch.randn(3, 3) / 3)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        memory, found = self.start.expand(x.shape[0], 3, 3), []
        bias = torch.tanh(speaker)
        for t in range(x.shape[1]):
            key = torch.tanh(self.write(x[:, t])) + bias
            memory = 0.8 * memory + key[:, :, None] * x[:, t, None, :3]
            found.append(torch.einsum("bkv,bk->bv", memory, torch.tanh(self.read(x[:, t]))))
        return self.conv(torch.stack(found, 2)).mT


class Begun(nn.Module):
    """A layer that starts from what forward makes of the first step, before a convolution; a sum beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn, self.conv = (
            nn.Linear(WIDTH, WIDTH),
            nn.GRU(WIDTH, WIDTH, batch_first=True),
            nn.Conv1d(4, 5, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x, torch.tanh(self.first(x[:, 0]))[None])[0] + x.cumsum(1) / 9 + x - x[:, :1]
        return self.conv(y.mT).mT


@pytest.mark.parametrize("chunks", [[1] * 12, [9, 1, 0, 4], [3, 8]])
@pytest.mark.parametrize("kind", [ByHand, Begun])
def test_loops_of_every_kind_are_cut(kind: type[nn.Module], chunks: list[int], tmp_path: Path) -> None:
    torch.manual_seed(4)
    module, others = kind().eval(), (torch.randn(2, 3),) if kind is ByHand else ()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 31, WIDTH), *others))
    assert report.causal and report.signature.overlap == 2, report.signature.not_causal_because
    xs = torch.randn(2, 26, WIDTH)
    with torch.no_grad():
        wanted = module(xs, *others).numpy()
    model = runtime.load(report.path)
    streams, start = [model.stream() for _ in xs], 0
    parts: list[list[np.ndarray]] = [[], []]
    for size in [*chunks, 26]:
        own_inputs = [[x[start : start + size].numpy(), *(o[i].numpy() for o in others)] for i, x in enumerate(xs)]
        inputs: list[Any] = [tuple(one) if others else one[0] for one in own_inputs]
        for own_parts, answer in zip(parts, model.push_many(streams, inputs), strict=True):
            own_parts.append(answer)
        start += size
    for own_parts, row in zip(parts, wanted, strict=True):
        np.testing.assert_allclose(np.concatenate(own_parts), row, atol=fixed("float32"))
