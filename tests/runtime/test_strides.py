"""Streams whose runs take several steps at a stride, or begin with some again: chunks of any size give the whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from rnncore.runtime import InputError, Model, ModelFileError
from rnncore.runtime.format.axes import Axis, Steps
from rnncore.runtime.format.limits import DEFAULT_LIMITS
from rnncore.runtime.format.metadata_limits import check_states
from rnncore.runtime.format.signature import Signature, StateSpec, TensorSpec
from rnncore.runtime.tensors.graph_contract import signature_problems
from tests.runtime.files import finish

F = 2
SHAPES = ((2, 0), (3, 0), (5, 0), (1, 1), (1, 4), (2, 1), (3, 1), (2, 5), (5, 3))
"""Strides, and steps that windows share: a window has so many more than a stride."""


@cache
def model(stride: int, overlap: int = 0) -> Model:
    """A window of stride + overlap steps of x and of k is added up, then over time: y_n = y_{n-1} + W * x[window] + k[window]."""
    node = helper.make_node
    x = TensorSpec("x", "float32", ("batch", "time", F))
    k = TensorSpec("k", "int64", ("time", "batch"))
    y = TensorSpec("y", "float32", ("batch", Steps("time", 1, -overlap, stride), F))
    weights = np.random.default_rng(stride).integers(-3, 4, (F, F, stride + overlap)).astype(np.float32)
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
        "ones": np.ones((1, 1, stride + overlap), np.float32),
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
    signature = Signature((x, k), (y,), states=states, causal=True, axes=least(stride, overlap), stride=stride)
    return runtime.load(finish(graph, replace(signature, overlap=overlap)))


def least(stride: int, overlap: int) -> tuple[Axis, ...]:
    """The limits of the time axis: a window at least."""
    return (Axis("time", minimum=stride + overlap),)


@cache
def alone(stride: int, overlap: int = 0) -> Model:
    """y_n = y_{n-1} + the sum of a window of x, one input; and twice that, a second output."""
    node = helper.make_node
    x = TensorSpec("x", "float32", ("batch", "time", 1))
    outputs = tuple(
        TensorSpec(name, "float32", ("batch", Steps("time", 1, -overlap, stride), 1)) for name in ("y", "twice")
    )
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
    constants = {"ones": np.ones((1, 1, stride + overlap), np.float32), "two": np.array(2), "last": np.array(-1)}
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
    signature = Signature((x,), outputs, states=states, causal=True, axes=least(stride, overlap), stride=stride)
    return runtime.load(finish(graph, replace(signature, overlap=overlap)))


@given(st.sampled_from(SHAPES), st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 99), st.booleans())
def test_one_input_and_several_outputs(shape: tuple[int, int], chunks: list[int], seed: int, together: bool) -> None:
    x = np.random.default_rng(seed).integers(-4, 5, (sum(chunks), 1)).astype(np.float32)
    found = alone(*shape)
    wanted = np.cumsum([own.sum() for own in windows(shape, x)], dtype=np.float32)[:, None]
    with found.stream() as stream:
        answers = [
            found.push_many([stream], [chunk])[0] if together else stream.push(chunk) for (chunk,) in cut(chunks, x)
        ]
        assert stream.steps == len(x)
    assert all(list(answer) == ["y", "twice"] for answer in answers)
    np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), wanted)
    np.testing.assert_array_equal(np.concatenate([answer["twice"] for answer in answers]), 2 * wanted)


def windows(shape: tuple[int, int], x: np.ndarray) -> list[np.ndarray]:
    stride, overlap = shape
    return [x[start : start + stride + overlap] for start in range(0, len(x) - stride - overlap + 1, stride)]


def reference(shape: tuple[int, int], x: np.ndarray, k: np.ndarray) -> np.ndarray:
    stride, overlap = shape
    weights = np.random.default_rng(stride).integers(-3, 4, (F, F, stride + overlap)).astype(np.float32)
    pairs = zip(windows(shape, x), windows(shape, k), strict=True)
    rows = [np.einsum("ofs,sf->o", weights, own) + counts.sum() for own, counts in pairs]
    return np.cumsum(np.reshape(rows, (len(rows), F)), axis=0)


def drawn(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, so that every sum is exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(-4, 5, (steps, F)).astype(np.float32), rng.integers(0, 5, steps)


def cut(chunks: list[int], *arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    ends = np.cumsum(chunks)
    return [tuple(array[end - size : end] for array in arrays) for size, end in zip(chunks, ends, strict=True)]


def answered(shape: tuple[int, int], steps: int) -> int:
    """Answers to so many steps."""
    return max(0, (steps - shape[1]) // shape[0])


@given(st.sampled_from(SHAPES), st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 99))
def test_chunks_give_the_whole(shape: tuple[int, int], chunks: list[int], seed: int) -> None:
    x, k = drawn(seed, sum(chunks))
    parts, pushed = [], 0
    with model(*shape).stream() as stream:
        for size, chunk in zip(chunks, cut(chunks, x, k), strict=True):
            answer = stream.push(*chunk)
            assert answer.shape == (answered(shape, pushed + size) - answered(shape, pushed), F)
            assert answer.dtype == np.float32
            pushed += size
            assert stream.steps == pushed
            parts.append(answer)
    np.testing.assert_array_equal(np.concatenate(parts), reference(shape, x, k))
    if pushed >= sum(shape):
        np.testing.assert_array_equal(model(*shape).run(x[None], k[:, None])[0], np.concatenate(parts))


CHUNKS_OF_SEVERAL = st.lists(st.lists(st.integers(0, 7), min_size=4, max_size=4), min_size=1, max_size=4)


@given(st.sampled_from(SHAPES), CHUNKS_OF_SEVERAL, st.integers(0, 99))
def test_streams_pushed_together_keep_apart(shape: tuple[int, int], chunks: list[list[int]], seed: int) -> None:
    """Some wait, some run, some get nothing, in every mixture: each answers as if it were alone."""
    data = [drawn(seed + i, sum(sizes)) for i, sizes in enumerate(chunks)]
    streams = [model(*shape).stream() for _ in chunks]
    parts: list[list[np.ndarray]] = [[] for _ in chunks]
    rounds = zip(*(cut(sizes, *arrays) for sizes, arrays in zip(chunks, data, strict=True)), strict=True)
    for number, given_now in enumerate(rounds):
        for own, answer in zip(parts, model(*shape).push_many(streams, list(given_now)), strict=True):
            own.append(answer)
        assert [stream.steps for stream in streams] == [sum(sizes[: number + 1]) for sizes in chunks]
    for stream, own, arrays in zip(streams, parts, data, strict=True):
        stream.close()
        np.testing.assert_array_equal(np.concatenate(own), reference(shape, *arrays))


@given(st.sampled_from(SHAPES), CHUNKS_OF_SEVERAL, st.integers(0, 99), st.integers(1, 3), st.integers(0, 3))
def test_streams_of_a_pool_come_and_go_with_what_waits(
    shape: tuple[int, int], chunks: list[list[int]], seed: int, rows: int, other: int
) -> None:
    """Pushes are queued all at once, of streams that begin one after the other; one is saved and goes on elsewhere."""
    data = [drawn(seed + i, sum(sizes)) for i, sizes in enumerate(chunks)]
    pieces = [cut(sizes, *arrays) for sizes, arrays in zip(chunks, data, strict=True)]
    parts: list[list[Any]] = [[] for _ in chunks]
    with model(*shape).pool(max_batch=rows, max_wait_ms=1) as pool:
        streams = [pool.open() for _ in chunks]
        for number in range(4 + len(chunks) - 1):
            for i, stream in enumerate(streams):
                if 0 <= number - i < 4:
                    parts[i].append(stream.submit(*pieces[i][number - i]))
        answers = [[future.result() for future in own] for own in parts]
        moved = streams[other % len(streams)]
        twin, blob = moved.fork(), moved.save()
        restored, alone = pool.restore(blob), model(*shape).restore(blob)
        more = drawn(seed + 77, sum(shape) + 2)
        whole = [np.concatenate(pair) for pair in zip(data[other % len(streams)], more, strict=True)]
        wanted = reference(shape, *whole)[len(reference(shape, *data[other % len(streams)])) :]
        for one in (moved, twin, restored, alone):
            assert one.steps == len(whole[0]) - len(more[0])
            np.testing.assert_array_equal(one.push(*more), wanted)
    for own, arrays in zip(answers, data, strict=True):
        np.testing.assert_array_equal(np.concatenate(own), reference(shape, *arrays))


def test_a_pool_shows_callbacks_only_what_has_steps() -> None:
    x, k = drawn(3, 9)
    seen: list[int] = []
    with model(2, 3).pool() as pool, pool.open() as stream:
        stream.on_output(lambda y: seen.append(len(y)))
        answers = [stream.push(*piece) for piece in cut([4, 1, 0, 1, 3], x, k)]
    assert [len(answer) for answer in answers] == [0, 1, 0, 0, 2] and seen == [1, 2]


def test_a_pool_refuses_the_chunk_that_fails_and_keeps_what_waited() -> None:
    x, k = drawn(3, 9)
    with model(2, 3).pool() as pool, pool.open() as stream:
        stream.push(x[:4], k[:4])
        with pytest.raises(InputError):
            stream.push(x[4:, :1], k[4:])
        assert stream.steps == 4
        np.testing.assert_array_equal(stream.push(x[4:], k[4:]), reference((2, 3), x, k))


@given(st.sampled_from(SHAPES), st.integers(0, 11), st.integers(0, 11), st.integers(0, 99))
def test_what_waits_is_saved_restored_forked_and_reset(
    shape: tuple[int, int], first: int, then: int, seed: int
) -> None:
    x, k = drawn(seed, first + then)
    (head, tail), wanted = cut([first, then], x, k), reference(shape, x, k)
    with model(*shape).stream() as stream, model(*shape).stream() as other:
        done = len(stream.push(*head))
        twin = stream.fork()
        restored = model(*shape).restore(stream.save())
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
        wanted: Any = reference((3, 0), x, k)
        np.testing.assert_array_equal(stream.push(x, k), wanted)


@given(st.sampled_from(SHAPES), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 99))
def test_rows_of_a_padded_batch_are_as_alone(shape: tuple[int, int], more: list[int], seed: int) -> None:
    lengths = [sum(shape) + n for n in more]
    rows = [drawn(seed + i, length) for i, length in enumerate(lengths)]
    x, k = np.zeros((len(rows), max(lengths), F), "f"), np.zeros((max(lengths), len(rows)), int)
    for i, (own, counts) in enumerate(rows):
        x[i, : len(own)], k[: len(own), i] = own, counts
    found = model(*shape).run(x, k, lengths=np.array(lengths))
    for i, arrays in enumerate(rows):
        wanted = reference(shape, *arrays)
        np.testing.assert_array_equal(found[i, : len(wanted)], wanted)
        assert not found[i, len(wanted) :].any()


def test_what_runs_share_is_for_readers_of_format_3_only() -> None:
    strided, shared = model(2).signature, model(2, 1).signature
    assert (strided.format_version, shared.format_version) == (2, 3)
    assert "overlap" not in strided.to_json() and Signature.from_json(shared.to_json()) == shared


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"overlap": -1}, "overlap is -1, expected at least 0"),
        ({"overlap": 2}, "overlap is 2 and stride 1, which fit no outputs of shape"),
        ({"overlap": 1, "stride": 2, "outputs": (TensorSpec("y", "float32", ("batch", "time")),)}, "overlap is 1 and "),
        ({"outputs": (TensorSpec("y", "float32", ("batch", 3)),)}, "overlap is 1, but an output has no time axis"),
    ],
)
def test_steps_that_fit_no_output_are_refused(changed: dict[str, Any], says: str) -> None:
    y = TensorSpec("y", "float32", ("batch", Steps("time", 1, -1)))
    known = Signature((TensorSpec("x", "float32", ("batch", "time")),), (y,), causal=True, overlap=1)
    assert signature_problems(known) == []
    assert any(problem.startswith(says) for problem in signature_problems(replace(known, **changed)))


def test_steps_that_no_memory_holds_are_refused() -> None:
    x, y = (TensorSpec("x", "float32", ("batch", "time", 4)), TensorSpec("y", "float32", ("batch", "time", 4)))
    for more in ({"stride": 1 << 40}, {"overlap": 1 << 40}):
        with pytest.raises(ModelFileError, match=r"limits\.state_numbers allows"):
            check_states(replace(Signature((x,), (y,), causal=True), **more), DEFAULT_LIMITS)
