"""Memories that fade and are written to by outer products, read by queries: all steps of a chunk in matrix products.

``S[t] = a[t] S[t-1] + u[t] w[t]'`` with one factor a[t] >= 0 for each head, and ``y[t] = q[t]' S[t]``, is what Mamba-2 (Dao & Gu
2024, "Transformers are SSMs", section 6), mLSTM and gated linear attention compute.  Step by step the whole memory is passed
over three times.  Of a chunk that begins with S,

    y[t] = d[t, 0] q[t]' S + sum over s <= t of d[t, s] (q[t]' u[s]) w[s]',    d[t, s] = a[s+1] ... a[t],

where only products of matrices are left, and a loop from chunk to chunk.  The factors d follow from running sums of
logarithms, in float64, as their differences are what counts.  A memory of vectors has no w, and may be read as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.views import VIEWS
from rnncore.export.lowering.linear_steps import LINEAR, Line, Nodes
from rnncore.export.lowering.steps import StepGraph

FEWEST_NUMBERS = 8
"""In the memory of a head, from which on chunks pay: the factors d of a step are as many as a chunk has steps."""
_MOST_UNFACTORED = 512
"""Numbers of a memory that is written to by no product: a chunk multiplies each of them as often as it has steps."""


@dataclass(frozen=True)
class Memory:
    """A state [batch, *heads, *inner] that fades by ``a`` (None: not at all) and is written to.

    rows, columns: what is multiplied to u [batch, *heads, n, 1] and w [batch, *heads, 1, m]; no columns for vectors, whose
    ``inner`` numbers are n, and for small matrices that are taken for such.  scales: what both are multiplied by,
    [batch, *heads, 1, 1].
    """

    a: ir.Value | None
    heads: list[int]
    inner: list[int]
    rows: list[ir.Value]
    columns: list[ir.Value]
    scales: list[ir.Value]

    @property
    def unfactored(self) -> bool:
        """Whether it is a matrix that is written to by no product of a column and a row."""
        return not self.columns and len([size for size in self.inner if size != 1]) > 1

    @classmethod
    def of(cls, told: ir.Value, state: ir.Value, nodes: Nodes) -> Memory | None:
        """How ``told`` is made of ``state``; None for any other way."""
        line = Line.of(told, state, nodes)
        dims = [size for size in dims_of(state)[1:] if isinstance(size, int)]
        if line is None or line.ring != LINEAR or not len(dims_of(line.b)) == len(dims_of(state)) == len(dims) + 1:
            return None
        heads = _heads(line.a, dims)
        if heads is None or prod(dims[heads:]) < FEWEST_NUMBERS:
            return None
        inner = dims[heads:]
        found = cls(line.a, dims[:heads], inner, [], [], [])
        if len([size for size in inner if size != 1]) < 2:
            found.rows.append(line.b)
            return found if dims_of(line.b)[1:] == dims else None
        if len(inner) == 2 and found._factor(line.b, nodes) and found.rows and found.columns:
            return found
        # All numbers of a head fade alike, whatever is written to them: they may be one vector.
        whole = dims_of(line.b)[1:] == dims and prod(dims) <= _MOST_UNFACTORED
        return cls(line.a, dims[:heads], inner, [line.b], [], []) if whole else None

    def _factor(self, value: ir.Value, nodes: Nodes) -> bool:
        """Take ``value`` apart into what is multiplied to u, to w, or to both; False if it is more than such a product."""
        dims = dims_of(value)
        if len(dims) != len(self.heads) + 3:
            return False
        n, m = dims[-2:]
        if n == 1 or m == 1:
            (self.scales if n == m else self.rows if m == 1 else self.columns).append(value)
            return True
        node = nodes.maker.get(value)
        factors = [] if node is None or node.op_type != "Mul" else [own for own in node.inputs if own is not None]
        return len(factors) == 2 and all(self._factor(own, nodes) for own in factors)


def _heads(a: ir.Value | None, dims: Sequence[int]) -> int | None:
    """How many axes of a state are those of heads: all but two, and those along which ``a`` differs; None if nobody knows."""
    least = max(0, len(dims) - 2)
    if a is None:
        return least
    own = dims_of(a)
    if a.shape is None or len(own) > len(dims) + 1:
        return None
    own = [*[1] * len(dims), *own][-len(dims) :] if len(own) <= len(dims) else own[1:]
    return max([least, *(axis + 1 for axis, size in enumerate(own) if size != 1)])


@dataclass(frozen=True)
class Reading:
    """A result of a step: of the memory ``number`` as it is, or its product with ``query``.

    by_rows: the query [batch, *heads, 1, n] is multiplied to what u wrote, else [batch, *heads, m, 1] or [.., 1, m] to w.
    """

    number: int
    query: ir.Value | None = None
    by_rows: bool = False


@dataclass(frozen=True)
class Memories:
    """What a step is: some memories, and what is read of each."""

    step: StepGraph
    memories: list[Memory]
    readings: list[Reading]

    @classmethod
    def of(cls, step: StepGraph, results: int) -> Memories | None:
        """Whether all that ``step`` does is to carry and to read memories; None if not."""
        nodes = Nodes.of(step)
        states, told = step.inputs[step.reads :], step.outputs[results:]
        memories = [Memory.of(after, state, nodes) for after, state in zip(told, states, strict=True)]
        found = [memory for memory in memories if memory is not None]
        if (
            not step.reads
            or len(found) < len(memories)
            or any(value.dtype != ir.DataType.FLOAT for value in step.inputs)
        ):
            return None
        readings = [_reading(value, told, found, nodes) for value in step.outputs[:results]]
        known = [reading for reading in readings if reading is not None]
        return cls(step, found, known) if len(known) == len(readings) else None

    @property
    def wanted(self) -> list[ir.Value]:
        """All that memories and readings are made of, once."""
        values = [value for m in self.memories for value in (m.a, *m.rows, *m.columns, *m.scales)]
        return list(dict.fromkeys(v for v in (*values, *(r.query for r in self.readings)) if v is not None))


def _reading(value: ir.Value, told: Sequence[ir.Value], memories: Sequence[Memory], nodes: Nodes) -> Reading | None:
    while value not in told and (node := nodes.maker.get(value)) is not None and node.op_type in VIEWS:
        value = node.inputs[0]  # type: ignore[assignment]
    if value in told:
        number = told.index(value)
        return None if memories[number].columns else Reading(number)
    node = nodes.maker.get(value)
    if node is None or None in node.inputs:
        return None
    axis = _summed(node)
    if axis is not None:
        product = nodes.maker.get(node.inputs[0])  # type: ignore[arg-type]
        if product is None or product.op_type != "Mul":
            return None
        pairs = [(product.inputs[0], product.inputs[1]), (product.inputs[1], product.inputs[0])]
        found = [(own, query) for own, query in pairs if own in told]
        wanted = [(1, None), (None, 1)][axis == -2]
    elif node.op_type == "MatMul":
        left, right = node.inputs
        found = [(left, right)] if left in told else [(right, left)] if right in told else []
        axis, wanted = (-1, (None, 1)) if left in told else (-2, (1, None))
    else:
        return None
    if not found or found[0][1] is None or not nodes.apart(found[0][1]):
        return None
    number, query = told.index(found[0][0]), found[0][1]
    memory = memories[number]
    size = memory.inner[axis]
    dims = dims_of(query)
    expected = [size if part is None else part for part in wanted]
    alike = len(dims) == len(memory.heads) + 3 and dims[-2:] == expected
    return Reading(number, query, axis == -2) if memory.columns and alike else None


def _summed(node: ir.Node) -> int | None:
    """The axis, -1 or -2, along which ``node`` sums up; None if it does not, or along others."""
    if (
        node.op_type != "ReduceSum"
        or len(node.inputs) < 2
        or node.inputs[1] is None
        or node.inputs[1].const_value is None
    ):
        return None
    axes = node.inputs[1].const_value.numpy().ravel().tolist()
    rank = len(dims_of(node.inputs[0]))
    axis = axes[0] - rank if len(axes) == 1 and axes[0] >= 0 else axes[0] if len(axes) == 1 else 0
    return axis if axis in (-1, -2) else None
