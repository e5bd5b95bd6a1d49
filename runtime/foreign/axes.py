"""What of a foreign graph is pushed, and where the batch and time axes of these inputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from rnncore.runtime.foreign.description import Foreign
from rnncore.runtime.foreign.states import DTYPES, check_dtype, read_constant, read_dims, read_state
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.tensors.graph_adapter import Context, GraphPort, GraphState
from rnncore.runtime.tensors.graph_contract import GraphValue


@dataclass(frozen=True)
class Inputs:
    """All inputs of a foreign graph that a call feeds; the fields of the same names are those of ``GraphAdapter``.

    dtypes: names of numpy dtypes.
    shapes: shape of each pushed input as the runtime sees it, [batch, time, ...].
    """

    ports: tuple[GraphPort, ...]
    dtypes: dict[str, str]
    shapes: dict[str, tuple[int | str, ...]]
    states: tuple[GraphState, ...]
    contexts: tuple[Context, ...]
    constants: dict[str, NDArray[Any]]
    timed: frozenset[str]
    chunks: dict[str, int]
    chunked: bool
    alone: bool


def read_inputs(foreign: Foreign, inputs: Mapping[str, GraphValue], optional: Set[str], problems: list[str]) -> Inputs:
    """Sort and understand the inputs of a graph; ``problems`` grows by what cannot be.

    optional: inputs with a default, which are left alone unless the caller names them.
    """
    states = tuple(read_state(foreign, inputs[name], problems) for name in foreign.states)
    constants = {name: read_constant(value, inputs[name], problems) for name, value in foreign.constants.items()}
    taken = {*foreign.states, *constants, *(optional - foreign.axes.keys())}
    pushed = [value for name, value in inputs.items() if name not in taken]
    if not pushed:
        problems.append("every input is a state or a constant: there is nothing left to push")
    for value in pushed:
        check_dtype("input", value, problems)
    ports = _with_time(foreign, [_read_batch(foreign, value, states, inputs, problems) for value in pushed])
    all_ports = (*ports, *(state.port for state in states))
    _check_batch(all_ports, problems)
    sizes = _chunk_sizes(foreign, ports, problems)
    ports = tuple(_with_chunk(port, sizes, foreign.context) for port in ports)
    timed = frozenset(port.name for port in ports if port.time is not None)
    contexts = tuple(Context(name, f"{name}.context", foreign.context) for name in sizes if foreign.context)
    problems += [f"context= needs the name {c.state!r}, which an input has" for c in contexts if c.state in inputs]
    return Inputs(
        ports=ports,
        dtypes={value.name: DTYPES.get(value.type, "float32") for value in inputs.values()},
        shapes={port.name: _shape(port, sizes.get(port.name), bool(timed)) for port in ports},
        states=states,
        contexts=contexts,
        constants=constants,
        timed=timed or frozenset(port.name for port in ports),
        chunks={name: size for name, size in sizes.items() if size > 1 or foreign.context},
        chunked=bool(sizes) or not timed,
        alone=any(port.batch is None or port.dims[port.batch] == 1 for port in all_ports),
    )


def _read_batch(
    foreign: Foreign,
    value: GraphValue,
    states: Sequence[GraphState],
    inputs: Mapping[str, GraphValue],
    problems: list[str],
) -> GraphPort:
    """The port of an input with its batch axis, and the time axis if the caller names it."""
    dims = read_dims(foreign, value, problems)
    words = foreign.axes.get(value.name)
    time = None
    if words is not None and len(words) == len(dims):
        batch = words.index(BATCH) if BATCH in words else None
        time = words.index(TIME) if TIME in words else None
    else:
        batch = _likely_batch(value, dims, states, inputs)
    if not dims:
        problems.append(f"input {value.name!r} is a single number: say constants={{{value.name!r}: value}}")
    if batch is not None and not isinstance(dims[batch], int):
        dims[batch] = BATCH
    if time is not None and not isinstance(dims[time], int):
        dims[time] = TIME
    return GraphPort(value.name, tuple(dims), batch, time)


def _likely_batch(
    value: GraphValue, dims: Sequence[int | str], states: Sequence[GraphState], inputs: Mapping[str, GraphValue]
) -> int | None:
    """The axis that has the name of the states' batch axis, else the first one if that can be."""
    ports = [state.port for state in states]
    names = {inputs[p.name].shape[p.batch] for p in ports if p.batch is not None and inputs[p.name].shape}
    for axis, size in enumerate(value.shape):
        if isinstance(size, str) and size and size in names:
            return axis
    alone = any(port.batch is None or port.dims[port.batch] == 1 for port in ports)
    return 0 if dims and (dims[0] == 1 or (not alone and not isinstance(dims[0], int))) else None


def _with_time(foreign: Foreign, ports: Sequence[GraphPort]) -> tuple[GraphPort, ...]:
    """Time axes for inputs of which the caller names no axes: the first free one, else that of a chunk of fixed size."""
    result = {port.name: port for port in ports}
    silent = [port for port in ports if port.name not in foreign.axes]
    for port in silent:
        free = [axis for axis, size in enumerate(port.dims) if axis != port.batch and not isinstance(size, int)]
        if free:
            dims = tuple(TIME if axis == free[0] else size for axis, size in enumerate(port.dims))
            result[port.name] = replace(port, dims=dims, time=free[0])
    if any(port.time is not None for port in result.values()):
        return tuple(result.values())
    for port in silent:
        others = [axis for axis in range(len(port.dims)) if axis != port.batch]
        if len(others) > 1 or (others and (foreign.chunk or foreign.context)):
            result[port.name] = replace(port, time=others[0])
    return tuple(result.values())


def _check_batch(ports: Sequence[GraphPort], problems: list[str]) -> None:
    for port in ports:
        size = 1 if port.batch is None else port.dims[port.batch]
        if size not in (BATCH, 1):
            problems.append(
                f"the batch axis of {port.name!r} has the fixed size {size}, expected a free one or 1: if another axis "
                "is the batch, or none, name all its axes with axes="
            )


def _chunk_sizes(foreign: Foreign, ports: Sequence[GraphPort], problems: list[str]) -> dict[str, int]:
    """Samples of one call, without the context, of each input whose chunks have a fixed size."""
    timed = {port.name: port.dims[port.time] for port in ports if port.time is not None}
    sizes: dict[str, int] = {}
    for name, size in timed.items():
        if isinstance(size, int):
            sizes[name] = size - foreign.context
            if sizes[name] < 1:
                problems.append(f"input {name!r} takes {size} samples, context={foreign.context} leaves none")
            elif foreign.chunk not in (None, sizes[name]):
                problems.append(
                    f"input {name!r} takes {size} samples a call, not chunk={foreign.chunk} and context={foreign.context}"
                )
        elif foreign.chunk is not None:
            sizes[name] = foreign.chunk
    free = [name for name in timed if name not in sizes]
    if sizes and free:
        problems.append(f"input {free[0]!r} takes any number of steps, {next(iter(sizes))!r} a fixed one: say chunk=")
    if not sizes and (foreign.chunk or foreign.context):
        problems.append("chunk= and context= need an input with a time axis, and context= a chunk of fixed size")
    return sizes


def _with_chunk(port: GraphPort, sizes: Mapping[str, int], context: int) -> GraphPort:
    """The same port, its time axis of the size that a call takes."""
    if port.name not in sizes:
        return port
    dims = tuple(sizes[port.name] + context if axis == port.time else size for axis, size in enumerate(port.dims))
    return replace(port, dims=dims)


def _shape(port: GraphPort, chunk: int | None, timed: bool) -> tuple[int | str, ...]:
    """Shape of an input inside the runtime."""
    rest = tuple(size for axis, size in enumerate(port.dims) if axis not in (port.batch, port.time))
    if not timed:  # no input has a time axis: each call is one step
        return (BATCH, TIME, *rest)
    if port.time is None:
        return (BATCH, *rest)
    whole = chunk is None or port.dims[port.time] == 1
    return (BATCH, TIME, *rest) if whole else (BATCH, TIME, chunk or 1, *rest)
