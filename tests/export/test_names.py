"""Outputs may be called like anything inside the file: operators, layers, weights, inputs, states, constants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.lowering.unique_names import make_names_unique
from rnncore.runtime.errors import ExportError, InputError
from tests.tolerances import bound

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


class Named(nn.Module):
    """Two outputs, called as it is told."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.names = first, second
        self.table, self.lstm, self.head = nn.Embedding(9, 5), nn.LSTM(5, 3, batch_first=True), nn.Linear(3, 2)
        self.weight = nn.Parameter(torch.randn(2))

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        y = self.lstm(self.table(ids))[0]
        return {self.names[0]: torch.relu(y).sigmoid(), self.names[1]: torch.softmax(self.head(y) * self.weight, -1)}


def names_of(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a value has when it is made, those of inner graphs included."""
    made = {value.name for value in graph.input}
    yield from made
    yield from (value.name for value in graph.initializer if value.name not in made)
    for node in graph.node:
        yield from (name for name in node.output if name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from names_of(attribute.g)


PAIRS = {
    "loop": [("embedding", "weight"), ("table.weight", "lstm.h"), ("ids", "lengths"), ("lstm/Loop_1", "relu")],
    "scan": [("sigmoid", "lstm.h.next")],
    "portable": [("softmax", "lstm.weight_hh_l0")],
    "fused": [("embedding", "lstm.c")],
}


@pytest.mark.parametrize(("form", "pair"), [(form, pair) for form, pairs in PAIRS.items() for pair in pairs])
def test_outputs_called_like_values_inside(tmp_path: Path, form: Any, pair: tuple[str, str]) -> None:
    path = tmp_path / "m.onnx"
    torch.manual_seed(2)
    module = Named(*pair).eval()
    report = export(module, path, IDS, form=form, streaming=True)
    found = runtime.load(path).run(IDS.numpy())
    names = [f"{name}_out" if name in ("lengths", "ids") else name for name in pair]
    assert [port.name for port in report.signature.outputs] == list(found) == names
    with torch.no_grad():
        wanted = module(IDS)
    for one, other in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=bound("float32", "onnx", depth=3, length=4), rtol=0)
    every = list(names_of(onnx.load(path).graph))
    assert len(every) == len(set(every))


def test_keys_that_come_out_alike_are_told_apart(tmp_path: Path) -> None:
    class Nested(Named):
        def forward(self, ids: Tensor) -> Any:
            a, b = super().forward(ids).values()
            return {"x": {"y": a}, "x_y": b}

    export(Nested("a", "b").eval(), tmp_path / "m.onnx", IDS)
    assert list(runtime.load(tmp_path / "m.onnx").run(IDS.numpy())) == ["x_y", "x_y_1"]
    with pytest.raises(InputError, match="expected a name of its own"):
        export(Named("a", "b").eval(), tmp_path / "m.onnx", IDS, output_names=["y", "y"])


@settings(max_examples=50)
@given(st.data())
def test_any_graph_has_every_name_once(data: st.DataObject) -> None:
    few = st.sampled_from(["x", "y", "y_1", "y_2", "w"])

    def value(name: str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"]))

    def nodes(source: ir.Value, depth: int) -> list[ir.Node]:
        made = []
        for _ in range(data.draw(st.integers(1, 3))):
            if depth and data.draw(st.booleans()):
                inner = [nodes(source, depth - 1) for _ in range(2)]
                branches = [ir.Graph([], part[-1].outputs, nodes=part, name="branch") for part in inner]
                node = ir.node("If", [condition], {"then_branch": branches[0], "else_branch": branches[1]})
            else:
                node = ir.node(data.draw(st.sampled_from(["Neg", "Abs"])), [source])
            node.outputs[0].name = data.draw(few)
            made.append(node)
            source = node.outputs[0] if node.op_type != "If" else source
        return made

    x, condition = value("x"), ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    body = nodes(x, 2)
    outputs = [body[-1].outputs[0]]
    graph = ir.Graph([x, condition], outputs, nodes=body, opset_imports={"": 20}, name="g")
    outputs[0].name = data.draw(st.sampled_from(["y", "relu", "y_1"]))
    outputs[0].type, outputs[0].shape = x.type, ir.Shape(["n"])
    named = outputs[0].name
    make_names_unique(graph)
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    every = list(names_of(proto.graph))
    assert len(every) == len(set(every))
    assert [value.name for value in proto.graph.output] == [named]
    assert [value.name for value in proto.graph.input] == ["x", "c"]
    onnx.checker.check_model(proto)


def test_two_inputs_or_outputs_of_one_name_are_refused() -> None:
    values = [ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"])) for _ in range(2)]
    with pytest.raises(ExportError, match="two inputs or outputs of the file are called 'x'"):
        make_names_unique(ir.Graph(values, [], nodes=[], opset_imports={"": 20}, name="g"))
