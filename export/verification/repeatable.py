"""Before anything else: does the module answer the same when it is asked the same, and leave itself as it was?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.export.verification.drawn_lines import line_that_draws
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError

TWICE = "forward is random (called twice, it answers differently)"
_OF_TORCH = {name for part in (nn.Module(), nn.LSTM(1, 1)) for name in vars(part) if name.startswith("_")}
"""Attributes of torch's own: what it registers, hooks, weights in a list."""
ROUNDING = 64.0
"""Most units in the last place, of the largest number, between two answers to one question: what a processor that adds in
another order gives.  Dropout and noise are off by thousands.
"""


@dataclass(frozen=True)
class Snapshot:
    """Buffers and plain attributes of a module, to see later what its forward has moved."""

    buffers: Mapping[str, Tensor]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> Snapshot:
        """Copies of all buffers, and of attributes that are plain numbers, texts or small tensors."""
        return cls({name: value.detach().clone() for name, value in module.named_buffers()}, dict(_attributes(module)))

    def moved_buffers(self, module: nn.Module) -> list[str]:
        """Names of buffers that hold something else now, or were not there."""
        now = dict(module.named_buffers())
        return [name for name in self.buffers if name not in now or not _equal(self.buffers[name], now[name])]

    def moved_attributes(self, module: nn.Module) -> list[str]:
        """Names of attributes that are something else now."""
        now = dict(_attributes(module))
        return [name for name, value in now.items() if name not in self.attributes or self.attributes[name] != value]


class Remembers(ExportError):
    """Answers depend on an attribute that forward moves; ``attributes``: all that move, by path."""

    def __init__(self, attributes: Sequence[str], begun: str | None = None) -> None:
        way_out = "hand what it remembers in as an argument and return what it becomes"
        if begun is not None:
            way_out = (
                f"'{begun}' holds other numbers than zeros: if it is the end of an earlier call, put zeros or None there first "
                "(model.reset(), say); if sequences start with it, take it as an argument and return what it becomes"
            )
        super().__init__(
            f"forward moves attribute '{attributes[0]}': called twice on equal inputs, it answers differently; {way_out}"
        )
        self.attributes = tuple(attributes)
        self.way_out_is_an_argument = begun is None


def check_repeatable(module: nn.Module, arguments: inspect.BoundArguments) -> tuple[str, ...]:
    """Call ``module``, fresh and in eval mode, on its example: twice, on other values, and once more.

    A call that fails is no matter of this check.  What an attribute or a buffer only remembers (a mask, the last attention, the
    membranes of neurons that each call begins anew) is none either, as long as no answer depends on it.

    Returns:
        Attributes that answers depend on and that may be a state, as they start from zeros or nothing: see
        :func:`check_carried`.  ``module`` is as it was.

    Raises:
        ExportError: a buffer moves that an answer depends on, or equal inputs get different answers.
    """
    before = Snapshot.of(module)
    begun_before = {name for name, value in _attribute_values(module).items() if not _is_empty(value)}
    with unchanged(module):
        try:
            _check_answers(module, arguments, before)
        except Remembers as reason:
            remembers, ends = reason, _attribute_values(module)
        else:
            return ()
    moved = remembers.attributes
    begun = [name for name in moved if name in begun_before]  # asked before: forward may write into the same list
    if begun:
        raise Remembers(moved, begun[0])
    if not any(_has_tensor(ends.get(name)) for name in moved) or before.moved_attributes(module):
        raise remembers
    answers = []
    for _ in range(2):
        with unchanged(module):
            answers.append(answer(module, arguments))
    if not same_answers(*answers):
        raise _random(module, arguments)
    return moved


def check_carried(module: nn.Module, parts: Sequence[Callable[[], Any]], attributes: Sequence[str]) -> None:
    """Whether ``module``, called on one part of a sequence after the other, answers as on the ``whole``, the first of ``parts``.

    Raises:
        ExportError: it does not, so that ``attributes`` are no state of a stream.
    """
    with unchanged(module), torch.no_grad():
        whole = _tensors(parts[0]())
    with unchanged(module), torch.no_grad():
        first, second = (_tensors(part()) for part in parts[1:])
    for number, value in enumerate(whole):
        joined = second[number]
        axes = [k for k in range(value.dim()) if first[number].shape[k] + joined.shape[k] == value.shape[k]]
        if joined.dim() == value.dim() and joined.shape != value.shape and axes:
            joined = torch.cat([first[number], joined], axes[0])
        if joined.shape != value.shape or not torch.allclose(
            joined.double(), value.double(), atol=1e-4, equal_nan=True
        ):
            raise Remembers(attributes)


def _check_answers(module: nn.Module, arguments: inspect.BoundArguments, before: Snapshot) -> None:
    try:
        first = answer(module, arguments)
        again = answer(module, arguments)
    except Exception as failure:
        pass_on_interruption(failure)
        return
    moving = before.moved_buffers(module)
    if moving and not (same_answers(first, again) and _begins_anew(module, arguments, before, first)):
        if not same_answers(*(_answer_from(module, arguments, before) for _ in range(2))):
            raise _random(module, arguments)  # it is not the buffers: they begin alike
        _refuse_moved(moving)
    try:
        answer(module, arguments, lambda tensor: tensor.flip(tuple(range(tensor.dim()))))
    except Exception as failure:
        pass_on_interruption(failure)
        after = again  # the module does not take these values
    else:
        after = answer(module, arguments)
    later = [name for name in before.moved_buffers(module) if name not in moving]
    if later and not (same_answers(first, after) and _begins_anew(module, arguments, before, first)):
        _refuse_moved(later)
    if same_answers(first, again) and same_answers(first, after):
        return
    moved = before.moved_attributes(module)
    if moved and same_answers(*(_answer_from(module, arguments, before) for _ in range(2))):
        raise Remembers(moved)
    raise _random(module, arguments)


def _random(module: nn.Module, arguments: inspect.BoundArguments) -> ExportError:
    where = line_that_draws(lambda: answer(module, arguments))
    return ExportError(
        f"{TWICE}: a file answers equal questions equally; leave out what draws random numbers{where}, or hand them in as an "
        "argument"
    )


def _answer_from(module: nn.Module, arguments: inspect.BoundArguments, before: Snapshot) -> list[Tensor]:
    """The answer of ``module`` with its buffers as they were ``before``."""
    for name, value in before.buffers.items():
        path, _, own = name.rpartition(".")
        module.get_submodule(path)._buffers[own] = value.clone()
    with unchanged(module):
        return answer(module, arguments)


def _begins_anew(
    module: nn.Module, arguments: inspect.BoundArguments, before: Snapshot, right: Sequence[Tensor]
) -> bool:
    """Whether no answer depends on the buffers that ``module`` moves: any other values in them give ``right`` as well."""
    for as_it_was in (False, True):
        for name in before.moved_buffers(module):
            path, _, own = name.rpartition(".")
            buffers = module.get_submodule(path)._buffers
            value = before.buffers[name] if as_it_was else buffers.get(own)
            if value is None:
                return False
            buffers[own] = ~value if value.dtype == torch.bool else value * 3 + 7
        try:
            found = answer(module, arguments)
        except Exception as failure:  # it reads them
            pass_on_interruption(failure)
            return False
        if not same_answers(right, found):
            return False
    return True


def _refuse_moved(buffers: Sequence[str]) -> None:
    if buffers:
        more = f" and {len(buffers) - 1} more" if len(buffers) > 1 else ""
        raise ExportError(
            f"forward moves buffer '{buffers[0]}'{more}: a second call would start from another value; hand the buffer in as "
            "an argument and return what it becomes"
        )


def same_answers(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors are equal but for rounding in another order."""
    return len(first) == len(second) and all(_close(a, b) for a, b in zip(first, second, strict=True))


def answer(
    module: nn.Module, arguments: inspect.BoundArguments, change: Callable[[Tensor], Tensor] = torch.clone
) -> list[Tensor]:
    """All tensors that ``module`` gives for copies of ``arguments``, or for what ``change`` makes of them."""
    filled = {}
    for name, value in arguments.arguments.items():
        filled[name] = with_tensors(value, iter([change(tensor) for _, tensor in named_tensors(value, name)]))
    bound = inspect.BoundArguments(arguments.signature, filled)
    with torch.no_grad():
        return _tensors(module(*bound.args, **bound.kwargs))


def _tensors(outputs: Any) -> list[Tensor]:
    return [tensor.detach().clone() for _, tensor in named_tensors(outputs, "")]


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if _equal(a, b):
        return True
    if not a.is_floating_point():
        return False
    allowed = ROUNDING * torch.finfo(a.dtype).eps
    a, b = a.double(), b.double()
    finite = a.isfinite() & b.isfinite()
    if not _equal(a[~finite], b[~finite]):
        return False
    size = max(1.0, float(a[finite].abs().max())) if finite.any() else 1.0
    return bool(((a[finite] - b[finite]).abs() <= allowed * size).all())


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equal numbers, NaN equal to NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(a, b) or ((a == b) | ((a != a) & (b != b))).all())


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Plain attributes of a module and its parts, by path, in a form that can be compared."""
    for name, value in _attribute_values(module).items():
        if (plain := _plain(value)) is not None:
            yield name, plain


def _attribute_values(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module and its parts, by path."""
    return {
        f"{path}.{name}" if path else name: value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in _OF_TORCH
    }


def _is_empty(value: Any) -> bool:
    """Whether an attribute is a state that has not begun: no tensor in it, or zeros."""
    if isinstance(value, Tensor):
        return not bool(value.any())
    return all(_is_empty(part) for part in value) if isinstance(value, tuple | list) else True


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(map(_has_tensor, value)))


def _plain(value: Any) -> Any:
    """A value that compares by what it holds; None for what is too large or no plain data."""
    if isinstance(value, bool | int | float | str | bytes):
        return (type(value).__name__, value)
    if isinstance(value, Tensor):
        known = value.numel() <= 1 << 20 and value.layout == torch.strided
        return (str(value.dtype), tuple(value.shape), str(value.detach().cpu().tolist()) if known else id(value))
    if isinstance(value, tuple | list):
        return (type(value).__name__, *map(_plain, value))
    if isinstance(value, dict):
        return ("dict", *((str(key), _plain(item)) for key, item in value.items()))
    return None
