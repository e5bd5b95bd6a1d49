"""Counted n-grams as tables, beside an independent and slower count of them one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.applications.kneser_ney import KneserNey
from rnncore.models import Ngrams
from rnncore.runtime.errors import InputError
from rnncore.text import NgramLevel, count_ngrams
from tests.tolerances import fixed

EOS, TOKENS = 2, 5
WORDS = st.sampled_from([0, 1, 3, 4])  # not in the order of ids, and not the end of a text
TEXTS = st.lists(st.lists(WORDS, max_size=23), min_size=1, max_size=7)


def counted(texts: list[list[int]], order: int, **options: int) -> tuple[NgramLevel, ...]:
    return count_ngrams(
        [np.array(text, np.int64) for text in texts], order, eos_id=EOS, vocabulary_size=TOKENS, **options
    )


def answers(levels: tuple[NgramLevel, ...], read: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """After ``<eos>`` and after each token of ``read``: probabilities [steps, tokens], and the longest known context."""
    probabilities, longest = Ngrams.of(levels, TOKENS)(torch.tensor([[EOS, *read]]))
    return probabilities[0].numpy(), longest[0].numpy()


def goes_on(texts: list[list[int]], before: tuple[int, ...], count: int) -> bool:
    """Whether something comes after the last ``count`` tokens of ``before`` in one of ``texts``."""
    begun = [(EOS, *text) for text in texts]
    found = (text[i : i + count] == before[-count:] for text in begun for i in range(len(text) - count + 1))
    return count <= len(before) and any(found)


@given(TEXTS, st.lists(WORDS, max_size=9), st.integers(2, 6))
@example([[]], [], 3)  # no text is as long as the longest n-gram
def test_the_tables_give_what_counting_one_by_one_gives(texts: list[list[int]], read: list[int], order: int) -> None:
    oracle = KneserNey(texts, order, EOS, TOKENS)
    got, longest = answers(counted(texts, order), read)
    for step in range(len(read) + 1):
        before = (EOS, *read[:step])
        expected = [oracle.probability(before, token) for token in range(TOKENS)]
        np.testing.assert_allclose(got[step], expected, rtol=0, atol=fixed("float32 same steps"))
        assert longest[step] == max((n for n in range(1, order) if goes_on(texts, before, n)), default=0)


@given(TEXTS, st.lists(WORDS, max_size=9), st.integers(2, 6), st.integers(1, 30), st.integers(1, 4))
def test_smaller_tables_still_hold_distributions(
    texts: list[list[int]], read: list[int], order: int, entries: int, successors: int
) -> None:
    levels = counted(texts, order, most_entries=entries, most_successors=successors)
    assert all(level.widest <= successors for level in levels[1:])
    kept = sum(len(level.tokens) for level in levels)
    assert kept <= entries or not any(len(level.tokens) for level in levels[2:])
    got, _ = answers(levels, read)
    assert (got > 0).all()
    np.testing.assert_allclose(got.sum(1), 1.0, rtol=0, atol=fixed("float32 same steps"))


def test_what_has_no_answer_is_refused() -> None:
    with pytest.raises(InputError, match="there are no texts"):
        counted([], 3)
    with pytest.raises(InputError, match="the ids are 0 to 5, expected 0 to 4"):
        counted([[0, 5]], 3)
    with pytest.raises(InputError, match="order is 0"):
        counted([[0]], 0)
    with pytest.raises(InputError, match="most_entries is 0"):
        counted([[0]], 3, most_entries=0)
    with pytest.raises(InputError, match="count at least contexts of one token"):
        Ngrams.of(counted([[0]], 1), TOKENS)
