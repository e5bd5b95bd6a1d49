"""Where ``forward`` computes all steps at once and does not stream, a part's own step is what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import ExportReport, export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.own_steps.search import FoundStep, by_own_steps, find_own_steps
from rnncore.runtime import load
from rnncore.runtime.errors import NotStreamableError
from tests.export.rolled import TOLERANCE, streamed
from tests.export.steps_of_their_own import FORGETS, KEEPS, SIZE, Around, Cached, Retention, Spelling, retention


def _draw(rows: int, steps: int, *, channels_first: bool = False) -> Tensor:
    x = torch.randn(rows, steps, SIZE)
    return x.transpose(1, 2).contiguous() if channels_first else x


def _found(module: nn.Module, x: Tensor) -> list[FoundStep]:
    module.eval()
    return find_own_steps(module, find_axes(module, Example.of(module, x, None, "auto"), None), 0)


def _exported(module: nn.Module, path: Path, **options: Any) -> ExportReport:
    """Exported by the README's call, and compared with PyTorch: whole, and in chunks."""
    report = export(module.eval(), path, _draw(2, 8), **options)
    model, x = load(path), _draw(3, 11)
    with torch.no_grad():
        wanted = module(x)
    wanted = (wanted if isinstance(wanted, Tensor) else wanted.y).numpy()
    np.testing.assert_allclose(model.run(x.numpy()), wanted, **TOLERANCE)
    if report.causal:
        np.testing.assert_allclose(streamed(model, x[1], (1, 4, 1, 5)), wanted[1], **TOLERANCE)
    return report


SPELLINGS = st.builds(
    Spelling,
    passing=st.sampled_from(["one", "nested", "several", "names"]),
    start=st.sampled_from(["none", "made", "zeros"]),
    keeps_time=st.booleans(),
    counts=st.booleans(),
    channels_first=st.booleans(),
).filter(lambda own: not own.counts or own.passing in ("one", "nested"))


@given(spelling=SPELLINGS)
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
def test_a_step_is_understood_however_it_is_spelled(spelling: Spelling) -> None:
    torch.manual_seed(0)
    module, x = retention(spelling), _draw(2, 8, channels_first=spelling.channels_first)
    found = _found(module, x)
    assert [(one.path, one.loops, one.only) for one in found] == [("", False, True)]
    stepped, x = by_own_steps(module, found), _draw(4, 9, channels_first=spelling.channels_first)
    assert stepped is not module
    with torch.no_grad():
        torch.testing.assert_close(stepped(x), module(x), atol=TOLERANCE["atol"], rtol=0)


@pytest.mark.parametrize(
    "spelling",
    [
        Spelling("one", "none"),
        Spelling("several", "made", keeps_time=False),
        Spelling("nested", "zeros", keeps_time=False, counts=True),
        Spelling("names", "none"),
    ],
    ids=str,
)
def test_the_step_of_a_part_streams(spelling: Spelling, tmp_path: Path) -> None:
    torch.manual_seed(1)
    report = _exported(Around(retention(spelling)), tmp_path / "model.onnx")
    assert report.causal
    name = "forward_recurrent" if spelling.counts else "step"
    assert f"'part.{name}' computes one step as forward computes all: the file holds that step in a loop" in str(report)


def test_a_forward_that_takes_its_cache_streams(tmp_path: Path) -> None:
    torch.manual_seed(2)
    report = _exported(Cached(), tmp_path / "model.onnx")
    assert report.causal
    assert "'forward' computes one step" in str(report)


def test_without_streams_the_file_holds_forward(tmp_path: Path) -> None:
    report = _exported(Around(retention(Spelling())), tmp_path / "model.onnx", streaming=False)
    assert not report.causal
    assert "computes one step" not in str(report)


class Given(nn.Module):
    """Takes blocks of eight steps, so that ``forward`` runs no step alone; what the state is it shows, as it gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Retention()

    def forward(self, x: Tensor, h: Any = None) -> tuple[Tensor, list[Tensor]]:
        if h:
            return self.step(x, h)
        y = torch.cat([self.inner(x.unflatten(1, (-1, 8)).flatten(1, 2))], 1)
        left = torch.arange(x.shape[1] - 1, -1, -1)[:, None]
        memory = (self.inner.k(x) * KEEPS**left).transpose(1, 2) @ self.inner.v(x)
        return y, [memory, (x * FORGETS**left).sum(1)]

    def step(self, x: Tensor, h: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, *states = self.inner.once(x, *(value.reshape(x.shape[0], -1).view(value.shape) for value in h), None)
        return y, states


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Given()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)[0]


def test_what_forward_gives_shows_the_state() -> None:
    found = _found(First(), _draw(2, 16))
    assert [one.name for one in found] == ["part.step"]


class Wrong(Retention):
    def step(self, x: Tensor, state: Any = None) -> Any:
        y, *state = self.once(x, *(state or (None, None)), None)
        return 1.1 * y, tuple(state)


def test_a_step_of_another_mathematics_is_no_step_of_forward(tmp_path: Path) -> None:
    assert _found(Wrong(), _draw(2, 8)) == []
    report = _exported(Wrong(), tmp_path / "model.onnx")
    assert not report.causal
    assert "there is 'step', which was not recognised as a step of forward" in report.signature.not_causal_because


class Late(Retention):
    """Its step forgets everything after thirty steps, which the few steps of a search do not show."""

    def step(self, x: Tensor, state: Any = None) -> Any:
        memory, total, number = state or (None, None, torch.zeros(x.shape[0], 1))
        y, memory, total = self.once(x, memory, total, None)
        number = number + 1
        return torch.where(number.unsqueeze(1) > 50, 0.0, y), (memory, total, number)


def test_a_step_that_verification_disproves_leaves_forward(tmp_path: Path) -> None:
    assert [one.path for one in _found(Late(), _draw(2, 8))] == [""]
    report = _exported(Late(), tmp_path / "model.onnx")
    assert not report.causal
    because = report.signature.not_causal_because
    assert "'step' computes one step as forward computes all, but no file of it could be proved" in because
    with pytest.raises(NotStreamableError, match="fed in chunks the model answers differently"):
        export(Late().eval(), tmp_path / "other.onnx", _draw(2, 8), streaming=True)


class Doubles(nn.Module):
    """``h[t] = a[t] h[t-1] + b[t]`` in a logarithm of the steps, which goes another way for every number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.sigmoid(self.a(x) + 2), self.b(x)
        for level in range((x.shape[1] - 1).bit_length()):
            back = 2**level
            b = torch.cat([b[:, :back], b[:, back:] + a[:, back:] * b[:, :-back]], 1)
            a = torch.cat([a[:, :back], a[:, back:] * a[:, :-back]], 1)
        return b

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.sigmoid(self.a(x) + 2) * h + self.b(x)
        return h, h


def test_a_scan_over_powers_of_two_streams_by_its_step(tmp_path: Path) -> None:
    torch.manual_seed(3)
    report = _exported(Doubles(), tmp_path / "model.onnx")
    assert report.causal
    assert "'step' computes one step" in str(report)


class Loops(nn.Module):
    """``forward`` is the loop that calls ``step``."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(SIZE, SIZE)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(KEEPS * h + self.into(x))
        return h, h

    def forward(self, x: Tensor) -> Tensor:
        h, kept = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            y, h = self.step(x[:, t], h)
            kept.append(y)
        return torch.stack(kept, 1)


class Layered(nn.Module):
    """``forward`` calls a layer of torch, which streams as it is and has forms of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(SIZE, SIZE, batch_first=True)

    def step(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(x.unsqueeze(1), h)
        return y[:, 0], h

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


@pytest.mark.parametrize("kind", [Loops, Layered])
def test_a_forward_that_streams_is_left_as_it_is(kind: type[nn.Module], tmp_path: Path) -> None:
    report = _exported(kind(), tmp_path / "model.onnx")
    assert report.causal
    assert "computes one step" not in str(report)


class Grows(nn.Module):
    """Attention: what a step carries has an entry more after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(SIZE, SIZE)

    def step(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        past = x if past is None else torch.cat([past, x], 1)
        return torch.softmax(self.q(x) @ past.transpose(1, 2), 2) @ past, past

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ x.transpose(1, 2)
        past = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return torch.softmax(torch.where(past, scores, -torch.inf), 2) @ x


def test_what_grows_is_no_state() -> None:
    assert _found(Grows(), _draw(2, 8)) == []
