"""Interval arithmetic over graphs: what it proves holds, and what it cannot prove it leaves open."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser
from onnx.reference import ReferenceEvaluator

from rnncore.export.int8.ranges import Range, Ranges

STEPS = {
    "tanh": ("h2 = Tanh(pre)", (-1.0, 1.0)),
    "mixture of a gate": ("g = Sigmoid(pre) n = Tanh(pre) d = Sub(h, n) m = Mul(g, d) h2 = Add(n, m)", (-1.0, 1.0)),
    "mixture of both gates": (
        "g = Sigmoid(pre) n = Tanh(pre) f = Sub(one, g) a = Mul(g, h) b = Mul(f, n) h2 = Add(a, b)",
        (-1.0, 1.0),
    ),
    "gates that do not match": (
        "g = Sigmoid(pre) n = Tanh(pre) f = Sub(one, n) a = Mul(g, h) b = Mul(f, n) h2 = Add(a, b)",
        (-np.inf, np.inf),
    ),
    "sum": ("n = Tanh(pre) h2 = Add(h, n)", (-np.inf, np.inf)),
    "held": ("keep = Greater(x, one) n = Sigmoid(pre) h2 = Where(keep, n, h)", (-1.0, 1.0)),
    "relu": ("h2 = Relu(pre)", (-1.0, np.inf)),
    "mixed with a mixture outside of 0 and 1": (
        "g = Tanh(pre) n = Tanh(pre) d = Sub(h, n) m = Mul(g, d) h2 = Add(n, m)",
        (-np.inf, np.inf),
    ),
}
"""Body of a loop from h and x to h2, and the range of the final state for -1 <= h <= 1 at the start."""


def model_of(step: str) -> onnx.ModelProto:
    return parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        step (float[3] x, float[3] h0, int64 n, bool go) => (float[3] y)
        <float one = {{1.0}}>
        {{
            start = Tanh(h0)
            y = Loop(n, go, start) <body = body (int64 i, bool c, float[3] h) => (bool c2, float[3] h2)
            {{ c2 = Identity(c) s = Mul(h, x) pre = Add(s, x) {step} }}>
        }}""")


@pytest.mark.parametrize("name", STEPS)
def test_ranges_of_loops(name: str) -> None:
    step, expected = STEPS[name]
    graph = ir.from_proto(model_of(step)).graph
    assert Ranges(graph, {}).of(graph.outputs[0]) == Range(*expected)


@settings(max_examples=25)
@given(st.sampled_from(sorted(STEPS)), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 30.0]), st.integers(0, 5))
def test_no_run_leaves_its_range(name: str, seed: int, size: float, steps: int) -> None:
    model = model_of(STEPS[name][0])
    graph = ir.from_proto(model).graph
    proved = Ranges(graph, {}).of(graph.outputs[0])
    random = np.random.default_rng(seed)
    x, h = (size * random.standard_normal(3, np.float32) for _ in range(2))
    feeds = {"x": x, "h0": h, "n": np.array(steps), "go": np.array(True)}
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(model).run(None, feeds)
    assert (y >= proved.low - 1e-6).all() and (y <= proved.high + 1e-6).all()


def test_what_streams_carry_keeps_to_where_it_starts() -> None:
    graph = ir.from_proto(model_of("h2 = Tanh(pre)")).graph
    (x, h0, *_), (y,) = graph.inputs, graph.outputs
    assert Ranges(graph, {}).of(h0) == Range()
    assert Ranges(graph, {h0: (Range(-3.0, 2.0), y)}).of(h0) == Range(-3.0, 2.0)
    assert Ranges(graph, {x: (Range(0.0, 0.5), y)}).of(x) == Range(-1.0, 1.0)
