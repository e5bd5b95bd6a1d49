"""A tagger that reads the letters of words: the file reads texts and words as PyTorch reads ids and letters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import CellConfig, ReaderConfig, Tagger, runtime
from rnncore.export import export_model
from rnncore.models import pad_sequences
from rnncore.runtime import Affixes, InputError
from rnncore.text import token_vocabulary
from tests.strategies import randomize

WORDS = ("12", "Main", "St.", "Öl", "x")
LABELS = ("a", "b", "c")
AFFIXES = Affixes("MainSt.12", prefix=3, suffix=2)
words = st.text("MainSt.12Öxy", min_size=1, max_size=7)
rows = st.lists(st.lists(words, max_size=6), min_size=1, max_size=4)


def test_letters_by_hand() -> None:
    m, a, i, n, s, t = range(2, 8)
    found = AFFIXES.ids(["Main", "St", "Öa", ""])
    assert found.tolist() == [[m, a, i, n, i], [s, t, 0, t, s], [1, a, 0, a, 1], [0] * 5]
    assert Affixes.from_json(AFFIXES.to_json()) == AFFIXES
    assert Affixes.of(["aab", "ac"]).alphabet == "a"


@cache
def tagger() -> tuple[Tagger, runtime.Tagger]:
    vocabulary = token_vocabulary([WORDS])
    config = ReaderConfig((CellConfig.named("lstm", 7),), len(vocabulary), embedding_size=3)
    model = randomize(Tagger(config, LABELS, affixes=AFFIXES), 3).eval()
    with TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "m.onnx", vocabulary=vocabulary)
        return model, runtime.Tagger.load((Path(folder) / "m.onnx").read_bytes())


def by_torch(tokens: list[str]) -> list[str]:
    model, task = tagger()
    ids = np.concatenate([task.vocabulary.encode(word) for word in tokens]) if tokens else np.zeros(0, np.int64)
    x, lengths = pad_sequences([ids])
    with torch.no_grad():
        best = model(x, lengths, torch.from_numpy(AFFIXES.ids(tokens))[None]).argmax(2)[0]
    return [LABELS[i] for i in best.tolist()]


@given(rows)
def test_texts_and_words_as_in_pytorch_alone_among_others_and_in_chunks(many: list[list[str]]) -> None:
    _, task = tagger()
    expected = [by_torch(tokens) for tokens in many]
    assert task.tag_many(many) == task.tag_many([" ".join(tokens) for tokens in many]) == expected
    for tokens, want in zip(many, expected, strict=True):
        assert task.tag(tokens) == task.tag(" ".join(tokens)) == want
        with task.stream() as stream:
            assert [stream.push([token])[0] for token in tokens] == want


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda task: task.tag([1, 2]), "got a list: .*letters of words"),
        (lambda task: task.tag(np.array([1, 2])), "got a ndarray: .*letters of words"),
        (lambda task: task.tag_many(np.zeros((2, 3), np.int64), [1, 2]), "a list of texts, or of lists"),
        (lambda task: task.tag_many("12 Main"), "hand in a list of texts"),
        (lambda task: tagger()[0](torch.zeros(1, 1, dtype=torch.int64)), "letters are missing"),
        (lambda task: Affixes("aa", 0), "2 problems"),
        (lambda task: Affixes.of([]), "expected letters"),
    ],
)
def test_what_is_wrong_is_said(ask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(tagger()[1])
