"""The definition of a recurrent cell: two functions, and nothing else decides what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rnncore.cells.deferred import deferring
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all

StateSize = int | tuple[int, ...]
"""Size of a state that is a vector, or shape of any other, both without the batch axis."""


def check_size(what: str, size: int) -> None:
    """Raise InputError unless ``size`` is an integer of at least 1."""
    raise_all(count_problems(what, size))


def state_shape(size: StateSize) -> tuple[int, ...]:
    """Shape of the state of one sequence."""
    return (size,) if isinstance(size, int) else tuple(size)


class Cell(nn.Module):
    """One step of a recurrence, split into what depends on the past and what does not.

    A subclass defines

    * ``project(x) -> z``: everything that does not depend on the past.  ``x`` has shape [..., input_size] and ``z``
      shape [..., any fixed size]; it runs once for all time steps.  The default hands ``x`` through.
    * ``step(z_t, *state) -> (y_t, *state)``: one step for a batch; ``z_t`` is [batch, z size], each state is
      [batch, its size] in the order of ``state_sizes``, ``y_t`` is [batch, output_size].  A state that is no vector, such
      as the matrix of an associative memory, is ``[batch, *its shape]``.

    Training (:class:`rnncore.Recurrent`), ONNX export, streaming and batching follow from these two; a step must use
    torch operations that treat every row of the batch alike.

    Args:
        input_size: features of one input step.
        output_size: features of one output step.
        state_sizes: name and size of each state, such as ``{"h": 64, "c": 64}``; for a state of more axes its shape, such
            as ``{"memory": (4, 16, 16)}``.
        learn_initial_state: make the initial state a parameter ``initial_<name>`` of shape [size], zero at first.

    Example::

        class Leaky(Cell):                                    # y = s = 0.9 s + tanh(W x)
            def __init__(self, input_size, size):
                super().__init__(input_size, size, {"s": size})
                self.linear = nn.Linear(input_size, size)

            def project(self, x):
                return torch.tanh(self.linear(x))

            def step(self, z, s):
                s = 0.9 * s + z
                return s, s
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        state_sizes: Mapping[str, StateSize],
        *,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size)
        check_size("output_size", output_size)
        for name, state_size in state_sizes.items():
            for n in state_size if isinstance(state_size, tuple) else (state_size,):
                check_size(name, n)
        if not state_sizes:
            raise InputError("state_sizes is empty: a recurrent cell carries at least one state, such as {'h': 64}")
        self.input_size = input_size
        self.output_size = output_size
        self.state_sizes: dict[str, Any] = dict(state_sizes)
        self.learn_initial_state = learn_initial_state
        if learn_initial_state:
            for name, size in state_sizes.items():
                self.register_parameter(f"initial_{name}", nn.Parameter(torch.zeros(state_shape(size))))

    def project(self, x: Tensor) -> Tensor:
        """Input part of every step, [..., input_size] -> [..., z size]."""
        return x

    if TYPE_CHECKING:
        # Every cell has its own number of states, which no one signature can say.
        step: Callable[..., tuple[Tensor, ...]]
    else:

        def step(self, z: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            """One step: ``(z_t, *state) -> (y_t, *state)``, all [batch, size]."""
            raise NotImplementedError(f"{type(self).__name__} must define step(self, z, {', '.join(self.state_sizes)})")

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """State before the first step: zeros or the learned value, each [batch, size], dtype and device of ``like``.

        A state of more axes is ``[batch, *its shape]``.
        """
        if self.learn_initial_state:
            initial = (getattr(self, f"initial_{name}") for name in self.state_sizes)
            return tuple(value.to(like.dtype).unsqueeze(0).expand(batch, *value.shape) for value in initial)
        shapes = [state_shape(size) for size in self.state_sizes.values()]
        return tuple(like.new_zeros(1, *shape).expand(batch, *shape) for shape in shapes)

    def extra_repr(self) -> str:
        """Sizes, as shown in ``repr``."""
        return f"{self.input_size}, {self.output_size}"


class GatedCell(Cell):
    """What the classic cells share: ``gates`` blocks of weights with torch's names, shapes and initialisation.

    ============ ============================================
    parameter    shape
    ============ ============================================
    weight_ih    [gates * hidden_size, input_size]
    weight_hh    [gates * hidden_size, recurrent size]
    bias_ih      [gates * hidden_size], absent with bias=False
    bias_hh      [gates * hidden_size], absent with bias=False
    ============ ============================================

    The recurrent size is hidden_size, or the projection's size where a cell has one.
    """

    bias_ih: Tensor | None
    bias_hh: Tensor | None

    @property
    def adds_recurrent(self) -> bool:
        """Whether every use of ``weight_hh`` in a step is one :meth:`add_recurrent` of all of z and the first state."""
        return False

    def add_recurrent(self, z: Tensor, h: Tensor) -> Tensor:
        """``z + W_hh h``, [batch, gates * hidden_size]."""
        # torch.compile defers nothing, and a context variable would break its graph.
        deferred = not torch.compiler.is_dynamo_compiling() and deferring.get() is self
        weight = self.weight_hh.detach() if deferred else self.weight_hh
        return torch.addmm(z, h, weight.t())

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        gates: int,
        state_sizes: Mapping[str, int],
        *,
        output_size: int | None = None,
        bias: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        check_size("hidden_size", hidden_size)
        recurrent_size = output_size or hidden_size
        super().__init__(input_size, recurrent_size, state_sizes, learn_initial_state=learn_initial_state)
        self.hidden_size = hidden_size
        self.bias = bias
        self.weight_ih = nn.Parameter(torch.empty(gates * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(gates * hidden_size, recurrent_size))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, nn.Parameter(torch.empty(gates * hidden_size)) if bias else None)

    def reset_parameters(self) -> None:
        """Draw every weight from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as torch does; learned states stay zero."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters(recurse=False):
            if not name.startswith("initial_"):
                nn.init.uniform_(parameter, -bound, bound)

    def summed_bias(self) -> Tensor | None:
        """``bias_ih + bias_hh``: both are added before any gate, so they are hoisted out of the loop as one."""
        return None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh
