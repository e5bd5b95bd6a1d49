"""Lengths that code takes out of their tensor while it is traced.

``lengths.max().item()`` is a size: where the longest row is as long as the array, the two are one number.  Code makes masks with
it (``torch.arange(lengths.max()) < lengths[:, None]``).  A file cannot turn a value into a size; but in all that is traced and
compared the largest count is the size of the axis that it counts along, and so it is that size.

``lengths.tolist()`` is a list for ``pack_padded_sequence``, and remembers which tensor it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_true
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.callers import user_lines
from rnncore.runtime.errors import ExportError

_SAME = ("to", "long", "int", "cpu", "clone", "detach", "contiguous", "type", "type_as")
_LARGEST = ("max", "amax")
_EACH = ("unbind", "tolist", "numpy")  # the first is what iterates over a tensor


class EachRow:
    """What stands for all numbers of a batch where code takes them one by one: a trace does not know how many there are.

    A list of it is good for packing with, and for nothing else.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def item(self) -> EachRow:
        """Itself, as a number of Python."""
        return self

    def _refuse(self, *_: Any) -> Any:
        lines = user_lines(2)
        raise one_by_one(str(lines[-1]) if lines else "")

    __index__ = __int__ = __float__ = __bool__ = __array__ = __lt__ = __gt__ = __le__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __truediv__ = __mod__ = _refuse


def one_by_one(line: str) -> ExportError:
    """That ``line`` of the user's code computes with single lengths in a way that is no mask of all rows."""
    return ExportError(
        "forward computes with the lengths of a batch one by one, as numbers of Python (tolist(), a loop over them), which "
        "a trace would freeze; compute with the tensor: torch.arange(n) < lengths[:, None] is a mask of all rows; or export with "
        "an example whose rows are all full: the file then takes full rows, and lists of sequences in groups of one length"
        f"{f':{chr(10)}  {line}' if line else ''}"
    )


def listed(value: Any) -> Any:
    """The tensor that a list of all its numbers stands for; anything else as it is."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], EachRow):
        return value[0].tensor
    return value


class _Counts(TorchFunctionMode):
    """Knows which tensors are counts, and which are the largest of them."""

    def __init__(self, counts: Sequence[tuple[Tensor, Any]]) -> None:
        super().__init__()
        self._counts = {id(tensor): size for tensor, size in counts}
        self._largest: dict[int, Any] = {}
        self._kept: list[Tensor] = [tensor for tensor, _ in counts]  # or an identity would be given to another tensor

    def largest(self, value: Any) -> Any:
        """The size that ``value`` is, None for anything else."""
        return self._largest.get(id(value)) if isinstance(value, Tensor) else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in _EACH and is_count(args[0]) and not isinstance(args[0].shape[0], int):
            return [EachRow(args[0])]
        if name in ("tensor", "as_tensor") and args and listed(args[0]) is not args[0]:
            return listed(args[0])
        if name == "item" and self.largest(args[0]) is not None:
            return self.largest(args[0])
        if name == "arange":
            args = tuple(arg if self.largest(arg) is None else self.largest(arg) for arg in args)
            kwargs = {key: arg if self.largest(arg) is None else self.largest(arg) for key, arg in kwargs.items()}
        result = func(*args, **kwargs)
        if args and isinstance(result, Tensor) and not result.is_floating_point():
            self._note(name, args, kwargs, result)
        return result

    def _note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> None:
        for known in (self._counts, self._largest):
            if name in _SAME and id(args[0]) in known:
                known[id(result)] = known[id(args[0])]
                self._kept.append(result)
        if name in _LARGEST and len(args) == 1 and not kwargs and id(args[0]) in self._counts:
            self._largest[id(result)] = self._counts[id(args[0])]
            self._kept.append(result)


_active: ContextVar[_Counts | None] = ContextVar("rnncore_counts", default=None)


@contextmanager
def counts_as_sizes(counts: Sequence[tuple[Tensor, Any]]) -> Iterator[None]:
    """Let the largest of each tensor of counts be the size beside it, inside the block."""
    mode = _Counts(counts)
    token = _active.set(mode)
    try:
        with mode:
            yield
    finally:
        _active.reset(token)


def size_counted(value: Any) -> Any:
    """The size that ``value``, the largest of some counts, is; None for anything else."""
    mode = _active.get()
    return None if mode is None else mode.largest(value)


def is_count(value: Tensor) -> bool:
    """Whether a tensor may hold one count for each row."""
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return value.dim() == 1 and whole and guard_or_true(value.shape[0] > 0)
