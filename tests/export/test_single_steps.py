"""A single step of a loop by hand: right, and without nodes that only lay things otherwise."""

from __future__ import annotations

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
from tests.export.rolled import TOLERANCE, exported, streamed

WIDTH = 4
LAYS = ("Concat", "Reshape", "Squeeze", "Unsqueeze", "Split", "Transpose")


class Reads(nn.Module):
    """A loop that reads ``reads`` sequences, with a state of shape ``state`` a row, and tells the state, or more of it."""

    def __init__(self, reads: int, state: tuple[int, ...], tells: str) -> None:
        super().__init__()
        self.made = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(reads))
        self.state, self.tells = state, tells

    def forward(self, x: Tensor) -> Tensor:
        read = [torch.tanh(own(x)) for own in self.made]
        h, found = x.new_zeros(x.shape[0], *self.state), []
        for t in range(x.shape[1]):
            given = [own[:, t].reshape(-1, *self.state) for own in read]
            h = torch.tanh(0.5 * h + given[0] * given[-1])
            told = {"state": h, "product": h * given[-1], "both": torch.cat([given[0], h], 1)}[self.tells]
            found.append(told.reshape(told.shape[0], -1))
        return torch.stack(found, 1)


def _draw(rows: int, steps: int) -> Tensor:
    return torch.randn(rows, steps, WIDTH)


@given(
    reads=st.integers(1, 3),
    state=st.sampled_from([(WIDTH,), (1, WIDTH), (2, 2), (WIDTH, 1)]),
    tells=st.sampled_from(["state", "product", "both"]),
)
@settings(max_examples=12)
def test_one_step_is_what_pytorch_computes(
    tmp_path_factory: pytest.TempPathFactory, reads: int, state: tuple[int, ...], tells: str
) -> None:
    torch.manual_seed(0)
    module, sizes = Reads(reads, state, tells), ((1, 1), (3, 1), (3, 5))
    model, _ = exported(module, tmp_path_factory.mktemp("single"), torch.randn(2, 6, WIDTH), _draw, sizes)
    x = _draw(3, 5)
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(streamed(model, x[1], (1, 1, 2, 1)), wanted[1], **TOLERANCE)


@pytest.mark.parametrize("state", [(WIDTH,), (1, WIDTH)])
def test_one_step_reads_what_was_put_together_as_it_was(tmp_path: Path, state: tuple[int, ...]) -> None:
    export(Reads(3, state, "product").eval(), tmp_path / "m.onnx", torch.randn(2, 6, WIDTH))
    branch = _one_step(onnx.load(tmp_path / "m.onnx").graph)
    laid = [node.op_type for node in branch.node if node.op_type in LAYS]
    # A state [batch, n] has no time: what it is computed with is to have none, and what comes of it is given one.
    assert laid == ([] if len(state) == 2 else ["Squeeze", "Unsqueeze"])


def _one_step(graph: onnx.GraphProto) -> onnx.GraphProto:
    branches = (own.g for node in graph.node for own in node.attribute if own.name == "then_branch")
    return next(branch for branch in branches if "one_step" in branch.name)


class WithAxis(nn.Module):
    """Arithmetic with an axis of 1 before the last."""

    def __init__(self, parts: list[str], *, kept: bool) -> None:
        super().__init__()
        self.parts, self.kept = parts, kept
        self.inner, self.layer = nn.Linear(WIDTH, WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.scale = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        apart = x.unsqueeze(2)
        for part in self.parts:
            before = apart
            if part == "product":
                apart = self.inner(apart)
            elif part == "halves":
                one, other = apart.chunk(2, -1)
                apart = torch.cat([torch.sigmoid(one), other - one], -1)
            elif part == "weights":
                apart = apart * self.scale + before
            elif part == "table":
                apart = apart - apart.transpose(2, 3).sum(2, keepdim=True)
            else:
                apart = torch.where(apart > 0, apart, before * 2)
        given = self.layer(apart.squeeze(2))[0]
        return given + apart.mean(2) if self.kept else given


PARTS = ("product", "halves", "weights", "table", "choice")


@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), kept=st.booleans())
@settings(max_examples=5)
def test_without_the_axis_values_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], kept: bool
) -> None:
    torch.manual_seed(0)
    module, path = WithAxis(parts, kept=kept).eval(), tmp_path_factory.mktemp("axis") / "m.onnx"
    export(module, path, torch.randn(2, 5, WIDTH), streaming=False)
    model = load(path)
    for rows, steps in ((1, 1), (3, 4), (1, 7)):
        x = torch.randn(rows, steps, WIDTH)
        with torch.no_grad():
            wanted = module(x).numpy()
        np.testing.assert_allclose(model.run(x.numpy()), wanted, **TOLERANCE)


def test_the_axis_is_left_out(tmp_path: Path) -> None:
    module = WithAxis(["product", "halves", "weights", "choice"], kept=False).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 5, WIDTH), streaming=False)
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert not {"Reshape", "Unsqueeze", "Squeeze"} & set(kinds[: kinds.index("Where")])
