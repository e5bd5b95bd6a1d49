"""Modules that take one sequence, without a batch or with one of 1, become files of batches."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.axes import NoBatchAxis, find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.one_sequence import has_real_batch
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE

KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Tagger(nn.Module):
    """Ids of one sentence, as the first tutorials have it."""

    def __init__(self, kind: str, both: bool) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(20, 4), KINDS[kind](4, 3, bidirectional=both)
        self.head = nn.Linear(6 if both else 3, 2)

    def forward(self, words: Tensor) -> Tensor:
        y, _ = self.layer(self.embedding(words).view(len(words), 1, -1))
        return torch.log_softmax(self.head(y.view(len(words), -1)), dim=1)


class WithoutBatch(nn.Module):
    """A layer of torch on [time, features]."""

    def __init__(self, kind: str, both: bool) -> None:
        super().__init__()
        self.layer, self.head = KINDS[kind](4, 3, 2, bidirectional=both), nn.Linear(6 if both else 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


class FirstState(nn.Module):
    """A first state for a batch of 1, [1, time, 4]."""

    def __init__(self, kind: str, both: bool) -> None:
        super().__init__()
        self.layer, self.rows = KINDS[kind](4, 3, batch_first=True, bidirectional=both), 2 if both else 1

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(self.rows, 1, 3)
        return self.layer(x, (h, h) if isinstance(self.layer, nn.LSTM) else h)[0]


@given(
    make=st.sampled_from([Tagger, WithoutBatch, FirstState]),
    kind=st.sampled_from(sorted(KINDS)),
    both=st.booleans(),
    steps=st.integers(1, 12),
)
@settings(max_examples=5)
def test_each_row_is_what_the_module_gives_for_it_alone(
    make: type[nn.Module], kind: str, both: bool, steps: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    module = make(kind, both).eval()  # type: ignore[call-arg]

    def draw(steps: int) -> Tensor:
        if make is Tagger:
            return torch.randint(20, (steps,))
        return torch.randn(1, steps, 4) if make is FirstState else torch.randn(steps, 4)

    report = export(module, tmp_path_factory.mktemp("one") / "model.onnx", draw(7))
    assert report.causal is not both and "one sequence" in str(report)
    model, rows = load(report.path), [draw(steps) for _ in range(3)]
    with torch.no_grad():
        right = [module(row).numpy() for row in rows]
    if make is FirstState:
        rows, right = [row[0] for row in rows], [own[0] for own in right]
    for row, own in zip(model.run(torch.stack(rows).numpy()), right, strict=True):
        np.testing.assert_allclose(row, own, **TOLERANCE)
    if not both:
        with model.stream() as stream:
            got = np.concatenate([stream.push(part.numpy()) for part in rows[0].split(2)])
        np.testing.assert_allclose(got, right[0], **TOLERANCE)


class Remembers(nn.Module):
    """A series of numbers; the state, zeros for one row, stays in an attribute that its caller sets anew."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(1, 4), nn.Linear(4, 1)
        self.hidden = (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))

    def forward(self, series: Tensor) -> Tensor:
        y, self.hidden = self.layer(series.view(len(series), 1, -1), self.hidden)
        return self.head(y.view(len(series), -1))[-1]


def test_a_state_in_an_attribute_begins_anew_for_each_row(tmp_path: Path) -> None:
    module = Remembers().eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(7))
    series = torch.randn(3, 9)
    with torch.no_grad():
        right = np.stack([copy.deepcopy(module)(row).numpy() for row in series])
    np.testing.assert_allclose(load(report.path).run(series.numpy()), right[:, 0], **TOLERANCE)


class Word(nn.Module):
    """One word, [1], and a state [layers, 1, size]: a decoder of tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer, self.head = nn.Embedding(20, 4), nn.GRU(4, 3, 2), nn.Linear(3, 20)

    def forward(self, word: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        y, hidden = self.layer(self.embedding(word).view(1, 1, -1), hidden)
        return self.head(y[0]), hidden


def test_one_step_of_one_sequence_streams(tmp_path: Path) -> None:
    module = Word().eval()
    report = export(module, tmp_path / "model.onnx", (torch.tensor([3]), torch.zeros(2, 1, 3)))
    assert report.causal
    words, wanted = torch.randint(20, (2, 6)), []
    with torch.no_grad():
        for row in words:
            hidden = torch.zeros(2, 1, 3)
            for word in row:
                y, hidden = module(word[None], hidden)
                wanted.append(y.numpy())
    right = np.concatenate(wanted).reshape(2, 6, 20)
    model = load(report.path)
    np.testing.assert_allclose(model.run(words.numpy()).reshape(right.shape), right, **TOLERANCE)
    with model.stream() as stream:
        got = np.concatenate([stream.push(words[1, t : t + 1].numpy()) for t in range(6)])
    np.testing.assert_allclose(got.reshape(6, 20), right[1], **TOLERANCE)


class WordsAndLetters(nn.Module):
    """One sentence and the letters of its words, which look like a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.letters = nn.Embedding(20, 4), nn.Embedding(9, 3)
        self.read, self.layer = nn.LSTM(3, 2, batch_first=True), nn.LSTM(6, 5)

    def forward(self, words: Tensor, letters: Tensor) -> Tensor:
        _, (h, _) = self.read(self.letters(letters))
        return self.layer(torch.cat([self.words(words), h[0]], 1).unsqueeze(1))[0].squeeze(1)


@pytest.mark.slow
def test_words_of_one_sentence_are_no_batch(tmp_path: Path) -> None:
    module = WordsAndLetters().eval()
    report = export(module, tmp_path / "model.onnx", (torch.randint(20, (7,)), torch.randint(9, (7, 5))))
    words, letters = torch.randint(20, (2, 6)), torch.randint(9, (2, 6, 4))
    with torch.no_grad():
        right = np.stack([module(*row).numpy() for row in zip(words, letters, strict=True)])
    np.testing.assert_allclose(load(report.path).run(words.numpy(), letters.numpy()), right, **TOLERANCE)


class ThreeRows(nn.Module):
    """A first state for a batch of 3, which is no sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, torch.zeros(1, 3, 3))[0]


def test_a_batch_of_three_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoBatchAxis, match="no other size along any axis that could be the batch"):
        export(ThreeRows().eval(), tmp_path / "model.onnx", torch.randn(3, 7, 4))


class Letters(nn.Module):
    """[words, letters] as a sentence, or as several sequences of letters."""

    def __init__(self, *, sentence: bool) -> None:
        super().__init__()
        self.sentence = sentence
        self.letters, self.words = nn.GRU(3, 4, batch_first=True), nn.GRU(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, last = self.letters(x)
        return self.words(last[0])[0] if self.sentence else last[0]


@pytest.mark.parametrize("sentence", [True, False])
def test_rows_that_stand_alone_are_a_batch(sentence: bool) -> None:
    module = Letters(sentence=sentence).eval()
    call = find_axes(module, Example.of(module, torch.randn(3, 5, 3), None, "auto"), None)
    assert has_real_batch(module, call) == (not sentence)
