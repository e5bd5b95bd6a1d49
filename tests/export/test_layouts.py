"""What nodes say about batch, time and the steps that they take or leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from rnncore.export.lowering.layouts import Layout, cut_at_end, first_steps, free_axes, numbers_of, sizes_of, steps_more

LAST = np.iinfo(np.int64).max


def value(*shape: int | str | None) -> ir.Value:
    return ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def constant(entries: Any) -> ir.Value:
    tensor = ir.tensor(np.array(entries, np.int64), name="c")
    return ir.Value(name="c", const_value=tensor, shape=ir.Shape(tensor.shape), type=ir.TensorType(ir.DataType.INT64))


def sliced(x: ir.Value, shape: list[int | str], *arguments: ir.Value | None) -> ir.Value:
    node = ir.Node("", "Slice", [x, *arguments])
    node.outputs[0].shape = ir.Shape(shape)
    return node.outputs[0]


def test_where_batch_and_time_are() -> None:
    found = Layout.of(value("batch", 4, "time + 2"))
    assert found == Layout(("batch", 4, "time + 2"), 0, 2)
    assert found.shape(7) == ("batch", 4, 7) and found.item(7) == (4, 7)
    assert Layout.of(value("time", "batch", 4)) == Layout(("time", "batch", 4), 1, 0)
    assert Layout.of(value("time", "batch", 4)).item(3) == (3, 4)  # type: ignore[union-attr]
    for other in (value("batch", 4), value("time", 4), value("batch", "time", "width"), value("batch", "times"), None):
        assert Layout.of(other) is None
    assert Layout.of(ir.Value(name="x")) is None


def test_sizes_and_free_axes() -> None:
    assert sizes_of(value("batch", 3, None)) == ("batch", 3, "None") and sizes_of(None) == sizes_of(ir.Value()) == ()
    assert free_axes(("batch", 3, "None")) == [0, 2]


@pytest.mark.parametrize(
    ("size", "more"),
    [
        ("time", 0),
        ("time + 3", 3),
        ("time - 2", -2),
        ("2*time", None),
        ("batch", None),
        (5, None),
        ("time + 3*k", None),
    ],
)
def test_how_many_steps_more_a_value_has(size: int | str, more: int | None) -> None:
    assert steps_more(value("batch", size), 1) == more
    assert steps_more(value("batch", size), 2) is None and steps_more(None, 0) is None


def test_numbers_of_inputs() -> None:
    node = ir.Node("", "Slice", [value("batch", "time"), constant([2, 3])])
    assert numbers_of(node, 1) == [2, 3] and numbers_of(node, 0) is None and numbers_of(node, 2) is None


def test_what_is_cut_at_the_end() -> None:
    x, longer = value("batch", "time", 4), value("batch", "time + 2", 4)
    start, axis = constant([0]), constant([1])
    assert cut_at_end(sliced(x, ["batch", "time - 1", 4], start, constant([-1]), axis), 1) == (x, 1)
    assert cut_at_end(sliced(x, ["batch", "time - 3", 4], start, constant([-3]), axis, constant([1])), 1) == (x, 3)
    by_size = sliced(longer, ["batch", "time", 4], start, value(1), axis)
    assert cut_at_end(by_size, 1) == (longer, 2)
    assert cut_at_end(sliced(x, ["batch", "time + 1", 4], start, value(1), axis), 1) is None
    assert cut_at_end(sliced(x, ["batch", "2*time", 4], start, value(1), axis), 1) is None
    assert cut_at_end(sliced(x, ["batch", "time", 4], start, value(1), axis), 1) is None
    for arguments in (
        (start, constant([5]), axis),  # the first steps
        (constant([1]), constant([-1]), axis),  # not from the first
        (start, constant([-1]), constant([2])),  # of another axis
        (start, constant([-1]), value(1)),
        (start, constant([-1]), axis, constant([2])),
        (start, constant([-1])),
    ):
        assert cut_at_end(sliced(x, ["batch", "time - 1", 4], *arguments), 1) is None
    assert cut_at_end(x, 1) is None and cut_at_end(ir.Node("", "Relu", [x]).outputs[0], 1) is None


def test_what_the_first_steps_are() -> None:
    x, longer = value("batch", "time", 4), value("batch", "time + 2", 4)
    start, axis = constant([0]), constant([1])
    for count in (1, 2, (1 << 31) - 1):
        assert first_steps(sliced(x, ["batch", count, 4], start, constant([count]), axis)) == (x, 1, count)
    for arguments in (
        (start, constant([-2]), axis),
        (start, constant([0]), axis),
        (start, constant([LAST]), axis),
        (start, constant([1 << 31]), axis),
        (constant([1]), constant([2]), axis),
        (start, constant([2]), constant([2])),
        (start, constant([2]), axis, constant([2])),
        (start, value(1), axis),
        (start, constant([2])),
    ):
        assert first_steps(sliced(x, ["batch", 2, 4], *arguments)) is None
    assert first_steps(sliced(longer, ["batch", 2, 4], start, constant([2]), axis)) is None
    assert first_steps(None) is None and first_steps(x) is None

    def gathered(source: ir.Value, index: ir.Value, axis: int | None) -> ir.Value:
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        return ir.Node("", "Gather", [source, index], attributes).outputs[0]

    for index in (constant(0), constant([0])):
        assert first_steps(gathered(x, index, 1)) == first_steps(gathered(x, index, -2)) == (x, 1, 1)
    assert first_steps(gathered(value("time", "batch"), constant(0), None)) is not None
    for other in (gathered(x, constant(1), 1), gathered(x, constant(0), 2), gathered(x, constant([0, 0]), 1)):
        assert first_steps(other) is None
    assert first_steps(gathered(x, value(1), 1)) is None
