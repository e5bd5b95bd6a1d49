"""How the next token is chosen, as ONNX nodes: the same arithmetic as :mod:`rnncore.runtime.text.sampling`, for many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder

_DOUBLE = ir.DataType.DOUBLE


def without(builder: Builder, log_probs: ir.Value, rejected: Sequence[int], size: int, dtype: ir.DataType) -> ir.Value:
    """``log_probs`` [batch, size] with -inf for the tokens that must not be chosen."""
    if not rejected:
        return log_probs
    mask = np.zeros(size, bool)
    mask[list(rejected)] = True
    return builder.op("Where", builder.constant(mask, bool), builder.constant(-np.inf, dtype.numpy()), log_probs)


def greedy(builder: Builder, log_probs: ir.Value) -> ir.Value:
    """The likeliest token of each row, int64 [batch]; the lower id of two."""
    return builder.op("ArgMax", log_probs, axis=1, keepdims=0)


@dataclass(frozen=True)
class Sampler:
    """What does not change from token to token; every value but ``size`` lies outside of the loop.

    uniforms: double [batch, draws].  temperature, top_p: double [batch, 1], top_k: int64 [batch, 1], made such that
    they mean the same without a temperature of 0.  careful: boolean, all rows take the likeliest token.  filtered:
    boolean, some row leaves out tokens.  size: of the vocabulary.
    """

    uniforms: ir.Value
    temperature: ir.Value
    top_k: ir.Value
    top_p: ir.Value
    careful: ir.Value
    filtered: ir.Value
    size: int

    @classmethod
    def of(
        cls, builder: Builder, uniforms: ir.Value, temperature: ir.Value, top_k: ir.Value, top_p: ir.Value, size: int
    ) -> Sampler:
        """From graph inputs: uniforms [batch, draws]; temperature, top_k and top_p [batch] or [1]."""
        column = builder.constant([1])
        temperature, top_k, top_p = (builder.op("Unsqueeze", v, column) for v in (temperature, top_k, top_p))
        cold = builder.op("LessOrEqual", temperature, builder.constant(0, np.float64))
        careful = _all(builder, cold)
        top_k = builder.op("Where", cold, builder.constant(1), top_k)
        temperature = builder.op("Where", cold, builder.constant(1, np.float64), temperature)
        whole = builder.op(
            "And",
            _all(builder, builder.op("GreaterOrEqual", top_k, builder.constant(size))),
            _all(builder, builder.op("GreaterOrEqual", top_p, builder.constant(1, np.float64))),
        )
        return cls(uniforms, temperature, top_k, top_p, careful, builder.op("Not", whole), size)

    def choose(self, builder: Builder, log_probs: ir.Value, index: ir.Value) -> ir.Value:
        """One token a row, int64 [batch], of ``log_probs`` [batch, size], with the uniforms [:, index]."""
        first, drawn = builder.nested(), builder.nested()
        likeliest = greedy(first, log_probs)
        scores = drawn.op("Cast", log_probs, to=_DOUBLE)
        largest = drawn.op("ReduceMax", scores, drawn.constant([1]))
        scores = drawn.op("Div", drawn.op("Sub", scores, largest), self.temperature)
        plain, cut = drawn.nested(), drawn.nested()
        mass = drawn.op(
            "If",
            self.filtered,
            then_branch=cut.subgraph([], [self._kept(cut, scores)], "cut"),
            else_branch=plain.subgraph([], [plain.op("Exp", scores)], "plain"),
        )
        token = self._draw(drawn, mass, drawn.op("Gather", self.uniforms, index, axis=1))
        return builder.op(
            "If",
            self.careful,
            then_branch=first.subgraph([], [likeliest], "likeliest"),
            else_branch=drawn.subgraph([], [token], "drawn"),
        )

    def _kept(self, builder: Builder, scores: ir.Value) -> ir.Value:
        """Probabilities [batch, size], not rescaled, zero for what top_k and then top_p leave out."""
        axis, none = builder.constant([1]), builder.constant(0, np.float64)
        ordered, ids = builder.ops("TopK", [scores, builder.constant([self.size])], 2, axis=1)
        rank = builder.constant(np.arange(self.size)[None])
        likely = builder.op("Less", rank, self.top_k)
        mass = builder.op("Where", likely, builder.op("Exp", ordered), none)
        mass = builder.op("Div", mass, builder.op("ReduceSum", mass, axis))
        # The mass before each token: a token is needed as long as those above it have not reached top_p.
        before = builder.op("Sub", builder.op("CumSum", mass, builder.constant(1)), mass)
        mass = builder.op("Where", builder.op("Less", before, self.top_p), mass, none)
        blank = builder.op("Expand", none, builder.op("Shape", mass))
        return builder.op("ScatterElements", blank, ids, mass, axis=1)

    def _draw(self, builder: Builder, mass: ir.Value, uniform: ir.Value) -> ir.Value:
        """The token under which ``uniform`` [batch] falls when the masses [batch, size] are laid side by side."""
        axis = builder.constant([1])
        mass = builder.op("Div", mass, builder.op("ReduceSum", mass, axis))
        sums = builder.op("CumSum", mass, builder.constant(1))
        total = builder.op("Slice", sums, builder.constant([self.size - 1]), builder.constant([self.size]), axis)
        mark = builder.op("Mul", builder.op("Unsqueeze", uniform, axis), total)
        passed = builder.op("Cast", builder.op("LessOrEqual", sums, mark), to=ir.DataType.INT64)
        token = builder.op("ReduceSum", passed, axis, keepdims=0)
        # A uniform that rounding makes 1 belongs to the last token that is possible at all.
        possible = builder.op("Greater", mass, builder.constant(0, np.float64))
        ids = builder.op("Where", possible, builder.constant(np.arange(self.size)[None]), builder.constant(0))
        return builder.op("Min", token, builder.op("ReduceMax", ids, axis, keepdims=0))


def _all(builder: Builder, flags: ir.Value) -> ir.Value:
    """Whether every flag is true: a boolean scalar."""
    return builder.op(
        "Cast",
        builder.op("ReduceMin", builder.op("Cast", flags, to=ir.DataType.INT32), keepdims=0),
        to=ir.DataType.BOOL,
    )
