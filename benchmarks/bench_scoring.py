"""Rescoring n-best lists: one tree of hypotheses against one hypothesis after the other; parity is checked first."""

from __future__ import annotations

import math
import string

import numpy as np
import torch

from benchmarks.contestants import FOLDER
from benchmarks.measure import Table, Timing, ratio, timings
from rnncore import CellConfig, LanguageModel, LanguageModelConfig
from rnncore.export import export
from rnncore.runtime import LanguageModel as RuntimeLanguageModel
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.text import character_vocabulary

HYPOTHESES = 100
WORDS = 12
UTTERANCES = 4
BEAMS, CANDIDATES, STEPS = 8, 8, 20
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "


def language_model() -> RuntimeLanguageModel:
    """Characters, embedding 64, two LSTM layers of 256, random weights: time does not depend on them."""
    torch.manual_seed(0)
    vocabulary = character_vocabulary([CHARACTERS])
    config = LanguageModelConfig(len(vocabulary), 64, (CellConfig.named("lstm", 256),) * 2)
    path = FOLDER / "language-model.onnx"
    example = torch.tensor([[0, 1, len(vocabulary) - 1], [1, 0, 1]])
    metadata = {TOKENIZER_KEY: vocabulary.to_json()}
    export(LanguageModel(config).eval(), path, example, streaming=True, metadata=metadata, pick=True)
    return RuntimeLanguageModel.load(path)


def lattice_nbest(seed: int) -> list[str]:
    """The 100 best paths of a confusion network.

    An utterance of 12 words, each of 2 to 8 letters.  Half of the places, drawn at random, have a competitor of one to
    three letters changed, at a cost drawn from an exponential distribution; the best paths are those of the lowest sums.
    """
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 9))) for _ in range(WORDS)]
    choices: list[list[tuple[float, str]]] = [[(0.0, word)] for word in words]
    for place in rng.permutation(WORDS)[: WORDS // 2]:
        for _ in range(3):
            letters = list(words[place])
            for at in rng.integers(len(letters), size=rng.integers(1, 4)):
                letters[at] = str(rng.choice(list(string.ascii_lowercase)))
            choices[place].append((float(rng.exponential()), "".join(letters)))
    paths: dict[str, float] = {"": 0.0}
    for options in choices:
        longer = {f"{text} {word}".strip(): cost + extra for text, cost in paths.items() for extra, word in options}
        paths = dict(sorted(longer.items(), key=lambda item: item[1])[: 4 * HYPOTHESES])
    return list(paths)[:HYPOTHESES]


def unshared_nbest(seed: int) -> list[str]:
    """Texts as long as those of an n-best list, which have nothing in common but chance."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(string.ascii_lowercase + " "), len(text))) for text in lattice_nbest(seed)]


def run() -> Table:
    torch.set_num_threads(1)
    model = language_model()
    shared, unshared = lattice_nbest(1), unshared_nbest(1)
    many = [lattice_nbest(seed) for seed in range(1, 1 + UTTERANCES)]
    rows = [
        _rescoring(model, "n-best list of a confusion network", [shared]),
        _rescoring(model, "nothing in common", [unshared]),
        _rescoring(model, f"{UTTERANCES} utterances at once", many),
        _fusion(model),
    ]
    header = ("what", "characters", "read once", "one by one, ms", "together, ms", "one by one/together")
    note = (
        f"{HYPOTHESES} hypotheses of {WORDS} words; half of the places have three competitors of up to three changed "
        "letters, the hypotheses are the cheapest paths. Characters, two LSTM layers of 256, one thread, medians of "
        f"interleaved runs; scores compared first. The last row is a beam search of {BEAMS} texts that asks for "
        f"{CANDIDATES} candidates each, {STEPS} steps: `score_tokens` against a `TextStream` forked for every text that is kept."
    )
    return Table("Scoring", note, header, tuple(rows))


def _rescoring(model: RuntimeLanguageModel, name: str, nbests: list[list[str]]) -> tuple[str, ...]:
    def together() -> list[float]:
        return [score for scores in model.rescore_many(nbests) for score in scores]

    def one_by_one() -> list[float]:
        return [model.score(text) for nbest in nbests for text in nbest]

    np.testing.assert_allclose(together(), one_by_one(), rtol=1e-5)
    texts = [text for nbest in nbests for text in nbest]
    distinct = {text[:n] for text in texts for n in range(len(text))}
    took = timings({"together": together, "one_by_one": one_by_one}, seconds=4.0, least=5, cold=False)
    return _row(name, sum(map(len, texts)), len(distinct), took)


def _fusion(model: RuntimeLanguageModel) -> tuple[str, ...]:
    """The same search twice; the candidates and what is kept of them are drawn beforehand."""
    rng = np.random.default_rng(3)
    candidates = rng.integers(1, len(model.vocabulary), (STEPS, BEAMS * CANDIDATES))
    kept = rng.integers(0, BEAMS * CANDIDATES, (STEPS, BEAMS))
    parents = np.repeat(np.arange(BEAMS), CANDIDATES)

    def together() -> float:
        states, total = model.initial_states(BEAMS), 0.0
        for step in range(STEPS):
            log_probs, states = model.score_tokens(states.select(parents), candidates[step])
            states = states.select(kept[step])
            total += float(log_probs[kept[step]].sum(dtype=np.float64))
        return total

    def one_by_one() -> float:
        beams, total = [model.stream() for _ in range(BEAMS)], 0.0
        for step in range(STEPS):
            following = [beam.next_log_probs() for beam in beams]
            log_probs = [following[parent][token] for parent, token in zip(parents, candidates[step], strict=True)]
            beams = [beams[parents[k]].fork() for k in kept[step]]
            for beam, k in zip(beams, kept[step], strict=True):
                beam.push(int(candidates[step, k]))
            total += float(sum(float(log_probs[k]) for k in kept[step]))
        return total

    assert math.isclose(together(), one_by_one(), rel_tol=1e-5)
    took = timings({"together": together, "one_by_one": one_by_one}, seconds=2.0, least=3, cold=False)
    return _row(f"beam search, {BEAMS} x {CANDIDATES}", STEPS * BEAMS * CANDIDATES, STEPS * BEAMS, took)


def _row(name: str, characters: int, distinct: int, took: dict[str, Timing]) -> tuple[str, ...]:
    milli = [f"{took[key].warm * 1e3:.1f}" for key in ("one_by_one", "together")]
    return name, str(characters), str(distinct), *milli, ratio(took["one_by_one"].warm, took["together"].warm)
