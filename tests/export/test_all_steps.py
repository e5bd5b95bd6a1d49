"""All steps at once give what each of them gives by itself, and no two axes are made one where nothing asks for it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.all_steps import AllSteps
from rnncore.export.lowering.steps import StepGraph
from tests.export.small_graphs import model as written
from tests.export.test_graph_parts import run
from tests.tolerances import fixed

FLAT = {
    "tanh": "{v}[batch,6] = Tanh({u})",
    "a weight": "{v}[batch,6] = Add({u}, w)",
    "a weight with an axis of 1": "{v}[batch,6] = Mul(w1, {u})",
    "a product": "{v}[batch,6] = MatMul({u}, m)",
    "a Gemm": "{v}[batch,6] = Gemm({u}, m, w)",
    "parts": "{v}a[batch,2], {v}b[batch,4] = Split<axis=1>({u}, {{2, 4}})\n{v}[batch,6] = Concat<axis=-1>({v}b, {v}a)",
    "a part": "{v}a[batch,5] = Slice({u}, {{1}}, {{6}}, {{1}})\n{v}[batch,6] = Pad({v}a, {{0, 0, 0, 1}})",
    "two parts": "{v}a[batch,2] = Slice({u}, {{1}}, {{6}}, {{1}}, {{3}})\n{v}b[batch,4] = Slice({u}, {{-4}}, {{6}}, {{-1}})\n"
    "{v}[batch,6] = Concat<axis=1>({v}a, {v}b)",
    "compared": "{v}c:b[batch,6] = Less({u}, w)\n{v}[batch,6] = Where({v}c, {u}, w)",
    "probabilities": "{v}[batch,6] = Softmax<axis=1>({u})",
    "a mean": "{v}m[batch,1] = ReduceMean<keepdims=1>({u}, {{-1}})\n{v}[batch,6] = Sub({u}, {v}m)",
    "a mean by its place": "{v}m[batch,1] = ReduceMean<keepdims=1>({u}, {{1}})\n{v}[batch,6] = Sub({u}, {v}m)",
    "normed": "{v}[batch,6] = LayerNormalization({u}, w)",
    "spread": "{v}o[batch,6,1] = Unsqueeze({u}, {{2}})\n{v}e[batch,6,3] = Expand({v}o, {{1, 6, 3}})\n"
    "{v}[batch,6] = ReduceMax<keepdims=0>({v}e, {{2}})",
    "heads": "{v}h[batch,2,3] = Reshape({u}, {{-1, 2, 3}})\n{v}t[batch,3,2] = Transpose<perm=[0, 2, 1]>({v}h)\n"
    "{v}[batch,6] = Reshape({v}t, {{0, 6}})",
    "an outer product": "{v}o[batch,6,1] = Unsqueeze({u}, {{2}})\n{v}p[batch,1,6] = Unsqueeze({u}, {{1}})\n"
    "{v}q[batch,6,6] = Mul({v}o, {v}p)\n{v}[batch,6] = ReduceSum<keepdims=0>({v}q, {{-1}})",
    "a product of two": "{v}o[batch,6,1] = Unsqueeze({u}, {{2}})\n{v}p[batch,2,3] = Reshape({u}, {{0, 2, 3}})\n"
    "{v}t[batch,3,2] = Transpose<perm=[0, 2, 1]>({v}p)\n{v}q[batch,2,2] = MatMul({v}p, {v}t)\n"
    "{v}f[batch,4] = Reshape({v}q, {{0, 4}})\n{v}g[batch,2] = Slice({v}f, {{2}}, {{4}}, {{-1}})\n"
    "{v}[batch,6] = Concat<axis=1>({v}f, {v}g)",
}
NEEDS_ROWS = ["a Gemm", "a part"]  # for its Pad


def step_of(kinds: list[str]) -> tuple[ir.Graph, StepGraph, dict[str, np.ndarray]]:
    """A step that does these things one after the other, as a graph and as the exporter has it, and its weights."""
    names = ["z", *(f"v{k}" for k in range(1, len(kinds))), "y"]
    lines = [FLAT[kind].format(u=u, v=v) for kind, u, v in zip(kinds, names, names[1:], strict=False)]
    graph = written("\n".join(["z[batch,6], w[6], w1[1,6], m[6,6] -> y[batch,6]", *lines])).graph
    z, *weights = graph.inputs
    drawn = np.random.default_rng(len(kinds))
    given = {str(v.name): drawn.normal(size=v.shape.numpy()).astype(np.float32) for v in weights if v.shape is not None}
    for value in weights:
        graph.inputs.remove(value)
        value.const_value = ir.tensor(given[str(value.name)], name=value.name)
        graph.register_initializer(value)
    return graph, StepGraph("cell", [z], list(graph.outputs), [], list(graph), 1), given


def over_time(step: StepGraph, *, parts: bool) -> ir.Graph:
    """A graph of the step for all steps of z [batch, time, 6] at once; ``parts``: which is put together of two."""
    main = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="main")
    builder = Builder("all", main)
    sizes = [2, 4] if parts else [6]
    inputs = [builder.input("z", ir.DataType.FLOAT, ("batch", "time", size)) for size in sizes]
    z = inputs[0]
    if parts:
        z = builder.op("Concat", *inputs, axis=2)
        z.type, z.shape = inputs[0].type, ir.Shape(["batch", "time", 6])
    values = AllSteps(builder, step, {}, z)
    values.write(step.nodes)
    y = values.over_time(step.outputs[0])
    y.type = inputs[0].type
    main.inputs.extend(inputs)
    main.extend(builder.nodes)
    main.outputs.append(y)
    return main


@given(kinds=st.lists(st.sampled_from(list(FLAT)), min_size=1, max_size=5), parts=st.booleans())
def test_all_steps_give_what_each_gives(kinds: list[str], parts: bool) -> None:
    graph, step, _ = step_of(kinds)
    made = over_time(step, parts=parts)
    z = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
    (rows,) = run(graph, z=z.reshape(6, 6))
    cut = [z[..., :2], z[..., 2:]] if parts else [z]
    (found,) = run(made, **{str(value.name): part for value, part in zip(made.inputs, cut, strict=True)})
    np.testing.assert_allclose(
        found.transpose(1, 0, 2).reshape(6, 6), rows, rtol=fixed("float32"), atol=fixed("float32")
    )


@pytest.mark.parametrize("kind", list(FLAT))
def test_axes_are_folded_where_a_node_asks_for_it_only(kind: str) -> None:
    _, step, _ = step_of([kind])
    made = over_time(step, parts=False)
    asked = [node for node in made if node.op_type == "Shape"]
    assert bool(asked) == (kind in NEEDS_ROWS)


def test_what_was_put_together_is_read_apart() -> None:
    _, step, _ = step_of(["parts"])
    kinds = [node.op_type for node in over_time(step, parts=True)]
    assert "Split" not in kinds and kinds.count("Transpose") == 2
