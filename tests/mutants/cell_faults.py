"""Faults planted in cells: gates, biases, peepholes, reset, projection, normalisation, states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

import rnncore
from tests.mutants.plain_cells import PlainGRU, PlainLSTM, PlainRNN, reshaped, swapped


@dataclass(frozen=True)
class Mutant:
    """A healthy layer, and how to plant one fault in a copy of it."""

    name: str
    healthy: Callable[[], rnncore.RecurrentLayer]
    plant: Callable[[Any], None]


def in_cell(name: str, base: type[rnncore.Cell], options: dict[str, Any], **overrides: Any) -> Mutant:
    """A fault that overrides methods of the layer's cell, ``base(5, 11, **options)``."""
    faulty = type(f"Faulty{base.__name__}", (base,), overrides)

    def plant(layer: rnncore.Recurrent) -> None:
        layer.cell.__class__ = faulty

    shown = " ".join(str(value) if isinstance(value, str) else key for key, value in options.items())
    return Mutant(
        f"{base.__name__} {shown}: {name}".replace(" :", ":"), lambda: rnncore.Recurrent(base(5, 11, **options)), plant
    )


CURRENT, PREVIOUS = {"peephole": "current"}, {"peephole": "previous"}
PROJECTED, NORMED, LEARNED = {"projection": 3}, {"layer_norm": True}, {"learn_initial_state": True}
COUPLED = {"coupled": True}
AFTER, BEFORE = {"reset": "after"}, {"reset": "before"}


def rnn_faults() -> Iterator[Mutant]:
    yield in_cell("input bias dropped", PlainRNN, {}, total_bias=lambda self: self.bias_hh)
    yield in_cell("hidden bias dropped", PlainRNN, {}, total_bias=lambda self: self.bias_ih)
    yield in_cell("relu for tanh", PlainRNN, {}, activate=lambda self, v: torch.relu(v))
    yield in_cell("tanh for relu", PlainRNN, {"activation": "relu"}, activate=lambda self, v: torch.tanh(v))
    yield in_cell(
        "slope of Keras 2 in hard sigmoid",
        PlainRNN,
        {"activation": "hard_sigmoid"},
        activate=lambda self, v: torch.clamp(0.2 * v + 0.5, 0, 1),
    )

    def transposed(self: PlainRNN, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.activate(z + h @ self.weight_hh)
        return h, h

    yield in_cell("recurrent matrix transposed", PlainRNN, {}, step=transposed)


def gru_faults() -> Iterator[Mutant]:
    for options in (AFTER, BEFORE):
        for a, b in combinations("rzn", 2):
            yield in_cell(f"gates {a} and {b} swapped", PlainGRU, options, order=swapped("rzn", a, b))
        yield in_cell(
            "update gate's sign flipped",
            PlainGRU,
            options,
            mix=lambda self, update, candidate, h: update * candidate + (1 - update) * h,
        )
        yield in_cell("input bias dropped", PlainGRU, options, input_bias=lambda self: 0 * self.bias_ih)
        yield in_cell("hidden bias dropped", PlainGRU, options, hidden_bias=lambda self: 0 * self.bias_hh)
        yield in_cell(
            "reset gate ignored",
            PlainGRU,
            options,
            candidate=lambda self, of_x, of_h, reset, h: self._activate(of_x + of_h),
        )
    yield in_cell("reset before the matrix", PlainGRU, AFTER, after=PlainGRU.before)
    yield in_cell("reset after the matrix", PlainGRU, BEFORE, before=PlainGRU.after)

    def bias_outside(self: PlainGRU, of_x: Tensor, of_h: Tensor, reset: Tensor, h: Tensor) -> Tensor:
        bias = self.bias_hh.chunk(3)[2]
        return self._activate(of_x + bias + reset * (of_h - bias))

    yield in_cell("candidate's hidden bias outside the reset", PlainGRU, AFTER, after=bias_outside)
    yield in_cell(
        "learned initial state ignored",
        PlainGRU,
        {**AFTER, **LEARNED},
        initial_state=lambda self, batch, like: (like.new_zeros(batch, 11),),
    )


def lstm_faults() -> Iterator[Mutant]:
    for a, b in combinations("ifgo", 2):
        yield in_cell(f"gates {a} and {b} swapped", PlainLSTM, {}, order=lambda self, a=a, b=b: swapped("ifgo", a, b))
    for a, b in combinations("fgo", 2):
        yield in_cell(
            f"gates {a} and {b} swapped", PlainLSTM, COUPLED, order=lambda self, a=a, b=b: swapped("fgo", a, b)
        )
    yield in_cell("input gate = forget gate", PlainLSTM, COUPLED, couple=lambda self, forget: forget)
    yield in_cell("coupled although it is not", PlainLSTM, {}, memory=lambda self, f, u, g, c: f * c + (1 - f) * g)
    yield in_cell("input bias dropped", PlainLSTM, {}, total_bias=lambda self: self.bias_hh)
    yield in_cell("hidden bias dropped", PlainLSTM, {}, total_bias=lambda self: self.bias_ih)
    yield in_cell("hidden bias added twice", PlainLSTM, {}, total_bias=lambda self: self.bias_ih + 2 * self.bias_hh)
    yield in_cell("tanh of the memory missing", PlainLSTM, {}, visible=lambda self, output, c: output * c)
    yield in_cell("output is the memory", PlainLSTM, {}, results=lambda self, h, c: (c, h, c))
    yield in_cell("h and c exchanged in the state", PlainLSTM, {}, results=lambda self, h, c: (h, c, h))
    yield in_cell("memory not carried", PlainLSTM, {}, memory=lambda self, f, u, g, c: u * g)

    def exchanged(self: PlainLSTM, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        h, c = PlainLSTM.initial_state(self, batch, like)
        return c, h

    yield in_cell("learned h and c exchanged", PlainLSTM, LEARNED, initial_state=exchanged)
    yield in_cell(
        "learned initial state ignored",
        PlainLSTM,
        LEARNED,
        initial_state=lambda self, batch, like: (like.new_zeros(batch, 11), like.new_zeros(batch, 11)),
    )


def peephole_faults() -> Iterator[Mutant]:
    for options in (CURRENT, PREVIOUS):
        for a, b in combinations("ifo", 2):
            yield in_cell(
                f"peepholes {a} and {b} swapped",
                PlainLSTM,
                options,
                peephole_order=lambda self, a=a, b=b: swapped("ifo", a, b),
            )
        yield in_cell("peepholes ignored", PlainLSTM, options, peeps=lambda self: {})
    yield in_cell("old memory in the output peephole", PlainLSTM, CURRENT, seen_by_output=lambda self, c, new: c)
    yield in_cell("new memory in the output peephole", PlainLSTM, PREVIOUS, seen_by_output=lambda self, c, new: new)
    yield in_cell(
        "output peephole missing",
        PlainLSTM,
        CURRENT,
        peeps=lambda self: {gate: p for gate, p in PlainLSTM.peeps(self).items() if gate != "o"},
    )
    yield in_cell(
        "peepholes f and o swapped", PlainLSTM, {**CURRENT, **COUPLED}, peephole_order=lambda self: ("o", "f")
    )


def projection_faults() -> Iterator[Mutant]:
    yield in_cell("projection ignored", PlainLSTM, PROJECTED, project_down=lambda self, h: h[:, :3])
    yield in_cell(
        "projection transposed", PlainLSTM, PROJECTED, project_down=lambda self, h: h @ reshaped(self.weight_hr).T
    )

    def too_early(self: PlainLSTM, output: Tensor, c: Tensor) -> Tensor:
        return output[:, :3] * (self._activate(c) @ self.weight_hr.T)

    yield in_cell("projection before the output gate", PlainLSTM, PROJECTED, visible=too_early)
    yield in_cell(
        "output squashed after the projection",
        PlainLSTM,
        PROJECTED,
        project_down=lambda self, h: torch.tanh(h @ self.weight_hr.T),
    )


def norm_faults() -> Iterator[Mutant]:
    yield in_cell("input product not normalised", PlainLSTM, NORMED, of_x=lambda self, x: x @ self.weight_ih.T)
    yield in_cell("hidden product not normalised", PlainLSTM, NORMED, of_h=lambda self, h: h @ self.weight_hh.T)
    yield in_cell("norms exchanged", PlainLSTM, NORMED, of_h=lambda self, h: self.norm_ih(h @ self.weight_hh.T))
    yield in_cell(
        "bias inside the norm",
        PlainLSTM,
        NORMED,
        project=lambda self, x: self.norm_ih(x @ self.weight_ih.T + self.total_bias()),
    )
    yield in_cell(
        "sum normalised, not its parts",
        PlainLSTM,
        NORMED,
        of_x=lambda self, x: x @ self.weight_ih.T,
        preactivations=lambda self, z, h: self.norm_hh(z + h @ self.weight_hh.T),
    )
    yield in_cell(
        "memory not normalised", PlainLSTM, NORMED, visible=lambda self, output, c: output * self._activate(c)
    )
    yield in_cell("normalised memory carried", PlainLSTM, NORMED, results=lambda self, h, c: (h, h, self.norm_c(c)))

    def gate_by_gate(self: PlainLSTM, h: Tensor) -> Tensor:
        parts = (h @ self.weight_hh.T).chunk(4, 1)
        return torch.cat([torch.nn.functional.layer_norm(p, (11,)) for p in parts], 1) * self.norm_hh.weight

    yield in_cell("each gate normalised by itself", PlainLSTM, NORMED, of_h=gate_by_gate)


def minimal_faults() -> Iterator[Mutant]:
    def swap_blocks(gates: int, a: int, b: int) -> Callable[[Any, Tensor], Tensor]:
        def project(self: Any, x: Tensor) -> Tensor:
            order = list(range(gates))
            order[a], order[b] = order[b], order[a]
            healthy = self.linear.forward
            self.linear.forward = lambda x: torch.cat([healthy(x).chunk(gates, -1)[k] for k in order], -1)
            try:
                return self.__class__.__mro__[1].project(self, x)
            finally:
                self.linear.forward = healthy

        return project

    yield in_cell("gates z and h swapped", rnncore.MinGRUCell, {}, project=swap_blocks(2, 0, 1))
    yield in_cell(
        "update gate's sign flipped",
        rnncore.MinGRUCell,
        {},
        step=lambda self, z, h: ((1 - z.chunk(2, 1)[0]) * h + z.chunk(2, 1)[1],) * 2,
    )
    for a, b in combinations(range(3), 2):
        yield in_cell(f"gates {'fih'[a]} and {'fih'[b]} swapped", rnncore.MinLSTMCell, {}, project=swap_blocks(3, a, b))


CELL_MUTANTS = [
    *rnn_faults(),
    *gru_faults(),
    *lstm_faults(),
    *peephole_faults(),
    *projection_faults(),
    *norm_faults(),
    *minimal_faults(),
]
