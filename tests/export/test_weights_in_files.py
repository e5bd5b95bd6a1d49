"""Weights as a file holds them: folded, spelled out, once for an operator and for the loop beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.portable import fold_constants, spell_out
from rnncore.export.lowering.shared_weights import share_weights
from tests.export.small_graphs import run
from tests.export.test_graph_parts import FLOAT, graph, main_graph, value
from tests.tolerances import fixed


def weight(builder: Builder, name: str, *shape: int, seed: int = 0) -> ir.Value:
    numbers = np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)
    return initializer(builder.main, name, ir.tensor(numbers, name=name))


def finished(builder: Builder, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    return ir.Model(graph(inputs, builder, outputs), ir_version=10)


def kinds(made: ir.Model) -> list[str]:
    return [node.op_type for node in made.graph]


# ------------------------------------------------------------------------------------------------------------- folding


def test_what_depends_on_weights_only_is_a_weight() -> None:
    builder = Builder("m", main_graph())
    x, w = value("x", 2, 3), weight(builder, "w", 4, 3)
    turned = builder.op("Transpose", w, perm=[1, 0])
    clipped = builder.op("Clip", turned, None, builder.constant(5.0, np.float32))
    left, right = builder.ops("Split", [clipped], 2, axis=1, num_outputs=2)
    y = builder.op("Add", builder.op("MatMul", x, left), builder.op("MatMul", x, right))
    y.shape = ir.Shape([2, 2])
    names = [str(left.name), str(right.name)]
    made = finished(builder, [x], [y])
    given = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    before = run(made, x=given)[0]
    fold_constants(made)
    onnx.checker.check_model(ir.to_proto(made))
    assert kinds(made) == ["MatMul", "MatMul", "Add"]
    assert [made.graph.initializers[name].shape for name in names] == [ir.Shape([3, 2])] * 2
    assert [made.graph.initializers[name].dtype for name in names] == [ir.DataType.FLOAT] * 2
    np.testing.assert_array_equal(run(made, x=given)[0], before)


def test_what_is_no_weight_is_computed_as_before() -> None:
    builder = Builder("m", main_graph())
    x, w = value("x", 2), weight(builder, "w", 2)
    own = weight(builder, "own", 2)
    branches = []
    for name in ("yes", "no"):
        inside = builder.nested()
        branches.append(inside.subgraph([], [inside.op("Neg", w)], name))
    kept = [
        builder.op("Neg", x),
        builder.op("RandomNormalLike", w),
        builder.op("Bernoulli", w),
        builder.op("RandomUniform", shape=[2]),
        builder.append("Neg", [w], [], 1, "other")[0],
        builder.op("If", builder.constant(True, bool), then_branch=branches[0], else_branch=branches[1]),
        builder.op("Add", w, own),  # own is an input, too: a caller may replace it
    ]
    outputs = [builder.op("Add", one, x) for one in kept] + [builder.op("Neg", w)]
    made = finished(builder, [x, own], outputs)
    before = kinds(made)
    fold_constants(made)
    assert kinds(made) == before


@pytest.mark.parametrize(("count", "folded"), [(1 << 14, True), ((1 << 14) + 1, False)])
def test_what_grows_beyond_64_kib_is_made_when_the_file_is_loaded(count: int, folded: bool) -> None:
    builder = Builder("m", main_graph())
    x = value("x", 1)
    spread = builder.op("Expand", builder.constant(2.0, np.float32), builder.constant([count]))
    made = finished(builder, [x], [builder.op("Add", spread, x)])
    fold_constants(made)
    assert (kinds(made) == ["Add"]) == folded
    large = Builder("m", main_graph())
    turned = large.op("Transpose", weight(large, "w", 150, 150), perm=[1, 0])
    model = finished(large, [x_ := value("x_", 150)], [large.op("Add", turned, x_)])
    fold_constants(model)
    assert kinds(model) == ["Add"], "as large as what it is made of, whatever the size"


def test_zeros_are_spelled_out() -> None:
    builder = Builder("m", main_graph())
    bare = builder.op("ConstantOfShape", builder.constant([2]))
    ones = builder.op("ConstantOfShape", builder.constant([2]), value=ir.tensor(np.ones(1, np.float32)))
    made = finished(builder, [], [builder.op("Neg", bare), builder.op("Neg", ones)])
    spell_out(made)
    held = [node.attributes["value"].as_tensor().numpy() for node in made.graph if node.op_type == "ConstantOfShape"]
    assert [one.tolist() for one in held] == [[0.0], [1.0]] and held[0].dtype == np.float32
    assert [one.tolist() for one in run(made)] == [[0.0, 0.0], [-1.0, -1.0]]


# -------------------------------------------------------------------------------------------------------------- sharing

HIDDEN, INPUT = 2, 3
LSTM, GRU = [2, 0, 3, 1], [1, 0, 2]


def layer(builder: Builder, kind: str, x: ir.Value, w: ir.Value, r: ir.Value) -> ir.Value:
    y = builder.ops(kind, [x, w, r], 2, hidden_size=HIDDEN)[0]
    y.type, y.shape = FLOAT, ir.Shape([4, 1, 1, HIDDEN])
    return y


def reordered(held: np.ndarray, order: Sequence[int]) -> np.ndarray:
    gates = np.split(held, len(order))
    return np.concatenate([gates[place] for place in order])[None]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("kind", "order"), [("LSTM", LSTM), ("GRU", GRU)])
def test_an_operator_takes_the_weights_of_the_loop(kind: str, order: list[int], turned: bool) -> None:
    builder = Builder("m", main_graph())
    x = value("x", 4, 1, INPUT)
    random = np.random.default_rng(1)
    held = [random.standard_normal((len(order) * HIDDEN, size)).astype(np.float32) for size in (INPUT, HIDDEN)]
    own = [
        initializer(builder.main, f"loop.{i}", ir.tensor(np.ascontiguousarray(one.T if turned else one)))
        for i, one in enumerate(held)
    ]
    w, r = (initializer(builder.main, f"op.{i}", ir.tensor(reordered(one, order))) for i, one in enumerate(held))
    read = [builder.op("ReduceSum", one, keepdims=0) for one in own]
    for one in read:
        one.shape = ir.Shape([])
    made = finished(builder, [x], [layer(builder, kind, x, w, r), *read])
    given = random.standard_normal((4, 1, INPUT)).astype(np.float32)
    before = run(made, x=given)
    share_weights(made)
    onnx.checker.check_model(ir.to_proto(made))
    assert sorted(name for name in made.graph.initializers if "const" not in name) == ["loop.0", "loop.1"]
    for have, want in zip(run(made, x=given), before, strict=True):
        np.testing.assert_allclose(have, want, atol=fixed("float32"))
    assert kinds(made).count("Transpose") == 2 * turned


def test_weights_that_differ_are_both_held() -> None:
    builder = Builder("m", main_graph())
    x = value("x", 4, 1, INPUT)
    w, r = weight(builder, "w", 1, 8, INPUT, seed=1), weight(builder, "r", 1, 8, HIDDEN, seed=2)
    nearly = np.array(w.const_value.numpy()[0])  # type: ignore[union-attr]
    nearly[7, 2] += 1
    others = [nearly, nearly[:6], nearly.T.copy(), np.zeros((8, INPUT + 1), np.float32)]
    read = [
        builder.op("ReduceSum", initializer(builder.main, f"n{i}", ir.tensor(one)), keepdims=0)
        for i, one in enumerate(others)
    ]
    made = finished(builder, [x], [layer(builder, "LSTM", x, w, r), *read])
    before = kinds(made)
    share_weights(made)
    assert kinds(made) == before and {"w", "r"} < set(made.graph.initializers)


def test_a_weight_that_others_read_as_well_stays() -> None:
    builder = Builder("m", main_graph())
    x = value("x", 4, 1, INPUT)
    w, r = weight(builder, "w", 1, 8, INPUT, seed=1), weight(builder, "r", 1, 8, HIDDEN, seed=2)
    same = initializer(builder.main, "loop", ir.tensor(np.array(w.const_value.numpy()[0])))  # type: ignore[union-attr]
    read = [builder.op("ReduceSum", one, keepdims=0) for one in (same, w)]
    inside = builder.nested()
    inner = layer(inside, "LSTM", x, w, r)
    other = builder.nested()
    copy = other.op("Identity", layer(other, "LSTM", x, w, r))
    y = builder.op(
        "If",
        builder.constant(True, bool),
        then_branch=inside.subgraph([], [inner], "yes"),
        else_branch=other.subgraph([], [copy], "no"),
    )
    made = finished(builder, [x], [y, *read])
    given = np.random.default_rng(1).standard_normal((4, 1, INPUT)).astype(np.float32)
    before = run(made, x=given)
    share_weights(made)
    assert {"w", "r", "loop"} < set(made.graph.initializers)
    inside_kinds = [node.op_type for node in ir.traversal.RecursiveGraphIterator(made.graph)]
    assert inside_kinds.count("Split") == 2 and "Split" not in kinds(made), "right before their operators"
    for have, want in zip(run(made, x=given), before, strict=True):
        np.testing.assert_allclose(have, want, atol=fixed("float32"))
