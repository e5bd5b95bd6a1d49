"""A language model of characters for telephone prompts: what is said in those to learn from, and sentences of other text."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnncore import CellConfig, LanguageModelConfig
from rnncore.export import export_model
from rnncore.runtime import LanguageModel
from rnncore.text import Corpus, Vocabulary, character_vocabulary
from rnncore.training import Trainer, TrainingSettings, interpolate, new_model

SENTENCES, OFTEN, ORDER = 500, 6, 8
"""How many sentences of other text; how often the prompts are read beside them; characters of the longest n-gram."""


def sentences(count: int) -> list[str]:
    """Sentences of descriptions of Debian's packages, as they would be spoken."""
    from datasets import descriptions, plain_words

    parts = {plain_words(part) for _, text, _ in descriptions() for part in re.split(r"(?<=[.!?])\s", text)}
    found = sorted(part for part in parts if 20 < len(part) < 200)
    return random.Random(0).sample(found, min(count, len(found)))


def language_model(
    letters: Sequence[str], prompts: Sequence[str], held_out: Sequence[str], others: Sequence[str], *, epochs: int = 4
) -> LanguageModel:
    """The file of a recurrent model of ``prompts`` and ``others``, with n-grams of ``prompts`` mixed in.

    How much each is trusted is learnt from ``held_out``.
    """
    vocabulary = character_vocabulary(["".join(letters)])
    texts = [*others, *list(prompts) * OFTEN]
    random.Random(1).shuffle(texts)
    config = LanguageModelConfig(len(vocabulary), 64, (CellConfig.named("lstm", 256),), dropout=0.2)
    model = new_model(config, 0)
    settings = TrainingSettings(epochs=epochs, learning_rate=6e-3)
    Trainer(model, vocabulary, Corpus("prompts", tuple(texts)), settings).run()
    mixed = interpolate(
        model.cpu().eval(), _ids(prompts, vocabulary), _ids(held_out, vocabulary), eos_id=vocabulary.eos_id, order=ORDER
    )
    path = Path(tempfile.mkdtemp(prefix="rnncore-applications-")) / "prompts.onnx"
    export_model(mixed, path, vocabulary=vocabulary)
    return LanguageModel.load(path)


def _ids(texts: Sequence[str], vocabulary: Vocabulary) -> list[np.ndarray]:
    return [vocabulary.encode(text) for text in texts]
