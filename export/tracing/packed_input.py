"""A module that is called with a ``PackedSequence``, as one that takes padded rows and their lengths."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore.export.tracing.binding import bind
from rnncore.runtime.errors import InputError

_LENGTHS = "lengths"


class PaddedRows(nn.Module):
    """``module`` with padded rows [batch, time, ...] and lengths [batch] in place of a packed argument, and padded answers."""

    def __init__(self, module: nn.Module, packed: str) -> None:
        super().__init__()
        self.module = module
        self._packed = packed

    def run(self, named: Mapping[str, Any]) -> Any:
        """What ``module`` answers to the arguments of its forward by name, and lengths beside them."""
        given = dict(named)
        lengths = given.pop(_LENGTHS)
        given[self._packed] = pack_padded_sequence(
            given[self._packed], lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        signature = inspect.signature(self.module.forward)
        bound = inspect.BoundArguments(signature, given)
        return _padded(self.module(*bound.args, **bound.kwargs))


def without_packing(model: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    """A module that takes padded rows where the example of ``model`` is packed, and an example for it; else both as they are.

    Raises:
        InputError: several arguments are packed, or a packed one stands within another.
    """
    if isinstance(example, PackedSequence):
        example = (example,)
    values = list(example.values()) if isinstance(example, Mapping) else example
    if not _holds_packed(values):
        return model, example
    arguments = bind(model, example).arguments
    packed = [name for name, value in arguments.items() if isinstance(value, PackedSequence)]
    within = [name for name, value in arguments.items() if name not in packed and _holds_packed(value)]
    if within:
        raise InputError(
            f"a packed sequence stands within '{within[0]}' of {type(model).__name__}.forward: write a forward that has it as an "
            "argument of its own"
        )
    if len(packed) != 1 or _LENGTHS in arguments:
        raise InputError(
            f"{type(model).__name__}.forward takes packed sequences as {' and '.join(packed)}{_and_lengths(arguments)}; a file "
            "has one time axis and one input for its lengths: write a forward of padded rows and lengths that packs them"
        )
    rows, lengths = pad_packed_sequence(arguments[packed[0]], batch_first=True)
    drawn = {**arguments, packed[0]: rows, _LENGTHS: lengths}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD

    def forward(self: PaddedRows, *args: Any, **named: Any) -> Any:
        bound = forward.__signature__.bind(self, *args, **named)  # type: ignore[attr-defined]
        return self.run({name: value for name, value in bound.arguments.items() if name != "self"})

    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in ("self", *drawn)]
    )
    made = type(type(model).__name__, (PaddedRows,), {"forward": forward})
    return made(model, packed[0]).train(model.training), drawn


def _holds_packed(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_packed, value.values()))
    return isinstance(value, PackedSequence) or (isinstance(value, list | tuple) and any(map(_holds_packed, value)))


def _and_lengths(arguments: Mapping[str, Any]) -> str:
    return f" and an argument named {_LENGTHS}" if _LENGTHS in arguments else ""


def _padded(answer: Any) -> Any:
    """``answer`` with padded rows in place of packed ones."""
    if isinstance(answer, PackedSequence):
        return pad_packed_sequence(answer, batch_first=True)[0]
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, Mapping):
        return {key: _padded(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        items = [_padded(value) for value in answer]
        return type(answer)(*items) if hasattr(answer, "_fields") else type(answer)(items)
    return answer
