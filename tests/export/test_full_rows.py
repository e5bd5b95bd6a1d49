"""Lengths that code reads as numbers of Python: the file takes full rows, and lists in groups of one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.full_rows import lengths_of, of_full_rows
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE, rolled

WIDTH = 4


class Masks(nn.Module):
    """Fills what is behind each row, one row after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv1d(WIDTH, 6, 3, padding=1), nn.GRU(6, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y = self.conv(x.mT)
        mask = torch.BoolTensor(y.size()).fill_(0)
        for i, length in enumerate(lengths):
            length = length.item()
            if mask[i].size(1) - length > 0:
                mask[i].narrow(1, length, mask[i].size(1) - length).fill_(1)
        return self.layer(y.masked_fill(mask, 0).mT)[0]


class Halves(nn.Module):
    """Takes every second step, and half of each length."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(WIDTH, 5, batch_first=True, bidirectional=True)
        self.second = nn.LSTM(10, 3, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for layer in (self.first, self.second):
            y, _ = layer(pack_padded_sequence(x, lengths, batch_first=True))
            x, lengths = pad_packed_sequence(y, batch_first=True)
            x, lengths = x[:, ::2], torch.tensor([int(n + 1) // 2 for n in lengths])
        return x, lengths


class Backward(nn.Module):
    """Goes backward, and takes up a row where it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, 5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        states, found, last = x.new_zeros(batch, 5), x.new_zeros(batch, steps, 5), 0
        for t in reversed(range(steps)):
            while last < batch - 1 and lengths[last + 1] > t:
                last += 1
            h = self.cell(x[: last + 1, t], states[: last + 1].clone())
            states = states.clone()
            states[: last + 1] = h
            found[: last + 1, t] = h
        return found


class Captions(nn.Module):
    """Decodes the rows that are long enough, as many steps as the longest has."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(WIDTH, 5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows = (lengths - 1).tolist()
        h = c = x.new_zeros(x.shape[0], 5)
        found = torch.zeros(x.shape[0], max(rows), 5)
        for t in range(max(rows)):
            n = sum(length > t for length in rows)
            h, c = self.cell(x[:n, t], (h[:n], c[:n]))
            found[:n, t] = h
        return found


class Numpy(nn.Module):
    """Halves lengths as numbers of NumPy, for a list."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.layer = nn.MaxPool1d(2, ceil_mode=True), nn.GRU(WIDTH, 5, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        halves = np.ceil(lengths.cpu().numpy() / 2).astype(np.int64).tolist()
        y, _ = self.layer(pack_padded_sequence(self.pool(x.mT).mT, halves, batch_first=True))
        return pad_packed_sequence(y, batch_first=True)[0]


class Columns(Captions):
    """The same with lengths [batch, 1]."""

    def forward(self, x: Tensor, caption_lengths: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, caption_lengths.squeeze(1))


def test_a_column_of_lengths() -> None:
    torch.manual_seed(0)
    module, (x, lengths) = Columns().eval(), full(2, 8)
    call = find_axes(module, Example.of(module, (x, lengths[:, None]), None, "auto"), None)
    program = rolled(*of_full_rows(module, call, lengths_of(call)))
    assert program is not None
    x, lengths = full(3, 11)
    (got,) = program(x).values()
    torch.testing.assert_close(got, module(x, lengths[:, None]), **TOLERANCE)


def full(batch: int, time: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, time, WIDTH), torch.full((batch,), time)


@pytest.mark.parametrize("make", [Masks, Halves, Backward, Captions, Numpy])
def test_full_rows_at_any_size(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, example = make().eval(), full(2, 8)
    call = find_axes(module, Example.of(module, example, None, "auto"), None)
    held = lengths_of(call)
    assert list(held) == ["lengths"]
    program = rolled(*of_full_rows(module, call, held))
    assert program is not None
    for batch, time in ((1, 5), (4, 18)):
        x, lengths = full(batch, time)
        wanted = module(x, lengths)
        got = list(program(x).values())
        for one, other in zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.slow
def test_a_file_of_full_rows_takes_lists(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Halves().eval()
    report = export(module, tmp_path / "model.onnx", full(2, 8))
    assert any("reads lengths as numbers" in remark for remark in report.verification["remarks"])
    model = load(report.path)
    assert [spec.name for spec in model.signature.inputs] == ["x"] and model.signature.lengths is None
    rows = [torch.randn(n, WIDTH) for n in (5, 11, 5)]
    for row, got in zip(rows, model.run([row.numpy() for row in rows])["output_0"], strict=True):
        with torch.no_grad():
            wanted = module(row[None], torch.tensor([len(row)]))[0][0]
        np.testing.assert_allclose(got, wanted.numpy(), **TOLERANCE)


def test_shorter_rows_that_get_what_each_gets_alone_are_read_as_full_ones(tmp_path: Path) -> None:
    module, (x, _) = Captions().eval(), full(2, 8)
    model = load(export(module, tmp_path / "model.onnx", (x, torch.tensor([8, 6]))).path)
    rows = [torch.randn(n, WIDTH) for n in (5, 9)]
    for row, got in zip(rows, model.run([row.numpy() for row in rows]), strict=True):
        with torch.no_grad():
            wanted = module(row[None], torch.tensor([len(row)]))[0]
        np.testing.assert_allclose(got, wanted.numpy(), **TOLERANCE)


class Longest(Captions):
    """What it gives for a row depends on the longest one."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(x, lengths) * max(lengths.tolist())


def test_shorter_rows_that_notice_the_longest_one_are_refused(tmp_path: Path) -> None:
    x, _ = full(2, 8)
    with pytest.raises(ExportError, match=r"(?s)reads the value of a tensor|one by one"):
        export(Longest().eval(), tmp_path / "model.onnx", (x, torch.tensor([8, 6])))


class Describes(nn.Module):
    """Captions of images: attends to their places in rows that are sorted by length, as many as are long enough."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.cell, self.head = nn.Embedding(9, 3), nn.LSTMCell(3 + WIDTH, 5), nn.Linear(5, 9)
        self.places, self.query, self.score = nn.Linear(WIDTH, 4), nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, images: Tensor, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        images = images.view(images.size(0), -1, images.size(-1))
        lengths, order = lengths.squeeze(1).sort(dim=0, descending=True)
        images, words = images[order], self.words(words[order])
        h = c = images.new_zeros(len(images), 5)
        rows = (lengths - 1).tolist()
        found = torch.zeros(len(images), max(rows), 9)
        weights = torch.zeros(len(images), max(rows), images.size(1))
        for t in range(max(rows)):
            n = sum([length > t for length in rows])
            scores = self.score(torch.relu(self.places(images[:n]) + self.query(h[:n]).unsqueeze(1))).squeeze(2)
            alpha = torch.softmax(scores, 1)
            seen = (images[:n] * alpha.unsqueeze(2)).sum(1)
            h, c = self.cell(torch.cat([words[:n, t], seen], 1), (h[:n], c[:n]))
            found[:n, t], weights[:n, t] = self.head(h), alpha
        return found, weights


@pytest.mark.parametrize("names", [None, ["words", None]], ids=["weights too", "words alone"])
def test_captions_of_images(names: list[str | None] | None, tmp_path: Path) -> None:
    module = Describes().eval()
    example = (torch.randn(3, 3, 4, WIDTH), torch.randint(9, (3, 8)), torch.full((3, 1), 8))
    report = export(module, tmp_path / "model.onnx", example, output_names=names)
    size = (3, 4) if names is None else (2, 5)  # weights of each place: the image is as large as that of the example
    images, words = torch.randn(2, *size, WIDTH), torch.randint(9, (2, 6))
    got = load(report.path).run(images.numpy(), words.numpy())
    with torch.no_grad():
        wanted = module(images, words, torch.full((2, 1), 6))
    for one, other in zip(got.values() if names is None else [got], wanted, strict=False):
        np.testing.assert_allclose(one, other.numpy(), **TOLERANCE)
