"""Whole numbers that loops read, carry and give come out as they went in, however large; places along axes stay float32."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import Model, load
from tests.tolerances import fixed

MOST = 2**53 - 1


class Counters(nn.Module):
    """What milliseconds, identifiers and numbers of bytes do in loops that people write, beside a state of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        total, last, most = (ids.new_zeros(ids.shape[0]) for _ in range(3))
        h, found = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            total = total + ids[:, t] % 1000000
            last = torch.where(h[:, 0] > 0, ids[:, t], last)
            most = torch.maximum(most, ids[:, t])
            found.append((h, total, last, most))
        names = ("h", "total", "last", "most")
        return {name: torch.stack(values, 1) for name, values in zip(names, zip(*found, strict=True), strict=True)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counters, Model]:
    path = tmp_path_factory.mktemp("counters") / "m.onnx"
    torch.manual_seed(0)
    module = Counters().eval()
    report = export(module, path, (torch.randn(2, 5, 4), torch.randint(9, (2, 5))))
    assert report.causal
    return module, load(path)


@given(
    ids=st.lists(
        st.one_of(st.integers(0, 9), st.integers(2**24 - 2, 2**24 + 9), st.integers(0, MOST)), min_size=1, max_size=30
    ),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    seed=st.integers(0, 99),
)
def test_no_number_is_rounded(exported: tuple[Counters, Model], ids: list[int], cuts: list[int], seed: int) -> None:
    module, model = exported
    x, numbers = np.random.default_rng(seed).standard_normal((len(ids), 4)).astype(np.float32), np.array(ids)
    with torch.no_grad():
        answer = module(torch.tensor(x)[None], torch.tensor(numbers)[None])
    wanted = {name: value[0].numpy() for name, value in answer.items()}
    ends = sorted({min(cut, len(ids)) for cut in cuts} | {0, len(ids)})
    with model.stream() as stream:
        parts = [stream.push(x[start:end], numbers[start:end]) for start, end in pairwise(ends)]
    for found in (
        {name: value[0] for name, value in model.run(x[None], numbers[None]).items()},
        {name: np.concatenate([part[name] for part in parts]) for name in wanted},
    ):
        np.testing.assert_allclose(found["h"], wanted["h"], atol=fixed("float32"))
        for name in ("total", "last", "most"):
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


class Greedy(nn.Module):
    """A decoder that feeds back what it chose: a place along an axis, which float32 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.head = nn.Embedding(7, 4), nn.GRUCell(4, 5), nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        h, chosen, found = x.new_zeros(x.shape[0], 5), torch.zeros(x.shape[0], dtype=torch.long), []
        for t in range(x.shape[1]):
            h = self.cell(self.table(chosen) + x[:, t], h)
            chosen = torch.where(h[:, 0] > 0.9, 1, self.head(h).argmax(-1))
            found.append(chosen)
        return torch.stack(found, 1)


def test_places_along_an_axis_cost_no_wider_floats(tmp_path: Path) -> None:
    export(Greedy().eval(), tmp_path / "m.onnx", torch.randn(2, 5, 4))
    kinds = {value.type.tensor_type.elem_type for value in onnx.load(tmp_path / "m.onnx").graph.input}
    assert onnx.TensorProto.FLOAT in kinds and onnx.TensorProto.DOUBLE not in kinds


class Halves(nn.Module):
    """Counts steps, in a loop of 16-bit floats, which hold no number beyond 2048 and its neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        h, found = x.new_zeros(x.shape[0], 2), []
        for t in range(x.shape[1]):
            h = torch.where(torch.remainder(torch.zeros_like(h, dtype=torch.long) + t, 2) == 0, x[:, t], h)
            found.append(h)
        return torch.stack(found, 1)


class Wider(nn.Module):
    """Sums up 16-bit floats in 32 bits, and the times of steps in 64."""

    def forward(self, x: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        total, elapsed, found = x.new_zeros(x.shape[0], 2).float(), seconds.new_zeros(x.shape[0]), []
        for t in range(x.shape[1]):
            total = total + (2 * x[:, t]).float()
            elapsed = elapsed + seconds[:, t]
            found.append((total, elapsed))
        return torch.stack([one for one, _ in found], 1), torch.stack([one for _, one in found], 1)


def test_a_loop_holds_the_widest_of_its_floats(tmp_path: Path) -> None:
    export(Wider(), tmp_path / "m.onnx", (torch.randn(2, 5, 2).half(), torch.rand(2, 5, dtype=torch.float64)))
    x, seconds = torch.randn(1, 900, 2).half(), torch.rand(1, 900, dtype=torch.float64) * 1e9
    found = load(tmp_path / "m.onnx").run(x.numpy(), seconds.numpy())
    wanted = Wider()(x, seconds)
    np.testing.assert_allclose(found["output_0"], wanted[0], rtol=fixed("float32"), atol=fixed("float32"))
    np.testing.assert_allclose(found["output_1"], wanted[1], rtol=fixed("float64"))


def test_steps_are_counted_beyond_what_16_bits_hold(tmp_path: Path) -> None:
    export(Halves(), tmp_path / "m.onnx", torch.randn(2, 5, 2).half())
    x = torch.randn(1, 2060, 2).half()
    np.testing.assert_array_equal(load(tmp_path / "m.onnx").run(x.numpy()), Halves()(x).numpy())
