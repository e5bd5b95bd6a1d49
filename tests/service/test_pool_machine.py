"""A pool as Hypothesis uses it; what its streams must answer is the reference over each stream's whole input."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from rnncore import runtime
from tests.runtime.data import BOUND, arguments, model, named, sequence
from tests.runtime.files import SPEAKER, Spec, reference


class Tracked:
    """A stream, and everything that was ever pushed to it since its start."""

    def __init__(self, stream: runtime.PoolStream, history: np.ndarray, speaker: np.ndarray) -> None:
        self.stream = stream
        self.history = history
        self.speaker = speaker


class Pools(RuleBasedStateMachine):
    spec = Spec()
    streams: Bundle[Tracked] = Bundle("streams")

    @initialize(slice_steps=st.integers(1, 5), max_batch=st.integers(1, 5), room=st.integers(1, 4) | st.none())
    def start(self, slice_steps: int, max_batch: int, room: int | None) -> None:
        self.rng = np.random.default_rng(47)
        self.open: list[Tracked] = []
        self.pool = model(self.spec).pool(
            slice_steps=slice_steps, max_batch=max_batch, max_streams=room, max_wait_ms=0.2
        )

    def chunk(self, tracked: Tracked, n: int) -> tuple[np.ndarray, ...]:
        steps = n if self.spec.lengths or not self.spec.last else max(n, 1)
        return arguments(self.spec, sequence(self.spec, self.rng, steps), tracked.speaker)

    def answered(self, tracked: Tracked, chunk: np.ndarray, output: Any) -> None:
        tracked.history = np.concatenate([tracked.history, chunk])
        wanted = reference(self.spec, tracked.history, tracked.speaker)
        output = named(self.spec, output)
        np.testing.assert_allclose(output["y"], wanted["y"][len(tracked.history) - len(chunk) :], **BOUND)
        if self.spec.last:
            np.testing.assert_allclose(output["last"], wanted["last"], **BOUND)

    def track(self, stream: runtime.PoolStream, history: np.ndarray, speaker: np.ndarray) -> Tracked:
        tracked = Tracked(stream, history, speaker)
        self.open.append(tracked)
        return tracked

    @rule(target=streams)
    def open_one(self) -> Tracked:
        speaker = self.rng.standard_normal(SPEAKER).astype("f")
        return self.track(self.pool.open(), sequence(self.spec, self.rng, 0), speaker)

    @rule(tracked=streams, n=st.integers(0, 9))
    def push(self, tracked: Tracked, n: int) -> None:
        chunk = self.chunk(tracked, n)
        self.answered(tracked, chunk[0], tracked.stream.push(*chunk))

    @rule(chosen=st.lists(streams, min_size=1, max_size=6), data=st.data())
    def push_together(self, chosen: list[Tracked], data: st.DataObject) -> None:
        """Some streams several times: their pushes are pending at once and keep their order."""
        chunks = [self.chunk(tracked, data.draw(st.integers(0, 7))) for tracked in chosen]

        async def main() -> list[Any]:
            return await asyncio.gather(*(t.stream.apush(*c) for t, c in zip(chosen, chunks, strict=True)))

        for tracked, chunk, output in zip(chosen, chunks, asyncio.run(main()), strict=True):
            self.answered(tracked, chunk[0], output)

    @rule(tracked=streams, n=st.integers(1, 9), yields=st.integers(0, 3))
    def push_and_cancel(self, tracked: Tracked, n: int, yields: int) -> None:
        chunk = self.chunk(tracked, n)
        before = tracked.stream.steps

        async def main() -> Any:
            task = asyncio.ensure_future(tracked.stream.apush(*chunk))
            for _ in range(yields):
                await asyncio.sleep(0)
            task.cancel()
            return (await asyncio.gather(task, return_exceptions=True))[0]

        asyncio.run(main())
        _ = tracked.stream.state  # waits for what is still being run
        moved = tracked.stream.steps - before
        assert moved in (0, len(chunk[0])), "applied or not, never half"
        if moved:
            tracked.history = np.concatenate([tracked.history, chunk[0]])

    @rule(tracked=streams, timeout_s=st.sampled_from([0, 1e-4, 1e-3, 10]))
    def push_in_time(self, tracked: Tracked, timeout_s: float) -> None:
        chunk = self.chunk(tracked, 2)
        before = tracked.stream.steps
        try:
            output = tracked.stream.push(*chunk, timeout_s=timeout_s)
        except runtime.DeadlineExceeded:
            assert tracked.stream.steps == before
        else:
            self.answered(tracked, chunk[0], output)

    @rule(target=streams, tracked=streams)
    def fork(self, tracked: Tracked) -> Tracked:
        return self.track(tracked.stream.fork(), tracked.history, tracked.speaker)

    @rule(target=streams, tracked=streams)
    def save_and_restore(self, tracked: Tracked) -> Tracked:
        return self.track(self.pool.restore(tracked.stream.save()), tracked.history, tracked.speaker)

    @rule(tracked=streams)
    def reset(self, tracked: Tracked) -> None:
        tracked.stream.reset()
        tracked.history = tracked.history[:0]

    @rule(tracked=consumes(streams))
    def close(self, tracked: Tracked) -> None:
        tracked.stream.close()
        self.open.remove(tracked)

    @invariant()
    def everything_is_counted(self) -> None:
        if hasattr(self, "pool"):
            assert all(tracked.stream.steps == len(tracked.history) for tracked in self.open)
            stats = self.pool.stats()
            assert stats["pending"] == 0 and stats["streams"] == len(self.open)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()


def machine(chosen: Spec) -> Any:
    class Chosen(Pools):
        spec = chosen

    case = Chosen.TestCase
    case.settings = settings(stateful_step_count=20)
    return case


TestPlain = machine(Spec(learned=True))
TestLengths = machine(Spec(lengths=True, learned=True, last=True, speaker=True))
TestTokens = machine(Spec(ids=True, learned=True, lengths=True))
TestTimeMajor = machine(Spec(last=True, time_major=True))
TestOpenWidth = machine(Spec(lengths=True, time_major=True, speaker=True, open_width=True))
