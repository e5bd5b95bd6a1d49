"""The operations that a call of a module ran, in their order: what a loop is searched in.

Values are named by where they come from: an input, a weight, a constant, or a result of an earlier operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.callers import Line


@dataclass(frozen=True)
class Input:
    """An input of the module, by its place."""

    index: int


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer, by its path."""

    path: str


@dataclass(frozen=True)
class Constant:
    """A tensor that the code made of numbers; equal ones are one."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    numbers: tuple[Any, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Constant:
        """The constant with the values of ``tensor``."""
        return cls(tensor.dtype, tuple(tensor.shape), tuple(tensor.detach().reshape(-1).tolist()))

    def tensor(self) -> Tensor:
        """As a tensor."""
        return torch.tensor(self.numbers, dtype=self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Ref:
    """Result ``part`` of operation number ``op``."""

    op: int
    part: int = 0


Source = Input | Weight | Constant
SOURCES = (Input, Weight, Constant)


@dataclass(frozen=True)
class LayerCall:
    """A call of a layer of rnncore, which stays a recurrent call of its own: x, states (none: the initial ones), lengths."""

    name: str
    given: bool
    has_lengths: bool


@dataclass
class Op:
    """One operation.

    args: numbers, sources, Refs, and tuples of such for lists.  shapes and dtypes: of its results.  several: whether it
    gives a list of tensors.  lines: of the user's code, outermost first.  path: of the module whose code runs.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    several: bool
    lines: tuple[Line, ...] = ()
    path: str = ""

    @property
    def name(self) -> str:
        """Such as ``mul`` for ``aten.mul.Tensor``."""
        return str(self.target).removeprefix("aten.").partition(".")[0]

    @property
    def everything(self) -> tuple[Any, ...]:
        """All arguments as one nested tuple."""
        return (self.args, tuple(self.kwargs[name] for name in sorted(self.kwargs)))

    def with_arguments(self, everything: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments from what :attr:`everything` became."""
        args, named = everything
        return args, dict(zip(sorted(self.kwargs), named, strict=True))

    def signature(self, *, strict: bool) -> tuple[Any, ...]:
        """What equal operations share: kinds of the arguments; with ``strict`` also numbers of list entries and dtypes."""
        name = str(self.target)
        if not strict:
            return (name, len(self.args), tuple(sorted(self.kwargs)))
        ranks = tuple((len(shape), dtype) for shape, dtype in zip(self.shapes, self.dtypes, strict=True))
        return (name, tuple(sorted(self.kwargs)), _kinds(self.everything), ranks if not self.several else ranks[:1])


@dataclass
class Log:
    """What one call ran.

    sizes: of the free axes.  outputs: named results.  shapes: of values that are no results.  reads: numbers of rows that
    code took out of tensors, each with the value that it was read off.
    """

    sizes: Mapping[str, int]
    ops: list[Op] = field(default_factory=list)
    outputs: list[tuple[str, Any]] = field(default_factory=list)
    shapes: dict[Any, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[Any, torch.dtype] = field(default_factory=dict)
    reads: list[tuple[Ref, int]] = field(default_factory=list)

    def shape(self, value: Any) -> tuple[int, ...]:
        """Shape of a value."""
        return self.ops[value.op].shapes[value.part] if isinstance(value, Ref) else self.shapes[value]

    def keeping(self, kept: Sequence[int]) -> Log:
        """The log with these of its operations only, in their order; none of them reads another one."""
        places = {old: new for new, old in enumerate(kept)}

        def moved(value: Any) -> Any:
            return Ref(places[value.op], value.part) if isinstance(value, Ref) else value

        ops = []
        for i in kept:
            args, named = self.ops[i].with_arguments(mapped(self.ops[i].everything, moved))
            ops.append(replace(self.ops[i], args=args, kwargs=named))
        reads = [(moved(value), number) for value, number in self.reads if value.op in places]
        return replace(self, ops=ops, outputs=[(name, moved(value)) for name, value in self.outputs], reads=reads)

    def used(self) -> Log:
        """The log with those operations only that are read."""
        return self.keeping(sorted(self.read()))

    def read(self) -> set[int]:
        """The operations that outputs are computed from, or numbers read off, and questions, which give nothing."""
        found: set[int] = set()
        todo = [value for _, value in self.outputs] + [value for value, _ in self.reads]
        todo += [Ref(i) for i, op in enumerate(self.ops) if not op.shapes]
        while todo:
            value = todo.pop()
            if isinstance(value, Ref) and value.op not in found:
                found.add(value.op)
                todo += leaves(self.ops[value.op].everything)
        return found

    def dtype(self, value: Any) -> torch.dtype:
        """dtype of a value."""
        return self.ops[value.op].dtypes[value.part] if isinstance(value, Ref) else self.dtypes[value]


def _kinds(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_kinds(item) for item in value)
    if isinstance(value, (Ref, *SOURCES)):
        return "tensor"
    if type(value) in (int, float):
        return type(value).__name__
    return repr(value)


def leaves(value: Any) -> Iterator[Any]:
    """What nested tuples hold, in order."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples with each leaf changed."""
    return tuple(mapped(item, change) for item in value) if isinstance(value, tuple) else change(value)
