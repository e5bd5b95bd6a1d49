"""A training that takes a second: two kinds of cells, dropout, a few dozen steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rnncore import CellConfig, LanguageModelConfig
from rnncore.text import Corpus, character_vocabulary
from rnncore.training import Checkpoint, Observer, Trainer, TrainingSettings, new_model

CORPUS = Corpus(
    "cats",
    tuple(
        f"the {a} {b} on the {c}."
        for a in ("cat", "dog", "cow")
        for b in ("sat", "ran", "fell")
        for c in ("mat", "log", "hill", "red rug", "wall")
    ),
)
SETTINGS = TrainingSettings(epochs=2, batch=3, bptt=29, learning_rate=0.02, seed=7)
VOCABULARY = character_vocabulary(CORPUS.texts)
CONFIG = LanguageModelConfig(
    len(VOCABULARY), 5, (CellConfig.named("lstm", 13), CellConfig.named("gru", 11)), dropout=0.2
)


def trainer(settings: TrainingSettings = SETTINGS, **options: Any) -> Trainer:
    return Trainer(new_model(CONFIG, settings.seed), VOCABULARY, CORPUS, settings, device="cpu", **options)


def resumed(path: Path, **options: Any) -> Trainer:
    return Trainer.resume(Checkpoint.load(path), CORPUS, checkpoint=path, device="cpu", **options)


def steps_of(settings: TrainingSettings = SETTINGS) -> int:
    counter = Counter()
    trainer(settings, observer=counter).run()
    return counter.steps


class Counter(Observer):
    """Counts steps."""

    steps = 0

    def stepped(self, report: object) -> None:
        self.steps += 1


def assert_same_bits(got: Checkpoint, expected: Checkpoint) -> None:
    """Everything that later steps depend on, and everything reported, is equal to the last bit."""
    assert got.position == expected.position
    assert got.settings == expected.settings
    assert torch.equal(got.random_state, expected.random_state)
    _assert_same(got.model, expected.model, "model")
    _assert_same(got.optimizer, expected.optimizer, "optimizer")
    _assert_same(got.carried, expected.carried, "carried")


def _assert_same(got: Any, expected: Any, path: str) -> None:
    assert type(got) is type(expected), path
    if isinstance(got, torch.Tensor):
        assert torch.equal(got, expected), path
    elif isinstance(got, dict):
        assert got.keys() == expected.keys(), path
        for key in got:
            _assert_same(got[key], expected[key], f"{path}.{key}")
    elif isinstance(got, list | tuple):
        assert len(got) == len(expected), path
        for number, (a, b) in enumerate(zip(got, expected, strict=True)):
            _assert_same(a, b, f"{path}.{number}")
    else:
        assert got == expected, path
