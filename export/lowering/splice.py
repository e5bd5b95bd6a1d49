"""Replace every placeholder of a traced module by a loop over its cell's step."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx_ir as ir
import torch

from rnncore.cells import Cell
from rnncore.cells.base import state_shape
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place
from rnncore.export.lowering.forms import PLAIN, Extent, write_recurrence
from rnncore.export.lowering.portable import emit_portable
from rnncore.export.lowering.projection import Projection
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.lowering.steps import StepGraph
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call
from rnncore.export.tracing.rolling.cell import RolledCell
from rnncore.export.tracing.rows import inner_calls, rows_lie_apart, rows_of_each, starts_anew
from rnncore.runtime.format.signature import BATCH, StateSpec


def splice(
    model: ir.Model,
    calls: Mapping[str, Call],
    steps: Mapping[Cell, StepGraph],
    *,
    form: str | Mapping[str, str],
    lift: bool,
    lean: bool,
) -> list[StateSpec]:
    """Write the recurrences into ``model`` in place.

    Args:
        model: main graph with ``rnncore::Recurrent`` placeholders.
        calls: what each placeholder stands for.
        steps: step graph of each cell; the fused form needs none.
        form: "loop", "scan", "fused", "portable" or one of ``PLAIN``, for all calls or by name of the call.
        lift: make the initial state of every call that got none, or zeros, a graph input, its final state a graph output.
        lean: move projections to where they are used and cut products by gate: faster in floating point, not in int8.

    Returns:
        The lifted states.
    """
    graph = model.graph
    weights: dict[Cell, dict[ir.Value, ir.Value]] = {}
    lifted: list[StateSpec] = []
    extents: dict[tuple[object, ...], Extent] = {}
    inner = inner_calls(model)
    for node in [n for n in graph if n.domain == DOMAIN and n.op_type == OP_TYPE]:
        call = calls[node.attributes["call"].as_string()]
        builder = Builder(call.name, graph)
        own = form if isinstance(form, str) else form[call.name]
        cut = lean and own not in PLAIN.values()
        step = steps.get(call.cell)
        if step is not None and call.cell not in weights:
            weights[call.cell] = step.emit_hoisted(builder)
        x, z, lengths, *values = node.inputs
        states, captured = values[: len(call.cell.state_sizes)], values[len(call.cell.state_sizes) :]
        assert x is not None and z is not None
        if z.shape is not None and not isinstance(z.shape[2], int):  # torch lost it, the layer knows
            z.shape = ir.Shape([*z.shape.dims[:2], call.z_size])
        dtype = node.outputs[0].dtype or ir.DataType.FLOAT
        recurrence = Recurrence(
            name=call.name,
            owner=call.owner,
            cell=call.cell,
            x=x,
            step=step,
            weights=weights.get(call.cell, {}),
            z=z,
            states=states,  # type: ignore[arg-type]
            captured=captured,  # type: ignore[arg-type]
            dtype=dtype,
            reverse=call.layer.reverse,
            projection=Projection.between(x, z) if cut else None,
            lean=cut,
        )
        # Zeros written out by the user's code mean the same as no state, so they may be carried as well.
        free = starts_anew(node, call) and call.name not in inner
        free = free and not (isinstance(call.cell, RolledCell) and call.cell.is_free)
        each = rows_of_each(dims_of(z)) or 1
        ports = _lift(graph, call, dtype, each) if lift and free else []
        if ports:
            apart = each > 1 and rows_lie_apart(node)
            recurrence.states = [_as_rows(builder, port, each, apart=apart) for port, _ in ports]
            lifted.extend(port[1] for port in ports)
        # Named free axes are equal where their names are, so one extent serves all layers over the axis.
        axes = (
            [getattr(axis, "value", axis) or call.name for axis in z.shape[:2]] if z.shape is not None else [call.name]
        )
        key = (lengths, *axes)
        if key not in extents:
            extents[key] = Extent.of(builder, lengths)
        if own == "portable":
            y, *finals = emit_portable(builder, recurrence, lengths)
        else:
            y, *finals = write_recurrence(
                builder, recurrence, extents[key], own, streams=lift and call.name not in inner
            )
        for (port, state), i in zip(ports, range(len(finals)), strict=False):
            if each == 1:
                finals[i] = _expose(graph, builder, finals[i], state)
            else:
                _expose(graph, builder, _of_each(builder, finals[i], port, apart=apart), state)
        results = [_named_like(old, new, builder) for old, new in zip(node.outputs, (y, *finals), strict=True)]
        graph.insert_before(node, builder.nodes)
        for old, new in zip(node.outputs, results, strict=True):
            put_in_place(old, new)
        graph.remove(node, safe=True)
    model.opset_imports.pop(DOMAIN, None)
    graph.opset_imports.pop(DOMAIN, None)
    return lifted


def _as_rows(builder: Builder, port: ir.Value, each: int, *, apart: bool) -> ir.Value:
    """A state [batch, each, ...] as the layer has its rows, [batch * each, ...]; ``apart``: as [each * batch, ...]."""
    if each == 1:
        return port
    laid = _first_two_changed(builder, port, len(dims_of(port))) if apart else port
    return builder.op("Reshape", laid, builder.constant([-1, *dims_of(port)[2:]]))


def _of_each(builder: Builder, final: ir.Value, port: ir.Value, *, apart: bool) -> ir.Value:
    """Inverse of :func:`_as_rows`, for a state like ``port``."""
    each, *size = dims_of(port)[1:]
    if not apart:
        return builder.op("Reshape", final, builder.constant([-1, each, *size]))
    laid = builder.op("Reshape", final, builder.constant([each, -1, *size]))
    return _first_two_changed(builder, laid, 2 + len(size))


def _first_two_changed(builder: Builder, value: ir.Value, rank: int) -> ir.Value:
    return builder.op("Transpose", value, perm=[1, 0, *range(2, rank)])


def _lift(graph: ir.Graph, call: Call, dtype: ir.DataType, each: int) -> list[tuple[ir.Value, StateSpec]]:
    """New graph inputs for the states of ``call``, named ``<layer path>.<state>``, and their descriptions.

    each: so many rows of the layer belong to one sequence.
    """
    ports = []
    like = next(call.cell.parameters(), None)
    taken = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
    kind = np.dtype(dtype.numpy())
    own = torch.zeros(1) if like is None else like.detach()
    initial = call.cell.initial_state(1, own.to(torch.from_numpy(np.zeros(0, kind)).dtype))
    if call.starts is not None:
        initial = tuple(torch.from_numpy(value)[None] for value in call.starts)
    elif call.given_state:
        initial = tuple(torch.zeros_like(value) for value in initial)
    for (name, size), value in zip(call.cell.state_sizes.items(), initial, strict=True):
        full = f"{call.name}.{name}" if call.name else name
        while {full, f"{full}.next"} & taken:  # an output that the module calls so
            full += ".state"
        shape = state_shape(size) if each == 1 else (each, *state_shape(size))
        port = ir.Value(name=full, type=ir.TensorType(dtype), shape=ir.Shape((BATCH, *shape)))
        graph.inputs.append(port)
        start = StateSpec.encode_initial(np.tile(value[0].detach().to("cpu").numpy().ravel().astype(kind), each))
        in_graph: tuple[int | str, ...] | None = (BATCH, *shape) if len(shape) > 1 else None
        ports.append((port, StateSpec(full, f"{full}.next", str(kind), prod(shape), start, in_graph)))
    return ports


def _named_like(old: ir.Value, new: ir.Value, builder: Builder) -> ir.Value:
    """``new``, under the name of ``old`` if that is an output of the module itself."""
    if not old.is_graph_output():
        return new
    if new.is_graph_output():  # a final state that the module returns and the stream needs: two outputs of one value
        new = builder.op("Identity", new)
    new.name = old.name
    return new


def _expose(graph: ir.Graph, builder: Builder, final: ir.Value, state: StateSpec) -> ir.Value:
    """``final`` as the graph output that feeds ``state`` next time."""
    final.name = state.output
    final.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(state.dtype)))
    final.shape = ir.Shape(state.shape or (BATCH, state.size))
    graph.outputs.append(final)
    return final
