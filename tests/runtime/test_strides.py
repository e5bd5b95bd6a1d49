"""Streams of a model that takes several steps at a stride: chunks of any size give the whole, whatever waits in between."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from rnncore.runtime import InputError, Model
from rnncore.runtime.format.axes import Axis, Steps
from rnncore.runtime.format.signature import Signature, StateSpec, TensorSpec
from tests.runtime.files import finish

F = 2
STRIDES = (2, 3, 5)


@cache
def model(stride: int) -> Model:
    """A window of ``stride`` steps of x and of k is added up, then over time: y_n = y_{n-1} + W * x[window] + k[window]."""
    node = helper.make_node
    x = TensorSpec("x", "float32", ("batch", "time", F))
    k = TensorSpec("k", "int64", ("time", "batch"))
    y = TensorSpec("y", "float32", ("batch", Steps("time", 1, 0, stride), F))
    weights = np.random.default_rng(stride).integers(-3, 4, (F, F, stride)).astype(np.float32)
    nodes = [
        node("Transpose", ["x"], ["x_last"], perm=[0, 2, 1]),
        node("Conv", ["x_last", "W"], ["z"], strides=[stride]),
        node("Cast", ["k"], ["k_float"], to=TensorProto.FLOAT),
        node("Transpose", ["k_float"], ["k_rows"], perm=[1, 0]),
        node("Unsqueeze", ["k_rows", "one"], ["k_last"]),
        node("Conv", ["k_last", "ones"], ["k_sum"], strides=[stride]),
        node("Add", ["z", "k_sum"], ["both"]),
        node("Unsqueeze", ["c", "two"], ["before"]),
        node("CumSum", ["both", "two"], ["over"]),
        node("Add", ["over", "before"], ["after"]),
        node("Transpose", ["after"], ["y"], perm=[0, 2, 1]),
        node("Gather", ["after", "last"], ["c.next"], axis=2),
    ]
    constants = {
        "W": weights,
        "ones": np.ones((1, 1, stride), np.float32),
        "one": np.array([1]),
        "two": np.array(2),
        "last": np.array(-1),
    }
    value = helper.make_tensor_value_info
    inputs = [
        value("x", TensorProto.FLOAT, ["batch", "time", F]),
        value("k", TensorProto.INT64, ["time", "batch"]),
        value("c", TensorProto.FLOAT, ["batch", F]),
    ]
    outputs = [
        value("y", TensorProto.FLOAT, ["batch", "windows", F]),
        value("c.next", TensorProto.FLOAT, ["batch", F]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph: onnx.GraphProto = helper.make_graph(nodes, "strided", inputs, outputs, tensors)
    states = (StateSpec("c", "c.next", "float32", F),)
    axes = (Axis("time", minimum=stride),)
    return runtime.load(finish(graph, Signature((x, k), (y,), states=states, causal=True, axes=axes, stride=stride)))


@cache
def alone(stride: int) -> Model:
    """y_n = y_{n-1} + the sum of a window of x, one input; and twice that, a second output."""
    node = helper.make_node
    x = TensorSpec("x", "float32", ("batch", "time", 1))
    outputs = tuple(TensorSpec(name, "float32", ("batch", Steps("time", 1, 0, stride), 1)) for name in ("y", "twice"))
    nodes = [
        node("Transpose", ["x"], ["x_last"], perm=[0, 2, 1]),
        node("Conv", ["x_last", "ones"], ["sums"], strides=[stride]),
        node("Unsqueeze", ["c", "two"], ["before"]),
        node("CumSum", ["sums", "two"], ["over"]),
        node("Add", ["over", "before"], ["after"]),
        node("Transpose", ["after"], ["y"], perm=[0, 2, 1]),
        node("Add", ["y", "y"], ["twice"]),
        node("Gather", ["after", "last"], ["c.next"], axis=2),
    ]
    constants = {"ones": np.ones((1, 1, stride), np.float32), "two": np.array(2), "last": np.array(-1)}
    value = helper.make_tensor_value_info
    graph: onnx.GraphProto = helper.make_graph(
        nodes,
        "alone",
        [value("x", TensorProto.FLOAT, ["batch", "time", 1]), value("c", TensorProto.FLOAT, ["batch", 1])],
        [
            *(value(name, TensorProto.FLOAT, ["batch", "windows", 1]) for name in ("y", "twice")),
            value("c.next", TensorProto.FLOAT, ["batch", 1]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    states = (StateSpec("c", "c.next", "float32", 1),)
    axes = (Axis("time", minimum=stride),)
    return runtime.load(finish(graph, Signature((x,), outputs, states=states, causal=True, axes=axes, stride=stride)))


@given(st.sampled_from(STRIDES), st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 99), st.booleans())
def test_one_input_and_several_outputs(stride: int, chunks: list[int], seed: int, together: bool) -> None:
    x = np.random.default_rng(seed).integers(-4, 5, (sum(chunks), 1)).astype(np.float32)
    count = len(x) // stride
    wanted = np.cumsum(x[: count * stride].reshape(count, stride).sum(1))[:, None]
    with alone(stride).stream() as stream:
        answers = [
            alone(stride).push_many([stream], [chunk])[0] if together else stream.push(chunk)
            for (chunk,) in cut(chunks, x)
        ]
        assert stream.steps == len(x)
    assert all(list(answer) == ["y", "twice"] for answer in answers)
    np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), wanted)
    np.testing.assert_array_equal(np.concatenate([answer["twice"] for answer in answers]), 2 * wanted)


def reference(stride: int, x: np.ndarray, k: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(stride).integers(-3, 4, (F, F, stride)).astype(np.float32)
    count = len(x) // stride
    rows = [
        np.einsum("ofs,sf->o", weights, x[n * stride : (n + 1) * stride]) + k[n * stride : (n + 1) * stride].sum()
        for n in range(count)
    ]
    return np.cumsum(np.reshape(rows, (count, F)), axis=0)


def drawn(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, so that every sum is exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(-4, 5, (steps, F)).astype(np.float32), rng.integers(0, 5, steps)


def cut(chunks: list[int], *arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    ends = np.cumsum(chunks)
    return [tuple(array[end - size : end] for array in arrays) for size, end in zip(chunks, ends, strict=True)]


@given(st.sampled_from(STRIDES), st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 99))
def test_chunks_give_the_whole(stride: int, chunks: list[int], seed: int) -> None:
    x, k = drawn(seed, sum(chunks))
    parts, pushed = [], 0
    with model(stride).stream() as stream:
        for size, chunk in zip(chunks, cut(chunks, x, k), strict=True):
            answer = stream.push(*chunk)
            assert answer.shape == ((pushed + size) // stride - pushed // stride, F) and answer.dtype == np.float32
            pushed += size
            assert stream.steps == pushed
            parts.append(answer)
    np.testing.assert_array_equal(np.concatenate(parts), reference(stride, x, k))
    if pushed >= stride:
        whole = pushed - pushed % stride
        np.testing.assert_array_equal(model(stride).run(x[None, :whole], k[:whole, None])[0], np.concatenate(parts))


@given(
    st.sampled_from(STRIDES),
    st.lists(st.lists(st.integers(0, 7), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_streams_pushed_together_keep_apart(stride: int, chunks: list[list[int]], seed: int) -> None:
    """Some wait, some run, some get nothing, in every mixture: each answers as if it were alone."""
    data = [drawn(seed + i, sum(sizes)) for i, sizes in enumerate(chunks)]
    streams = [model(stride).stream() for _ in chunks]
    parts: list[list[np.ndarray]] = [[] for _ in chunks]
    rounds = zip(*(cut(sizes, *arrays) for sizes, arrays in zip(chunks, data, strict=True)), strict=True)
    for number, given_now in enumerate(rounds):
        for own, answer in zip(parts, model(stride).push_many(streams, list(given_now)), strict=True):
            own.append(answer)
        assert [stream.steps for stream in streams] == [sum(sizes[: number + 1]) for sizes in chunks]
    for stream, own, arrays in zip(streams, parts, data, strict=True):
        stream.close()
        np.testing.assert_array_equal(np.concatenate(own), reference(stride, *arrays))


@given(st.sampled_from(STRIDES), st.integers(0, 11), st.integers(0, 11), st.integers(0, 99))
def test_what_waits_is_saved_restored_forked_and_reset(stride: int, first: int, then: int, seed: int) -> None:
    x, k = drawn(seed, first + then)
    (head, tail), wanted = cut([first, then], x, k), reference(stride, x, k)
    with model(stride).stream() as stream, model(stride).stream() as other:
        done = len(stream.push(*head))
        twin = stream.fork()
        restored = model(stride).restore(stream.save())
        other.push(*drawn(seed + 1, 1))
        other.set_state(stream.state, steps=stream.steps)
        for one in (stream, restored, other, twin):
            assert one.steps == first
            np.testing.assert_array_equal(one.push(*tail), wanted[done:])
        stream.reset()
        np.testing.assert_array_equal(stream.push(x, k), wanted)
        twin.close()
        restored.close()


def test_both_inputs_have_as_many_steps() -> None:
    x, k = drawn(1, 4)
    with model(3).stream() as stream:
        with pytest.raises(InputError):
            stream.push(x, k[:3])
        assert stream.steps == 0
        wanted: Any = reference(3, x, k)
        np.testing.assert_array_equal(stream.push(x, k), wanted)
