"""Forwards that draw random numbers: refused if an answer depends on one, however seldom; exported if none does."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.verification.random_numbers import UNUSUAL, RandomState, drawing
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

NOUGHT, ONES = UNUSUAL
BOUND = {"rtol": 0, "atol": fixed("float32 two hosts")}


@pytest.mark.parametrize(("word", "expected"), [(NOUGHT, 0.0), (ONES, 1.0)])
def test_unusual_draws_are_the_least_and_the_largest(word: int, expected: float) -> None:
    with drawing(word):
        drawn = [random.random() for _ in range(30)] + [np.random.rand() for _ in range(30)]
    assert all(number == expected or expected - 2**-52 < number < expected for number in drawn)


@pytest.mark.parametrize("word", UNUSUAL)
def test_what_draws_until_something_fits_comes_to_an_end(word: int) -> None:
    with drawing(word):
        for draw in (random.normalvariate, random.gauss, lambda: random.betavariate(0.5, 0.5), np.random.randn):
            assert np.isfinite(draw())  # type: ignore[operator]
        assert 0 <= random.randint(0, 5) <= 5 and 0 <= np.random.randint(6) <= 5


@given(st.integers(0, 2**32 - 1), st.integers(0, 700), st.sampled_from(UNUSUAL))
def test_the_generators_are_as_they_were(seed: int, drawn: int, word: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    for _ in range(drawn):
        random.random(), np.random.randn()
    before = RandomState.now()
    with drawing(word):
        random.random(), np.random.randn()
        assert not RandomState.now().same_but_torch(before)
    assert RandomState.now().same(before)
    wanted = random.Random(seed)
    for _ in range(drawn):
        wanted.random()
    assert random.random() == wanted.random()


class Forced(nn.Module):
    """A decoder that now and then is told the right symbol, with a share of the steps."""

    def __init__(self, share: float, generator: str = "python") -> None:
        super().__init__()
        self.share, self.generator = share, generator
        self.embedding, self.cell, self.out = nn.Embedding(7, 5), nn.GRUCell(5, 6), nn.Linear(6, 7)

    def forward(self, target: Tensor) -> Tensor:  # [batch, time]
        state, token = torch.zeros(len(target), 6), target[:, 0]
        outputs = []
        for step in range(target.shape[1]):
            state = self.cell(self.embedding(token), state)
            outputs.append(self.out(state))
            drawn = random.random() if self.generator == "python" else np.random.rand()
            token = target[:, step] if drawn < self.share else outputs[-1].argmax(1)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("generator", ["python", "numpy"])
def test_a_share_of_nought_is_no_randomness(generator: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Forced(0.0, generator).eval()
    export(module, tmp_path / "m.onnx", torch.randint(7, (2, 6)))
    target = torch.randint(7, (3, 9))
    with torch.no_grad():
        expected = module(target).numpy()
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(target.numpy()), expected, **BOUND)


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.5, 1 - 1e-9])
def test_any_other_share_is_refused(share: float, tmp_path: Path) -> None:
    """As random, or as a loop whose steps differ where one of a recording was told the right symbol by chance."""
    torch.manual_seed(3)
    with pytest.raises(
        ExportError, match=r"^forward is random \(called twice, it answers differently\)|iterations differ"
    ):
        export(Forced(share).eval(), tmp_path / "m.onnx", torch.randint(7, (2, 6)))
    assert not (tmp_path / "m.onnx").exists()
