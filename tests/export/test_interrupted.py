"""Whatever a handler of a signal raises while an export runs the module, a time limit say, ends the export as it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode

from rnncore.export import export
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.probing import Prober


class TooLateError(Exception):
    """Of nobody's tree."""


class Timed(nn.Module):
    """A loop by hand; a signal arrives in call number ``when`` of forward, in whichever copy."""

    calls = 0

    def __init__(self, when: int) -> None:
        super().__init__()
        self.when = when
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        Timed.calls += 1
        if Timed.calls == self.when:
            signal.raise_signal(signal.SIGUSR1)
        h, ys = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            ys.append(h)
        return torch.stack(ys, 1)


@pytest.fixture
def limited() -> Iterator[None]:
    def too_late(*_: object) -> None:
        raise TooLateError

    former = signal.signal(signal.SIGUSR1, too_late)
    Timed.calls = 0
    yield
    signal.signal(signal.SIGUSR1, former)


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("when", [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 17, 22, 28, 35, 43, 52])
def test_a_time_limit_ends_an_export_wherever_it_is(when: int, tmp_path: Path) -> None:
    with pytest.raises(TooLateError):
        export(Timed(when), tmp_path / "model.onnx", torch.randn(2, 5, 3))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("limited")
def test_a_time_limit_ends_a_run_that_only_looks_on() -> None:
    example = Example.of(nn.Identity(), torch.randn(2, 5, 3), None, False)
    prober = Prober(Timed(0), example)
    prober.run_under(BaseTorchFunctionMode(), {})
    looks_on = Prober(Timed(Timed.calls + 1), example)
    with pytest.raises(TooLateError):
        looks_on.run_under(BaseTorchFunctionMode(), {})
