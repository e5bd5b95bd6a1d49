"""Rows of a large call on several threads: the bits of one thread, or the error of the whole call."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore import runtime
from rnncore.runtime.session import row_sharing
from rnncore.runtime.session.row_sharing import RowSharing, rows_are_independent
from rnncore.runtime.session.session import Engine
from tests.runtime.files import ALL, FEATURES, IDS, SPEAKER, Spec, causal_graph, finish, signature
from tests.runtime.interrupting import interrupted_after, interrupted_at

PROVED = {"cases": [{"kind": "whole", "batch": 2, "passed": True}, {"kind": "rows", "batch": 1, "passed": True}]}


@cache
def file(spec: Spec, independent: bool = True) -> bytes:
    return finish(causal_graph(spec), signature(spec), report=json.dumps(PROVED if independent else {"cases": []}))


@cache
def model(spec: Spec, threads: int) -> runtime.Model:
    return runtime.load(file(spec), threads=threads)


@pytest.fixture(autouse=True)
def every_call_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sharing, "_LEAST_S", 0.0)


@pytest.fixture(scope="module")
def runs() -> Iterator[list[tuple[str, int]]]:
    """Thread and rows of every run of a graph."""
    noted: list[tuple[str, int]] = []
    run = Engine._run

    def noting(engine: Engine, names: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        slot = engine.layout.inputs[0]
        noted.append((threading.current_thread().name, feeds[slot.name].shape[slot.batch_axis]))
        return run(engine, names, feeds)

    Engine._run = noting  # type: ignore[method-assign]
    yield noted
    Engine._run = run  # type: ignore[method-assign]


def batch(spec: Spec, rng: np.random.Generator, rows: int, steps: int) -> tuple[np.ndarray, ...]:
    sizes = (steps, rows) if spec.time_major else (rows, steps)
    main = rng.integers(0, IDS, sizes) if spec.ids else rng.normal(size=(*sizes, FEATURES)).astype(np.float32)
    return (main, rng.normal(size=(rows, SPEAKER)).astype(np.float32)) if spec.speaker else (main,)


def assert_same_bits(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_same_bits(found[name], wanted[name])
    elif isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            assert_same_bits(one, other)
    else:
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype
        assert found.flags.c_contiguous == wanted.flags.c_contiguous


@given(
    st.sampled_from(ALL), st.integers(1, 41), st.integers(1, 6), st.integers(2, 4), st.booleans(), st.integers(0, 99)
)
def test_the_bits_are_those_of_one_thread(
    runs: list[tuple[str, int]], spec: Spec, rows: int, steps: int, threads: int, padded: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    given = batch(spec, rng, rows, steps)
    lengths = rng.integers(spec.last, steps + 1, rows) if padded else None
    wanted = model(spec, 1).run(*given, lengths=lengths)
    runs.clear()
    assert_same_bits(model(spec, threads).run(*given, lengths=lengths), wanted)
    if lengths is None:
        parts = min(threads, max(rows // 4, 1))
        assert len(runs) == parts and sum(size for _, size in runs) == rows, runs
        assert min(size for _, size in runs) >= min(4, rows), "one row is multiplied by another kernel"
        assert sum(name.startswith("rnncore-rows") for name, _ in runs) == parts - 1, "and the caller works too"
    if not spec.time_major and not spec.speaker:
        items = [row[:n] for row, n in zip(given[0], [steps] * rows if lengths is None else lengths, strict=True)]
        assert_same_bits(model(spec, threads).run(items), model(spec, 1).run(items))


def test_streams_that_move_together() -> None:
    spec, rng = Spec(lengths=True, learned=True), np.random.default_rng(1)
    alone, shared = model(spec, 1), model(spec, 2)
    pairs = [(alone.stream(), shared.stream()) for _ in range(13)]
    for _ in range(3):
        chunks = [rng.normal(size=(int(n), FEATURES)).astype(np.float32) for n in rng.integers(1, 5, len(pairs))]
        wanted = alone.push_many([stream for stream, _ in pairs], chunks)
        assert_same_bits(shared.push_many([stream for _, stream in pairs], chunks), wanted)
    for one, other in pairs:
        assert_same_bits(other.state, one.state)


@pytest.mark.parametrize("row", [0, 11])
def test_a_part_that_fails_is_the_error_of_the_call(row: int) -> None:
    """Ids that only the graph refuses; in a part of this thread and of another, whose streams then have not moved."""
    spec = Spec(ids=True, lengths=True, last=True)
    shared, ids = model(spec, 3), np.random.default_rng(2).integers(0, IDS, (12, 5))
    wrong = ids.copy()
    wrong[row, 2] = IDS
    streams = [shared.stream() for _ in ids]
    wanted = model(spec, 1).run(ids)
    for _ in range(3):
        with pytest.raises(runtime.InputError, match=f"holds the id {IDS}"):
            shared.run(wrong)
        with pytest.raises(runtime.InputError, match=f"holds the id {IDS}"):
            shared.push_many(streams, list(wrong))
        assert {stream.steps for stream in streams} == {0}
        assert_same_bits(shared.run(ids), wanted)


def test_many_callers_at_once() -> None:
    """The helpers serve one of them, the others run whole."""
    shared, rng = model(Spec(lengths=True), 2), np.random.default_rng(3)
    xs = [rng.normal(size=(16 + i, 9, FEATURES)).astype(np.float32) for i in range(24)]
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(shared.run, xs))
    for x, y in zip(xs, found, strict=True):
        assert_same_bits(y, model(Spec(lengths=True), 1).run(x))


def test_a_time_limit_leaves_a_model_that_works() -> None:
    shared, x = model(Spec(), 2), np.random.default_rng(4).normal(size=(64, 300, FEATURES)).astype(np.float32)
    wanted, met = model(Spec(), 1).run(x), 0
    for attempt in range(12):
        met += interrupted_after(1e-4 * (attempt + 1), lambda: shared.run(x))
        assert_same_bits(shared.run(x), wanted)
    assert met, "no call was broken off"


TASKS = [lambda: 1, lambda: 2, lambda: 3]


def answer_of(sharing: RowSharing) -> list[list[int] | None]:
    """What a call gives, empty if it does not come to an end."""
    found: list[list[int] | None] = []
    thread = threading.Thread(target=lambda: found.append(sharing.run(TASKS)), daemon=True)
    thread.start()
    thread.join(60)
    return found


@pytest.mark.parametrize("started", [False, True], ids=["new", "started"])
def test_a_call_that_is_broken_off_anywhere_stops_no_other(started: bool) -> None:
    """At every single operation, of Python's own files too once the helpers are there."""
    sharing = RowSharing(3)
    for operation in itertools.count():
        if not started or sharing.run(TASKS) is None:  # there is one place that leaves it locked
            sharing = RowSharing(3)
        if started:
            assert sharing.run(TASKS) == [1, 2, 3]
        work = partial(sharing.run, TASKS)
        struck = interrupted_at(operation, work, "" if started else "rnncore.runtime")
        assert answer_of(sharing) in ([[1, 2, 3]], [None]), f"broken off at operation {operation}"
        if not struck:
            break
    assert operation > 50


def answer_in_child(x: np.ndarray, sender: Any) -> None:
    sender.send(model(Spec(), 2).run(x))


def test_a_forked_child_has_helpers_of_its_own() -> None:
    x = np.random.default_rng(5).normal(size=(20, 4, FEATURES)).astype(np.float32)
    wanted = model(Spec(), 2).run(x)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=answer_in_child, args=(x, sender))
    child.start()
    assert receiver.poll(60)
    assert_same_bits(receiver.recv(), wanted)
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("report", "independent"),
    [
        (PROVED, True),
        ({}, False),
        ({"cases": "rows"}, False),
        ({"cases": [None]}, False),
        ({"cases": [{"kind": "whole", "batch": 1, "passed": True}]}, False),
        ({"cases": [*PROVED["cases"], {"kind": "rows", "batch": 1, "passed": False}]}, False),
        ({"cases": [{"kind": "rows", "batch": 2, "passed": True}]}, False),
    ],
)
def test_only_rows_that_were_seen_to_be_independent(report: dict[str, Any], independent: bool) -> None:
    assert rows_are_independent(report) is independent


def test_a_file_that_proves_nothing_runs_whole(runs: list[tuple[str, int]]) -> None:
    unproved = runtime.load(file(Spec(), independent=False), threads=2)
    x = np.zeros((32, 3, FEATURES), np.float32)
    runs.clear()
    unproved.run(x)
    assert [size for _, size in runs] == [32]


def test_short_calls_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sharing = RowSharing(2)
    assert len(sharing.parts(8, 100)) == 1, "0.4 ms by what is supposed"
    assert len(sharing.parts(64, 100)) == 2, "a first call that looks large is cut"
    sharing.timed(6400, 64e-6)
    assert len(sharing.parts(64, 100)) == 1, "ten nanoseconds a row and step"
    assert sharing.parts(1001, 400) == [slice(0, 500), slice(500, 1001)]
    sharing.timed(6400, 640e-3)
    assert len(sharing.parts(64, 100)) == 1, "a slow call says less than a fast one"
