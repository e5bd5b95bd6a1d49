"""``Stacked``: deep networks of recurrent and feed-forward layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.layers.base import RecurrentLayer, State, check_lengths, valid_steps
from rnncore.layers.dropout import dropout as dropped
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import InputError, StateError, raise_all


class Stacked(RecurrentLayer):
    """Layers on top of each other: any mixture of cells and directions, and feed-forward modules among or above them.

    A layer that is no recurrent layer is called as ``module(y)`` on [batch, time, features] and must treat every time
    step alike (``nn.Linear``, ``nn.LayerNorm``, an ``nn.Sequential`` of such, ...): it has no horizontal connections.

    Its state is a tuple with one entry for each layer, ``()`` for feed-forward ones.

    Args:
        layers: bottom first; the first one must be recurrent.
        dropout: probability of zeroing an output of each recurrent layer but the last, while training.
        variational: zero the same outputs at all steps of a sequence, see :func:`rnncore.layers.dropout.dropout`.
    """

    def __init__(self, layers: Iterable[nn.Module], *, dropout: float = 0.0, variational: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_checked_layers(layers))
        if not isinstance(dropout, int | float) or not 0.0 <= dropout <= 1.0:
            raise InputError(f"dropout is {dropout!r}, expected 0 to 1")
        if not self.layers or not isinstance(self.layers[0], RecurrentLayer):
            raise InputError(
                "the first layer of Stacked must be a recurrent layer, such as Recurrent(GRUCell(80, 128))"
            )
        self.dropout = dropout
        self.variational = variational
        self._check_widths()
        recurrent = [i for i, layer in enumerate(self.layers) if isinstance(layer, RecurrentLayer)]
        self._last_recurrent = recurrent[-1]
        self.input_size = self.layers[0].input_size
        top = self.layers[-1]
        self.output_size = top.output_size if isinstance(top, RecurrentLayer) else self._width_after_head()

    def _check_widths(self) -> None:
        for below, above in zip(self.layers, list(self.layers)[1:], strict=False):
            gives = getattr(below, "out_features" if isinstance(below, nn.Linear) else "output_size", None)
            takes = getattr(above, "in_features" if isinstance(above, nn.Linear) else "input_size", None)
            if gives is not None and takes is not None and gives != takes:
                raise InputError(
                    f"{type(below).__name__} gives {gives} features, the {type(above).__name__} above it takes {takes}"
                )

    def _width_after_head(self) -> int:
        """Features after the feed-forward modules on top: what they make of one step, since no attribute tells."""
        below = cast(RecurrentLayer, self.layers[self._last_recurrent])
        like = next(self.parameters(), torch.zeros(()))
        y = torch.zeros(1, 1, below.output_size, dtype=like.dtype, device=like.device)
        # On copies in eval mode: neither running statistics nor the random generator may notice.
        for i, layer in list(enumerate(self.layers))[self._last_recurrent + 1 :]:
            try:
                with torch.no_grad():
                    y = copy.deepcopy(layer).eval()(y)
            except Exception as error:
                pass_on_interruption(error)
                raise InputError(
                    f"layer {i}, a {type(layer).__name__}, fails on what comes from below, [batch, time, {y.shape[-1]}]: "
                    f"{error}"
                ) from error
            if not isinstance(y, Tensor) or y.shape[:2] != (1, 1) or y.dim() != 3:
                got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                raise InputError(
                    f"layer {i}, a {type(layer).__name__}, gives {got} for one step, expected [batch, time, features]"
                )
        return y.shape[2]

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> State:
        """One initial state for each layer."""
        return tuple(
            layer.initial_state(batch, like) if isinstance(layer, RecurrentLayer) else () for layer in self.layers
        )

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """(y [batch, time, output_size], one state for each layer)."""
        if state is not None and (not isinstance(state, tuple | list) or len(state) != len(self.layers)):
            got = f"has {len(state)} entries" if isinstance(state, tuple | list) else f"is a {type(state).__name__}"
            raise StateError(
                f"{type(self).__name__}: state {got}, expected one for each of its {len(self.layers)} layers"
            )
        states: list[State] = []
        y = x
        for i, layer in enumerate(self.layers):
            if isinstance(layer, RecurrentLayer):
                y, layer_state = layer(y, None if state is None else state[i], lengths)
                states.append(layer_state)
                if i < self._last_recurrent:
                    y = dropped(y, self.dropout, self.training, variational=self.variational)
            else:
                y = layer(y)
                states.append(())
        if lengths is not None and self._last_recurrent < len(self.layers) - 1:
            traced = torch.compiler.is_exporting()
            valid = valid_steps(check_lengths(lengths, y, traced=traced), y.shape[1])
            y = y.masked_fill(~valid, 0.0)
        return y, tuple(states)


def _checked_layers(layers: Iterable[nn.Module]) -> list[nn.Module]:
    if isinstance(layers, nn.Module) and not isinstance(layers, nn.ModuleList | nn.Sequential):
        raise InputError(f"layers is a {type(layers).__name__}, expected a list of layers, bottom first")
    layers = list(layers)
    problems = []
    for i, layer in enumerate(layers):
        if isinstance(layer, Cell):
            problems.append(
                f"layer {i} is a {type(layer).__name__}, which does one step only; wrap it: Recurrent(cell)"
            )
        elif isinstance(layer, nn.RNNBase):
            name = type(layer).__name__
            problems.append(f"layer {i} is a torch.nn.{name}, which has another call shape; use rnncore.{name}")
        elif not isinstance(layer, nn.Module):
            problems.append(f"layer {i} is a {type(layer).__name__}, expected a module")
    raise_all(problems)
    return layers
