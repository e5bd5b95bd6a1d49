"""Constants as large as an axis: lists times the batch, numbers of all steps, full lengths made on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE, exported, rolled

WIDTH, SYMBOLS = 3, 7
STARTS = {
    "a list of rows": lambda batch, first: torch.LongTensor([[first]] * batch)[:, 0],
    "a list": lambda batch, first: torch.tensor([first] * batch),
    "a row": lambda batch, first: torch.LongTensor([[first] * batch]).squeeze(0),
    "one by one": lambda batch, first: torch.tensor([first for _ in range(batch)]),
    "floats": lambda batch, first: torch.Tensor([first] * batch).long(),
    "filled": lambda batch, first: torch.full((batch,), first),
}


class Writer(nn.Module):
    """Chooses a symbol in every step and reads it in the next, from ``first`` on."""

    def __init__(self, start: str, first: int) -> None:
        super().__init__()
        self.start, self.first = start, first
        self.reader, self.symbols = nn.GRU(WIDTH, 5, batch_first=True), nn.Embedding(SYMBOLS, 4)
        self.cell, self.head = nn.GRUCell(4, 5), nn.Linear(5, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.reader(x)[1][0]
        symbol, found = STARTS[self.start](x.size(0), self.first), []
        for _ in range(x.size(1)):
            h = self.cell(self.symbols(symbol), h)
            found.append(self.head(h))
            symbol = found[-1].argmax(1)
        return torch.stack(found, 1)


class Numbered(nn.Module):
    """Adds a number of the place to every step, counted from ``first`` by ``step``, after so many rows of it were made."""

    def __init__(self, first: int, step: int, *, for_each_row: bool) -> None:
        super().__init__()
        self.first, self.step, self.for_each_row = first, step, for_each_row
        self.layer = nn.GRU(WIDTH, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        places = [self.first + self.step * t for t in range(x.shape[1])]
        numbers = torch.tensor([places] * x.shape[0] if self.for_each_row else places)
        return self.layer(x)[0] + torch.sin(numbers / 3.0)[..., None]


class Averages(nn.Module):
    """Packs rows that are all full, and divides by their length; ``listed``: the lengths are numbers of Python."""

    def __init__(self, *, listed: bool = False) -> None:
        super().__init__()
        self.listed, self.layer = listed, nn.GRU(WIDTH, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        full = [x.shape[1]] * x.shape[0]
        lengths = full if self.listed else torch.tensor(full)
        y, _ = self.layer(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(y, batch_first=True)[0].sum(1) / torch.tensor([[float(x.shape[1])]] * x.shape[0])


class Squares(nn.Module):
    """Numbers that follow the place by no line, beside a loop."""

    def forward(self, x: Tensor) -> Tensor:
        h, found = torch.zeros_like(x[:, 0]), []
        for step in x.unbind(1):
            h = torch.tanh(h + step)
            found.append(h)
        return torch.stack(found, 1) + torch.tensor([float(t * t) for t in range(x.shape[1])])[:, None]


@given(st.sampled_from(sorted(STARTS)), st.integers(0, SYMBOLS - 1), st.integers(0, 9))
@settings(phases=[Phase.generate, Phase.target], deadline=None, max_examples=8)
def test_first_symbols_follow_the_batch(start: str, first: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = Writer(start, first)
    program = rolled(module, torch.randn(2, 8, WIDTH))
    assert program is not None
    for batch, time in ((1, 1), (5, 19)):
        x = torch.randn(batch, time, WIDTH)
        (got,) = program(x).values()
        torch.testing.assert_close(got, module(x), **TOLERANCE)


@given(st.integers(-3, 9), st.sampled_from([-2, 1, 3]), st.booleans())
@settings(phases=[Phase.generate, Phase.target], deadline=None, max_examples=8)
def test_numbers_of_the_steps_follow_the_time(first: int, step: int, for_each_row: bool) -> None:
    module = Numbered(first, step, for_each_row=for_each_row)
    program = rolled(module, torch.randn(2, 8, WIDTH))
    assert program is not None
    for batch, time in ((1, 2), (5, 19)):
        x = torch.randn(batch, time, WIDTH)
        (got,) = program(x).values()
        torch.testing.assert_close(got, module(x), **TOLERANCE)


def test_numbers_that_follow_no_rule_are_refused_by_their_line() -> None:
    with pytest.raises(
        ExportError, match=r"(?s)a constant that changes with the number of steps.*test_constants_of_sizes"
    ):
        rolled(Squares(), torch.randn(2, 8, WIDTH))


MAKERS = {
    "writer": lambda: Writer("a list of rows", 2),
    "averages": Averages,
    "averages of a list": lambda: Averages(listed=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_they_are_exported(make: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    exported(make(), tmp_path, torch.randn(2, 8, WIDTH), lambda b, t: torch.randn(b, t, WIDTH), ((1, 3), (4, 21)))
