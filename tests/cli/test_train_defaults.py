"""What ``rnncore train`` chooses by itself: without training or exporting anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.cli.train_defaults import defaults_for, unknown_share, warnings_of
from rnncore.cli.train_setup import Choices, Optimisation, Running, new_trainer
from rnncore.training import Observer, Trainer
from tests.training.small import CORPUS

CHOICES = Choices(None, "paragraph", 0.05, ("gru",), None, None, None, None, None)
SMALL = replace(CHOICES, hidden_size=7)


def trainer_of(tmp_path: Path, text: str, choices: Choices, optimisation: Optimisation | None = None) -> Trainer:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text, encoding="utf-8")
    chosen = optimisation or Optimisation(batch=2)
    return new_trainer(replace(choices, corpus=corpus), chosen, tmp_path / "m.pt", Running("cpu", 60.0, Observer()))


@given(st.sampled_from(("characters", "words", "subwords")), st.integers(0, 10**8), st.integers(0, 10**8))
def test_less_text_is_read_more_often_and_never_less_than_twice(level: str, one: int, other: int) -> None:
    less, more = (defaults_for(level, tokens) for tokens in sorted((one, other)))
    assert 16 >= less.epochs >= more.epochs >= 2
    assert less.dropout >= more.dropout
    assert less.tied == (level != "characters")
    assert less.tied is False or less.hidden == less.embedding


@pytest.mark.parametrize(
    ("choices", "tied"),
    [
        (replace(SMALL, tokens="words", embedding_size=7), True),
        (replace(SMALL, tokens="words"), False),  # 7 features beside 256
        (replace(SMALL, tokens="words", embedding_size=7, adaptive=True), False),
        (replace(SMALL, tokens="words", embedding_size=7, tied=False), False),
        (replace(SMALL, embedding_size=7), False),
        (replace(SMALL, embedding_size=7, tied=True), True),
    ],
)
def test_words_share_the_weights_of_the_head_where_that_fits(tmp_path: Path, choices: Choices, tied: bool) -> None:
    trainer = trainer_of(tmp_path, "\n\n".join(CORPUS.texts), choices)
    assert trainer.model.config.tied is tied
    assert len(trainer.model.config.cells) == (1 if choices.tokens == "words" else 2)


def test_what_the_user_chose_wins(tmp_path: Path) -> None:
    chosen = Optimisation(epochs=3, bptt=9, batch=2, learning_rate=0.5, seed=4, patience=1)
    settings = trainer_of(tmp_path, "\n\n".join(CORPUS.texts), SMALL, chosen).settings
    found = (settings.epochs, settings.bptt, settings.batch, settings.learning_rate, settings.seed, settings.patience)
    assert found == (3, 9, 2, 0.5, 4, 1)
    assert trainer_of(tmp_path, "\n\n".join(CORPUS.texts), SMALL).settings.patience == 3


def test_it_says_why_a_model_will_be_poor(tmp_path: Path) -> None:
    """One text in twenty is held out: the last one has words of its own."""
    texts = ["the cat sat on the mat"] * 39 + ["zebras graze quietly on the plain"]
    trainer = trainer_of(tmp_path, "\n\n".join(texts), replace(SMALL, tokens="words"))
    share = unknown_share(trainer)
    assert 0 < share == 4 / (6 + 6)
    few, unknown = warnings_of(trainer)
    assert f"{trainer.training_tokens} training tokens are few" in few
    assert "33% of the held-out words are unknown" in unknown
    enough = trainer_of(tmp_path, "\n\n".join(["the cat sat on the mat"] * 1100), SMALL)
    assert list(warnings_of(enough)) == []
