"""Matrix products of a step: the gradient of a weight leaves the loop, and a product with a weight is cut in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from rnncore.layers.kernels.compiled.trace import StepGraph, aten

_LEAST_WIDTH = 128
"""Columns of a part: narrower ones gain nothing."""


@dataclass(frozen=True)
class Factors:
    """A step adds ``rows^T columns`` to the gradient of a weight, transposed where said so: [batch, n], [batch, m]."""

    rows: fx.Node
    columns: fx.Node
    transposed: bool


def as_factors(gradient: fx.Node, batch: int) -> list[Factors] | None:
    """The products of ``batch`` rows whose sum is ``gradient``, or None when it is something else.

    A sum over steps of ``rows^T columns`` is one product of all rows and all columns, one below the other.
    """
    node, turned = _untransposed(gradient)
    if node.target is aten.add.Tensor and not node.kwargs and all(isinstance(arg, fx.Node) for arg in node.args):
        first, second = (as_factors(term, batch) for term in node.args)  # type: ignore[arg-type]
        if first is None or second is None:
            return None
        return [Factors(f.rows, f.columns, f.transposed ^ turned) for f in (*first, *second)]
    if node.target is not aten.mm.default:
        return None
    rows, odd = _untransposed(node.args[0])  # type: ignore[arg-type]
    # Other products, such as those of two weights, would be kept for every step.
    return [Factors(rows, node.args[1], turned)] if odd and rows.meta["val"].shape[0] == batch else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class CutWeight:
    """The weight ``tensors[index]``, transposed or not, [k, n], as ``parts`` matrices side by side, [parts, k, n / parts]."""

    index: int
    transposed: bool
    parts: int

    def of(self, tensors: list[Tensor]) -> Tensor:
        """The parts of the weight as it is now."""
        weight = tensors[self.index]
        matrix = weight.t() if self.transposed else weight
        return matrix.view(matrix.shape[0], self.parts, -1).transpose(0, 1).contiguous()


def cut_products(step: StepGraph) -> dict[fx.Node, CutWeight]:
    """Replace products with a weight by one product for each part of it; returns the new inputs and what they are.

    With few rows, as a batch has, two threads share one product badly (measured on two cores, 32 rows and 256 units:
    190 us against 120).
    """
    inputs: dict[CutWeight, fx.Node] = {}
    for node in list(step.graph.nodes):
        bias, rows, matrix = _operands(node)
        if matrix is None or node.meta["val"].device.type != "cpu":
            continue
        weight, transposed = _untransposed(matrix)
        width = node.meta["val"].shape[1]
        parts = next((parts for parts in (4, 2) if width % parts == 0 and width // parts >= _LEAST_WIDTH), 1)
        if weight not in step.tensors or parts == 1:
            continue
        cut = CutWeight(step.tensors.index(weight), transposed, parts)
        if cut not in inputs:
            with step.graph.inserting_after(step.tensors[-1]):
                inputs[cut] = step.graph.placeholder(f"cut_{len(inputs)}")
        node.replace_all_uses_with(_in_parts(step.graph, node, rows, inputs[cut], bias, parts))
        step.graph.erase_node(node)
    return {node: cut for cut, node in inputs.items()}


def _operands(node: fx.Node) -> tuple[Any, Any, Any]:
    """bias, rows and matrix of ``bias + rows @ matrix``; bias None without one, all None where ``node`` is something else."""
    if node.target is aten.mm.default:
        return None, *node.args  # type: ignore[return-value]
    if node.target is aten.addmm.default and len(node.args) == 3 and not node.kwargs:
        return node.args
    return None, None, None


def _in_parts(graph: fx.Graph, node: fx.Node, rows: fx.Node, cut: fx.Node, bias: fx.Node | None, parts: int) -> fx.Node:
    """``bias + rows @ matrix`` where ``cut`` has the matrix in parts."""
    batch, width = node.meta["val"].shape
    with graph.inserting_before(node):
        repeated = graph.call_function(aten.expand.default, (rows, [parts, batch, rows.meta["val"].shape[1]]))
        product = graph.call_function(aten.bmm.default, (repeated, cut))
        beside = graph.call_function(aten.permute.default, (product, [1, 0, 2]))
        whole = graph.call_function(aten.reshape.default, (beside, [batch, width]))
        if bias is not None:
            whole = graph.call_function(aten.add.Tensor, (bias, whole))
    whole.meta = dict(node.meta)
    return whole


def _untransposed(node: fx.Node) -> tuple[fx.Node, bool]:
    """What lies under the transpositions of ``node``, and whether their number is odd."""
    odd = False
    while node.target is aten.t.default:
        node, odd = node.args[0], not odd  # type: ignore[assignment]
    return node, odd


def add_product(total: Tensor | None, rows: Tensor, columns: Tensor, *, transposed: bool) -> Tensor:
    """Add the products of rows [time, batch, n] and columns [time, batch, m] to ``total``, None for nothing.

    [n, m], or [m, n] when transposed.
    """
    left, right = (columns, rows) if transposed else (rows, columns)
    left, right = left.flatten(0, 1).t(), right.flatten(0, 1)
    return torch.mm(left, right) if total is None else total.addmm_(left, right)
