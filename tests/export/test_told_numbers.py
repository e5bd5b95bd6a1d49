"""Modules that are told their batch, or their steps, when they are built: the file is that of one built for each size."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.told_numbers import with_told_numbers
from rnncore.runtime.errors import ExportError
from tests.strategies import randomize
from tests.tolerances import fixed

BOUND = {"rtol": 0, "atol": fixed("float32 two hosts")}
USES = ("state", "view", "loop", "view of steps", "kept state")
HOLDERS = ("attribute", "namespace", "dict", "part")


class Sizes(nn.Module):
    """A part of a module that holds what that was told."""

    def __init__(self, batch_size: int, steps: int) -> None:
        super().__init__()
        self.batch_size, self.steps = batch_size, steps


class Told(nn.Module):
    """A GRU over [batch, time, 3], or [time, batch, 3], of as many rows (and steps) as it was told."""

    def __init__(
        self, rows: int, steps: int, use: str = "state", holder: str = "attribute", first: bool = True
    ) -> None:
        super().__init__()
        self.use, self.holder, self.first = use, holder, first
        self.gru, self.cell = nn.GRU(3, 4, batch_first=first), nn.GRUCell(3, 4)
        if holder == "attribute":
            self.batch_size, self.steps = rows, steps
        elif holder == "namespace":
            self.args = Namespace(batch_size=rows, steps=steps, hidden=4)
        elif holder == "dict":
            self.config = {"bsz": rows, "steps": steps}
        else:
            self.part = Sizes(rows, steps)
        self.hidden = torch.zeros(1, rows, 4)

    def told(self) -> tuple[int, int]:
        """(rows, steps)."""
        if self.holder == "dict":
            return self.config["bsz"], self.config["steps"]
        held: Any = {"attribute": self, "namespace": getattr(self, "args", None)}.get(self.holder) or self.part
        return held.batch_size, held.steps

    def forward(self, x: Tensor) -> Tensor:
        """What every way of being told comes to: [batch, time, 4] or [time, batch, 4]."""
        rows, steps = self.told()
        if self.use == "state":
            return self.gru(x, torch.zeros(1, rows, 4))[0]
        if self.use == "kept state":
            y, self.hidden = self.gru(x.view(rows, -1, 3) if self.first else x.view(-1, rows, 3), self.hidden)
            return y
        if self.use == "loop":
            h, out = torch.zeros(rows, 4), []
            for t in range(x.size(1 if self.first else 0)):
                h = self.cell(x[:, t] if self.first else x[t], h)
                out.append(h)
            return torch.stack(out, 1 if self.first else 0)
        y = self.gru(x)[0].reshape(-1, 4).tanh()
        if self.use == "view":
            return y.view(rows, -1, 4) if self.first else y.view(-1, rows, 4)
        return y.view(rows, steps, 4) if self.first else y.view(steps, rows, 4)


@settings(max_examples=12)
@given(
    use=st.sampled_from(USES),
    holder=st.sampled_from(HOLDERS),
    first=st.booleans(),
    sizes=st.sampled_from([(5, 7), (2, 9), (4, 7), (8, 6)]),  # 4 is the width of the layer, too
    others=st.tuples(st.integers(1, 6), st.integers(1, 9)),
)
def test_file_is_that_of_a_module_built_for_each_size(
    use: str,
    holder: str,
    first: bool,
    sizes: tuple[int, int],
    others: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    module = randomize(Told(*sizes, use, holder, first).eval(), 0)
    x = torch.randn(*sizes, 3)
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    report = export(module, path, x if first else x.transpose(0, 1).contiguous())
    name = {"attribute": "batch_size", "namespace": "args.batch_size", "dict": "config.bsz", "part": "part.batch_size"}
    assert f"'{name[holder]}' is the size of axis {0 if first else 1}, and follows it" in str(report)
    assert report.signature.causal and module.told() == sizes
    other = randomize(Told(*others, use, holder, first).eval(), 0)
    x = torch.randn(*others, 3) if first else torch.randn(*others[::-1], 3)
    with torch.no_grad():
        np.testing.assert_allclose(runtime.load(path).run(x.numpy()), other(x).numpy(), **BOUND)


class Learned(nn.Module):
    """A start for each row of the batch: no file of another batch has one."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size, self.gru = 3, nn.GRU(3, 4, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x.view(self.batch_size, -1, 3), self.start)[0]


class Blocks(nn.Module):
    """A whole number of blocks of four steps, as many as the example has."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.block, self.axis, self.gru = 4, axis, nn.GRU(3, 4, batch_first=axis == 1)

    def forward(self, x: Tensor) -> Tensor:
        axis = self.axis
        return self.gru(x)[0].unflatten(axis, (-1, self.block)).cumsum(axis + 1).flatten(axis, axis + 1)


def test_numbers_that_need_not_follow_stay(tmp_path: Path) -> None:
    assert with_told_numbers(Blocks(0), torch.randn(4, 2, 3)) is None
    assert with_told_numbers(Blocks(1), torch.randn(4, 4, 3)) is None
    assert with_told_numbers(nn.GRU(3, 4), torch.randn(4, 4, 3)) is None
    assert with_told_numbers(Learned(), torch.randn(3, 7, 3)) is None
    with pytest.raises(ExportError, match="Learned"):
        export(Learned().eval(), tmp_path / "m.onnx", torch.randn(3, 7, 3))
    assert list(tmp_path.iterdir()) == []
