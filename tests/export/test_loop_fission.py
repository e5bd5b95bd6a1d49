"""Loops cut into several answer like the one loop that they were: whole, ragged, backwards and in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rnncore
from rnncore.export import export
from rnncore.export.lowering import fission_cut
from rnncore.runtime import load
from tests.export.exporting import all_nodes
from tests.tolerances import fixed

WIDTH = 4
CLOSE = {"rtol": fixed("float32"), "atol": fixed("float32 long")}


@dataclass(frozen=True)
class Plan:
    """What each state is made of: z or nothing, states before the step, states behind it that come earlier; and y."""

    shapes: tuple[tuple[int, ...], ...]
    before: tuple[frozenset[int], ...]
    behind: tuple[frozenset[int], ...]
    blind: frozenset[int]
    result: frozenset[int]
    late: frozenset[int]


class Drawn(rnncore.Cell):
    """A cell by a plan."""

    def __init__(self, plan: Plan) -> None:
        sizes = {f"s{i}": shape if len(shape) > 1 else shape[0] for i, shape in enumerate(plan.shapes)}
        super().__init__(WIDTH, 2, sizes)
        self.plan = plan
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / 2)

    def step(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        plan, new = self.plan, list[Tensor]()
        for i, state in enumerate(states):
            told = (0.3 if i in plan.blind else z[:, i : i + 1]) + sum(
                states[j].flatten(1).mean(1, keepdim=True) for j in sorted(plan.before[i])
            )
            told = told - sum(new[j].flatten(1).sum(1, keepdim=True) for j in sorted(plan.behind[i]) if j < i)
            told = torch.tanh(told + torch.zeros_like(state.flatten(1)[:, :1])).reshape(-1, *[1] * (state.dim() - 1))
            own = state * 0.5 if i in plan.before[i] else torch.zeros_like(state)
            new.append(own + told if state.dim() > 2 else torch.tanh((own + told) @ self.weight))
        y = sum(new[j].flatten(1).mean(1, keepdim=True) for j in plan.result)
        y = y + sum(states[j].flatten(1).amax(1, keepdim=True) for j in plan.late)
        return (torch.cat([y + z[:, :1], y * z[:, 1:2]], 1), *new)


class SideBySide(nn.Module):
    """Cells that read the same, each forwards and the first backwards as well."""

    def __init__(self, plans: list[Plan], *, both_ways: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(rnncore.Recurrent(Drawn(plan)) for plan in plans)
        self.backwards = rnncore.Recurrent(Drawn(plans[0]), reverse=True) if both_ways else None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        found = [layer(x, lengths=lengths)[0] for layer in self.layers]
        if self.backwards is not None:
            found.append(self.backwards(x, lengths=lengths)[0])
        return torch.cat(found, -1)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(2, 4))
    shapes = draw(st.lists(st.sampled_from([(WIDTH,), (WIDTH,), (2, 3), (1, 1, 2)]), min_size=count, max_size=count))
    some = st.frozensets(st.integers(0, count - 1), max_size=2)
    before = draw(st.lists(some, min_size=count, max_size=count))
    behind = draw(st.lists(some, min_size=count, max_size=count))
    return Plan(tuple(shapes), tuple(before), tuple(behind), draw(some), draw(some), draw(some))


@settings(max_examples=2)
@given(
    drawn=st.lists(plans(), min_size=6, max_size=6),
    both_ways=st.booleans(),
    pays=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_loop_that_is_cut_answers_as_before(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Plan], both_ways: bool, pays: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    module = SideBySide(drawn, both_ways=both_ways).eval()
    path = tmp_path_factory.mktemp("fission") / "m.onnx"
    x, lengths = torch.randn(3, 9, WIDTH), torch.tensor([9, 1, 6])
    with patch.object(fission_cut, "_GROWTH", 100), patch.object(fission_cut, "_LOOP_COST", 2 if pays else -100):
        export(module, path, (x, lengths), streaming=not both_ways)
    model = load(path)
    with torch.no_grad():
        for own in (lengths, torch.tensor([2, 5, 5]), torch.tensor([9, 9, 9])):
            wanted = module(x, own).numpy()
            np.testing.assert_allclose(model.run(x.numpy(), lengths=own.numpy()), wanted, **CLOSE)
        for row, length in ((0, 9), (1, 1), (2, 4)):
            wanted = module(x[row : row + 1, :length], torch.tensor([length]))[0].numpy()
            np.testing.assert_allclose(model.run(x[row : row + 1, :length].numpy())[0], wanted, **CLOSE)
            if not both_ways:
                ends = sorted({0, length // 3, length - 1, length})
                with model.stream() as stream:
                    parts = [stream.push(x[row, start:end].numpy()) for start, end in pairwise(ends)]
                np.testing.assert_allclose(np.concatenate(parts), wanted, **CLOSE)


class Memory(nn.Module):
    """A matrix memory with its exponents kept in bounds, as people write it (mLSTM, Beck et al. 2024, equations 19 to 27)."""

    def __init__(self, *, mixes: bool = False) -> None:
        super().__init__()
        self.mixes = mixes

    def forward(self, k: Tensor, f: Tensor, i: Tensor) -> Tensor:
        m, n = f.new_zeros(f.shape[0], 1), k.new_zeros(k.shape[0], k.shape[2])
        c = k.new_zeros(*n.shape, k.shape[2])
        found = []
        for t in range(k.shape[1]):
            forget = nn.functional.logsigmoid(f[:, t]) + m
            m = torch.maximum(forget, i[:, t])
            keep, write = torch.exp(forget - m), torch.exp(i[:, t] - m)
            n = keep * n + write * k[:, t]
            c = keep[..., None] * c + write[..., None] * k[:, t, :, None] * k[:, t, None]
            found.append((c @ k[:, t, :, None]).squeeze(-1) / n.abs().clamp(min=1.0))
        return torch.stack(found, 1)


def kinds_in_loops(path: Path) -> list[set[str]]:
    bodies = [
        attribute.g
        for node in all_nodes(onnx.load(path).graph)
        for attribute in node.attribute
        if attribute.name == "body" and node.op_type in ("Loop", "Scan")
    ]
    return [{node.op_type for node in body.node} for body in bodies]


def test_of_a_matrix_memory_only_sums_stay_in_the_loops(tmp_path: Path) -> None:
    module = Memory()
    example = (torch.randn(2, 7, 4), torch.randn(2, 7, 1), torch.randn(2, 7, 1))
    export(module, tmp_path / "m.onnx", example, streaming=True)
    bodies = kinds_in_loops(tmp_path / "m.onnx")
    assert bodies and not any("Exp" in kinds for kinds in bodies)
    assert {"Add", "Max"} in [kinds - {"Identity"} for kinds in bodies]
    model = load(tmp_path / "m.onnx")
    whole = (torch.randn(2, 200, 4), torch.randn(2, 200, 1), 5 * torch.randn(2, 200, 1))
    np.testing.assert_allclose(model.run(*(value.numpy() for value in whole)), module(*whole), **CLOSE)


class TwoLayers(nn.Module):
    """Two layers in one loop, over rows that know of each other or not."""

    def __init__(self, *, mixes: bool) -> None:
        super().__init__()
        self.lower, self.upper = nn.GRUCell(3, 64), nn.GRUCell(64, 64)
        self.mixes = mixes

    def forward(self, x: Tensor) -> Tensor:
        h = g = x.new_zeros(x.shape[0], 64)
        found = []
        for t in range(x.shape[1]):
            h = self.lower(x[:, t], h)
            g = self.upper(h - h.mean(0, keepdim=True) if self.mixes else h, g)
            found.append(g)
        return torch.stack(found, 1)


def test_the_upper_of_two_layers_reads_the_lower_all_at_once(tmp_path: Path) -> None:
    module = TwoLayers(mixes=False).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, 3))
    products = [
        sum(node.op_type == "Gemm" for node in attribute.g.node)
        for node in all_nodes(onnx.load(tmp_path / "m.onnx").graph)
        for attribute in node.attribute
        if attribute.name == "body"
    ]
    assert products and max(products) == 1, "the product with the state; both had three in one loop"
    x = torch.randn(2, 60, 3)
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(x.numpy()), module(x).detach(), **CLOSE)


class Decay(nn.Module):
    """A running mean that forgets, with a matrix at its state or without."""

    def __init__(self, *, matrix: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4) if matrix else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 4)
        found = []
        for t in range(x.shape[1]):
            h = 0.5 * torch.tanh(self.inner(h)) + x[:, t]
            found.append(h)
        return torch.stack(found, 1)


@pytest.mark.parametrize("matrix", [False, True])
def test_steps_without_matrices_are_scans(matrix: bool, tmp_path: Path) -> None:
    module = Decay(matrix=matrix).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, 4))
    found = {node.op_type for node in all_nodes(onnx.load(tmp_path / "m.onnx").graph)} & {"Loop", "Scan"}
    assert found == {"Loop" if matrix else "Scan"}
    x = torch.randn(3, 60, 4)
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(x.numpy()), module(x).detach(), **CLOSE)
