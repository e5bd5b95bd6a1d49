"""Numbers that a module was told when it was built, and that are the size of an axis: ``Net(batch_size=32)``.

``x.view(self.batch_size, -1)`` and ``torch.zeros(1, self.args.batch_size, 64)`` take no other batch.  Where a module fails at
another size as long as such a number stays, and runs once the number follows, the number is read off its input in every call:
the file is that of the module that was built for each of these sizes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rnncore.export.tracing.following_numbers import copied_and_bound, has_to_follow, is_called_batch, runs
from rnncore.export.tracing.nesting import named_tensors

_AXES = (0, 1)
"""Rows and steps are among the first two."""
Number = tuple[str, str, str | None]
"""(path of a module, attribute of it, entry of what that is, if it is a dict or an object)."""


def with_told_numbers(model: nn.Module, example: Any) -> tuple[nn.Module, str] | None:
    """A copy of ``model`` in which numbers follow the sizes of its inputs, and what to say of it; None where none has to."""
    bound_copy = copied_and_bound(model, example)
    if bound_copy is None:
        return None
    made, bound = bound_copy
    said = []
    for axis in _AXES:
        tensors = [tensor for _, tensor in named_tensors(list(bound.arguments.values()), "")]
        found = _following(made, bound, tensors, axis)
        if found is not None:
            numbers, place = found
            names = ", ".join(f"'{'.'.join(part for part in number if part)}'" for number in numbers)
            said.append(f"{names} is the size of axis {axis}, and follows it")
            _follow(made, numbers, place, axis)
    return (made, "; ".join(said)) if said else None


def _following(
    module: nn.Module, bound: inspect.BoundArguments, tensors: Sequence[Tensor], axis: int
) -> tuple[Sequence[Number], int] | None:
    """The numbers that have to follow an axis, and which of ``tensors`` tells its size."""
    sizes = dict.fromkeys(tensor.shape[axis] for tensor in tensors if tensor.dim() > axis and tensor.shape[axis] > 1)
    for size in sizes:
        along = {k for k, tensor in enumerate(tensors) if tensor.dim() > axis and tensor.shape[axis] == size}
        for numbers in _groups([number for number, value in _told(module) if value == size]):

            def run(changed: Sequence[Tensor], now: int, numbers: Sequence[Number] = numbers) -> bool:
                with _set(module, numbers, now):
                    return runs(module, bound, list(bound.arguments.values()), changed)

            if has_to_follow(run, tensors, along, axis, steps=not all(map(_is_called_batch, numbers))):
                return numbers, min(along)
    return None


def _groups(numbers: Sequence[Number]) -> Iterator[Sequence[Number]]:
    """Those that are called so, each by itself, all together."""
    groups = [list(filter(_is_called_batch, numbers)), *([number] for number in numbers), list(numbers)]
    for k, group in enumerate(groups):
        if group and group not in groups[:k]:
            yield group


def _is_called_batch(number: Number) -> bool:
    return is_called_batch(number[2] or number[1])


def _told(module: nn.Module) -> Iterator[tuple[Number, int]]:
    """Whole numbers in attributes of what is no module of torch's own, and in dicts and plain objects that are attributes."""
    for path, part in module.named_modules():
        if type(part).__module__.partition(".")[0] == "torch":
            continue
        for name, value in vars(part).items():
            if type(value) is int:
                yield (path, name, None), value
            elif name not in ("_parameters", "_buffers", "_modules"):
                for entry, own in _entries(value).items():
                    if isinstance(entry, str) and type(own) is int:
                        yield (path, name, entry), own


def _entries(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, MutableMapping):
        return value
    plain = not isinstance(value, nn.Module | Tensor | type) and not callable(value)
    return getattr(value, "__dict__", {}) if plain else {}


def _follow(module: nn.Module, numbers: Sequence[Number], place: int, axis: int) -> None:
    """Change ``module`` so that ``numbers`` are the size of an axis of its tensor number ``place`` in each call."""
    before = module.forward

    @functools.wraps(before)
    def forward(*args: Any, **kwargs: Any) -> Any:
        tensors = [tensor for _, tensor in named_tensors([*args, *kwargs.values()], "")]
        with _set(module, numbers, tensors[place].shape[axis]):
            return before(*args, **kwargs)

    module.forward = forward


@contextmanager
def _set(module: nn.Module, numbers: Sequence[Number], size: Any) -> Iterator[None]:
    holders: list[tuple[Any, str]] = []
    for path, name, entry in numbers:
        held = vars(module.get_submodule(path))
        holders.append((held, name) if entry is None else (_entries(held[name]), entry))
    before = [holder[name] for holder, name in holders]
    for holder, name in holders:
        holder[name] = size
    try:
        yield
    finally:
        for (holder, name), value in zip(holders, before, strict=True):
            holder[name] = value
