"""How rnncore's parameters (torch's names, blocks and shapes) map to the notes' matrices.

=================  =========================  ====================================================================
rnncore            notes                      correspondence
=================  =========================  ====================================================================
RNN h              a<t>                       W_a = [weight_hh | weight_ih], b_a = bias_ih + bias_hh
GRU h              c<t> = a<t>                blocks r, z, n = Γr, 1 - Γu, c̃
GRU z              1 - Γu                     σ(-v) = 1 - σ(v): the z block with every sign flipped is Γu's
GRU reset="after"  (not in the notes)         bias_hh of n stays apart, it sits inside the reset
LSTM h, c          a<t>, c<t>                 blocks i, f, g, o = Γu, Γf, c̃, Γo; coupled: f, g, o
weight_peephole    P_u, P_f, P_o              in the order i, f, o; coupled: f, o
weight_hr          W_p                        as it is
norm_ih, norm_hh   gains of the two products  one block a gate, the order of the weights
minGRU linear      W_z, W_h                   blocks z, h; z is the notes' Γu, no flip
minLSTM linear     W_f, W_i, W_h              blocks f, i, h
=================  =========================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

import rnncore
from tests.oracle import cells, layers
from tests.oracle.functions import FUNCTIONS, Array, Function

Parameters = Mapping[str, Array]

MIRRORED = ("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2")
"""Functions with g(-v) = 1 - g(v), for which flipping signs turns z into Γu."""


def oracle_of(module: nn.Module) -> Any:
    """The oracle's network with the numbers of ``module`` (a layer of rnncore) as they are now, in float64."""
    if isinstance(module, rnncore.Stacked):
        return layers.Stack([oracle_of(layer) for layer in module.layers])
    if isinstance(module, rnncore.Bidirectional):
        return layers.Bidirectional(oracle_of(module.forward_layer), oracle_of(module.backward_layer))
    if isinstance(module, rnncore.Recurrent):
        return layers.Recurrent(oracle_cell(module.cell), module.reverse)
    return layers.FeedForward(_feed_forward(module))


def _feed_forward(module: nn.Module) -> list[Function]:
    if isinstance(module, nn.Sequential):
        return [step for part in module for step in _feed_forward(part)]
    if isinstance(module, nn.Linear):
        return [layers.dense(*numbers(module).values())]
    if isinstance(module, nn.LayerNorm):
        return [layers.normalise(*numbers(module).values())]
    return [{nn.Tanh: FUNCTIONS["tanh"], nn.ReLU: FUNCTIONS["relu"]}[type(module)]]


def numbers(module: nn.Module) -> dict[str, Array]:
    """Named parameters as float64 arrays that share no memory with the module."""
    return {name: p.detach().to("cpu").double().numpy().copy() for name, p in module.named_parameters()}


def oracle_cell(cell: rnncore.Cell) -> cells.Cell:
    """The oracle's cell with the numbers of ``cell``; the most derived rnncore class decides which."""
    p = numbers(cell)
    initial = tuple(p.get(f"initial_{name}", np.zeros(size)) for name, size in cell.state_sizes.items())
    if isinstance(cell, rnncore.RNNCell):
        return basic_rnn(p, initial, cell.activation)
    if isinstance(cell, rnncore.GRUCell):
        return gru(p, initial, cell.reset, cell.gate_activation, cell.activation)
    if isinstance(cell, rnncore.LSTMCell):
        return lstm(p, initial, cell.peephole, cell.coupled, cell.gate_activation, cell.activation)
    if isinstance(cell, rnncore.MinLSTMCell):
        return cells.MinLSTM(initial, **_blocks_of_linear(p, "fih"))
    if isinstance(cell, rnncore.MinGRUCell):
        return cells.MinGRU(initial, **_blocks_of_linear(p, "zh"))
    raise TypeError(f"the oracle has no {type(cell).__name__}: transcribe its source into tests/oracle/cells.py")


def basic_rnn(p: Parameters, initial: tuple[Array, ...], activation: str) -> cells.BasicRNN:
    return cells.BasicRNN(
        initial, W_a=np.hstack([p["weight_hh"], p["weight_ih"]]), b_a=sum(_biases(p)), g=FUNCTIONS[activation]
    )


def gru(
    p: Parameters, initial: tuple[Array, ...], reset: str | None, gate_activation: str, activation: str
) -> cells.SimplifiedGRU:
    gates = "zn" if reset is None else "rzn"
    W = _by_gate(np.hstack([p["weight_hh"], p["weight_ih"]]), gates)
    b_x, b_h = (_by_gate(bias, gates) for bias in _biases(p))
    gate = FUNCTIONS[gate_activation]
    common: dict[str, Any] = {
        "initial": initial,
        "W_u": -W["z"],
        "b_u": -(b_x["z"] + b_h["z"]),
        "gate_u": gate if gate_activation in MIRRORED else lambda v: 1 - gate(-v),
        "W_c": W["n"],
        "b_c": b_x["n"] + b_h["n"],
        "g": FUNCTIONS[activation],
    }
    if reset is None:
        return cells.SimplifiedGRU(**common)
    common |= {"W_r": W["r"], "b_r": b_x["r"] + b_h["r"], "gate_r": gate}
    if reset == "before":
        return cells.FullGRU(**common)
    return cells.ResetAfterGRU(**common | {"b_c": b_x["n"], "b_cc": b_h["n"]})


def lstm(
    p: Parameters,
    initial: tuple[Array, ...],
    peephole: str | None,
    coupled: bool,
    gate_activation: str,
    activation: str,
) -> cells.LSTM:
    gates, peeping = ("fco", "fo") if coupled else ("ufco", "ufo")
    norms = None
    if "norm_c.weight" in p:
        norms = cells.GateNorms(
            of_x=_by_gate(p["norm_ih.weight"], gates),
            of_a=_by_gate(p["norm_hh.weight"], gates),
            memory_gain=p["norm_c.weight"],
            memory_shift=p["norm_c.bias"],
        )
    return cells.LSTM(
        initial,
        W=_by_gate(np.hstack([p["weight_hh"], p["weight_ih"]]), gates),
        b=_by_gate(sum(_biases(p)), gates),
        gate=FUNCTIONS[gate_activation],
        g=FUNCTIONS[activation],
        P=_by_gate(p["weight_peephole"], peeping) if peephole else None,
        output_sees_new=peephole == "current",
        W_p=p.get("weight_hr"),
        norms=norms,
    )


def _biases(p: Parameters) -> tuple[Array, Array]:
    none = np.zeros(len(p["weight_ih"]))
    return p.get("bias_ih", none), p.get("bias_hh", none)


def _by_gate(blocks: Array, gates: str) -> dict[str, Array]:
    return dict(zip(gates, np.split(blocks, len(gates)), strict=True))


def _blocks_of_linear(p: Parameters, gates: str) -> dict[str, Array]:
    W, none = p["linear.weight"], np.zeros(len(p["linear.weight"]))
    b = p.get("linear.bias", none)
    return {f"W_{k}": v for k, v in _by_gate(W, gates).items()} | {f"b_{k}": v for k, v in _by_gate(b, gates).items()}
