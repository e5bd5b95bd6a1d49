"""An encoder, a decoder's step and a loop around it: the graph that writes whole targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.export.decoding.beam_loop import Choices, emit_beam_search
from rnncore.export.decoding.beam_places import Places
from rnncore.export.decoding.graph_values import data_type, finish_outputs, value_of
from rnncore.export.decoding.loop import Start, Step
from rnncore.export.decoding.traced_parts import EncoderAndDecoder
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.inline import inline
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.runtime.format.options import Option
from rnncore.runtime.format.signature import BATCH, TIME, Signature, TensorSpec
from rnncore.runtime.text.beam import MOST_BEAMS
from rnncore.runtime.text.generation import STEPS
from rnncore.runtime.text.translator import BEAM

_NOT_CAUSAL = "it reads the whole source before it writes"


def _signature(model: EncoderDecoder, parts: EncoderAndDecoder) -> Signature:
    dtype = parts.dtype
    kept = [TensorSpec(name, dtype, shape) for name, shape in parts.shapes.items()]
    return Signature(
        inputs=(
            TensorSpec("source", "int64", (BATCH, TIME), model.config.source_size),
            TensorSpec("max_tokens", "int64", (BATCH,)),
            TensorSpec("token", "int64", (BATCH,)),
            TensorSpec("beam", "int64", (BATCH,)),
            TensorSpec("length_penalty", "float64", (BATCH,)),
            *kept,
        ),
        outputs=(
            TensorSpec("ids", "int64", (BATCH, STEPS)),
            TensorSpec("ids_lengths", "int64", (BATCH,)),
            TensorSpec("log_probs", dtype, (BATCH, STEPS)),
            TensorSpec("next_log_probs", dtype, (BATCH, model.config.target_size)),
            TensorSpec("beam.ids", "int64", (BATCH, BEAM, STEPS)),
            TensorSpec("beam.ids_lengths", "int64", (BATCH, BEAM)),
            TensorSpec("beam.log_prob", "float64", (BATCH, BEAM)),
            TensorSpec("beam.score", "float64", (BATCH, BEAM)),
            *(TensorSpec(parts.feeds[port.name], dtype, port.shape) for port in kept),
        ),
        lengths=TensorSpec("lengths", "int64", (BATCH,)),
        not_causal_because=_NOT_CAUSAL,
        options=(
            Option("token", -1, minimum=-1, maximum=model.config.target_size - 1),
            Option("beam", 1, minimum=1, maximum=MOST_BEAMS),
            Option("length_penalty", 0.0, minimum=0.0),
            *(Option(name, 0.0) for name in parts.shapes),
        ),
    )


def translator_graph(
    model: EncoderDecoder, parts: EncoderAndDecoder, rejected: Sequence[int] = ()
) -> tuple[ir.Model, Signature]:
    """The translator made of the halves of ``model``; tokens in ``rejected`` are never written."""
    signature = _signature(model, parts)
    graph = ir.Graph([], [], nodes=[], opset_imports=dict(parts.graph.opset_imports), name="Translator")
    inputs = {port.name: value_of(port) for port in (*signature.inputs, signature.lengths) if port is not None}
    graph.inputs.extend(inputs.values())

    builder = Builder("translate", graph)
    kept = dict(zip(parts.shapes, _begin_or_go_on(builder, parts, inputs), strict=True))
    none, end = builder.constant(0), builder.constant(model.config.end_id)
    first = builder.op("Where", builder.op("Less", inputs["token"], none), end, inputs["token"])
    limit = inputs["max_tokens"]
    trips = builder.op("Max", builder.op("ReduceMax", limit, keepdims=0), none)
    batch = builder.op("Shape", inputs["lengths"])
    start = Start(builder.op("Expand", first, batch), [kept[name] for name in parts.states], limit, trips)
    places = Places(builder, inputs["lengths"], inputs["beam"])
    config = model.config
    found = emit_beam_search(
        builder,
        places,
        start,
        inputs["length_penalty"],
        _step(builder, places, parts, {**kept, "lengths": inputs["lengths"]}),
        Choices(config.end_id, config.target_size, data_type(parts.dtype), rejected),
    )
    written = builder.op("Not", builder.op("Equal", found.ids, end))
    written = builder.op("Cast", written, to=ir.DataType.INT64)
    # Of an axis without a token, counted from behind, onnxruntime 1.30 keeps the axis.
    lengths = builder.op("ReduceSum", written, builder.constant([2]), keepdims=0)
    results = [builder.op("Gather", value, none, axis=1) for value in (found.ids, lengths)]
    results += [found.log_probs, found.next_log_probs, found.ids, lengths, found.log_prob, found.score]
    after = dict(zip(parts.states, found.states, strict=True))
    results += [after[name] if name in after else builder.op("Identity", kept[name]) for name in parts.shapes]
    graph.extend(builder.nodes)
    finish_outputs(graph, signature.outputs, results)
    made = ir.Model(graph, ir_version=10, producer_name="rnncore")
    RemoveUnusedNodesPass()(made)
    return made, signature


def _step(outside: Builder, places: Places, parts: EncoderAndDecoder, given: Mapping[str, ir.Value]) -> Step:
    """One step of the decoder for all places; what depends on the memory and lengths ``given`` only is written ``outside``."""
    fixed = {name: places.spread(given[name]) for name in parts.decoder_inputs if name in given}

    def step(body: Builder, token: ir.Value, states: Sequence[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        every = {**fixed, "read": token, **dict(zip(parts.states, states, strict=True))}
        wanted = [parts.log_probs, *(parts.feeds[name] for name in parts.states)]
        arguments = {inner: every[name] for name, inner in parts.decoder_inputs.items()}
        varying = {parts.decoder_inputs[name] for name in ("read", *parts.states)}
        named = Builder("step", body.main)
        log_probs, *new = inline(parts.graph, wanted, arguments, named, varying=varying, outside=outside)
        body.nodes.extend(named.nodes)
        return body.op("Squeeze", log_probs, body.constant([1])), new

    return step


def _begin_or_go_on(builder: Builder, parts: EncoderAndDecoder, inputs: Mapping[str, ir.Value]) -> list[ir.Value]:
    """Memory and states that decoding begins with: of the encoder, or those handed in."""
    begins = builder.op("Less", builder.op("ReduceMax", inputs["token"], keepdims=0), builder.constant(0))
    read, go_on = builder.nested(), builder.nested()
    arguments = {"source": inputs["source"], "lengths": inputs["lengths"]}
    named = Builder("encode", builder.main)
    encoded = inline(parts.graph, [parts.encoded[name] for name in parts.shapes], arguments, named)
    read.nodes.extend(named.nodes)
    handed = [go_on.op("Identity", inputs[name]) for name in parts.shapes]
    values = builder.ops(
        "If",
        [begins],
        len(handed),
        then_branch=read.subgraph([], encoded, "begin"),
        else_branch=go_on.subgraph([], handed, "go_on"),
    )
    for value in values:
        value.type = ir.TensorType(data_type(parts.dtype))
    return values
