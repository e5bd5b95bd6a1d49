"""Word-level and subword models from PyTorch to the file; adaptive softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from rnncore import CellConfig, LanguageModel, LanguageModelConfig
from rnncore.runtime import InputError
from rnncore.runtime import LanguageModel as RuntimeLanguageModel
from rnncore.text import Vocabulary, word_vocabulary
from rnncore.training import evaluate
from tests.language_models import exported
from tests.tolerances import bound, fixed

TEXTS = ("the red cat saw the dog", "a dog ran, and the cat sat", "red dogs see a cat.")
WORDS = word_vocabulary(TEXTS)
CUTOFFS = (5, 11)
CONFIG = LanguageModelConfig(len(WORDS), 5, (CellConfig.named("lstm", 13),), cutoffs=CUTOFFS)


def make(seed: int = 5) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return model


@pytest.fixture(scope="module")
def loaded() -> RuntimeLanguageModel:
    return RuntimeLanguageModel.load(exported(make(), WORDS))


@given(st.integers(0, 99), st.floats(0.0, 1.0))
def test_adaptive_softmax_is_torchs_own_and_its_loss_that_of_all_log_probabilities(seed: int, padded: float) -> None:
    model = make(seed).double()
    ids, targets = torch.randint(len(WORDS), (2, 3, 7))
    targets = torch.where(torch.rand(3, 7) < padded, -1, targets)
    y, _ = model.stack(model.embedding(ids))
    log_probs = model(ids)
    expected = model.head.log_prob(y.flatten(0, 1)).view(3, 7, len(WORDS))
    torch.testing.assert_close(log_probs, expected)
    loss, terms = model.loss(ids, targets)
    wanted = functional.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    assert terms == int((targets >= 0).sum())
    loss.backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoffs": (5, 5)}, r"cutoffs are \(5, 5\), expected rising numbers from 1 to 12"),
        ({"cutoffs": (13,)}, "expected rising numbers"),
        ({"cutoffs": (5,), "tied": True}, "tied weights need one matrix"),
    ],
)
def test_cutoffs_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LanguageModelConfig(13, 7, (CellConfig.named("lstm", 7),), **options)


def test_the_configuration_keeps_cutoffs_in_json() -> None:
    assert LanguageModelConfig.from_json(CONFIG.to_json()) == CONFIG


@given(st.lists(st.sampled_from(["the", "cat", "red", "zebra", "ran", ",", "."]), min_size=1, max_size=9).map(" ".join))
def test_the_file_scores_as_pytorch_and_by_the_product_of_conditionals(loaded: RuntimeLanguageModel, text: str) -> None:
    ids = WORDS.encode(text)
    expected = evaluate(make(), [ids], WORDS.eos_id)
    limit = (len(ids) + 1) * bound("float32", "chunked", depth=3, length=len(ids) + 1, magnitude=30)
    scores = loaded.token_scores(text, eos=True)
    assert len(scores) == len(ids) + 1
    assert math.fsum(one.log_prob for one in scores) == pytest.approx(expected.log_prob, abs=limit)
    assert loaded.score(text, eos=True) == pytest.approx(expected.log_prob, abs=limit)
    unknown = [one.token for one in scores[:-1] if one.token == "<unk>"]
    assert len(unknown) == text.count("zebra")
    product = math.prod(math.exp(one.log_prob) for one in scores[:-1])
    assert loaded.perplexity(text) == pytest.approx(product ** (-1 / len(ids)), rel=fixed("float32 long"))
    assert loaded.perplexity(text, per="character") == pytest.approx(
        product ** (-1 / len(text)), rel=fixed("float32 long")
    )


def test_perplexity_is_per_token_or_character(loaded: RuntimeLanguageModel) -> None:
    with pytest.raises(InputError, match="per is 'word', expected 'token' or 'character'"):
        loaded.perplexity("the cat", per="word")


def test_decode_gives_readable_text(loaded: RuntimeLanguageModel) -> None:
    text = "a dog ran, and the zebra sat."
    assert loaded.decode(loaded.encode(text)) == text.replace("zebra", "<unk>")
    assert " " in loaded.sample(20, seed=3)


@pytest.mark.slow
def test_subwords_run_too() -> None:
    from rnncore.text import subword_vocabulary

    vocabulary = subword_vocabulary(TEXTS, 270)
    torch.manual_seed(3)
    model = LanguageModel(LanguageModelConfig(len(vocabulary), 5, (CellConfig.named("gru", 7),))).eval()
    loaded = RuntimeLanguageModel.load(exported(model, vocabulary))
    text = "the zebra, 中"
    expected = evaluate(model, [vocabulary.encode(text)], vocabulary.eos_id)
    assert loaded.score(text, eos=True) == pytest.approx(expected.log_prob, rel=fixed("float32 long"))
    assert loaded.decode(loaded.encode(text)) == text
    assert isinstance(loaded.vocabulary, Vocabulary)
    assert np.isfinite(loaded.perplexity(text))
