"""Spiking neurons, in the loops over time of their packages' tutorials."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.zoo.subject import Call, Subject, entry


class _Spiking(nn.Module):
    """Currents from a linear layer into neurons, step by step: [time, batch, 4] -> [time, batch, 8]."""

    def __init__(self, neurons: nn.Module, start: str, width: int = 8) -> None:
        super().__init__()
        self.currents, self.neurons, self._start = nn.Linear(4, width), neurons, start

    def forward(self, x: Tensor) -> Tensor:
        first = getattr(self.neurons, self._start)()
        states = first if isinstance(first, tuple) else (first,)
        found = []
        for t in range(x.size(0)):
            spikes, *states = self.neurons(self.currents(x[t]), *states)
            states = (spikes, *states) if self._start == "init_rleaky" else states
            found.append(states[-1])
        return torch.stack(found)


def _draw(batch: int, time: int) -> Tensor:
    return 2 * torch.randn(time, batch, 4)


@entry("snntorch", "Leaky")
def _leaky() -> Subject:
    import snntorch

    return Subject(_Spiking(snntorch.Leaky(beta=0.9), "init_leaky"), _draw, causal=True)


@entry("snntorch", "RLeaky")
def _recurrent_leaky() -> Subject:
    import snntorch

    return Subject(_Spiking(snntorch.RLeaky(beta=0.9, linear_features=8), "init_rleaky"), _draw, causal=True)


@entry("snntorch", "SLSTM")
def _spiking_lstm() -> Subject:
    import snntorch

    return Subject(_Spiking(snntorch.SLSTM(8, 8), "init_slstm"), _draw, causal=True)


@entry("norse", "LIFRecurrent")
def _lif_recurrent() -> Subject:
    import norse.torch

    return Subject(Call(norse.torch.LIFRecurrent(4, 8), lambda m, x: m(5 * x)[0]), _draw, causal=True)
