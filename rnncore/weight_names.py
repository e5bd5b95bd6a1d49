"""Weights as people hold them: paths, ``:0``, layer suffixes, numbers for names, a direction axis, an array for each gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from rnncore.runtime.errors import InputError, raise_all

Arrays = dict[str, np.ndarray]

STARTS = ("initial_h", "initial_c")
"""Learned states before the first step, [hidden] each, in every layout."""

_LAYER = re.compile(r"_l(\d+)(_reverse)?$")


def plain_names(weights: Mapping[str, np.ndarray], numbered: Sequence[str]) -> Arrays:
    """The same arrays without what stands around their names: ``rnn.weight_hh_l0`` is ``weight_hh``, ``gru/kernel:0`` ``kernel``.

    numbered: what ``0, 1, ...`` are, where a format numbers the arrays of a layer.

    Raises:
        InputError: two arrays have one name, or they are of several layers or directions.
    """
    found: dict[str, tuple[str, np.ndarray]] = {}
    layers = {}
    problems = []
    for full, array in weights.items():
        name = re.split(r"[./]", str(full).removesuffix(":0"))[-1]
        layer = _LAYER.search(name)
        if layer:
            name = name[: layer.start()]
            layers[layer[0][1:]] = full
        if name.isdigit() and int(name) < len(numbered):
            name = numbered[int(name)]
        if name in found and not layer:
            problems.append(f"both {found[name][0]!r} and {full!r} are '{name}': hand in the arrays of one layer")
        found[name] = full, np.asarray(array)
    if len(layers) > 1:
        problems.append(f"the weights are of {', '.join(sorted(layers))}: hand in those of one layer and one direction")
    raise_all(problems)
    return {name: array for name, (_, array) in found.items()}


def without_directions(arrays: Arrays, ranks: Mapping[str, int]) -> Arrays:
    """ONNX's arrays without their first axis, which counts directions, where they have it.

    ranks: of each array without that axis.

    Raises:
        InputError: there are two directions.
    """
    result = {}
    for name, array in arrays.items():
        if array.ndim == ranks.get(name, -1) + 1:
            if array.shape[0] != 1:
                raise InputError(
                    f"'{name}' holds {array.shape[0]} directions: hand in {name}[0] for the forward layer and {name}[1] for "
                    "the backward one, apart"
                )
            array = array[0]
        result[name] = array
    return result


def join_gates(arrays: Arrays, templates: Mapping[str, int], gates: Sequence[str]) -> Arrays:
    """One array for all gates where there is one for each.

    templates: names with ``{}`` for the gate, and the axis along which gates lie side by side.  gates: what stands there, in
    the layout's order.

    Raises:
        InputError: some gates are missing, or do not have the shape of the first.
    """
    result, problems = dict(arrays), []
    for template, axis in templates.items():
        names = [template.format(gate) for gate in gates]
        parts = [result.pop(name) for name in names if name in result]
        if parts and len(parts) < len(names):
            problems.append(f"{', '.join(repr(n) for n in names if n not in arrays)} missing beside the other gates")
        elif any(part.shape != parts[0].shape or part.ndim <= axis for part in parts):
            problems.append(f"{', '.join(map(repr, names))} have shapes {[list(part.shape) for part in parts]}")
        elif parts:
            result[template] = np.concatenate(parts, axis)
    raise_all(problems)
    return result


def split_gates(arrays: Arrays, templates: Mapping[str, int], gates: Sequence[str]) -> Arrays:
    """The inverse of :func:`join_gates`."""
    result = {}
    for name, array in arrays.items():
        if name not in templates:
            result[name] = array
            continue
        parts = np.split(array, len(gates), templates[name])
        result |= {name.format(gate): part.copy() for gate, part in zip(gates, parts, strict=True)}
    return result
