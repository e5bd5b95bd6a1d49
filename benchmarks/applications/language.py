"""Language models as ``rnncore train`` makes them by its defaults, of the demo's own text, beside Kneser-Ney."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.applications.common import Stopwatch, step_us
from benchmarks.applications.kneser_ney import KneserNey
from benchmarks.applications.record import Measured
from rnncore import runtime
from rnncore.cli.train_setup import Choices, Optimisation, Running, export_model, new_trainer, resumed_trainer
from rnncore.text import Corpus, Vocabulary, python_corpus
from rnncore.training import Observer, Trainer, evaluate

FLOORS = {"language, characters": 1.37, "language, words": 36.5}
HELD_OUT = 0.05
ORDERS = {"characters": (6, 8, 10, 14, 20), "words": (2, 3, 4, 5, 6)}
DEMO = "the language reference that every Python carries (pydoc_data.topics), every twentieth paragraph to test"


def measure() -> list[Measured]:
    return [row("language", level, python_corpus(), DEMO) for level in ("characters", "words")]


def row(name: str, level: str, corpus: Corpus, data: str) -> Measured:
    """Every twentieth text is the test set; of the others the training holds out every twentieth again, to choose by."""
    from datasets import CACHE

    split = corpus.split(HELD_OUT)
    folder = CACHE / "trained" / f"{name}-{level}"  # a training that was interrupted goes on from there
    trainer, train_s = trained(level, split.training, folder)
    sizes, scores = [], []
    vocabulary, tokens = trainer.vocabulary, _tokens(split.held_out, trainer.vocabulary)
    for form, quantize in (("model", None), ("int8", "int8")):
        export_model(trainer, folder / f"{form}.onnx", "loop", quantize)
        model = runtime.LanguageModel.load(folder / f"{form}.onnx")
        sizes.append((folder / f"{form}.onnx").stat().st_size)
        scores.append(_metric(level, sum(model.score(text, eos=True) for text in split.held_out), tokens))
    model = runtime.LanguageModel.load(folder / "model.onnx")
    alone = evaluate(trainer.model, [vocabulary.encode(text) for text in split.held_out], vocabulary.eos_id)
    texts = list(split.held_out[:20])
    return Measured(
        f"{name}, {level}",
        data,
        (len(trainer.training_texts), len(trainer.held_out_texts), len(split.held_out)),
        "bits a character" if level == "characters" else "perplexity of a word",
        scores[0],
        scores[1],
        baselines(level, trainer.training_texts, split.held_out, vocabulary),
        (sizes[0], sizes[1]),
        train_s,
        step_us(model.token_scores, texts, _tokens(texts, vocabulary), rounds=3),
        level[:-1],
        lower=True,
        more={"the recurrent layers alone": _metric(level, alone.log_prob, tokens)},
        note="All orders of Kneser-Ney that were tried are shown, so the best is chosen by the test set; the epoch and how much "
        "the model trusts its n-grams are chosen by the validation texts"
        + ("." if level == "characters" else f"; {_unknown(split.held_out, vocabulary):.1%} of the words are unknown."),
    )


def trained(level: str, texts: Sequence[str], folder: Path) -> tuple[Trainer, float | None]:
    """A model by the defaults of ``rnncore train``, and seconds; None where a part of it was trained by an earlier call."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus, checkpoint = folder / "texts.txt", folder / "model.pt"
    corpus.write_text("\n\n".join(texts), "utf-8")
    running = Running("cpu", 60.0, _Log())
    if checkpoint.exists():
        trainer = resumed_trainer(checkpoint, corpus, running, given=(), epochs=None)
        trainer.run()
        return trainer, None
    watch = Stopwatch()
    choices = Choices(corpus, "paragraph", HELD_OUT, ("lstm",), None, None, None, None, None, tokens=level)
    trainer = new_trainer(choices, Optimisation(), checkpoint, running)
    trainer.run()
    return trainer, watch.seconds


class _Log(Observer):
    def finished_epoch(self, report: object) -> None:
        print(report, flush=True)


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


def _unknown(texts: Sequence[str], vocabulary: Vocabulary) -> float:
    return float(np.mean(np.concatenate([vocabulary.encode(text) for text in texts]) == vocabulary.unk_id))


def _metric(level: str, log_prob: float, tokens: int) -> float:
    """Bits a token of characters, perplexity of words."""
    nats = -log_prob / tokens
    return nats / math.log(2.0) if level == "characters" else math.exp(nats)
