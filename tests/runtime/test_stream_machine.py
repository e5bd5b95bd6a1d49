"""Streams as Hypothesis uses them; what they must answer is the reference over each stream's whole input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import multiple, rule

from rnncore import runtime
from tests.runtime.data import arguments, model
from tests.runtime.files import Spec
from tests.runtime.machine import Machine, Tracked, case


class Streams(Machine):
    streams = Machine.streams

    @rule(target=streams)
    def open_one(self) -> Tracked:
        return self.fresh(model(self.spec).stream())

    @rule(target=streams)
    def open_two(self) -> Any:
        return multiple(*(self.fresh(model(self.spec).stream()) for _ in range(2)))

    @rule(chosen=st.lists(streams, min_size=1, max_size=5, unique_by=id), data=st.data())
    def push_many(self, chosen: list[Tracked], data: st.DataObject) -> None:
        self.pushed_together(chosen, [data.draw(st.integers(0, 4)) for _ in chosen])

    @rule(chosen=st.lists(streams, min_size=1, max_size=5, unique_by=id), n=st.integers(1, 3))
    def push_many_alike(self, chosen: list[Tracked], n: int) -> None:
        self.pushed_together(chosen, [n] * len(chosen))

    def pushed_together(self, chosen: list[Tracked], lengths: list[int]) -> None:
        chunks = [self.chunk(tracked, n) for tracked, n in zip(chosen, lengths, strict=True)]
        outputs = model(self.spec).push_many(
            [tracked.stream for tracked in chosen], chunks if self.spec.speaker else [chunk[0] for chunk in chunks]
        )
        for tracked, chunk, output in zip(chosen, chunks, outputs, strict=True):
            self.answered(tracked, chunk[0], output)

    @rule(chosen=st.lists(streams, min_size=2, max_size=4, unique_by=id), n=st.integers(1, 3))
    def push_many_with_one_wrong(self, chosen: list[Tracked], n: int) -> None:
        chunks = [self.chunk(tracked, n) for tracked in chosen]
        wrong: Any = [99] * (n + 1) if self.spec.ids else np.ones((n, 14), "f")
        chunks[-1] = arguments(self.spec, wrong, chosen[-1].speaker)
        with pytest.raises(runtime.InputError):
            model(self.spec).push_many(
                [tracked.stream for tracked in chosen], chunks if self.spec.speaker else [chunk[0] for chunk in chunks]
            )

    def teardown(self) -> None:
        for tracked in self.open:
            tracked.stream.close()


TestPlain = case(Streams, Spec(), 25)
TestLengths = case(Streams, Spec(lengths=True, learned=True, last=True, speaker=True), 25)
TestTokens = case(Streams, Spec(ids=True, learned=True, limit=True), 25)
TestTimeless = case(Streams, Spec(ids=True, lengths=True, last=True), 25)
TestTimeMajor = case(Streams, Spec(last=True, time_major=True), 25)
TestOpenWidthWithoutLengths = case(Streams, Spec(learned=True, open_width=True), 25)
TestOpenWidth = case(Streams, Spec(lengths=True, time_major=True, speaker=True, open_width=True), 25)
