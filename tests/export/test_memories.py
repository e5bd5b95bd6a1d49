"""Layers of windows and matrix memories in one loop by hand: what is read and kept of every step stays small, and right."""

from __future__ import annotations

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
from rnncore.runtime import load
from tests.export.exporting import all_nodes
from tests.tolerances import fixed

CLOSE = {"rtol": fixed("float32"), "atol": fixed("float32 long")}
INPUT = 3


@dataclass(frozen=True)
class Plan:
    """Of each layer: heads, rows and columns of its memory; how many steps its window has, and how it moves on."""

    heads: int
    rows: int
    columns: int
    window: int
    spelling: str
    layers: int
    spread: bool


class Mixer(nn.Module):
    """A step of Mamba-2 (Dao and Gu 2024) without its norms: S = a S + dt x B', y = S C, of a window over its inputs."""

    def __init__(self, plan: Plan, size: int) -> None:
        super().__init__()
        self.plan = plan
        wide = plan.heads * plan.rows
        self.project = nn.Linear(size, wide + plan.heads)
        self.kernel = nn.Parameter(torch.randn(wide, 1, plan.window) / plan.window)
        self.read = nn.Linear(wide, 2 * plan.columns)
        self.decay = nn.Parameter(torch.rand(plan.heads))
        self.back = nn.Linear(wide, size)

    def start(self, rows: int) -> tuple[Tensor, Tensor]:
        plan = self.plan
        wide = plan.heads * plan.rows
        return torch.zeros(rows, wide, plan.window), torch.zeros(rows, plan.heads, plan.rows, plan.columns)

    def step(self, x: Tensor, window: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        plan = self.plan
        u, dt = self.project(x).split([plan.heads * plan.rows, plan.heads], -1)
        if plan.spelling == "cut, then append":
            window = torch.cat([window[..., 1:], u[..., None]], -1)
        elif plan.spelling == "append, then cut":
            window = torch.cat([window, u[..., None]], -1)[..., -plan.window :]
        else:
            window = torch.roll(window, -1, -1)
            window[..., -1] = u
        seen = nn.functional.conv1d(window, self.kernel, groups=window.shape[1]).squeeze(-1)
        key, query = self.read(seen).tanh().chunk(2, -1)
        dt = nn.functional.softplus(dt)[:, :, None, None]
        if plan.spread:
            dt = dt.expand(-1, -1, plan.rows, plan.columns)
        keep = torch.exp(-dt * self.decay[:, None, None])
        x4 = seen.view(-1, plan.heads, plan.rows, 1)
        memory = keep * memory + dt * x4 * key[:, None, None]
        y = (memory @ query[:, None, :, None]).flatten(1)
        return x + self.back(y).tanh(), window, memory


class Mixers(nn.Module):
    def __init__(self, plan: Plan, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mixer(plan, size) for _ in range(plan.layers))

    def forward(self, x: Tensor) -> Tensor:
        states = [layer.start(x.shape[0]) for layer in self.layers]  # type: ignore[operator]
        found = []
        for t in range(x.shape[1]):
            y = x[:, t]
            for i, layer in enumerate(self.layers):
                y, *own = layer.step(y, *states[i])  # type: ignore[operator]
                states[i] = (own[0], own[1])
            found.append(y)
        return torch.stack(found, 1)


SPELLINGS = ["cut, then append", "append, then cut", "roll"]
plans = st.builds(
    Plan,
    heads=st.integers(1, 3),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    window=st.integers(1, 5),
    spelling=st.sampled_from(SPELLINGS),
    layers=st.integers(1, 2),
    spread=st.booleans(),
)


def check(plan: Plan, path: Path, size: int = INPUT) -> None:
    module = Mixers(plan, size).eval()
    report = export(module, path, torch.randn(2, 6, size))
    assert report.signature.causal
    model = load(path)
    x = torch.randn(3, 40, size)
    with torch.no_grad():
        wanted = module(x).numpy()
        np.testing.assert_allclose(model.run(x.numpy()), wanted, **CLOSE)
        lengths = [40, 1, 17]
        rows = model.run([row[:length].numpy() for row, length in zip(x, lengths, strict=True)])
        for row, length, got in zip(wanted, lengths, rows, strict=True):
            np.testing.assert_allclose(got, row[:length], **CLOSE)
    with model.stream() as stream:
        parts = [stream.push(x[0, start:end].numpy()) for start, end in pairwise([0, 1, 3, 20, 40])]
    np.testing.assert_allclose(np.concatenate(parts), wanted[0], **CLOSE)


@settings(max_examples=2)
@given(plan=plans, seed=st.integers(0, 99))
def test_memories_of_any_shape(plan: Plan, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.manual_seed(seed)
    check(plan, tmp_path_factory.mktemp("memory") / "m.onnx")


def bodies(path: Path) -> list[onnx.GraphProto]:
    return [
        attribute.g
        for node in all_nodes(onnx.load(path).graph)
        for attribute in node.attribute
        if attribute.name == "body" and node.op_type in ("Loop", "Scan")
    ]


def unmasked(path: Path) -> list[set[str]]:
    """The kinds of nodes in each loop over rows of full length."""
    kinds = [{node.op_type for node in body.node} for body in bodies(path)]
    return [own for own in kinds if "Where" not in own]


@pytest.mark.parametrize(("spelling", "spread"), [(SPELLINGS[0], True), (SPELLINGS[1], False)])
def test_of_a_large_memory_no_step_is_kept_and_no_gate_spread(spelling: str, spread: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    plan = Plan(heads=2, rows=40, columns=40, window=4, spelling=spelling, layers=2, spread=spread)
    check(plan, tmp_path / "m.onnx")
    memory = plan.heads * plan.rows * plan.columns
    for body in bodies(tmp_path / "m.onnx"):
        results = [[d.dim_value for d in value.type.tensor_type.shape.dim][1:] for value in body.output]
        sizes = [int(np.prod(shape)) for shape in results if shape and all(shape)]
        assert sizes.count(memory) <= 1, "the memory itself, and nothing that is kept of every step"
        assert not any(node.op_type == "Conv" for node in body.node)
    full = unmasked(tmp_path / "m.onnx")
    assert full, "loops over rows of full length"
    assert not any(kinds & {"Concat", "Slice", "Gemm"} for kinds in full), "windows and projections are outside"


def test_a_small_memory_is_done_in_chunks_and_its_window_without_a_loop(tmp_path: Path) -> None:
    torch.manual_seed(2)
    plan = Plan(heads=4, rows=8, columns=8, window=4, spelling=SPELLINGS[0], layers=2, spread=True)
    check(plan, tmp_path / "m.onnx", size=50)
    chunks = [node for node in all_nodes(onnx.load(tmp_path / "m.onnx").graph) if node.op_type == "CumSum"]
    assert len(chunks) >= 2, "running sums of logarithms, for each layer"
    full = unmasked(tmp_path / "m.onnx")
    assert not any(kinds & {"Concat", "Slice"} for kinds in full)


class Selective(nn.Module):
    """A state space of each channel, with steps that the input chooses (Gu and Dao 2023, "Mamba", algorithm 2)."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(channels, size))
        self.project = nn.Linear(channels, channels + 2 * size)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        dt, write, read = self.project(x).split([x.shape[2], self.size, self.size], -1)
        dt = nn.functional.softplus(dt)
        keep = torch.exp(-dt[..., None] * self.decay)
        put = (dt * x)[..., None] * write[:, :, None]
        h, found = torch.zeros_like(put[:, 0]), []
        for t in range(x.shape[1]):
            h = keep[:, t] * h + put[:, t]
            found.append((h @ read[:, t, :, None]).squeeze(-1))
        return torch.stack(found, 1)


def test_a_loop_reads_values_in_their_shapes(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Selective(40, 4).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, 40), streaming=True)
    full = unmasked(tmp_path / "m.onnx")
    assert any(kinds <= {"Mul", "Add", "MatMul", "Identity"} for kinds in full), full
    x, model = torch.randn(3, 90, 40), load(tmp_path / "m.onnx")
    wanted = module(x).detach().numpy()
    np.testing.assert_allclose(model.run(x.numpy()), wanted, **CLOSE)
    with model.stream() as stream:
        parts = [stream.push(x[0, start:end].numpy()) for start, end in pairwise([0, 1, 3, 40, 90])]
    np.testing.assert_allclose(np.concatenate(parts), wanted[0], **CLOSE)
