"""Streams as Hypothesis uses them; what they must answer is the reference over each stream's whole input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from rnncore import runtime
from tests.runtime.data import BOUND, arguments, model, named, sequence
from tests.runtime.files import Spec, reference


class Tracked:
    """A stream, and everything that was ever pushed to it since its start."""

    def __init__(self, stream: runtime.Stream, history: np.ndarray, speaker: np.ndarray) -> None:
        self.stream = stream
        self.history = history
        self.speaker = speaker


class Streams(RuleBasedStateMachine):
    spec = Spec()
    streams: Bundle[Tracked] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(47)
        self.open: list[Tracked] = []

    def steps(self, n: int) -> int:
        """A timeless output of a file without a lengths input has no answer to a chunk without steps."""
        return n if self.spec.lengths or not self.spec.last else max(n, 1)

    def chunk(self, tracked: Tracked, n: int) -> tuple[np.ndarray, ...]:
        return arguments(self.spec, sequence(self.spec, self.rng, self.steps(n)), tracked.speaker)

    def answered(self, tracked: Tracked, chunk: np.ndarray, output: Any) -> None:
        tracked.history = np.concatenate([tracked.history, chunk])
        wanted = reference(self.spec, tracked.history, tracked.speaker)
        output = named(self.spec, output)
        np.testing.assert_allclose(output["y"], wanted["y"][len(tracked.history) - len(chunk) :], **BOUND)
        if self.spec.last:
            np.testing.assert_allclose(output["last"], wanted["last"], **BOUND)

    def fresh(self, stream: runtime.Stream) -> Tracked:
        tracked = Tracked(stream, sequence(self.spec, self.rng, 0), self.rng.standard_normal(3).astype("f"))
        self.open.append(tracked)
        return tracked

    @rule(target=streams)
    def open_one(self) -> Tracked:
        return self.fresh(model(self.spec).stream())

    @rule(target=streams)
    def open_two(self) -> Any:
        return multiple(*(self.fresh(model(self.spec).stream()) for _ in range(2)))

    @rule(tracked=streams, n=st.integers(0, 4))
    def push(self, tracked: Tracked, n: int) -> None:
        chunk = self.chunk(tracked, n)
        self.answered(tracked, chunk[0], tracked.stream.push(*chunk))

    @rule(tracked=streams)
    def push_one_step(self, tracked: Tracked) -> None:
        chunk = self.chunk(tracked, 1)
        self.answered(tracked, chunk[0], tracked.stream.push(*chunk))

    @rule(chosen=st.lists(streams, min_size=1, max_size=5, unique_by=id), data=st.data())
    def push_many(self, chosen: list[Tracked], data: st.DataObject) -> None:
        chunks = [self.chunk(tracked, data.draw(st.integers(0, 4))) for tracked in chosen]
        outputs = model(self.spec).push_many(
            [tracked.stream for tracked in chosen], chunks if self.spec.speaker else [chunk[0] for chunk in chunks]
        )
        for tracked, chunk, output in zip(chosen, chunks, outputs, strict=True):
            self.answered(tracked, chunk[0], output)

    @rule(tracked=streams, n=st.integers(1, 4))
    def push_something_wrong(self, tracked: Tracked, n: int) -> None:
        wrong: Any = [99] * n if self.spec.ids else np.ones((n, 14), "f")
        with pytest.raises(runtime.InputError):
            tracked.stream.push(*arguments(self.spec, wrong, tracked.speaker))

    @rule(chosen=st.lists(streams, min_size=2, max_size=4, unique_by=id), n=st.integers(1, 3))
    def push_many_with_one_wrong(self, chosen: list[Tracked], n: int) -> None:
        chunks = [self.chunk(tracked, n) for tracked in chosen]
        wrong: Any = [99] * (n + 1) if self.spec.ids else np.ones((n, 14), "f")
        chunks[-1] = arguments(self.spec, wrong, chosen[-1].speaker)
        with pytest.raises(runtime.InputError):
            model(self.spec).push_many(
                [tracked.stream for tracked in chosen], chunks if self.spec.speaker else [chunk[0] for chunk in chunks]
            )

    @rule(target=streams, tracked=streams)
    def fork(self, tracked: Tracked) -> Tracked:
        twin = Tracked(tracked.stream.fork(), tracked.history, tracked.speaker)
        self.open.append(twin)
        return twin

    @rule(tracked=streams)
    def reset(self, tracked: Tracked) -> None:
        tracked.stream.reset()
        tracked.history = tracked.history[:0]

    @rule(source=streams, target_=streams)
    def copy_state(self, source: Tracked, target_: Tracked) -> None:
        target_.stream.set_state(source.stream.state, steps=source.stream.steps)
        target_.history, target_.speaker = source.history, source.speaker

    @rule(tracked=consumes(streams))
    def close(self, tracked: Tracked) -> None:
        tracked.stream.close()
        self.open.remove(tracked)
        with pytest.raises(runtime.StateError, match="closed"):
            tracked.stream.push(*self.chunk(tracked, 1))

    @invariant()
    def steps_are_counted(self) -> None:
        assert all(tracked.stream.steps == len(tracked.history) for tracked in self.open)

    def teardown(self) -> None:
        for tracked in self.open:
            tracked.stream.close()


def machine(chosen: Spec) -> Any:
    class Chosen(Streams):
        spec = chosen

    case = Chosen.TestCase
    case.settings = settings(stateful_step_count=25)
    return case


TestPlain = machine(Spec())
TestLengths = machine(Spec(lengths=True, learned=True, last=True, speaker=True))
TestTokens = machine(Spec(ids=True, learned=True, limit=True))
TestTimeless = machine(Spec(ids=True, lengths=True, last=True))
TestTimeMajor = machine(Spec(last=True, time_major=True))
TestOpenWidthWithoutLengths = machine(Spec(learned=True, open_width=True))
TestOpenWidth = machine(Spec(lengths=True, time_major=True, speaker=True, open_width=True))
