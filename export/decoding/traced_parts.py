"""Encoder and decoder of one model, traced side by side as one graph out of which each is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.cleanup import clean_up
from rnncore.export.graph.replace import put_in_place
from rnncore.export.lowering.forms import Form
from rnncore.export.lowering.one_step import emit_step
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.lowering.splice import splice
from rnncore.export.lowering.steps import StepGraph, export_steps
from rnncore.export.targets import choose_forms, form_text
from rnncore.export.tracing.recorder import DOMAIN, Call, PlaceholderRecorder
from rnncore.export.tracing.torch_onnx import to_onnx
from rnncore.models.bridge import leaves
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.placeholder import recording
from rnncore.runtime.format.signature import BATCH
from rnncore.runtime.text.translator import POSITIONS

_MEMORY = "memory"
_BATCH, _TIME, _POSITIONS = 3, 5, 7  # of the example; different, and neither 0 nor 1


@dataclass(frozen=True)
class EncoderAndDecoder:
    """One graph: the encoder, and one step of the decoder, which share nothing but weights.

    shapes: what goes from the encoder to the decoder and from step to step, memory first if there is attention, then
    the states, by the names they have in the file.  states: the latter.  feeds: output of the file that feeds each.
    encoded: the graph's output that begins each.  decoder_inputs: the graph's input for each, for "read" (ids [batch, 1])
    and, with attention, for "lengths".  log_probs: the graph's output [batch, 1, target_size].  form: of the encoder's loops.
    """

    graph: ir.Graph
    dtype: str
    shapes: Mapping[str, tuple[int | str, ...]]
    states: Sequence[str]
    feeds: dict[str, str]
    encoded: Mapping[str, str]
    decoder_inputs: Mapping[str, str]
    log_probs: str
    form: str


def trace_encoder_and_decoder(
    model: EncoderDecoder, form: Form | Literal["auto"], int8: bool = False
) -> EncoderAndDecoder:
    """Trace both halves of ``model``, which is in eval mode; loops have the given form, the decoder has none.

    int8: written so that int8 products gain most; with form="auto" no operator without an int8 twin is taken.
    """
    sizes = {
        f"decoder.layers.{i}.{name}": size
        for i, layer in enumerate(model.decoder_layers)
        for name, size in layer.cell.state_sizes.items()
    }
    attends = model.attention is not None
    shapes: dict[str, tuple[int | str, ...]] = {_MEMORY: (BATCH, POSITIONS, model.memory_size)} if attends else {}
    shapes |= {name: (BATCH, size) for name, size in sizes.items()}
    inputs = ["source", "lengths", "read", *(["memory", "memory_lengths"] if attends else []), *sizes]
    outputs = [*(f"{name}.first" for name in shapes), "log_probs", *(f"{name}.next" for name in sizes)]

    recorder = PlaceholderRecorder(model, {})
    traced = _SideBySide(model, recorder).eval()
    example, dynamic = _example(model, list(sizes.values()))
    with recording(recorder):
        written = to_onnx(traced, example, dynamic, what=type(model).__name__)
    graph = written.graph
    for value, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = name
    for value in list(graph.initializers.values()):
        value.name = str(value.name).removeprefix("module.")
    calls = dict(recorder.calls)
    steps = export_steps(list(calls.values()))
    _splice_single_steps(graph, {k: c for k, c in calls.items() if k.startswith("decoder.")}, steps)
    inside = [call for name, call in calls.items() if not name.startswith("decoder.")]
    choices = choose_forms(inside, form, "onnxruntime", int8=int8)
    splice(written, calls, steps, form={name: one.form for name, one in choices.items()}, lift=False, lean=not int8)
    clean_up(written, model)
    read = {"read": "read", **{name: name for name in shapes}, **({"lengths": "memory_lengths"} if attends else {})}
    return EncoderAndDecoder(
        graph=graph,
        dtype=str(np.dtype(next(v for v in graph.outputs if v.name == "log_probs").dtype.numpy())),  # type: ignore[union-attr]
        shapes=shapes,
        states=list(sizes),
        feeds={name: f"{name}.next" for name in shapes},
        encoded={name: f"{name}.first" for name in shapes},
        decoder_inputs=read,
        log_probs="log_probs",
        form=form_text(choices),
    )


class _SideBySide(nn.Module):
    """(inputs of the encoder, inputs of the decoder) -> (results of the encoder, results of the decoder)."""

    def __init__(self, model: EncoderDecoder, recorder: PlaceholderRecorder) -> None:
        super().__init__()
        self.module = model
        self.recorder = recorder

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        self.recorder.start(None, {})
        source, lengths, read, *rest = flat
        memory, first = self.module.encode(source, lengths)
        begin = list(leaves(first))
        if self.module.attention is not None:
            begin.insert(0, memory)
            handed, handed_lengths, *states = rest
        else:
            handed, handed_lengths, states = memory, lengths, rest
        given = iter(states)
        nested = tuple(tuple(next(given) for _ in layer.cell.state_sizes) for layer in self.module.decoder_layers)
        log_probs, after = self.module.decode(read, handed, handed_lengths, nested)
        # One that was already listed would be one ONNX value with two roles.
        results, seen = [], {id(value) for value in flat}
        for value in (*begin, log_probs, *leaves(after)):
            results.append(value.clone() if id(value) in seen else value)
            seen.add(id(value))
        return tuple(results)


def _example(model: EncoderDecoder, sizes: list[int]) -> tuple[tuple[Tensor, ...], tuple[dict[int, object], ...]]:
    like = model.head.weight.detach()
    free = torch.export.Dim.DYNAMIC
    lengths = torch.full((_BATCH,), _TIME, dtype=torch.int64)
    tensors = [torch.zeros(_BATCH, _TIME, dtype=torch.int64), lengths, torch.zeros(_BATCH, 1, dtype=torch.int64)]
    axes: list[dict[int, object]] = [{0: free, 1: free}, {0: free}, {0: free}]
    if model.attention is not None:
        tensors += [like.new_zeros(_BATCH, _POSITIONS, model.memory_size), lengths.clone()]
        axes += [{0: free, 1: free}, {0: free}]
    tensors += [like.new_zeros(_BATCH, size) for size in sizes]
    axes += [{0: free} for _ in sizes]
    return tuple(tensors), (tuple(axes),)  # type: ignore[return-value]


def _splice_single_steps(graph: ir.Graph, calls: Mapping[str, Call], steps: Mapping[Cell, StepGraph]) -> None:
    """Write the decoder's recurrences, which see one step at a time, as that step: the loop is around all of them."""
    for node in [n for n in graph if n.domain == DOMAIN and n.attributes["call"].as_string() in calls]:
        call = calls[node.attributes["call"].as_string()]
        builder, step = Builder(call.name, graph), steps[call.cell]
        x, z, _, *states = node.inputs
        assert x is not None and z is not None
        recurrence = Recurrence(
            name=call.name,
            owner=call.owner,
            cell=call.cell,
            x=x,
            step=step,
            weights=step.emit_hoisted(builder),
            z=z,
            states=states,  # type: ignore[arg-type]
            dtype=node.outputs[0].dtype or ir.DataType.FLOAT,
            reverse=False,
        )
        results = emit_step(builder, recurrence)
        graph.insert_before(node, builder.nodes)
        for old, value in zip(node.outputs, results, strict=True):
            put_in_place(old, value)
        graph.remove(node, safe=True)
