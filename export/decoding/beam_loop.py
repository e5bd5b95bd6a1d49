"""Beam search as one ONNX ``Loop`` that ends early: the rules of :mod:`rnncore.runtime.text.beam`, for many rows.

Each row keeps ``beam`` sequences, each at a place of its own: the step of the model sees batch times ``beam`` rows, those of
one source side by side, best first.  Greedy decoding is a beam of 1, which finds its one heir without ranking all of them.

There is one loop for both, and only the choice in it branches: onnxruntime packs no weights for products two graphs deep,
and would pack those of two loops twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rnncore.export.decoding.beam_places import Places
from rnncore.export.decoding.loop import Start, Step
from rnncore.export.decoding.sampling_nodes import without
from rnncore.export.graph.builder import Builder

_DOUBLE, _INT64 = ir.DataType.DOUBLE, ir.DataType.INT64


@dataclass(frozen=True)
class Searched:
    """What was found, best first.

    ids: int64 [batch, beam, steps], the end token where a sequence has ended.  log_prob, score: double [batch, beam], of
    whole sequences; -inf where nothing possible was left.  Of the best one: log_probs [batch, steps], of each of its
    tokens, that of the end included, 0 beyond; next_log_probs [batch, vocabulary], what its last token was chosen from;
    states.
    """

    ids: ir.Value
    log_prob: ir.Value
    score: ir.Value
    log_probs: ir.Value
    next_log_probs: ir.Value
    states: list[ir.Value]


@dataclass(frozen=True)
class Choices:
    """What a search chooses from.

    end: the token that ends a sequence.  size: of the vocabulary.  dtype: of the log-probabilities.  rejected: tokens that
    are never chosen.
    """

    end: int
    size: int
    dtype: ir.DataType
    rejected: Sequence[int] = ()


def emit_beam_search(
    builder: Builder, places: Places, start: Start, penalty: ir.Value, step: Step, choices: Choices
) -> Searched:
    """The loop, appended to ``builder``.  At least one step is always taken, and cut off again, as in greedy decoding.

    Args:
        builder: of the graph around the loop.
        places: made by the same builder.
        start: where the search begins, for each row of the batch.
        penalty: double [batch] or [1], scores are log P / tokens^penalty.
        step: writes one step of the model, for all places, into the body.
        choices: what it chooses from.
    """
    dtype, size = choices.dtype, choices.size
    body = _Body(builder, places, start, penalty, choices)
    # At the beginning a row has one sequence, without tokens.
    token, none = places.column(start.token), places.column(builder.constant([0]))
    closed = builder.op("Or", builder.op("Not", places.first), builder.op("LessOrEqual", body.limit, none))
    log_prob = builder.op("Where", places.first, builder.constant(0, np.float64), body.impossible)
    ids = builder.op("Slice", token, *(builder.constant([n]) for n in (0, 0, 1)))
    blank = builder.op("Expand", builder.op("Cast", none, to=dtype), builder.constant([1, size]))
    carried = [token, closed, log_prob, none, ids, builder.op("Cast", ids, to=dtype), blank]
    carried += [places.spread(state) for state in start.states]
    trips = builder.op("Max", start.trips, builder.constant(1))
    results = builder.ops("Loop", [trips, builder.constant(True, bool), *carried], len(carried), body=body.write(step))
    _, _, log_prob, count, ids, log_probs, last, *states = results
    whole = [log_prob, body.score(builder, log_prob, count)]
    log_prob, score = (builder.op("Squeeze", places.apart(value), builder.constant([2])) for value in whole)
    length, zero = builder.op("Unsqueeze", start.trips, builder.constant([0])), builder.constant([0])
    return Searched(
        ids=builder.op("Slice", places.apart(ids), zero, length, builder.constant([2])),
        log_prob=log_prob,
        score=score,
        log_probs=builder.op("Slice", places.best(log_probs), zero, length, builder.constant([1])),
        next_log_probs=places.best(last),
        states=[places.best(state) for state in states],
    )


class _Body:
    """The body of the loop: read each last token, rank what each sequence may become, keep the best and what is theirs."""

    def __init__(self, outside: Builder, places: Places, start: Start, penalty: ir.Value, choices: Choices) -> None:
        self.body = body = outside.nested()
        self.size = size = choices.size
        self.dtype = dtype = choices.dtype
        self.rejected = choices.rejected
        self.end = outside.constant(choices.end)
        self.impossible = outside.constant(-np.inf, np.float64)
        self.several = outside.op("Greater", places.width, outside.constant(1))
        self.limit = places.column(start.limit)
        self.penalty = places.column(penalty)
        self.within = places.within
        # Candidates of one row lie side by side; before them those of the rows above.
        each = outside.op("Mul", places.width, outside.constant(size))
        self.before = outside.op("Unsqueeze", outside.op("Mul", places.rows, each), outside.constant([1]))
        each = outside.op("Unsqueeze", each, outside.constant([0]))
        self.by_row = outside.op("Concat", places.batch, each, axis=0)
        self.width = outside.op("Unsqueeze", places.width, outside.constant([0]))
        tokens = outside.op("Range", *(outside.constant(n) for n in (0, size, 1)))
        self.at_end = outside.op("Equal", tokens, self.end)

        self.index = body.input("i", _INT64, ())
        self.go_on = body.input("go_on", ir.DataType.BOOL, ())
        self.token = body.input("token", _INT64, (None, 1))
        self.closed = body.input("closed", ir.DataType.BOOL, (None, 1))
        self.log_prob = body.input("log_prob", _DOUBLE, (None, 1))
        self.count = body.input("count", _INT64, (None, 1))  # tokens, the end included
        self.ids = body.input("ids", _INT64, (None, None))
        self.log_probs = body.input("log_probs", dtype, (None, None))
        self.next_log_probs = body.input("next_log_probs", dtype, (None, size))
        self.states = [body.input("state", value.dtype or dtype, (None, None)) for value in start.states]

    def write(self, step: Step) -> ir.Graph:
        body, one, many = self.body, self.body.nested(), self.body.nested()
        log_probs, states = step(body, self.token, self.states)
        choices = without(body, log_probs, self.rejected, self.size, self.dtype)
        best = self._kept(many, log_probs, states, *self._best(many, choices))
        likeliest = self._kept(one, log_probs, states, self._likeliest(one, choices))
        branches = {
            "then_branch": many.subgraph([], best, "beams"),
            "else_branch": one.subgraph([], likeliest, "greedy"),
        }
        carried = body.ops("If", [self.several], len(best), **branches)
        every = body.op("ReduceMin", body.op("Cast", carried[1], to=ir.DataType.INT32), keepdims=0)
        go_on = body.op("Not", body.op("Cast", every, to=ir.DataType.BOOL))
        inputs = [self.index, self.go_on, self.token, self.closed, self.log_prob, self.count, self.ids]
        return body.subgraph([*inputs, self.log_probs, self.next_log_probs, *self.states], [go_on, *carried], "search")

    def _likeliest(self, builder: Builder, log_probs: ir.Value) -> ir.Value:
        """Token of each sequence, int64 [places, 1]; the lower id of two."""
        return builder.op("Where", self.closed, self.end, builder.op("ArgMax", log_probs, axis=1))

    def _best(self, builder: Builder, log_probs: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """What gets each place: token int64 [places, 1]; the place it comes from, int64 [places]; whether it is possible
        at all, boolean [places, 1].

        Each sequence with each token added is a candidate, or, if it has ended, as it is, at the end token.  Of equal
        scores the first is taken.
        """
        going = builder.op("Add", self.log_prob, builder.op("Cast", log_probs, to=_DOUBLE))
        staying = builder.op("Where", self.at_end, self.log_prob, self.impossible)
        candidates = builder.op("Where", self.closed, staying, going)
        scores = self.score(builder, candidates, self._counted(builder, self.count, self.closed))
        scores, best = builder.ops("TopK", [builder.op("Reshape", scores, self.by_row), self.width], 2, axis=1)
        column, size = builder.constant([-1, 1]), builder.constant(self.size)
        possible = builder.op("Greater", builder.op("Reshape", scores, column), self.impossible)
        best = builder.op("Add", best, self.before)
        parent = builder.op("Reshape", builder.op("Div", best, size), builder.constant([-1]))
        token = builder.op("Mod", builder.op("Reshape", best, column), size)
        return token, parent, builder.op("And", possible, self.within)

    def _kept(
        self,
        builder: Builder,
        log_probs: ir.Value,
        states: Sequence[ir.Value],
        token: ir.Value,
        parent: ir.Value | None = None,
        possible: ir.Value | None = None,
    ) -> list[ir.Value]:
        """All that is carried on, once it is known what goes where; without ``parent`` everything stays at its place."""

        def moved(value: ir.Value) -> ir.Value:
            return value if parent is None else builder.op("Gather", value, parent, axis=0)

        was_closed, last = moved(self.closed), moved(log_probs)
        own = builder.op("GatherElements", last, token, axis=1)
        own = builder.op("Where", was_closed, builder.constant(0, self.dtype.numpy()), own)
        log_prob = builder.op("Add", moved(self.log_prob), builder.op("Cast", own, to=_DOUBLE))
        count = self._counted(builder, moved(self.count), was_closed)
        closed = builder.op("Or", was_closed, builder.op("Equal", token, self.end))
        closed = builder.op("Or", closed, builder.op("GreaterOrEqual", count, self.limit))
        if possible is not None:
            log_prob = builder.op("Where", possible, log_prob, self.impossible)
            closed = builder.op("Or", closed, builder.op("Not", possible))
        ids = builder.op("Concat", moved(self.ids), token, axis=1)
        owns = builder.op("Concat", moved(self.log_probs), own, axis=1)
        after = [last, *map(moved, states)]
        if parent is None:  # a branch must not put out what it did not make
            after = [builder.op("Identity", value) for value in after]
        return [token, closed, log_prob, count, ids, owns, *after]

    def score(self, builder: Builder, log_prob: ir.Value, count: ir.Value) -> ir.Value:
        """Of sequences of ``count`` tokens, the end included."""
        norm = builder.op("Cast", builder.op("Max", count, builder.constant(1)), to=_DOUBLE)
        return builder.op("Div", log_prob, builder.op("Pow", norm, self.penalty))

    def _counted(self, builder: Builder, count: ir.Value, closed: ir.Value) -> ir.Value:
        return builder.op("Add", count, builder.op("Cast", builder.op("Not", closed), to=_INT64))
