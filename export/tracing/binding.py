"""Which arguments of ``forward`` an example stands for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import InputError


def bind(module: nn.Module, example: Any) -> inspect.BoundArguments:
    """The arguments of ``module.forward`` that ``example`` stands for; InputError when it does not fit."""
    signature = inspect.signature(module.forward)
    args: tuple[Any, ...] = (example,)
    kwargs: dict[str, Any] = {}
    if isinstance(example, Mapping):
        args, kwargs = (), dict(example)
    elif isinstance(example, tuple) or (isinstance(example, list) and _are_arguments(module, example)):
        args = tuple(example)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        if kwargs and not kwargs.keys() & signature.parameters.keys() and _runs_on(module, example):
            return _without_gradients(signature.bind(example))  # one argument, which is a dict
        raise InputError(
            f"the example does not fit {type(module).__name__}.forward{signature}: {error}; pass a tensor, a tuple of "
            "positional arguments, or a dict of keyword arguments"
        ) from None
    return _without_gradients(bound)


def _are_arguments(module: nn.Module, example: list[Any]) -> bool:
    """Whether a list of tensors is several arguments: what takes one argument, a list, runs on it."""
    return all(isinstance(value, Tensor) for value in example) and not _runs_on(module, example)


def _runs_on(module: nn.Module, argument: Any) -> bool:
    """Whether the module takes it as its one argument."""
    try:
        with torch.no_grad():
            module(argument)
    except Exception as failure:
        pass_on_interruption(failure)
        return False
    return True


def _without_gradients(arguments: inspect.BoundArguments) -> inspect.BoundArguments:
    for name, value in arguments.arguments.items():
        found = [tensor for _, tensor in named_tensors(value, name)]
        if any(tensor.requires_grad for tensor in found):
            arguments.arguments[name] = with_tensors(value, iter([tensor.detach() for tensor in found]))
    return arguments
