"""What stands between two exchanges of rows and steps is computed as it lies, and gives the same."""

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
from tests.tolerances import fixed

WIDTH = 6


class TimeFirst(nn.Module):
    """Arithmetic, products, sums and other shapes with time first; some of it is read with time first as well."""

    def __init__(self, parts: list[str], *, kept: bool) -> None:
        super().__init__()
        self.parts, self.kept = parts, kept
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.layer = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.scale = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(0, 1)
        for part in self.parts:
            before = turned
            if part == "product":
                turned = self.inner(turned)
            elif part == "heads":
                heads = turned.reshape(*turned.shape[:2], 2, WIDTH // 2)
                turned = torch.softmax(heads * 2, -1).sum(-1, keepdim=True).mul(heads).flatten(2)
            elif part == "halves":
                one, other = turned.chunk(2, -1)
                turned = torch.cat([torch.sigmoid(one), other - one], -1)
            elif part == "weights":
                turned = turned * self.scale + before
            elif part == "steps":
                turned = turned - turned.mean(0, keepdim=True).mean() * 0
            else:
                turned = torch.where(turned > 0, turned, before.mean(-1, keepdim=True))
        given = self.layer(turned.transpose(0, 1))[0]
        return torch.cat([given, given * turned.mean(-1).t().unsqueeze(-1)], -1) if self.kept else given


PARTS = ("product", "heads", "halves", "weights", "steps", "choice")


@settings(max_examples=4)
@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), kept=st.booleans())
def test_values_are_the_same(tmp_path_factory: pytest.TempPathFactory, parts: list[str], kept: bool) -> None:
    torch.manual_seed(0)
    module = TimeFirst(parts, kept=kept).eval()
    path = tmp_path_factory.mktemp("turns") / "m.onnx"
    export(module, path, torch.randn(2, 5, WIDTH), streaming=False)
    model = load(path)
    for rows, steps in ((1, 1), (3, 4), (4, 3), (1, 7)):
        x = torch.randn(rows, steps, WIDTH)
        with torch.no_grad():
            wanted = module(x).numpy()
        np.testing.assert_allclose(model.run(x.numpy()), wanted, rtol=fixed("float32"), atol=fixed("float32"))


def test_nothing_is_turned_that_need_not_be(tmp_path: Path) -> None:
    module = TimeFirst(["product", "halves", "weights", "choice"], kept=False).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 5, WIDTH), streaming=False)
    attributes = [own for node in onnx.load(tmp_path / "m.onnx").graph.node for own in node.attribute]
    assert [1, 0, 2] not in [list(own.ints) for own in attributes if own.name == "perm"]
