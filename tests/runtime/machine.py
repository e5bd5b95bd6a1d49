"""What the state machines of streams and of pools have in common: every stream must answer as the reference does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rnncore import runtime
from tests.runtime.data import BOUND, arguments, named, sequence, voice
from tests.runtime.files import Spec, reference


class Tracked:
    """A stream, and everything that was ever pushed to it since its start."""

    def __init__(self, stream: Any, history: np.ndarray, speaker: np.ndarray) -> None:
        self.stream = stream
        self.history = history
        self.speaker = speaker


class Machine(RuleBasedStateMachine):
    """Rules for whatever has ``push``, ``fork``, ``reset`` and ``close``."""

    spec = Spec()
    streams: Bundle[Tracked] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(47)
        self.open: list[Tracked] = []

    def chunk(self, tracked: Tracked, n: int) -> tuple[np.ndarray, ...]:
        """A timeless output of a file without a lengths input has no answer to a chunk without steps."""
        steps = n if self.spec.lengths or not self.spec.last else max(n, 1)
        return arguments(self.spec, sequence(self.spec, self.rng, steps), tracked.speaker)

    def answered(self, tracked: Tracked, chunk: np.ndarray, output: Any) -> None:
        tracked.history = np.concatenate([tracked.history, chunk])
        wanted = reference(self.spec, tracked.history, tracked.speaker)
        output = named(self.spec, output)
        np.testing.assert_allclose(output["y"], wanted["y"][len(tracked.history) - len(chunk) :], **BOUND)
        if self.spec.last:
            np.testing.assert_allclose(output["last"], wanted["last"], **BOUND)

    def fresh(self, stream: Any) -> Tracked:
        return self.track(stream, sequence(self.spec, self.rng, 0), voice(self.rng))

    def track(self, stream: Any, history: np.ndarray, speaker: np.ndarray) -> Tracked:
        tracked = Tracked(stream, history, speaker)
        self.open.append(tracked)
        return tracked

    @rule(tracked=streams, n=st.integers(0, 9))
    def push(self, tracked: Tracked, n: int) -> None:
        chunk = self.chunk(tracked, n)
        self.answered(tracked, chunk[0], tracked.stream.push(*chunk))

    @rule(tracked=streams)
    def push_one_step(self, tracked: Tracked) -> None:
        chunk = self.chunk(tracked, 1)
        self.answered(tracked, chunk[0], tracked.stream.push(*chunk))

    @rule(tracked=streams, n=st.integers(1, 4))
    def push_something_wrong(self, tracked: Tracked, n: int) -> None:
        wrong: Any = [99] * n if self.spec.ids else np.ones((n, 14), "f")
        with pytest.raises(runtime.InputError):
            tracked.stream.push(*arguments(self.spec, wrong, tracked.speaker))

    @rule(target=streams, tracked=streams)
    def fork(self, tracked: Tracked) -> Tracked:
        return self.track(tracked.stream.fork(), tracked.history, tracked.speaker)

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


def case(machine: type[Machine], chosen: Spec, steps: int) -> Any:
    """The unittest case of a machine over files of one kind."""

    class Chosen(machine):  # type: ignore[misc, valid-type]
        spec = chosen

    found = Chosen.TestCase
    # No rule filters; what Hypothesis calls filtered are sequences of steps for which it ran out of random data.
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    found.settings = settings(stateful_step_count=steps, suppress_health_check=quiet)
    return found
