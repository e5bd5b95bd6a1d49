"""What a caller says about an ONNX file that rnncore did not write, checked on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.format.signature import BATCH, TIME


@dataclass(frozen=True)
class Foreign:
    """How to read a foreign file; see :func:`rnncore.runtime.load` for the meaning of each field."""

    states: dict[str, str]
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    initial: dict[str, NDArray[Any]] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    chunk: int | None = None
    context: int = 0


def read_foreign(
    states: Mapping[str, str] | None,
    axes: Mapping[str, str] | None,
    initial: Mapping[str, Any] | None,
    constants: Mapping[str, Any] | None,
    chunk: int | None,
    context: int,
) -> Foreign | None:
    """The checked arguments of ``load``, None if the file is to be one of rnncore.

    Raises InputError that lists every problem.
    """
    given = {"states": states, "axes": axes, "initial": initial, "constants": constants}
    problems = [
        f"{name} is a {type(value).__name__}, expected a dict by name of input or output"
        for name, value in given.items()
        if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value))
    ]
    if chunk is not None:
        problems += count_problems("chunk", chunk, instead=", or None for chunks of any length")
    problems += count_problems("context", context, 0)
    raise_all(problems)
    if states is None:
        others = [name for name in ("axes", "initial", "constants") if given[name]]
        others += [name for name, said in (("chunk", chunk is not None), ("context", context != 0)) if said]
        if others:
            raise InputError(f"{', '.join(others)} without states: a file that rnncore wrote knows these by itself")
        return None
    problems += [
        f"states[{name!r}] is a {type(output).__name__}, expected the name of an output"
        for name, output in states.items()
        if not isinstance(output, str)
    ]
    words = {name: _read_words(name, text, problems) for name, text in (axes or {}).items()}
    read_initial = {
        name: _read_values(f"initial[{name!r}]", value, problems) for name, value in (initial or {}).items()
    }
    read_constants = {
        name: _read_values(f"constants[{name!r}]", value, problems) for name, value in (constants or {}).items()
    }
    raise_all(problems)
    return Foreign(dict(states), words, read_initial, read_constants, chunk, context)


def name_problems(foreign: Foreign, inputs: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """Names that are none; empty when all are."""
    problems = [f"there is no input {name!r} to be a state" for name in foreign.states if name not in inputs]
    problems += [
        f"there is no output {output!r} for the state {name!r}"
        for name, output in foreign.states.items()
        if output not in outputs
    ]
    twice = [output for output, n in Counter(foreign.states.values()).items() if n > 1]
    problems += [f"the output {output!r} is used for several states" for output in twice]
    problems += [f"there is no input {name!r} to be constant" for name in foreign.constants if name not in inputs]
    problems += [f"{name!r} is a state and a constant" for name in foreign.constants if name in foreign.states]
    problems += [
        f"initial is given for {name!r}, which is no state" for name in foreign.initial.keys() - foreign.states
    ]
    known = {*inputs, *outputs}
    return problems + [
        f"axes are given for {name!r}, which is no input or output" for name in foreign.axes.keys() - known
    ]


def _read_words(name: str, text: Any, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(text, str):
        problems.append(f"axes[{name!r}] is a {type(text).__name__}, expected a text such as 'batch time features'")
        return ()
    words = tuple(text.split())
    problems += [
        f"axes[{name!r}] says {word!r} {words.count(word)} times, expected at most one"
        for word in (BATCH, TIME)
        if words.count(word) > 1
    ]
    return words


def _read_values(label: str, value: Any, problems: list[str]) -> NDArray[Any]:
    try:
        array = np.array(value)  # a copy: the model must not change when the caller's array does
    except ValueError as error:
        problems.append(f"{label} cannot be made an array: {error}")
        return np.zeros(0)
    if array.dtype.kind not in "fiub":
        problems.append(f"{label} has dtype {array.dtype}, expected numbers")
    return array
