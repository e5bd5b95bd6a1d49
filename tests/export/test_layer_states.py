"""States of layers without a loop: lifted out of the graph, or what they were given."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from rnncore.export.lowering.layer_states import splice_layer_states
from rnncore.export.tracing.recorder import StreamingLayerCall
from rnncore.layers import StreamingLayer
from rnncore.runtime.format.signature import StateSpec
from tests.export.small_graphs import model, same_in_chunks, shown

HEAD = "x[batch,time,4] -> y[batch,time,4]\n"
ZEROS = "n:i[1] = Shape<end = 1>(x)\n w:i[2] = Concat<axis = 0>(n, {4})\n z[batch,4] = Expand(#0.0, w)\n"
INSIDE = """a[batch,4] = rnncore.StateIn<call = "net">(x, z)
    b[batch,time,4] = CumSum(x, #1)
    c[batch,1,4] = Unsqueeze(a, {1})
    d[batch,time,4] = Add(b, c)
    e[batch,4] = Gather<axis = 1>(d, #-1)
"""
OUT = 'rnncore.StateOut<call = "net">(d, e)'
SUM = f"{HEAD}{ZEROS}{INSIDE} y, f[batch,4] = {OUT}"


class Sums(StreamingLayer):
    def __init__(self, start: float = 0.0) -> None:
        super().__init__(4, 4, {"total": 4})
        self.start = start

    def initial_state(self, batch: Any, like: Tensor) -> tuple[Tensor, ...]:
        return (torch.full((batch, 4), self.start),)


def call(name: str = "net", *, given: bool = False, start: float = 0.0) -> dict[str, StreamingLayerCall]:
    return {name: StreamingLayerCall(name, Sums(start), given, False)}


def spliced(text: str, calls: dict[str, StreamingLayerCall], lift: bool = True) -> tuple[ir.Model, list[StateSpec]]:
    made = model(text)
    states = splice_layer_states(made, calls, lift=lift)
    assert all(node.domain == "" for node in made.graph)
    onnx.checker.check_model(ir.to_proto(made))
    return made, states


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (SUM, "net"),
        (SUM.replace('"net"', '""'), ""),
        (f"{HEAD}{ZEROS}{INSIDE} g[batch,time,4], f[batch,4] = {OUT}\n y = Neg(g)", "net"),
        (f"x[batch,time,4] -> y[batch,time,4], f[batch,4]\n {ZEROS}{INSIDE} y, f = {OUT}", "net"),
        (f"x[batch,time,4] -> y[batch,time,4], f[batch,4], e[batch,4]\n {ZEROS}{INSIDE.replace('e[batch,4] =', 'e =')}"
         f" y, f = {OUT}", "net"),
        (f"x[batch,time,4] -> y[batch,time,4], d[batch,time,4]\n {ZEROS}{INSIDE.replace('d[batch,time,4] =', 'd =')}"
         f" y, f[batch,4] = {OUT}", "net"),
    ],
)  # fmt: skip
def test_a_state_goes_from_chunk_to_chunk(text: str, name: str) -> None:
    own = call(name)
    whole, none = spliced(text, own, lift=False)
    assert none == [] and [v.name for v in whole.graph.inputs] == ["x"]
    made, states = spliced(text, own)
    full = "net.total" if name else "total"
    assert states == [StateSpec(full, f"{full}.next", "float32", 4)]
    same_in_chunks(whole, made, states)
    inside, out = made.graph.inputs[-1], made.graph.outputs[-1]
    assert inside.shape == out.shape == ir.Shape(["batch", 4]) and inside.dtype == out.dtype == ir.DataType.FLOAT
    assert made.graph.outputs[0].shape == ir.Shape(["batch", "time", 4])


def test_what_stays_as_it_was_goes_out_by_a_node_of_its_own() -> None:
    text = f"""{HEAD}{ZEROS} a[batch,4] = rnncore.StateIn<call = "net">(x, z)
        y, f[batch,4] = rnncore.StateOut<call = "net">(x, a)"""
    made, states = spliced(text, call())
    assert shown(made)[:4] == ["x", "net.total", "y", "net.total.next"] and len(states) == 1
    assert [node.op_type for node in made.graph][-2:] == ["Identity", "Identity"]
    same_in_chunks(spliced(text, call(), lift=False)[0], made, states)


def test_a_state_starts_from_what_the_layer_says() -> None:
    _, (state,) = spliced(SUM, call(start=1.5))
    assert state.initial_value().tolist() == [1.5] * 4
    _, (given,) = spliced(SUM, call(start=1.5, given=True))
    assert given.initial is None, "zeros that the module hands in are zeros"


def test_a_state_that_the_module_hands_in_is_its_own() -> None:
    text = SUM.replace("x[batch,time,4] ->", "x[batch,time,4], h[batch,4] ->").replace("(x, z)", "(x, h)")
    made, states = spliced(text, call(given=True))
    assert states == [] and [v.name for v in made.graph.inputs] == ["x", "h"] and len(made.graph.outputs) == 1
    assert len(spliced(text, call())[1]) == 1, "nobody has handed it in: it is how the layer begins"


def test_states_of_other_types_and_of_several_layers() -> None:
    double = (
        SUM.replace("[batch", ":d[batch").replace("#0.0", "k").replace(" z:d", " k:d[] = Cast<to = 11>(#0.0)\n z:d")
    )
    made, (state,) = spliced(double, call())
    assert state.dtype == "float64" and made.graph.inputs[-1].dtype == ir.DataType.DOUBLE
    _, (untyped,) = spliced(SUM.replace("a[batch,4] =", "a ="), call())
    assert untyped.dtype == "float32"
    second = INSIDE.replace('"net"', '"top"').replace("(x, z)", "(y0, z)").replace("CumSum(x", "CumSum(y0")
    for name in "abcde":
        second = (
            second.replace(f"{name}[", f"{name}2[")
            .replace(f"({name}", f"({name}2")
            .replace(f", {name})", f", {name}2)")
        )
    both = f"{HEAD}{ZEROS}{INSIDE} y0[batch,time,4], f[batch,4] = {OUT}\n {second} y, g[batch,4] = " + OUT.replace(
        "net", "top"
    ).replace("(d, e)", "(d2, e2)")
    calls = call() | call("top")
    made, states = spliced(both, calls)
    assert [state.name for state in states] == ["net.total", "top.total"]
    same_in_chunks(spliced(both, calls, lift=False)[0], made, states)
