"""Does a signature make sense, and does the graph beside it keep what it says?  Every mismatch is listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from rnncore.runtime.format.axes import Flat, Steps, base_of, overlap_of, stride_of
from rnncore.runtime.format.signature import BATCH, PICKS, TIME, Signature, Size, StateSpec, TensorSpec
from rnncore.runtime.tensors.specs import shape_text

Shape = tuple[Size, ...]

TENSOR_TYPES = {
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int8": "tensor(int8)",
    "int16": "tensor(int16)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "uint8": "tensor(uint8)",
    "uint16": "tensor(uint16)",
    "uint32": "tensor(uint32)",
    "uint64": "tensor(uint64)",
    "bool": "tensor(bool)",
}
"""onnxruntime's names of tensor types by names of numpy dtypes."""


@dataclass(frozen=True)
class GraphValue:
    """One input or output of a graph, as onnxruntime reports it; a name or None is an axis of free size."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def signature_problems(signature: Signature) -> list[str]:
    """What is wrong with a signature on its own; empty when nothing is."""
    problems = []
    for role, ports in (("input", signature.inputs), ("output", signature.outputs)):
        if not ports:
            problems.append(f"there is no {role}")
        for port in ports:
            problems += [f"{role} {port.name!r} {problem}" for problem in _port_problems(port)]
    lengths = signature.lengths
    if lengths is not None and (lengths.dtype, lengths.shape) != ("int64", (BATCH,)):
        problems.append(
            f"lengths {lengths.name!r} is {lengths.dtype}{shape_text(lengths.shape)}, expected int64[batch]"
        )
    for state in signature.states:
        problems += [f"state {state.name!r} {problem}" for problem in _state_problems(state)]
    problems += _pick_problems(signature)
    problems += _option_problems(signature)
    problems += _axis_problems(signature)
    if signature.states and not signature.causal:
        problems.append("there are states, but the model is not marked causal")
    if signature.causal and not any(port.time_axis is not None for port in signature.inputs):
        problems.append("the model is marked causal, but no input has a time axis")
    for names in (_input_names(signature), _output_names(signature)):
        problems += [f"the name {name!r} is used {n} times" for name, n in Counter(names).items() if n > 1]
    return problems


def graph_problems(
    signature: Signature, graph_inputs: Sequence[GraphValue], graph_outputs: Sequence[GraphValue]
) -> list[str]:
    """Where a graph and a sound signature disagree; empty when they do not."""
    inputs = {port.name: (port.dtype, port.shape) for port in signature.inputs}
    outputs = {port.name: (port.dtype, port.shape) for port in signature.outputs}
    if signature.lengths is not None:
        inputs[signature.lengths.name] = (signature.lengths.dtype, signature.lengths.shape)
    for state in signature.states:
        inputs[state.name] = outputs[state.output] = (state.dtype, state.shape or (BATCH, state.size))
    if signature.pick is not None:
        inputs[signature.pick.at] = ("int64", (BATCH, TIME, PICKS))
        outputs[signature.pick.picked] = (outputs[signature.pick.of][0], (BATCH, TIME, PICKS))
    return _side_problems("input", inputs, graph_inputs) + _side_problems("output", outputs, graph_outputs)


def _bounds_problems(port: TensorSpec) -> list[str]:
    if np.dtype(port.dtype).kind not in "iu":
        return [f"is {port.dtype}, but has limits for ids"]
    if port.bounds is None or port.bounds[0] > port.bounds[1]:
        return [f"has limits between which there is no id: minimum {port.minimum}, limit {port.limit}"]
    return []


def _port_problems(port: TensorSpec) -> list[str]:
    problems = []
    if port.dtype not in TENSOR_TYPES:
        problems.append(f"has the unknown dtype {port.dtype!r}")
    elif port.limit is not None or port.minimum is not None:
        problems += _bounds_problems(port)
    if port.inner.count(BATCH) != 1:
        problems.append(f"has shape {shape_text(port.shape)}, expected exactly one batch axis")
    if [base_of(size) for size in port.inner].count(TIME) > 1:
        problems.append(f"has shape {shape_text(port.shape)}, expected at most one time axis")
    if any(isinstance(d, int) and d < 0 for d in port.shape):
        problems.append(f"has shape {shape_text(port.shape)}, expected no negative size")
    return problems


def _axis_problems(signature: Signature) -> list[str]:
    problems = [f"stride is {signature.stride}, expected at least 1"] if signature.stride < 1 else []
    problems += _overlap_problems(signature)
    if signature.most_steps is not None and signature.most_steps < 1:
        problems.append(f"most_steps is {signature.most_steps}, expected at least 1")
    free = [size for port in signature.inputs for size in port.shape if isinstance(size, str)]
    names = {size for size in free if not isinstance(size, Steps | Flat)}
    for port in signature.inputs:
        if any(isinstance(size, Flat) or (isinstance(size, Steps) and size.of not in names) for size in port.shape):
            problems.append(
                f"input {port.name!r} has shape {shape_text(port.shape)}, expected sizes, names, and sizes that follow an "
                "axis of another input"
            )
        elif signature.causal and any(isinstance(size, Steps) for size in port.shape):
            problems.append(f"the model is marked causal, but input {port.name!r} has steps of another number")
    for axis in signature.axes:
        high = axis.minimum if axis.maximum is None else axis.maximum
        if axis.name not in names or axis.multiple < 1 or not 0 <= axis.minimum <= high:
            problems.append(f"axis {axis.name!r} ({axis.expected}) is no axis of an input, or takes no size")
    if signature.axes:
        for port in signature.outputs:
            problems += [
                f"output {port.name!r} has shape {shape_text(port.shape)}, but no input has an axis {name!r}"
                for name in map(base_of, port.inner)
                if name is not None and name not in names
            ]
    return problems


def _overlap_problems(signature: Signature) -> list[str]:
    """Whether the answers of one run of a stream go on where those of the run before ended."""
    if not signature.overlap:
        return []
    if signature.overlap < 0:
        return [f"overlap is {signature.overlap}, expected at least 0"]
    shapes = [port.shape for port in signature.outputs]
    if any(port.time_axis is None for port in signature.outputs):
        return [f"overlap is {signature.overlap}, but an output has no time axis"]
    begins = Steps(TIME, 1, -signature.overlap)  # an output that has its first step only after the overlap
    if signature.stride % stride_of(shapes) or overlap_of([*shapes, (begins,)]) != signature.overlap:
        sizes = ", ".join(shape_text(shape) for shape in shapes)
        return [f"overlap is {signature.overlap} and stride {signature.stride}, which fit no outputs of shape {sizes}"]
    return []


def _pick_problems(signature: Signature) -> list[str]:
    if signature.pick is None:
        return []
    of = next((port for port in signature.outputs if port.name == signature.pick.of), None)
    if of is None:
        return [f"there are picks of {signature.pick.of!r}, which is no output"]
    if len(signature.outputs) > 1:
        return [f"there are picks of output {of.name!r}, but there are other outputs too"]
    if len(of.shape) == 3 and of.shape[:2] == (BATCH, TIME) and isinstance(of.shape[2], int):
        return []
    return [f"there are picks of output {of.name!r} {shape_text(of.shape)}, expected [batch, time, a fixed size]"]


def _option_problems(signature: Signature) -> list[str]:
    ports = {port.name: port for port in signature.inputs}
    problems = []
    for option in signature.options:
        port = ports.get(option.name)
        if port is None:
            problems.append(f"there is an option {option.name!r}, which is no input")
        elif port.time_axis is not None:
            problems.append(f"option {option.name!r} has a time axis, so nothing can stand for it")
        elif not option.allows(np.asarray(option.default)) or not np.isfinite(option.default):
            problems.append(f"option {option.name!r} is {option.default} by default, expected {option.text}")
    return problems


def _state_problems(state: StateSpec) -> list[str]:
    if state.dtype not in TENSOR_TYPES:
        return [f"has the unknown dtype {state.dtype!r}"]
    try:
        initial = state.initial_value()
        wrong = state.shape is not None and (state.shape.count(BATCH) != 1 or prod(state.item_shape) != state.size)
    except (ValueError, TypeError):
        return ["has an initial value that cannot be decoded"]
    if wrong:
        return [
            f"has shape {shape_text(state.shape or ())}, expected one batch axis and {state.size} values for each row"
        ]
    if initial.shape != (state.size,):
        return [f"has an initial value of {initial.size} numbers, expected {state.size}"]
    return [] if np.isfinite(initial).all() else ["has an initial value that is not finite"]


def _side_problems(side: str, declared: Mapping[str, tuple[str, Shape]], values: Sequence[GraphValue]) -> list[str]:
    found = {value.name: value for value in values}
    problems = [f"{side} {name!r} is in the signature, not in the graph" for name in declared if name not in found]
    problems += [f"{side} {name!r} is in the graph, not in the signature" for name in found if name not in declared]
    for name, (dtype, shape) in declared.items():
        if name not in found:
            continue
        value = found[name]
        if value.type != TENSOR_TYPES[dtype]:
            problems.append(f"{side} {name!r} is {value.type} in the graph, {TENSOR_TYPES[dtype]} in the signature")
        if not _same_shape(side, shape, value.shape):
            there = shape_text(tuple("?" if d is None else d for d in value.shape))
            problems.append(f"{side} {name!r} has shape {there} in the graph, {shape_text(shape)} in the signature")
    return problems


def _same_shape(side: str, declared: Shape, found: Sequence[int | str | None]) -> bool:
    """A size that the graph leaves open is no contradiction; a free axis that the graph fixes is one.

    An axis of an output that is neither batch nor time, or follows another, is free in name only when onnxruntime has
    inferred its size.
    """
    if not found:  # onnxruntime reports an unknown rank so
        return True
    if len(declared) != len(found):
        return False
    for axis, size in zip(declared, found, strict=True):
        nameless = side == "output" and not isinstance(axis, int) and axis not in (BATCH, TIME)
        if isinstance(size, int) and axis != size and not nameless:
            return False
    return True


def _input_names(signature: Signature) -> list[str]:
    names = [port.name for port in signature.inputs] + [state.name for state in signature.states]
    names += [] if signature.lengths is None else [signature.lengths.name]
    return names if signature.pick is None else [*names, signature.pick.at]


def _output_names(signature: Signature) -> list[str]:
    names = [port.name for port in signature.outputs] + [state.output for state in signature.states]
    return names if signature.pick is None else [*names, signature.pick.picked]
