"""What is drawn follows the model's distribution; <unk> is left out as if it were drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.export import export_generator
from rnncore.runtime import TextGenerator
from rnncore.runtime.text.sampling import sampling_probabilities, token_at
from tests.generation.models import END, UNKNOWN, WORDS, generator, step_by_step, streaming_file
from tests.generation.test_one_call import torch_log_probs
from tests.tolerances import fixed

DRAWS = 8_000
# Degrees of freedom -> what chi-squared exceeds for one seed of a thousand.
LIMITS = {n: limit for n, limit in enumerate((10.8, 13.8, 16.3, 18.5, 20.5, 22.5, 24.3, 26.1, 27.9, 29.6), start=1)}


def chi_squared(counts: np.ndarray, expected: np.ndarray) -> float:
    possible = expected > 0
    assert (counts[~possible] == 0).all(), "something impossible was drawn"
    return float(((counts[possible] - expected[possible]) ** 2 / expected[possible]).sum())


def pairs(seed: int, writer: TextGenerator, **options: float) -> np.ndarray:
    """How often each pair of first and second token was written after "the", [vocabulary, vocabulary]."""
    written = writer.generate_ids([[2]] * DRAWS, max_tokens=2, seed=seed, **options)  # type: ignore[arg-type]
    counts = np.zeros((len(WORDS), len(WORDS)))
    for ids, log_probs in written:
        first, second, *_ = [*ids.tolist(), END, END]
        assert len(log_probs) == 2 or first == END
        counts[first, second] += 1
    return counts


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"top_k": 4}, {"temperature": 1.5, "top_p": 0.8}])
def test_draws_follow_the_models_distribution(options: dict[str, float]) -> None:
    counts = pairs(11, generator(), **options)
    known = {**options, "rejected": [UNKNOWN]}
    first = sampling_probabilities(torch_log_probs([2], [0])[0], **known)  # type: ignore[arg-type]
    assert chi_squared(counts.sum(1), DRAWS * first) < LIMITS[np.count_nonzero(first) - 1]
    likely = int(np.argmax(np.where(np.arange(len(WORDS)) == END, 0, counts.sum(1))))
    second = sampling_probabilities(torch_log_probs([2, likely], [0])[0], **known)  # type: ignore[arg-type]
    drawn = counts[likely].sum()
    assert chi_squared(counts[likely], drawn * second) < LIMITS[np.count_nonzero(second) - 1]


@given(st.lists(st.floats(-20, 0), min_size=2, max_size=9), st.data())
def test_leaving_out_is_the_limit_of_drawing_again(scores: list[float], data: st.DataObject) -> None:
    """P(w) (1 + r + r^2 + ...) for the probability r of what is rejected: the n-th draw is reached with r^(n-1)."""
    log_probs = np.array(scores) - np.logaddexp.reduce(scores)
    rejected = sorted(data.draw(st.sets(st.integers(0, len(scores) - 1), max_size=len(scores) - 1)))
    p = np.exp(log_probs)
    again = p[rejected].sum()
    expected = np.where(np.isin(np.arange(len(p)), rejected), 0.0, p) / (1.0 - again) if again < 1 else None
    found = sampling_probabilities(log_probs, rejected=rejected)
    assert not found[rejected].any()
    if expected is not None and 1.0 - again > 1e-6:
        np.testing.assert_allclose(found, expected, rtol=fixed("float32 same steps"), atol=fixed("float64"))


def test_what_the_file_writes_is_distributed_as_drawing_again_until_a_word_comes() -> None:
    """<unk> is common here; half of the numbers come from rejection in NumPy, half from the file, one test for both."""
    log_probs = torch_log_probs([2], [0])[0]
    p = sampling_probabilities(log_probs)
    assert p[UNKNOWN] > 0.01
    random = np.random.default_rng(3)
    rejection = np.zeros(len(WORDS))
    for _ in range(DRAWS):
        token = UNKNOWN
        while token == UNKNOWN:
            token = token_at(p, random.random())
        rejection[token] += 1
    file = pairs(5, generator()).sum(1)
    both = (rejection + file) / 2
    degrees = np.count_nonzero(both) - 1
    assert chi_squared(rejection, both) + chi_squared(file, both) < LIMITS[degrees]


def test_sample_never_writes_unknown_words() -> None:
    for seed in range(20):
        assert "<unk>" not in step_by_step().sample(40, seed=seed, temperature=2.0).split()
    ids = np.concatenate([one.ids for one in generator().generate_ids([[]] * 200, seed=1, max_tokens=20)])
    assert UNKNOWN not in ids
    assert len(set(ids.tolist())) == len(WORDS) - 2, "all other words occur"


def test_more_tokens_can_be_rejected(tmp_path: Path) -> None:
    report = export_generator(streaming_file(), tmp_path / "g.onnx", rejected=[4, 9])
    assert report.rules.rejected == (UNKNOWN, 4, 9)
    ids = [one.ids for one in TextGenerator.load(report.path).generate_ids([[]] * 200, seed=1, max_tokens=20)]
    assert not {UNKNOWN, 4, 9} & set(np.concatenate(ids).tolist())
