"""Limits on length, and numbers that are none: both concern one stream only."""

from __future__ import annotations

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import BOUND, model, sequence
from tests.runtime.files import Spec, causal_file
from tests.service.alone import alone, assert_same

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
