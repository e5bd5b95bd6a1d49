"""Modules that were trained on another device, or ask for one in forward, on the CPU, where files are verified and run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.copying import TABLES, copied
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.runtime.error_boundary import chain_of, pass_on_interruption
from rnncore.runtime.errors import RnncoreError

_CPU = torch.device("cpu")
_OTHER_DEVICE = re.compile(r"\b(accelerator|cuda|hip|mps|nvidia|xpu)\b|same device", re.IGNORECASE)


def brought_here(value: Any) -> Any:
    """``value`` with all tensors inside on the CPU: the same object if they are, a copy otherwise.

    value: a module, whose plain attributes may hold tensors as well, or arguments of one.
    """
    if not isinstance(value, nn.Module):
        tensors = [tensor for _, tensor in named_tensors(value, "")]
        return value if all(map(_is_here, tensors)) else with_tensors(value, iter([t.to(_CPU) for t in tensors]))
    if all(map(_is_here, _tensors_of(value))):
        return value
    module = copied(value).to(_CPU)
    for part in module.modules():
        for name, held in _held(part):
            part.__dict__[name] = brought_here(held)
    return module


class NeedsOtherDevice(Exception):
    """What failed may run if every device that ``forward`` asks for is taken as the CPU."""


@contextmanager
def asking_for_devices() -> Iterator[None]:
    """Raise NeedsOtherDevice in place of an error that says so of a device."""
    try:
        yield
    except RnncoreError as failure:
        pass_on_interruption(failure)
        if _is_about_devices(failure):
            raise NeedsOtherDevice from failure
        raise


@contextmanager
def devices_taken_as_cpu() -> Iterator[None]:
    """Every device that is asked for inside the block is the CPU, but for "meta", where nothing is computed."""
    with _Here():
        yield


class _Here(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("cuda", "xpu", "hip"):  # x.cuda() and its like, whatever the number behind it
            return args[0]
        if name == "to":
            args = (args[0], *(_here(argument) for argument in args[1:]))
        if kwargs.get("device") is not None:
            kwargs["device"] = _here(kwargs["device"])
        return func(*args, **kwargs)


def _here(asked: Any) -> Any:
    """A device as the CPU; any other argument as it is."""
    if isinstance(asked, bool) or not isinstance(asked, str | int | torch.device):
        return asked
    known = asked if isinstance(asked, torch.device) else None if isinstance(asked, int) else torch.device(asked)
    return asked if known is not None and known.type == "meta" else _CPU


def _is_about_devices(failure: BaseException) -> bool:
    return any(_OTHER_DEVICE.search(str(link)) for link in chain_of(failure))


def _is_here(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        for _, held in _held(part):
            yield from (tensor for _, tensor in named_tensors(held, ""))


def _held(part: nn.Module) -> list[tuple[str, Any]]:
    """Plain attributes of a module that hold tensors."""
    own = [(name, value) for name, value in vars(part).items() if name not in TABLES]
    return [(name, value) for name, value in own if next(named_tensors(value, ""), None) is not None]
