"""Operations of one turn on values that have another length in every row, ``x[b, :n]``: for all rows, with masks.

``mask[b, :n] = 1``, ``out[b, n - 1]``, ``x[b, :n].mean(0)``: each rule gives what torch gives for every row by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.rolling.log import Op, leaves
from rnncore.export.tracing.rolling.row_values import Count, LeftAsItIs, Ragged, Rows, by_weight, chosen, spread

aten = torch.ops.aten
Value = Rows | Ragged
_END = 2**63 - 1
_COPIES = (aten._to_copy.default, aten.clone.default, aten.alias.default, aten.detach.default)
_WEIGHTS = (aten.mm.default, aten.addmm.default)


def over_ragged(op: Op, everything: tuple[Any, ...], rows: int) -> Sequence[Value]:
    """What ``op`` gives in all turns; arguments are numbers, plain tensors, which are the same in all turns, and :data:`Value`.

    Raises:
        LeftAsItIs: no rule is known.
    """
    args, named = op.with_arguments(everything)
    first, found = args[0] if args else None, None
    rule = _RULES.get(op.target)
    if rule is not None:
        found = rule(list(args), rows)
    elif op.target is aten.full.default:
        found = _full(args, named, rows)
    elif op.target in _COPIES and isinstance(first, Ragged):
        found = replace(first, tensor=op.target(first.tensor, **named))
    elif torch.Tag.pointwise in getattr(op.target, "tags", ()):
        found = _pointwise(op, args, named)
    if found is None or any(isinstance(value, Ragged | Rows | Count) for value in leaves(tuple(named.values()))):
        raise LeftAsItIs
    return found if isinstance(found, tuple) else (found,)


def _full(args: Sequence[Any], named: dict[str, Any], rows: int) -> Value | None:
    size, number = args
    full, count = _sized(size)
    tensor = torch.full([rows, *full], number, **named)
    return None if count is None else Ragged(tensor, *count)


def _sized(size: Sequence[Any]) -> tuple[list[int], tuple[int, Count] | None]:
    """A size with the most where it has a count, and which axis that is."""
    counts = [(axis, value) for axis, value in enumerate(size) if isinstance(value, Count)]
    if len(counts) > 1:
        raise LeftAsItIs
    return [value.most if isinstance(value, Count) else value for value in size], next(iter(counts), None)


def _plain(value: Any, rows: int) -> Tensor:
    """A value of every turn whose axes are alike in all."""
    if isinstance(value, Rows):
        return value.tensor
    if not isinstance(value, Tensor):
        raise LeftAsItIs
    return value.unsqueeze(0).expand(rows, *value.shape)


def _slice(args: list[Any], rows: int) -> Value | None:
    given: list[Any] = [None, 0, None, None, 1]
    base, dim, start, end, step = [*args, *given[len(args) :]]
    if isinstance(base, Ragged) or step != 1:
        return None
    tensor = _plain(base, rows)
    axis, size = dim % (tensor.dim() - 1), tensor.shape[dim % (tensor.dim() - 1) + 1]
    if isinstance(end, Count) and start in (0, None):
        return Ragged(tensor, axis, end)
    if isinstance(start, Count) and end in (None, _END, size):
        return Ragged(tensor, axis, start, head=False)
    return None


def _slice_scatter(args: list[Any], rows: int) -> Value | None:
    base, source, *extent = args
    if isinstance(base, Ragged):
        return None
    part = _slice([base, *extent], rows)
    if not isinstance(part, Ragged):
        return None
    if isinstance(source, Ragged):
        if (source.axis, source.count.what, source.head) != (part.axis, part.count.what, part.head):
            return None
        new = source.tensor
    else:
        new = spread(_plain(source, rows), part.tensor.shape)
    if new.shape != part.tensor.shape:
        return None
    return Rows(chosen(part.valid(), new.to(part.tensor.dtype), part.tensor))


def _select(args: list[Any], rows: int) -> Value | None:
    base, dim, index = args
    if isinstance(base, Ragged):
        axis = dim % (base.tensor.dim() - 1)
        if axis != base.axis:
            moved = base.axis - (axis < base.axis)
            return replace(base, tensor=aten.select.int(base.tensor, axis + 1, index), axis=moved)
        if index == 0 and base.head:
            return Rows(aten.select.int(base.tensor, axis + 1, 0))
        return Rows(_picked(base.tensor, axis, base.count.numbers - 1)) if index == -1 and base.head else None
    tensor = _plain(base, rows)
    return Rows(_picked(tensor, dim % (tensor.dim() - 1), index.numbers))


def _picked(tensor: Tensor, axis: int, places: Tensor) -> Tensor:
    """The entry of each row at its own place, as torch counts places below zero."""
    places = torch.where(places < 0, places + tensor.shape[axis + 1], places)
    index = places.reshape(-1, *[1] * (tensor.dim() - 1))
    shape = [1 if k == axis + 1 else n for k, n in enumerate(tensor.shape)]
    return aten.gather.default(tensor, axis + 1, index.expand(shape)).squeeze(axis + 1)


def _fill(args: list[Any], rows: int) -> Value | None:
    base, value = args
    if not isinstance(base, Ragged | Rows):
        return None
    if isinstance(value, Rows):
        return replace(base, tensor=spread(value.tensor, base.tensor.shape).to(base.tensor.dtype))
    whole = torch.zeros_like(base.tensor) + value if isinstance(value, Tensor) else torch.full_like(base.tensor, value)
    return replace(base, tensor=whole.to(base.tensor.dtype))


def _copy(args: list[Any], rows: int) -> Value | None:
    base, source = args[:2]
    if not isinstance(base, Ragged):
        return None
    if isinstance(source, Ragged):
        return replace(source, tensor=source.tensor.to(base.tensor.dtype)) if source.axis == base.axis else None
    return replace(base, tensor=spread(_plain(source, rows), base.tensor.shape).to(base.tensor.dtype))


def _expand(args: list[Any], rows: int) -> Value | None:
    base, size = args[:2]
    full, count = _sized(size)
    if isinstance(base, Ragged):
        return None
    tensor = spread(_plain(base, rows), (rows, *full))
    return None if count is None else Ragged(tensor, *count)


def _unsqueeze(args: list[Any], rows: int) -> Value | None:
    base, dim = args
    if not isinstance(base, Ragged):
        return None
    axis = dim % base.tensor.dim()
    return replace(base, tensor=base.tensor.unsqueeze(axis + 1), axis=base.axis + (axis <= base.axis))


def _squeeze(args: list[Any], rows: int) -> Value | None:
    base, dim = args
    if not isinstance(base, Ragged):
        return None
    axis = dim % (base.tensor.dim() - 1)
    if axis == base.axis or base.tensor.shape[axis + 1] != 1:
        return None
    return replace(base, tensor=base.tensor.squeeze(axis + 1), axis=base.axis - (axis < base.axis))


def _transposed(args: list[Any], rows: int) -> Value | None:
    base = args[0]
    if not isinstance(base, Ragged):
        return None
    rank = base.tensor.dim() - 1
    order = list(range(rank))
    a, b = (d % rank for d in (args[1:] or (0, 1)))
    order[a], order[b] = order[b], order[a]
    return replace(base, tensor=base.tensor.permute(0, *(k + 1 for k in order)), axis=order.index(base.axis))


def _reshape(args: list[Any], rows: int) -> Value | None:
    """Where the axis stays whole and what is before it is as much."""
    base, size = args
    full, count = _sized(size)
    if not isinstance(base, Ragged) or count is None or count[1].what != base.count.what:
        return None
    axis, own = count[0], base.tensor.shape[1:]
    full[axis] = own[base.axis]
    if torch.Size(full[:axis]).numel() != torch.Size(own[: base.axis]).numel() or -1 in full:
        return None
    return replace(base, tensor=base.tensor.reshape(rows, *full), axis=axis)


def _by_weight(product: Any) -> Callable[[list[Any], int], Value | None]:
    def rule(args: list[Any], rows: int) -> Value | None:
        *bias, base, weight = args
        fixed = all(isinstance(value, Tensor) for value in (*bias, weight))
        if not isinstance(base, Ragged) or not fixed or base.axis != 0 or base.tensor.dim() != 3:
            return None
        return replace(base, tensor=by_weight(product, [*bias, base.tensor, weight]))

    return rule


def _reduced(target: Any, empty: Any) -> Callable[[list[Any], int], Value | None]:
    """The rule of an operation over axes, for which entries of ``empty`` are as if there were none."""

    def rule(args: list[Any], rows: int) -> Value | None:
        base, dims, *rest = args
        if not isinstance(base, Ragged) or not base.head:
            return None
        rank = base.tensor.dim() - 1
        axes = [d % rank for d in ((dims,) if isinstance(dims, int) else dims or range(rank))]
        keep = bool(rest[0]) if rest else False
        over = isinstance(dims, int)
        if base.axis not in axes:
            result = target(base.tensor, axes[0] + 1 if over else [a + 1 for a in axes], keep)
            return replace(
                base, tensor=result, axis=base.axis if keep else base.axis - sum(a < base.axis for a in axes)
            )
        least = torch.finfo(base.tensor.dtype).min if empty is None else empty
        values = base.filled(least)
        if target is aten.mean.dim:
            others = torch.Size([base.tensor.shape[a + 1] for a in axes if a != base.axis]).numel()
            total = aten.sum.dim_IntList(values, [a + 1 for a in axes], keep)
            number = (base.count.numbers * others).to(total.dtype)
            return Rows(total / number.reshape(rows, *[1] * (total.dim() - 1)))
        return Rows(target(values, [a + 1 for a in axes], keep))

    return rule


def _largest(args: list[Any], rows: int) -> tuple[Value, ...] | None:
    """``max`` along the axis, and where it is."""
    base, dim, *keep = args
    if not isinstance(base, Ragged) or not base.head or dim % (base.tensor.dim() - 1) != base.axis:
        return None
    least = torch.finfo(base.tensor.dtype).min
    values, places = aten.max.dim(base.filled(least), base.axis + 1, *keep)
    return Rows(values), Rows(places)


def _soft(target: Any) -> Callable[[list[Any], int], Value | None]:
    def rule(args: list[Any], rows: int) -> Value | None:
        base, dim, half = args
        if not isinstance(base, Ragged) or not base.head:
            return None
        axis = dim % (base.tensor.dim() - 1)
        values = base.filled(float("-inf")) if axis == base.axis else base.tensor
        return replace(base, tensor=target(values, axis + 1, half))

    return rule


def _padded(args: list[Any], rows: int) -> Value | None:
    """Up to the full size: by so much less as there is more."""
    base, pads, *value = args
    if not isinstance(base, Ragged) or not base.head:
        return None
    behind = 2 * (base.tensor.dim() - 2 - base.axis)
    if len(pads) < behind + 2 or any(p for k, p in enumerate(pads) if k != behind + 1):
        return None
    less, full = pads[behind + 1], base.tensor.shape[base.axis + 1]
    which, _, plus = base.count.what
    if not isinstance(less, Count) or less.what != (which, -1, full - plus):
        return None
    return Rows(base.filled(value[0] if value else 0.0))


def _pointwise(op: Op, args: Sequence[Any], named: dict[str, Any]) -> Value | None:
    ragged = [value for value in args if isinstance(value, Ragged)]
    behind = {(value.tensor.dim() - value.axis, value.count.what, value.head) for value in ragged}
    if len(behind) != 1:
        return None
    (own,) = behind
    tensors = [value.tensor for value in args if isinstance(value, Ragged | Rows)]
    rank = max([t.dim() for t in tensors] + [v.dim() + 1 for v in args if isinstance(v, Tensor)])
    aligned = []
    for value in args:
        if isinstance(value, Ragged | Rows):
            tensor = value.tensor
            for _ in range(rank - tensor.dim()):
                tensor = tensor.unsqueeze(1)
            if isinstance(value, Rows) and tensor.shape[rank + 1 - own[0]] != 1:
                return None
            aligned.append(tensor)
        elif isinstance(value, Count):
            return None
        else:
            aligned.append(value)
    result = op.target(*aligned, **named)
    return Ragged(result, rank - own[0], ragged[0].count, ragged[0].head)


_RULES: dict[Any, Callable[[list[Any], int], Any]] = {
    aten.slice.Tensor: _slice,
    aten.slice_scatter.default: _slice_scatter,
    aten.select.int: _select,
    aten.fill.Scalar: _fill,
    aten.fill.Tensor: _fill,
    aten.copy.default: _copy,
    aten.expand.default: _expand,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.transpose.int: _transposed,
    aten.t.default: _transposed,
    aten.reshape.default: _reshape,
    aten.constant_pad_nd.default: _padded,
    aten._softmax.default: _soft(aten._softmax.default),
    aten._log_softmax.default: _soft(aten._log_softmax.default),
    aten.sum.dim_IntList: _reduced(aten.sum.dim_IntList, 0),
    aten.mean.dim: _reduced(aten.mean.dim, 0),
    aten.max.dim: _largest,
    aten.amax.default: _reduced(aten.amax.default, None),
    **{target: _by_weight(target) for target in _WEIGHTS},
}
