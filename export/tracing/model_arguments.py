"""The module that a caller means: taken out of what torch wraps around one, and refused where it can never be exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from rnncore.runtime.errors import InputError

_COMPILED = "_orig_mod"
"""Where ``torch.compile`` keeps the module that it compiles."""
_QUANTIZED = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.", "torch.nn.quantized.")
_FLOATING = ("FloatFunctional", "FXFloatFunctional")
"""What stands among them and adds and multiplies in floating point, in the layers of ``torch.ao.nn.quantizable``."""


def module_of(model: Any) -> nn.Module:
    """``model`` itself, or the module inside of ``torch.compile``, data parallelism, and averages of weights.

    Raises:
        InputError: it is no module, or TorchScript, or its weights have no values.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {_described(model)}, expected a torch.nn.Module")
    scripted = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted and not scripted[0][0]:
        raise InputError("TorchScript cannot be exported: hand in the module that it was made of")
    if scripted:
        name, part = scripted[0]
        raise InputError(
            f"'{name}' is TorchScript ({_name_of(part)}), which cannot be exported: put the module there that it was made of; "
            "plain functions under torch.jit.script may stay"
        )
    quantized = [(name, part) for name, part in model.named_modules() if _is_quantized(type(part))]
    if quantized:
        name, part = quantized[0]
        raise InputError(
            f"'{name}' is quantized by torch ({type(part).__name__}), for which there is no ONNX: hand in the module in floating "
            "point, with quantize='int8' for weights of 8 bits"
        )
    module = _inside(model)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise InputError(f"'{name}' has no values yet: run the module on its example once before you export it")
        if tensor.is_meta:
            raise InputError(
                f"'{name}' is on the device 'meta', which holds no values: module.to_empty(device='cpu'), then load the "
                "weights"
            )
    return module


def _is_quantized(kind: type) -> bool:
    return kind.__module__.startswith(_QUANTIZED) and kind.__name__ not in _FLOATING


def take_apart(module: nn.Module) -> None:
    """Put the modules that parts of ``module`` wrap in the place of these parts, and compile none at its next call."""
    for part in list(module.modules()):
        if part._compiled_call_impl is not None:
            part._compiled_call_impl = None
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = _inside(child)


def _inside(module: nn.Module) -> nn.Module:
    while True:
        inner = module._modules.get(_COMPILED)
        if isinstance(
            module, nn.DataParallel | nn.parallel.DistributedDataParallel | torch.optim.swa_utils.AveragedModel
        ):
            inner = module.module
        if inner is None:
            return module
        module = inner


def _name_of(scripted: torch.jit.ScriptModule) -> str:
    return str(getattr(scripted, "original_name", type(scripted).__name__))


def _described(model: Any) -> str:
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"the class {model.__name__} and no module of it"
    return f"a {type(model).__name__}"
