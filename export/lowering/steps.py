"""The step of each cell as a small ONNX graph: no loop inside, so nothing can be unrolled or frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.cells.base import state_shape
from rnncore.export.gate_splitting.gate_split import GateSplit, WeightSlices
from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.simpler_steps import simplify_step
from rnncore.export.tracing.recorder import Call
from rnncore.export.tracing.rolling.cell import RolledCell
from rnncore.export.tracing.torch_onnx import to_onnx
from rnncore.runtime.errors import ExportError

BATCH = 3  # of the example; any number but 0 and 1, which torch.export takes for constants


@dataclass
class StepGraph:
    """``(*reads, *state) -> (*results, *state)`` in ONNX: of a cell, ``(z_t, *state) -> (y_t, *state)``.

    reads: so many of the inputs are read at each step.  ``hoisted`` nodes depend on weights only; they run once, outside
    the loop.
    """

    owner: str
    inputs: list[ir.Value]
    outputs: list[ir.Value]
    hoisted: list[ir.Node]
    nodes: list[ir.Node]
    reads: int = 1
    _columns: dict[bool, GateSplit | None] = field(default_factory=dict)

    def columns(self, *, join: bool) -> GateSplit | None:
        """The step by parts of z, such as one for each gate; None if it needs z as a whole.

        join: as for :class:`GateSplit`.
        """
        if join not in self._columns:
            constants = {value for node in self.hoisted for value in node.outputs}
            wanted = [(value, ()) for value in self.outputs]
            columns = GateSplit(self.nodes, wanted, self.inputs[0], constants, join=join)
            self._columns[join] = columns if columns.clean and len(columns.parts) > 1 else None
        return self._columns[join]

    def emit(
        self,
        builder: Builder,
        z: Sequence[ir.Value],
        states: Sequence[ir.Value],
        weights: Mapping[ir.Value, ir.Value],
        columns: GateSplit | None,
        pieces: WeightSlices,
    ) -> list[ir.Value]:
        """Write one step into ``builder``.

        z: what is read, or the parts of ``columns`` of it.
        weights: what :meth:`emit_hoisted` or :meth:`emit_copies` gave.
        pieces: what :meth:`GateSplit.emit_pieces` gave; unused with z as a whole.
        """
        known = {**weights, **dict(zip(self.inputs[self.reads :], states, strict=True))}
        if columns is not None:
            return columns.emit(builder, known, z, pieces)
        known.update(zip(self.inputs[: self.reads], z, strict=True))
        self.write(self.nodes, builder, known)
        return [self.found(value, builder, known) for value in self.outputs]

    def write(self, nodes: Sequence[ir.Node], builder: Builder, known: dict[ir.Value, ir.Value]) -> None:
        """Write some of the nodes into ``builder``, and add what they make to ``known``."""
        for node in nodes:
            inputs = [None if value is None else self.found(value, builder, known) for value in node.inputs]
            if node.op_type == "Identity":
                known[node.outputs[0]] = inputs[0]  # type: ignore[assignment]
                continue
            outputs = builder.append(node.op_type, inputs, node.attributes.values(), len(node.outputs), node.domain)
            known.update(zip(node.outputs, outputs, strict=True))

    def found(self, value: ir.Value, builder: Builder, known: Mapping[ir.Value, ir.Value]) -> ir.Value:
        """What stands for ``value``: a known one, or a weight."""
        return known[value] if value in known else _weight(value, builder, self.owner)

    def matrices(self) -> list[ir.Value]:
        """Each weight matrix that some matrix product has on its right."""
        rights = dict.fromkeys(n.inputs[1] for n in self.nodes if n.op_type in ("MatMul", "Gemm"))
        constant = {value for node in self.hoisted for value in node.outputs}
        return [
            value
            for value in rights
            if value is not None
            and (value.const_value is not None or value in constant)
            and value.shape is not None
            and len(value.shape) == 2
        ]

    def emit_hoisted(self, builder: Builder) -> dict[ir.Value, ir.Value]:
        """Write what depends on weights only; returns where each such value, and each weight, now is."""
        used = (*(value for node in self.nodes for value in node.inputs), *self.outputs)
        mapping = {v: _weight(v, builder, self.owner) for v in used if v is not None and v.const_value is not None}
        self.write(self.hoisted, builder, mapping)
        return mapping

    def emit_copies(
        self, builder: Builder, weights: Mapping[ir.Value, ir.Value], columns: GateSplit | None
    ) -> dict[ir.Value, ir.Value]:
        """``weights``, with copies of the matrices that are not cut."""
        whole = [matrix for matrix in self.matrices() if columns is None or not columns.cuts(matrix)]
        return {**weights, **{value: builder.op("Flatten", weights[value], axis=1) for value in whole}}


def _weight(value: ir.Value, builder: Builder, owner: str) -> ir.Value:
    if value.const_value is None:
        raise ExportError(f"the step of {owner} uses a value that is neither its input nor a weight: {value.name}")
    return initializer(builder.main, f"{owner}.{value.name}", value.const_value)


class _Steps(nn.Module):
    """The steps of several cells side by side, so that one call exports them all."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self._typed = tuple(cells)

    def forward(self, arguments: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        results = []
        for cell, (z, *state) in zip(self._typed, arguments, strict=True):
            result = cell.step(z, *state)
            if not isinstance(cell, RolledCell):  # whose sizes may be free, and to compare them would fix them
                _check_step(cell, result, state)
            # A result that is also an argument or another result would be one ONNX value with two roles.
            results.append(tuple(r + 0 if any(r is a for a in (z, *state)) else r for r in result))
        return results


def _check_step(cell: Cell, result: tuple[Tensor, ...], state: Sequence[Tensor]) -> None:
    name = type(cell).__name__
    if not isinstance(result, tuple) or len(result) != 1 + len(state):
        raise ExportError(
            f"{name}.step must return (y, {', '.join(cell.state_sizes)}), a tuple of {1 + len(state)} tensors"
        )
    shapes = [(cell.output_size,), *map(state_shape, cell.state_sizes.values())]
    for what, tensor, shape in zip(("y", *cell.state_sizes), result, shapes, strict=True):
        if tuple(tensor.shape[1:]) != shape:
            given, wanted = (", ".join(map(str, ("batch", *sizes))) for sizes in (tensor.shape[1:], shape))
            raise ExportError(f"{name}.step gives {what} of shape [{given}], expected [{wanted}]")


def export_steps(calls: Sequence[Call]) -> dict[Cell, StepGraph]:
    """The step graph of every distinct cell among ``calls``, from one call of torch's exporter (1.2 s, any size)."""
    first = {call.cell: call for call in reversed(calls)}
    cells = list(first)
    arguments = [_example(cell, first[cell].z_size) for cell in cells]
    dynamic = ([_free_axes(cell) for cell in cells],)
    model = to_onnx(_Steps(cells).eval(), (arguments,), dynamic, what="the steps of the cells")
    simplify_step(model.graph)
    inputs, outputs = list(model.graph.inputs), list(model.graph.outputs)
    graphs = {}
    for cell, args in zip(cells, arguments, strict=True):
        mine, inputs = inputs[: len(args)], inputs[len(args) :]
        count = 1 + len(cell.state_sizes)
        results, outputs = outputs[:count], outputs[count:]
        graphs[cell] = _cut(first[cell].owner, mine, results, list(model.graph))
    return graphs


def _example(cell: Cell, z_size: int) -> tuple[Tensor, ...]:
    parameter = next(cell.parameters(), None)
    like = torch.zeros(1) if parameter is None else parameter.detach()
    if isinstance(cell, RolledCell):  # which may have no parameters, or compute in other floats than they are
        like = like.to(cell.dtype)
    own = tuple(like.new_zeros(BATCH, *state_shape(size)) for size in (z_size, *cell.state_sizes.values()))
    return own + tuple(value for value, _ in _captured(cell))


def _captured(cell: Cell) -> Sequence[tuple[Tensor, tuple[int, ...]]]:
    """What the step reads from outside as a whole: examples, and which of their axes are free."""
    return cell.captured_examples if isinstance(cell, RolledCell) else ()


def _free_axes(cell: Cell) -> tuple[dict[int, Any], ...]:
    free = cell.free_state_axes if isinstance(cell, RolledCell) else [()] * len(cell.state_sizes)
    own = tuple(dict.fromkeys((0, *axes), torch.export.Dim.DYNAMIC) for axes in [(), *free])
    return own + tuple(dict.fromkeys(free, torch.export.Dim.DYNAMIC) for _, free in _captured(cell))


def _cut(owner: str, inputs: list[ir.Value], outputs: list[ir.Value], order: list[ir.Node]) -> StepGraph:
    """The nodes that ``outputs`` need, split by whether they depend on ``inputs``; identities dropped."""
    needed: set[ir.Node] = set()
    todo = [value.producer() for value in outputs]
    while todo:
        node = todo.pop()
        if node is not None and node not in needed:
            needed.add(node)
            todo.extend(value.producer() for value in node.inputs if value is not None)
    varying = set(inputs)
    hoisted, nodes = [], []
    for node in (n for n in order if n in needed):
        if any(isinstance(a.value, ir.Graph) for a in node.attributes.values()):
            raise ExportError(f"the step of {owner} contains control flow ({node.op_type}); write it with torch.where")
        if varying.intersection(v for v in node.inputs if v is not None):
            varying.update(node.outputs)
            nodes.append(node)
        else:
            hoisted.append(node)
    return StepGraph(owner, inputs, outputs, hoisted, nodes)
