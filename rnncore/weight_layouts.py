"""``repack``: weights of one framework's recurrent layer in the layout of another.  Gate order is data, not code.

Every layout is one row of :data:`LAYOUTS`; weights travel through rnncore's own layout, which is torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rnncore.runtime.errors import InputError, raise_all
from rnncore.weight_names import STARTS, Arrays, join_gates, plain_names, split_gates, without_directions

Kind = Literal["rnn", "gru", "lstm"]

OWN_GATES = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}
"""Gate blocks of rnncore and torch, first to last; n and g are the candidates."""
OWN_PEEPHOLES = "ifo"


def _as_they_are(arrays: Arrays, _: int) -> Arrays:
    return arrays


@dataclass(frozen=True)
class WeightLayout:
    """How one framework stores one recurrent layer; make one of your own for a layout that is none of :data:`LAYOUTS`.

    gates: order of the gate blocks for each kind of cell, in the letters of :data:`OWN_GATES`.
    names: input weights, recurrent weights, input bias, recurrent bias; a bias name None means that the input bias holds
        both (see ``bias``).  With ``{}`` in it, each gate has an array of its own.
    transposed: weights are [features, gates * hidden] instead of [gates * hidden, features].
    bias: "two" arrays; "joined" [2 * gates * hidden], input part first; "rows" [2, gates * hidden] or their sum
        [gates * hidden].
    inverted_update: the update gate weighs the new value (the notes' Γu = 1 - z).
    gate_names: what stands for ``{}``, by kind and by letter of :data:`OWN_GATES`; the letters themselves if it is empty.
    prepare: what to do to the arrays as they are stored, once their names are plain.
    directions: arrays may have a first axis that counts directions.
    """

    gates: Mapping[str, str]
    names: tuple[str, str, str, str | None]
    transposed: bool = False
    bias: Literal["two", "joined", "rows"] = "two"
    peephole: tuple[str, str] = ("weight_peephole", OWN_PEEPHOLES)
    projection: str = "weight_hr"
    inverted_update: bool = False
    gate_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    directions: bool = False
    prepare: Callable[[Arrays, int], Arrays] = _as_they_are


def _from_cudnn(arrays: Arrays, gates: int) -> Arrays:
    """Keras's CuDNN layers store each gate's kernel as cuDNN does: transposed in place, the input one in Fortran order."""
    kernels = [k.T.reshape(k.shape, order="F") for k in np.hsplit(arrays["kernel"], gates)]
    recurrent = [k.T for k in np.hsplit(arrays["recurrent_kernel"], gates)]
    return {**arrays, "kernel": np.hstack(kernels), "recurrent_kernel": np.hstack(recurrent)}


def _from_fluid(arrays: Arrays, gates: int) -> Arrays:
    """Paddle's operators read the recurrent weights [d, 3 d] as two matrices one after the other, [d, 2 d] and [d, d].

    As in paddle/phi/kernels/funcs/gru_compute.cc, which takes its ``state_weight`` from 2 * d * d on.
    """
    weight = arrays["weight_hh"]
    size = weight.shape[0]
    if weight.shape != (size, gates * size):
        raise InputError(f"'weight_hh' has shape {list(weight.shape)}, expected [{size}, {gates * size}]")
    both = weight.ravel()[: 2 * size * size].reshape(size, 2 * size)
    candidate = weight.ravel()[2 * size * size :].reshape(size, size)
    bias = {name: array.reshape(-1) for name, array in arrays.items() if name == "bias"}
    return {**arrays, **bias, "weight_hh": np.hstack([both, candidate])}


_TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_KERAS_NAMES = ("kernel", "recurrent_kernel", "bias", None)
_KERAS_GATES = {"rnn": "h", "gru": "zrn", "lstm": "ifgo"}

LAYOUTS: dict[str, WeightLayout] = {
    "torch": WeightLayout(OWN_GATES, _TORCH_NAMES),
    # Paddle's GRU is r, z, c with c the candidate and its LSTM i, f, g, o: torch's order, names and equations.
    "paddle": WeightLayout(OWN_GATES, _TORCH_NAMES),
    # ONNX packs W, R and B of an LSTM as i, o, f, c but the peepholes P as i, o, f.
    "onnx": WeightLayout(
        {"rnn": "h", "gru": "zrn", "lstm": "iofg"},
        ("W", "R", "B", None),
        bias="joined",
        peephole=("P", "iof"),
        directions=True,
    ),
    "keras": WeightLayout(_KERAS_GATES, _KERAS_NAMES, transposed=True, bias="rows"),
    "keras_cudnn": WeightLayout(_KERAS_GATES, _KERAS_NAMES, transposed=True, bias="joined", prepare=_from_cudnn),
    # Keras 1 had an array for each gate.
    "keras1": WeightLayout(
        _KERAS_GATES,
        ("W{}", "U{}", "b{}", None),
        transposed=True,
        bias="rows",
        gate_names={
            "rnn": {"h": ""},
            "gru": {"z": "_z", "r": "_r", "n": "_h"},
            "lstm": {"i": "_i", "f": "_f", "g": "_c", "o": "_o"},
        },
    ),
    # fluid.layers.dynamic_gru, with the weights of the fully connected layer before it as weight_ih; reset="before".  Its
    # update gate weighs the new value; for origin_mode=True: replace(LAYOUTS["paddle_fluid"], inverted_update=False).
    "paddle_fluid": WeightLayout(
        {"gru": "zrn"},
        ("weight_ih", "weight_hh", "bias", None),
        transposed=True,
        bias="rows",
        inverted_update=True,
        prepare=_from_fluid,
    ),
    # torch's layout with the notes' meaning of the update gate.
    "notes": WeightLayout(OWN_GATES, _TORCH_NAMES, inverted_update=True),
}


def repack(
    weights: Mapping[str, np.ndarray], kind: Kind, source: str | WeightLayout, target: str | WeightLayout = "torch"
) -> Arrays:
    """The weights of one layer and one direction in another layout.

    Args:
        weights: arrays under the names of the source layout: ``weight_ih, weight_hh, bias_ih, bias_hh,
            weight_peephole, weight_hr`` (torch, paddle, notes), ``W, R, B, P`` (onnx), ``kernel, recurrent_kernel, bias``
            (keras, keras_cudnn), ``W_i, U_i, b_i, ...`` (keras1), ``weight_ih, weight_hh, bias`` (paddle_fluid).  Names may
            have what a framework writes around them: ``rnn.weight_ih_l0``, ``gru/gru_cell/kernel:0``; the numbers of a
            ``.keras`` file, ``vars/0`` to ``vars/2``, are kernel, recurrent kernel and bias.  Biases, peepholes, projection and
            learned states (``initial_h``, ``initial_c``: [hidden]) are optional; of two biases, one may be left out.
            ONNX's first axis, of one direction, may be there or not.
        kind: "rnn", "gru" or "lstm".
        source: a key of :data:`LAYOUTS`, or a layout of your own.
        target: the same; "torch" fits ``load_state_dict`` of rnncore's cells.

    Returns:
        New arrays under the names of the target layout, dtype kept.

    Raises:
        InputError: unknown kind or layout, a missing array, an unknown name, weights of several layers or directions, or a
            shape that does not fit the others.

    Example::

        layer = h5["gru_1"]
        arrays = repack({"kernel": layer["kernel"][:], "recurrent_kernel": ..., "bias": ...}, "gru", "keras")
        cell.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
    """
    if kind not in OWN_GATES:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(map(repr, OWN_GATES))}")
    read, written = (_layout(what, one, kind) for what, one in (("source", source), ("target", target)))
    if written.prepare is not _as_they_are:
        raise InputError(
            f"{target if isinstance(target, str) else 'this layout'} can be read, not written: its frameworks read plain "
            "layers as well; use 'keras' or 'paddle'"
        )
    return _write(_read(weights, kind, read, source if isinstance(source, str) else "your"), kind, written)


def _layout(what: str, given: str | WeightLayout, kind: Kind) -> WeightLayout:
    if not isinstance(given, WeightLayout) and given not in LAYOUTS:
        raise InputError(f"{what} is {given!r}, expected a WeightLayout or one of {', '.join(map(repr, LAYOUTS))}")
    layout = given if isinstance(given, WeightLayout) else LAYOUTS[given]
    letters = layout.gates.get(kind, "")
    if sorted(letters) != sorted(OWN_GATES[kind]):
        has = f"the gates {letters!r}" if letters else "no gates"
        raise InputError(f"{what} has {has} for a layer of kind {kind!r}, expected each of {OWN_GATES[kind]!r} once")
    return layout


def _read(weights: Mapping[str, np.ndarray], kind: Kind, layout: WeightLayout, source: str) -> Arrays:
    """Arrays of a layout as rnncore's own."""
    w, r, b, b2 = layout.names
    arrays = plain_names(weights, (w, r, b) if b2 is None else ())
    if layout.directions:
        arrays = without_directions(arrays, {w: 2, r: 2, b: 1, layout.peephole[0]: 1, **dict.fromkeys(STARTS, 2)})
    arrays = {name: a[0] if name in STARTS and a.ndim == 2 and len(a) == 1 else a for name, a in arrays.items()}
    arrays = join_gates(arrays, _separate(layout), _gate_names(layout, kind))
    if b2 is not None and kind != "gru" and "bias" in arrays and not {b, b2} & arrays.keys():
        arrays[b] = arrays.pop("bias")
    known = {w, r, b, b2, layout.peephole[0], layout.projection, *STARTS} - {None}
    problems = [f"'{name}' is missing from the {source} weights" for name in (w, r) if name not in arrays]
    problems += [
        f"unknown name '{name}', a {source} layer has {sorted(map(str, known))}" for name in arrays.keys() - known
    ]
    if "bias" in arrays and "bias" not in known and kind == "gru":
        problems.append(f"one bias of a GRU: name it {b!r}, beside the input, or {b2!r}, inside the reset gate")
    raise_all(problems)
    arrays = layout.prepare(arrays, len(OWN_GATES[kind]))
    order = [layout.gates[kind].index(gate) for gate in OWN_GATES[kind]]
    own: Arrays = {}
    for name, mine in ((w, "weight_ih"), (r, "weight_hh")):
        value = arrays[name].T if layout.transposed else arrays[name]
        own[mine] = _reordered(value, order, name)
    for mine, name, bias in zip(("bias_ih", "bias_hh"), (b, b2 or b), _split_bias(arrays, layout), strict=True):
        if bias is not None:
            own[mine] = _reordered(bias, order, name)
    if layout.peephole[0] in arrays:
        peepholes = [layout.peephole[1].index(gate) for gate in OWN_PEEPHOLES]
        own["weight_peephole"] = _reordered(arrays[layout.peephole[0]], peepholes, layout.peephole[0])
    if layout.projection in arrays:
        own["weight_hr"] = arrays[layout.projection].copy()
    own |= {name: arrays[name].copy() for name in STARTS if name in arrays}
    _check_shapes(own, kind, layout)
    return _with_update_sign(own, kind) if layout.inverted_update else own


def _check_shapes(own: Arrays, kind: Kind, layout: WeightLayout) -> None:
    """Raise InputError that lists what does not fit the input weights, under the layout's names and as it lays them out."""
    rows = own["weight_ih"].shape[0]
    hidden = rows // len(OWN_GATES[kind])
    output = own["weight_hr"].shape[0] if "weight_hr" in own else hidden
    w, r, b, b2 = layout.names
    width = own["weight_ih"].shape[1] if own["weight_ih"].ndim == 2 else 0
    expected = {
        "weight_ih": (w, (rows, width)),
        "weight_hh": (r, (rows, output)),
        "bias_ih": (b, (rows,)),
        "bias_hh": (b2 or b, (rows,)),
        "initial_h": ("initial_h", (output,)),
    }
    if kind == "lstm":
        expected |= {
            "weight_peephole": (layout.peephole[0], (3 * hidden,)),
            "weight_hr": (layout.projection, (output, hidden)),
            "initial_c": ("initial_c", (hidden,)),
        }
    problems = []
    for name, array in own.items():
        if name not in expected:
            problems.append(f"'{name}' belongs to an LSTM, the kind is {kind!r}")
            continue
        shown, shape = expected[name]
        if array.shape != shape:
            turn = -1 if layout.transposed and name in ("weight_ih", "weight_hh") else 1
            problems.append(f"'{shown}' has shape {list(array.shape[::turn])}, expected {list(shape[::turn])}")
    raise_all(problems)


def _separate(layout: WeightLayout) -> dict[str, int]:
    """The names with a place for the gate, and the axis along which the gates lie once they are joined."""
    axis = 1 if layout.transposed else 0
    places = zip(layout.names, (axis, axis, 0, 0), strict=True)
    return {name: axis for name, axis in places if name is not None and "{}" in name}


def _gate_names(layout: WeightLayout, kind: Kind) -> list[str]:
    named = layout.gate_names.get(kind, {})
    return [named.get(gate, gate) for gate in layout.gates[kind]]


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
    elif biases and kind == "gru" and "{}" in b:
        if len(biases) > 1 and biases[1].any():
            raise InputError("a bias of a GRU beside its state has no place in this layout, which has one bias a gate")
        result[b] = biases[0]
    elif biases:
        # Keras keeps two rows only where the recurrent bias sits inside the reset gate (GRU with reset_after).
        result[b] = np.stack(biases) if kind == "gru" else np.sum(biases, axis=0)
    if "weight_peephole" in own:
        peepholes = [OWN_PEEPHOLES.index(gate) for gate in layout.peephole[1]]
        result[layout.peephole[0]] = _reordered(own["weight_peephole"], peepholes, "weight_peephole")
    if "weight_hr" in own:
        result[layout.projection] = own["weight_hr"].copy()
    result |= {name: own[name].copy() for name in STARTS if name in own}
    return split_gates(result, _separate(layout), _gate_names(layout, kind))


def _split_bias(arrays: Arrays, layout: WeightLayout) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(input bias, recurrent bias); a single bias becomes the input one beside zeros."""
    _, _, b, b2 = layout.names
    first = arrays.get(b)
    if layout.bias == "two":
        second = arrays.get(str(b2))
        if first is None or second is None:  # one of them alone: the other is zero
            given = first if second is None else second
            blank = None if given is None else np.zeros_like(given)
            return (blank if first is None else first), (blank if second is None else second)
        return first, second
    if first is None:
        return None, None
    if layout.bias == "joined":
        half = len(first) // 2
        return first[:half], first[half:]
    if first.ndim == 2 and len(first) != 2:
        raise InputError(
            f"'{b}' has {len(first)} rows, expected two, beside the input and beside the state, or no rows"
        )
    return (first[0], first[1]) if first.ndim == 2 else (first, np.zeros_like(first))


def _reordered(value: np.ndarray, order: list[int], name: str) -> np.ndarray:
    """Blocks along axis 0 in another order."""
    if value.ndim == 0:
        raise InputError(f"'{name}' is a single number, expected an array")
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
        if name in STARTS:
            result[name] = value
            continue
        blocks = np.split(value.copy(), len(OWN_GATES["gru"]), axis=0)
        blocks[at] = -blocks[at]
        result[name] = np.concatenate(blocks, axis=0)
    return result
