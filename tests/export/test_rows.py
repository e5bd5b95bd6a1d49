"""Loops over the rows of a batch, as people write them: the file computes all rows at once, and gives PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rnncore.conversion import convert_plain_layers
from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import find_operators
from rnncore.export.tracing.rolling.program import roll
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE, exported, streamed

WIDTH, SIZE = 5, 6


@dataclass(frozen=True)
class Spelling:
    """rows: how one row is had.  body: what is done with it.  results: how the rows come together again."""

    rows: str
    body: str
    results: str
    time_first: bool
    twice: bool


SPELLINGS = st.builds(
    Spelling,
    rows=st.sampled_from(["for", "index", "slice", "unbind", "split", "enumerate"]),
    body=st.sampled_from(["linear", "layer", "layer with a state", "last step", "cell", "bare", "attention", "mean"]),
    results=st.sampled_from(["stack", "cat", "written", "padded", "written into what was"]),
    time_first=st.booleans(),
    twice=st.booleans(),
)


class Rows(nn.Module):
    """[batch, time, WIDTH], or time first, -> [batch, ...]: one row after the other, as ``spelling`` says."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        self.before = nn.GRU(WIDTH, WIDTH, batch_first=not spelling.time_first)
        self.layer, self.cell = nn.LSTM(WIDTH, SIZE, batch_first=True), nn.GRUCell(WIDTH, SIZE)
        self.head, self.recall = nn.Linear(WIDTH, SIZE), nn.Linear(SIZE, SIZE)
        self.begin = nn.Parameter(torch.randn(1, 1, SIZE))

    def _rows(self, x: Tensor) -> Iterator[Tensor]:
        """Each row as [time, WIDTH]."""
        axis = 1 if self.spelling.time_first else 0
        match self.spelling.rows:
            case "for":
                yield from (row for row in x.transpose(0, axis)) if axis else (row for row in x)
            case "index":
                yield from (x[:, b] if axis else x[b] for b in range(x.shape[axis]))
            case "slice":
                yield from ((x[:, b : b + 1] if axis else x[b : b + 1]).squeeze(axis) for b in range(x.size(axis)))
            case "unbind":
                yield from x.unbind(axis)
            case "split":
                yield from (part.squeeze(axis) for part in x.split(1, axis))
            case _:
                yield from (row for _, row in enumerate(torch.unbind(x, dim=axis)))

    def _body(self, row: Tensor) -> Tensor:
        match self.spelling.body:
            case "linear":
                return torch.tanh(self.head(row))
            case "layer":
                return self.layer(row.unsqueeze(0))[0].squeeze(0)
            case "layer with a state":
                return self.layer(row[None], (self.begin, torch.zeros(1, 1, SIZE)))[0][0]
            case "last step":
                return self.layer(row.unsqueeze(0))[0][:, -1]
            case "cell":
                h, kept = torch.zeros(1, SIZE), []
                for t in range(row.shape[0]):
                    h = self.cell(row[t].unsqueeze(0), h)
                    kept.append(h)
                return torch.cat(kept)
            case "bare":
                h, kept = row.new_zeros(SIZE), []
                for step in self.head(row):
                    h = torch.tanh(step + self.recall(h))
                    kept.append(h)
                return torch.stack(kept)
            case "attention":
                values = self.head(row)
                return torch.softmax(values @ values.t(), -1) @ values
        return self.head(row).mean(0, keepdim=True)

    def _all(self, x: Tensor) -> Tensor:
        made = [self._body(row) for row in self._rows(x)]
        match self.spelling.results:
            case "stack":
                return torch.stack(made)
            case "cat":
                return torch.cat([value.unsqueeze(0) for value in made], dim=0)
            case "padded":
                return pad_sequence(made, batch_first=True)
        written = torch.zeros(len(made), *made[0].shape)
        for b, value in enumerate(made):
            written[b] = value if self.spelling.results == "written" else written[b] + value
        return written

    def forward(self, x: Tensor) -> Tensor:
        y = self._all(self.before(x)[0] if self.spelling.twice else x)
        return y * 0.5 if self.spelling.twice else y


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(spelling=SPELLINGS, seed=st.integers(0, 2**16))
def test_rows_that_are_taken_apart_are_computed_together(spelling: Spelling, seed: int) -> None:
    torch.manual_seed(seed)
    module = Rows(spelling).eval()

    def draw(batch: int, time: int) -> Tensor:
        return torch.randn(*((time, batch) if spelling.time_first else (batch, time)), WIDTH)

    axes = {"x": ("time", "batch", None) if spelling.time_first else ("batch", "time", None)}
    with torch.no_grad():
        call = find_axes(module, Example.of(module, draw(3, 7), axes, "auto"), axes, seed)
        plain = convert_plain_layers(copied(module))
        program = roll(plain, call, find_operators(plain, call, seed), seed)
        assert program is not None
        for batch, time in ((3, 7), (1, 6), (6, 9), (2, 33)):
            x = draw(batch, time)
            (got,) = program(x).values()
            torch.testing.assert_close(got, module(x), **TOLERANCE)


class Summary(nn.Module):
    """[batch, time, WIDTH] -> [batch, SIZE]: a layer over each row, whose last step is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(WIDTH, SIZE, batch_first=True), nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for row in x:
            y, _ = self.layer(row.unsqueeze(0))
            kept.append(self.head(y[0, -1]))
        return torch.stack(kept)


class Steps(nn.Module):
    """[batch, time, WIDTH] -> [batch, time, SIZE]: a loop over time for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for b in range(x.size(0)):
            h, kept = torch.zeros(1, SIZE), []
            for t in range(x.size(1)):
                h = self.cell(x[b, t].unsqueeze(0), h)
                kept.append(h)
            rows.append(torch.cat(kept))
        return torch.stack(rows)


class Padded(nn.Module):
    """[batch, time, WIDTH] -> [batch, time, SIZE]: rows in a list, padded to one length."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, SIZE, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(pad_sequence([row for row in x], batch_first=True))[0]


@pytest.mark.parametrize("kind", [Summary, Steps, Padded])
def test_loops_over_rows_are_exported_and_stream(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = kind()

    def draw(batch: int, time: int) -> Tensor:
        return torch.randn(batch, time, WIDTH)

    model, report = exported(module, tmp_path, draw(3, 7), draw, [(1, 5), (2, 4), (6, 9)])
    assert report.causal
    x = draw(1, 8)[0]
    got = streamed(model, x, [3, 1, 4])
    with torch.no_grad():
        wanted = module(x[None])[0].numpy()
    np.testing.assert_allclose(got[-SIZE:] if wanted.ndim == 1 else got, wanted, **TOLERANCE)


class RowsInTurn(nn.Module):
    """Each row begins where the last one ended: rows that are not apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, SIZE, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros(1, 1, SIZE), []
        for row in x:
            y, h = self.layer(row.unsqueeze(0), h)
            rows.append(y)
        return torch.cat(rows)


def test_rows_that_follow_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as failure:
        export(RowsInTurn().eval(), tmp_path / "model.onnx", torch.randn(3, 7, WIDTH))
    assert len(str(failure.value).splitlines()) <= 12 and not (tmp_path / "model.onnx").exists()
    print(failure.value)
