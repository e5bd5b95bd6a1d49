"""Arithmetic on values that are spread gives the same on what they were before, and reads nothing that is spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.export.graph.dims import dims_of
from rnncore.export.lowering.simpler_steps import simplify_step
from rnncore.export.lowering.unspread import _regrouped, unspread
from tests.export.small_graphs import model as written
from tests.export.test_graph_parts import run
from tests.tolerances import fixed

CLOSE = {"rtol": fixed("float32"), "atol": fixed("float32")}


def kinds(made: ir.Graph) -> list[str]:
    needed: set[ir.Node] = set()
    todo = [value.producer() for value in made.outputs]
    while todo:
        node = todo.pop()
        if node is not None and node not in needed:
            needed.add(node)
            todo += [value.producer() for value in node.inputs if value is not None]
    return [node.op_type for node in made if node in needed]


MEMORY = """
s[batch,4,160,8], dt[batch,4,1], x[batch,4,160], k[batch,8], a[4,160,8], b[4,160] -> new[batch,4,160,8], rate[batch,4,160]
wide[batch,4,160] = Expand(dt, {1, 4, 160})
shifted[batch,4,160] = Add(wide, b)
big:b[batch,4,160] = Greater(shifted, #20.0)
soft[batch,4,160] = Softplus(shifted)
rate[batch,4,160] = Where(big, shifted, soft)
rate4[batch,4,160,1] = Unsqueeze(rate, {-1})
decay[batch,4,160,8] = Mul(rate4, a)
keep[batch,4,160,8] = Exp(decay)
k3[batch,1,1,8] = Reshape(k, {0, 1, 1, 8})
k4[batch,1,4,8] = Expand(k3, {1, 1, 4, 8})
key[batch,4,1,8] = Reshape(k4, {0, 4, 1, 8})
write[batch,4,160,8] = Mul(rate4, key)
x4[batch,4,160,1] = Unsqueeze(x, {-1})
outer[batch,4,160,8] = Mul(write, x4)
kept[batch,4,160,8] = Mul(s, keep)
new[batch,4,160,8] = Add(kept, outer)
"""


def with_constants(text: str, **values: np.ndarray) -> ir.Graph:
    """The graph of ``text``, some of its inputs constants."""
    made = written(text).graph
    for name, array in values.items():
        value = next(one for one in made.inputs if one.name == name)
        made.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        made.register_initializer(value)
    return made


@given(seed=st.integers(0, 99), rows=st.integers(1, 3), repeated=st.booleans())
def test_a_step_of_a_matrix_memory(seed: int, rows: int, repeated: bool) -> None:
    drawn = np.random.default_rng(seed)

    def normal(*sizes: int) -> np.ndarray[Any, Any]:
        return drawn.normal(size=sizes).astype(np.float32)

    a = -np.abs(np.broadcast_to(normal(4, 1, 1), (4, 160, 8)) if repeated else normal(4, 160, 8))
    b = np.broadcast_to(normal(4, 1), (4, 160))
    sizes = {"s": (rows, 4, 160, 8), "dt": (rows, 4, 1), "x": (rows, 4, 160), "k": (rows, 8)}
    inputs = {name: normal(*shape) for name, shape in sizes.items()}
    wanted = run(with_constants(MEMORY, a=np.ascontiguousarray(a), b=np.ascontiguousarray(b)), **inputs)
    made = with_constants(MEMORY, a=np.ascontiguousarray(a), b=np.ascontiguousarray(b))
    unspread(made)
    for got, old in zip(run(made, **inputs), wanted, strict=True):
        np.testing.assert_allclose(got, old, **CLOSE)
    of = {str(value.name): value for node in made for value in node.outputs}
    (keep,) = [value for value in (of["kept"].producer().inputs) if value is not None and value.name != "s"]  # type: ignore[union-attr]
    assert dims_of(keep)[1:] == ([4, 1, 1] if repeated else [4, 160, 8])


def test_what_others_read_is_spread_behind_the_arithmetic() -> None:
    made = with_constants(
        """
        x[batch,4,1], b[4,200] -> y[batch,800]
        wide[batch,4,200] = Expand(x, {1, 4, 200})
        sum[batch,4,200] = Add(wide, b)
        soft[batch,4,200] = Tanh(sum)
        y[batch,800] = Reshape(soft, {0, -1})
        """,
        b=np.repeat(np.float32([[1], [2], [3], [4]]), 200, 1),
    )
    x = np.float32([[[1], [2], [3], [4]], [[5], [6], [7], [8]]])
    wanted = run(made, x=x)[0]
    unspread(made)
    assert kinds(made) == ["Add", "Tanh", "Expand", "Reshape"]
    np.testing.assert_array_equal(run(made, x=x)[0], wanted)


@pytest.mark.parametrize(
    ("before", "now", "after", "made"),
    [
        (["b", 1, 8, 64], ["b", 1, 1, 64], ["b", 8, 1, 64], ["b", 1, 1, 64]),
        (["b", 8, 64], ["b", 8, 1], ["b", 512], None),
        (["b", 8, 64], ["b", 1, 1], ["b", 512], ["b", 1]),
        (["b", 8, 64], ["b", 1, 64], ["b", 2, 4, 64, 1], ["b", 1, 1, 64, 1]),
        (["b", 6], ["b", 1], ["b", 4], None),
        (["b", 8], ["b", 1], ["c", 8], None),
        (["b", "t"], ["b", 1], ["b", "t"], None),
    ],
)
def test_reshapes_of_what_is_spread(
    before: list[Any], now: list[Any], after: list[Any], made: list[Any] | None
) -> None:
    assert _regrouped(before, now, after) == made


CONVOLUTION = """
window[batch,12,5], w[12,1,4], c[12] -> y[batch,12,1], next[batch,12,4]
next[batch,12,4] = Slice(window, {-4}, {9223372036854775807}, {2}, {1})
all[batch,12,2] = Conv<group=12>(window, w, c)
y[batch,12,1] = Slice(all, {-1}, {9223372036854775807}, {2}, {1})
"""


@pytest.mark.parametrize("cut", [True, False])
def test_a_convolution_of_one_place_is_a_product(cut: bool) -> None:
    text = CONVOLUTION if cut else CONVOLUTION.replace("Slice(all, {-1}", "Slice(all, {0}")
    drawn = np.random.default_rng(0)
    w, c = (drawn.normal(size=sizes).astype(np.float32) for sizes in ((12, 1, 4), (12,)))
    made = with_constants(text, w=w, c=c)
    window = drawn.normal(size=(3, 12, 5)).astype(np.float32)
    wanted = run(made, window=window)
    simplify_step(made)
    assert ("Conv" in kinds(made)) != cut
    assert kinds(made).count("Slice") == (1 if cut else 2), "the next state is what the product reads"
    for got, old in zip(run(made, window=window), wanted, strict=True):
        np.testing.assert_allclose(got, old, **CLOSE)
