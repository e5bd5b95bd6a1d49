"""In which floats a loop holds what it reads, carries and gives: whole numbers among it must come out as they went in.

float32 holds every whole number up to 2 to the 24, which a sum of milliseconds passes in hours; float64 up to 2 to the 53.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import SOURCES, Constant, leaves
from rnncore.export.tracing.rolling.merging import Run
from rnncore.export.tracing.rolling.places import Key, Places
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Number, Outside, Same

_HELD = 1 << 24
_WIDE = (torch.int32, torch.int64)
_PLACES = {"argmax": (0,), "argmin": (0,), "max": (1,), "min": (1,), "topk": (1,), "sort": (1,)}
"""Which results of these operations are places along an axis."""
_CHOICES = ("where", "maximum", "minimum", "masked_fill", "cat", "stack", "scalar_tensor")
_VIEWS = (
    "select",
    "slice",
    "unbind",
    "split",
    "unsqueeze",
    "squeeze",
    "view",
    "reshape",
    "_unsafe_view",
    "expand",
    "permute",
)
_COPIES = ("transpose", "t", "clone", "alias", "detach", "lift_fresh_copy")
_NOT_LARGER = frozenset((*_CHOICES, *_VIEWS, *_COPIES))
"""Operations of which no result is larger than all arguments."""
_MADE = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")


def floats_of_rows(places: Places, keys: Sequence[Key]) -> torch.dtype:
    """The dtype for rows that hold ``keys``: the widest of their floats, and float64 for whole numbers of any size."""
    if any(_dtype(places, key) in _WIDE and not _is_small(places, key, set()) for key in keys):
        return torch.float64
    own = [d for s in places.plan.block.statements for d in s.op.dtypes if d.is_floating_point] or [torch.float32]
    held = {own[0], *(dtype for key in keys if (dtype := _dtype(places, key)) is not None and dtype.is_floating_point)}
    if any(isinstance(key, Number) for key in keys):  # steps that are counted: 16 bits hold 256 or 2048 of them
        held.add(torch.float32)
    return functools.reduce(torch.promote_types, held)


def _dtype(places: Places, key: Key) -> torch.dtype | None:
    if isinstance(key, ListItem):
        return places.program.statements[key.op].op.dtypes[0]
    if isinstance(key, LoopItem):
        return places.program.blocks[key.loop].statements[key.place].op.dtypes[key.part]
    return places.statement(key[0]).op.dtypes[key[1]] if isinstance(key, tuple) else None


def _is_small(places: Places, key: Any, seen: set[Any]) -> bool:
    """Whether a value is surely a place along an axis, a truth, or a choice among such and small constants."""
    if not isinstance(key, tuple):
        return False
    place, part = key
    statement = places.statement(place)
    if statement.op.dtypes[part] not in _WIDE or key in seen:
        return True
    name = statement.op.name
    if part in _PLACES.get(name, ()):
        return True
    relations = places.plan.relations(place)
    return name in _NOT_LARGER and all(_is_small_argument(places, relation, {*seen, key}) for relation in relations)


def _is_small_argument(places: Places, relation: Any, seen: set[Any]) -> bool:
    if isinstance(relation, Same):
        return _is_small(places, (relation.place, relation.part), seen)
    if isinstance(relation, Carried):
        starts = all(_is_small_value(places, start) for start in relation.starts)
        return starts and _is_small(places, (relation.place, relation.part), seen)
    return isinstance(relation, Fixed) and _is_small_value(places, relation.value)


def _is_small_value(places: Places, value: Any) -> bool:
    if isinstance(value, Constant):
        return all(abs(number) < _HELD for number in value.numbers)
    if isinstance(value, Outside):
        statement = places.program.statements[value.op]
        if statement.op.dtypes[0] not in _WIDE:
            return True
        return statement.op.name in _MADE and all(_is_small_number(v) for v in leaves(statement.arguments))
    return _is_small_number(value)


def _is_small_number(value: Any) -> bool:
    """Whether a number, or a size of an axis, is one; what comes from inputs and weights may be anything."""
    if isinstance(value, float | int):
        return abs(value) < _HELD
    if isinstance(value, Formula):
        return not value.constant or abs(value({})) < _HELD
    return not isinstance(value, (*SOURCES, Inside, Run))
