"""Language models as ``rnncore train`` makes them by its defaults, of the demo's own text, beside Kneser-Ney."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.applications.common import Stopwatch, step_us
from benchmarks.applications.kneser_ney import KneserNey
from benchmarks.applications.record import Measured
from rnncore import runtime
from rnncore.cli.train_setup import Choices, Optimisation, Running, export_model, new_trainer
from rnncore.text import Vocabulary, python_corpus
from rnncore.training import Observer

FLOORS = {"language, characters": 1.63, "language, words": 154.0}
HELD_OUT = 0.05
ORDERS = {"characters": (6, 8, 10, 14), "words": (2, 3, 4, 5)}


def measure() -> list[Measured]:
    return [_row("characters", "bits a character"), _row("words", "perplexity of a word")]


def _row(level: str, metric: str) -> Measured:
    folder = Path(tempfile.mkdtemp(prefix="rnncore-applications-"))
    choices = Choices(None, "paragraph", HELD_OUT, ("lstm",), None, None, None, None, None, tokens=level)
    watch = Stopwatch()
    trainer = new_trainer(choices, Optimisation(), folder / "model.pt", Running("cpu", 60.0, Observer()))
    trainer.run()
    train_s = watch.seconds
    split = python_corpus().split(HELD_OUT)
    sizes = []
    scores = []
    for name, quantize in (("model", None), ("int8", "int8")):
        export_model(trainer, folder / f"{name}.onnx", "loop", quantize)
        model = runtime.LanguageModel.load(folder / f"{name}.onnx")
        sizes.append((folder / f"{name}.onnx").stat().st_size)
        total = sum(model.score(text, eos=True) for text in split.held_out)
        scores.append(_metric(level, total, _tokens(split.held_out, trainer.vocabulary)))
    model = runtime.LanguageModel.load(folder / "model.onnx")
    texts = list(split.held_out[:20])
    return Measured(
        f"language, {level}",
        "the language reference that every Python carries (pydoc_data.topics), every twentieth paragraph held out",
        (len(split.training), 0, len(split.held_out)),
        metric,
        scores[0],
        scores[1],
        baselines(level, split.training, split.held_out, trainer.vocabulary),
        (sizes[0], sizes[1]),
        train_s,
        step_us(model.token_scores, texts, _tokens(texts, trainer.vocabulary)),
        level[:-1],
        lower=True,
        note="The best epoch is chosen by the same held-out texts, and so is the best order of Kneser-Ney.",
    )


def baselines(level: str, training: Sequence[str], test: Sequence[str], vocabulary: Vocabulary) -> dict[str, float]:
    """Kneser-Ney of each order, on the same tokens."""
    read, asked = ([vocabulary.encode(text).tolist() for text in texts] for texts in (training, test))
    found = {}
    for order in ORDERS[level]:
        model = KneserNey(read, order, vocabulary.eos_id, len(vocabulary))
        found[f"Kneser-Ney {order}"] = _metric(level, sum(map(model.log_prob, asked)), _tokens(test, vocabulary))
    return found


def _tokens(texts: Sequence[str], vocabulary: Vocabulary) -> int:
    return sum(len(vocabulary.encode(text)) + 1 for text in texts)


def _metric(level: str, log_prob: float, tokens: int) -> float:
    """Bits a token of characters, perplexity of words."""
    nats = -log_prob / tokens
    return nats / math.log(2.0) if level == "characters" else math.exp(nats)
