"""A copy of a module, whatever hangs on it, and a module that is run without being changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rnncore.export.tracing.model_arguments import take_apart
from rnncore.runtime.error_boundary import pass_on_interruption

M = TypeVar("M", bound=nn.Module)
TABLES = ("_parameters", "_buffers", "_modules")
"""Attributes of a module in which torch keeps what is registered."""


def copied(module: M) -> M:
    """A deep copy of ``module``, compiled nowhere; of computed attributes, such as a pruned weight, with the value they have.

    torch refuses to copy a tensor that came out of a computation with gradients.  Sparse matrices become dense ones: a file
    has no others.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in list(part.__dict__.values()):
            for tensor in _tensors(value):
                if tensor.layout != torch.strided:
                    dense = tensor.detach().to_dense()
                    memo[id(tensor)] = nn.Parameter(dense, False) if isinstance(tensor, nn.Parameter) else dense
                elif not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    made = _deep_copy(module, memo)
    take_apart(made)
    for part in made.modules():
        for name, value in list(part.__dict__.items()):
            if isinstance(value, FunctionType):
                part.__dict__[name] = _rebound(value, memo)
        _let_set(part)
    return made


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors that stand in containers, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Tensor):
        yield value


def _deep_copy(module: M, memo: dict[int, Any]) -> M:
    """A deep copy, which shares with ``module`` only what Python cannot copy: a log, a lock, an open file.

    memo: what is known of copies before; afterwards what has been copied, by identity.
    """
    tried = dict(memo)
    try:
        made = copy.deepcopy(module, tried)
    except Exception as failure:
        pass_on_interruption(failure)
        for part in module.modules():
            for value in _leaves(part.__dict__):
                if not _can_be_copied(value, memo):
                    memo[id(value)] = value
        return copy.deepcopy(module, memo)
    memo.update(tried)
    return made


def _leaves(value: Any) -> Iterator[Any]:
    """What stands in containers, however deep, but modules and tensors."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for part in value:
            yield from _leaves(part)
    elif not isinstance(value, Tensor | nn.Module):
        yield value


def _can_be_copied(value: Any, memo: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception as failure:
        pass_on_interruption(failure)
        return False
    return True


def _rebound(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    """``function`` about the copies of the modules that it was about.

    ``module.forward = forward``, where a wrapper defines it inside of a function, reads the module that it wraps from there.
    """
    if id(function) in memo:  # one that reads itself, say
        return memo[id(function)]
    memo[id(function)] = function
    cells = [_of_copy(cell, memo) for cell in function.__closure__ or ()]
    if all(a is b for a, b in zip(cells, function.__closure__ or (), strict=True)):
        return function
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, closure=tuple(cells)
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(function.__dict__)
    memo[id(function)] = made
    return made


def _of_copy(cell: CellType, memo: dict[int, Any]) -> CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # nothing is in it yet
        return cell
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return CellType(MethodType(value.__func__, memo[id(value.__self__)]))
    if isinstance(value, FunctionType) and value.__closure__:
        other = _rebound(value, memo)
        return cell if other is value else CellType(other)
    return CellType(memo[id(value)]) if isinstance(value, nn.Module) and id(value) in memo else cell


def _let_set(part: nn.Module) -> None:
    """Make second names of one parameter plain attributes, and let ``forward`` set anything there.

    In eval mode weight drop sets the raw weight itself, which torch then takes for a parameter: no value that is computed, as
    all are while a call is traced, may be set in its place any more.
    """
    seen: set[int] = set()
    names: set[str] = set()
    for name, value in list(part._parameters.items()):
        if value is not None and id(value) in seen:
            names.add(name)
            del part._parameters[name]
            part.__dict__[name] = value
        seen.add(id(value))
    if not names:
        return
    kind: Any = type(part)

    def set_plain(self: nn.Module, name: str, value: Any) -> None:
        as_value = name in names and isinstance(value, nn.Parameter)
        kind.__setattr__(self, name, value.view_as(value) if as_value else value)

    part.__class__ = type(kind.__name__, (kind,), {"__setattr__": set_plain, "__module__": kind.__module__})


def _collections(value: Any, depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Plain lists and dicts in an attribute, with copies of them: states are kept in such, ``self.hidden[i] = ...``."""
    if type(value) in (list, dict) and value:
        yield value, copy.copy(value)
    if depth and type(value) in (list, tuple, dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _collections(part, depth - 1)


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Take back, at the end of the block, what ``forward`` did to attributes of ``module``, and to lists and dicts in them (not
    what it did to tensors in place).

    Weight drop, for one, sets a weight at every call; a trace would leave a symbol in its place.
    """
    kept = [(part, dict(part.__dict__)) for part in module.modules()]
    named = [(part, {name: dict(part.__dict__[name]) for name in TABLES}) for part, _ in kept]
    held = [own for _, attributes in kept for value in list(attributes.values()) for own in _collections(value)]
    try:
        yield
    finally:
        for found, entries in held:
            found.clear()
            found.extend(entries) if isinstance(found, list) else found.update(entries)
        for part, attributes in kept:
            part.__dict__.clear()
            part.__dict__.update(attributes)
        for part, tables in named:
            for name, entries in tables.items():
                part.__dict__[name].clear()
                part.__dict__[name].update(entries)
