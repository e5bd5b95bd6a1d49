"""Nested arguments and results of a module as flat lists of named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside tuples, lists, dicts and dataclasses, named by its path: ``name``, ``name_0``, ``name_key``."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}_{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        keys = getattr(value, "_fields", range(len(value)))
        for key, item in zip(keys, value, strict=True):
            yield from named_tensors(item, f"{name}_{key}" if name else str(key))
    elif has_fields(value):
        yield from named_tensors({field.name: getattr(value, field.name) for field in fields(value)}, name)


def with_tensors(value: Any, tensors: Iterator[Any]) -> Any:
    """``value`` with every tensor, in the order of :func:`named_tensors`, replaced by the next one of ``tensors``."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Mapping):
        return {key: with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [with_tensors(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if has_fields(value):
        return replace(
            value, **{field.name: with_tensors(getattr(value, field.name), tensors) for field in fields(value)}
        )
    return value


def has_fields(value: Any) -> bool:
    """Whether ``value`` is of a dataclass; a type is asked for nothing, as some make their attributes when they are asked."""
    return not isinstance(value, type) and is_dataclass(value)


def kinds_of_arrays(value: Any) -> list[str]:
    """What stands in tuples, lists and dicts that has a shape and is no tensor: its types, each once."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return list(dict.fromkeys(kind for item in value for kind in kinds_of_arrays(item)))
    kind = type(value)
    return [f"{kind.__module__}.{kind.__name__}"] if hasattr(value, "shape") and not isinstance(value, Tensor) else []
