"""Tools on graphs, on graphs of a few nodes: names and constants, columns, shortcuts, inlining, tidying, merged gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from rnncore.export.gate_splitting.merged_gates import find_merged_gates
from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.graph.cleanup import clean_up
from rnncore.export.graph.column_ranges import (
    column_count,
    disjoint,
    part_or_whole,
    shifted,
    split,
    split_sizes,
    width_of,
)
from rnncore.export.graph.inline import inline
from rnncore.export.graph.replace import drop_shortcuts, put_in_place
from rnncore.export.lowering.gather_output import add_gather_output
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import GatherOutput

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def value(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, type=FLOAT, shape=ir.Shape(shape))


def graph(inputs: Sequence[ir.Value], builder: Builder, outputs: Sequence[ir.Value]) -> ir.Graph:
    main = builder.main
    main.inputs.extend(inputs)
    main.extend(builder.nodes)
    for output in outputs:
        output.type = output.type or FLOAT
        main.outputs.append(output)
    return main


def main_graph() -> ir.Graph:
    return ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="main")


def run(made: ir.Graph, **given: np.ndarray) -> list[Any]:
    data = ir.to_proto(ir.Model(made, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, given)
    return found


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ExportError) as caught:
        call()
    return str(caught.value)


def test_a_builder_names_by_its_layer_and_shares_constants() -> None:
    builder = Builder("enc.0", main_graph())
    x = value("x", 2, 3)
    y = builder.op("Add", x, x, axis=1)
    first, second = builder.ops("Split", [y], 2, axis=1)
    inner = builder.nested()
    z = inner.op("Neg", first)
    assert [v.name for v in (y, first, second, z)] == [
        "enc.0/Add_0",
        "enc.0/Split_1.0",
        "enc.0/Split_1.1",
        "enc.0/Neg_2",
    ]
    assert builder.name("h") == "enc.0/h_3" and builder.input("s", ir.DataType.INT64, ["n"]).name == "enc.0/s_4"
    assert [node.op_type for node in builder.nodes] == ["Add", "Split"] and inner.main is builder.main
    ones = builder.constant([1, 1])
    assert inner.constant([1, 1]) is ones and builder.constant([1, 2]) is not ones
    assert ones.name == "const/int64/2/1_1" and builder.constant(1.5, np.float32).name == "const/float32//1.5"
    assert builder.constant([[1, 1]]) is not ones and ones.const_value is not None and ones.dtype == ir.DataType.INT64
    weight = initializer(builder.main, "w", ir.tensor(np.ones(3, np.float32)))
    assert initializer(builder.main, "w", ir.tensor(np.zeros(3, np.float32))) is weight and weight.shape == ir.Shape(
        [3]
    )
    (own,) = builder.append("Mine", [x], [], 1, "my.domain")
    assert own.producer().domain == "my.domain"  # type: ignore[union-attr]
    body = inner.subgraph([], [z], "body")
    assert str(body.name).startswith("enc.0/body_") and list(body.outputs) == [z] and len(list(body)) == 1


def test_columns_are_cut_and_put_side_by_side() -> None:
    builder = Builder("l", main_graph())
    x = value("x", 2, 7)
    parts = (((0, 1), (3, 5)), ((1, 3),), ((5, 7),))
    cut = split(builder, x, parts, 7, 1)
    a = np.arange(14, dtype=np.float32).reshape(2, 7)
    found = run(graph([x], builder, cut), x=a)
    for columns, own in zip(([0, 3, 4], [1, 2], [5, 6]), found, strict=True):
        np.testing.assert_array_equal(own, a[:, columns])
    assert split(builder, x, (((0, 7),),), 7, 1) == [x]
    assert [width_of(part) for part in parts] == [3, 2, 2]
    assert shifted(parts[0], 4) == ((4, 5), (7, 9)) and shifted(((0, 1), (1, 3), (5, 6)), 2) == ((2, 5), (7, 8))
    assert disjoint(parts) and not disjoint((((0, 2),), ((1, 3),))) and disjoint((((0, 2),), ((2, 3),)))
    assert part_or_whole(x, ((0, 7),)) is None and part_or_whole(x, ((0, 6),)) == ((0, 6),)
    assert part_or_whole(x, None) is None
    assert column_count(x) == 7 and column_count(x, 0) == 2 and column_count(value("s")) == 0
    assert column_count(value("n", "batch")) is None and column_count(ir.Value(name="u")) is None
    assert column_count(builder.constant([[1, 2, 3]])) == 3


def test_sizes_of_a_split_are_known_or_not() -> None:
    builder = Builder("l", main_graph())
    x = value("x", 2, 6)
    sizes = builder.constant([1, 5])
    assert split_sizes(builder.ops("Split", [x, sizes], 2, axis=1)[0].producer()) == [1, 5]  # type: ignore[arg-type]
    assert split_sizes(builder.ops("Split", [x, sizes], 2, axis=-1)[0].producer()) == [1, 5]  # type: ignore[arg-type]
    for other in (
        builder.ops("Split", [x, sizes], 2, axis=0),
        builder.ops("Split", [x, sizes], 2),
        builder.ops("Split", [x, value("given", 2)], 2, axis=1),
        builder.ops("Split", [ir.Value(name="u"), sizes], 2, axis=1),
        builder.ops("Split", [None, sizes], 2, axis=1),
        builder.ops("Split", [x], 2, axis=1),
        builder.append("Split", [x, sizes], [], 2, "mine"),
        [builder.op("Neg", x)],
    ):
        assert split_sizes(other[0].producer()) is None  # type: ignore[arg-type]
    known = builder.ops("Split", [x], 2, axis=1)
    for one, width in zip(known, (2, 4), strict=True):
        one.shape = ir.Shape([2, width])
    assert split_sizes(known[0].producer()) == [2, 4]  # type: ignore[arg-type]
    flat = builder.ops("Split", [value("v", 6), sizes], 2)
    assert split_sizes(flat[0].producer()) == [1, 5], "along the only axis, which is also the first"  # type: ignore[arg-type]


def branching(name: str) -> tuple[ir.Graph, ir.Value]:
    """y = -x where c, else |x| + 1, and then y * 2; both branches read x."""
    builder = Builder("m", main_graph())
    c = ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    x = value("x", 2)
    then, other = builder.nested(), builder.nested()
    negative, one = then.op("Neg", x), builder.constant([1.0], np.float32)
    more = other.op("Add", other.op("Abs", x), one)
    negative.type = more.type = FLOAT
    y = builder.op(
        "If", c, then_branch=then.subgraph([], [negative], name), else_branch=other.subgraph([], [more], "all")
    )
    y.type, y.shape = FLOAT, ir.Shape([2])
    doubled = builder.op("Add", y, y)
    return graph([c, x], builder, [y, doubled]), y


@pytest.mark.parametrize(("name", "dropped"), [("one_row", True), ("other", False)])
def test_a_shortcut_is_replaced_by_what_is_right_in_all_cases(name: str, dropped: bool) -> None:
    made, y = branching(name)
    output = str(y.name)
    drop_shortcuts(made)
    assert ("If" in [node.op_type for node in made]) is not dropped
    x = np.array([-3.0, 2.0], np.float32)
    right = [4.0, 3.0] if dropped else [3.0, -2.0]
    first, second = run(made, c=np.array(True), x=x)
    assert first.tolist() == right and second.tolist() == [2 * n for n in right]
    assert made.outputs[0].name == output
    if dropped:
        assert len(made.inputs[1].uses()) == 1, "what only the shortcut read is not used any more"


def test_a_value_takes_the_place_of_another_with_its_name_only_where_that_is_public() -> None:
    builder = Builder("m", main_graph())
    x = value("x", 2)
    old, new = builder.op("Neg", x), builder.op("Abs", x)
    old.type, old.shape = FLOAT, ir.Shape([2])
    reader = builder.op("Exp", old)
    graph([x], builder, [reader])
    put_in_place(old, new)
    assert reader.producer().inputs[0] is new and new.shape == ir.Shape([2]) and new.name == "m/Abs_1"  # type: ignore[union-attr]
    put_in_place(reader, new)
    assert builder.main.outputs[0] is new and new.name == "m/Exp_2"


def inner_graph() -> ir.Graph:
    """y = (a * w) + (b * w + w); z = a."""
    builder = Builder("inner", main_graph())
    a, b = value("a", 2), value("b", 2)
    w = initializer(builder.main, "w", ir.tensor(np.array([2.0, 3.0], np.float32)))
    y = builder.op("Add", builder.op("Mul", a, w), builder.op("Add", builder.op("Mul", b, w), w))
    z = builder.op("Identity", a)
    y.name, z.name = "y", "z"
    return graph([a, b], builder, [y, z])


def test_a_graph_is_written_into_another_one_with_what_never_changes_outside() -> None:
    main = main_graph()
    body, outside = Builder("loop", main), Builder("before", main)
    a, b = value("given a", 2), value("given b", 2)
    (y,) = inline(inner_graph(), ["y"], {"a": a, "b": b}, body, varying={"a"}, outside=outside)
    assert [node.op_type for node in outside.nodes] == ["Mul", "Add"] and [n.op_type for n in body.nodes] == [
        "Mul",
        "Add",
    ]
    assert y.name == "loop/y" and y.shape is None and list(main.initializers) == ["w"]
    main.extend(outside.nodes)
    found = run(graph([a, b], body, [y]), **{"given a": np.array([1, 1], "f"), "given b": np.array([10, 20], "f")})
    assert found[0].tolist() == [24.0, 66.0]
    again = Builder("again", main)
    both = inline(inner_graph(), ["z", "y"], {"a": a, "b": b}, again)
    assert (
        [v.name for v in both] == ["again/z", "again/y"] and len(again.nodes) == 5 and list(main.initializers) == ["w"]
    )
    other = main_graph()
    initializer(other, "w", ir.tensor(np.zeros(2, np.float32)))
    inline(inner_graph(), ["y"], {"a": a, "b": b}, Builder("p", other))
    assert list(other.initializers) == ["w", "p/w"], "another weight of that name"
    assert refused(lambda: inline(inner_graph(), ["y"], {"a": a}, Builder("p", main_graph()))) == (
        "nothing was given for the value 'b' of the graph to be inlined"
    )


def test_what_a_branch_reads_counts_as_read_when_it_is_inlined() -> None:
    made, _ = branching("any")
    main = main_graph()
    builder = Builder("p", main)
    c = ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    x = value("x", 2)
    wanted = str(made.outputs[1].name)
    (y,) = inline(made, [wanted], {"c": c, "x": x}, builder)
    first = run(graph([c, x], builder, [y]), c=np.array(False), x=np.array([-3.0, 2.0], np.float32))[0]
    assert first.tolist() == [8.0, 6.0]


def test_a_finished_graph_is_tidy_and_its_weights_bear_their_names() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(2, 3)
            self.scale = nn.Parameter(torch.ones(1))

    module = Two()
    builder = Builder("m", main_graph())
    x = value("x", "batch", 3)
    x.metadata_props["made"] = "by hand"
    weight = module.left.weight.detach().numpy()
    w = initializer(builder.main, "val_3", ir.tensor(np.ascontiguousarray(weight.T)))
    twice = initializer(builder.main, "val_4", ir.tensor(np.ascontiguousarray(weight.T)))
    kept = initializer(builder.main, "const/x", ir.tensor(module.right.weight.detach().numpy()))
    one = initializer(builder.main, "val_5", ir.tensor(np.ones(1, np.float32)))
    builder.op("Neg", x)  # that nobody reads
    y = builder.op("Add", builder.op("MatMul", x, w), builder.op("MatMul", x, twice))
    z = builder.op("Mul", builder.op("Add", y, one), builder.op("ReduceSum", kept, keepdims=0))
    y.metadata_props["made"] = "by hand"
    made = graph([x], builder, [z])
    made.opset_imports["unused"] = 1
    clean_up(ir.Model(made, ir_version=10), module)
    assert made.name == "Two" and list(made.opset_imports) == [""] and "Neg" not in [node.op_type for node in made]
    assert sorted(made.initializers) == ["const/x", "left.weight.T", "val_4", "val_5"]
    assert not x.metadata_props and not y.metadata_props


def test_numbers_that_are_asked_for_are_an_input_and_an_output_more() -> None:
    builder = Builder("m", main_graph())
    x = value("x", "batch", "time", 4)
    y, state = builder.op("Neg", x), builder.op("Abs", x)
    y.name, y.type, y.shape, state.name = "y", FLOAT, ir.Shape(["batch", "time", 4]), "h"
    made = graph([x], builder, [y, state])
    assert add_gather_output(made, {"h"}) == GatherOutput("y", "y.at", "y.pick")
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    at = np.array([[[0, 3], [1, 1], [2, 0]]] * 2)
    found = run(made, **{"x": a, "y.at": at})
    np.testing.assert_array_equal(found[2], np.take_along_axis(-a, at, 2))
    assert [str(v.name) for v in made.outputs] == ["y", "h", "y.pick"]
    assert refused(lambda: add_gather_output(made, {"h"})) == "pick=True needs a module with one output, this one has 2"
    for shape in (("batch", "time", "n"), ("batch", 4), ("time", "batch", 4)):
        other = Builder("m", main_graph())
        z = other.op("Neg", value("x", *shape))
        z.name, z.shape = "z", ir.Shape(shape)
        with_z = graph([], other, [z])
        assert refused(lambda g=with_z: add_gather_output(g, set())) == (  # type: ignore[misc]
            f"pick=True needs an output ['batch', 'time', size], 'z' is {list(shape)}"
        )


def test_three_gates_of_one_kind_are_worth_merging_and_two_are_not() -> None:
    builder = Builder("m", main_graph())
    x = value("x", 2, 8)
    a, b, c, d = builder.ops("Split", [x, builder.constant([1, 2, 2, 3])], 4, axis=1)
    sigmoids = [builder.op("Sigmoid", part) for part in (c, a, b)]
    builder.op("Tanh", d)
    found = find_merged_gates(builder.nodes)
    assert list(found) == [v.producer() for v in sigmoids]
    (merged,) = {id(m): m for m in found.values()}.values()
    assert merged.source is x and merged.part == ((0, 5),) and merged.first is sigmoids[0].producer()
    assert merged.ordered == [sigmoids[i].producer() for i in (1, 2, 0)]
    assert [merged.nodes[v.producer()] for v in sigmoids] == [(3, 5), (0, 1), (1, 3)]  # type: ignore[index]
    builder.op("Neg", a)  # now the gate of a is not its only reader
    assert find_merged_gates(builder.nodes) == {}
    assert find_merged_gates([v.producer() for v in sigmoids]) == {}, "the Split is not among them"  # type: ignore[misc]
