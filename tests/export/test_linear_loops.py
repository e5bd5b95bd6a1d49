"""Loops whose states are carried linearly answer by blocks and chunks of steps as PyTorch does step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import Model, load
from tests.export.exporting import all_nodes
from tests.tolerances import fixed

WIDTH = 6
LONG = 75  # more than two chunks of steps
CLOSE = fixed("float32 long")


def _lerp(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return torch.lerp(h, new, z)


def _towards(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return h + z * (new - h)


def _against(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return (new - (1 - z) * h) / 2


def _reset(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return (z > 0.4) * h - -new


def _highest(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return torch.maximum(h - z, new)


def _lowest(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return torch.minimum(new, z + h)


def _summed(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return new * z + h


def _fading(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return 0.9 * h + 0.1 * new


def _growing(h: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return h * (1.01 - z / 50) + new


CARRIES = (_lerp, _towards, _against, _reset, _highest, _lowest, _summed, _fading, _growing)


class Carried(nn.Module):
    """States that are carried one by one; each reads the one before it, or none does."""

    def __init__(self, carries: list[int], *, late: bool, apart: bool = False) -> None:
        super().__init__()
        self.carries, self.late, self.apart = carries, late, apart
        self.gates = nn.Linear(WIDTH, WIDTH * len(carries))
        self.news = nn.Linear(WIDTH, WIDTH * len(carries))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        gates, news = torch.sigmoid(self.gates(x)), self.news(x)
        states = [torch.zeros_like(x[:, 0]) for _ in self.carries]
        given = []
        for t in range(x.shape[1]):
            before = list(states)
            for i, carry in enumerate(self.carries):
                part = slice(i * WIDTH, (i + 1) * WIDTH)
                new = news[:, t, part] + (torch.tanh(states[i - 1]) if i and not self.apart else 0)
                states[i] = CARRIES[carry](states[i], gates[:, t, part], new)
            given.append(torch.cat([*states, *(before if self.late else [])], -1))
        return torch.stack(given, 1)


@dataclass(frozen=True)
class Shape:
    """Of a matrix memory: by which spelling it is written and read, and what fades."""

    heads: int
    rows: int
    columns: int
    fades: str
    spelling: str
    by_rows: bool
    normed: bool


class MatrixMemory(nn.Module):
    """A memory of heads, written to by outer products, and read by a query (Katharopoulos et al. 2020, Sun et al. 2023)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        h, n, m = shape.heads, shape.rows, shape.columns
        self.keys, self.values = nn.Linear(WIDTH, h * n), nn.Linear(WIDTH, h * m)
        self.queries, self.fading = nn.Linear(WIDTH, h * (n if shape.by_rows else m)), nn.Linear(WIDTH, h)
        self.fixed = nn.Parameter(1 - 2.0 ** (-2 - torch.arange(h)))

    def forward(self, x: Tensor) -> Tensor:
        own = self.shape
        b, steps, _ = x.shape
        k, v = self.keys(x).view(b, steps, own.heads, -1), self.values(x).view(b, steps, own.heads, -1)
        q, f = self.queries(x).view(b, steps, own.heads, -1), torch.sigmoid(self.fading(x))
        memory, sums = x.new_zeros(b, own.heads, own.rows, own.columns), x.new_zeros(b, own.heads, own.rows)
        given = []
        for t in range(steps):
            a = {
                "gates": f[:, t],
                "resets": (f[:, t] > 0.4).to(x.dtype),
                "signs": 2 * f[:, t] - 1,
                "weights": self.fixed.expand(b, -1),
                "nothing": torch.ones_like(f[:, t]),
            }[own.fades]
            if own.spelling == "einsum":
                outer = torch.einsum("bhn,bhm->bhnm", k[:, t], v[:, t])
            elif own.spelling == "matmul":
                outer = k[:, t].unsqueeze(-1) @ v[:, t].unsqueeze(-2)
            else:
                outer = k[:, t, :, :, None] * (v[:, t] * (1 - f[:, t])[..., None])[:, :, None]
            memory = memory + outer if own.fades == "nothing" else a[..., None, None] * memory + outer
            sums = a[..., None] * sums + k[:, t]
            if own.spelling == "einsum":
                y = torch.einsum("bhn,bhnm->bhm" if own.by_rows else "bhm,bhnm->bhn", q[:, t], memory)
            elif own.spelling == "matmul" or own.by_rows:
                y = (
                    (q[:, t].unsqueeze(-2) @ memory).squeeze(-2)
                    if own.by_rows
                    else (memory @ q[:, t].unsqueeze(-1)).squeeze(-1)
                )
            else:
                y = (memory * q[:, t, :, None]).sum(-1)
            if own.normed:
                y = y / (1 + sums.abs().sum(-1, keepdim=True))
            given.append(y.flatten(1))
        return torch.stack(given, 1)


def _check(module: nn.Module, model: Model, seed: int, *, lengths: bool) -> None:
    """Whole, at lengths around those of blocks and chunks, rows of their own lengths, and streamed in drawn chunks."""
    generator = torch.Generator().manual_seed(seed)
    for rows, steps in ((1, 1), (1, 15), (2, 16), (1, 32), (3, 33), (1, LONG)):
        x = torch.randn(rows, steps, WIDTH, generator=generator)
        with torch.no_grad():
            _compare(model.run(x.numpy()), module(x).numpy())
    x = torch.randn(3, LONG, WIDTH, generator=generator)
    with torch.no_grad():
        wanted = module(x).numpy()
    if lengths:
        own = np.array([LONG, 40, 3])
        padded = x.numpy().copy()
        padded[1, 40:], padded[2, 3:] = math.nan, math.inf
        for row, (got, length) in enumerate(zip(model.run(padded, lengths=own), own, strict=True)):
            _compare(got[:length], wanted[row, :length])
    ends = sorted({0, LONG, *torch.randint(LONG, (3,), generator=generator).tolist()})
    with model.stream() as stream:
        parts = [stream.push(x[0, start:end].numpy()) for start, end in pairwise(ends)]
    _compare(np.concatenate(parts), wanted[0])


def _compare(got: np.ndarray, wanted: np.ndarray) -> None:
    largest = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got, wanted, rtol=CLOSE, atol=CLOSE * largest)


@settings(max_examples=3)
@given(
    carries=st.lists(st.sampled_from(range(len(CARRIES))), min_size=1, max_size=3),
    late=st.booleans(),
    apart=st.booleans(),
    seed=st.integers(0, 99),
)
def test_states_that_are_carried_linearly(
    tmp_path_factory: pytest.TempPathFactory, carries: list[int], late: bool, apart: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    module = Carried(carries, late=late, apart=apart).eval()
    path = tmp_path_factory.mktemp("carried") / "m.onnx"
    export(module, path, torch.randn(2, 7, WIDTH))
    _check(module, load(path), seed, lengths=_takes_lengths(path))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    return Shape(
        heads=draw(st.integers(1, 3)),
        rows=draw(st.sampled_from([4, 24, 32])),
        columns=draw(st.sampled_from([5, 24, 32])),
        fades=draw(st.sampled_from(["gates", "resets", "signs", "weights", "nothing"])),
        spelling=draw(st.sampled_from(["einsum", "matmul", "products"])),
        by_rows=draw(st.booleans()),
        normed=draw(st.booleans()),
    )


@settings(max_examples=3)
@given(shape=shapes(), seed=st.integers(0, 99))
def test_memories_that_are_written_to_by_outer_products(
    tmp_path_factory: pytest.TempPathFactory, shape: Shape, seed: int
) -> None:
    torch.manual_seed(seed)
    module = MatrixMemory(shape).eval()
    path = tmp_path_factory.mktemp("memory") / "m.onnx"
    export(module, path, torch.randn(2, 7, WIDTH))
    _check(module, load(path), seed, lengths=_takes_lengths(path))


def _takes_lengths(path: Path) -> bool:
    return any(value.name == "lengths" for value in onnx.load(path).graph.input)


def _put_together(path: Path) -> int:
    """How many branches put steps together."""
    nodes = all_nodes(onnx.load(path).graph)
    return sum("/together" in a.g.name for node in nodes for a in node.attribute if a.name == "then_branch")


def test_each_way_of_carrying_is_put_together(tmp_path: Path) -> None:
    for carry in range(len(CARRIES)):
        export(Carried([carry], late=True).eval(), tmp_path / "m.onnx", torch.randn(2, 7, WIDTH), verify=False)
        assert _put_together(tmp_path / "m.onnx"), CARRIES[carry].__name__


@pytest.mark.parametrize(("spelling", "by_rows"), [("matmul", True), ("matmul", False), ("products", False)])
def test_memories_are_put_together(tmp_path: Path, spelling: str, by_rows: bool) -> None:
    module = MatrixMemory(Shape(2, 32, 32, "gates", spelling, by_rows, normed=True)).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, WIDTH))
    assert _put_together(tmp_path / "m.onnx")
    _check(module, load(tmp_path / "m.onnx"), 0, lengths=_takes_lengths(tmp_path / "m.onnx"))


def test_states_side_by_side(tmp_path: Path) -> None:
    module = Carried([1, 6, 3], late=False, apart=True).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, WIDTH))
    assert _put_together(tmp_path / "m.onnx")
    _check(module, load(tmp_path / "m.onnx"), 0, lengths=_takes_lengths(tmp_path / "m.onnx"))


def test_what_is_not_a_number_is_not_given_to_steps_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = MatrixMemory(Shape(2, 32, 32, "gates", "matmul", by_rows=True, normed=False)).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, WIDTH))
    x = torch.randn(1, 40, WIDTH)
    x[0, 20, 0] = math.nan
    got = load(tmp_path / "m.onnx").run(x.numpy())
    with torch.no_grad():
        _compare(got[:, :20], module(x)[:, :20].numpy())
    assert np.isnan(got[:, 20:]).all()


class WholeMemory(nn.Module):
    """Numbers of heads that fade alike and are written to by anything; all of them are told, with sums that fade as well."""

    def __init__(self, heads: int, rows: int, columns: int, fades: str) -> None:
        super().__init__()
        self.sizes, self.fades = (heads, rows, columns), fades
        self.written, self.summed = nn.Linear(WIDTH, heads * rows * columns), nn.Linear(WIDTH, heads * rows)
        self.fading = nn.Linear(WIDTH, heads)

    def forward(self, x: Tensor) -> Tensor:
        heads, rows, columns = self.sizes
        new, more, a = torch.tanh(self.written(x)), self.summed(x), torch.sigmoid(self.fading(x))
        a = {"gates": a, "resets": (a > 0.4).to(x.dtype), "signs": 2 * a - 1}[self.fades]
        memory, sums = x.new_zeros(x.shape[0], *self.sizes), x.new_zeros(x.shape[0], heads, rows)
        given = []
        for t in range(x.shape[1]):
            memory = a[:, t, :, None, None] * memory + new[:, t].view(-1, heads, rows, columns)
            sums = a[:, t, :, None] * sums + more[:, t].view(-1, heads, rows)
            given.append(torch.cat([memory.flatten(1), sums.flatten(1)], -1))
        return torch.stack(given, 1)


@pytest.mark.parametrize("fades", ["gates", "resets", "signs"])
def test_memories_that_are_written_to_by_anything(tmp_path: Path, fades: str) -> None:
    torch.manual_seed(0)
    module = WholeMemory(2, 8, 16, fades).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, WIDTH))
    assert _put_together(tmp_path / "m.onnx")
    _check(module, load(tmp_path / "m.onnx"), 0, lengths=_takes_lengths(tmp_path / "m.onnx"))


def test_large_memories_that_are_written_to_by_anything_stay_loops(tmp_path: Path) -> None:
    module = WholeMemory(1, 32, 32, "gates").eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, WIDTH), verify=False)
    assert not _put_together(tmp_path / "m.onnx")
