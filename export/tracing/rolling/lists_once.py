"""Lists of views that a recording makes again at each place that reads one of their entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rnncore.export.tracing.rolling.log import Log, Ref, leaves, mapped

_LISTS = ("aten.unbind.int", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default")
_VIEWS = (
    *("aten.select.int", "aten.slice.Tensor", "aten.transpose.int", "aten.permute.default", "aten.unsqueeze.default"),
    *("aten.squeeze.dim", "aten.t.default", "aten.view.default", "aten.reshape.default", "aten.unflatten.int"),
    *("aten.alias.default", "aten.detach.default", "aten.expand.default", *_LISTS),
)


def with_lists_once(log: Log) -> Log:
    """The log with lists of views, such as those of ``unbind``, made once, where the first of them can be.

    Of what was changed in place before (``relu_``, ``x[:, :, 0] = 1``) a list is made anew, with the views that it is a view of,
    for each entry that is read: a loop over its entries would have all of it in every turn.
    """
    firsts: dict[Any, int] = {}
    same: dict[int, int] = {}  # the first view that is the same, by the number of each view
    for i, op in enumerate(log.ops):
        if str(op.target) in _VIEWS:
            key = str(mapped(op.everything, lambda value: _moved(value, same)))
            same[i] = firsts.setdefault((op.target, key), i)
    parts = _parts_read(log)
    groups: dict[int, list[int]] = {}
    for i, first in same.items():
        if str(log.ops[i].target) in _LISTS:
            groups.setdefault(first, []).append(i)
    # Who takes a list apart in every turn reads the same of its entries in each.
    instead = {
        i: first
        for first, all_same in groups.items()
        if len(all_same) > 1 and len(set.union(*(parts[k] for k in all_same))) == sum(len(parts[k]) for k in all_same)
        for i in all_same[1:]
    }
    if not instead:
        return log
    ops = []
    for op in log.ops:
        args, named = op.with_arguments(mapped(op.everything, lambda value: _moved(value, instead)))
        ops.append(replace(op, args=args, kwargs=named))
    found = replace(log, ops=ops, outputs=[(name, _moved(value, instead)) for name, value in log.outputs])
    return _without(found, set(instead), _early(log, set(instead.values())))


def _parts_read(log: Log) -> dict[int, set[int]]:
    """The parts of each operation that others, or answers, read."""
    found: dict[int, set[int]] = {i: set() for i in range(len(log.ops))}
    for values in (*(leaves(op.everything) for op in log.ops), (value for _, value in log.outputs)):
        for value in values:
            if isinstance(value, Ref):
                found[value.op].add(value.part)
    return found


def _early(log: Log, lists: set[int]) -> dict[int, int]:
    """The operation right behind which each of ``lists`` can be made, and the views that it is a view of; -1: before all."""
    behind: dict[int, int] = {}
    for i in lists:
        chain = [i]
        while True:
            source = log.ops[chain[-1]].args[0]
            if not isinstance(source, Ref) or str(log.ops[source.op].target) not in _VIEWS:
                break
            chain.append(source.op)
        read = [v.op for k in chain for v in leaves(log.ops[k].everything) if isinstance(v, Ref) and v.op not in chain]
        behind.update(dict.fromkeys(chain, max(read, default=-1)))
    return behind


def _moved(value: Any, places: dict[int, int]) -> Any:
    return Ref(places[value.op], value.part) if isinstance(value, Ref) and value.op in places else value


def _without(log: Log, unread: set[int], behind: dict[int, int]) -> Log:
    """The log without ``unread``, nor the views that only they read, and with some operations behind others."""
    readers: dict[int, set[int]] = {}
    for i, op in enumerate(log.ops):
        for value in leaves(op.everything):
            if isinstance(value, Ref):
                readers.setdefault(value.op, set()).add(i)
    answered = {value.op for _, value in log.outputs if isinstance(value, Ref)}
    for i in range(len(log.ops) - 1, -1, -1):
        if str(log.ops[i].target) in _VIEWS and i in readers and readers[i] <= unread and i not in answered:
            unread.add(i)
    order = sorted(range(len(log.ops)), key=lambda i: (behind.get(i, i), i in behind, i))
    return log.keeping([i for i in order if i not in unread])
