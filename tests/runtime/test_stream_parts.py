"""The parts of a stream, one by one: what a chunk, a callback, a state and a holder must be, and what each refusal says."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rnncore.runtime.errors import InputError, NotStreamableError, StateError, StreamBusyError
from rnncore.runtime.session.bare_calls import bound_run_of, run_of
from rnncore.runtime.streaming.callbacks import apply_hooks
from rnncore.runtime.streaming.chunk import blank_outputs, empty_outputs, read_chunk
from rnncore.runtime.streaming.closing import Closing
from rnncore.runtime.streaming.given_state import read_state, read_steps
from rnncore.runtime.streaming.holding import Held, Holder, hold
from rnncore.runtime.streaming.snapshot import MOST_STEPS
from rnncore.runtime.streaming.state_rows import StateBlocks
from rnncore.runtime.streaming.stream import Stream, check_streamable
from tests.runtime.data import model
from tests.runtime.files import FEATURES, LAST, OUT, C, H, Spec

PLAIN, BOTH = Spec(), Spec(lengths=True, learned=True, last=True, speaker=True)
TIMELESS = Spec(last=True, time_major=True)


def engine(spec: Spec) -> Any:
    return model(spec).engine


# ------------------------------------------------------------------------------------------------------------- chunks
def test_a_chunk_is_read_into_arrays_of_its_own() -> None:
    x, voice = np.ones((4, FEATURES), "f"), np.ones(3, "f")
    items, steps = read_chunk(engine(BOTH), (x,), {"speaker": voice})
    assert steps == 4 and list(items) == ["x", "speaker"]
    assert not np.shares_memory(items["x"], x) and not np.shares_memory(items["speaker"], voice)
    np.testing.assert_array_equal(items["x"], x)
    assert read_chunk(engine(BOTH), (x[:0], voice), {})[1] == 0, "a file that takes lengths has an answer"
    assert read_chunk(engine(PLAIN), (x[:0],), {})[1] == 0


@pytest.mark.parametrize(
    ("found", "chunks", "says"),
    [
        (lambda: engine(PLAIN), (np.ones((2, 3), "f"),), r"^input 'x' has 3 features, the model expects 13$"),
        (
            lambda: engine(TIMELESS),
            (np.ones((0, FEATURES), "f"),),
            r"^sequence 0 has no steps, but output 'last' needs",
        ),
    ],
    ids=["features", "no steps"],
)
def test_a_chunk_that_cannot_be_run_is_refused(
    found: Callable[[], Any], chunks: tuple[np.ndarray, ...], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read_chunk(found(), chunks, {})


def test_chunks_without_steps_have_a_known_answer_or_none() -> None:
    (blank,) = blank_outputs(engine(PLAIN).layout)
    (empty,) = empty_outputs(engine(PLAIN).layout) or []
    for array in (blank, empty):
        assert array.shape == (0, OUT) and array.dtype == np.float32
    assert [array.shape for array in blank_outputs(engine(BOTH).layout)] == [(0, OUT), (LAST,)]
    for spec in (BOTH, TIMELESS, Spec(learned=True, open_width=True)):
        assert empty_outputs(engine(spec).layout) is None


# ---------------------------------------------------------------------------------------------------------- callbacks
def test_callbacks_may_replace_some_outputs_of_several() -> None:
    layout = engine(BOTH).layout
    y, last = np.ones((2, OUT), "f"), np.ones(LAST, "f")
    seen: list[Any] = []
    found = apply_hooks([lambda out: None, lambda out: {"last": [2, 2]}, seen.append], layout, [y, last])
    assert found[0] is y and found[1].dtype == np.float32 and list(found[1]) == [2, 2]
    assert seen[0]["y"] is y and seen[0]["last"] is found[1]
    (alone,) = apply_hooks([lambda y: y.astype("f8") + 1], engine(PLAIN).layout, [y])
    assert alone.dtype == np.float32 and (alone == 2).all()


@pytest.mark.parametrize(
    ("spec", "answer", "says"),
    [
        (BOTH, 5, "^an output callback returned a int, expected None or a dict by name$"),
        (BOTH, {"z": 1, "a": 2, "y": 3}, "^an output callback returned a, z, which are no outputs of this model$"),
        (BOTH, {"y": np.ones((1, OUT), "f")}, rf"returned float32\[1, {OUT}\] for 'y', expected float32\[2, {OUT}\]$"),
        (PLAIN, np.ones((2, OUT), "c8"), rf"^an output callback returned complex64\[2, {OUT}\] for 'y', expected "),
    ],
    ids=["no dict", "unknown", "shape", "dtype"],
)
def test_what_a_callback_may_not_return(spec: Spec, answer: Any, says: str) -> None:
    outputs = [np.ones((2, OUT), "f"), np.ones(LAST, "f")][: 2 if spec is BOTH else 1]
    with pytest.raises(InputError, match=says):
        apply_hooks([lambda out: answer], engine(spec).layout, outputs)


def test_a_callback_is_removed_once_and_alone() -> None:
    seen: list[str] = []
    with model(PLAIN).stream() as stream:
        stops = [stream.on_output(lambda y, name=name: seen.append(name)) for name in "abc"]  # type: ignore[misc]
        stream.push(np.ones((1, FEATURES), "f"))
        stops[1]()
        stops[1]()
        for steps in (1, 2):
            stream.push(np.ones((steps, FEATURES), "f"))
    assert seen == [*"abc", *"acac"]
    with pytest.raises(StateError, match=r"^the stream is closed: open a new one with model\.stream\(\)$"):
        stream.on_output(print)


# ------------------------------------------------------------------------------------------------------------- states
def test_a_state_is_read_in_the_order_of_the_signature() -> None:
    layout = engine(PLAIN).layout
    c, h = read_state(layout, {"h": np.arange(H), "c": np.arange(C, dtype="f8")} | {"h": np.arange(H, dtype="f")})
    assert c.dtype == h.dtype == np.float32 and list(c) == list(range(C)) and list(h) == list(range(H))
    for given, says in (
        ([1], "^a state is a mapping from name to array, got a list$"),
        ({"c": c}, "^state 'h' is missing$"),
        ({"c": c, "h": h, "z": h}, "^there is no state 'z', expected c, h$"),
        ({"c": c, "h": h[:2]}, r"^state 'h' has shape \[2\], the model expects \[5\]$"),
        ({"c": c[:1], "h": c}, r"^2 problems:\n  - state 'c' has shape \[1\].*\n  - state 'h' has shape \[7\]"),
    ):
        with pytest.raises(StateError, match=says):
            read_state(layout, given)  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"^there is no state 'c', expected none$"):
        read_state(replace(layout, states=()), {"c": c})


def test_a_count_of_steps_is_a_whole_number_that_fits() -> None:
    for steps in (0, np.int8(3), np.uint64(MOST_STEPS), MOST_STEPS):
        assert read_steps(steps) == int(steps) and type(read_steps(steps)) is int
    for wrong in (-1, MOST_STEPS + 1, True, np.False_, 1.0, "1"):
        with pytest.raises(
            StateError, match=rf"^steps is .*, expected an integer from 0 to {MOST_STEPS}: how many led"
        ):
            read_steps(wrong)


# ------------------------------------------------------------------------------------------------------------ holding
def a_frame() -> FrameType:
    """Of a call that has ended."""
    return sys._getframe()


def test_a_stream_is_held_by_a_call_that_goes_on() -> None:
    holder: Holder = {}
    own = sys._getframe()
    hold(holder, own)
    hold(holder, own)
    assert holder == {0: own}
    with pytest.raises(StreamBusyError, match=r"^mine$"):
        hold(holder, a_frame(), "mine")
    with pytest.raises(StreamBusyError, match=r"^the stream is in use by another caller: one stream serves one caller"):
        hold(holder, a_frame())
    assert holder == {0: own}
    ended = a_frame()
    holder[0] = ended
    hold(holder, own)
    assert holder == {0: own}, "a call that is over holds nothing"
    holder.clear()
    with Held(holder):
        assert (
            holder[0] is own or "mutmut" in holder[0].f_code.co_filename
        )  # which calls Held in place of this function
    assert holder == {}
    with pytest.raises(ZeroDivisionError), Held(holder):
        raise ZeroDivisionError
    assert holder == {}


def test_several_streams_are_held_together_or_not_at_all() -> None:
    streams = [model(PLAIN).stream() for _ in range(3)]
    chunk = np.ones((1, FEATURES), "f")
    stop = streams[1].on_output(lambda y: model(PLAIN).push_many(streams, [chunk] * 3))
    with pytest.raises(StreamBusyError, match=r"^stream 1 is in use by another caller: no stream was moved$"):
        streams[1].push(chunk)
    stop()
    model(PLAIN).push_many(streams, [chunk] * 3)
    assert [stream.steps for stream in streams] == [1, 1, 1]
    streams[2].close()
    streams[0].close()
    with pytest.raises(StateError, match=r"^2 problems:\n  - streams\[0\] is closed\n  - streams\[2\] is closed$"):
        model(PLAIN).push_many(streams, [chunk] * 3)
    streams[1].push(chunk)
    assert streams[1].steps == 2


def test_strangers_and_streams_given_twice_are_all_listed() -> None:
    own, other = model(PLAIN).stream(), model(BOTH).stream()
    chunks = [np.ones((1, FEATURES), "f")] * 4
    with pytest.raises(
        InputError, match=r"^2 problems:\n  - streams\[1\] is streams\[0\] again: join.*\n  - streams\[3\] is st"
    ):
        model(PLAIN).push_many([own, own, other, other], chunks)
    with pytest.raises(StateError, match=r"^streams\[1\] belongs to another model$"):
        model(PLAIN).push_many([own, other], chunks[:2])


# ------------------------------------------------------------------------------------------------------- life and end
def test_only_causal_models_stream_and_say_why() -> None:
    layout = engine(PLAIN).layout
    check_streamable(layout)
    for why, says in (("it looks ahead", "it looks ahead"), ("", "its answers depend on inputs that come later")):
        signature = replace(layout.signature, causal=False, not_causal_because=why)
        with pytest.raises(
            NotStreamableError, match=rf"^this model does not stream: {says}; use model\.run\(\) with whole sequences$"
        ):
            check_streamable(replace(layout, signature=signature))


def test_rows_are_given_back_once_by_close_and_by_the_collector() -> None:
    blocks = StateBlocks(engine(PLAIN).layout)
    block, row = blocks.take()
    block.release(row)
    streams = [Stream(engine(PLAIN), blocks) for _ in range(3)]
    assert len(block) == 3
    streams[0].close()
    streams[0].close()
    assert len(block) == 2
    del streams[:2]  # one closed, one not
    gc.collect()
    assert len(block) == 1 and len(set(block.free)) == len(block.free)


def test_blocks_of_rows_grow_up_to_a_limit() -> None:
    blocks = StateBlocks(engine(PLAIN).layout)
    sizes = []
    for _ in range(9):
        block, _ = blocks.take()
        sizes.append(1 + len(block.free))
        block.free.clear()
    assert sizes == [256, 512, 1024, 2048, 4096, 8192, 16384, 16384, 16384]


def test_a_stream_is_neither_pickled_nor_copied() -> None:
    with model(PLAIN).stream() as stream:
        with pytest.raises(TypeError, match=r"^a Stream cannot be pickled or copied: use save\(\) and model\.restore"):
            pickle.dumps(stream)
        stream.push(np.ones((2, FEATURES), "f"))
        assert repr(stream) == "<Stream at step 2>"
    assert repr(stream) == "<Stream closed>"


def test_what_can_be_closed_is_closed_at_the_end() -> None:
    class Door(Closing):
        shut = 0

        def close(self) -> None:
            self.shut += 1

    door = Door()
    with door as entered:
        assert entered is door and door.shut == 0
    assert door.shut == 1
    with pytest.raises(NotImplementedError):
        Closing().close()


def test_in_a_forked_child_a_stream_goes_on_with_bindings_of_its_own() -> None:
    """What the child does, without a child; its buffers were bound, its lock held by a thread that is not there."""
    chunk = np.ones((1, FEATURES), "f")
    with model(PLAIN).stream() as stream, model(PLAIN).stream() as twin:
        for one in (stream, twin):
            one.push(chunk)
            one.push(chunk)
        before = stream.save()

        def in_child(y: Any) -> None:
            stream.after_process_fork()
            assert stream.save() == before, "the last finished push counts, and nobody uses the stream"

        stop = stream.on_output(in_child)
        stream.push(chunk)
        stop()
        twin.push(chunk)
        for steps in (1, 3, 1):
            np.testing.assert_array_equal(stream.push(chunk.repeat(steps, 0)), twin.push(chunk.repeat(steps, 0)))
        assert stream.save() == twin.save()


def test_without_the_inner_call_of_onnxruntime_the_outer_one_is_taken() -> None:
    def outer(binding: object) -> None: ...

    inner = SimpleNamespace(run_with_iobinding=lambda binding, options: None)
    bare: Any = bound_run_of
    named = [SimpleNamespace(_iobinding=name) for name in ("a", "b")]
    nameless = [SimpleNamespace(), SimpleNamespace(_iobinding="b")]
    with_inner = SimpleNamespace(_sess=inner, run_with_iobinding=outer)
    without = SimpleNamespace(run_with_iobinding=outer)
    assert bare(with_inner, named) == (inner.run_with_iobinding, (("a", None), ("b", None)))
    for session, pair in ((without, named), (with_inner, nameless)):
        assert bare(session, pair) == (outer, ((pair[0],), (pair[1],)))


def test_on_other_providers_than_the_processor_onnxruntime_looks_at_a_call_first() -> None:
    def outer(names: object, feeds: object, options: object) -> None: ...

    def inner(names: object, feeds: object, options: object) -> None: ...

    def session(*providers: str, **found: Any) -> Any:
        return SimpleNamespace(run=outer, get_providers=lambda: list(providers), **found)

    there = SimpleNamespace(run=inner)
    assert run_of(session("CPUExecutionProvider", _sess=there)) is inner
    assert run_of(session("CPUExecutionProvider")) is outer
    assert run_of(session("CUDAExecutionProvider", "CPUExecutionProvider", _sess=there)) is outer


def test_a_stream_is_saved_to_a_file_as_it_is_saved(tmp_path: Path) -> None:
    with model(PLAIN).stream() as stream:
        stream.push(np.ones((2, FEATURES), "f"))
        stream.save_file(tmp_path / "s")
        assert (tmp_path / "s").read_bytes() == stream.save()
