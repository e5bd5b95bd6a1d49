"""Padding and cutting that code does at some sizes only: ``if T % 2: x = x[:, :-1]``, ``F.pad`` up to a multiple.

At the other sizes it would change nothing, so it is put there as well, with the size that the axis has: then all recordings run
the same operations, and that size is a number like others, such as ``2 * (T // 2)``.  What pads fills a fixed number of steps,
and cuts off those that are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rnncore.export.tracing.rolling.log import Log, Op, Ref, leaves, mapped

aten = torch.ops.aten
_MOST_OPERATIONS = 4  # of one resize: the shape, what is filled in, the result
_LOOKS_AHEAD = 3
Same = Callable[[int, Any, int], Any]
"""(log, a value of it, another log) -> the same value there, None if it is not known."""


@dataclass(frozen=True)
class _Resize:
    """What the operations from ``start`` to ``end`` of a log do to ``base`` along ``dim``: it has ``size`` afterwards.

    filled: the number that is put behind what was there; None where the end is cut off.
    """

    start: int
    end: int
    base: Any
    dim: int
    size: int
    filled: float | None


def resized_everywhere(logs: Sequence[Log], at: Sequence[int], same: Same) -> list[Log] | None:
    """``logs``, which differ from ``at`` on, with the resize that some have there in all of them; None if there is none."""
    heads = [log.ops[p].signature(strict=False) if p < len(log.ops) else None for p, log in zip(at, logs, strict=True)]
    for head in dict.fromkeys(heads):
        some = [s for s, own in enumerate(heads) if own == head]
        rest = [s for s in range(len(logs)) if s not in some]
        if head is None or not rest:
            continue
        for n in range(1, _MOST_OPERATIONS + 1):
            if len({_ahead(logs[s], at[s] + n * (s in some)) for s in range(len(logs))}) > 1:
                continue
            found = {s: _resize(logs[s], at[s], at[s] + n) for s in some}
            resizes = [resize for resize in found.values() if resize is not None]
            if len(resizes) == len(some) and len({(r.dim, r.filled) for r in resizes}) == 1:
                return _with_resizes(logs, at, {s: r for s, r in found.items() if r is not None}, same)
    return None


def _ahead(log: Log, start: int) -> tuple[Any, ...]:
    return tuple(op.signature(strict=False) for op in log.ops[start : start + _LOOKS_AHEAD])


def _resize(log: Log, start: int, end: int) -> _Resize | None:
    """The resize that these operations are, if nothing behind them reads what was there before."""
    if end > len(log.ops):
        return None
    op = log.ops[end - 1]
    while op.target is aten.clone.default and isinstance(op.args[0], Ref) and op.args[0].op >= start:
        op = log.ops[op.args[0].op]  # contiguous() of what was cut
    base, dim, filled = _parts(log, op, start)
    if base is None:
        return None
    old, new = log.shape(base), op.shapes[0]
    dim = dim % len(new)
    if [n for k, n in enumerate(old) if k != dim] != [n for k, n in enumerate(new) if k != dim]:
        return None
    later = [v for other in log.ops[end:] for v in leaves(other.everything)] + [value for _, value in log.outputs]
    gone = {base, *(Ref(i, part) for i in range(start, end - 1) for part in range(len(log.ops[i].shapes)))}
    if any(value in gone for value in later if isinstance(value, type(base) | Ref)):
        return None
    return _Resize(start, end, base, dim, new[dim], filled)


def _parts(log: Log, op: Op, start: int) -> tuple[Any, int, float | None]:
    """What an operation resizes, along which axis, and what it fills in."""
    args = op.args
    if op.target is aten.slice.Tensor and (len(args) < 5 or args[4] == 1):
        starts_first = len(args) < 3 or args[2] in (0, None)
        return (args[0] if starts_first else None), args[1] if len(args) > 1 else 0, None
    if op.target is aten.constant_pad_nd.default:
        widths = [(k, n) for k, n in enumerate(args[1]) if n]
        behind = len(widths) == 1 and widths[0][0] % 2 == 1 and widths[0][1] > 0
        return (
            (args[0] if behind else None),
            -1 - widths[0][0] // 2 if behind else 0,
            float(args[2] if len(args) > 2 else 0),
        )
    if op.target is aten.cat.default and len(args[0]) == 2 and isinstance(args[0][1], Ref) and args[0][1].op >= start:
        filler = log.ops[args[0][1].op]
        if filler.target is aten.full.default:
            return args[0][0], args[1] if len(args) > 1 else 0, float(filler.args[1])
    return None, 0, None


def _with_resizes(logs: Sequence[Log], at: Sequence[int], found: dict[int, _Resize], same: Same) -> list[Log] | None:
    first, one = next(iter(found.items()))
    most = max(r.size - logs[s].shape(r.base)[r.dim] for s, r in found.items())
    if len({r.size for r in found.values()}) == 1:  # up to one size, however little there is
        most = max(most, one.size)
    made = []
    for s, log in enumerate(logs):
        base = found[s].base if s in found else same(first, one.base, s)
        if base is None:
            return None
        size = found[s].size if s in found else log.shape(base)[one.dim]
        resize = found.get(s, _Resize(at[s], at[s], base, one.dim, size, one.filled))
        made.append(_rewritten(log, resize, most))
    return made


def _rewritten(log: Log, resize: _Resize, most: int) -> Log:
    """``log`` with a pad of ``most`` steps, if any, and a cut in place of the resize."""
    like = log.ops[resize.end - 1] if resize.end > resize.start else log.ops[min(resize.start, len(log.ops) - 1)]
    shape, value, new = list(log.shape(resize.base)), resize.base, []
    dtype = log.dtype(resize.base)

    def add(target: Any, args: tuple[Any, ...], size: int) -> Ref:
        shape[resize.dim] = size
        new.append(Op(target, args, {}, [tuple(shape)], [dtype], False, like.lines, like.path))
        return Ref(resize.start + len(new) - 1)

    if resize.filled is not None:
        widths = [0] * (2 * (len(shape) - resize.dim))
        widths[-1] = most
        value = add(aten.constant_pad_nd.default, (value, tuple(widths), resize.filled), shape[resize.dim] + most)
    result = add(aten.slice.Tensor, (value, resize.dim, 0, resize.size), resize.size)
    more = len(new) - (resize.end - resize.start)
    replaced = resize.base if resize.end == resize.start else Ref(resize.end - 1)

    def moved(value: Any) -> Any:
        if value == replaced and type(value) is type(replaced):
            return result
        if isinstance(value, Ref) and value.op >= resize.end:
            return Ref(value.op + more, value.part)
        return value

    later = []
    for op in log.ops[resize.end :]:
        args, named = op.with_arguments(mapped(op.everything, moved))
        if op.target is aten.reshape.default:  # of what was cut it says -1 in other places than of what was not
            args = (args[0], op.shapes[0])
        later.append(replace(op, args=args, kwargs=named))
    outputs = [(name, moved(value)) for name, value in log.outputs]
    return replace(log, ops=[*log.ops[: resize.start], *new, *later], outputs=outputs)
