"""What leads from a layer's input to what its loop reads, as long as it treats every row and step alike."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.projection import Projection
from tests.export.small_graphs import model, run
from tests.export.test_graph_parts import graph, main_graph, value

HEAD = "x[batch,time,4], h[batch,time,6] -> o[batch,time,6]\n"
WEIGHTS = "m[4,6] = Expand(#2.0, {4, 6})\n"
PRODUCT = f"{WEIGHTS} p[batch,time,6] = MatMul(x, m)\n"
V6 = "{1.0, 2.0, 3.0, 4.0, 5.0, 6.0}"

ALIKE = {
    "a product": f"{WEIGHTS} z[batch,time,6] = MatMul(x, m)",
    "and more": f"{PRODUCT} q[batch,time,6] = Add(p, {V6})\n z[batch,time,6] = Tanh(q)",
    "by one number": f"{PRODUCT} z[batch,time,6] = Mul(p, #2.0)",
    "with an input left out": f"{PRODUCT} z[batch,time,6] = Clip(p, , #2.0)",
    "a norm": f"{PRODUCT} k[6] = Expand(#1.0, {{6}})\n z[batch,time,6] = LayerNormalization(p, k, k)",
    "a norm, by its axis": f"{PRODUCT} k[6] = Expand(#1.0, {{6}})\n z[batch,time,6] = LayerNormalization<axis = 2>(p, k, k)",
    "shares": f"{PRODUCT} z[batch,time,6] = Softmax(p)",
    "logarithms of shares": f"{PRODUCT} z[batch,time,6] = LogSoftmax<axis = -1>(p)",
    "side by side": f"{PRODUCT} z[batch,time,12] = Concat<axis = -1>(p, p)",
    "of itself": "z[batch,time,4] = Mul(x, x)",
}
NOT_ALIKE = {
    "itself": "z[batch,time,4] = Identity(x)",
    "another input": f"{PRODUCT} z[batch,time,6] = Add(p, h)",
    "of weights alone": "k[6] = Expand(#1.0, {6})\n z[batch,time,6] = Neg(k)",
    "sums over time": f"{PRODUCT} z[batch,time,6] = CumSum(p, #1)",
    "shares over time": f"{PRODUCT} z[batch,time,6] = Softmax<axis = 1>(p)",
    "put behind": f"{PRODUCT} z[batch,time,6] = Concat<axis = 1>(p, p)",
    "a norm over time": f"{PRODUCT} k[1,6] = Expand(#1.0, {{1, 6}})\n z[batch,time,6] = LayerNormalization<axis = 1>(p, k, k)",
    "a weight for each step": f"{PRODUCT} k[5,6] = Expand(#1.0, {{5, 6}})\n z[batch,time,6] = Add(p, k)",
    "matrices for each row": "m[2,4,6] = Expand(#1.0, {2, 4, 6})\n z[batch,time,6] = MatMul(x, m)",
    "from the left": "m[5,5] = Expand(#1.0, {5, 5})\n z[batch,time,4] = MatMul(m, x)",
    "by itself": "z[batch,time,time] = MatMul(x, x)",
    "by others": f"{PRODUCT} z[batch,time,6] = other.Neg(p)",
}


def between(text: str) -> Projection | None:
    made = model(f"{HEAD}{text}\n o = Identity(h)")
    for node in list(made.graph):  # weights that are computed of constants, as constants
        if node.op_type == "Expand" and all(v is not None and v.const_value is not None for v in node.inputs):
            shape = [int(size) for size in node.outputs[0].shape]  # type: ignore[union-attr]
            number = node.inputs[0].const_value.numpy()  # type: ignore[union-attr]
            held = initializer(made.graph, f"{node.outputs[0].name}.w", ir.tensor(np.full(shape, number)))
            node.outputs[0].replace_all_uses_with(held)
            made.graph.remove(node, safe=True)
    z = next(v for node in made.graph for v in node.outputs if v.name == "z")
    x = made.graph.inputs[0]
    return Projection.between(x, x if "Identity" in text else z)


@pytest.mark.parametrize("kind", ALIKE)
def test_what_treats_every_step_alike(kind: str) -> None:
    found = between(ALIKE[kind])
    assert found is not None and str(found.z.name) == "z" and str(found.x.name) == "x"
    assert [node.outputs[0].name for node in found.nodes][-1] == "z"
    assert all(node.op_type != "Expand" for node in found.nodes)
    assert all(v.const_value is not None for v in found.constants)


@pytest.mark.parametrize("kind", NOT_ALIKE)
def test_what_may_look_at_other_steps(kind: str) -> None:
    assert between(NOT_ALIKE[kind]) is None


@pytest.mark.parametrize(("count", "found"), [(99, True), (105, False), (3000, False)])
def test_a_whole_network_is_no_projection(count: int, found: bool) -> None:
    """However deep it is: Python calls itself a thousand times at most."""
    steps = [f"n{i + 1}[batch,time,4] = Neg(n{i})" for i in range(count)]
    text = "n0[batch,time,4] = Abs(x)\n" + "\n".join(steps[:-1]) + f"\n z[batch,time,4] = Neg(n{count - 1})"
    assert (between(text) is not None) == found


def test_an_input_whose_shape_nobody_knows() -> None:
    builder = Builder("m", main_graph())
    x = ir.Value(name="x")
    assert Projection.between(x, builder.op("Neg", x)) is None
    builder.main.inputs.append(known := value("k", "batch", "time", 4))
    replaced = initializer(builder.main, "w", ir.tensor(np.ones(4, np.float32)))
    assert Projection.between(known, builder.op("Add", known, replaced)) is not None
    builder.main.inputs.append(replaced)
    assert Projection.between(known, builder.op("Add", known, replaced)) is None, "a caller may replace the weight"


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("parts", [[], [((0, 2),), ((2, 6),)], [((4, 6),), ((0, 4),)], [((0, 1), (3, 6)), ((1, 3),)]])
def test_it_is_written_for_another_input_of_any_rank_and_by_parts(
    parts: list[tuple[tuple[int, int], ...]], copy: bool
) -> None:
    random = np.random.default_rng(0)
    matrix, bias = (random.integers(-5, 6, shape).astype(np.float32) for shape in ((4, 6), (6,)))
    builder = Builder("m", main_graph())
    x = value("x", "batch", "time", 4)
    w, b = (initializer(builder.main, name, ir.tensor(one)) for name, one in (("w", matrix), ("b", bias)))
    product = builder.op("MatMul", x, w)
    z = builder.op("Add", product, b)
    for one in (product, z):
        one.type, one.shape = x.type, ir.Shape(["batch", "time", 6])
    found = Projection.between(x, z)
    assert found is not None
    rows = value("rows", "n", 4)
    made = found.emit(builder, rows, parts, copy=copy)
    assert len(made) == max(1, len(parts))
    main = graph([rows], builder, [])
    main.remove(list(main)[:2])  # as it was, which reads another input
    main.outputs.extend(made)
    for one in made:
        one.type = x.type
    given = random.integers(-5, 6, (5, 4)).astype(np.float32)
    whole = given @ matrix + bias
    for have, part in zip(run(ir.Model(main, ir_version=10), rows=given), parts or [((0, 6),)], strict=True):
        np.testing.assert_array_equal(have, np.concatenate([whole[:, a:b] for a, b in part], 1))
