"""``repack``: weights of one framework's recurrent layer in the layout of another.  Gate order is data, not code.

Every layout is one row of :data:`LAYOUTS`; weights travel through rnncore's own layout, which is torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rnncore.runtime.errors import InputError, raise_all

Kind = Literal["rnn", "gru", "lstm"]
Arrays = dict[str, np.ndarray]

OWN_GATES = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}
"""Gate blocks of rnncore and torch, first to last; n and g are the candidates."""
OWN_PEEPHOLES = "ifo"


@dataclass(frozen=True)
class WeightLayout:
    """How one framework stores one recurrent layer.

    gates: order of the gate blocks for each kind of cell, in the letters of :data:`OWN_GATES`.
    names: input weights, recurrent weights, input bias, recurrent bias; a bias name None means that the input bias holds
        both (see ``bias``).
    transposed: weights are [features, gates * hidden] instead of [gates * hidden, features].
    bias: "two" arrays; "joined" [2 * gates * hidden], input part first; "rows" [2, gates * hidden] or their sum
        [gates * hidden].
    inverted_update: the update gate weighs the new value (the notes' Γu = 1 - z).
    prepare: what to do to the arrays as they are stored before anything else.
    """

    gates: Mapping[str, str]
    names: tuple[str, str, str, str | None]
    transposed: bool = False
    bias: Literal["two", "joined", "rows"] = "two"
    peephole: tuple[str, str] = ("weight_peephole", OWN_PEEPHOLES)
    projection: str = "weight_hr"
    inverted_update: bool = False
    prepare: Callable[[Arrays, int], Arrays] = field(default=lambda arrays, gates: arrays)


def _from_cudnn(arrays: Arrays, gates: int) -> Arrays:
    """Keras's CuDNN layers store each gate's kernel as cuDNN does: transposed in place, the input one in Fortran order."""
    kernels = [k.T.reshape(k.shape, order="F") for k in np.hsplit(arrays["kernel"], gates)]
    recurrent = [k.T for k in np.hsplit(arrays["recurrent_kernel"], gates)]
    return {**arrays, "kernel": np.hstack(kernels), "recurrent_kernel": np.hstack(recurrent)}


_TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_KERAS_NAMES = ("kernel", "recurrent_kernel", "bias", None)
_KERAS_GATES = {"rnn": "h", "gru": "zrn", "lstm": "ifgo"}

LAYOUTS: dict[str, WeightLayout] = {
    "torch": WeightLayout(OWN_GATES, _TORCH_NAMES),
    # Paddle's GRU is r, z, c with c the candidate and its LSTM i, f, g, o: torch's order, names and equations.
    "paddle": WeightLayout(OWN_GATES, _TORCH_NAMES),
    # ONNX packs W, R and B of an LSTM as i, o, f, c but the peepholes P as i, o, f.
    "onnx": WeightLayout(
        {"rnn": "h", "gru": "zrn", "lstm": "iofg"}, ("W", "R", "B", None), bias="joined", peephole=("P", "iof")
    ),
    "keras": WeightLayout(_KERAS_GATES, _KERAS_NAMES, transposed=True, bias="rows"),
    "keras_cudnn": WeightLayout(_KERAS_GATES, _KERAS_NAMES, transposed=True, bias="joined", prepare=_from_cudnn),
    # torch's layout with the notes' meaning of the update gate.
    "notes": WeightLayout(OWN_GATES, _TORCH_NAMES, inverted_update=True),
}


def repack(weights: Mapping[str, np.ndarray], kind: Kind, source: str, target: str = "torch") -> Arrays:
    """The weights of one layer and one direction in another layout.

    Args:
        weights: arrays under the names of the source layout: ``weight_ih, weight_hh, bias_ih, bias_hh,
            weight_peephole, weight_hr`` (torch, paddle, notes), ``W, R, B, P`` (onnx, without the direction axis),
            ``kernel, recurrent_kernel, bias`` (keras, keras_cudnn).  Biases, peepholes and projection are optional.
        kind: "rnn", "gru" or "lstm".
        source: a key of :data:`LAYOUTS`.
        target: a key of :data:`LAYOUTS`; "torch" fits ``load_state_dict`` of rnncore's cells.

    Returns:
        New arrays under the names of the target layout, dtype kept.

    Raises:
        InputError: unknown kind or layout, a missing array, an unknown name, or a shape that does not fit.

    Example::

        layer = h5["gru_1"]
        arrays = repack({"kernel": layer["kernel"][:], "recurrent_kernel": ..., "bias": ...}, "gru", "keras")
        cell.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
    """
    for what, value, known in (("kind", kind, OWN_GATES), ("source", source, LAYOUTS), ("target", target, LAYOUTS)):
        if value not in known:
            raise InputError(f"{what} is {value!r}, expected one of {', '.join(map(repr, known))}")
    if target == "keras_cudnn":
        raise InputError(
            "keras_cudnn can be read, not written: Keras itself stores plain layers since 2.3; use 'keras'"
        )
    return _write(_read({n: np.asarray(a) for n, a in weights.items()}, kind, source), kind, LAYOUTS[target])


def _read(arrays: Arrays, kind: Kind, source: str) -> Arrays:
    """Arrays of layout ``source`` as rnncore's own."""
    layout = LAYOUTS[source]
    w, r, b, b2 = layout.names
    known = {w, r, b, b2, layout.peephole[0], layout.projection} - {None}
    problems = [f"'{name}' is missing from the {source} weights" for name in (w, r) if name not in arrays]
    problems += [
        f"unknown name '{name}', a {source} layer has {sorted(map(str, known))}" for name in arrays.keys() - known
    ]
    raise_all(problems)
    gates = len(OWN_GATES[kind])
    arrays = layout.prepare(arrays, gates)
    order = [layout.gates[kind].index(gate) for gate in OWN_GATES[kind]]
    own: Arrays = {}
    for name, mine in ((w, "weight_ih"), (r, "weight_hh")):
        value = arrays[name].T if layout.transposed else arrays[name]
        own[mine] = _reordered(value, order, name)
    for mine, bias in zip(("bias_ih", "bias_hh"), _split_bias(arrays, layout), strict=True):
        if bias is not None:
            own[mine] = _reordered(bias, order, str(b))
    if layout.peephole[0] in arrays:
        peepholes = [layout.peephole[1].index(gate) for gate in OWN_PEEPHOLES]
        own["weight_peephole"] = _reordered(arrays[layout.peephole[0]], peepholes, layout.peephole[0])
    if layout.projection in arrays:
        own["weight_hr"] = arrays[layout.projection].copy()
    return _with_update_sign(own, kind) if layout.inverted_update else own


def _write(own: Arrays, kind: Kind, layout: WeightLayout) -> Arrays:
    """rnncore's own arrays in another layout."""
    if layout.inverted_update:
        own = _with_update_sign(own, kind)
    order = [OWN_GATES[kind].index(gate) for gate in layout.gates[kind]]
    w, r, b, b2 = layout.names
    result: Arrays = {}
    for mine, name in (("weight_ih", w), ("weight_hh", r)):
        value = _reordered(own[mine], order, mine)
        result[name] = np.ascontiguousarray(value.T) if layout.transposed else value
    biases = [_reordered(own[name], order, name) for name in ("bias_ih", "bias_hh") if name in own]
    if biases and layout.bias == "two":
        result.update(zip((b, str(b2)), biases, strict=False))
    elif biases and layout.bias == "joined":
        result[b] = np.concatenate(biases)
    elif biases:
        # Keras keeps two rows only where the recurrent bias sits inside the reset gate (GRU with reset_after).
        result[b] = np.stack(biases) if kind == "gru" else np.sum(biases, axis=0)
    if "weight_peephole" in own:
        peepholes = [OWN_PEEPHOLES.index(gate) for gate in layout.peephole[1]]
        result[layout.peephole[0]] = _reordered(own["weight_peephole"], peepholes, "weight_peephole")
    if "weight_hr" in own:
        result[layout.projection] = own["weight_hr"].copy()
    return result


def _split_bias(arrays: Arrays, layout: WeightLayout) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(input bias, recurrent bias); a single bias becomes the input one beside zeros."""
    _, _, b, b2 = layout.names
    first = arrays.get(b)
    if layout.bias == "two" or first is None:
        return first, arrays.get(str(b2))
    if layout.bias == "joined":
        half = len(first) // 2
        return first[:half], first[half:]
    return (first[0], first[1]) if first.ndim == 2 else (first, np.zeros_like(first))


def _reordered(value: np.ndarray, order: list[int], name: str) -> np.ndarray:
    """Blocks along axis 0 in another order."""
    if value.shape[0] % len(order):
        raise InputError(f"'{name}' has {value.shape[0]} rows, expected a multiple of {len(order)}, one block a gate")
    blocks = np.split(value, len(order), axis=0)
    return np.concatenate([blocks[i] for i in order], axis=0)


def _with_update_sign(own: Arrays, kind: Kind) -> Arrays:
    """sigmoid(-v) = 1 - sigmoid(v): negate what leads into the GRU's update gate."""
    if kind != "gru":
        return own
    at = OWN_GATES["gru"].index("z")
    result = {}
    for name, value in own.items():
        blocks = np.split(value.copy(), len(OWN_GATES["gru"]), axis=0)
        blocks[at] = -blocks[at]
        result[name] = np.concatenate(blocks, axis=0)
    return result
