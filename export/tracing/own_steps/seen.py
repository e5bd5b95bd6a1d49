"""What parts of a module are called with and give, at several sizes: which of their axes are those of the rows and of time."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.format.axes import BATCH, TIME

FEW, MORE, MANY = 7, 12, 40  # steps
_SUMS = ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
_LAYERS = ("lstm", "gru", "rnn")


@dataclass(frozen=True)
class Work:
    """What torch did in a call: operations, results of time x time, sums that run along time, layers that do."""

    operations: int = 0
    squares: int = 0
    sums: int = 0
    layers: int = 0

    def __sub__(self, other: Work) -> Work:
        return Work(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Seen:
    """One call of a part: its arguments by name, those of ``**kwargs`` too, what it gave, and what torch did for it."""

    arguments: Mapping[str, Any]
    outputs: Any
    work: Work

    @property
    def tensors(self) -> list[Tensor]:
        """All that it gave."""
        return [value for _, value in named_tensors(self.outputs, "")]


@dataclass(frozen=True)
class Calls:
    """The same call at two rows and few steps, three rows, more steps, and many steps."""

    few: Seen
    rows: Seen
    more: Seen
    many: Seen

    @property
    def all(self) -> tuple[Seen, ...]:
        """In this order."""
        return (self.few, self.rows, self.more, self.many)

    def axes_of(self, what: str | int) -> tuple[int | None, int | None]:
        """Which axes of an argument, by name, or of a result, by number, are rows and time.

        Raises:
            ValueError: more than one axis follows either.
        """
        few, rows, more = (
            seen.arguments[what] if isinstance(what, str) else seen.tensors[what]
            for seen in (self.few, self.rows, self.more)
        )
        return _axis(few, rows), _axis(few, more)

    @property
    def loops(self) -> bool:
        """Whether the part runs so many more operations for each step more: a loop in Python, which is rolled as it is."""
        few, more, many = (seen.work.operations for seen in (self.few, self.more, self.many))
        return (many - few) * (MORE - FEW) == (more - few) * (MANY - FEW) and more - few >= MORE - FEW

    @property
    def streams_never(self) -> bool:
        """Whether the part computes all steps at once in a form that no file can carry on from step to step.

        Running sums and layers may be carried, unless what they give is put into a table of time x time.
        """
        done = [seen.work for seen in self.all]
        squares = all(work.squares for work in done)
        return not self.loops and (squares or not any(work.sums or work.layers for work in done))


def _axis(one: Tensor, other: Tensor) -> int | None:
    if one.dim() != other.dim():
        raise ValueError("another number of axes")
    found = [k for k, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b]
    if len(found) > 1:
        raise ValueError("several axes follow one size")
    return found[0] if found else None


def calls_of(module: nn.Module, paths: Sequence[str], example: Example, seed: int) -> dict[str, Calls]:
    """The first call of each of the parts at ``paths`` that ``module`` calls at all sizes."""
    if BATCH not in example.axis_names or TIME not in example.axis_names:
        return {}
    found: dict[str, list[Seen]] = defaultdict(list)
    generator = torch.Generator().manual_seed(seed)
    sizes = ((2, FEW), (3, FEW), (2, MORE), (2, MANY))
    for k, (rows, steps) in enumerate(sizes):
        fitting = example.fit({BATCH: rows, TIME: steps})
        drawn = example.draw(fitting, generator)
        try:
            seen = _seen(module, paths, lambda drawn=drawn: example.call(module, drawn), fitting[TIME])  # type: ignore[misc]
        except Exception as failure:  # it does not take such sizes
            pass_on_interruption(failure)
            return {}
        for path, call in seen.items():
            if len(found[path]) == k:
                found[path].append(call)
    return {path: Calls(*seen) for path, seen in found.items() if len(seen) == len(sizes)}


class _Count(TorchDispatchMode):
    """Counts what torch does; ``steps``: how many there are."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.").partition(".")[0]
        square = isinstance(result, Tensor) and list(result.shape).count(self._steps) > 1
        summed = name in _SUMS and args[0].dim() > 0 and args[0].shape[args[1]] == self._steps
        layer = any(part in name for part in _LAYERS)
        done = self.work
        self.work = Work(done.operations + 1, done.squares + square, done.sums + summed, done.layers + layer)
        return result


def operations_of(call: Callable[[], Any]) -> int:
    """How many operations torch does in ``call``."""
    count = _Count(0)
    with torch.no_grad(), count:
        call()
    return count.work.operations


def _seen(module: nn.Module, paths: Sequence[str], call: Callable[[], Any], steps: int) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    count = _Count(steps)
    with ExitStack() as stack, torch.no_grad(), unchanged(module):
        for path in paths:
            part = module.get_submodule(path)
            for handle in _hooks(part, path, found, count):
                stack.callback(handle.remove)
        with count:
            call()
    return found


def _hooks(part: nn.Module, path: str, found: dict[str, Seen], count: _Count) -> list[Any]:
    begun: list[tuple[dict[str, Any] | None, Work]] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        begun.append((_by_name(part, args, kwargs), count.work))

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        arguments, start = begun.pop()
        if path not in found and arguments is not None:
            found[path] = Seen(arguments, _kept(outputs), count.work - start)

    return [
        part.register_forward_pre_hook(before, with_kwargs=True),
        part.register_forward_hook(after, with_kwargs=True),
    ]


def _by_name(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Arguments by name; None where some have no name."""
    return None if (named := by_name(part.forward, args, kwargs)) is None else {n: _kept(v) for n, v in named.items()}


def by_name(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """What ``function`` is called with, by the names of its parameters and of ``**kwargs``; None where something has no name."""
    try:
        signature = inspect.signature(function)
        bound = signature.bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            return None
        named.update(value if kind == inspect.Parameter.VAR_KEYWORD else {name: value})
    return named


def _kept(value: Any) -> Any:
    """A tensor as it is now, whatever happens to it; other values themselves."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (tuple, list):
        return type(value)(map(_kept, value))
    return value
