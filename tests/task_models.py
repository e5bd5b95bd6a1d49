"""Small models of every task for tests: random weights, mixed cells; each exported once a process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnncore import (
    CellConfig,
    Classifier,
    Embedder,
    Generator,
    Rater,
    ReaderConfig,
    Recogniser,
    Tagger,
)
from rnncore.export import export_model
from rnncore.models import TaskModel
from rnncore.text import Vocabulary, character_vocabulary, token_vocabulary
from tests.strategies import randomize

TOKENS = ("12", "main", "st", "springfield", "il", "po", "box", "7th")
CHARACTERS = "abc de|\n"
FEATURES = 5
DEPTH = 4  # embedding or standardisation, two layers, pooling and head


@cache
def token_words() -> Vocabulary:
    return token_vocabulary([TOKENS])


@cache
def characters() -> Vocabulary:
    return character_vocabulary([CHARACTERS])


def cells(*named: tuple[str, int]) -> tuple[CellConfig, ...]:
    return tuple(CellConfig.named(name, size) for name, size in named)


def floats(*named: tuple[str, int], bidirectional: bool = False) -> ReaderConfig:
    return ReaderConfig(cells(*named), features=FEATURES, bidirectional=bidirectional)


def _tagger() -> TaskModel:
    config = ReaderConfig(cells(("peephole-lstm", 11), ("gru-before", 7)), len(token_words()), embedding_size=3)
    return Tagger(config, ("B-a", "I-a", "B-b", "O"))


def _generator(labels: tuple[str, ...]) -> TaskModel:
    config = ReaderConfig(cells(("gru", 13), ("coupled-lstm", 7)), len(characters()), embedding_size=5)
    return Generator(config, labels, condition_size=3, eos_id=characters().eos_id)


MODELS: dict[str, Callable[[], TaskModel]] = {
    "tagger": _tagger,
    "tagger, crf": lambda: Tagger(floats(("gru", 7), bidirectional=True), ("B-a", "I-a", "B-b", "O"), crf=True),
    "classifier, last": lambda: Classifier(floats(("lstm", 7), ("gru-simple", 11)), ("x", "y", "z")),
    "classifier, attention": lambda: Classifier(
        floats(("peephole-lstm-previous", 7), bidirectional=True), ("x", "y"), pooling="attention"
    ),
    "rater, max": lambda: Rater(floats(("layernorm-lstm", 7)), 1, 5, pooling="max"),
    "embedder, statistics": lambda: Embedder(floats(("gru", 7), bidirectional=True), 11, pooling="statistics"),
    "recogniser": lambda: Recogniser(floats(("lstm", 7), ("minlstm", 11)), "ab "),
    "generator": lambda: _generator(("jig", "reel", "air")),
    "generator from nothing": lambda: _generator(()),
}
VOCABULARIES = {"tagger": token_words, "generator": characters, "generator from nothing": characters}


@cache
def torch_model(name: str) -> Any:
    """Confident enough that a wrong history changes the answers; floats are standardised by odd numbers."""
    model = randomize(MODELS[name](), 5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
        if isinstance(model, Generator):
            model.head.bias[model.eos_id] -= 3.0  # or its sequences would end before they began
    if model.reader.embedding is None:
        model.reader.standardise([np.random.default_rng(3).normal(0.5, 2.0, (19, FEATURES))])
    return model


@cache
def model_file(name: str) -> bytes:
    vocabulary = VOCABULARIES[name]() if name in VOCABULARIES else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_model(torch_model(name), path, vocabulary=vocabulary)
        return path.read_bytes()


def sequences(name: str, lengths: list[int], seed: int) -> list[np.ndarray]:
    """Random inputs of the model, ids int64 [time] or float32 [time, features]."""
    random = np.random.default_rng(seed)
    size = torch_model(name).reader.config.vocabulary_size
    if size is None:
        return [random.normal(0.5, 2.0, (length, FEATURES)).astype(np.float32) for length in lengths]
    return [random.integers(0, size, length) for length in lengths]
