"""The cells of the notes, in the notes' notation and weight layout, for one row at a time.

Each matrix acts on the concatenation [a<t-1>, x<t>] (GRU: [c<t-1>, x<t>]): W_a = [W_aa | W_ax], hidden columns first.
A cell has ``sizes`` (of its states), ``output_size`` and ``step(x, *state) -> (y, state)``, all vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.oracle.functions import Array, Function, layer_norm, log_sigmoid, sigmoid

Step = tuple[Array, tuple[Array, ...]]


@dataclass
class Cell:
    """What every cell has: the state before the first step, one vector for each name of the subclass."""

    initial: tuple[Array, ...]

    @property
    def output_size(self) -> int:
        return len(self.initial[0])

    def step(self, x: Array, *state: Array) -> Step:
        raise NotImplementedError


@dataclass
class BasicRNN(Cell):
    """a<t> = g(W_a [a<t-1>, x<t>] + b_a)."""

    W_a: Array
    b_a: Array
    g: Function

    def step(self, x: Array, *state: Array) -> Step:
        (a,) = state
        a = self.g(self.W_a @ np.concatenate([a, x]) + self.b_a)
        return a, (a,)


@dataclass
class SimplifiedGRU(Cell):
    """The notes' first GRU: an update gate only.

    c̃<t> = tanh(W_c [c<t-1>, x<t>] + b_c); Γu = σ(W_u [c<t-1>, x<t>] + b_u); c<t> = Γu * c̃<t> + (1 - Γu) * c<t-1>.
    """

    W_u: Array
    b_u: Array
    W_c: Array
    b_c: Array
    gate_u: Function
    g: Function

    def step(self, x: Array, *state: Array) -> Step:
        (c,) = state
        seen = np.concatenate([c, x])
        gamma_u = self.gate_u(self.W_u @ seen + self.b_u)
        candidate = self.candidate(x, c)
        c = gamma_u * candidate + (1 - gamma_u) * c
        return c, (c,)

    def candidate(self, x: Array, c: Array) -> Array:
        return self.g(self.W_c @ np.concatenate([c, x]) + self.b_c)


@dataclass
class FullGRU(SimplifiedGRU):
    """The notes' full GRU: c̃<t> = tanh(W_c [Γr * c<t-1>, x<t>] + b_c), Γr = σ(W_r [c<t-1>, x<t>] + b_r)."""

    W_r: Array
    b_r: Array
    gate_r: Function

    def candidate(self, x: Array, c: Array) -> Array:
        gamma_r = self.relevance(x, c)
        return self.g(self.W_c @ np.concatenate([gamma_r * c, x]) + self.b_c)

    def relevance(self, x: Array, c: Array) -> Array:
        return self.gate_r(self.W_r @ np.concatenate([c, x]) + self.b_r)


@dataclass
class ResetAfterGRU(FullGRU):
    """torch and cuDNN, not the notes: c̃<t> = tanh(W_cx x<t> + b_c + Γr * (W_cc c<t-1> + b_cc))."""

    b_cc: Array

    def candidate(self, x: Array, c: Array) -> Array:
        W_cc, W_cx = np.split(self.W_c, [len(c)], axis=1)
        return self.g(W_cx @ x + self.b_c + self.relevance(x, c) * (W_cc @ c + self.b_cc))


@dataclass
class GateNorms:
    """Gains of Ba et al.'s layer norm over all gates at once: one vector a gate for each of the two products."""

    of_x: dict[str, Array]
    of_a: dict[str, Array]
    memory_gain: Array
    memory_shift: Array


@dataclass
class LSTM(Cell):
    """The notes' LSTM: Γu, Γf, Γo = σ(W_. [a<t-1>, x<t>] + b_.), c̃<t> = tanh(W_c [a<t-1>, x<t>] + b_c),
    c<t> = Γu * c̃<t> + Γf * c<t-1>, a<t> = Γo * tanh(c<t>).

    ``W`` and ``b`` are keyed by "u", "f", "o", "c".  Variants: ``P`` holds peepholes by gate, seen by all three gates as
    c<t-1> (the notes) or, with ``output_sees_new``, by Γo as c<t> (Gers & Schmidhuber); without a "u" key Γu = 1 - Γf;
    ``W_p`` projects a<t>; ``norms`` is Ba et al.'s layer normalisation.  The state is (a, c).
    """

    W: dict[str, Array]
    b: dict[str, Array]
    gate: Function
    g: Function
    P: dict[str, Array] | None = None
    output_sees_new: bool = False
    W_p: Array | None = None
    norms: GateNorms | None = None

    def step(self, x: Array, *state: Array) -> Step:
        a, c = state
        v = self.preactivations(x, a)
        gamma_f = self.gate(v["f"] + self.peep("f", c))
        gamma_u = self.gate(v["u"] + self.peep("u", c)) if "u" in v else 1 - gamma_f
        c_new = gamma_u * self.g(v["c"]) + gamma_f * c
        gamma_o = self.gate(v["o"] + self.peep("o", c_new if self.output_sees_new else c))
        shown = c_new
        if self.norms is not None:
            shown = layer_norm(c_new, self.norms.memory_gain, self.norms.memory_shift)
        a_new = gamma_o * self.g(shown)
        if self.W_p is not None:
            a_new = self.W_p @ a_new
        return a_new, (a_new, c_new)

    def peep(self, gate: str, c: Array) -> Array | float:
        return self.P[gate] * c if self.P is not None else 0.0

    def preactivations(self, x: Array, a: Array) -> dict[str, Array]:
        if self.norms is None:
            seen = np.concatenate([a, x])
            return {gate: W @ seen + self.b[gate] for gate, W in self.W.items()}
        of_a = {gate: W[:, : len(a)] @ a for gate, W in self.W.items()}
        of_x = {gate: W[:, len(a) :] @ x for gate, W in self.W.items()}
        of_a, of_x = normalise_together(of_a, self.norms.of_a), normalise_together(of_x, self.norms.of_x)
        return {gate: of_a[gate] + of_x[gate] + self.b[gate] for gate in self.W}


def normalise_together(v: dict[str, Array], gains: dict[str, Array]) -> dict[str, Array]:
    """Layer norm with mean and variance over all gates."""
    gates = list(v)
    everything = layer_norm(np.concatenate([v[gate] for gate in gates]), np.concatenate([gains[g] for g in gates]))
    return dict(zip(gates, np.split(everything, len(gates)), strict=True))


@dataclass
class MinGRU(Cell):
    """Feng et al. 2024: z = σ(W_z x), h̃ = W_h x, h<t> = (1 - z) * h<t-1> + z * h̃ (their z is the notes' Γu)."""

    W_z: Array
    b_z: Array
    W_h: Array
    b_h: Array

    def step(self, x: Array, *state: Array) -> Step:
        (h,) = state
        z = sigmoid(self.W_z @ x + self.b_z)
        h = (1 - z) * h + z * (self.W_h @ x + self.b_h)
        return h, (h,)


@dataclass
class MinLSTM(Cell):
    """Feng et al. 2024, length-independent: h<t> = f/(f+i) * h<t-1> + i/(f+i) * h̃; f, i = σ(W_f x), σ(W_i x)."""

    W_f: Array
    b_f: Array
    W_i: Array
    b_i: Array
    W_h: Array
    b_h: Array

    def step(self, x: Array, *state: Array) -> Step:
        (h,) = state
        # Both gates underflow to 0 for very negative arguments, their quotient does not: it is taken in logarithms.
        log_f, log_i = log_sigmoid(self.W_f @ x + self.b_f), log_sigmoid(self.W_i @ x + self.b_i)
        log_sum = np.logaddexp(log_f, log_i)
        h = np.exp(log_f - log_sum) * h + np.exp(log_i - log_sum) * (self.W_h @ x + self.b_h)
        return h, (h,)
