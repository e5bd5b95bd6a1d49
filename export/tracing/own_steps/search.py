"""Which parts of a module have a step of their own that answers as their ``forward`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.own_steps.method import Method, cache_of, cached_readings, methods_of, readings
from rnncore.export.tracing.own_steps.own_step import Given, OwnStep, prepare, run_by_step
from rnncore.export.tracing.own_steps.seen import Calls, Seen, calls_of, operations_of
from rnncore.export.tracing.own_steps.starts import Start, past_after_one, starts, zeros_after
from rnncore.export.tracing.own_steps.values import tensors_in
from rnncore.runtime.error_boundary import pass_on_interruption

_CLOSE = 1e-3
"""Most that a step may differ from ``forward``, of the largest number: the file is proved later, this only tells kinds apart."""

_REACH = 8  # steps that a convolution may look back


@dataclass(frozen=True)
class FoundStep:
    """The part at ``path`` may be computed by its own step.

    loops: its ``forward`` is a loop over time already.  only: its ``forward`` is of a form that never streams.  shorter: what
    ``forward`` does for one step is less than what it does for several at once.
    """

    path: str
    step: OwnStep
    loops: bool
    only: bool
    shorter: bool

    @property
    def name(self) -> str:
        """As the user has it."""
        return f"{self.path}.{self.step.method.name}" if self.path else self.step.method.name


def parts_with_steps(module: nn.Module) -> list[str]:
    """Paths of the parts of ``module`` that have a method, or an argument, of such a name."""
    return [path for path, part in module.named_modules() if methods_of(part) or cache_of(part)]


def find_own_steps(module: nn.Module, example: Example, seed: int) -> list[FoundStep]:
    """Steps of parts of ``module``, outer parts first, whose outputs remember what was long ago."""
    paths = parts_with_steps(module)
    calls = calls_of(module, paths, example, seed) if paths else {}
    trial = copied(module)
    found = []
    for path in paths:
        if path not in calls:
            continue
        part = trial.get_submodule(path)
        try:
            with unchanged(part), torch.no_grad():
                if not _remembers(part, calls[path]):
                    continue
                prepare(part)
                step = _Search(part, calls[path]).run()
        except Exception as failure:  # of the module's own
            pass_on_interruption(failure)
            continue
        if step is not None:
            seen = calls[path]
            found.append(FoundStep(path, step, seen.loops, seen.streams_never, _is_shorter(part, step, seen)))
    return found


def by_own_steps(module: nn.Module, steps: Sequence[FoundStep]) -> nn.Module:
    """``module`` itself if there are no ``steps``, else a copy whose parts compute ``forward`` by them."""
    if not steps:
        return module
    made = copied(module)
    for found in steps:
        run_by_step(made.get_submodule(found.path), found.step)
    return made


def _remembers(part: nn.Module, calls: Calls) -> bool:
    """Whether the last step notices one of some steps before: a short convolution does not, and carries its context by itself."""
    arguments = _own(calls.many.arguments)
    for name, value in calls.few.arguments.items():
        if isinstance(value, Tensor) and (time := calls.axes_of(name)[1]) is not None:
            entry = arguments[name].select(time, -1 - _REACH)
            entry.copy_(entry + 1 if value.is_floating_point() else arguments[name].select(time, 0))
    after = [value for _, value in named_tensors(part(**arguments), "")]
    for number, (a, b) in enumerate(zip(calls.many.tensors, after, strict=True)):
        time = calls.axes_of(number)[1]
        if time is not None and not torch.equal(a.select(time, -1), b.select(time, -1)):
            return True
    return False


def _is_shorter(part: nn.Module, step: OwnStep, calls: Calls) -> bool:
    """Whether ``forward``, the same for any number of steps, goes another way for one, with two thirds of the operations."""
    if step.method.name != "forward" or calls.few.work.operations != calls.many.work.operations:
        return False
    one = operations_of(lambda: next(step.steps(part, _own(calls.few.arguments))))
    return 3 * one <= 2 * calls.few.work.operations


def _own(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}


class _Search:
    """Tries the ways in which a part may be computed by its own step on calls of its ``forward``."""

    def __init__(self, part: nn.Module, calls: Calls) -> None:
        self._part, self._calls, self._kind = part, calls, type(part)
        self._axes: dict[str, tuple[int | None, int]] = {}
        for name, value in calls.few.arguments.items():
            if isinstance(value, Tensor):
                rows, time = calls.axes_of(name)
                if time is not None:
                    self._axes[name] = (rows, time)
        self._times = [calls.axes_of(number)[1] for number in range(len(calls.few.tensors))]

    def run(self) -> OwnStep | None:
        """The first way that answers as ``forward`` does; None if none does."""
        if not any(rows is not None for rows, _ in self._axes.values()) or all(time is None for time in self._times):
            return None
        for method in self._ways():
            for start in self._starts(method):
                step = self._tried(method, start)
                if step is not None:
                    return step
        return None

    def _ways(self) -> Iterator[Method]:
        sequences = list(self._axes)
        others = {name: value for name, value in self._calls.few.arguments.items() if name not in self._axes}
        for name in methods_of(self._part):
            yield from readings(self._part, name, sequences, others)
        cache = cache_of(self._part)
        if cache is not None and others.get(cache) is None:
            yield from cached_readings(self._part, cache, sequences, others)

    def _starts(self, method: Method) -> Iterator[Start]:
        yield from self._zeros_given()
        for start in starts(self._part):
            if type(start) is Start:
                yield from self._zeros(method, start)
            if not start.blank:
                yield start

    def _zeros_given(self) -> Iterator[Start]:
        """Zeros like what ``forward`` itself gives beside its first result: ``y, state = layer(x)``."""
        given = [seen.outputs for seen in (self._calls.few, self._calls.rows)]
        if all(type(own) in (tuple, list) and len(own) > 1 for own in given):
            name, (rows, _) = next((n, axes) for n, axes in self._axes.items() if axes[0] is not None)
            sizes = [seen.arguments[name].shape[rows] for seen in (self._calls.few, self._calls.rows)]
            with suppress(ValueError):  # of several kinds
                yield from zeros_after([(n, tuple(own[1:])) for n, own in zip(sizes, given, strict=True)])

    def _zeros(self, method: Method, start: Start) -> Iterator[Start]:
        pasts = []
        for seen in (self._calls.few, self._calls.rows):
            step = self._step(method, start, [])
            arguments = _own(seen.arguments)
            name, (rows, _) = next((n, axes) for n, axes in self._axes.items() if axes[0] is not None)
            past = past_after_one(self._part, step.entries(arguments, 0), arguments[name].shape[rows], method, start)
            if past is None:
                return
            pasts.append((arguments[name].shape[rows], past))
        with suppress(ValueError):  # of several kinds
            yield from zeros_after(pasts)

    def _step(self, method: Method, start: Start, given: Sequence[Given]) -> OwnStep:
        return OwnStep(self._kind, method, start, self._axes, self._calls.few.outputs, given)

    def _tried(self, method: Method, start: Start) -> OwnStep | None:
        try:
            step = self._step(method, start, [])
            given = self._given(step, self._calls.few)
            if given is None:
                return None
            step = self._step(method, start, given)
            for seen in self._calls.all:
                got = [value for _, value in named_tensors(step.run(self._part, _own(seen.arguments)), "")]
                if not _alike(got, seen.tensors):
                    return None
        except Exception as failure:  # it is not called so
            pass_on_interruption(failure)
            return None
        return step

    def _given(self, step: OwnStep, seen: Seen) -> list[Given] | None:
        """Where what ``forward`` gives comes from; None if it does not come from ``step``, or its past grows."""
        kept, shapes, past = [], [], ()
        for values, past in step.steps(self._part, _own(seen.arguments)):
            kept.append(values)
            shapes.append([tuple(tensor.shape) for tensor in tensors_in(past)])
        if not shapes[0] or shapes[1] != shapes[-1]:
            return None
        last, found = list(tensors_in(past)), []
        for number, (wanted, time) in enumerate(zip(seen.tensors, self._times, strict=True)):
            if number < len(kept[0]):
                found.append(Given(number, time))
                continue
            same = [k for k, tensor in enumerate(last) if _alike([tensor], [wanted])]
            if not same:
                return None
            found.append(Given(same[0], of_past=True))
        return found


def _alike(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    if [(a.shape, a.dtype) for a in got] != [(b.shape, b.dtype) for b in wanted]:
        return False
    for a, b in zip(got, wanted, strict=True):
        if not b.numel():
            continue
        scale = max(1.0, float(b.abs().max())) if b.is_floating_point() else 0.0
        if not bool(((a.double() - b.double()).abs() <= _CLOSE * scale).all()):
            return False
    return True
