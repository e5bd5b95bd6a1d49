"""A unit that remembers whether there was one cat or several: python examples/singular_plural.py runs/cats.png"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from rnncore import CellConfig, LanguageModel, LanguageModelConfig
from rnncore.plots.gate_map import plot_gates
from rnncore.plots.text_gates import text_gates
from rnncore.text import word_vocabulary
from rnncore.training import fit

ANIMALS = ("cat", "dog", "bird", "horse")
FOODS = ("fish", "bread", "apples", "fresh hay", "the last old cheese", "a plate of good soup")
ENDS = ("full", "happy", "tired", "asleep")
HIDDEN = 24
SHOWN = "which already ate a plate of good soup"


def sentences(number: int = 3000, seed: int = 0) -> list[str]:
    """'The cats, which already ate a plate of good soup, were full.', and short ones: 'The cats were full.'"""
    draw = random.Random(seed)
    made = []
    for _ in range(number):
        ending, verb = draw.choice((("", "was"), ("s", "were")))
        clause = draw.choice(("", f", which already ate {draw.choice(FOODS)},"))
        made.append(f"The {draw.choice(ANIMALS)}{ending}{clause} {verb} {draw.choice(ENDS)}.")
    return made


class Agreement(LanguageModel):
    """Counts, besides its loss, how often the likelier one of the two verbs is the right one."""

    verbs: tuple[int, int]

    def metrics(self, ids: Tensor, targets: Tensor) -> dict[str, tuple[float, int]]:
        was, were = self.verbs
        scores = self(ids)
        likelier = torch.where(scores[..., was] > scores[..., were], was, were)
        is_verb = (targets == was) | (targets == were)
        return {"agreement": (float((likelier == targets)[is_verb].sum()), int(is_verb.sum()))}


def collate(texts: list[Tensor]) -> dict[str, Tensor]:
    """Each text after <eos> (id 0), and what comes next, its own <eos> at the end."""
    targets = pad_sequence([functional.pad(text, (0, 1)) for text in texts], batch_first=True, padding_value=-1)
    return {"ids": functional.pad(targets, (1, 0)).clamp(min=0)[:, :-1], "targets": targets}


def main(out: Path, epochs: int = 5, number: int = 3000) -> float:
    """Train, draw, and return the part of held-out verbs that agree with their subject."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    made = sentences(number)
    vocabulary = word_vocabulary(made)
    model = Agreement(LanguageModelConfig(len(vocabulary), 16, (CellConfig.named("lstm", HIDDEN),)))
    model.verbs = vocabulary.token_id("was"), vocabulary.token_id("were")
    with torch.no_grad():  # forget gates start open, or the gradient of the verb would vanish before the subject
        model.stack.layers[0].cell.bias_ih[HIDDEN : 2 * HIDDEN] = 1.0
    texts = [torch.from_numpy(ids) for ids in vocabulary.encode_many(made)]
    cut = number * 14 // 15
    options = {"epochs": epochs, "batch": 16, "learning_rate": 0.01}
    report = fit(model, texts[:cut], texts[cut:], collate=collate, **options)
    share = report.best.metrics["agreement"]
    print(f"the likelier of was and were is the right one in {share:.1%} of {number - cut} texts")

    one, many = (
        text_gates(model, vocabulary, f"The {noun}, {SHOWN}, {verb}")
        for noun, verb in (("cat", "was"), ("cats", "were"))
    )
    # What differs at every word between subject and verb is memory of the subject.
    difference = (one.values["c"] - many.values["c"])[3:-1].abs().amin(0)
    units = difference.topk(3).indices.tolist()
    apart = ", ".join(f"{difference[unit]:.2f} (unit {unit})" for unit in units)
    print(f"cell states of one cat and of several are apart, at every word up to the verb, by at least {apart}")
    out.parent.mkdir(parents=True, exist_ok=True)
    names = ["c", "forget", "input", "output"]
    plot_gates(
        [one, many], out, units=units, names=names, title="One cat (left), several cats (right): units that remember"
    )
    return share


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/cats.png"))
