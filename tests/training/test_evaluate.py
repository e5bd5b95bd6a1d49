"""Held-out perplexity: padding, sorting and cutting into pieces change nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncore import LanguageModel
from rnncore.runtime import InputError
from rnncore.training import evaluate, new_model
from tests.tolerances import bound
from tests.training.small import CONFIG

MODEL = new_model(CONFIG, 3).double()


def one_by_one(model: LanguageModel, texts: list[np.ndarray]) -> float:
    total = 0.0
    for text in texts:
        tokens = torch.from_numpy(np.concatenate(([0], text, [0])))
        with torch.no_grad():
            log_probs = model.eval()(tokens[None, :-1])[0]
        total += float(log_probs.gather(1, tokens[1:, None]).sum())
    return total


@settings(max_examples=15)
@given(st.lists(st.integers(0, 9) | st.sampled_from([255, 256, 300]), min_size=1, max_size=35), st.integers(0, 99))
def test_it_is_the_sum_over_texts_scored_alone(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, CONFIG.vocabulary_size, length) for length in lengths]
    MODEL.train()
    result = evaluate(MODEL, texts, 0)
    assert MODEL.training
    assert result.tokens == sum(lengths) + len(lengths)
    allowed = result.tokens * bound("float64", "chunked", depth=4, length=max(lengths) + 1, magnitude=10)
    assert result.log_prob == pytest.approx(one_by_one(MODEL, texts), abs=allowed)
    assert result.perplexity == pytest.approx(math.exp(-result.log_prob / result.tokens))


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(InputError, match="no texts"):
        evaluate(MODEL, [], 0)
