"""What the graph alone says about streaming, on graphs of a few nodes written by hand."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest
from onnx import parser

import rnncore
from rnncore.export.graph.run_overlap import RunOverlap
from rnncore.export.tracing.example import Example, Extent
from rnncore.export.tracing.recorder import Call
from rnncore.export.tracing.trace import Trace
from rnncore.export.verification.cases import Case
from rnncore.export.verification.structure import runs_of, stride_of, why_chunks_differ, why_not_causal
from rnncore.runtime.format.axes import BATCH, TIME, Size, Steps
from tests.proof.small_files import Sum, X

HALF = Steps(TIME, 1, 0, 2)


def trace(
    x: tuple[int | str, ...] = (BATCH, TIME, 3),
    *,
    reverse: bool = False,
    given: str = "",
    shapes: tuple[tuple[Size, ...], ...] | None = None,
    time: Extent | None = None,
    looks: tuple[str, ...] = (),
) -> Trace:
    """A layer 'enc.rnn' over x, from a state that is nothing, zeros or ones."""
    state = {"": "", "zeros": ", zeros", "ones": ", ones"}[given]
    model = parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20, "rnncore" : 1]>
        layers (float[batch, time, 3] x) => (float[batch, time, 5] y)
        <float[1, 5] zeros = {{0, 0, 0, 0, 0}}, float[1, 5] ones = {{1, 1, 1, 1, 1}}>
        {{ v = Identity (x)  y, h = rnncore.Recurrent <call = "enc.rnn"> (v, v, {state}) }}""")
    proto = ir.from_proto(model)
    proto.graph[0].outputs[0].shape = ir.Shape(x)
    layer = rnncore.Recurrent(rnncore.GRUCell(3, 5), reverse=reverse)
    call = Call("enc.rnn", layer, 15, bool(given), False)
    extents = {} if time is None else {TIME: time}
    example = replace(Example.of(Sum(), X, None, False), extents=extents, output_shapes=shapes)
    return Trace(proto, example, {"enc.rnn": call}, None, False, time_operators=list(looks))


WHOLE = (BATCH, TIME, 5)
CAUSAL: dict[str, Trace] = {
    "plain": trace(),
    "a batch of its own, whose state is given": trace(("rows", TIME, 3), given="ones"),
    "bands of each sequence": trace(("5*batch", TIME, 3), given="zeros"),
    "along the bands of each step, both ways": trace(("batch*time", 5, 3), reverse=True),
    "longer by a number": trace((BATCH, "time + 4", 3)),
    "half as many": trace(shapes=((BATCH, HALF, 5),)),
    "half as many, in pairs": trace(shapes=((BATCH, HALF, 5), WHOLE), time=Extent(TIME, 2, None, 2)),
    "other names without a stride": trace(shapes=((BATCH, TIME, "width"), (BATCH, 7))),
}
NOT: dict[str, tuple[Trace, str]] = {
    "reverse": (trace(reverse=True), "layer 'enc.rnn' reads backward in time (bidirectional or reverse)"),
    "rows": (
        trace((TIME, BATCH, 3)),
        "layer 'enc.rnn' runs over a batch of time, not over the batch of the inputs",
    ),
    "zeros of rows of its own": (
        trace(("rows", TIME, 3), given="zeros"),
        "layer 'enc.rnn' runs over a batch of rows, not over the batch of the inputs",
    ),
    "steps": (trace((BATCH, 7, 3)), "layer 'enc.rnn' runs over 7 steps, not over the time steps of the inputs"),
    "steps of an operator": (
        trace((BATCH, "words + time", 3), looks=("conv: looks ahead", "mean", "more")),
        "layer 'enc.rnn' runs over words + time steps, not over the time steps of the inputs (conv: looks ahead; mean)",
    ),
    "late": (
        trace(shapes=((BATCH, Steps(TIME, 1, 1, 2), 5), (BATCH, Steps(TIME, 1, -1, 1), 5))),
        "outputs have (time+1)//2 and time-1 steps: one answers to steps for which another waits",
    ),
    "longer": (
        trace(shapes=((BATCH, Steps(TIME, 1, 1, 1), 5),)),
        "an output has time+1 steps: some of them answer only after more steps have come than they are for",
    ),
    "behind, at another rate": (
        trace((BATCH, "Max(3, time)", 3), shapes=((BATCH, Steps(TIME, 1, -2, 1), 5),)),
        "layer 'enc.rnn' runs over Max(3, time) steps, and an answer wants 2 input steps before its own: a stream would run it "
        "over those again (put what looks back unpadded before the layer, or leave lengths out)",
    ),
    "too few of an overlap": (
        trace((BATCH, "((time - 3)//2) + 1", 3), shapes=((BATCH, Steps(TIME, 1, -1, 2), 5),), time=Extent(TIME, 9)),
        "it takes at least 9 steps, and a stream as soon as there are 3",
    ),
    "timeless beside an overlap": (
        trace((BATCH, "time - 2", 3), shapes=((BATCH, Steps(TIME, 1, -2, 1), 5), (BATCH, 7))),
        "it takes 2 steps again with each chunk, and has an output for the whole sequence, which such streams do not know",
    ),
    "too few": (
        trace(shapes=((BATCH, HALF, 5),), time=Extent(TIME, 3)),
        "it takes at least 3 steps, and a stream 2 at a time",
    ),
    "names": (
        trace(shapes=((BATCH, HALF, "width"), (BATCH, HALF, "also"))),
        "it takes 2 steps at a time, and has axis 'also', which such streams do not know",
    ),
    "timeless": (
        trace(shapes=((BATCH, HALF, 5), (BATCH, 7))),
        "it takes 2 steps at a time, and has an output for the whole sequence, which such streams do not know",
    ),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_nothing_forbids_streaming(name: str) -> None:
    assert why_not_causal(CAUSAL[name]) == ""


def test_a_loop_is_cut_only_where_rows_have_no_lengths() -> None:
    traced = trace(shapes=((BATCH, Steps(TIME, 1, -2, 1), 5),))
    assert why_not_causal(traced) == ""
    assert why_not_causal(traced, must_lengths=True) == (
        "layer 'enc.rnn' runs over time steps, and an answer wants 2 input steps before its own: a stream would run it "
        "over those again (put what looks back unpadded before the layer, or leave lengths out)"
    )


@pytest.mark.parametrize("name", NOT)
def test_what_forbids_streaming_is_named(name: str) -> None:
    traced, why = NOT[name]
    assert why_not_causal(traced) == why


def test_a_model_without_time_does_not_stream() -> None:
    model = ir.from_proto(
        parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]> g (float[batch, 3] x) => (float[batch, 3] y) { y = Neg (x) }'
        )
    )
    plain = Trace(model, trace().example, {}, None, False)
    assert why_not_causal(plain).startswith("no input has a time axis (of one step, say which inputs are states: ")


@pytest.mark.parametrize(
    ("shapes", "time", "stride"),
    [
        (None, None, 1),
        ((WHOLE,), Extent(TIME, 1, None, 3), 3),
        (((BATCH, HALF, 5),), None, 2),
        (((BATCH, HALF, 5), (BATCH, Steps(TIME, 1, 0, 3), 5)), Extent(TIME, 4, None, 4), 12),
    ],
)
def test_a_stream_takes_so_many_steps_that_all_are_whole(
    shapes: tuple[tuple[Size, ...], ...] | None, time: Extent | None, stride: int
) -> None:
    assert stride_of(trace(shapes=shapes, time=time)) == stride


@pytest.mark.parametrize(
    ("dims", "shapes", "runs"),
    [
        ((BATCH, TIME, 3), None, RunOverlap()),
        ((BATCH, "((time + 1)//2)", 3), None, RunOverlap(0, 2)),
        (("3*batch", "((time + 2)//3)", 3), ((BATCH, HALF, 5),), RunOverlap(0, 6)),
        ((BATCH, "((time - 3)//2) + 1", 3), ((BATCH, Steps(TIME, 1, -1, 2), 5),), RunOverlap(1, 2)),
        ((TIME, "(bands + 1)//2", 3), None, RunOverlap()),  # over bands, a row for each step
        ((BATCH, TIME, 3), (WHOLE, (BATCH, Steps(TIME, 1, -1, 1), 5)), None),
    ],
)
def test_how_the_runs_of_a_stream_lie(
    dims: tuple[int | str, ...], shapes: tuple[tuple[Size, ...], ...] | None, runs: RunOverlap | None
) -> None:
    assert runs_of(trace(dims, shapes=shapes)) == runs


FAILED = Case("stream", 1, 13, "chunks 13 of 1", 0.5, 0.5, False)


@pytest.mark.parametrize(
    ("traced", "behind"),
    [
        (trace(), "something in it looks along the time axis"),
        (trace(looks=("a", "b", "c")), "it looks along the time axis: a; b; c"),
        (trace(looks=("a", "b", "c", "d", "e")), "it looks along the time axis: a; b; c; and 2 more"),
        (trace(given="zeros", looks=("a",)), "it looks along the time axis: a"),
        (
            trace(given="ones", looks=("a",)),
            "it looks along the time axis: enc.rnn: starts from a state that forward hands over, every chunk anew "
            "(leave it out, or make it zeros: the file then carries the state itself); a",
        ),
    ],
)
def test_what_may_be_behind_it_is_named(traced: Trace, behind: str) -> None:
    assert why_chunks_differ(traced, FAILED) == f"fed in chunks the model answers differently: {FAILED}; {behind}"


def test_streams_that_move_together_are_another_matter() -> None:
    moved = Case("stream", 1, 13, "moved together, row 0 of 2", 0.5, 0.5, False)
    why = why_chunks_differ(trace(looks=("a",)), moved)
    assert why.startswith(f"streams that move in one call answer differently: {moved}; the module mixes or reorders")
    assert "looks along" not in why
