"""``cummax`` and ``cummin`` over time, for which ONNX has no operator: values and places are torch's, whole and in chunks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.rolling.cells import CELLS
from rnncore.runtime import Model, load
from tests.tolerances import fixed

SIZE = 3
UNUSUAL = st.sampled_from([-math.inf, math.inf, math.nan, 0.0, float(np.finfo(np.float32).min)])


class Extremes(nn.Module):
    """What was largest and smallest so far, where, and of ids."""

    def forward(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        largest, smallest = x.cummax(1), torch.cummin(x, dim=-2)
        return {"most": largest[0], "where": largest.indices, "least": smallest.values, "id": ids.cummin(1)[0]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("extremes") / "m.onnx"
    report = export(Extremes(), path, (torch.randn(2, 5, SIZE), torch.randint(9, (2, 5))))
    assert report.causal
    return load(path)


@given(
    steps=st.integers(1, 40),
    unusual=st.lists(st.tuples(st.integers(0, 39), st.integers(0, SIZE - 1), UNUSUAL), max_size=4),
    whole_numbers=st.booleans(),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 99),
)
def test_extremes_are_torchs(
    model: Model,
    steps: int,
    unusual: list[tuple[int, int, float]],
    whole_numbers: bool,
    cuts: list[int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x, ids = rng.standard_normal((steps, SIZE)).astype(np.float32), rng.integers(0, 9, steps)
    x = x.round() if whole_numbers else x  # many are equal: the last place counts
    for t, column, value in unusual:
        x[t % steps, column] = value
    wanted = {
        name: value[0].numpy() for name, value in Extremes()(torch.tensor(x)[None], torch.tensor(ids)[None]).items()
    }
    ends = sorted({min(cut, steps) for cut in cuts} | {0, steps})
    with model.stream() as stream:
        parts = [stream.push(x[start:end], ids[start:end]) for start, end in pairwise(ends)]
    for found in (
        {name: value[0] for name, value in model.run(x[None], ids[None]).items()},
        {name: np.concatenate([part[name] for part in parts]) for name in wanted},
    ):
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@given(data=st.data(), name=st.sampled_from(["cummax", "cummin"]), dim=st.integers(-3, 2))
def test_written_out_they_are_torchs(data: st.DataObject, name: str, dim: int) -> None:
    numbers = st.one_of(st.integers(-3, 3).map(float), UNUSUAL)
    x = torch.tensor(data.draw(st.lists(numbers, min_size=12, max_size=12))).reshape(2, 3, 2)
    for values in (x, x.nan_to_num(0, 0, 0).clamp(-9, 9).long()):
        found, wanted = CELLS[name](values, dim), getattr(torch, name)(values, dim)
        torch.testing.assert_close(found.values, wanted.values, rtol=0, atol=fixed("float64 last bit"), equal_nan=True)
        assert torch.equal(found.indices, wanted.indices)
