"""Modules under TorchScript as the Python that they were compiled from.

Layers written as ``torch.jit.ScriptModule`` with script methods, and what ``torch.jit.script`` made of a module in this
process, still know their classes; a program that was loaded from a file does not.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.model_arguments import module_of
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.error_boundary import pass_on_interruption

CLOSE = 1e-4
"""Most that the Python may differ from what it was compiled to, of the largest number: a compiler adds in another order."""
_OF_TORCH = ("_actual_script_module", "_c", "_concrete_type", "_initializing")
"""Attributes of a compiled module that torch put there itself."""


def in_python(model: Any, example: Any) -> nn.Module:
    """The module that a caller means, as :func:`module_of` finds it, with Python in place of TorchScript.

    Raises:
        InputError: see :func:`module_of`; or it is TorchScript of which no Python is known, or whose Python answers otherwise.
    """
    if isinstance(model, nn.Module) and any(_is_script(part) for part in model.modules()):
        made = _rebuilt(model)
        if made is not None and _answer_alike(model, made, example):
            return made
    return module_of(model)


def _is_script(part: nn.Module) -> bool:
    return isinstance(part, torch.jit.ScriptModule)


def _rebuilt(model: nn.Module) -> nn.Module | None:
    """A copy of ``model`` without TorchScript; None where a part does not know what it was."""
    memo: dict[int, Any] = {}
    try:
        for part in model.modules():
            if _is_script(part) and id(part) not in memo:
                memo[id(part)] = _plain(part, memo)
        return copy.deepcopy(model, memo)
    except Exception as failure:  # a part that was loaded, or one that hides what it is made of
        pass_on_interruption(failure)
        return None


def _plain(script: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """The module that ``script`` was, with weights of the same values; weights of several names stay one.

    Raises:
        AttributeError: it was loaded, or traced, which keeps one way through the Python only.
    """
    if isinstance(script, torch.jit._trace.TopLevelTracedModule):
        raise AttributeError("a trace knows no classes")
    compiled: Any = script.__dict__.get("_actual_script_module", script)
    concrete = compiled._concrete_type
    made: Any = object.__new__(_python_class(concrete.py_class))
    nn.Module.__init__(made)
    own = {name: value for name, value in script.__dict__.items() if name not in (*made.__dict__, *_OF_TORCH)}
    own = {name: value for name, value in own.items() if not isinstance(value, torch._C.ScriptMethod | MethodType)}
    made.__dict__.update({**concrete.get_constants(), **own})
    parameters, buffers = (dict(named(recurse=False)) for named in (compiled.named_parameters, compiled.named_buffers))
    for name in concrete.get_attributes():
        value = getattr(compiled, name)
        if name in parameters:
            known = memo.setdefault(id(value), nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad))
            made._parameters[name] = known
            memo[id(known)] = value  # keeps the weight alive, so that its number stays its own
        elif name in buffers:
            made._buffers[name] = value.detach().clone()
        else:
            made.__dict__[name] = copy.deepcopy(value, memo)
    for name, child in compiled._modules.items():
        if id(child) not in memo:
            memo[id(child)] = _plain(child, memo) if _is_script(child) else copy.deepcopy(child, memo)
        made._modules[name] = memo[id(child)]
    if isinstance(made, nn.RNNBase):
        made._init_flat_weights()
    return made.train(compiled.training)


@cache
def _python_class(kind: Any) -> type:
    """``kind`` itself, or for a class of script methods one like it with the methods that these were compiled from."""
    if not issubclass(kind, torch.jit.ScriptModule):
        return kind
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, torch.jit.ScriptModule) and base.__module__.partition(".")[0] != "torch":
            found.update(base.__dict__)
    for name in ("__init__", "__dict__", "__weakref__", "_methods", "_constants_set"):
        found.pop(name, None)
    found.update({name: stub.original_method for name, stub in kind._methods.items()})
    return type(
        kind.__name__, (nn.Module,), {**found, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    )


def _answer_alike(script: nn.Module, python: nn.Module, example: Any) -> bool:
    """Whether both, in eval mode, give the same for ``example``; true where neither takes it, which is another's to say."""
    bound = bind(python, example)
    modes = [(part, part.training) for part in script.modules()]
    try:
        with torch.no_grad():
            found, right = (_answers(module, bound) for module in (python, script))
    finally:
        for part, training in modes:
            part.training = training
    if found is None or right is None:
        return found is right
    return found.keys() == right.keys() and all(_close(found[name], right[name]) for name in right)


def _answers(module: nn.Module, bound: inspect.BoundArguments) -> Mapping[str, Tensor] | None:
    own = copy.deepcopy((bound.args, bound.kwargs))
    try:
        return dict(named_tensors(module.eval()(*own[0], **own[1]), ""))
    except Exception as failure:
        pass_on_interruption(failure)
        return None


def _close(found: Tensor, right: Tensor) -> bool:
    if found.shape != right.shape or found.dtype != right.dtype:
        return False
    scale = max(1.0, float(right.abs().max())) if right.numel() and right.is_floating_point() else 1.0
    return torch.allclose(found, right, rtol=0.0, atol=CLOSE * scale, equal_nan=True)
