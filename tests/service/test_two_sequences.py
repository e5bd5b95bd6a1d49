"""Lists of models whose inputs have sequence axes of their own: each answer is as long as its own sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import Model, load
from tests.tolerances import fixed


class Reader(nn.Module):
    """Answers along both of its sequences, and once for each pair of them."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.words, self.both = nn.LSTM(4, 5, batch_first=True), nn.Linear(3, 2), nn.Linear(7, 1)

    def forward(self, x: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, time, 5], [batch, words, 2], [batch, 1]."""
        frames, read = self.frames(x)[0], self.words(words)
        return frames, read, self.both(torch.cat([frames[:, -1], read.amax(1)], 1))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The exported file, loaded."""
    path = Path(tmp_path_factory.mktemp("two")) / "reader.onnx"
    torch.manual_seed(0)
    export(Reader(), path, (torch.randn(2, 7, 4), torch.randn(2, 9, 3)))
    return load(path)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4)), min_size=1, max_size=6), seed=st.integers(0, 99)
)
def test_each_answer_is_as_long_as_its_own_sequence(reader: Model, sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(steps, 4)).astype(np.float32) for steps, _ in sizes]
    words = [rng.normal(size=(8 * count, 3)).astype(np.float32) for _, count in sizes]
    answers = reader.run(x, words)
    for i, (one, other) in enumerate(zip(x, words, strict=True)):
        alone = reader.run(one[None], other[None])
        for name, value in alone.items():
            assert answers[name][i].shape == value[0].shape, name
            np.testing.assert_allclose(answers[name][i], value[0], atol=fixed("float32 two hosts"))
