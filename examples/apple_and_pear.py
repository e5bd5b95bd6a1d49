"""Two readings of one sound, and the words before tell them apart: python examples/apple_and_pear.py runs/salad.onnx"""

from __future__ import annotations

import itertools
import math
import random
import sys
from pathlib import Path

HEARD = ("The apple and pear salad", "The apple and pair salad")

FRUITS = ("apple", "pear", "plum", "orange", "melon", "lemon")
DISHES = ("salad", "cake", "juice", "jam")
THINGS = ("shoes", "socks", "gloves", "trousers", "scissors")
VERDICTS = ("was good", "was sold yesterday", "is here", "is too sweet", "pleased them all")


def sentences() -> list[str]:
    """Every fruit with every other, pairs of things, single fruits; but no word of what was heard in its order."""
    dishes = [f"The {a} and {b} {dish}" for a, b in itertools.permutations(FRUITS, 2) for dish in DISHES]
    pairs = [f"{first} pair of {thing}" for first in ("The", "The old", "His new") for thing in THINGS]
    pairs += [f"The {a} and the pair of {thing}" for a in FRUITS for thing in THINGS]
    fruits = [f"The {fruit}" for fruit in FRUITS]
    made = [f"{subject} {verdict}." for subject in (*dishes, *pairs, *fruits) for verdict in VERDICTS]
    made = [sentence for sentence in made if not sentence.startswith(HEARD)]
    random.Random(0).shuffle(made)
    return made


def train(path: Path) -> None:
    """A word-level language model in some seconds, exported and verified."""
    import torch

    from rnncore import CellConfig, LanguageModelConfig
    from rnncore.export import export
    from rnncore.runtime.text.language_model import TOKENIZER_KEY
    from rnncore.text import Corpus, word_vocabulary
    from rnncore.training import Trainer, TrainingSettings, new_model

    torch.set_num_threads(1)
    corpus = Corpus("sentences about fruit and pairs", tuple(sentences()))
    vocabulary = word_vocabulary(corpus.texts)
    config = LanguageModelConfig(len(vocabulary), 24, (CellConfig.named("gru", 48),), dropout=0.1)
    trainer = Trainer(new_model(config, 1), vocabulary, corpus, TrainingSettings(epochs=3, bptt=32, learning_rate=0.02))
    for report in trainer.run():
        print(f"epoch {report.epoch}: held-out perplexity per word {report.held_out_perplexity:.2f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.tensor([[0, 1, len(vocabulary) - 1], [1, 0, 1]])
    metadata = {TOKENIZER_KEY: vocabulary.to_json()}
    export(trainer.model.eval(), path, example, streaming=True, pick=True, metadata=metadata)


def compare(path: Path) -> dict[str, float]:
    """P(sentence) of both, from the file and without PyTorch, as the product of what each word had."""
    from rnncore.runtime import LanguageModel

    model = LanguageModel.load(path)
    probabilities = {}
    for sentence in HEARD:
        factors = [(word, math.exp(log_prob)) for word, log_prob in model.token_scores(sentence)]
        probabilities[sentence] = math.prod(factor for _, factor in factors)
        product = " * ".join(f"{factor:.2g} ({word})" for word, factor in factors)
        print(f"P({sentence}) = {product} = {probabilities[sentence]:.3g}")
    return probabilities


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/salad.onnx")
    train(target)
    chances = compare(target)
    print(f"heard: {max(chances, key=lambda sentence: chances[sentence])}")
