"""Loops over every n-th step, whose answers come for each step all the same: streams go on in multiples of n."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from onnx import parser
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.graph.run_overlap import RunOverlap, period_of
from rnncore.export.tracing.rows import any_runs_on, rows_lie_apart
from tests.strategies import randomize
from tests.tolerances import fixed

WIDTH = 4


class Dilated(nn.Module):
    """[batch, time, 4]: each layer reads every ``rate``-th step from each of its phases, which are rows of one call."""

    def __init__(self, kinds: tuple[str, ...], rates: tuple[int, ...], *, side_by_side: bool) -> None:
        super().__init__()
        self.rates, self.side_by_side = rates, side_by_side
        layers = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
        self.layers = nn.ModuleList(layers[kind](WIDTH, WIDTH) for kind in kinds)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        for layer, rate in zip(self.layers, self.rates, strict=True):
            steps, rows = y.shape[:2]
            turns = (steps + rate - 1) // rate
            whole = F.pad(y, (0, 0, 0, 0, 0, turns * rate - steps))
            if self.side_by_side:  # the phases of a row are neighbours
                laid = whole.reshape(turns, rate, rows, WIDTH).transpose(1, 2).reshape(turns, rows * rate, WIDTH)
                found = layer(laid)[0].reshape(turns, rows, rate, WIDTH).transpose(1, 2)
                found = found.reshape(turns * rate, rows, WIDTH)
            else:  # all rows of a phase are
                laid = torch.cat([whole[phase::rate] for phase in range(rate)], 1)
                parts = [layer(laid)[0][:, phase * rows : (phase + 1) * rows] for phase in range(rate)]
                found = torch.stack(parts, 1).flatten(0, 1)
            y = found[:steps]
        return y.transpose(0, 1)


class Halves(nn.Module):
    """A layer over pairs of steps, whose answers are given to both; an odd last step is one of a pair with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(2 * WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        pairs = F.pad(x, (0, 0, 0, steps % 2)).unflatten(1, (-1, 2)).flatten(2)
        return self.layer(pairs)[0].repeat_interleave(2, 1)[:, :steps]


def checked(module: nn.Module, stride: int, sizes: list[int], lengths: Any = "auto") -> None:
    """The file of ``module`` streams so many steps at a time, in whatever chunks, alone and together."""
    with tempfile.TemporaryDirectory() as folder:
        report = export(module.eval(), Path(folder) / "m.onnx", torch.randn(2, 31, WIDTH), lengths=lengths)
        assert report.causal, report.signature.not_causal_because
        model = runtime.load(report.path)
    assert (model.signature.stride, model.signature.overlap) == (stride, 0)
    steps = 6 * stride
    xs = torch.randn(3, steps, WIDTH)
    with torch.no_grad():
        wanted, rows = module(xs).numpy(), xs.numpy()
    np.testing.assert_allclose(model.run(rows), wanted, atol=fixed("float32"))
    streams = [model.stream() for _ in rows]
    parts: list[list[np.ndarray]] = [[] for _ in rows]
    starts = [0] * len(rows)
    for turn, size in enumerate([*sizes, steps, steps]):
        ends = [min(steps, start + size * (i != turn % 3)) for i, start in enumerate(starts)]
        chunks = [row[start:end] for row, start, end in zip(rows, starts, ends, strict=True)]
        for own, answer in zip(parts, model.push_many(streams, chunks), strict=True):
            own.append(answer)
        starts = ends
    for own, answer in zip(parts, wanted, strict=True):
        np.testing.assert_allclose(np.concatenate(own), answer, atol=fixed("float32"))


# Not shrunk: an export takes seconds, and a plan prints as one line anyway.
@pytest.mark.slow
@settings(max_examples=2, phases=[Phase.explicit, Phase.reuse, Phase.generate], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["gru", "lstm", "rnn"]), st.integers(1, 4)), min_size=1, max_size=3),
    st.booleans(),
    st.lists(st.integers(0, 9), max_size=6),
    st.integers(0, 1 << 16),
)
@example([("lstm", 1), ("gru", 2)], False, [1, 1, 5, 0, 2], 1)
@example([("gru", 3)], True, [1, 1, 5, 0, 2], 2)
def test_dilated_layers(layers: list[tuple[str, int]], side_by_side: bool, sizes: list[int], seed: int) -> None:
    kinds, rates = zip(*layers, strict=True)
    module = Dilated(kinds, rates, side_by_side=side_by_side)
    randomize(module, seed)
    torch.manual_seed(seed)
    checked(module, int(np.lcm.reduce(rates)), sizes)


def test_pairs_of_steps() -> None:
    torch.manual_seed(4)
    checked(Halves(), 2, [1, 3, 2, 2, 1])


@pytest.mark.parametrize(
    ("size", "period"),
    [
        ("time", 1),
        ("2*time", 1),
        ("((time + 1)//2)", 2),
        ("2*(((time + 2)//3)) + 1", 3),
        ("(((time + 1)//2) + 1)//2", 4),
        ("words", 1),
        (7, 1),
        (None, 1),
        ("time//100", 1),
    ],
)
def test_after_how_many_steps_a_size_grows_alike(size: int | str | None, period: int) -> None:
    assert period_of(size) == period


@pytest.mark.parametrize(
    ("runs", "size", "again"),
    [
        (RunOverlap(), "words", 0),
        (RunOverlap(2, 1), "time", 2),
        (RunOverlap(2, 1), "time - 2", 0),
        (RunOverlap(5, 2), "((time - 3)//2) + 1", 2),
        (RunOverlap(5, 1), "((time - 3)//2) + 1", None),
        (RunOverlap(2, 1), "time - 5", 0),
        (RunOverlap(2, 1), "words - 2", None),
        (RunOverlap(2, 1), 9, None),
        (RunOverlap(3, 4), "Max(1, time//4)", None),
        (RunOverlap(3, 4), "time % 4", None),
        (RunOverlap(3, 4), "time.real", None),
        (RunOverlap(3, 4), "-(-time)", 3),
    ],
)
def test_steps_that_the_next_run_computes_again(runs: RunOverlap, size: int | str, again: int | None) -> None:
    assert runs.again(size) == again


def call_of(body: str, rows: str) -> ir.Node:
    """The call in a graph whose other nodes, before it, make ``v`` of x and w, [batch, time, 4] each."""
    model = ir.from_proto(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20, "rnncore" : 1]>
        g (float[batch, time, 4] x, float[batch, time, 4] w, int64[3] sizes) => (float[{rows}, time, 5] y)
        <float[{rows}, time, 4] v, float[time, {rows}, 4] t, float[{rows}, time, 4] u, float[time, batch, 4] a>
        {{ {body}  y = rnncore.Recurrent <call = "rnn"> (v, v, sizes) }}""")
    )
    return list(model.graph)[-1]


@pytest.mark.parametrize(
    ("body", "apart"),
    [
        ("v = Concat <axis = 0> (x, w)", True),
        ("u = Concat <axis = 0> (x, w)  v = Tanh (u)", True),
        (
            "a = Transpose <perm = [1, 0, 2]> (x)  t = Concat <axis = 1> (a, a)  v = Transpose <perm = [1, 0, 2]> (t)",
            True,
        ),
        ("v = Concat <axis = 1> (x, w)", False),
        ("v = Reshape (x, sizes)", False),
        ("u = Reshape (x, sizes)  v = Tanh (u)", False),
        ("v = Identity (x)", False),
    ],
)
def test_how_the_rows_of_one_sequence_lie(body: str, apart: bool) -> None:
    assert rows_lie_apart(call_of(body, "rows")) == apart


def test_a_call_without_lengths_runs_on() -> None:
    node = call_of("v = Identity (x)", "batch")
    assert node.graph is not None
    model = ir.Model(node.graph, ir_version=10)
    assert not any_runs_on(model)
    node.replace_input_with(2, None)
    assert any_runs_on(model)
