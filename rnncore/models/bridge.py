"""``Bridge``: from the final states of an encoder to the initial states of a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rnncore.layers import Bidirectional, Recurrent, State
from rnncore.runtime.errors import InputError

BRIDGES = ("linear", "identity")


class Bridge(nn.Module):
    """Initial states of decoder layers, made of the final states of encoder layers.

    ========== =================================================================================================
    kind       what happens
    ========== =================================================================================================
    "linear"   all final states side by side, through one linear layer, cut into the initial states; any cells
    "identity" layer i hands its state to layer i, both directions side by side; sizes and names must fit
    ========== =================================================================================================

    Parameters, "linear" only: ``linear.weight`` [sum of the decoder's state sizes, sum of the encoder's],
    ``linear.bias``.

    Raises:
        InputError: an unknown kind, or states that do not fit one another.
    """

    def __init__(self, kind: str, encoder: Sequence[Recurrent | Bidirectional], decoder: Sequence[Recurrent]) -> None:
        super().__init__()
        if kind not in BRIDGES:
            raise InputError(f"unknown bridge {kind!r}; known: {', '.join(BRIDGES)}")
        self.kind = kind
        self.sizes = [list(layer.cell.state_sizes.values()) for layer in decoder]
        if kind == "linear":
            given = sum(sum(sizes.values()) for layer in encoder for sizes in _state_sizes(layer))
            self.linear = nn.Linear(given, sum(map(sum, self.sizes)))
            return
        gives = [
            [sum(sizes) for sizes in zip(*(s.values() for s in _state_sizes(layer)), strict=True)] for layer in encoder
        ]
        if gives != self.sizes:
            raise InputError(
                f"identity bridge: the encoder's layers end with states of {gives} features, the decoder's begin with "
                f"{self.sizes}; make them equal, or use 'linear'"
            )

    def forward(self, finals: State) -> tuple[tuple[Tensor, ...], ...]:
        """Initial states of every decoder layer, [batch, size] each, from the encoder's, one entry for each layer."""
        if self.kind == "identity":
            return tuple(_beside(final) for final in finals)
        flat = iter(self.linear(torch.cat(list(leaves(finals)), 1)).split([n for own in self.sizes for n in own], 1))
        return tuple(tuple(next(flat) for _ in own) for own in self.sizes)


def leaves(state: State) -> Iterator[Tensor]:
    """Every tensor of a nested state, in order."""
    for value in state:
        if isinstance(value, Tensor):
            yield value
        else:
            yield from leaves(value)


def _beside(final: State) -> tuple[Tensor, ...]:
    if isinstance(final[0], Tensor):
        return final
    return tuple(torch.cat(pair, 1) for pair in zip(*final, strict=True))


def _state_sizes(layer: Recurrent | Bidirectional) -> list[dict[str, int]]:
    if isinstance(layer, Bidirectional):
        both = [layer.forward_layer.cell.state_sizes, layer.backward_layer.cell.state_sizes]
        if [*both[0]] != [*both[1]]:
            raise InputError(
                f"the directions of the encoder have states {[*both[0]]} and {[*both[1]]}, expected the same"
            )
        return both
    return [layer.cell.state_sizes]
