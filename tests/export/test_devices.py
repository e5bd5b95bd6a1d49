"""Modules that ask for a GPU in their code export where there is none, and on the CPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.devices import brought_here, devices_taken_as_cpu
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed


def cuda_method(x: Tensor) -> Tensor:
    return torch.zeros(1, x.shape[0], 4).cuda()


def cuda_with_number(x: Tensor) -> Tensor:
    return torch.zeros(1, x.shape[0], 4).cuda(0)


def to_text(x: Tensor) -> Tensor:
    return torch.zeros(1, x.shape[0], 4).to("cuda:0")


def to_number(x: Tensor) -> Tensor:
    return torch.zeros(1, x.shape[0], 4).to(0)


def to_device_and_dtype(x: Tensor) -> Tensor:
    return torch.zeros(1, x.shape[0], 4).to(torch.device("cuda"), torch.float32)


def made_there(x: Tensor) -> Tensor:
    return torch.zeros(1, x.shape[0], 4, device="cuda")


def new_there(x: Tensor) -> Tensor:
    return x.new_zeros(1, x.shape[0], 4, device=torch.device("cuda", 0))


def in_a_context(x: Tensor) -> Tensor:
    with torch.device("cuda"):
        return torch.zeros(1, x.shape[0], 4)


class Model(nn.Module):
    def __init__(self, start: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gru, self.start = nn.GRU(3, 4, batch_first=True), start

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x, self.start(x))[0]


STARTS = (
    cuda_method,
    cuda_with_number,
    to_text,
    to_number,
    to_device_and_dtype,
    made_there,
    new_there,
    in_a_context,
)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
def test_a_start_on_the_gpu_is_one_on_the_cpu(start: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(start).eval()
    report = export(model, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    assert report.causal
    x = torch.randn(3, 8, 3)
    with torch.no_grad():
        wanted = model.gru(x)[0].numpy()
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(x.numpy()), wanted, **TOLERANCE)


TOLERANCE = {"rtol": fixed("float32"), "atol": fixed("float32")}


class Loop(nn.Module):
    """A loop by hand whose state begins on the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 4).cuda()
        out = []
        for t in range(x.size(1)):
            h = self.cell(x[:, t].to("cuda"), h)
            out.append(h.cpu())
        return torch.stack(out, 1)


def test_a_loop_on_the_gpu_rolls_on_the_cpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Loop().eval()
    report = export(model, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    assert report.causal
    x = torch.randn(2, 11, 3)
    with torch.no_grad(), devices_taken_as_cpu():
        wanted = model(x).numpy()
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(x.numpy()), wanted, **TOLERANCE)


def calls_until_refused(reason: str, folder: Path) -> int:
    """How often a module that fails for ``reason`` is called before its export is refused for that."""
    calls = []

    def start(x: Tensor) -> Tensor:
        calls.append(1)
        raise ValueError(reason)

    with pytest.raises(ExportError, match=reason):
        export(Model(start), folder / "m.onnx", torch.randn(2, 5, 3))
    return len(calls)


def test_what_fails_otherwise_is_not_tried_again(tmp_path: Path) -> None:
    once = calls_until_refused("no start today", tmp_path)
    again = calls_until_refused("the cuda of today", tmp_path)
    assert again == 2 * once, "once more on the CPU, and no more than that"


def test_what_the_caller_was_handling_is_no_failure_of_the_module(tmp_path: Path) -> None:
    """Exports often stand in the handler of an error of the GPU."""
    once = calls_until_refused("no start today", tmp_path)
    try:
        raise RuntimeError("CUDA out of memory")
    except RuntimeError:
        assert calls_until_refused("no start today", tmp_path) == once


def test_meta_stays_meta_and_arguments_that_are_no_devices_stay() -> None:
    with devices_taken_as_cpu():
        assert torch.zeros(2, device="meta").is_meta
        assert torch.zeros(2).to("meta").is_meta
        assert torch.zeros(2, device="cuda").to(torch.float64).dtype == torch.float64
        assert torch.zeros(2).to(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
        assert torch.zeros(2).to(torch.float64, False, copy=True).dtype == torch.float64


def test_what_is_here_is_not_copied() -> None:
    model, example = Loop(), (torch.zeros(1), {"a": torch.ones(1)})
    assert brought_here(model) is model
    assert brought_here(example) is example
    assert brought_here(None) is None
