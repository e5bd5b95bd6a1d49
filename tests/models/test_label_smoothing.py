"""Smoothed labels cost what torch says, while training and only then."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from rnncore import CellConfig, Classifier, EncoderDecoder, EncoderDecoderConfig, ReaderConfig
from rnncore.runtime.errors import InputError
from tests.tolerances import fixed


@given(smoothing=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 99), training=st.booleans())
def test_of_a_classifier(smoothing: float, seed: int, training: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = Classifier(ReaderConfig((CellConfig("gru", 4),), features=2), "abc", label_smoothing=smoothing)
    x, targets = torch.randn(5, 7, 2, generator=generator), torch.randint(3, (5,), generator=generator)
    total, count = model.train(training).loss(x, torch.full((5,), 7), targets)
    wanted = functional.cross_entropy(
        model(x), targets, label_smoothing=smoothing if training else 0.0, reduction="sum"
    )
    torch.testing.assert_close(total, wanted, rtol=fixed("float32"), atol=fixed("float32"))
    assert count == 5


@given(smoothing=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 99), training=st.booleans())
def test_of_a_translator_over_its_valid_tokens(smoothing: float, seed: int, training: bool) -> None:
    cells = (CellConfig("gru", 6),)
    model = EncoderDecoder(EncoderDecoderConfig(5, 7, cells, cells, embedding_size=4, label_smoothing=smoothing))
    pairs = [([1, 2, 3], [4, 5]), ([4], [6, 1, 2, 3]), ([2, seed % 5], [])]
    total, count = model.train(training).loss(**model.collate(pairs))
    wanted = torch.zeros(())
    for source, target in pairs:
        log_probs = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[0, *target]]))[0]
        wanted = wanted + functional.cross_entropy(
            log_probs, torch.tensor([*target, 0]), label_smoothing=smoothing if training else 0.0, reduction="sum"
        )
    torch.testing.assert_close(total, wanted, rtol=fixed("float32"), atol=fixed("float32"))
    assert count == 2 + 4 + 3


def test_a_part_of_a_target_is_below_one() -> None:
    cells = (CellConfig("gru", 6),)
    for smoothing in (1.0, -0.1):
        with pytest.raises(InputError, match="label_smoothing"):
            EncoderDecoderConfig(5, 7, cells, cells, label_smoothing=smoothing)
        with pytest.raises(InputError, match="label_smoothing"):
            Classifier(ReaderConfig(cells, features=2), "abc", label_smoothing=smoothing)
