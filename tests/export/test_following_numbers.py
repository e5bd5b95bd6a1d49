"""Numbers among the arguments of ``forward`` that are the size of an axis follow it in a file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.following_numbers import with_following_numbers
from rnncore.runtime.errors import ExportError
from tests.strategies import randomize
from tests.tolerances import fixed

USES = ("view", "state", "expand", "rows")


class Told(nn.Module):
    """A GRU that is told how many rows there are, and does with the number what ``use`` says."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 1, 4))

    def run(self, x: Tensor, rows: int) -> Tensor:
        """What every way of telling comes to."""
        if self.use == "view":
            return self.gru(x.reshape(rows, -1, 3))[0].reshape(rows, -1, 2, 2).flatten(2)
        if self.use == "state":
            return self.gru(x, torch.zeros(1, rows, 4))[0]
        if self.use == "expand":
            return self.gru(x, self.start.expand(1, rows, 4).contiguous())[0]
        return self.gru(x)[0] + torch.arange(rows).view(rows, 1, 1) * 0


class Second(Told):
    def forward(self, x: Tensor, rows: int) -> Tensor:
        return self.run(x, rows)


class First(Told):
    def forward(self, rows: int, x: Tensor) -> Tensor:
        return self.run(x, rows)


class Fed(Told):
    def forward(self, feed: Mapping[str, Any]) -> Tensor:
        return self.run(feed["x"], feed["batch_size"])


class Listed(Told):
    def forward(self, x: Tensor, *, sizes: tuple[int, str]) -> Tensor:
        return self.run(x, sizes[0])


def example_of(kind: type[Told], x: Tensor) -> Any:
    """A call of ``kind`` as an export takes it."""
    rows = len(x)
    if kind is Fed:
        return {"feed": {"x": x, "batch_size": rows}}
    if kind is Listed:
        return {"x": x, "sizes": (rows, "rows")}
    return (x, rows) if kind is Second else (rows, x)


@settings(max_examples=4, phases=[Phase.explicit, Phase.generate])
@given(kind=st.sampled_from([Second, First, Fed, Listed]), use=st.sampled_from(USES), rows=st.integers(2, 5))
def test_number_of_rows_follows(kind: type[Told], use: str, rows: int) -> None:
    module = randomize(kind(use), 0)
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", example_of(kind, torch.randn(rows, 7, 3)))
        model = runtime.load(report.path)
    for other in (1, rows + 2):
        x = torch.randn(other, 5, 3)
        with torch.no_grad():
            right = module.run(x, other)
        np.testing.assert_allclose(model.run(x.numpy()), right.numpy(), atol=fixed("float32"))


class Heads(nn.Module):
    """The number is no size of an axis, though it equals one: it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, heads: int) -> Tensor:
        return self.gru(x)[0].unflatten(-1, (heads, -1)).softmax(-1).flatten(2)


class Blocks(nn.Module):
    """A whole number of blocks of steps: there may be one in the example."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, block: int) -> Tensor:
        return self.gru(x)[0].unflatten(1, (-1, block)).cumsum(2).flatten(1, 2)


class Random(Heads):
    def forward(self, x: Tensor, heads: int) -> Tensor:
        return super().forward(x, heads) + torch.rand_like(x[..., :1])


def test_number_that_need_not_follow_stays(tmp_path: Path) -> None:
    module = randomize(Heads(), 0)
    export(module, tmp_path / "m.onnx", (torch.randn(2, 7, 3), 2))
    x = torch.randn(4, 5, 3)
    with torch.no_grad():
        right = module(x, 2)
    np.testing.assert_allclose(runtime.load(tmp_path / "m.onnx").run(x.numpy()), right.numpy(), atol=fixed("float32"))
    assert with_following_numbers(module, (torch.randn(2, 7, 3), 2)) is None
    assert with_following_numbers(Blocks(), (torch.randn(2, 4, 3), 4)) is None
    with pytest.raises(ExportError, match="random"):
        export(randomize(Random(), 0), tmp_path / "r.onnx", (torch.randn(2, 7, 3), 2))


def test_length_that_the_base_of_another_package_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package_of_others.py"
    source.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Sorted(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.gru = nn.GRU(3, 4, batch_first=True)\n\n"
        "    def forward(self, x):\n        best = torch.topk(x.sum((1, 2)), k=len(x))[1]\n"
        "        return self.gru(x.index_select(0, best))[0].index_select(0, torch.argsort(best))\n"
    )
    made = ModuleType("package_of_others")
    made.__file__ = str(source)
    exec(compile(source.read_text(), str(source), "exec"), made.__dict__)
    monkeypatch.setitem(sys.modules, "package_of_others", made)
    module = randomize(type("Own", (made.Sorted,), {})(), 0)
    export(module, tmp_path / "m.onnx", torch.randn(3, 7, 3))
    x = torch.randn(5, 4, 3)
    with torch.no_grad():
        right = module(x)
    np.testing.assert_allclose(runtime.load(tmp_path / "m.onnx").run(x.numpy()), right.numpy(), atol=fixed("float32"))
