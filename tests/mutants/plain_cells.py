"""rnncore's classic cells once more, cut into one method for each thing that can go wrong; faults override one of them.

They take over the parameters of rnncore's cells and must pass the parity check themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

import rnncore


class PlainRNN(rnncore.RNNCell):
    def total_bias(self) -> Tensor:
        return self.bias_ih + self.bias_hh

    def activate(self, v: Tensor) -> Tensor:
        return self._activate(v)

    def project(self, x: Tensor) -> Tensor:
        return x @ self.weight_ih.T + self.total_bias()

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.activate(z + h @ self.weight_hh.T)
        return h, h


class PlainGRU(rnncore.GRUCell):
    """reset="after" or "before"."""

    order = ("r", "z", "n")

    def blocks(self, v: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.order, v.chunk(3, -1), strict=True))

    def hidden_bias(self) -> Tensor:
        return self.bias_hh

    def input_bias(self) -> Tensor:
        return self.bias_ih

    def project(self, x: Tensor) -> Tensor:
        return x @ self.weight_ih.T + self.input_bias()

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        of_x, of_h = self.blocks(z), self.blocks(functional.linear(h, self.weight_hh, self.hidden_bias()))
        reset, update = self._gate(of_x["r"] + of_h["r"]), self._gate(of_x["z"] + of_h["z"])
        h = self.mix(update, self.candidate(of_x["n"], of_h["n"], reset, h), h)
        return h, h

    def candidate(self, of_x: Tensor, of_h: Tensor, reset: Tensor, h: Tensor) -> Tensor:
        return self.after(of_x, of_h, reset, h) if self.reset == "after" else self.before(of_x, of_h, reset, h)

    def after(self, of_x: Tensor, of_h: Tensor, reset: Tensor, h: Tensor) -> Tensor:
        return self._activate(of_x + reset * of_h)

    def before(self, of_x: Tensor, of_h: Tensor, reset: Tensor, h: Tensor) -> Tensor:
        weight, bias = self.weight_hh.chunk(3)[2], self.hidden_bias().chunk(3)[2]
        return self._activate(of_x + functional.linear(reset * h, weight, bias))

    def mix(self, update: Tensor, candidate: Tensor, h: Tensor) -> Tensor:
        return (1 - update) * candidate + update * h


class PlainLSTM(rnncore.LSTMCell):
    """Every variant of rnncore's."""

    def order(self) -> str:
        return "fgo" if self.coupled else "ifgo"

    def peephole_order(self) -> str:
        return "fo" if self.coupled else "ifo"

    def total_bias(self) -> Tensor:
        return self.bias_ih + self.bias_hh

    def of_x(self, x: Tensor) -> Tensor:
        v = x @ self.weight_ih.T
        return v if self.norm_ih is None else self.norm_ih(v)

    def of_h(self, h: Tensor) -> Tensor:
        v = h @ self.weight_hh.T
        return v if self.norm_hh is None else self.norm_hh(v)

    def project(self, x: Tensor) -> Tensor:
        return self.of_x(x) + self.total_bias()

    def preactivations(self, z: Tensor, h: Tensor) -> Tensor:
        return z + self.of_h(h)

    def peeps(self) -> dict[str, Tensor]:
        if self.weight_peephole is None:
            return {}
        return dict(zip(self.peephole_order(), self.weight_peephole.chunk(len(self.peephole_order())), strict=True))

    def step(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = dict(zip(self.order(), self.preactivations(z, h).chunk(len(self.order()), 1), strict=True))
        peeps = self.peeps()
        for gate in peeps.keys() & {"i", "f"}:
            v[gate] = v[gate] + peeps[gate] * c
        forget = self._gate(v["f"])
        update = self.couple(forget) if self.coupled else self._gate(v["i"])
        new_c = self.memory(forget, update, self._activate(v["g"]), c)
        if "o" in peeps:
            v["o"] = v["o"] + peeps["o"] * self.seen_by_output(c, new_c)
        new_h = self.visible(self._gate(v["o"]), new_c)
        return self.results(new_h, new_c)

    def couple(self, forget: Tensor) -> Tensor:
        return 1 - forget

    def memory(self, forget: Tensor, update: Tensor, candidate: Tensor, c: Tensor) -> Tensor:
        return forget * c + update * candidate

    def seen_by_output(self, c: Tensor, new_c: Tensor) -> Tensor:
        return new_c if self.peephole == "current" else c

    def visible(self, output: Tensor, new_c: Tensor) -> Tensor:
        shown = new_c if self.norm_c is None else self.norm_c(new_c)
        h = output * self._activate(shown)
        return h if self.weight_hr is None else self.project_down(h)

    def project_down(self, h: Tensor) -> Tensor:
        return h @ self.weight_hr.T

    def results(self, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return h, h, c


def swapped(order: str | tuple[str, ...], a: str, b: str) -> tuple[str, ...]:
    """``order`` with two gates exchanged."""
    exchange = {a: b, b: a}
    return tuple(exchange.get(gate, gate) for gate in order)


def reshaped(weight: Tensor) -> Tensor:
    """A matrix read in the layout of its transpose: same shape, other places."""
    return weight.T.reshape(weight.shape)


__all__ = ["PlainGRU", "PlainLSTM", "PlainRNN", "reshaped", "swapped", "torch"]
