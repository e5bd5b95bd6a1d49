"""Streams: any chunking equals the whole, and misuse is told apart from bad input."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnncore import runtime
from tests.runtime.data import BOUND, arguments, model, named, sequence, voice
from tests.runtime.files import (
    ALL,
    FEATURES,
    IDS,
    Spec,
    causal_file,
    counting_file,
    initial,
    not_causal_file,
    reference,
)

PLAIN, TOKENS, BOTH = Spec(), Spec(ids=True), Spec(lengths=True, learned=True, last=True, speaker=True)
CHUNKS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@pytest.mark.parametrize("spec", ALL, ids=str)
@given(chunks=CHUNKS, seed=st.integers(0, 2**32))
def test_any_chunking_equals_the_whole(spec: Spec, chunks: list[int], seed: int) -> None:
    assume(spec.lengths or not spec.last or 0 not in chunks)
    rng = np.random.default_rng(seed)
    whole, speaker = sequence(spec, rng, sum(chunks)), voice(rng)
    wanted = reference(spec, whole, speaker)
    with model(spec).stream() as stream:
        outputs = []
        at = 0
        for n in chunks:
            outputs.append(named(spec, stream.push(*arguments(spec, whole[at : at + n], speaker))))
            at += n
            assert stream.steps == at
        for output, n in zip(outputs, chunks, strict=True):
            assert output["y"].shape == (n, 11)
            assert output["y"].dtype == np.float32
        np.testing.assert_allclose(np.concatenate([o["y"] for o in outputs]), wanted["y"], **BOUND)
        if spec.last:
            np.testing.assert_allclose(outputs[-1]["last"], wanted["last"], **BOUND)


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_push_of_one_step_at_a_time_equals_run_bit_by_bit(spec: Spec) -> None:
    rng = np.random.default_rng(17)
    whole, speaker = sequence(spec, rng, 19), voice(rng)
    with model(spec).stream() as one, model(spec).stream() as other:
        for t in range(19):
            a = named(spec, one.push(*arguments(spec, whole[t : t + 1], speaker)))
            b = named(
                spec,
                model(spec).push_many([other], [arguments(spec, whole[t : t + 1], speaker)])[0]
                if spec.speaker
                else model(spec).push_many([other], [whole[t : t + 1]])[0],
            )
            for name in a:
                assert np.array_equal(a[name], b[name])
        for name, value in one.state.items():
            assert np.array_equal(value, other.state[name])


def test_tokens_as_lists_and_chunks_by_name() -> None:
    with model(TOKENS).stream() as a, model(TOKENS).stream() as b:
        assert np.array_equal(a.push([3, 1, 4]), b.push(ids=np.array([3, 1, 4], "i4")))
        assert np.array_equal(a.push([1]), b.push((1,)))
        assert a.push([]).shape == (0, 11)
        with pytest.raises(
            runtime.InputError, match=re.escape("has shape [], the model expects [time]: add a time axis")
        ):
            a.push(5)


def test_results_are_the_callers_own() -> None:
    rng = np.random.default_rng(19)
    for n in (1, 3):
        with model(PLAIN).stream() as stream:
            chunk = sequence(PLAIN, rng, n)
            stream.push(chunk)
            first = stream.push(chunk)
            kept = first.copy()
            chunk[:] = 7
            stream.push(chunk)
            stream.push(chunk)
            assert np.array_equal(first, kept)
            assert first.base is None and first.flags.writeable
            state = stream.state
            state["c"][:] = 9
            assert not np.array_equal(stream.state["c"], state["c"])


def test_chunks_that_need_a_conversion() -> None:
    rng = np.random.default_rng(23)
    for n in (1, 3):
        chunk = sequence(PLAIN, rng, n)
        strided = np.repeat(chunk, 2, axis=1)[:, ::2]
        with model(PLAIN).stream() as warm:
            warm.push(chunk)
            for other in (
                chunk.astype("f8"),
                chunk.tolist(),
                strided,
                np.asfortranarray(chunk),
                chunk.view(np.recarray),
            ):
                warm.reset()
                with model(PLAIN).stream() as fresh:
                    assert np.array_equal(warm.push(other), fresh.push(chunk))


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_fork_reset_and_set_state(spec: Spec) -> None:
    rng = np.random.default_rng(29)
    speaker = voice(rng)
    a, b, c = (arguments(spec, sequence(spec, rng, n), speaker) for n in (4, 1, 3))
    with model(spec).stream() as stream:
        c0, h0 = initial(spec)
        assert np.array_equal(stream.state["c"], c0) and np.array_equal(stream.state["h"], h0)
        first = named(spec, stream.push(*a))["y"]
        saved = stream.state
        twin = stream.fork()
        assert twin.steps == stream.steps == 4
        wanted = named(spec, stream.push(*b))["y"]
        stream.push(*c)
        assert np.array_equal(named(spec, twin.push(*b))["y"], wanted)
        twin.close()
        stream.set_state(saved, steps=4)
        assert stream.steps == 4
        assert np.array_equal(named(spec, stream.push(*b))["y"], wanted)
        stream.reset()
        assert stream.steps == 0
        assert np.array_equal(stream.state["c"], c0) and np.array_equal(stream.state["h"], h0)
        assert np.array_equal(named(spec, stream.push(*a))["y"], first)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    rng = np.random.default_rng(31)
    with model(PLAIN).stream() as stream:
        stream.push(sequence(PLAIN, rng, 3))
        before = stream.state
        wrong: dict[str, Any] = {"c": np.zeros(6, "f"), "d": np.zeros(5, "f")}
        with pytest.raises(runtime.StateError) as caught:
            stream.set_state(wrong)
        for line in (
            "state 'h' is missing",
            "there is no state 'd', expected c, h",
            "state 'c' has shape [6], the model expects [7]",
        ):
            assert line in str(caught.value)
        for value in (before | {"h": np.zeros(5, int)}, before | {"h": "hello"}, [1, 2], None):
            with pytest.raises(runtime.StateError):
                stream.set_state(value)  # type: ignore[arg-type]
        after = stream.state
        assert all(np.array_equal(before[name], after[name]) for name in before)


BAD_CHUNKS = {
    "width": (PLAIN, (np.ones((1, 14), "f"),), "input 'x' has 14 features, the model expects 13"),
    "batch axis": (
        PLAIN,
        (np.ones((1, 1, 13), "f"),),
        "expects [time, 13]: hand in one sequence, without a batch axis",
    ),
    "one frame": (PLAIN, (np.ones(13, "f"),), "has shape [13], the model expects [time, 13]: add a time axis, x[None]"),
    "dtype": (PLAIN, (np.ones((1, 13), int),), "has dtype int64, the model expects floating-point"),
    "order": (PLAIN, (np.ones((1, 13), ">f4"),), "in foreign byte order"),
    "too few": (PLAIN, (), "input 'x' is missing"),
    "too many": (PLAIN, (1, 2), "2 inputs given, expected x"),
    "id": (TOKENS, ([99],), "holds the id 99, the model's table ends at 16"),
    "late id": (TOKENS, ([1, 2, 99],), "holds the id 99, the model's table ends at 16"),
    "limit": (Spec(ids=True, learned=True, limit=True), (np.array([-1]),), "holds the id -1 at [0], the model knows 0"),
    "two inputs": (
        BOTH,
        (np.ones((2, 13), "f"), np.ones(4, "f")),
        "input 'speaker' has shape [4], the model expects [3]",
    ),
    "no steps": (
        Spec(last=True, time_major=True),
        (np.ones((0, 13), "f"),),
        "sequence 0 has no steps, but output 'last'",
    ),
}


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("case", BAD_CHUNKS)
def test_a_failed_push_leaves_the_state_as_it_was(case: str, warm: bool, capfd: pytest.CaptureFixture[str]) -> None:
    spec, chunk, message = BAD_CHUNKS[case]
    rng = np.random.default_rng(37)
    speaker = voice(rng)
    good = [arguments(spec, sequence(spec, rng, 1), speaker) for _ in range(4)]
    with model(spec).stream() as stream, model(spec).stream() as untroubled:
        for args in good[:2] if warm else good[:0]:
            stream.push(*args)
            untroubled.push(*args)
        for _ in range(2):
            with pytest.raises(runtime.InputError, match=re.escape(message)):
                stream.push(*chunk)
        assert stream.steps == untroubled.steps
        for args in good[2:]:
            a, b = named(spec, stream.push(*args)), named(spec, untroubled.push(*args))
            assert all(np.array_equal(a[name], b[name]) for name in a)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_is_not_causal_says_why() -> None:
    with pytest.raises(
        runtime.NotStreamableError, match=r"layer 'encoder\.rnn' reads its input backwards; use model\.run"
    ):
        runtime.load(not_causal_file()).stream()


def test_a_closed_stream_says_so() -> None:
    stream = model(PLAIN).stream()
    assert repr(stream) == "<Stream at step 0>"
    stream.close()
    stream.close()
    assert stream.closed and repr(stream) == "<Stream closed>"
    uses = (
        lambda: stream.push(np.ones((1, FEATURES), "f")),
        stream.fork,
        stream.reset,
        lambda: stream.state,
        lambda: stream.set_state({}),
        lambda: model(PLAIN).push_many([stream], [np.ones((1, FEATURES), "f")]),
    )
    for use in uses:
        with pytest.raises(runtime.StateError, match="closed"):
            use()


class Gate:
    """An input whose conversion waits: holds a push in the middle for as long as a test needs."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value
        self.entered, self.opened = threading.Event(), threading.Event()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.entered.set()
        assert self.opened.wait(30)
        return self.value


def test_two_callers_at_once_are_told_apart() -> None:
    rng = np.random.default_rng(41)
    chunk = sequence(PLAIN, rng, 3)
    gate = Gate(chunk)
    with model(PLAIN).stream() as stream, model(PLAIN).stream() as other:
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(stream.push(gate)))
        thread.start()
        assert gate.entered.wait(30)
        uses = (
            lambda: stream.push(chunk),
            stream.fork,
            stream.reset,
            stream.close,
            lambda: stream.state,
            lambda: stream.set_state({}),
            lambda: model(PLAIN).push_many([other, stream], [chunk, chunk]),
        )
        for use in uses:
            with pytest.raises(runtime.StreamBusyError, match="in use by another caller"):
                use()
        assert other.steps == 0
        gate.opened.set()
        thread.join()
        assert np.array_equal(results[0], other.push(chunk))
        assert stream.steps == 3


def test_streams_of_one_model_in_many_threads() -> None:
    rng = np.random.default_rng(43)
    whole = [sequence(PLAIN, rng, 60) for _ in range(4)]
    answers: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        with model(PLAIN).stream() as stream:
            answers[k] = np.concatenate([stream.push(whole[k][t : t + k + 1]) for t in range(0, 60, k + 1)])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        np.testing.assert_allclose(answers[k], reference(PLAIN, whole[k])["y"], **BOUND)


@pytest.mark.parametrize("spec", ALL, ids=str)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_push_many_is_push_of_each(spec: Spec, lengths: list[int], seed: int) -> None:
    assume(spec.lengths or not spec.last or 0 not in lengths)
    rng = np.random.default_rng(seed)
    alone, together = ([model(spec).stream() for _ in lengths] for _ in range(2))
    for _ in range(2):
        args = [arguments(spec, sequence(spec, rng, n), voice(rng)) for n in lengths]
        wanted = [named(spec, stream.push(*arg)) for stream, arg in zip(alone, args, strict=True)]
        outputs = model(spec).push_many(together, args if spec.speaker else [arg[0] for arg in args])
        for output, want in zip(outputs, wanted, strict=True):
            for name in want:
                assert named(spec, output)[name].shape == want[name].shape
                assert named(spec, output)[name].base is None
                np.testing.assert_allclose(named(spec, output)[name], want[name], **BOUND)
    for a, b in zip(alone, together, strict=True):
        assert a.steps == b.steps
        for name, value in a.state.items():
            np.testing.assert_allclose(b.state[name], value, **BOUND)


@pytest.mark.parametrize("with_lengths", [False, True])
def test_push_many_is_all_or_nothing(with_lengths: bool) -> None:
    spec = Spec(ids=True, lengths=with_lengths, last=with_lengths)
    streams = [model(spec).stream() for _ in range(3)]
    for stream, n in zip(streams, (2, 3, 5), strict=True):
        stream.push(list(range(n)))
    before = [(stream.steps, stream.state) for stream in streams]
    stranger = model(PLAIN).stream()
    good = [1, 2]
    failures: list[tuple[type[Exception], str, list[Any], list[Any]]] = [
        (runtime.InputError, "table ends at 16", streams, [good, [1], [1, 2, 99]]),
        (runtime.InputError, "chunk 1 has dtype float64", streams, [good, np.ones(2), good]),
        (
            runtime.InputError,
            "chunk 2: 2 problems:\n  - there is no input 'x', expected ids",
            streams,
            [good, good, {"x": good}],
        ),
        (runtime.InputError, "3 streams but 2 chunks", streams, [good, good]),
        (runtime.InputError, "streams is a list_iterator, expected a list", iter(streams), [good] * 3),
        (runtime.InputError, "chunks is a set, expected a list", streams, {1, 2, 3}),
        (runtime.InputError, "list of streams is empty", [], []),
        (runtime.InputError, r"streams\[2\] is streams\[0\] again", [streams[0], streams[1], streams[0]], [good] * 3),
        (runtime.InputError, r"streams\[1\] is a int, expected a Stream", [streams[0], 3], [good] * 2),
        (runtime.StateError, r"streams\[1\] belongs to another model", [streams[0], stranger], [good] * 2),
    ]
    for error, message, some, chunks in failures:
        with pytest.raises(error, match=message):
            model(spec).push_many(some, chunks)
        for stream, (steps, state) in zip(streams, before, strict=True):
            assert stream.steps == steps
            assert all(np.array_equal(stream.state[name], state[name]) for name in state)
    assert len(model(spec).push_many(streams, [good, {"ids": good}, [IDS - 1]])) == 3


@pytest.mark.parametrize("place", range(3))
def test_ids_of_every_chunk_are_checked(place: int) -> None:
    """Arrays all alike take the short way of reading."""
    limited = model(Spec(ids=True, learned=True, limit=True))
    streams = [limited.stream() for _ in range(3)]
    for wrong in (IDS, -1):
        chunks = [np.array([IDS - 1]) for _ in streams]
        chunks[place] = np.array([wrong])
        with pytest.raises(runtime.InputError, match=rf"chunk {place}.*holds the id {wrong}"):
            limited.push_many(streams, chunks)
        assert [stream.steps for stream in streams] == [0, 0, 0]


def test_push_many_without_any_step() -> None:
    streams = [model(PLAIN).stream() for _ in range(2)]
    nothing = np.zeros((0, FEATURES), "f")
    assert [y.shape for y in model(PLAIN).push_many(streams, [nothing, nothing])] == [(0, 11)] * 2
    with pytest.raises(runtime.InputError, match="sequence 1 has no steps"):
        timeless = Spec(last=True, time_major=True)
        many = [model(timeless).stream() for _ in range(2)]
        model(timeless).push_many(many, [np.ones((1, FEATURES), "f"), nothing])


def test_the_file_is_told_exactly_how_many_steps_are_valid() -> None:
    counting = runtime.load(counting_file())
    chunks = [np.ones((n, FEATURES), "f") for n in (1, 3, 0, 1, 5)]
    with counting.stream() as stream:
        assert [int(stream.push(chunk)["count"][0]) for chunk in chunks] == [1, 3, 0, 1, 5]
    streams = [counting.stream() for _ in chunks]
    assert [int(out["count"][0]) for out in counting.push_many(streams, chunks)] == [1, 3, 0, 1, 5]
    assert counting.run(chunks)["count"].tolist() == [[1], [3], [0], [1], [5]]
    assert counting.run(np.ones((2, 3, FEATURES), "f"))["count"].tolist() == [[3], [3]]
    assert counting.run(np.ones((2, 3, FEATURES), "f"), lengths=[2, 0])["count"].tolist() == [[2], [0]]


def test_a_chunk_without_steps_moves_no_stream_even_if_the_file_has_to_be_asked_for_its_width() -> None:
    spec = Spec(learned=True, open_width=True)
    rng = np.random.default_rng(53)
    still, moving = model(spec).stream(), model(spec).stream()
    before = still.state
    outputs = model(spec).push_many([still, moving], [sequence(spec, rng, 0), sequence(spec, rng, 2)])
    assert [y.shape for y in outputs] == [(0, 11), (2, 11)]
    assert still.push(sequence(spec, rng, 0)).shape == (0, 11)
    assert all(np.array_equal(still.state[name], before[name]) for name in before)
    assert (still.steps, moving.steps) == (0, 2)


def test_push_many_of_streams_whose_states_lie_in_several_blocks() -> None:
    """More streams than one block of memory holds, their states in any order; each must go on from its own."""
    rng = np.random.default_rng(59)
    fresh = runtime.load(causal_file(PLAIN))
    streams = [fresh.stream() for _ in range(600)]
    rng.shuffle(streams)  # type: ignore[arg-type]
    whole = rng.standard_normal((600, 6, FEATURES)).astype(np.float32)
    wanted = fresh.run(whole)
    at = [0] * len(streams)
    for _ in range(3):
        order = rng.permutation(600)[:500]
        fresh.push_many([streams[i] for i in order], [whole[i, at[i] : at[i] + 1] for i in order])
        for i in order:
            at[i] += 1
    for lengths in (rng.integers(1, 3, 600), [1] * 600):
        chunks = [whole[i, at[i] : at[i] + n] for i, n in enumerate(lengths)]
        for i, answer in enumerate(fresh.push_many(streams, chunks)):
            np.testing.assert_allclose(answer, wanted[i, at[i] : at[i] + lengths[i]], **BOUND)
            at[i] += int(lengths[i])
    before = [stream.state for stream in streams]
    with pytest.raises(runtime.InputError):
        fresh.push_many(streams, [*[whole[0, :1]] * 599, whole[0, :1, :3]])
    for i in (0, 255, 256, 257, 599):
        assert all(np.array_equal(streams[i].state[name], before[i][name]) for name in before[i])


NO_COUNTS = ["12", -1, 1.0, 1.5, float("nan"), 2**63, 2**70, True, np.True_, np.float32(3), b"1", [1], np.array([1])]


@pytest.mark.parametrize("steps", NO_COUNTS, ids=repr)
def test_steps_are_a_count_or_the_state_stays(steps: Any) -> None:
    stream, other = model(PLAIN).stream(), model(PLAIN).stream()
    stream.push(np.ones((2, FEATURES), "f"))
    before = stream.state
    with pytest.raises(runtime.StateError, match=r"steps is .*, expected an integer from 0 to"):
        stream.set_state(other.state, steps=steps)
    assert stream.steps == 2
    assert all(np.array_equal(stream.state[name], before[name]) for name in before)


def test_a_count_that_cannot_grow_any_more_is_refused_before_the_state_moves() -> None:
    stream = model(PLAIN).stream()
    chunk = np.ones((3, FEATURES), "f")
    stream.set_state(stream.state, steps=np.int64(2**63 - 4))
    stream.push(chunk)
    before = stream.state
    for push in (
        lambda: stream.push(chunk),
        lambda: stream.push(chunk[:1]),
        lambda: model(PLAIN).push_many([stream], [chunk]),
    ):
        with pytest.raises(runtime.StateError, match=r"set_state\(stream.state, steps=0\)"):
            push()
        assert stream.steps == 2**63 - 1
        assert all(np.array_equal(stream.state[name], before[name]) for name in before)
    again = model(PLAIN).restore(stream.save())
    again.set_state(again.state, steps=0)
    again.push(chunk)
