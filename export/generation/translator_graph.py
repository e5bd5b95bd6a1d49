"""An encoder, a decoder's step and a loop around it: the graph that writes whole targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.export.generation.beam_loop import emit_beam_search
from rnncore.export.generation.beam_places import Places
from rnncore.export.generation.halves import Halves
from rnncore.export.generation.loop import Start, Step
from rnncore.export.generation.ports import data_type, finish_outputs, value_of
from rnncore.export.loops.builder import Builder
from rnncore.export.loops.inline import inline
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.runtime.files.options import Option
from rnncore.runtime.files.signature import BATCH, TIME, Port, Signature
from rnncore.runtime.text.generation import STEPS
from rnncore.runtime.text.translator import BEAM

_NOT_CAUSAL = "it reads the whole source before it writes"


def _signature(model: EncoderDecoder, halves: Halves) -> Signature:
    dtype = halves.dtype
    kept = [Port(name, dtype, shape) for name, shape in halves.shapes.items()]
    return Signature(
        inputs=(
            Port("source", "int64", (BATCH, TIME), model.config.source_size),
            Port("max_tokens", "int64", (BATCH,)),
            Port("token", "int64", (BATCH,)),
            Port("beam", "int64", (BATCH,)),
            Port("length_penalty", "float64", (BATCH,)),
            *kept,
        ),
        outputs=(
            Port("ids", "int64", (BATCH, STEPS)),
            Port("ids_lengths", "int64", (BATCH,)),
            Port("log_probs", dtype, (BATCH, STEPS)),
            Port("next_log_probs", dtype, (BATCH, model.config.target_size)),
            Port("beam.ids", "int64", (BATCH, BEAM, STEPS)),
            Port("beam.ids_lengths", "int64", (BATCH, BEAM)),
            Port("beam.log_prob", "float64", (BATCH, BEAM)),
            Port("beam.score", "float64", (BATCH, BEAM)),
            *(Port(halves.feeds[port.name], dtype, port.shape) for port in kept),
        ),
        lengths=Port("lengths", "int64", (BATCH,)),
        not_causal_because=_NOT_CAUSAL,
        options=(
            Option("token", -1, minimum=-1, maximum=model.config.target_size - 1),
            Option("beam", 1, minimum=1),
            Option("length_penalty", 0.0, minimum=0.0),
            *(Option(name, 0.0) for name in halves.shapes),
        ),
    )


def translator_graph(model: EncoderDecoder, halves: Halves, rejected: Sequence[int] = ()) -> tuple[ir.Model, Signature]:
    """The translator made of the halves of ``model``; tokens in ``rejected`` are never written."""
    signature = _signature(model, halves)
    graph = ir.Graph([], [], nodes=[], opset_imports=dict(halves.graph.opset_imports), name="Translator")
    inputs = {port.name: value_of(port) for port in (*signature.inputs, signature.lengths) if port is not None}
    graph.inputs.extend(inputs.values())

    builder = Builder("translate", graph)
    kept = dict(zip(halves.shapes, _begin_or_go_on(builder, halves, inputs), strict=True))
    none, end = builder.constant(0), builder.constant(model.config.end_id)
    first = builder.op("Where", builder.op("Less", inputs["token"], none), end, inputs["token"])
    limit = inputs["max_tokens"]
    trips = builder.op("Max", builder.op("ReduceMax", limit, keepdims=0), none)
    batch = builder.op("Shape", inputs["lengths"])
    start = Start(builder.op("Expand", first, batch), [kept[name] for name in halves.states], limit, trips)
    places = Places(builder, inputs["lengths"], inputs["beam"])
    config = model.config
    found = emit_beam_search(
        builder,
        places,
        start,
        inputs["length_penalty"],
        _step(builder, places, halves, {**kept, "lengths": inputs["lengths"]}),
        end=config.end_id,
        size=config.target_size,
        dtype=data_type(halves.dtype),
        rejected=rejected,
    )
    written = builder.op("Not", builder.op("Equal", found.ids, end))
    written = builder.op("Cast", written, to=ir.DataType.INT64)
    lengths = builder.op("ReduceSum", written, builder.constant([-1]), keepdims=0)
    results = [builder.op("Gather", value, none, axis=1) for value in (found.ids, lengths)]
    results += [found.log_probs, found.next_log_probs, found.ids, lengths, found.log_prob, found.score]
    after = dict(zip(halves.states, found.states, strict=True))
    results += [after[name] if name in after else builder.op("Identity", kept[name]) for name in halves.shapes]
    graph.extend(builder.nodes)
    finish_outputs(graph, signature.outputs, results)
    made = ir.Model(graph, ir_version=10, producer_name="rnncore")
    RemoveUnusedNodesPass()(made)
    return made, signature


def _step(outside: Builder, places: Places, halves: Halves, given: Mapping[str, ir.Value]) -> Step:
    """One step of the decoder for all places; what depends on the memory and lengths ``given`` only is written ``outside``."""
    fixed = {name: places.spread(given[name]) for name in halves.decoder_inputs if name in given}

    def step(body: Builder, token: ir.Value, states: Sequence[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        every = {**fixed, "read": token, **dict(zip(halves.states, states, strict=True))}
        wanted = [halves.log_probs, *(halves.feeds[name] for name in halves.states)]
        arguments = {inner: every[name] for name, inner in halves.decoder_inputs.items()}
        varying = {halves.decoder_inputs[name] for name in ("read", *halves.states)}
        named = Builder("step", body.main)
        log_probs, *new = inline(halves.graph, wanted, arguments, named, varying=varying, outside=outside)
        body.nodes.extend(named.nodes)
        return body.op("Squeeze", log_probs, body.constant([1])), new

    return step


def _begin_or_go_on(builder: Builder, halves: Halves, inputs: Mapping[str, ir.Value]) -> list[ir.Value]:
    """Memory and states that decoding begins with: of the encoder, or those handed in."""
    begins = builder.op("Less", builder.op("ReduceMax", inputs["token"], keepdims=0), builder.constant(0))
    read, go_on = builder.nested(), builder.nested()
    arguments = {"source": inputs["source"], "lengths": inputs["lengths"]}
    named = Builder("encode", builder.main)
    encoded = inline(halves.graph, [halves.encoded[name] for name in halves.shapes], arguments, named)
    read.nodes.extend(named.nodes)
    handed = [go_on.op("Identity", inputs[name]) for name in halves.shapes]
    values = builder.ops(
        "If",
        [begins],
        len(handed),
        then_branch=read.subgraph([], encoded, "begin"),
        else_branch=go_on.subgraph([], handed, "go_on"),
    )
    for value in values:
        value.type = ir.TensorType(data_type(halves.dtype))
    return values
