"""Contiguous batches lose nothing and mix nothing up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError
from rnncore.text import character_vocabulary
from rnncore.training import ContiguousBatches, token_stream


@given(st.integers(2, 400), st.integers(1, 9), st.integers(1, 50))
def test_rows_are_contiguous_and_targets_are_what_comes_next(tokens: int, batch: int, bptt: int) -> None:
    stream = np.random.default_rng(tokens).permutation(tokens)
    if tokens - 1 < batch:
        with pytest.raises(InputError, match="too few for a batch"):
            ContiguousBatches(stream, batch, bptt)
        return
    batches = ContiguousBatches(stream, batch, bptt)
    pieces = [batches[i] for i in range(len(batches))]
    assert all(inputs.shape == targets.shape == (batch, bptt) for inputs, targets in pieces[:-1])
    inputs, targets = (torch.cat(parts, 1).numpy() for parts in zip(*pieces, strict=True))
    used = batches.tokens
    assert tokens - 1 - batch < used <= tokens - 1
    np.testing.assert_array_equal(inputs.reshape(-1), stream[:used])
    np.testing.assert_array_equal(targets.reshape(-1), stream[1 : used + 1])
    with pytest.raises(IndexError):
        batches[len(batches)]


@given(st.lists(st.text(st.sampled_from("abc"), max_size=9), max_size=9))
def test_the_stream_is_all_texts_with_eos_around_each(texts: list[str]) -> None:
    vocabulary = character_vocabulary(["abc"])
    stream = token_stream(texts, vocabulary)
    spelled = "".join(vocabulary.token(i) for i in stream.tolist())
    assert spelled == "<eos>" + "".join(text + "<eos>" for text in texts)
