"""What depends on the place in a sequence: first steps of their own, positions, starts that inputs decide."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import InputError
from rnncore.text import character_vocabulary
from tests.export.axes_modules import Net
from tests.strategies import randomize
from tests.tolerances import fixed

ROWS = 60
"""Rows of the tables of positions."""


# Each takes x as [batch, time, 4], whatever the layout that the module is called with.
def _assigned(x: Tensor, k: int) -> Tensor:
    y = torch.zeros_like(x)
    y[:, k:] = x[:, :-k]
    return y


SHIFTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "times zero": lambda x, k: torch.cat([x[:, :k] * 0, x[:, :-k]], 1),
    "zeros_like": lambda x, k: torch.cat([torch.zeros_like(x[:, :k]), x[:, :-k]], 1),
    "pad": lambda x, k: F.pad(x, (0, 0, k, 0))[:, :-k],
    "pad back": lambda x, k: F.pad(x, (0, 0, k, -k)),
    "assigned": _assigned,
    "first again": lambda x, k: torch.cat([x[:, :k], x[:, :-k]], 1),
    "half of the first": lambda x, k: torch.cat([0.5 * x[:, :k], x[:, :-k]], 1),
    "difference behind the first": lambda x, k: torch.cat([x[:, :k], x[:, k:] - x[:, :-k]], 1),
    "padded difference": lambda x, k: F.pad(x[:, k:] - x[:, :-k], (0, 0, k, 0)),
    "from the first": lambda x, k: x - x[:, :1],
    "difference from the first again": lambda x, k: torch.diff(x, dim=1, prepend=x[:, :1]) + 0.1 * k,
    "sum with the first again": lambda x, k: torch.cat([x[:, :1], x], 1)[:, :-1] + x,
    "mean over the first again": lambda x, k: F.avg_pool1d(F.pad(x.mT, (k, 0), mode="replicate"), k + 1, 1).mT,
}


def _waves(x: Tensor) -> Tensor:
    place = torch.arange(x.shape[1]).float()[:, None]
    rates = torch.exp(torch.arange(0, 4, 2).float() * -0.5)
    table = torch.zeros(x.shape[1], 4)
    table[:, 0::2], table[:, 1::2] = torch.sin(place * rates), torch.cos(place * rates)
    return table


POSITIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "embedded": lambda s, x: x + s.table(torch.arange(x.shape[1])),
    "embedded from two on": lambda s, x: x + s.table(torch.arange(2, x.shape[1] + 2)),
    "embedded, every row": lambda s, x: x + s.table(torch.arange(x.shape[1]).repeat(x.shape[0], 1)),
    "joined": lambda s, x: (
        torch.cat([x, s.table(torch.arange(x.shape[1])).expand(len(x), -1, -1)], 2)[..., 2:6] * s.scale
    ),
    "first rows of a buffer": lambda s, x: x + s.rows[:, : x.shape[1]],
    "first rows, channels first": lambda s, x: (x.mT + s.rows.mT[..., : x.shape[1]]).mT,
    "numbers": lambda s, x: x * (1 + 0.1 * torch.arange(x.shape[1])[None, :, None]),
    "waves": lambda s, x: x + _waves(x),
    "at most": lambda s, x: x + s.table(torch.arange(x.shape[1]).clamp(max=9)),
}

STARTS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "first step": lambda s, x, c: torch.tanh(s.of_step(x[:, 0])),
    "without time": lambda s, x, c: torch.tanh(s.of_static(c)),
    "both": lambda s, x, c: torch.tanh(s.of_static(c) + s.of_step(x[:, :1].squeeze(1))),
}


class Drawn(nn.Module):
    def __init__(self, front: Callable[[Any, Tensor], Tensor], start: str, time_first: bool, by_hand: bool) -> None:
        super().__init__()
        self.front, self.start, self.time_first, self.by_hand = front, start, time_first, by_hand
        self.table = nn.Embedding(ROWS, 4)
        self.register_buffer("rows", torch.randn(1, ROWS, 4))
        self.scale = nn.Parameter(torch.randn(4))
        self.of_step, self.of_static = nn.Linear(4, 5), nn.Linear(3, 5)
        self.gru, self.cell = nn.GRU(4, 5, batch_first=True), nn.GRUCell(4, 5)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.time_first else x
        x = self.front(self, x)
        h = STARTS[self.start](self, x, c) if self.start else x.new_zeros(len(x), 5)
        if self.by_hand:
            steps = []
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
                steps.append(h)
            y = torch.stack(steps, 1)
        else:
            y = self.gru(x, h[None])[0]
        y = y + 0.1 * c.sum(1)[:, None, None]
        return y.transpose(0, 1) if self.time_first else y


FRONTS = st.one_of(
    st.tuples(st.sampled_from(sorted(SHIFTS)), st.integers(1, 3)).map(
        lambda drawn: (f"{drawn[0]} by {drawn[1]}", lambda s, x: SHIFTS[drawn[0]](x, drawn[1]))
    ),
    st.sampled_from(sorted(POSITIONS)).map(lambda name: (name, POSITIONS[name])),
)


@settings(max_examples=8, phases=set(Phase) - {Phase.shrink})  # an export is slow
@given(
    front=FRONTS,
    start=st.sampled_from(["", *STARTS]),
    time_first=st.booleans(),
    by_hand=st.booleans(),
    chunks=st.lists(st.integers(1, 6), min_size=2, max_size=5),
)
def test_it_streams(
    front: tuple[str, Callable[[Any, Tensor], Tensor]], start: str, time_first: bool, by_hand: bool, chunks: list[int]
) -> None:
    module = randomize(Drawn(front[1], start, time_first, by_hand).eval(), 11)
    sample = torch.randn(9, 2, 4) if time_first else torch.randn(2, 9, 4)
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", (sample, torch.randn(2, 3)))
        assert report.causal, (front[0], report.signature.not_causal_because)
        model = runtime.load(report.path)
    steps = max(4, sum(chunks))
    chunks = [*chunks, *([steps - sum(chunks)] if steps > sum(chunks) else [])]
    x, c = torch.randn(3, steps, 4), torch.randn(3, 3)
    with torch.no_grad():
        expected = module(x.transpose(0, 1) if time_first else x, c)
    expected = expected.transpose(0, 1) if time_first else expected
    lists = [{"x": x[row].numpy(), "c": c[row].numpy()} for row in range(3)]
    for row, answer in enumerate(model.run([item["x"] for item in lists], [item["c"] for item in lists])):
        np.testing.assert_allclose(answer, expected[row], atol=fixed("float32 long"))
    # Three streams, each at its own place of the sequence, move in one call.
    streams = [model.stream() for _ in lists]
    parts: list[list[np.ndarray]] = [[] for _ in lists]
    places = [0, 0, 0]
    while min(places) < steps:
        sizes = [min(chunks[(sum(places) + row) % len(chunks)], steps - place) for row, place in enumerate(places)]
        pushed = [
            {"x": item["x"][place : place + size], "c": item["c"]}
            for item, place, size in zip(lists, places, sizes, strict=True)
        ]
        for own_parts, answer in zip(parts, model.push_many(streams, pushed), strict=True):
            own_parts.append(answer)
        places = [place + size for place, size in zip(places, sizes, strict=True)]
    for row in range(3):
        np.testing.assert_allclose(np.concatenate(parts[row]), expected[row], atol=fixed("float32 long"))


def _embedded(rows: int) -> nn.Module:
    table, gru = nn.Embedding(rows, 4), nn.GRU(4, 5, batch_first=True)
    return randomize(Net(lambda s, x: s.gru(x + s.table(torch.arange(x.shape[1])))[0], table=table, gru=gru).eval(), 2)


def test_a_language_model_says_where_its_places_end(tmp_path: Path) -> None:
    letters = character_vocabulary(["abcd"])
    embed, table, gru = nn.Embedding(len(letters), 4), nn.Embedding(15, 4), nn.GRU(4, len(letters), batch_first=True)
    module = Net(
        lambda s, ids: torch.log_softmax(s.gru(s.embed(ids) + s.table(torch.arange(ids.shape[1])))[0], -1),
        embed=embed,
        table=table,
        gru=gru,
    )
    example = torch.randint(len(letters), (2, 7))
    path, metadata = tmp_path / "m.onnx", {"rnncore.tokenizer": letters.to_json()}
    export(randomize(module.eval(), 1), path, example, streaming=True, pick=True, metadata=metadata)
    model = runtime.LanguageModel.load(path)
    assert np.isfinite(model.score("abcd" * 3))
    for asked in (lambda: model.score("abcd" * 5), lambda: model.rescore(["ab", "abcd" * 5])):
        with pytest.raises(
            InputError, match=r"more than the 15 steps that this model takes in all \(its positions end"
        ):
            asked()


def test_a_stream_ends_where_its_table_does(tmp_path: Path) -> None:
    """Alone, together and in a pool it is refused by name, and stays where it was."""
    report = export(_embedded(20), tmp_path / "m.onnx", torch.randn(2, 9, 4), streaming=True)
    assert report.signature.most_steps == 20 and report.signature.axis("time").maximum == 20
    model = runtime.load(report.path)
    x = np.ones((21, 4), np.float32)
    with pytest.raises(InputError, match="along axis 'time', expected at most 20"):
        model.run(x[None])
    stream = model.stream()
    stream.push(x[:18])
    for chunk in (x[:3], x[:18]):
        with pytest.raises(InputError, match=r"18 steps, .* are beyond the 20 that this model takes in all"):
            stream.push(chunk)
    stream.push(x[:1])
    stream.push(x[:1])
    with pytest.raises(InputError, match="20 steps, 1 more"):
        stream.push(x[:1])
    with pytest.raises(InputError, match="20 steps, 1 more"):
        model.push_many([model.stream(), stream], [x[:1], x[:1]])
    assert stream.steps == 20
    stream.reset()
    stream.push(x[:20])
    with model.pool() as pool:
        pooled = pool.open()
        pooled.push(x[:19])
        with pytest.raises(InputError, match="19 steps, 2 more"):
            pooled.push(x[:2])
        pooled.push(x[:1])


def test_a_table_too_short_to_prove_a_stream(tmp_path: Path) -> None:
    report = export(_embedded(8), tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert not report.causal and "its positions end after 8 steps" in report.signature.not_causal_because
    with pytest.raises(InputError, match="expected at most 8"):
        runtime.load(report.path).run(np.ones((1, 9, 4), np.float32))


def test_lengths_stay_where_only_the_start_is_given(tmp_path: Path) -> None:
    module = randomize(Drawn(lambda s, x: x, "both", False, False).eval(), 3)
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 9, 4), torch.randn(2, 3)), streaming=True)
    assert report.signature.lengths is not None


def test_an_input_that_may_be_a_state_is_not_a_start(tmp_path: Path) -> None:
    """An output has its shape, and nobody has said what it is."""

    class Renewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.mix = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 5)

        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            y, last = self.gru(x, torch.tanh(self.mix(h))[None])
            return y, self.mix(last[0])

    report = export(Renewed().eval(), tmp_path / "m.onnx", (torch.randn(2, 9, 4), torch.randn(2, 5)))
    assert not report.causal


def test_what_looks_at_the_number_of_steps_is_batch_only(tmp_path: Path) -> None:
    """Positions from the end are no places of steps."""
    table, gru = nn.Embedding(50, 4), nn.GRU(4, 5, batch_first=True)
    module = Net(lambda s, x: s.gru(x + s.table(x.shape[1] - 1 - torch.arange(x.shape[1])))[0], table=table, gru=gru)
    report = export(module.eval(), tmp_path / "m.onnx", torch.randn(2, 9, 4))
    assert not report.causal
    x = torch.randn(3, 17, 4)
    with torch.no_grad():
        np.testing.assert_allclose(runtime.load(report.path).run(x.numpy()), module(x), atol=fixed("float32"))


def test_nan_in_the_first_step_goes_where_pytorch_puts_it(tmp_path: Path) -> None:
    """``x[:, :2] * 0`` is NaN where x is."""
    gru = nn.GRU(4, 4, batch_first=True)  # a file needs one
    module = Net(lambda s, x: torch.cat([x[:, :2] * 0, x[:, :-2]], 1) + 0 * s.gru(torch.zeros_like(x))[0], gru=gru)
    report = export(module.eval(), tmp_path / "m.onnx", torch.randn(2, 9, 4), streaming=True)
    x = torch.randn(1, 12, 4)
    x[0, 1] = torch.nan
    with torch.no_grad():
        expected = module(x)[0]
    stream = runtime.load(report.path).stream()
    got = np.concatenate([stream.push(x[0, t : t + 1].numpy()) for t in range(12)])
    assert np.isnan(got).any(1).sum() == 2
    np.testing.assert_allclose(got, expected, atol=fixed("float32"))


class Worded(nn.Module):
    """A decoder that takes lengths of its own, and starts from an input without time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.begin = nn.LSTM(4, 5, 2, batch_first=True), nn.Linear(3, 5)

    def forward(self, x: Tensor, lengths: Tensor, picture: Tensor) -> Tensor:
        c = self.begin(picture).unsqueeze(0).repeat(2, 1, 1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed, (torch.zeros_like(c), c))[0], batch_first=True)[0]


def test_a_start_beside_lengths_of_the_module(tmp_path: Path) -> None:
    """Probing calls it with more rows of x than of the start, for which torch would write where nothing is its own."""
    module = randomize(Worded().eval(), 5)
    drawn = (torch.randn(2, 9, 4), torch.tensor([9, 7]), torch.randn(2, 3))
    report = export(module, tmp_path / "m.onnx", drawn, streaming=True)
    assert report.signature.lengths is not None
    x, picture = torch.randn(1, 11, 4), torch.randn(1, 3)
    with torch.no_grad():
        expected = module(x, torch.tensor([11]), picture)[0]
    stream = runtime.load(report.path).stream()
    got = np.concatenate([stream.push(x[0, t : t + 1].numpy(), picture[0].numpy()) for t in range(11)])
    np.testing.assert_allclose(got, expected, atol=fixed("float32"))


def test_first_steps_with_a_weight_for_each_of_them_leave_the_file_batch_only(tmp_path: Path) -> None:
    """What was made of two steps cannot be made of every one; the file was written so, and did not load."""
    gru = nn.GRU(4, 5, batch_first=True)
    module = Net(lambda s, x: s.gru(torch.cat([x[:, :2] * s.each, x[:, :-2]], 1))[0], gru=gru)
    module.register_buffer("each", torch.tensor([[1.0], [2.0]]))
    report = export(randomize(module.eval(), 4), tmp_path / "m.onnx", torch.randn(2, 9, 4))
    assert not report.causal
    x = torch.randn(3, 12, 4)
    with torch.no_grad():
        np.testing.assert_allclose(runtime.load(report.path).run(x.numpy()), module(x), atol=fixed("float32"))


def test_lengths_that_come_back_count_on(tmp_path: Path) -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.gru(packed)[0], batch_first=True)

    example = (torch.randn(2, 9, 4), torch.tensor([9, 7]))
    report = export(Counted().eval(), tmp_path / "m.onnx", example, streaming=True, output_names=["y", "steps_so_far"])
    stream = runtime.load(report.path).stream()
    counts = [stream.push(np.zeros((n, 4), np.float32))["steps_so_far"] for n in (2, 1, 4)]
    assert [int(count) for count in counts] == [2, 3, 7]
