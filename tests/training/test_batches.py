"""Contiguous batches lose nothing and mix nothing up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError
from rnncore.text import character_vocabulary
from rnncore.training import ContiguousBatches, token_stream
from rnncore.training.batches import IGNORED

EOS_ID = 0


@given(st.integers(2, 400), st.integers(1, 9), st.integers(1, 50), st.floats(0, 0.5), st.integers(0, 99))
def test_rows_are_contiguous_and_targets_are_what_comes_next(
    tokens: int, batch: int, bptt: int, ends: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stream = np.where(rng.random(tokens) < ends, EOS_ID, np.arange(1, tokens + 1))
    if tokens - 1 < batch:
        with pytest.raises(InputError, match="too few for a batch"):
            ContiguousBatches(stream, EOS_ID, batch, bptt)
        return
    batches = ContiguousBatches(stream, EOS_ID, batch, bptt)
    pieces = [batches[i] for i in range(len(batches))]
    assert all(piece.inputs.shape == piece.targets.shape == (batch, bptt) for piece in pieces)
    read, wanted = [], []
    for row in range(batch):
        for piece in pieces:
            counts = piece.targets[row] != IGNORED
            assert counts.tolist() == sorted(counts.tolist(), reverse=True), "padding comes last"
            read += piece.inputs[row][counts].tolist()
            wanted += piece.targets[row][counts].tolist()
    used = batches.tokens
    assert tokens - 1 - batch < used <= tokens - 1
    assert read == stream[:used].tolist()
    assert wanted == stream[1 : used + 1].tolist()
    with pytest.raises(IndexError):
        batches[len(batches)]


@given(st.integers(1, 5), st.integers(1, 40), st.floats(0, 0.5), st.integers(0, 99))
def test_a_row_is_fresh_exactly_where_a_text_begins_a_piece(batch: int, bptt: int, ends: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream = np.where(rng.random(300) < ends, EOS_ID, 1)
    batches = ContiguousBatches(stream, EOS_ID, batch, bptt)
    pieces = [batches[i] for i in range(len(batches))]
    assert pieces[0].fresh.all()
    for before, piece in pairwise(pieces):
        for row in range(batch):
            padding = int((before.targets[row] == IGNORED).sum())
            over = bool((piece.targets[row] == IGNORED).all())
            assert over or piece.fresh[row] == (piece.inputs[row, 0] == EOS_ID)
            assert over or padding < bptt / 4, "little is wasted"
            assert not padding or over or piece.fresh[row], "no state is carried over padding"


def test_a_text_that_ends_late_in_a_piece_gives_the_next_one_a_fresh_start() -> None:
    stream = np.array([0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 1, 0, 2, 3, 4, 5])
    first, second, third = (ContiguousBatches(stream, EOS_ID, 1, 8)[i] for i in range(3))
    assert first.inputs.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0]]
    assert first.targets.tolist() == [[1, 2, 3, 4, 5, 6, 0, -1]]
    assert second.inputs.tolist() == [[0, 7, 8, 9, 1, 0, 2, 3]]
    assert second.targets.tolist() == [[7, 8, 9, 1, 0, 2, 3, 4]]
    assert third.targets.tolist() == [[5, *[-1] * 7]]
    assert [bool(piece.fresh) for piece in (first, second, third)] == [True, True, False]


@given(st.lists(st.text(st.sampled_from("abc"), max_size=9), max_size=9))
def test_the_stream_is_all_texts_with_eos_around_each(texts: list[str]) -> None:
    vocabulary = character_vocabulary(["abc"])
    stream = token_stream(texts, vocabulary)
    spelled = "".join(vocabulary.token(i) for i in stream.tolist())
    assert spelled == "<eos>" + "".join(text + "<eos>" for text in texts)
