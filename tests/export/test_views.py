"""Views of views, arithmetic between views, products of folded axes, and what one branch reads: fewer nodes, the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.lying import drop_changes
from rnncore.export.graph.simplify import drop_unread_results, multiply_unfolded
from rnncore.export.graph.sinking import sink_into_branches
from rnncore.export.graph.unit_axes import UnitAxes
from rnncore.export.graph.views import Views, shorten_views
from tests.export.test_graph_parts import FLOAT, graph, main_graph, run, value
from tests.tolerances import fixed

LAYS = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")
LAST: list[list[int]] = [[6], [2, 3], [3, 2, 1], [1, 6], [6, 1, 1], [2, 1, 3]]


def kinds(made: ir.Graph) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(made)]


def typed(made: ir.Value, dims: Sequence[int | str]) -> ir.Value:
    made.type, made.shape = FLOAT, ir.Shape(dims)
    return made


def reshape(builder: Builder, x: ir.Value, last: Sequence[int]) -> ir.Value:
    return typed(builder.op("Reshape", x, builder.constant([0, 0, *last])), ["b", "t", *last])


def turned_ones(builder: Builder, x: ir.Value) -> ir.Value:
    """The axes of 1 go to the end."""
    dims = list(x.shape)  # type: ignore[arg-type]
    perm = [k for k, size in enumerate(dims) if size != 1] + [k for k, size in enumerate(dims) if size == 1]
    return typed(builder.op("Transpose", x, perm=perm), [dims[k] if k > 1 else "bt"[k] for k in perm])


def drawn(steps: Sequence[tuple[str, list[int]]]) -> ir.Graph:
    """x [b, t, 6] through ``steps``, and back to its own axes."""
    builder = Builder("g", main_graph())
    x = now = value("x", "b", "t", 6)
    for kind, last in steps:
        if kind == "view":
            now = reshape(builder, now, last)
        elif kind == "turn":
            now = turned_ones(builder, now)
        elif kind == "number":
            now = typed(builder.op("Mul", now, builder.constant(1.5, np.float32)), now.shape)  # type: ignore[arg-type]
        elif kind == "self":
            now = typed(builder.op("Sub", builder.op("Tanh", now), now), now.shape)  # type: ignore[arg-type]
            now.producer().inputs[0].shape = now.shape  # type: ignore[union-attr]
        else:
            row = builder.constant(np.arange(int(now.shape[-1])), np.float32)  # type: ignore[index, arg-type]
            now = typed(builder.op("Add", row, now), now.shape)  # type: ignore[arg-type]
    return graph([x], builder, [reshape(builder, now, [6])])


STEPS = st.lists(
    st.tuples(st.sampled_from(["view", "view", "turn", "number", "self", "row"]), st.sampled_from(LAST)),
    min_size=1,
    max_size=7,
)


@given(steps=STEPS, batch=st.integers(1, 3), time=st.integers(1, 4))
def test_any_chain_gives_the_same_in_no_more_nodes(steps: list[tuple[str, list[int]]], batch: int, time: int) -> None:
    x = np.random.default_rng(0).standard_normal((batch, time, 6)).astype(np.float32)
    wanted = run(drawn(steps), x=x)[0]
    made = drawn(steps)
    before = len(kinds(made))
    shorten_views(made)
    for change in (*Views.of(made), UnitAxes()):
        drop_changes(made, change)
    shorten_views(made)
    np.testing.assert_array_equal(run(made, x=x)[0], wanted)
    assert len(kinds(made)) <= before


def test_arithmetic_with_numbers_between_views_is_all_that_is_left() -> None:
    made = drawn([("view", [2, 3]), ("turn", []), ("number", []), ("self", []), ("view", [1, 6]), ("turn", [])])
    shorten_views(made)
    for change in Views.of(made):
        drop_changes(made, change)
    shorten_views(made)
    assert not set(LAYS) & set(kinds(made))


def test_a_view_whose_sizes_are_asked_for_keeps_asking_the_right_value() -> None:
    builder = Builder("g", main_graph())
    x = value("x", "b", "t", 6)
    middle = typed(builder.op("Reshape", x, builder.constant([0, -1])), ["b", "6*t"])
    made = graph([x], builder, [builder.op("Reshape", middle, builder.constant([0, 0, 1]))])  # the second size is 6 t
    shorten_views(made)
    given = np.arange(24, dtype=np.float32).reshape(2, 2, 6)
    np.testing.assert_array_equal(run(made, x=given)[0], given.reshape(2, 12, 1))


def test_a_real_turn_is_no_view() -> None:
    builder = Builder("g", main_graph())
    x = value("x", "b", "t", 6)
    other = typed(builder.op("Transpose", x, perm=[1, 0, 2]), ["t", "b", 6])
    made = graph([x], builder, [builder.op("Reshape", other, builder.constant([-1, 6]))])
    shorten_views(made)
    assert kinds(made) == ["Transpose", "Reshape"]


def folded(*, back: list[int | str], right: tuple[int | str, ...] = ("b", "t", 2, 4, 5)) -> ir.Graph:
    """q [b, t, 2, 3, 4] times k [b, t, 2, 4, 5] with steps and heads folded into one axis."""
    builder = Builder("g", main_graph())
    q, k = value("q", "b", "t", 2, 3, 4), value("k", *right)
    flat = [
        typed(builder.op("Reshape", own, builder.constant([0, -1, *sizes])), ["b", "2*t", *sizes])
        for own, sizes in ((q, [3, 4]), (k, [4, 5]))
    ]
    product = typed(builder.op("MatMul", *flat), ["b", "2*t", 3, 5])
    target = builder.constant([0, -1, *back[2:]])
    return graph([q, k], builder, [typed(builder.op("Reshape", product, target), back)])


def test_a_product_keeps_steps_and_heads_apart() -> None:
    random = np.random.default_rng(0)
    q, k = (random.standard_normal(s).astype(np.float32) for s in ((2, 3, 2, 3, 4), (2, 3, 2, 4, 5)))
    made = folded(back=["b", "t", 2, 3, 5])
    multiply_unfolded(made)
    shorten_views(made)
    assert made.outputs[0].producer().inputs[0] is made.inputs[0]  # type: ignore[union-attr]
    np.testing.assert_allclose(run(made, q=q, k=k)[0], q @ k, rtol=0, atol=fixed("float32"))


@pytest.mark.parametrize(
    "other", [{"back": ["b", "t", 2, 15]}, {"back": ["b", "t", 2, 3, 5], "right": ("b", 2, "t", 4, 5)}]
)
def test_a_product_of_other_axes_stays(other: dict[str, list[int | str]]) -> None:
    made = folded(**other)  # type: ignore[arg-type]
    multiply_unfolded(made)
    assert kinds(made) == ["Reshape", "Reshape", "MatMul", "Reshape"]


def test_what_one_branch_reads_is_put_together_there() -> None:
    builder = Builder("g", main_graph())
    x, ask = value("x", 2, 3), ir.Value(name="ask", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([1]))
    both = builder.op("Concat", x, x, axis=1)
    graphs = []
    for name, read in (("a", both), ("b", x)):
        inner = builder.nested()
        graphs.append(inner.subgraph([], [inner.op("Mul", read, read)], name))
    made = graph([x, ask], builder, builder.ops("If", [ask], 1, then_branch=graphs[0], else_branch=graphs[1]))
    sink_into_branches(made)
    assert [node.op_type for node in made] == ["If"]
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    for answer, wanted in ((True, np.concatenate([given, given], 1) ** 2), (False, given**2)):
        np.testing.assert_array_equal(run(made, x=given, ask=np.array([answer]))[0], wanted)


def test_what_others_read_too_stays() -> None:
    builder = Builder("g", main_graph())
    x, ask = value("x", 2, 3), ir.Value(name="ask", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([1]))
    both = builder.op("Concat", x, x, axis=1)
    graphs = []
    for name in "ab":
        inner = builder.nested()
        graphs.append(inner.subgraph([], [inner.op("Neg", both)], name))
    made = graph([x, ask], builder, builder.ops("If", [ask], 1, then_branch=graphs[0], else_branch=graphs[1]))
    sink_into_branches(made)
    assert [node.op_type for node in made] == ["Concat", "If"]


def test_a_body_of_a_loop_is_no_branch() -> None:
    builder = Builder("g", main_graph())
    x = value("x", 2, 3)
    both = builder.op("Concat", x, x, axis=1)
    body = builder.nested()
    state = body.input("state", ir.DataType.FLOAT, (2, 6))
    number, go_on = body.input("i", ir.DataType.INT64, ()), body.input("go", ir.DataType.BOOL, ())
    inside = body.subgraph([number, go_on, state], [body.op("Identity", go_on), body.op("Add", state, both)], "body")
    start = builder.op("Mul", both, both)
    loop = builder.op("Loop", builder.constant(3), builder.constant(True, bool), start, body=inside)
    made = graph([x], builder, [loop])
    sink_into_branches(made)
    assert next(node.op_type for node in made) == "Concat"


def test_results_that_nobody_reads_are_not_told() -> None:
    builder = Builder("g", main_graph())
    x = value("x", "b", 4)
    y, *_ = builder.ops("LayerNormalization", [x, builder.constant(np.ones(4), np.float32)], 3, axis=-1)
    made = graph([x], builder, [y])
    drop_unread_results(made)
    assert len(y.producer().outputs) == 1  # type: ignore[union-attr]
