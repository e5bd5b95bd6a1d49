"""States that a module handles by itself: taken and returned, or started from something that no input changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.zero_values import MOVES
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.axes import BATCH, TIME
from rnncore.runtime.format.signature import StateSpec

Ends = frozenset[tuple[str, int]]
"""States of calls: (name of the call, number of the state)."""

FIRST_STATE = 3  # position among the inputs of a placeholder; its outputs have one thing before their states


def find_states(graph: ir.Graph, given: Mapping[str, str] | None, lengths: str | None) -> dict[str, str]:
    """Names of the outputs that inputs become, by input.

    An input that recurrent calls start from, and nothing else, is the state that the same calls end with, if an output of
    its shape has just that.  What the caller gives is taken as said.

    Raises:
        InputError: ``given`` names what is no input or output, or two of different shapes.
    """
    inputs = {str(value.name): value for value in graph.inputs if value.name != lengths}
    outputs = {str(value.name): value for value in graph.outputs}
    if given is not None:
        _check(given, inputs, outputs)
        return dict(given)
    starts = {name: _starts(value) for name, value in inputs.items() if TIME not in dims_of(value)}
    found: dict[str, str] = {}
    for name, ends in starts.items():
        fits = [
            other
            for other, value in outputs.items()
            if ends
            and dims_of(value) == dims_of(inputs[name])
            and value.dtype == inputs[name].dtype
            and _ends(value) == ends
        ]
        if len(fits) == 1 and fits[0] not in found.values():
            found[name] = fits[0]
    return found


def states_of(graph: ir.Graph, pairs: Mapping[str, str], starts: Mapping[str, np.ndarray]) -> list[StateSpec]:
    """Paired inputs and outputs as states of the file, which start from ``starts``, [size] each, or zeros."""
    inputs = {str(value.name): value for value in graph.inputs}
    states = []
    for name, output in pairs.items():
        value = inputs[name]
        shape = tuple(d if isinstance(d, int) else str(d) for d in dims_of(value))
        assert value.dtype is not None
        size = int(np.prod([d for d in shape if isinstance(d, int)]))
        plain = len(shape) == 2 and shape[0] == BATCH
        kind = value.dtype.numpy()
        start = StateSpec.encode_initial(starts[name].ravel().astype(kind)) if name in starts else None
        states.append(StateSpec(name, output, str(kind), size, start, None if plain else shape))
    return states


def constant_starts(model: ir.Model) -> dict[str, tuple[np.ndarray, ...]]:
    """What recurrent calls start from, [size] for each state, where it is the same for every row of every input."""
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for node in model.graph:
        if node.domain != DOMAIN or node.op_type != OP_TYPE:
            continue
        states = list(node.inputs[FIRST_STATE:])
        values = [] if any(depends(state) for state in states) else evaluated(model, states)
        rows = [value[0] for value in values if (value == value[:1]).all() and np.isfinite(value).all()]
        if states and len(rows) == len(states):
            found[node.attributes["call"].as_string()] = tuple(rows)
    return found


def constant_value(model: ir.Model, value: ir.Value | None, batch_axis: int) -> np.ndarray | None:
    """One row of ``value``, if that is the same for every row of every input; None if it is not."""
    if value is None or depends(value):
        return None
    found = evaluated(model, [value])
    if not found or found[0].ndim <= batch_axis or found[0].shape[batch_axis] != 2:
        return None
    first, second = (np.take(found[0], row, batch_axis) for row in (0, 1))
    return first if np.array_equal(first, second) else None


def with_starts(calls: Mapping[str, Call], model: ir.Model) -> dict[str, Call]:
    """``calls``, each that is given a state that no input changes with what it starts from."""
    starts = constant_starts(model) if any(call.given_state for call in calls.values()) else {}
    return {name: replace(call, starts=starts.get(name) if call.given_state else None) for name, call in calls.items()}


def _check(given: Mapping[str, str], inputs: Mapping[str, ir.Value], outputs: Mapping[str, ir.Value]) -> None:
    for name, output in given.items():
        if name not in inputs or output not in outputs:
            raise InputError(
                f"states={{{name!r}: {output!r}}} pairs an input with an output; the inputs are {list(inputs)}, the outputs "
                f"{list(outputs)}"
            )
        goes, comes = dims_of(inputs[name]), dims_of(outputs[output])
        if goes != comes or BATCH not in goes or TIME in goes:
            raise InputError(
                f"states={{{name!r}: {output!r}}}: {name!r} is {goes}, {output!r} is {comes}, expected equal shapes with a "
                "batch and without a time axis"
            )
    if len(set(given.values())) < len(given):
        raise InputError(f"states={dict(given)} uses one output twice")


def _starts(value: ir.Value) -> Ends:
    """The states that start from ``value``; none if anything else is done with it but to take it apart."""
    ends: set[tuple[str, int]] = set()
    todo, seen = [value], set()
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        for node, place in current.uses():
            if node.domain == DOMAIN and node.op_type == OP_TYPE and place >= FIRST_STATE:
                ends.add((node.attributes["call"].as_string(), place - FIRST_STATE))
            elif node.op_type in MOVES and place == 0:
                todo.extend(node.outputs)
            elif node.op_type != "Shape":
                return frozenset()
    return frozenset(ends)


def _ends(value: ir.Value) -> Ends:
    """The last states of calls that ``value`` consists of; none if there is anything else in it."""
    ends: set[tuple[str, int]] = set()
    todo = [value]
    while todo:
        current = todo.pop()
        node = current.producer()
        if node is None:
            return frozenset()
        if node.domain == DOMAIN and node.op_type == OP_TYPE and current is not node.outputs[0]:
            ends.add((node.attributes["call"].as_string(), list(node.outputs).index(current) - 1))
        elif node.op_type == "Concat":
            todo.extend(part for part in node.inputs if part is not None)
        elif node.op_type in MOVES and node.inputs[0] is not None:
            todo.append(node.inputs[0])
        else:
            return frozenset()
    return frozenset(ends)


def above(values: Sequence[ir.Value | None], *, through_sizes: bool) -> Iterator[ir.Value]:
    """Everything that ``values`` are computed from, themselves included.

    through_sizes: also what only the sizes are taken of; otherwise the sizes of a value are not the value.
    """
    todo, seen = [value for value in values if value is not None], set()
    while todo:
        value = todo.pop()
        if value in seen:
            continue
        seen.add(value)
        yield value
        node = value.producer()
        if node is not None and (through_sizes or node.op_type not in ("Shape", "Size")):
            todo.extend(part for part in node.inputs if part is not None)


def depends(value: ir.Value | None) -> bool:
    """Whether ``value`` depends on more than sizes of inputs: on what is in them, on chance, on a loop."""
    for part in above([value], through_sizes=False):
        node = part.producer()
        if node is None:
            if part.is_graph_input():
                return True
        elif node.domain not in ("", "ai.onnx") or node.op_type.startswith(("Random", "Bernoulli", "Multinomial")):
            return True
    return False


def evaluated(model: ir.Model, values: Sequence[ir.Value | None], steps: int = 3) -> list[np.ndarray]:
    """``values``, which depend on sizes only, of a batch of two rows and so many steps; none if that fails."""
    import onnxruntime

    copied = model.clone()
    names = [str(value.name) for value in values if value is not None]
    graph = copied.graph
    by_name = {str(value.name): value for node in graph for value in node.outputs} | {
        str(value.name): value for value in graph.initializers.values()
    }
    wanted = [by_name[name] for name in names]
    graph.outputs.clear()
    needed = set(above(wanted, through_sizes=True))
    for node in reversed(list(graph)):
        if not any(value in needed for value in node.outputs):
            graph.remove(node, safe=False)
    for value in wanted:
        graph.outputs.append(value)
    fed = {}
    for value in list(graph.inputs):
        if value in needed:
            shape = [d if isinstance(d, int) else {BATCH: 2, TIME: steps}.get(str(d), 3) for d in dims_of(value)]
            assert value.dtype is not None
            fed[str(value.name)] = np.zeros(shape, value.dtype.numpy())
        else:
            graph.inputs.remove(value)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        data = ir.to_proto(copied).SerializeToString()
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return list(session.run(names, fed))
    except Exception as failure:  # whatever it is, the start is then taken for one that depends on inputs
        pass_on_interruption(failure)
        return []
