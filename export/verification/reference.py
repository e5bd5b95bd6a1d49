"""The user's module as the reference: what the exported file must answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.verification.random_numbers import UNUSUAL, RandomState, drawing, draws_random_numbers
from rnncore.export.verification.repeatable import TWICE, same_answers
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.comparison import error as error  # the measure that goes with TOLERANCE

Array = np.ndarray

TOLERANCE = {"float32": 1e-4, "float64": 1e-7, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest error against PyTorch, as a part of the largest output (at least 1), by dtype of the weights.

Rounding differs between two correct float32 backends by about 1e-7 a step and grows with depth and length; a wrong gate,
a lost reversal or a frozen length is off by more than 1e-2.  In float64 what differs most is the epsilon of ONNX's
LayerNormalization, which is a float32 (1.6e-9 seen on a layer-normed LSTM).  Where a model amplifies rounding (a relu
RNN that explodes), float64 decides: see :func:`Reference.excuses`.
"""
CHAOS = 20.0
"""How much worse than PyTorch's own float32 error the file may be where float64 decides, and how much larger than what a
perturbation of the size of rounding does to the float64 answers that error may be."""


class Reference:
    """Runs the module as it was before export: eval mode, no gradients, on its own device."""

    def __init__(self, module: nn.Module, example: Example) -> None:
        self._module = module
        self._example = example
        self._double: nn.Module | None = None
        self._perturbed: nn.Module | None = None
        self._names: list[str] | None = None
        self._last: tuple[list[Tensor], list[Array]] | None = None

    def __call__(self, tensors: Sequence[Tensor]) -> list[Array]:
        """All outputs in the order of the signature.

        Raises:
            ExportError: forward draws random numbers at this size, which it does not do on the example.
        """
        if self._last is not None and _are_same(self._last[0], tensors):
            return self._last[1]
        before = RandomState.now()
        answer = self._run(self._module, tensors)
        after = RandomState.now()
        if (
            not before.same(after)
            and draws_random_numbers(lambda: self._run(self._module, tensors))
            and not self._answers_alike(tensors, answer)
        ):
            raise ExportError(f"{TWICE}: it draws random numbers at inputs of {_shapes(tensors)}; leave that out")
        self._last = (list(tensors), answer)
        return answer

    def _answers_alike(self, tensors: Sequence[Tensor], answer: list[Array], times: int = 4) -> bool:
        """Whether no answer depends on what was drawn: noise for training, a share of teacher forcing that is 0."""
        first = list(map(torch.from_numpy, answer))
        for turn in range(-len(UNUSUAL), times):
            with drawing(UNUSUAL[turn]) if turn < 0 else nullcontext():
                other = list(map(torch.from_numpy, self._run(self._module, tensors)))
            if not same_answers(first, other):
                return False
        return True

    def check_again(self, tensors: Sequence[Tensor]) -> None:
        """Ask once more; ExportError when the module answers equal inputs differently."""
        first, again = (list(map(torch.from_numpy, a)) for a in (self(tensors), self._run(self._module, tensors)))
        if not same_answers(first, again):
            raise ExportError(f"{TWICE}, at inputs of {_shapes(tensors)}: a file answers equal questions equally")

    def failure(self, tensors: Sequence[Tensor]) -> str:
        """Why the module cannot run on ``tensors`` (too few steps for a convolution, say), empty if it can."""
        try:
            self(tensors)
        except ExportError:
            raise
        except Exception as failure:
            pass_on_interruption(failure)
            return first_line(failure)
        return ""

    def excuses(self, tensors: Sequence[Tensor], got: Sequence[Array], expected: Sequence[Array]) -> bool:
        """True when rounding explains a difference, as float64 shows.

        PyTorch in float64 is about as far from the file as from PyTorch's own float32; it answers the same when asked twice;
        and weights and inputs that differ by rounding move its answer about as far.  So neither chance nor code that does
        something else in float64 is taken for rounding.
        """
        try:
            wide = [t.double() if t.is_floating_point() else t for t in tensors]
            if self._double is None:
                self._double = copied(self._module).double()
                self._perturbed = _perturbed(self._double)
            assert self._perturbed is not None
            exact, again = self._run(self._double, wide), self._run(self._double, wide)
            moved = self._run(self._perturbed, [_rounded(t, 1) if t.is_floating_point() else t for t in wide])
        except Exception as failure:  # torch's layers raise ValueError, others what they like
            pass_on_interruption(failure)
            return False  # the module cannot run in float64, so nothing can excuse it
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(exact, again, strict=True)):
            return False
        return all(
            error(g, x)[0] <= CHAOS * error(e, x)[0] and error(e, x)[0] <= CHAOS * error(m, x)[0]
            for g, e, x, m in zip(got, expected, exact, moved, strict=True)
        )

    def _run(self, module: nn.Module, tensors: Sequence[Tensor]) -> list[Array]:
        with torch.no_grad(), unchanged(module):
            answers = self._known(self._example.call(module, tensors))
        states = self._example.states.values()
        return [answer for number, answer in enumerate(answers) if number not in states]

    def _known(self, outputs: object) -> list[Array]:
        """Those of ``outputs`` that the example has as well: of others a file knows nothing."""
        found = list(named_tensors(outputs, ""))
        names = [name for name, _ in found]
        if self._names is None:
            self._names = names
        if names != self._names:
            with torch.no_grad(), unchanged(self._module):
                own = self._example.call(self._module, [one.value for one in self._example.inputs])
            self._names = [name for name, _ in named_tensors(own, "")]
            if set(self._names) < set(names):
                found = [(name, value) for name, value in found if name in self._names]
        return [_array(value) for _, value in found]


def _perturbed(module: nn.Module) -> nn.Module:
    """A copy of a float64 module with weights that are off by about what float32 rounds away."""
    other = copied(module)
    with torch.no_grad():
        for number, weight in enumerate(other.parameters()):
            if weight.is_floating_point():
                weight.copy_(_rounded(weight, number))
    return other


def _rounded(value: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return value * (1 + torch.finfo(torch.float32).eps * noise.to(value.device, value.dtype))


def _are_same(known: Sequence[Tensor], tensors: Sequence[Tensor]) -> bool:
    return len(known) == len(tensors) and all(a is b for a, b in zip(known, tensors, strict=True))


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(list(t.shape)) for t in tensors)


def first_line(failure: Exception) -> str:
    """What an exception says, in one line."""
    return str(failure).strip().partition("\n")[0] or type(failure).__name__


def _array(value: Tensor) -> Array:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
