"""Whole generation as one ONNX ``Loop`` that ends early: as soon as every row has ended, or has all its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from rnncore.export.graph.builder import Builder

Step = Callable[[Builder, ir.Value, Sequence[ir.Value]], tuple[ir.Value, list[ir.Value]]]
"""(body, token int64 [batch, 1], states) -> (log-probabilities of the next token [batch, vocabulary], states)."""
Choose = Callable[[Builder, ir.Value, ir.Value], ir.Value]
"""(body, log-probabilities [batch, vocabulary], number of the step) -> token int64 [batch]."""


@dataclass(frozen=True)
class Start:
    """Where generation begins.

    token: int64 [batch], the last token that is known and not read yet.
    states: [batch, size] each, before that token is read.
    limit: int64 [batch], most tokens of each row.
    trips: int64 scalar, most steps; no row is given a token beyond.
    """

    token: ir.Value
    states: Sequence[ir.Value]
    limit: ir.Value
    trips: ir.Value


@dataclass(frozen=True)
class Generated:
    """What was generated.

    ids: int64 [batch, steps], the end token where a row has ended.  lengths: int64 [batch], tokens before the end.
    log_probs: [batch, steps], the model's for each token, that of the end included, 0 beyond.
    """

    ids: ir.Value
    lengths: ir.Value
    log_probs: ir.Value


def emit_generation(
    builder: Builder, start: Start, step: Step, choose: Choose, *, end: int, dtype: ir.DataType
) -> Generated:
    """The loop, appended to ``builder``.

    At least one step is always taken, and cut off again: onnxruntime forgets the batch axis of a loop without steps.

    Args:
        builder: of the main graph.
        start: where it begins.
        step: writes one step of the model into the body.
        choose: writes the choice of the next token into the body.
        end: the token that ends a row.
        dtype: of the log-probabilities.
    """
    zero, one = builder.constant(0), builder.constant(1)
    batch = builder.op("Shape", start.token)
    count = builder.op("Expand", zero, batch)
    finished = builder.op("LessOrEqual", start.limit, zero)

    body = _Body(builder.nested(), start, end, dtype)
    graph = body.write(step, choose)
    trips = builder.op("Max", start.trips, one)
    carried = [start.token, finished, count, *start.states]
    results = builder.ops("Loop", [trips, builder.constant(True, bool), *carried], len(carried) + 2, body=graph)
    # Reshaped, because without a step that is taken there is nothing to tell their size from.
    cut = [builder.constant([0]), builder.op("Unsqueeze", start.trips, builder.constant([0])), builder.constant([1])]
    ids, log_probs = (builder.op("Slice", builder.op("Transpose", v, perm=[1, 0]), *cut) for v in results[-2:])
    return Generated(ids, results[2], log_probs)


class _Body:
    """The body of the loop: read the last token, choose the next, see who has ended."""

    def __init__(self, body: Builder, start: Start, end: int, dtype: ir.DataType) -> None:
        self.body = body
        self.start = start
        self.dtype = dtype
        self.end = body.constant(end)
        self.index = body.input("i", ir.DataType.INT64, ())
        self.go_on = body.input("go_on", ir.DataType.BOOL, ())
        self.token = body.input("token", ir.DataType.INT64, ("batch",))
        self.finished = body.input("finished", ir.DataType.BOOL, ("batch",))
        self.count = body.input("count", ir.DataType.INT64, ("batch",))
        self.states = [body.input("state", value.dtype or dtype, ("batch", None)) for value in start.states]

    def write(self, step: Step, choose: Choose) -> ir.Graph:
        body = self.body
        axis = body.constant([1])
        log_probs, states = step(body, body.op("Unsqueeze", self.token, axis), self.states)
        chosen = choose(body, log_probs, self.index)
        token = body.op("Where", self.finished, self.end, chosen)
        own = body.op("GatherElements", log_probs, body.op("Unsqueeze", token, axis), axis=1)
        own = body.op("Where", self.finished, body.constant(0, self.dtype.numpy()), body.op("Squeeze", own, axis))
        # A row that has ended has the end for its token, so one comparison finds all of them.
        ended = body.op("Or", self.finished, body.op("Equal", token, self.end))
        count = body.op("Add", self.count, body.op("Cast", body.op("Not", ended), to=ir.DataType.INT64))
        finished = body.op("Or", ended, body.op("GreaterOrEqual", count, self.start.limit))
        some = body.op("ReduceMin", body.op("Cast", finished, to=ir.DataType.INT32), keepdims=0)
        go_on = body.op("Not", body.op("Cast", some, to=ir.DataType.BOOL))
        inputs = [self.index, self.go_on, self.token, self.finished, self.count, *self.states]
        again = body.op("Identity", token)  # a graph cannot list one value twice among its outputs
        return body.subgraph(inputs, [go_on, token, finished, count, *states, again, own], "generate")
