"""Which integers a value of a traced program can be: interval arithmetic over torch's operators.

Only used to leave a check out, so an operator that is not known here may give anything that its dtype holds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

Range = tuple[int, int]
"""Least and largest value."""

_SIZE: Range = (0, 2**62)
"""Of an axis, or a place along one."""

SAME_VALUES = frozenset(
    {
        "view",
        "reshape",
        "_unsafe_view",
        "flatten",
        "unflatten",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "permute",
        "transpose",
        "t",
        "mT",
        "numpy_T",
        "movedim",
        "swapaxes",
        "swapdims",
        "clone",
        "contiguous",
        "alias",
        "detach",
        "detach_",
        "lift_fresh_copy",
        "lift_fresh",
        "repeat",
        "flip",
        "roll",
    }
)
"""Operators that give every element of their first argument, perhaps several times or elsewhere."""

_SOME_VALUES = frozenset(
    {"select", "slice", "narrow", "index_select", "gather", "unbind", "split", "split_with_sizes", "chunk"}
)
_PLACES = frozenset({"argmax", "argmin", "argsort", "bucketize", "searchsorted", "nonzero", "sym_size", "multinomial"})
_TRUTHS = frozenset(
    {
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_not",
        "logical_xor",
        "isnan",
        "isinf",
        "isfinite",
        "any",
        "all",
        "isin",
    }
)


class ValueRanges:
    """Ranges of the values of a program.

    Args:
        given: ranges of placeholders, where they are known.
        constants: tensors of placeholders that never change: weights, buffers, lifted constants.
    """

    def __init__(self, given: Mapping[Node, Range], constants: Mapping[Node, torch.Tensor]) -> None:
        self._known: dict[Node, Range] = dict(given)
        self._constants = constants

    def of(self, value: Any) -> Range:
        """The range of a node's value, or of a plain number."""
        if isinstance(value, bool | int):
            return int(value), int(value)
        if not isinstance(value, Node):
            return -(2**63), 2**63 - 1
        if value not in self._known:
            self._known[value] = self._computed(value)
        return self._known[value]

    def _computed(self, node: Node) -> Range:
        held = held_by(node)
        if node in self._constants:
            tensor = self._constants[node]
            if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
                return held
            return int(tensor.min()), int(tensor.max())
        if node.op != "call_function":
            return held
        found = self._function(node, operator_name(node))
        # What leaves the range of the dtype wraps around, to anywhere.
        return held if found is None or found[0] < held[0] or found[1] > held[1] else found

    def _function(self, node: Node, name: str) -> Range | None:
        args = node.args
        if name in SAME_VALUES or name in _SOME_VALUES:
            return self.of(args[0])
        if name in _TRUTHS:
            return 0, 1
        if name in _PLACES:
            return _SIZE
        if name in ("to", "_to_copy", "type_as"):
            return self.of(args[0]) if is_integer(args[0]) else None
        if name in ("cat", "concat", "stack") and isinstance(args[0], list | tuple):
            return _union(*map(self.of, args[0]))
        if name in ("where", "masked_fill"):
            return _union(*map(self.of, args[1:] if name == "where" else (args[0], args[2])))
        if name == "constant_pad_nd":
            return _union(self.of(args[0]), self.of(args[2] if len(args) > 2 else 0))
        if name == "getitem":
            return self._item(node)
        rule = _ARITHMETIC.get(name)
        if rule is None or node.kwargs.get("alpha", 1) != 1:
            return None
        return rule(*map(self.of, args))

    def _item(self, node: Node) -> Range | None:
        """Of an operator with several results: the values, or the places, of largest and smallest ones."""
        source, index = node.args
        assert isinstance(source, Node)
        name = operator_name(source)
        if name in _SOME_VALUES:
            return self.of(source.args[0])
        if name in ("max", "min", "topk", "sort", "median", "mode", "kthvalue", "cummax", "cummin"):
            return _SIZE if index == 1 else self.of(source.args[0])
        return None


def held_by(node: Node) -> Range:
    """All that the dtype of a node's value holds."""
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt | int):
        return -(2**63), 2**63 - 1
    if not isinstance(value, torch.Tensor) or value.is_floating_point() or value.is_complex():
        return -(2**63), 2**63 - 1
    if value.dtype == torch.bool:
        return 0, 1
    bounds = torch.iinfo(value.dtype)
    return bounds.min, bounds.max


def is_integer(value: Any) -> bool:
    """Whether a node's value is a tensor of integers or booleans."""
    tensor = value.meta.get("val") if isinstance(value, Node) else None
    return isinstance(tensor, torch.Tensor) and not tensor.is_floating_point() and not tensor.is_complex()


def operator_name(node: Node) -> str:
    """Such as ``embedding`` for ``aten.embedding.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return getattr(node.target, "__name__", "")


def _union(*ranges: Range) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _product(a: Range, b: Range) -> Range:
    ends = [x * y for x in a for y in b]
    return min(ends), max(ends)


def _clamped(x: Range, low: Range = (-(2**63), -(2**63)), high: Range = (2**63 - 1, 2**63 - 1)) -> Range:
    return min(max(x[0], low[0]), high[1]), min(max(x[1], low[1]), high[1])


def _remainder(x: Range, divisor: Range) -> Range | None:
    """As Python's %: of the divisor's sign."""
    if divisor[0] <= 0:
        return None
    return x if x[0] >= 0 and x[1] < divisor[0] else (0, divisor[1] - 1)


def _masked(a: Range, b: Range) -> Range | None:
    """Bits of both: no more than the one that is never negative."""
    highs = [high for low, high in (a, b) if low >= 0]
    return (0, min(highs)) if highs else None


_ARITHMETIC: dict[str, Callable[..., Range | None]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "rsub": lambda a, b: (b[0] - a[1], b[1] - a[0]),
    "mul": _product,
    "neg": lambda a: (-a[1], -a[0]),
    "abs": lambda a: (0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1])), max(abs(a[0]), abs(a[1]))),
    "relu": lambda a: (max(a[0], 0), max(a[1], 0)),
    "clamp": _clamped,
    "clip": _clamped,
    "clamp_min": _clamped,
    "clamp_max": lambda a, high: (min(a[0], high[0]), min(a[1], high[1])),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "remainder": _remainder,
    "bitwise_and": _masked,
    "__and__": _masked,
    "arange": lambda *ends: (min(0, *(low for low, _ in ends)), max(high for _, high in ends)),
    "zeros_like": lambda *_: (0, 0),
    "ones_like": lambda *_: (1, 1),
    "full_like": lambda _, value: value,
    operator.add.__name__: lambda a, b: (a[0] + b[0], a[1] + b[1]),
    operator.mul.__name__: _product,
}
