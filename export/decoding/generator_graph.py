"""A streaming file and a loop around it: the graph that writes whole texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.export.decoding.graph_values import data_type, finish_outputs, value_of
from rnncore.export.decoding.loop import Start, emit_generation
from rnncore.export.decoding.sampling_nodes import Sampler, without
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.inline import inline
from rnncore.runtime import Model
from rnncore.runtime.format.options import MOST, Option
from rnncore.runtime.format.signature import BATCH, TIME, Signature, TensorSpec
from rnncore.runtime.text.generation import DRAWS, STEPS, SpecialTokens

_NOT_CAUSAL = "it generates whole sequences in one call"
_OPTIONS = {
    Option("max_tokens", MOST, minimum=0): "int64",
    Option("temperature", 1.0, minimum=0.0): "float64",
    Option("top_k", MOST, minimum=1): "int64",
    Option("top_p", 1.0, above=0.0, maximum=1.0): "float64",
}
"""Optional inputs [batch], and their dtypes."""


def generator_graph(data: bytes, model: Model, rules: SpecialTokens, size: int) -> tuple[ir.Model, Signature]:
    """The generator around a streaming file: ``data`` its bytes, ``model`` the same loaded, ``size`` its vocabulary."""
    source = ir.from_proto(onnx.ModelProto.FromString(data))
    signature = _signature(model.signature)
    graph = ir.Graph([], [], nodes=[], opset_imports=dict(source.graph.opset_imports), name="Generator")
    inputs = {p.name: value_of(p) for p in (*signature.inputs, signature.lengths) if p is not None}
    graph.inputs.extend(inputs.values())

    builder = Builder("generate", graph)
    reader = Source(source.graph, model.signature)
    start = _start(builder, reader, inputs, rules)
    # One column more, because the loop takes one step even where none is wanted.
    column = builder.op("Concat", builder.op("Shape", inputs["lengths"]), builder.constant([1]), axis=0)
    column = builder.op("Expand", builder.constant(0, np.float64), column)
    uniforms = builder.op("Concat", inputs["uniforms"], column, axis=1)
    sampler = Sampler.of(builder, uniforms, inputs["temperature"], inputs["top_k"], inputs["top_p"], size)
    dtype = data_type(model.signature.outputs[0].dtype)
    rows = builder.op("Expand", builder.constant(1), builder.op("Shape", start.token))

    def step(body: Builder, token: ir.Value, states: Sequence[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        named = Builder("step", graph)
        log_probs, *new = reader.read(named, token, rows, states, outside=builder)
        body.nodes.extend(named.nodes)
        return body.op("Squeeze", log_probs, body.constant([1])), new

    def choose(body: Builder, log_probs: ir.Value, index: ir.Value) -> ir.Value:
        return sampler.choose(body, without(body, log_probs, rules.rejected, size, dtype), index)

    made = emit_generation(builder, start, step, choose, end=rules.end, dtype=dtype)
    graph.extend(builder.nodes)
    finish_outputs(graph, signature.outputs, [made.ids, made.lengths, made.log_probs])
    written = ir.Model(graph, ir_version=source.ir_version, producer_name="rnncore")
    RemoveUnusedNodesPass()(written)
    return written, signature


@dataclass(frozen=True)
class Source:
    """A streaming file: its graph, and what it says about that."""

    graph: ir.Graph
    signature: Signature

    def read(
        self,
        builder: Builder,
        ids: ir.Value,
        lengths: ir.Value,
        states: Sequence[ir.Value],
        outside: Builder | None = None,
    ) -> list[ir.Value]:
        """[log-probabilities, *states] on ``ids`` [batch, time], written into ``builder``.

        outside: where what no id and no state changes is written, for a builder inside a loop.
        """
        signature = self.signature
        assert signature.lengths is not None
        arguments = {signature.inputs[0].name: ids, signature.lengths.name: lengths}
        arguments |= {state.name: value for state, value in zip(signature.states, states, strict=True)}
        wanted = [signature.outputs[0].name, *(state.output for state in signature.states)]
        varying = {signature.inputs[0].name, *(state.name for state in signature.states)}
        return inline(self.graph, wanted, arguments, builder, varying=varying, outside=outside)


def _start(builder: Builder, source: Source, inputs: Mapping[str, ir.Value], rules: SpecialTokens) -> Start:
    """All tokens of start and prefix but the last of each row are read at once; that one begins the loop."""
    lengths, axis = inputs["lengths"], builder.constant([1])
    batch = builder.op("Shape", lengths)
    first = builder.op("Concat", batch, axis, axis=0)
    text = builder.op("Concat", builder.op("Expand", builder.constant(rules.start), first), inputs["prefix"], axis=1)
    token = builder.op("GatherElements", text, builder.op("Unsqueeze", lengths, axis), axis=1)
    states = []
    for state in source.signature.states:
        value = builder.constant(state.initial_value()[None], state.dtype)
        states.append(builder.op("Expand", value, builder.op("Concat", batch, axis, axis=0)))
    named = Builder("prefix", builder.main)
    _, *states = source.read(named, text, lengths, states)
    builder.nodes.extend(named.nodes)
    for value, state in zip(states, source.signature.states, strict=True):
        value.type = ir.TensorType(data_type(state.dtype))
    draws = builder.op("Squeeze", builder.op("Shape", inputs["uniforms"], start=1, end=2), builder.constant([0]))
    limit = builder.op("Expand", inputs["max_tokens"], batch)
    trips = builder.op("Min", builder.op("ReduceMax", limit, keepdims=0), draws)
    return Start(
        token=builder.op("Squeeze", token, axis),
        states=states,
        limit=limit,
        trips=builder.op("Max", trips, builder.constant(0)),
    )


def _signature(source: Signature) -> Signature:
    limit = source.inputs[0].limit or int(source.outputs[0].shape[-1])
    return Signature(
        inputs=(
            TensorSpec("prefix", "int64", (BATCH, TIME), limit, source.inputs[0].minimum),
            TensorSpec("uniforms", "float64", (BATCH, DRAWS)),
            *(TensorSpec(option.name, dtype, (BATCH,)) for option, dtype in _OPTIONS.items()),
        ),
        outputs=(
            TensorSpec("ids", "int64", (BATCH, STEPS)),
            TensorSpec("ids_lengths", "int64", (BATCH,)),
            TensorSpec("log_probs", source.outputs[0].dtype, (BATCH, STEPS)),
        ),
        lengths=TensorSpec("lengths", "int64", (BATCH,)),
        not_causal_because=_NOT_CAUSAL,
        options=tuple(_OPTIONS),
    )
