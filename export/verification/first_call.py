"""Modules whose first call in eval mode changes their weights for good, as RWKV divides those of its deeper layers.

What such a call leaves in an attribute (that it was done) is taken back between the runs of an export, what it wrote into a
tensor is not: the weights would be divided at each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import BoundArguments
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.copying import TABLES, copied, unchanged
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.verification.repeatable import answer, same_answers
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError

_LATER_CALLS = 2
"""The first of them shows whether it was for good, the second whether answers are the same from then on."""


def check_weights_stay(module: nn.Module, called: nn.Module, arguments: BoundArguments) -> None:
    """Refuse a ``module`` whose weights are others after every call; ``called``: a copy of it that was called.

    Raises:
        ExportError: names a weight.
    """
    moved = _moved(dict(module.named_parameters()), dict(called.named_parameters()))
    if not moved:
        return
    now = {name: value.detach().clone() for name, value in called.named_parameters() if name in moved}
    with unchanged(called):
        answer(called, arguments)
    again = _moved(now, dict(called.named_parameters()))
    if again:
        raise ExportError(
            f"forward changes its parameter '{again[0]}' in place, each time that it begins anew: a file holds the weights that "
            "it is made of; change them before the export, and leave them as they are in forward"
        )


def after_first_call(module: nn.Module, example: Any) -> tuple[nn.Module, str] | None:
    """(a copy of ``module`` as it is after its first call, what changed), if later calls change nothing more and answer alike.

    None if nothing was written into a tensor of the module, if it goes on being written to, or if the module fails.
    """
    trial = copied(module).eval()
    try:
        begun, arguments = _Held.of(trial), bind(trial, example)
        answers = [answer(trial, arguments)]
        changed = begun.changed(trial)
        after = _Held.of(trial) if changed else None
        for _ in range(_LATER_CALLS if changed else 0):
            answers.append(answer(trial, arguments))
        settled = after is not None and not after.changed(trial)
    except Exception as failure:
        pass_on_interruption(failure)
        return None
    if not changed or not settled or not all(same_answers(answers[0], own) for own in answers[1:]):
        return None
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return trial, f"the first call changes '{changed[0]}'{more}: the file holds what they are from then on"


@dataclass(frozen=True)
class _Held:
    """The tensors of a module, how often each has been written to, and copies of what they hold."""

    tensors: Mapping[str, Tensor]
    versions: Mapping[str, int]
    values: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> _Held:
        """As they are now."""
        tensors = _tensors_of(module)
        versions = {name: value._version for name, value in tensors.items()}
        return cls(tensors, versions, {name: value.detach().clone() for name, value in tensors.items()})

    def changed(self, module: nn.Module) -> list[str]:
        """Names of those that were written to since, and not made anew, as a weight that follows from others is at each call."""
        now = _tensors_of(module)
        same = {name: value for name, value in self.tensors.items() if now.get(name) is value}
        return [
            name
            for name, value in same.items()
            if value._version != self.versions[name] or _differ(self.values[name], value)
        ]


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers, and other tensors in attributes, by path."""
    registered = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    known = set(map(id, registered.values()))
    plain = {f"{path}.{name}".strip("."): value for path, name, value in _attributes(module) if id(value) not in known}
    return {**registered, **plain}


def _attributes(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in TABLES:
                yield from ((path, own, tensor) for own, tensor in named_tensors(value, name))


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Sequence[str]:
    """Names of those in both that hold something else, in the same shape."""
    return [name for name, value in before.items() if name in after and _differ(value, after[name])]


def _differ(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided or one.shape != other.shape or one.is_meta or other.is_meta:
        return False
    one, other = one.detach(), other.detach().to(one.device)
    return not torch.equal(one, other) and not torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
