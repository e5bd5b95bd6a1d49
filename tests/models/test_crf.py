"""Tags that are chosen together, against every tagging there is."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import CellConfig, ReaderConfig, Tagger
from rnncore.models.crf import LOWEST, LinearChain
from rnncore.runtime import InputError
from tests.strategies import SEEDS
from tests.tolerances import bound

LABELS = ("B-x", "I-x", "B-y", "I-y", "O")
CONFIG = ReaderConfig((CellConfig.named("gru", 7),), features=3)
LONGEST = 4


def chain(seed: int, *, bio: bool) -> LinearChain:
    made = LinearChain(LABELS, bio=bio).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def taggings(crf: LinearChain, emissions: np.ndarray) -> dict[tuple[int, ...], float]:
    """The score of every tagging of one row [time, tags]."""
    with torch.no_grad():
        weights = (crf.weights.first(), crf.weights.between(), crf.weights.end)
    first, between, end = (w.detach().numpy() for w in weights)
    found = {}
    for tags in product(range(len(LABELS)), repeat=len(emissions)):
        own = sum(emissions[t, tag] for t, tag in enumerate(tags))
        found[tags] = first[tags[0]] + own + sum(between[a, b] for a, b in pairwise(tags)) + end[tags[-1]]
    return found


@given(st.lists(st.integers(0, LONGEST), min_size=1, max_size=3), SEEDS, st.booleans())
def test_scores_and_likelihood_are_those_of_every_tagging(lengths: list[int], seed: int, bio: bool) -> None:
    crf, time = chain(seed, bio=bio), max(lengths)
    emissions = np.random.default_rng(seed).normal(0, 2, (len(lengths), time, len(LABELS)))
    x, valid = torch.from_numpy(emissions), torch.tensor(lengths)
    with torch.no_grad():
        scores = crf(x, valid).numpy()
        likely = crf.log_likelihood(x, valid, torch.from_numpy(scores.argmax(2))).numpy()
    allowed = bound("float64", "oracle", depth=2, length=time, magnitude=1e4)
    for row, length in enumerate(lengths):
        assert not scores[row, length:].any()
        if not length:
            assert likely[row] == 0
            continue
        every = taggings(crf, emissions[row, :length])
        best = max(every, key=lambda tags: every[tags])
        assert tuple(scores[row, :length].argmax(1)) == best
        assert abs(likely[row] - (every[best] - np.logaddexp.reduce(list(every.values())))) < allowed
        for t, tag in product(range(length), range(len(LABELS))):
            through = max(score for tags, score in every.items() if tags[t] == tag) - every[best]
            assert abs(scores[row, t, tag] - max(through, LOWEST)) < max(allowed, 2e-6)


@given(st.integers(1, 40), SEEDS)
def test_what_may_not_follow_never_does_and_long_sequences_keep_their_digits(time: int, seed: int) -> None:
    crf = chain(seed, bio=True).float()
    emissions = torch.randn(2, time, len(LABELS), generator=torch.Generator().manual_seed(seed)) * 9
    with torch.no_grad():
        every = crf(emissions.round(), None).argmax(2).tolist()  # whole numbers: ties are common
    for row in every:
        tags = [LABELS[i] for i in row]
        assert tags[0][0] != "I"
        assert all(b[0] != "I" or a[2:] == b[2:] for a, b in pairwise(tags))


def test_training_learns_what_only_neighbours_tell() -> None:
    """Every step looks alike; that tags alternate is known to the transitions alone."""
    torch.manual_seed(0)
    model = Tagger(ReaderConfig((CellConfig.named("gru", 2),), 2, embedding_size=2), ("a", "b"), crf=True)
    for parameter in model.reader.parameters():
        parameter.requires_grad = False
    batch = model.collate([([1] * n, (["a", "b"] * 4)[:n]) for n in (3, 5, 8)])
    optimizer = torch.optim.Adam(model.parameters(), 0.2)
    for _ in range(60):
        total, count = model.loss(**batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    counts = model.metrics(**batch)["accuracy"]
    assert counts[0] == counts[1] == 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tagger(CONFIG, LABELS, bio=True), "needs crf=True"),
        (lambda: Tagger(CONFIG, LABELS, crf=True).collate([(np.zeros((2, 3)), ["O", "I-x"])]), "'I-x' at step 1"),
        (lambda: Tagger(CONFIG, LABELS, crf=True).collate([(np.zeros((1, 3)), ["I-y"])]), "'I-y' at step 0"),
    ],
)
def test_what_is_wrong_is_said(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
    Tagger(CONFIG, LABELS, crf=True, bio=False).collate([(np.zeros((1, 3)), ["I-y"])])
