"""A signature for an ONNX file that has none: from what the graph says, what the caller says and what a trial run shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from rnncore.runtime.errors import ForeignModelError, raise_all
from rnncore.runtime.foreign.axes import Inputs, read_inputs
from rnncore.runtime.foreign.description import Foreign, name_problems
from rnncore.runtime.foreign.outputs import read_outputs
from rnncore.runtime.foreign.states import DTYPES
from rnncore.runtime.format.axes import stride_of
from rnncore.runtime.format.signature import Signature, StateSpec, TensorSpec
from rnncore.runtime.session.failures import of_runtime, run_error
from rnncore.runtime.tensors.graph_adapter import Array, GraphAdapter, GraphState
from rnncore.runtime.tensors.graph_contract import GraphValue
from rnncore.runtime.tensors.specs import shape_text

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_NO_STATES = "it was loaded as a model without states, states={}"


def read_graph(session: InferenceSession, foreign: Foreign) -> tuple[Signature, GraphAdapter]:
    """The signature of a foreign graph, and how to get there.

    Raises ForeignModelError that lists every problem and all inputs and outputs of the graph.
    """
    required = [GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in session.get_inputs()]
    optional = [GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in session.get_overridable_initializers()]
    inputs = {value.name: value for value in (*required, *optional)}
    outputs = {arg.name: GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in session.get_outputs()}

    def run(names: list[str], feeds: dict[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(names, session.run(names, feeds), strict=True))
        except Exception as error:
            if not of_runtime(error):
                raise
            raise run_error(error) from error

    problems = name_problems(foreign, list(inputs), list(outputs))
    _raise(problems, inputs, outputs)
    read = read_inputs(foreign, inputs, frozenset(value.name for value in optional), problems)
    problems += _dtype_problems(foreign, inputs, outputs)
    _raise(problems, inputs, outputs)
    adapter, shapes = read_outputs(foreign, read, outputs, run, problems)
    _raise(problems, inputs, outputs)
    return _signature(foreign, read, outputs, shapes), adapter


def _dtype_problems(foreign: Foreign, inputs: Mapping[str, GraphValue], outputs: Mapping[str, GraphValue]) -> list[str]:
    return [
        f"state {name!r} is a {inputs[name].type}, {output!r} is a {outputs[output].type}: pair other names"
        for name, output in foreign.states.items()
        if inputs[name].type != outputs[output].type
    ]


def _signature(
    foreign: Foreign, read: Inputs, outputs: Mapping[str, GraphValue], shapes: Mapping[str, tuple[int | str, ...]]
) -> Signature:
    states = [_state(foreign, read, state) for state in read.states]
    for context in read.contexts:
        shape = read.shapes[context.input]
        kept = (shape[0], context.size, *shape[3:])
        size = prod(d for d in kept if isinstance(d, int))
        states.append(StateSpec(context.state, context.state, read.dtypes[context.input], size, None, kept))
    return Signature(
        inputs=tuple(TensorSpec(port.name, read.dtypes[port.name], read.shapes[port.name]) for port in read.ports),
        outputs=tuple(TensorSpec(name, DTYPES[outputs[name].type], shape) for name, shape in shapes.items()),
        states=tuple(states),
        stride=stride_of(shapes.values()) if states else 1,
        causal=bool(states),
        not_causal_because="" if states else _NO_STATES,
    )


def _state(foreign: Foreign, read: Inputs, state: GraphState) -> StateSpec:
    name = state.port.name
    dtype = read.dtypes[name]
    initial = foreign.initial.get(name)
    encoded = None if initial is None else StateSpec.encode_initial(initial.astype(dtype).reshape(-1))
    return StateSpec(name, state.output, dtype, prod(state.item_shape), encoded, _shape(state))


def _shape(state: GraphState) -> tuple[int | str, ...]:
    shape: list[int | str] = list(state.item_shape)
    if state.port.batch is not None:
        shape.insert(state.port.batch, "batch")
    return tuple(shape)


def _raise(problems: Sequence[str], inputs: Mapping[str, GraphValue], outputs: Mapping[str, GraphValue]) -> None:
    """Raise ForeignModelError, if there are problems, that lists them and what the graph has."""
    if problems:
        listed = [f"its {role} are {_listed(values)}" for role, values in (("inputs", inputs), ("outputs", outputs))]
        raise_all([*problems, *listed], ForeignModelError, "the model cannot be read as it was said")


def _listed(values: Mapping[str, GraphValue]) -> str:
    return ", ".join(
        f"{value.name} {DTYPES.get(value.type, value.type)}{shape_text(tuple('?' if d is None else d for d in value.shape))}"
        for value in values.values()
    )
