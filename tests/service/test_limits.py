"""Limits on length, and numbers that are none: both concern one stream only."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.session.session import Engine
from tests.runtime.data import BOUND, arguments, model, sequence, voice
from tests.runtime.files import OUT, Spec, causal_file
from tests.service.alone import SPECS, alone, assert_same

SPEC = Spec(lengths=True, learned=True)


def test_longer_than_max_steps_is_refused_before_it_is_run() -> None:
    limited = runtime.load(causal_file(SPEC), max_steps=4)
    rng = np.random.default_rng(7)
    fits, long = sequence(SPEC, rng, 4), sequence(SPEC, rng, 5)
    stream, other = limited.stream(), limited.stream()
    message = r"5 steps.*max_steps=4"
    stream.push(fits)
    before = stream.save()
    for attempt in (
        lambda: stream.push(long),
        lambda: limited.push_many([other, stream], [fits, long]),
        lambda: limited.run(long[None]),
        lambda: limited.run(long[None], lengths=[2]),
        lambda: limited.run([fits, long]),
        lambda: list(limited.run_iter([fits, long])),
    ):
        with pytest.raises(runtime.InputError, match=message):
            attempt()
    assert stream.save() == before and other.steps == 0
    limited.run([fits, fits])
    with limited.pool() as pool:
        pooled = pool.open()
        with pytest.raises(runtime.InputError, match=message):
            pooled.push(long)
        assert pooled.steps == 0
        assert_same(pooled.push(fits), alone(SPEC, [(fits,)])[0])


def test_a_chunk_far_too_long_costs_no_memory() -> None:
    limited = runtime.load(causal_file(SPEC), max_steps=1000)
    huge = np.lib.stride_tricks.as_strided(np.zeros(13, "f"), (10**12, 13), (0, 4))
    with pytest.raises(runtime.InputError, match="max_steps=1000"):
        limited.stream().push(huge)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "10"])
def test_max_steps_is_checked(wrong: object) -> None:
    with pytest.raises(runtime.InputError, match="max_steps"):
        runtime.load(causal_file(SPEC), max_steps=wrong)  # type: ignore[arg-type]


class Runs:
    """Notes rows and steps of every run of the graph."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[tuple[int, int]] = []
        run = Engine._run

        def noted(engine: Engine, names: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            slot = engine.layout.inputs[0]
            shape = feeds[slot.name].shape
            self.sizes.append((shape[slot.batch_axis], shape[slot.time_axis or 0]))
            return run(engine, names, feeds)

        monkeypatch.setattr(Engine, "_run", noted)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_max_batch_steps_bounds_every_run_and_changes_no_answer(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    limited, free, most = runtime.load(causal_file(spec), max_batch_steps=20), model(spec), 20
    rng = np.random.default_rng(9)
    items = [(sequence(spec, rng, int(n)), voice(rng)) for n in (3, 1, 7, 5, 2, 3, 3, 1, 2, 6, 1)]
    chunks = [arguments(spec, *item) for item in items]
    wanted = [alone(spec, [chunk])[0] for chunk in chunks]
    runs = Runs(monkeypatch)

    def check(found: Sequence[Any]) -> None:
        for one, expected in zip(found, wanted, strict=True):
            assert_same(one, expected)
        assert runs.sizes and all(rows * steps <= most for rows, steps in runs.sizes), runs.sizes
        assert any(rows > 1 for rows, _ in runs.sizes) or not spec.lengths, "as large as may be"
        runs.sizes.clear()

    plain = chunks if spec.speaker else [chunk[0] for chunk in chunks]
    check(limited.push_many([limited.stream() for _ in chunks], plain))
    check(list(limited.run_iter(plain)))
    with limited.pool(max_wait_ms=20) as pool:
        streams = [pool.open() for _ in chunks]
        check([push.result() for push in [s.submit(*chunk) for s, chunk in zip(streams, chunks, strict=True)]])
    voices = (np.stack([item[1] for item in items]),) if spec.speaker else ()
    padded = np.zeros((len(items), 7, *items[0][0].shape[1:]), items[0][0].dtype)
    for row, (item, _) in zip(padded, items, strict=True):
        row[: len(item)] = item
    axes = (1, 0) if spec.time_major else (0, 1)
    arrays = (np.ascontiguousarray(np.moveaxis(padded, (0, 1), axes)), *voices)
    lengths = [len(item) for item, _ in items]
    expected = free.run(*arrays, lengths=lengths)
    runs.sizes.clear()
    found = limited.run(*arrays, lengths=lengths)
    for name in expected if isinstance(expected, dict) else [None]:
        assert_same(found if name is None else found[name], expected if name is None else expected[name])
    assert all(rows * steps <= most for rows, steps in runs.sizes)
    with pytest.raises(runtime.InputError, match=r"21 steps.*max_steps=20"):
        limited.stream().push(*arguments(spec, sequence(spec, rng, 21), voice(rng)))


def test_a_request_for_which_there_is_no_memory_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    """In a process that may take 150 MB more than it has."""
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    code = textwrap.dedent("""
        import resource
        import numpy as np
        from rnncore import runtime
        model = runtime.load("model.onnx")
        stream, small, large = model.stream(), np.ones((3, 13), "f"), np.ones((4_000_000, 13), "f")
        stream.push(small)
        before = stream.save()
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (150 << 20), -1))
        for attempt in (stream.push, lambda x: model.push_many([stream], [x]), lambda x: model.run(x[None])):
            try:
                attempt(large)
            except runtime.InputError as error:
                assert "not enough memory" in str(error), error
            else:
                raise AssertionError("it was answered")
            assert stream.save() == before
        assert np.isfinite(stream.push(small)).all()
    """)
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr


def test_max_batch_steps_is_checked() -> None:
    for wrong in (0, True, "9"):
        with pytest.raises(runtime.InputError, match="max_batch_steps"):
            runtime.load(causal_file(SPEC), max_batch_steps=wrong)  # type: ignore[arg-type]
    with pytest.raises(runtime.InputError, match="max_steps is 8, more than max_batch_steps=7"):
        runtime.load(causal_file(SPEC), max_steps=8, max_batch_steps=7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("spec", [SPEC, Spec(learned=True)], ids=str)
def test_numbers_that_are_none_stay_in_their_stream(spec: Spec, bad: float) -> None:
    rng = np.random.default_rng(8)
    count = 5
    chunks = [[sequence(spec, rng, n) for n in (2, 1, 3)] for _ in range(count)]
    chunks[2][1][:] = bad
    wanted = [alone(spec, [(chunk,) for chunk in own]) for own in chunks]
    streams = [model(spec).stream() for _ in range(count)]
    with model(spec).pool(max_batch=count, max_wait_ms=20) as pool:
        pooled = [pool.open() for _ in range(count)]
        for turn in range(3):
            now = [own[turn] for own in chunks]
            many = model(spec).push_many(streams, now)
            both = [many, together(pooled, now)]
            for answers in both:
                for i, answer in enumerate(answers):
                    np.testing.assert_allclose(answer, wanted[i][turn], **BOUND)
                    assert i == 2 or np.isfinite(answer).all()
    if not np.isfinite(bad):
        assert not np.isfinite(wanted[2][1]).all(), "the stream itself is told"


def together(streams: list[runtime.PoolStream], chunks: list[np.ndarray]) -> list[np.ndarray]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(streams)) as executor:
        return list(executor.map(lambda pair: pair[0].push(pair[1]), zip(streams, chunks, strict=True)))


def test_new_shapes_do_not_fill_the_memory(tmp_path: Path) -> None:
    """onnxruntime keeps its plans of memory; a service sees new numbers of rows and steps for as long as it runs."""
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    code = textwrap.dedent("""
        import resource
        import numpy as np
        from rnncore import runtime
        model = runtime.load("model.onnx")

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

        for _ in range(20):
            model.run(np.ones((30, 100, 13), "f"))
        before = resident()
        for rows in range(1, 31):
            for steps in range(1, 101):
                model.run(np.ones((rows, steps, 13), "f"))
        print((resident() - before) / 3000)
    """)
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 1000, "bytes for each shape"


def test_views_of_more_than_memory_holds_are_refused_by_a_pool() -> None:
    for spec in (Spec(ids=True), Spec(ids=True, learned=True, limit=True)):
        with model(spec).pool(max_wait_ms=0) as pool, pool.open() as stream:
            for chunk in (np.broadcast_to(np.int64(1), (1 << 45,)), np.broadcast_to(np.int32(1), (1 << 45,))):
                with pytest.raises(runtime.InputError, match="memory"):
                    stream.push(chunk)
            assert stream.push([1, 2]).shape == (2, OUT)


NO_DURATIONS = ["1", True, np.True_, -1, float("nan"), 10**400, [1], b"1", 1j]


@pytest.mark.parametrize("wrong", NO_DURATIONS, ids=lambda value: repr(value)[:9])
def test_what_is_no_duration_is_refused_by_name(wrong: Any) -> None:
    for name in ("max_wait_ms", "max_idle_s"):
        with pytest.raises(runtime.InputError, match=rf"^{name} is .*, expected (milliseconds|seconds)"):
            model(SPEC).pool(**{name: wrong})
    chunk = sequence(SPEC, np.random.default_rng(1), 1)
    with model(SPEC).pool(max_wait_ms=0) as pool, pool.open() as stream:
        for use in (stream.push, stream.submit):
            with pytest.raises(runtime.InputError, match=r"^timeout_s is .*, expected seconds of at least 0, or None$"):
                use(chunk, timeout_s=wrong)
        with pytest.raises(runtime.InputError, match=r"^timeout_s is "):
            pool.close(timeout_s=wrong)
        assert stream.push(chunk, timeout_s=np.float32(100)).shape == (1, OUT) and stream.steps == 1


def test_who_waits_for_ever_may_say_so() -> None:
    pool = model(SPEC).pool(max_wait_ms=np.float64(0.5), max_idle_s=np.int64(100))
    stream = pool.open()
    chunk = sequence(SPEC, np.random.default_rng(1), 1)
    for forever in (float("inf"), 1e300):
        assert stream.push(chunk, timeout_s=forever).shape == (1, OUT)
    assert pool.close(timeout_s=float("inf")) and pool.close(timeout_s=1e300)
