"""A pool as Hypothesis uses it; what its streams must answer is the reference over each stream's whole input."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from rnncore import runtime
from tests.runtime.data import model
from tests.runtime.files import Spec
from tests.runtime.machine import Machine, Tracked, case


class Pools(Machine):
    streams = Machine.streams

    @initialize(
        slice_steps=st.integers(1, 5),
        max_batch=st.integers(1, 5),
        room=st.integers(1, 4) | st.none(),
        places=st.integers(1, 3) | st.just(1024),
        workers=st.integers(1, 3),
    )
    def start(self, slice_steps: int, max_batch: int, room: int | None, places: int, workers: int) -> None:
        self.pool = model(self.spec).pool(
            slice_steps=slice_steps,
            max_batch=max_batch,
            max_streams=room,
            max_pending=places,
            on_overload="wait",
            max_wait_ms=0.2,
            workers=workers,
        )

    @rule(target=streams)
    def open_one(self) -> Tracked:
        return self.fresh(self.pool.open())

    @rule(chosen=st.lists(streams, min_size=1, max_size=6), data=st.data())
    def push_together(self, chosen: list[Tracked], data: st.DataObject) -> None:
        """Some streams several times: their pushes are pending at once and keep their order."""
        chunks = [self.chunk(tracked, data.draw(st.integers(0, 7))) for tracked in chosen]

        async def main() -> list[Any]:
            return await asyncio.gather(*(t.stream.apush(*c) for t, c in zip(chosen, chunks, strict=True)))

        for tracked, chunk, output in zip(chosen, chunks, asyncio.run(main()), strict=True):
            self.answered(tracked, chunk[0], output)

    @rule(chosen=st.lists(streams, min_size=1, max_size=4), n=st.integers(1, 5))
    def submit_together(self, chosen: list[Tracked], n: int) -> None:
        chunks = [self.chunk(tracked, n) for tracked in chosen]
        futures = [tracked.stream.submit(*chunk) for tracked, chunk in zip(chosen, chunks, strict=True)]
        for tracked, chunk, future in zip(chosen, chunks, futures, strict=True):
            self.answered(tracked, chunk[0], future.result(10))

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
    def save_and_restore(self, tracked: Tracked) -> Tracked:
        return self.track(self.pool.restore(tracked.stream.save()), tracked.history, tracked.speaker)

    @invariant()
    def everything_is_counted(self) -> None:
        if hasattr(self, "pool"):
            stats = self.pool.stats()
            assert stats["pending"] == stats["waiting"] == 0 and stats["streams"] == len(self.open)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()


TestPlain = case(Pools, Spec(learned=True), 20)
TestLengths = case(Pools, Spec(lengths=True, learned=True, last=True, speaker=True), 20)
TestTokens = case(Pools, Spec(ids=True, learned=True, lengths=True), 20)
TestTimeMajor = case(Pools, Spec(last=True, time_major=True), 20)
TestOpenWidth = case(Pools, Spec(lengths=True, time_major=True, speaker=True, open_width=True), 20)
