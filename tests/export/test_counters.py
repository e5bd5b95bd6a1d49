"""Numbers that a loop keeps as tensors, what solvers ask about their times, weights that are kept within bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export, stages
from rnncore.export.lowering.splice import splice
from tests.export.axes_modules import Net
from tests.strategies import randomize
from tests.tolerances import fixed

Body = Callable[[Any, Tensor, Tensor, int, Tensor], Tensor]
"""The next state, of the module, x at this step, the state, the step as a number and as a tensor that counts."""

READS: dict[str, Body] = {
    "tensor(t)": lambda s, x, h, t, count: s.cell(x + s.table(torch.tensor(t)), h),
    "tensor([t])": lambda s, x, h, t, count: s.cell(x + s.table(torch.tensor([t])), h),
    "full": lambda s, x, h, t, count: s.cell(x + s.table(torch.full((len(x),), t)), h),
    "tensor(0.1 * t)": lambda s, x, h, t, count: s.cell(x, h * torch.cos(torch.tensor(t * 0.1))),
    "counted": lambda s, x, h, t, count: s.cell(x, h * torch.cos(count)),
    "divided": lambda s, x, h, t, count: s.cell(x, h / (1 + count)),
}
COUNTS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "one more": (0.0, lambda count: count + 1),
    "a tenth less": (20.0, lambda count: count - 0.1),
    "the other way round": (1.0, lambda count: 0.5 + count),
}


def counting(reads: str, counts: str, shape: tuple[int, ...]) -> nn.Module:
    start, grow = COUNTS[counts]

    def run(s: Any, x: Tensor) -> Tensor:
        h, count, out = x.new_zeros(len(x), 5), torch.full(shape, start), []
        for t in range(x.shape[1]):
            count = grow(count)
            h = READS[reads](s, x[:, t], h, t, count)
            out.append(h)
        return torch.stack(out, 1)

    return randomize(Net(run, cell=nn.GRUCell(4, 5), table=nn.Embedding(60, 4)).eval(), 6)


def check(module: nn.Module, path: Path) -> None:
    model = runtime.load(path)
    x = torch.randn(2, 23, 4)
    with torch.no_grad():
        expected = module(x)
    np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32 long"))
    with model.stream() as stream:
        got = np.concatenate([stream.push(x[0, start : start + 4].numpy()) for start in range(0, 23, 4)])
    np.testing.assert_allclose(got, expected[0], atol=fixed("float32 long"))


@settings(max_examples=5, phases=set(Phase) - {Phase.shrink})  # an export is slow
@given(reads=st.sampled_from(sorted(READS)), counts=st.sampled_from(sorted(COUNTS)), shape=st.sampled_from([(), (1,)]))
def test_counters_are_numbers(reads: str, counts: str, shape: tuple[int, ...]) -> None:
    module = counting(reads, counts, shape)
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", torch.randn(2, 7, 4), streaming=True)
        check(module, report.path)


class Bounded(nn.Module):
    """A recurrence whose weight every call brings back within bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.weight = nn.Linear(4, 5), nn.Parameter(torch.randn(5) * 2)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.clamp_(-0.9, 0.9)
        x, h, out = self.front(x), torch.zeros(5), []
        for t in range(x.shape[1]):
            h = torch.relu(x[:, t] + h * self.weight)
            out.append(h)
        return torch.stack(out, 1)


def test_a_weight_is_kept_within_bounds(tmp_path: Path) -> None:
    module = Bounded().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 7, 4))
    x = torch.randn(2, 19, 4)
    with torch.no_grad():
        np.testing.assert_allclose(runtime.load(report.path).run(x.numpy()), module(x), atol=fixed("float32"))


def solved(f: nn.Module, h: Tensor, times: Tensor) -> Tensor:
    """As solvers of differential equations begin: they look whether their times grow."""
    differences = times[1:] > times[:-1]
    assert differences.all() or (~differences).all()
    for start, end in pairwise(times):
        h = h + (end - start) * torch.tanh(f(h))
    return h


def test_what_is_asked_of_constants_is_known(tmp_path: Path) -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        h, out = x.new_zeros(len(x), 5), []
        for t in range(x.shape[1]):
            h = s.cell(x[:, t], solved(s.flow, h, torch.tensor([0.0, 0.5, 1.0])))
            out.append(h)
        return torch.stack(out, 1)

    module = randomize(Net(run, cell=nn.GRUCell(4, 5), flow=nn.Linear(5, 5)).eval(), 8)
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 7, 4), streaming=True)
    check(module, report.path)


def weight_dropped(module: nn.Module, name: str) -> nn.Module:
    """As libraries drop weights: the wrapped module's forward becomes a function that reads the module from around it."""
    raw = getattr(module, name)
    del module._parameters[name]
    module.register_parameter(f"{name}_raw", nn.Parameter(raw.data))
    own = module.forward

    def forward(*args: Any) -> Any:
        setattr(module, name, nn.functional.dropout(getattr(module, f"{name}_raw"), 0.5, module.training))
        return own(*args)

    module.forward = forward  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("called", [False, True])
def test_a_forward_that_reads_its_module_from_around_it(called: bool, tmp_path: Path) -> None:
    gru = weight_dropped(nn.GRU(4, 5, batch_first=True), "weight_hh_l0")
    module = Net(lambda s, x: s.gru(x)[0], gru=gru).eval()
    x = torch.randn(2, 11, 4)
    if called:
        module(x)
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 7, 4), streaming=True)
    with torch.no_grad():
        np.testing.assert_allclose(runtime.load(report.path).run(x.numpy()), module(x), atol=fixed("float32"))


def test_layer_norm_of_the_input_side_of_a_loop(tmp_path: Path) -> None:
    """It runs for all steps at once, at every number of them."""

    def run(s: Any, x: Tensor) -> Tensor:
        h, out = x.new_zeros(len(x), 5), []
        for t in range(x.shape[1]):
            h = torch.tanh(s.norm(s.front(x[:, t])) + s.back(h))
            out.append(h)
        return torch.stack(out, 1)

    parts = {"norm": nn.LayerNorm(5), "front": nn.Linear(4, 5), "back": nn.Linear(5, 5)}
    module = randomize(Net(run, **parts).eval(), 8)
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 7, 4), streaming=True)
    check(module, report.path)


def test_a_size_that_torch_lost_is_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a reshape to sizes that follow two axes; the layer knows how wide its projection is."""

    def forgetful(model: Any, *args: Any, **options: Any) -> Any:
        for node in model.graph:
            if node.op_type == "Recurrent":
                node.inputs[1].shape = ir.Shape([*node.inputs[1].shape.dims[:2], None])
        return splice(model, *args, **options)

    monkeypatch.setattr(stages, "splice", forgetful)
    module = Net(lambda s, x: s.gru(x)[0], gru=nn.GRU(4, 5, batch_first=True)).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, 4), streaming=True)
