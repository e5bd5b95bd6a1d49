"""A cell as data: its kind, its size, its variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rnncore.cells import Cell, GRUCell, LSTMCell, MinGRUCell, MinLSTMCell, RNNCell, Zoneout
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

    kind: "rnn", "gru", "lstm", "mingru" or "minlstm"; or a class of your own, as :meth:`of` names it.
    hidden_size: features of its state.
    options: the cell's keyword arguments, such as ``{"peephole": "current", "projection": 64}``; JSON values only.
    zoneout: see :class:`rnncore.Zoneout`: the rate of every state, or of each by name; 0 for none.
    """

    kind: str
    hidden_size: int
    options: Mapping[str, Any] = field(default_factory=dict)
    zoneout: float | Mapping[str, float] = 0.0

    @classmethod
    def named(cls, name: str, hidden_size: int) -> CellConfig:
        """The cell with a short name of :data:`CELLS`; raises InputError that lists them."""
        if name not in CELLS:
            raise InputError(f"unknown cell {name!r}; known: {', '.join(CELLS)}")
        kind, options = CELLS[name]
        return cls(kind, hidden_size, dict(options))

    @classmethod
    def of(cls, cell: type[Cell], hidden_size: int, **options: Any) -> CellConfig:
        """A cell of any class, which is called as ``cell(input_size, hidden_size, **options)``.

        What is stored is the name ``module:Class``.  Nothing is ever imported for such a name: whoever loads a configuration has
        imported the module before.

        Raises:
            InputError: ``cell`` is no class of cells, or one that no module holds by its name.
        """
        if not isinstance(cell, type) or not issubclass(cell, Cell):
            raise InputError(f"cell is {cell!r}, expected a subclass of rnncore.Cell")
        if "<locals>" in cell.__qualname__:
            raise InputError(
                f"{cell.__qualname__} is made inside a function, so that nobody finds it by its name: define it in a module"
            )
        kinds = [kind for kind, known in _KINDS.items() if known is cell]
        return cls(kinds[0] if kinds else _name_of(cell), hidden_size, dict(options))

    def build(self, input_size: int) -> Cell:
        """A new cell that takes [..., input_size]; raises InputError for an unknown kind, option or value."""
        known = _KINDS.get(self.kind) or _own_class(self.kind)
        if known is None and ":" in self.kind:
            raise InputError(
                f"no cell {self.kind!r} is known in this program: import the module that defines it first; a configuration "
                "never imports one by itself"
            )
        if known is None:
            raise InputError(f"unknown cell kind {self.kind!r}; known: {', '.join(_KINDS)}; others by CellConfig.of")
        try:
            made = known(input_size, self.hidden_size, **self.options)
        except TypeError as error:
            raise InputError(f"cell kind {self.kind!r} does not take these options: {error}") from None
        if not isinstance(made, Cell):
            raise InputError(f"cell kind {self.kind!r} made a {type(made).__name__}, expected a rnncore.Cell")
        return Zoneout(made, self.zoneout) if self.zoneout else made


def _name_of(cell: type[Cell]) -> str:
    return f"{cell.__module__}:{cell.__qualname__}"


def _own_class(kind: str) -> type[Cell] | None:
    """The class of cells with this name among those that the program has defined.

    A program that was run as a script is called ``__main__`` there and by its own name elsewhere: then the name of the class
    counts, if there is one only.
    """
    name = kind.rpartition(":")[2]
    alike = [cell for cell in _subclasses(Cell) if cell.__qualname__ == name]
    exact = [cell for cell in alike if _name_of(cell) == kind]
    if exact:
        return exact[-1]  # a notebook that has run the definition again means the last one
    scripts = [cell for cell in alike if "__main__" in (cell.__module__, kind.rpartition(":")[0])]
    return scripts[0] if len(scripts) == 1 else None


def _subclasses(cell: type[Cell]) -> list[type[Cell]]:
    return [one for direct in cell.__subclasses__() for one in (direct, *_subclasses(direct))]
