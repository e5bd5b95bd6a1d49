"""Operations of one iteration on the values of all iterations, [turns, ...]: what ``torch.vmap`` does, in plain operations.

What vmap has touched torch.onnx cannot write but after tracing the whole program a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Rule = Callable[[Sequence[Any]], Tensor | None]


def over_all(target: Any, args: Sequence[Any], named: Mapping[str, Any], moves: Sequence[bool]) -> Tensor | None:
    """``target`` for all iterations at once; None if no plain operations are known for it.

    moves: which of ``args`` have a value for each iteration, along their first axis; none of ``named`` do.
    """
    moving = [value for value, own in zip(args, moves, strict=True) if own]
    if not moving or any(not isinstance(value, Tensor) or value.dim() < 2 for value in moving):
        return None  # lists; single numbers take part in choosing a dtype in a way of their own
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return target(*_aligned(args, moves), **named)
    if target in _PRODUCTS and not named:
        return _product(target, args, moves)
    if list(moves) != [True] + [False] * (len(args) - 1):
        return None
    if target is aten._to_copy.default or target is aten.clone.default:
        return target(*args, **named)
    rule = _RULES.get(target)
    return None if rule is None or named else rule(args)


PLACED = (aten.scatter.value, aten.scatter.src, aten.gather.default)
"""Operations at places along an axis, of whose tensors vmap takes the sizes for constants."""


def placed_over_all(target: Any, args: Sequence[Any], moves: Sequence[bool], turns: Any) -> Tensor:
    """One of :data:`PLACED` for all ``turns`` iterations at once."""
    spread: list[Any] = [
        part.unsqueeze(0).expand(turns, *part.shape) if isinstance(part, Tensor) and not own else part
        for part, own in zip(args, moves, strict=True)
    ]
    value, dim, *others = spread
    return target(value, _behind(dim), *others)


def _aligned(args: Sequence[Any], moves: Sequence[bool]) -> list[Any]:
    """``args`` with axes behind the first where those of one iteration have fewer axes than others."""
    ranks = [v.dim() - own for v, own in zip(args, moves, strict=True) if isinstance(v, Tensor)]
    found = []
    for value, own in zip(args, moves, strict=True):
        for _ in range(max(ranks) + 1 - value.dim() if own else 0):
            value = value.unsqueeze(1)
        found.append(value)
    return found


_PRODUCTS = {aten.mm.default: 2, aten.bmm.default: 3, aten.addmm.default: 2}


def _product(target: Any, args: Sequence[Any], moves: Sequence[bool]) -> Tensor | None:
    *bias, a, b = args
    if bias and (moves[0] or len(args) != 3):
        return None
    result = torch.matmul(a, b)
    return result + bias[0] if bias else result


def _behind(dim: int) -> int:
    return dim + 1 if dim >= 0 else dim


def _expanded(args: Sequence[Any]) -> Tensor:
    value, sizes = args[:2]
    for _ in range(len(sizes) + 1 - value.dim()):
        value = value.unsqueeze(1)
    return aten.expand.default(value, [-1, *sizes])


def _reshaped(args: Sequence[Any]) -> Tensor | None:
    value, sizes = args
    if any(isinstance(size, int) and size < 0 for size in sizes):
        return None
    return aten.reshape.default(value, [value.shape[0], *sizes])


def _along(target: Any) -> Rule:
    """The rule of an operation whose second argument is an axis."""
    return lambda args: target(args[0], _behind(args[1]), *args[2:]) if len(args) > 1 else None


def _reduced(target: Any) -> Rule:
    """The rule of an operation whose second argument lists axes."""
    return lambda args: target(args[0], [_behind(d) for d in args[1]], *args[2:]) if len(args) > 1 and args[1] else None


_RULES: dict[Any, Rule] = {
    **{
        target: _along(target)
        for target in (
            aten.select.int,
            aten.slice.Tensor,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten._softmax.default,
            aten._log_softmax.default,
        )
    },
    **{target: _reduced(target) for target in (aten.sum.dim_IntList, aten.mean.dim, aten.amax.default)},
    aten.transpose.int: lambda args: aten.transpose.int(args[0], _behind(args[1]), _behind(args[2])),
    aten.t.default: lambda args: args[0].transpose(1, 2) if args[0].dim() == 3 else None,
    aten.permute.default: lambda args: aten.permute.default(args[0], [0, *map(_behind, args[1])]),
    aten.expand.default: _expanded,
    aten.view.default: _reshaped,
    aten.reshape.default: _reshaped,
}
