"""A graph cut along its last axis: a product for each gate, in place of one product for all and a ``Split`` behind it.

A small node costs onnxruntime some 0.4 us, a ``Split`` in four five times as much, and a product takes the activation
right behind it along for nothing.  So the step of an LSTM is faster as four products of a quarter of the width each: one
row of 64 units takes 8.8 us in place of 10.2 (``Scan``, onnxruntime 1.32, Zen 3).

A ``Loop`` has to look up z for each product, which costs 0.7 us.  There the three gates with a sigmoid are better one
product, with a ``Split`` in three behind it: 9.1 us for such a row in place of 10.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rnncore.export.gate_splitting.merged_gates import MergedGates, find_merged_gates
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import (
    ELEMENTWISE,
    ColumnRange,
    column_count,
    disjoint,
    part_or_whole,
    shifted,
    split,
    split_sizes,
)

WeightSlices = dict[tuple[ir.Value, int, ColumnRange], ir.Value]
"""What stands for a part of a constant: by constant, axis and part."""
_Made = dict[tuple[ir.Value, ColumnRange | None], ir.Value]  # what stands for a value, or for a part of it


@dataclass
class _Operand:
    """An input of a node that can be cut: ``axis`` is where it is cut along with the output, None if it stays whole."""

    value: ir.Value | None
    axis: int | None


class GateSplit:
    """Which columns of each value a graph needs, if every ``Split`` is done as early as possible.

    Args:
        nodes: the graph, in order.  Values that none of them makes are its inputs, or constants.
        wanted: what is wanted of its results: parts in ascending order, or none for a value as a whole.
        source: the one input that may come in parts; None if there is none.
        constants: values that do not change from call to call, besides those that hold a tensor.
        join: leave three parts or more together where they have the same activation.
    """

    def __init__(
        self,
        nodes: Sequence[ir.Node],
        wanted: Sequence[tuple[ir.Value, Sequence[ColumnRange]]],
        source: ir.Value | None,
        constants: Collection[ir.Value],
        *,
        join: bool = False,
    ) -> None:
        self._nodes = nodes
        self._wanted = wanted
        self._source = source
        self._own = {value for node in nodes for value in node.outputs}
        self._constants = constants
        self._asked: dict[ir.Value, set[ColumnRange | None]] = {}
        self._cut: dict[ir.Node, list[_Operand]] = {}
        found = find_merged_gates(nodes) if join else {}
        self._merged_gates = {node: merged for node, merged in found.items() if self._cuttable(merged.source)}
        for value, parts in wanted:
            for part in self._whole_or_parts(value, parts):
                self._ask(value, part)
        for node in reversed(nodes):
            self._plan(node)
        self.parts: list[ColumnRange] = [] if source is None else self._parts(source)
        """The parts of the source that are needed; empty if all of it is."""
        self._constant_parts = self._cuts_of_constants()
        whole = source is not None and None in self._asked.get(source, ())
        all_parts = [*map(self._parts, self._asked), *self._constant_parts.values()]
        self.clean = not (whole and self.parts) and all(map(disjoint, all_parts))
        """Whether the source is not needed as a whole as well, and no two parts of anything overlap."""

    def emit_pieces(self, builder: Builder, known: Mapping[ir.Value, ir.Value]) -> WeightSlices:
        """Write the parts of the constants; ``known`` is as for :meth:`emit`."""
        pieces: WeightSlices = {}
        for (value, axis), parts in self._constant_parts.items():
            width = column_count(value, axis)
            assert width is not None
            for part, piece in zip(parts, split(builder, known[value], parts, width, axis), strict=True):
                pieces[value, axis, part] = piece
        return pieces

    def cuts(self, value: ir.Value) -> bool:
        """Whether ``value`` is a constant that is cut."""
        return any(value is constant for constant, _ in self._constant_parts)

    def emit(
        self, builder: Builder, known: Mapping[ir.Value, ir.Value], parts: Sequence[ir.Value], pieces: WeightSlices
    ) -> list[ir.Value]:
        """Write the graph, and return all that is wanted, in order.

        known: what stands for inputs and for constants as a whole.
        parts: what stands for :attr:`parts` of the source.
        pieces: what :meth:`emit_pieces` gave.
        """
        made: _Made = {(value, None): new for value, new in known.items()}
        if self._source is not None:
            made.update({(self._source, part): new for part, new in zip(self.parts, parts, strict=True)})
        for value, new in known.items():
            self._split_up(builder, value, new, made)
        for node in self._nodes:
            if node.op_type == "Identity":
                for asked in self._asked.get(node.outputs[0], ()):
                    assert node.inputs[0] is not None
                    made[node.outputs[0], asked] = self._found(node.inputs[0], asked, made)
            elif node in self._merged_gates:
                self._emit_merged(builder, node, made)
            elif node in self._cut:
                for part in self._parts(node.outputs[0]):
                    inputs = [self._piece(operand, part, made, pieces) for operand in self._cut[node]]
                    made[node.outputs[0], part] = builder.append(node.op_type, inputs, node.attributes.values(), 1)[0]
            elif split_sizes(node) is None and any(value in self._asked for value in node.outputs):
                inputs = [None if value is None else self._found(value, None, made) for value in node.inputs]
                outputs = builder.append(node.op_type, inputs, node.attributes.values(), len(node.outputs), node.domain)
                for value, new in zip(node.outputs, outputs, strict=True):
                    made[value, None] = new
                    self._split_up(builder, value, new, made)
        return [
            self._found(value, part, made)
            for value, parts in self._wanted
            for part in self._whole_or_parts(value, parts)
        ]

    # ------------------------------------------------------------------------------------------------------ planning

    @staticmethod
    def _whole_or_parts(value: ir.Value, parts: Sequence[ColumnRange]) -> list[ColumnRange | None]:
        """``parts``, where None stands for all of ``value``."""
        return [part_or_whole(value, part) for part in parts] or [None]

    def _ask(self, value: ir.Value | None, part: ColumnRange | None) -> None:
        if value is not None and not self._constant(value):
            self._asked.setdefault(value, set()).add(part_or_whole(value, part))

    def _parts(self, value: ir.Value) -> list[ColumnRange]:
        """The parts of ``value`` that are needed, in order."""
        return sorted(part for part in self._asked.get(value, ()) if part is not None)

    def _constant(self, value: ir.Value) -> bool:
        return value.const_value is not None or value in self._constants

    def _plan(self, node: ir.Node) -> None:
        if node.op_type == "Identity":
            for part in self._asked.get(node.outputs[0], ()):
                self._ask(node.inputs[0], part)
            return
        sizes = split_sizes(node)
        if sizes is not None:
            for value, start, size in zip(node.outputs, np.cumsum([0, *sizes]).tolist(), sizes, strict=False):
                for part in self._asked.get(value, ()):
                    self._ask(node.inputs[0], shifted(part or ((0, size),), start))
            return
        if node in self._merged_gates:
            # At the first of its nodes all is known that is asked of them.
            if node is self._merged_gates[node].first:
                self._plan_merged(self._merged_gates[node])
            return
        self._plan_alone(node)

    def _plan_alone(self, node: ir.Node) -> None:
        parts = self._parts(node.outputs[0])
        in_parts = parts and None not in self._asked[node.outputs[0]] and disjoint(parts)
        operands = self._operands(node) if in_parts and self._cuttable(node.outputs[0]) else None
        if operands is not None:
            self._cut[node] = operands
            for operand in operands:
                for part in parts if operand.axis is not None else [None]:
                    self._ask(operand.value, part)
        elif any(value in self._asked for value in node.outputs):
            for needed in node.inputs:
                self._ask(needed, None)

    def _plan_merged(self, merged: MergedGates) -> None:
        if all(self._asked.get(node.outputs[0]) == {None} for node in merged.nodes):
            self._ask(merged.source, merged.part)
            return
        for node in merged.nodes:  # the Split comes before them: it is still to be planned
            del self._merged_gates[node]
            self._plan_alone(node)

    def _cuttable(self, value: ir.Value) -> bool:
        """Whether a part of ``value`` can be computed from parts, down to the source and to constants."""
        if value is self._source or self._constant(value):
            return True
        node = value.producer()
        if node is None or value not in self._own:
            return False
        if split_sizes(node) is not None:
            source = node.inputs[0]
            return source is not None and self._cuttable(source)
        operands = self._operands(node)
        return operands is not None and all(
            operand.axis is None or operand.value is None or self._cuttable(operand.value) for operand in operands
        )

    def _operands(self, node: ir.Node) -> list[_Operand] | None:
        """How the inputs of ``node`` are cut along with its output; None if it cannot be."""
        if node.domain or len(node.outputs) != 1:
            return None
        if node.op_type in ("MatMul", "Gemm"):
            return self._factors(node)
        width = column_count(node.outputs[0])
        if node.op_type not in ELEMENTWISE or width is None:
            return None
        operands = []
        for value in node.inputs:
            if value is None or column_count(value) in (1, 0):
                operands.append(_Operand(value, None))
            elif column_count(value) == width:
                operands.append(_Operand(value, -1))
            else:
                return None
        return operands

    def _factors(self, node: ir.Node) -> list[_Operand] | None:
        x, weight, *rest = node.inputs
        transposed = "transB" in node.attributes and node.attributes["transB"].as_int() != 0
        if weight is None or not self._constant(weight) or weight.shape is None or len(weight.shape) != 2:
            return None
        width = column_count(weight, 0 if transposed else -1)
        operands = [_Operand(x, None), _Operand(weight, 0 if transposed else -1)]
        for value in rest:
            if value is not None and column_count(value) not in (0, 1, width):
                return None
            operands.append(_Operand(value, -1 if value is not None and column_count(value) == width else None))
        return None if width is None else operands

    def _cuts_of_constants(self) -> dict[tuple[ir.Value, int], list[ColumnRange]]:
        cuts: dict[tuple[ir.Value, int], set[ColumnRange]] = {}
        for node, operands in self._cut.items():
            for operand in operands:
                if operand.value is not None and operand.axis is not None and self._constant(operand.value):
                    cuts.setdefault((operand.value, operand.axis), set()).update(self._parts(node.outputs[0]))
        return {key: sorted(parts) for key, parts in cuts.items()}

    # ------------------------------------------------------------------------------------------------------- writing

    def _piece(self, operand: _Operand, part: ColumnRange, made: _Made, pieces: WeightSlices) -> ir.Value | None:
        if operand.value is None:
            return None
        if operand.axis is None:
            return self._found(operand.value, None, made)
        if self._constant(operand.value):
            return pieces[operand.value, operand.axis, part]
        return self._found(operand.value, part, made)

    def _found(self, value: ir.Value, part: ColumnRange | None, made: _Made) -> ir.Value:
        """Columns ``part`` of ``value``, or all of it, through every Split above it."""
        while (value, part) not in made:
            node = value.producer()
            sizes = split_sizes(node) if node is not None else None
            assert node is not None and sizes is not None
            at, above = node.outputs.index(value), node.inputs[0]
            assert above is not None
            part = part_or_whole(above, shifted(part or ((0, sizes[at]),), sum(sizes[:at])))
            value = above
        return made[value, part]

    def _emit_merged(self, builder: Builder, node: ir.Node, made: _Made) -> None:
        """All nodes of the joint that ``node`` is the first of, as one."""
        merged = self._merged_gates[node]
        if node is not merged.first:
            return
        x = self._found(merged.source, part_or_whole(merged.source, merged.part), made)
        (y,) = builder.append(node.op_type, [x], node.attributes.values(), 1)
        sizes = [last - first for first, last in sorted(merged.nodes.values())]
        pieces = builder.ops("Split", [y, builder.constant(sizes)], len(sizes), axis=-1)
        made.update({(n.outputs[0], None): piece for n, piece in zip(merged.ordered, pieces, strict=True)})

    def _split_up(self, builder: Builder, value: ir.Value, new: ir.Value, made: _Made) -> None:
        """Write the Split that could not be done any earlier."""
        parts, width = self._parts(value), column_count(value)
        if parts and width is not None:
            for part, piece in zip(parts, split(builder, new, parts, width, -1), strict=True):
                made[value, part] = piece
