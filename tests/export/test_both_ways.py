"""Steps whose number decides what they do: each goes both ways, and chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.both_ways import with_both_ways
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE


class Steps(nn.Module):
    def __init__(self, every: int, first: int) -> None:
        super().__init__()
        self.low, self.high = nn.GRUCell(3, 4), nn.GRUCell(4, 4)
        self.every, self.first = every, first

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(len(x), 4), x.new_zeros(len(x), 4)


class Skips(Steps):
    """The upper layer takes every few steps only."""

    def forward(self, x: Tensor) -> Tensor:
        h, g = self.start(x)
        found = []
        for t in range(x.size(1)):
            h = self.low(x[:, t], h)
            if (t + self.first) % self.every == 0:
                g = self.high(h, g)
            found.append(torch.cat([h, g], 1))
        return torch.stack(found, 1)


class Clocks(Steps):
    """Parts of one state, each with a clock of its own, written in place."""

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.start(x)
        found = []
        for t, entry in enumerate(x.unbind(1)):
            new, h = self.low(entry, h), h.clone()
            for part in range(2):
                if t % (self.every * (part + 1)) == self.first % self.every:
                    h[:, 2 * part : 2 * part + 2] = new[:, 2 * part : 2 * part + 2]
            found.append(h)
        return torch.stack(found, 1)


class Chooses(Steps):
    """Three ways, in a method that is told the number of the step."""

    def step(self, x: Tensor, h: Tensor, number: int) -> Tensor:
        if number % 3 == 0:
            h = self.low(x, h)
        elif not number % self.every and number > self.first:
            h = h * 0.5
        else:
            y = self.high(h, h)
            h = y - h
        return h

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.start(x)
        found = []
        for t in range(x.size(1)):
            h = self.step(x[:, t], h, t)
            found.append(h if t % self.every else 2 * h)
        return torch.stack(found, 1)


@given(
    make=st.sampled_from([Skips, Clocks, Chooses]),
    every=st.integers(2, 6),
    first=st.integers(0, 4),
    steps=st.integers(1, 20),
)
@settings(max_examples=3)
def test_each_goes_both_ways_and_streams(
    make: type[Steps], every: int, first: int, steps: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    module = make(every, first).eval()
    report = export(module, tmp_path_factory.mktemp("both") / "model.onnx", torch.randn(2, 7, 3))
    assert report.causal and "goes both" in str(report)
    model, x = load(report.path), torch.randn(3, steps, 3)
    with torch.no_grad():
        right = module(x).numpy()
    np.testing.assert_allclose(model.run(x.numpy()), right, **TOLERANCE)
    with model.stream() as stream:
        got = np.concatenate([stream.push(part.numpy()) for part in x[1].split(2)])
    np.testing.assert_allclose(got, right[1], **TOLERANCE)


@torch.no_grad()
def test_what_goes_both_ways_answers_the_same_by_itself() -> None:
    for make in (Skips, Clocks, Chooses):
        module = make(3, 1)
        both = with_both_ways(module)
        assert both is not None and type(both).__name__ == make.__name__ and type(module) is make
        x = torch.randn(2, 9, 3)
        torch.testing.assert_close(both(x), module(x), **TOLERANCE)
    assert with_both_ways(nn.GRU(3, 4)) is None


class Lists(Steps):
    """Gives fewer steps than it takes: a way that does more than to give values to names."""

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.start(x)
        found = []
        for t in range(x.size(1)):
            h = self.low(x[:, t], h)
            if t % self.every == 0:
                found.append(h)
        return torch.stack(found, 1)


def test_ways_that_do_more_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)loop over time.*test_both_ways\.py"):
        export(Lists(2, 0).eval(), tmp_path / "model.onnx", torch.randn(2, 7, 3))


class Parts(Steps):
    """Two questions about the step, each of which writes to a part of one mask."""

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.start(x)
        found = []
        for t in range(x.size(1)):
            mask = torch.zeros(h.shape[-1])
            if t % 2 == 0:
                mask[:1] = 1
            if t % 4 == 0:
                mask[1:] = 1
            h = mask * self.low(x[:, t], h) + (1 - mask) * h
            found.append(h)
        return torch.stack(found, 1)


def test_a_refusal_speaks_of_the_module_as_it_is(tmp_path: Path) -> None:
    """And not of what came of its other spelling: it said that the size of a storage overflows."""
    with pytest.raises(ExportError, match=r"(?s)^Parts: a loop over time whose iterations differ.*torch\.where"):
        export(Parts(2, 0).eval(), tmp_path / "model.onnx", torch.randn(2, 7, 3))


class ByHand(Skips):
    """The choice as the guide advises it, in a loop of two layers, which is cut into two loops."""

    def forward(self, x: Tensor) -> Tensor:
        h, g = self.start(x)
        found = []
        for t in range(x.size(1)):
            h = self.low(x[:, t], h)
            g = torch.where(torch.tensor(t) % self.every == 0, self.high(h, g), g)
            found.append(torch.cat([h, g], 1))
        return torch.stack(found, 1)


def test_the_choice_by_hand_in_a_loop_of_two_layers(tmp_path: Path) -> None:
    module, x = ByHand(3, 0).eval(), torch.randn(2, 8, 3)
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 7, 3))
    assert report.causal and "goes both" not in str(report)
    with torch.no_grad():
        np.testing.assert_allclose(load(report.path).run(x.numpy()), module(x).numpy(), **TOLERANCE)


class FeedsBack(nn.Module):
    """Two loops, of which each reads its sequence once and then its own answer, which only then fits the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.LSTM(3, 4), nn.Linear(4, 3)

    def turn(self, entries: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        answer, found = torch.zeros(entries[0].shape).unsqueeze(0), torch.zeros(entries.shape)
        for t in range(len(entries)):
            read = answer.unsqueeze(0) if t > 0 else entries[t].unsqueeze(0)
            answer, state = self.layer(read, state)
            answer = self.out(answer).squeeze(0)
            found[t] = answer
        return found, state

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.turn(source.transpose(0, 1), None)
        found, _ = self.turn(target.transpose(0, 1), state)
        return found.transpose(0, 1)


def test_a_way_that_a_step_cannot_go_is_no_reason(tmp_path: Path) -> None:
    """The layer's words about an input of four axes came out of the export, where one such loop may be rolled."""
    torch.manual_seed(0)
    module = FeedsBack().eval()
    export(module, tmp_path / "m.onnx", (torch.randn(2, 6, 3), torch.randn(2, 7, 3)))
    source, target = torch.randn(3, 6, 3), torch.randn(3, 11, 3)
    with torch.no_grad():
        expected = module(source, target).numpy()
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(source.numpy(), target.numpy()), expected, **TOLERANCE)
