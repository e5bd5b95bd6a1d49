"""What is computed with time first, between a ``Transpose`` there and one back, is computed as it lies.

A module's own step is traced for all steps at once with time first; most of what stands there does not care which of the two
first axes is which.
"""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ARITHMETIC
from rnncore.export.graph.dims import are_plain, dims_of
from rnncore.export.graph.lying import Change, Dims, Write

_REDUCED = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceSumSquare")
_BY_AXIS = ("Concat", "Split", "LayerNormalization", "LogSoftmax", "Softmax")
_BY_AXES = (*_REDUCED, "Squeeze", "Unsqueeze")


class Turns(Change):
    """The first two axes exchanged."""

    name = "lying"

    def there(self, node: ir.Node) -> bool:
        """A Transpose of them."""
        if node.op_type != "Transpose" or node.domain or "perm" not in node.attributes:
            return False
        perm = list(node.attributes["perm"].as_ints())
        rank = len(dims_of(node.outputs[0]))
        return perm[:2] == [1, 0] and perm[2:] == list(range(2, rank)) and len(perm) == rank

    def back(self, node: ir.Node) -> bool:
        """The same exchange."""
        return self.there(node)

    def lying(self, dims: Dims) -> Dims:
        """They change places."""
        return [dims[1], dims[0], *dims[2:]]

    def make(self, builder: Builder, value: ir.Value, rank: int) -> ir.Value:
        """By the same exchange."""
        return builder.op("Transpose", value, perm=[1, 0, *range(2, rank)])

    def writer(self, node: ir.Node, own: list[ir.Value], others: list[ir.Value]) -> Write | None:
        """What looks at neither of them, and what is spread over both."""
        if not all(len(dims_of(value)) > 1 for value in node.outputs):
            return None
        given = [value for value in node.inputs if value is not None]
        rank = len(dims_of(node.outputs[0]))
        kind, again = node.op_type, Builder.again
        if kind in ARITHMETIC:
            alike = all(len(dims_of(value)) == rank for value in own)
            return again if alike and all(_is_the_same_turned(value, rank) for value in others) else None
        if kind == "MatMul":
            ranks = [len(dims_of(value)) for value in given]
            by_weights = own == given[:1] and ranks[0] > 2 and ranks[1] == 2
            return again if by_weights or (len(own) == 2 and min(ranks) > 3) else None
        if given[0] not in own or (len(own) > 1 and kind != "Concat"):
            return None
        if kind == "Reshape":
            before, after = dims_of(given[0]), dims_of(node.outputs[0])
            if before[:2] != after[:2] or not are_plain(before[:2]) or not all(isinstance(d, int) for d in after[2:]):
                return None
            if 0 in after:
                return None
            return lambda builder, _, inputs: [builder.op("Reshape", inputs[0], builder.constant([0, 0, *after[2:]]))]
        if kind in _BY_AXIS:
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0 if kind == "Split" else -1
            return again if axis % rank > 1 and (kind != "Concat" or not others) else None
        if kind in _BY_AXES:
            said = given[1].const_value if len(given) > 1 else None
            axes = None if said is None else said.numpy().ravel().tolist()
            most = rank if kind == "Unsqueeze" else len(dims_of(given[0]))
            return again if axes and all(axis % most > 1 for axis in axes) else None
        if kind == "Transpose":
            perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else []
            return again if perm[:2] == [0, 1] else None
        return None


def _is_the_same_turned(value: ir.Value, rank: int) -> bool:
    """Whether ``value`` is spread over both axes, in what has so many."""
    dims = dims_of(value)
    return value.shape is not None and (len(dims) < rank - 1 or [*[1] * (rank - len(dims)), *dims][:2] == [1, 1])
