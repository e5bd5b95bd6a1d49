"""A cell as data: its kind, its size, its variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rnncore.cells import Cell, GRUCell, LSTMCell, MinGRUCell, MinLSTMCell, RNNCell
from rnncore.runtime.errors import InputError

_KINDS: dict[str, Callable[..., Cell]] = {
    "rnn": RNNCell,
    "gru": GRUCell,
    "lstm": LSTMCell,
    "mingru": MinGRUCell,
    "minlstm": MinLSTMCell,
}

CELLS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "rnn": ("rnn", {}),
    "rnn-relu": ("rnn", {"activation": "relu"}),
    "gru": ("gru", {}),
    "gru-before": ("gru", {"reset": "before"}),
    "gru-simple": ("gru", {"reset": None}),
    "lstm": ("lstm", {}),
    "peephole-lstm": ("lstm", {"peephole": "current"}),
    "peephole-lstm-previous": ("lstm", {"peephole": "previous"}),
    "coupled-lstm": ("lstm", {"coupled": True}),
    "layernorm-lstm": ("lstm", {"layer_norm": True}),
    "mingru": ("mingru", {}),
    "minlstm": ("minlstm", {}),
}
"""Short names of common variants -> (kind, options); any other variant is a CellConfig with options of its own."""


@dataclass(frozen=True)
class CellConfig:
    """One cell of a stack.

    kind: "rnn", "gru", "lstm", "mingru" or "minlstm".
    hidden_size: features of its state.
    options: the cell's keyword arguments, such as ``{"peephole": "current", "projection": 64}``; JSON values only.
    """

    kind: str
    hidden_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, hidden_size: int) -> CellConfig:
        """The cell with a short name of :data:`CELLS`; raises InputError that lists them."""
        if name not in CELLS:
            raise InputError(f"unknown cell {name!r}; known: {', '.join(CELLS)}")
        kind, options = CELLS[name]
        return cls(kind, hidden_size, dict(options))

    def build(self, input_size: int) -> Cell:
        """A new cell that takes [..., input_size]; raises InputError for an unknown kind, option or value."""
        if self.kind not in _KINDS:
            raise InputError(f"unknown cell kind {self.kind!r}; known: {', '.join(_KINDS)}")
        try:
            return _KINDS[self.kind](input_size, self.hidden_size, **self.options)
        except TypeError as error:
            raise InputError(f"cell kind {self.kind!r} does not take these options: {error}") from None
