"""A recurrent model with counted n-grams: better than either, and one file that streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rnncore.export import export_model
from rnncore.models import InterpolatedLanguageModel
from rnncore.runtime import LanguageModel
from rnncore.runtime.errors import InputError
from rnncore.training import interpolate
from tests.tolerances import fixed
from tests.training.small import CORPUS, VOCABULARY, trainer

ORDER = 5


@pytest.fixture(scope="module")
def mixed() -> InterpolatedLanguageModel:
    made = trainer()
    made.run()
    made.model.eval()
    return interpolate(
        made.model, encoded(made.training_texts), encoded(made.held_out_texts), eos_id=VOCABULARY.eos_id, order=ORDER
    )


def encoded(texts: Sequence[str]) -> list[np.ndarray]:
    return [VOCABULARY.encode(text) for text in texts]


def bits(probabilities: torch.Tensor, text: str) -> float:
    asked = torch.tensor([*VOCABULARY.encode(text), VOCABULARY.eos_id])
    return -float(probabilities[0].gather(1, asked[:, None]).log2().sum())


@torch.no_grad()
def test_the_mixture_is_better_than_either_on_the_text_it_was_chosen_by(mixed: InterpolatedLanguageModel) -> None:
    totals = np.zeros(3)
    for text in CORPUS.split().held_out:
        ids = torch.tensor([[VOCABULARY.eos_id, *VOCABULARY.encode(text)]])
        recurrent, counted, _ = mixed.parts(ids)
        totals += [bits(one, text) for one in (mixed(ids).exp(), recurrent.exp(), counted)]
    assert totals[0] < totals[1:].min()
    assert ((mixed.share > 0) & (mixed.share < 1)).all() and mixed.share.shape == (ORDER,)


def test_one_file_scores_streams_and_writes(mixed: InterpolatedLanguageModel, tmp_path: Path) -> None:
    report = export_model(mixed, tmp_path / "mixed.onnx", vocabulary=VOCABULARY)
    assert report.causal and report.signature.pick is not None
    model = LanguageModel.load(tmp_path / "mixed.onnx")
    for text in (CORPUS.texts[0], CORPUS.texts[7][::-1], CORPUS.texts[-1] * 3, ""):
        with torch.no_grad():
            expected = mixed(torch.tensor([[VOCABULARY.eos_id, *VOCABULARY.encode(text)]])).exp()
        found = -model.score(text, eos=True) / np.log(2.0)
        assert found == pytest.approx(bits(expected, text), abs=fixed("float32 score"))
        stepwise = -sum(one.log_prob for one in model.token_scores(text, eos=True)) / np.log(2.0)
        assert stepwise == pytest.approx(found, abs=fixed("float32 score"))
    texts = [CORPUS.texts[3], CORPUS.texts[3][:-4], "the dog", ""]
    side_by_side = model.rescore(texts, eos=True)
    assert side_by_side == pytest.approx([model.score(t, eos=True) for t in texts], abs=fixed("float32 score"))
    (one,) = model.sample(40, seed=3, temperature=0.7, prefix=["the cat"])
    assert one == model.sample(40, seed=3, temperature=0.7, prefix="the cat")


def test_a_folder_holds_it(mixed: InterpolatedLanguageModel, tmp_path: Path) -> None:
    mixed.save_pretrained(tmp_path)
    ids = torch.tensor([[VOCABULARY.eos_id, *VOCABULARY.encode("the cow ran")]])
    with torch.no_grad():
        assert torch.equal(InterpolatedLanguageModel.from_pretrained(tmp_path)(ids), mixed(ids))


def test_what_cannot_be_mixed_is_refused(mixed: InterpolatedLanguageModel) -> None:
    texts = encoded(CORPUS.texts[:3])
    with pytest.raises(InputError, match="held_out has no texts"):
        interpolate(mixed.recurrent, texts, [], eos_id=VOCABULARY.eos_id, order=ORDER)
    with pytest.raises(InputError, match="order is 1, expected at least 2"):
        interpolate(mixed.recurrent, texts, texts, eos_id=VOCABULARY.eos_id, order=1)
