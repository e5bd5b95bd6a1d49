"""Where batch and time lie, in our graphs and in those of others: packed, split, folded, called chunk by chunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rnncore.runtime import TensorSpec
from rnncore.runtime.format.axes import Flat, Steps
from rnncore.runtime.format.signature import StateSpec
from rnncore.runtime.tensors.graph_adapter import Context, GraphAdapter, GraphPort, GraphState
from rnncore.runtime.tensors.outputs import one_or_all
from rnncore.runtime.tensors.padding import free_axes_problem, pack, split
from rnncore.runtime.tensors.specs import Slot, StateSlot
from tests.runtime.small_layouts import IDS, SPEAKER, TIME_MAJOR, X, Y, layout, x


def test_slots_know_their_axes() -> None:
    slot = Slot.of(TIME_MAJOR)
    assert (slot.batch_axis, slot.time_axis, slot.item_shape, slot.item_time_axis) == (1, 0, ("time", 2), 0)
    assert str(slot) == "z float32[time, batch, 2]" and slot.fixed and slot.ragged and slot.counts_steps
    assert slot.rows(x(3, 4, 2)).shape == (4, 3, 2) and slot.full_shape(4, 3) == (3, 4, 2)
    late = Slot.of(TensorSpec("w", "float32", ("batch", 5, "time")))
    assert (late.item_time_axis, late.item_full_shape(3)) == (1, (5, 3))
    assert late.item_row(x(5, 3)).shape == (3, 5) and late.item_from_row(x(3, 5)).shape == (5, 3)
    timeless = Slot.of(TensorSpec("s", "float32", (3, "batch")))
    assert timeless.rows(x(3, 4)).shape == (4, 3) and not timeless.ragged and not timeless.counts_steps
    assert [
        Slot.of(replace(IDS, limit=high, minimum=low)).blank for low, high in ((1, 9), (-5, -2), (None, 9), (-3, 9))
    ] == [1, -3, 0, 0]
    half = Slot.of(TensorSpec("h", "float32", ("batch", Steps("time", 1, 1, 2), 2)))
    assert (half.steps(5), half.each_steps(np.array([0, 5])).tolist(), half.counts_steps) == (3, [0, 3], False)
    assert Slot.of(SPEAKER).steps(7) == 7 and Slot.of(X).each_steps(np.array([4])).tolist() == [4]
    open_slot = Slot.of(TensorSpec("x", "float32", ("batch", "time", "width")), names=frozenset({"width"}))
    assert open_slot.named == ((1, "width"),) and not open_slot.fixed and open_slot.full_shape(2, 3) == (2, 3, 0)


def test_two_axes_as_one_are_folded_and_unfolded() -> None:
    flat = Slot.of(TensorSpec("y", "float32", (Flat(("batch", "time")), 4)))
    assert (flat.flat, flat.fixed, flat.shape) == (0, False, ("batch", "time", 4))
    whole = flat.unfolded(x(6, 4), 2, 3)
    assert whole.shape == (2, 3, 4) and np.array_equal(flat.folded(whole), x(6, 4))
    assert flat.holds(x(6, 4), 2, 3) and not flat.holds(x(6, 4), 2, 2) and not flat.holds(x(2, 3, 4), 2, 3)
    plain = Slot.of(X)
    assert plain.unfolded(whole, 2, 3) is plain.folded(whole) is whole
    assert (
        plain.holds(x(2, 3, 2), 2, 3)
        and not plain.holds(x(2, 4, 2), 2, 3)
        and not plain.holds(x(1, 3, 2), 2, 3)
        and not plain.holds(x(6, 2), 2, 3)
    )
    assert Slot.of(SPEAKER).holds(x(2, 3), 9, 9)


def test_layouts_say_what_kind_of_model_it_is() -> None:
    state = StateSpec("h", "h_out", "float32", 6, None, (2, "batch", 3))
    strided = layout(X, TensorSpec("s", "float32", ("batch", 3)), states=(state,), causal=True, stride=3)
    assert [slot.name for slot in strided.states] == ["h", "x.rest", "x.rest.steps"] and strided.graph_states == 1
    rest, count = strided.states[1:]
    assert (rest.item_shape, rest.size, rest.dtype, count.size, count.dtype) == ((2, 2), 4, np.float32, 1, np.int64)
    assert (strided.plain, strided.stride, strided.timed, strided.fixed) == (False, 3, True, True)
    simple = layout(X, states=(StateSpec("h", "h_out", "float32", 6),), causal=True)
    assert simple.plain and simple.binds(5) and simple.timeless_outputs == () and simple.lengths is None
    last = layout(
        X, outputs=(TensorSpec("q", "float32", ("batch", 4)), Y), lengths=TensorSpec("n", "int64", ("batch",))
    )
    assert last.timeless_outputs == ("q",) and last.lengths == "n"
    assert not layout(TensorSpec("x", "float32", ("batch", "time", "width"))).binds(1)
    assert one_or_all(last, [1, 2]) == {"q": 1, "y": 2} and one_or_all(simple, [1]) == 1
    slot = StateSlot.of(state)
    rows = x(2, 6)
    assert slot.to_graph(rows).shape == (2, 2, 3) and np.array_equal(slot.from_graph(slot.to_graph(rows)), rows)
    np.testing.assert_array_equal(slot.to_graph(rows)[:, 1], rows[1].reshape(2, 3))
    assert slot.view_of_one(x(1, 6)).shape == (2, 1, 3)
    bare = StateSlot.of(StateSpec("h", "h_out", "float32", 6))
    assert bare.to_graph(rows) is bare.from_graph(rows) is bare.view_of_one(rows) is rows


def test_items_are_packed_and_split_in_any_order_of_axes() -> None:
    for spec in (
        X,
        TIME_MAJOR,
        TensorSpec("w", "float32", ("batch", 2, "time")),
        TensorSpec("w", "float32", (2, "time", "batch")),
    ):
        slot = Slot.of(spec)
        items = [slot.item_from_row(x(n, 2) + 1 + n) for n in (3, 1, 0)]
        whole = pack(slot, items, 4)
        assert whole.shape == slot.full_shape(3, 4) and whole.dtype == np.float32
        rows = slot.rows(whole)
        for row, item in zip(rows, items, strict=True):
            own = slot.item_row(item)
            np.testing.assert_array_equal(row[: len(own)], own)
            assert not row[len(own) :].any()
        for found, item in zip(split(slot, whole, [3, 1, 0]), items, strict=True):
            np.testing.assert_array_equal(found, item)
            assert not np.shares_memory(found, whole)
        (alone,) = split(slot, pack(slot, items[:1], 3), [3])
        np.testing.assert_array_equal(alone, items[0])
    ids = Slot.of(IDS)
    assert pack(ids, [np.array([5, 6]), np.array([7])], 3).tolist() == [[5, 6, 1], [7, 1, 1]]
    assert pack(ids, [np.array([5])], 1).tolist() == [[5]] and pack(ids, [np.array([5])], 2).tolist() == [[5, 1]]
    assert pack(Slot.of(SPEAKER), [x(3), x(3)], 9).shape == (2, 3)
    assert pack(Slot.of(TensorSpec("n", "float32", ("batch",))), [x(), x()], 9).shape == (2,)
    free = Slot.of(TensorSpec("x", "float32", ("batch", "time", "width")))
    assert free_axes_problem(free, [x(3, 2), x(1, 2)]) is free_axes_problem(Slot.of(X), [x(3, 2), x(1, 4)]) is None
    assert (
        free_axes_problem(free, [x(3, 4), x(1, 2)])
        == "items of input 'x' differ in an axis other than time: [(2,), (4,)]"
    )


def test_a_graph_of_others_has_its_axes_anywhere() -> None:
    rows = x(2, 3, 4)
    for dims, batch, time, shape in (
        (("batch", "time", 4), 0, 1, (2, 3, 4)),
        (("time", "batch", 4), 1, 0, (3, 2, 4)),
        ((4, "time", "batch"), 2, 1, (4, 3, 2)),
        (("batch", 4, "time"), 0, 2, (2, 4, 3)),
    ):
        port = GraphPort("x", dims, batch, time)
        value = port.to_graph(rows)
        assert value.shape == shape and value.flags.c_contiguous
        np.testing.assert_array_equal(port.from_graph(value), rows)
    alone = GraphPort("x", ("time", 4), None, 0)
    assert alone.to_graph(rows[:1]).shape == (3, 4) and alone.from_graph(x(3, 4)).shape == (1, 3, 4)
    assert GraphPort("x", (1, "batch", "time", 4), 1, 2).plain and GraphPort("x", ("time", "batch", 4), 1, 0).plain
    assert (
        not GraphPort("x", (4, "time", "batch"), 2, 1).plain and not GraphPort("x", ("batch", "time", "w"), 0, 1).plain
    )
    assert GraphPort("x", (1, "batch", "time", 4), 1, 2).shape_of_one(7) == (1, 1, 7, 4)


def test_a_graph_that_takes_chunks_is_called_step_by_step_with_what_came_before() -> None:
    """y of each step is the sum over the last sample of the step before and the two of this one, plus the state."""
    adapter = GraphAdapter(
        inputs=(GraphPort("x", (1, 3), 0),),
        outputs=(GraphPort("y", (1,), 0),),
        states=(GraphState(GraphPort("h", (1, 1, 1), 1), "h_out", (1, 1)),),
        contexts=(Context("x", "x.before", 1),),
        constants={"rate": np.array(5)},
        timed=frozenset({"x"}),
        chunks={"x": 2},
        chunked=True,
        alone=True,
    )

    def run(names: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert (
            names == ["y", "h_out"]
            and feeds["rate"] == 5
            and feeds["x"].shape == (1, 3)
            and feeds["h"].shape == (1, 1, 1)
        )
        return {"y": feeds["x"].sum(1) + feeds["h"].ravel(), "h_out": feeds["h"] + 1}

    chunks = x(2, 3, 2)
    states = {"h": np.array([[10.0], [20.0]]), "x.before": np.array([[100.0], [200.0]])}
    found = adapter.call(run, {"x": chunks}, states, 2, 3)
    wanted = [[100 + 0 + 1 + 10, 1 + 2 + 3 + 11, 3 + 4 + 5 + 12], [200 + 6 + 7 + 20, 7 + 8 + 9 + 21, 9 + 10 + 11 + 22]]
    assert found["y"].tolist() == wanted
    assert found["h_out"].tolist() == [[13], [23]] and found["x.before"].tolist() == [[5], [11]]
    assert adapter.binds(1) and not adapter.binds(2)
    assert (
        adapter.with_context("x", x(1, 1, 2)).shape == (1, 3) and adapter.with_context("z", states["h"]) is states["h"]
    )
    assert adapter.bound({"y": x(1)}, 1)["y"].shape == (1,)
    assert [view.shape for view in adapter.bound_states([x(1, 1), x(1, 1)])] == [(1, 1, 1)]
