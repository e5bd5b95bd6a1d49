"""Complex numbers as two real ones: every operation on them, and state spaces whose states are complex."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rnncore.export.tracing.rolling.complex_numbers import OF_PARTS, ComplexNumbers
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE, exported, streamed
from tests.tolerances import fixed

CLOSE = {"rtol": 0, "atol": fixed("float32 same steps")}


class Parts(TorchDispatchMode):
    """Runs everything by real and imaginary parts, and real operations as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.numbers = ComplexNumbers(self._run, lambda func, *args: func(*args), lambda tensor: None)

    def _run(self, func: Any, *args: Any, **named: Any) -> Any:
        flat = [part for value in args for part in (value if isinstance(value, list | tuple) else [value])]
        assert not any(isinstance(value, Tensor) and value.is_complex() for value in flat)
        self.seen.append(func)
        return func(*args, **named)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.numbers.concerns(args, kwargs or {}) or func in OF_PARTS:
            return self.numbers.apply(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def real(self, value: Tensor) -> Tensor:
        """Real and imaginary part as they were computed."""
        return torch.stack(list(self.numbers.tensors(self.numbers.parts(value))), -1) if value.is_complex() else value


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "times": lambda a, b, x: a * b,
    "times real": lambda a, b, x: x * a,
    "times number": lambda a, b, x: (2 - 1j) * a * 3,
    "plus": lambda a, b, x: a + b - 1j + x,
    "minus": lambda a, b, x: 1 - a - b,
    "over": lambda a, b, x: a / b,
    "over real": lambda a, b, x: a / (1 + x * x),
    "over number": lambda a, b, x: a / (1 + 2j) / 2,
    "one over": lambda a, b, x: 1 / a,
    "real over": lambda a, b, x: x / a,
    "exp": lambda a, b, x: torch.exp(a * 0.3),
    "power": lambda a, b, x: a**3,
    "conjugate": lambda a, b, x: a.conj() * b,
    "size": lambda a, b, x: a.abs(),
    "parts": lambda a, b, x: a.real - b.imag,
    "product": lambda a, b, x: a @ b.transpose(-1, -2),
    "product with real": lambda a, b, x: x.to(a.dtype) @ a.mT,
    "einsum": lambda a, b, x: torch.einsum("bn,bn->b", a, b),
    "three": lambda a, b, x: torch.einsum("hn,bn,bn->bh", a, b, a),
    "negative": lambda a, b, x: -a,
    "sum": lambda a, b, x: a.sum(-1) + b.mean(0, keepdim=True).sum(),
    "views": lambda a, b, x: torch.cat([a.T.reshape(a.shape), b[:, :1].expand(-1, 2)], 1).unsqueeze(0).flip(2),
    "stacked": lambda a, b, x: torch.stack([a, b], 1).unbind(1)[1],
    "made": lambda a, b, x: torch.complex(x, 2 * x) * a + torch.polar(x.abs(), x),
    "as real": lambda a, b, x: torch.view_as_real(a * b).sum(-1),
    "as complex": lambda a, b, x: torch.view_as_complex(torch.stack([x, -x], -1)) * a,
    "from real": lambda a, b, x: x.to(torch.complex64) * a,
    "zeros": lambda a, b, x: torch.zeros_like(a) + a.new_ones(a.shape) * x + torch.zeros(3, dtype=torch.complex64)[0],
    "where": lambda a, b, x: torch.where(x > 0, a, b),
    "angle": lambda a, b, x: a.angle(),
    "phase": lambda a, b, x: torch.exp(1j * x) * a,
    "nothing": lambda a, b, x: 1j * x * 0 + b,
    "frequencies": lambda a, b, x: (
        torch.fft.rfft(torch.cat([x, x], -1)) * torch.fft.fft(torch.cat([a, b], -1))[..., :1]
    ),
    "back": lambda a, b, x: torch.fft.irfft(torch.cat([a, b], -1), n=2 * a.shape[-1]) + torch.fft.ifft(a).imag.sum(),
}


@given(
    name=st.sampled_from(sorted(OPERATIONS)), rows=st.integers(1, 3), size=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_operations_have_real_parts(name: str, rows: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(rows, size, dtype=torch.complex64, generator=generator) + 1.5 for _ in range(2))
    x = torch.randn(rows, size, generator=generator)
    wanted = OPERATIONS[name](a, b, x)
    with Parts() as parts:
        got = OPERATIONS[name](a, b, x)
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    right = torch.view_as_real(wanted.resolve_conj()) if wanted.is_complex() else wanted
    scale = max(1.0, float(right.abs().max()))
    torch.testing.assert_close(parts.real(got) / scale, right / scale, **CLOSE)


def test_what_has_no_real_parts_that_are_known_is_refused() -> None:
    a = torch.randn(2, 2, dtype=torch.complex64)
    with Parts(), pytest.raises(ExportError, match="in a way that is not known to have real parts"):
        torch.linalg.inv(a)
    with Parts(), pytest.raises(ExportError, match=r"a power of 0\.5"):
        a**0.5


class StateSpace(nn.Module):
    """A diagonal one: ``s[t] = a s[t-1] + b x[t]``, ``y[t] = 2 Re(c s[t])``, all at once by a convolution in frequencies."""

    def __init__(self, size: int, states: int) -> None:
        super().__init__()
        self.size, self.states = size, states
        self.decay, self.turn = nn.Parameter(torch.rand(size, states)), nn.Parameter(torch.rand(size, states) * 3)
        self.b = nn.Parameter(torch.randn(size, states, dtype=torch.complex64))
        self.c = nn.Parameter(torch.randn(size, states, 2))

    def _factor(self) -> Tensor:
        return torch.exp(torch.complex(-self.decay, self.turn))

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        powers = self._factor().unsqueeze(2) ** torch.arange(steps)
        kernel = 2 * torch.einsum("hn,hn,hnl->hl", torch.view_as_complex(self.c), self.b, powers).real
        frequencies = torch.fft.rfft(x.transpose(1, 2), n=2 * steps) * torch.fft.rfft(kernel, n=2 * steps)
        return torch.fft.irfft(frequencies, n=2 * steps)[..., :steps].transpose(1, 2)

    def default_state(self, *batch_shape: int) -> Tensor:
        return torch.zeros(*batch_shape, self.size, self.states, dtype=torch.complex64)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.einsum("hn,bhn->bhn", self._factor(), state) + torch.einsum("hn,bh->bhn", self.b, x)
        return 2 * torch.einsum("hn,bhn->bh", torch.view_as_complex(self.c), state).real, state


class ByHand(StateSpace):
    """The loop itself."""

    def forward(self, x: Tensor) -> Tensor:
        state, kept = self.default_state(x.shape[0]), []
        for t in range(x.shape[1]):
            y, state = self.step(x[:, t], state)
            kept.append(y)
        return torch.stack(kept, 1)


@pytest.mark.parametrize("kind", [StateSpace, ByHand])
def test_a_complex_state_streams_as_two_real_ones(kind: type[StateSpace], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = kind(3, 4)

    def draw(rows: int, steps: int) -> Tensor:
        return torch.randn(rows, steps, 3)

    model, report = exported(module, tmp_path, draw(2, 8), draw, [(1, 1), (3, 11)])
    assert report.causal
    assert [state.size for state in report.signature.states] == [12, 12]
    x = draw(1, 9)
    with torch.no_grad():
        np.testing.assert_allclose(streamed(model, x[0], (1, 4, 4)), module(x)[0].numpy(), **TOLERANCE)
