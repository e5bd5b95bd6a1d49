"""How a method of a module computes one step: what it takes of the sequences, of the past, and what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from rnncore.export.tracing.nesting import named_tensors

METHODS = (
    *("step", "forward_step", "step_forward", "one_step", "single_step", "recurrent_step", "step_recurrent"),
    *("forward_recurrent", "recurrent_forward", "recurrent", "forward_one_step", "forward_single_step"),
    *("inference_step", "decode_step", "decoding_step", "online_step", "stream_step", "forward_recursive"),
)
"""Names that people give to a method that computes one step."""
CACHES = (
    *("cache", "cache_params", "past_key_values", "inference_cache", "state", "states", "h", "hidden_state"),
    *("prev_hidden", "prev_hiddens", "prev_state", "prev_states", "prev_memory", "prev_memories", "past_state"),
)
"""Names of the argument by which a ``forward`` takes what it has computed before."""
_KEPT = ("hidden", "state", "cache", "memor", "prev", "past")
"""Part of the name of a flag, such as ``return_next_state``, with which ``forward`` gives that, too."""
COUNTERS = frozenset(
    ("n", "t", "i", "k", "idx", "index", "pos", "position", "offset", "step", "step_idx", "timestep", "seq_idx")
)
"""Names of arguments that say which step it is."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Unlike(ValueError):
    """A call gave something that is no step of this kind."""


@dataclass(frozen=True)
class Method:
    """One way of calling a method for one step.

    sequences: arguments of ``forward`` that run along time, each with the parameter of the method that takes a step of it.
    keeps_time: a step has an axis of 1 there.  carried: parameters that may take the past, in order.  needed: so many of them,
    the first ones, have no default.  counter: the one that
    takes the number of the step, and the number of the first.  given: other arguments.  cache: the past is an object that
    goes in and comes out by this name, beside what the module gives.
    """

    name: str
    sequences: Mapping[str, str]
    keeps_time: bool
    carried: Sequence[str]
    any_name: bool
    counter: tuple[str, int] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    cache: str | None = None
    needed: int = 0

    def call(
        self, part: nn.Module, kind: type, entries: Mapping[str, Tensor], past: tuple[Any, ...] | None, number: int
    ) -> tuple[Any, tuple[Any, ...]]:
        """One step: (what it gives, the past of the next one).

        Raises:
            Unlike: the method gives no past, or one that it does not take.  Whatever the method raises.
        """
        arguments: dict[str, Any] = {**self.given, **{self.sequences[own]: entry for own, entry in entries.items()}}
        if past is not None:
            arguments |= self._taking(past)
        if self.counter is not None:
            arguments[self.counter[0]] = number + self.counter[1]
        result = getattr(kind, self.name)(part, **arguments)
        if self.cache is not None:
            found = _found_by_name(result, self.cache)
            return result, (found,)
        if type(result) not in (tuple, list) or len(result) < 2:
            raise Unlike("it gives one thing only")
        return result[0], tuple(result[1:])

    def _are_names(self, past: Mapping[Any, Any]) -> bool:
        if self.any_name:
            return all(isinstance(key, str) for key in past)
        return bool(past) and set(past) <= set(self.carried)

    def _taking(self, past: tuple[Any, ...]) -> dict[str, Any]:
        if self.cache is not None:
            return {self.cache: past[0]}
        if len(past) == 1 and isinstance(past[0], Mapping) and self._are_names(past[0]):
            return dict(past[0])
        if len(past) <= len(self.carried):
            return dict(zip(self.carried, past, strict=False))
        if len(self.carried) == 1:
            return {self.carried[0]: past}
        raise Unlike("it gives more than it takes")


def _found_by_name(result: Any, name: str) -> Any:
    found = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
    if found is None and type(result) in (tuple, list) and len(result) == 2:
        found = result[1]
    if found is None:
        raise Unlike(f"it gives no {name}")
    return found


def methods_of(part: nn.Module) -> list[str]:
    """Names of the methods of ``part`` that may compute one step; none of torch's own classes."""
    kind = type(part)
    if kind.__module__.partition(".")[0] in ("torch", "rnncore") or "forward" in vars(part):
        return []
    return [name for name in METHODS if callable(getattr(kind, name, None))]


def cache_of(part: nn.Module) -> str | None:
    """The argument by which ``forward`` of ``part`` takes what it has computed before, None if it has none of such a name."""
    kind = type(part)
    if kind.__module__.partition(".")[0] in ("torch", "rnncore") or "forward" in vars(part):
        return None
    try:
        parameters = inspect.signature(part.forward).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in CACHES if name in parameters and parameters[name].default is None), None)


def readings(part: nn.Module, name: str, sequences: Sequence[str], others: Mapping[str, Any]) -> Iterator[Method]:
    """Ways in which method ``name`` may take a step of ``sequences``, arguments of ``forward`` beside ``others``."""
    try:
        parameters = inspect.signature(getattr(part, name)).parameters
    except (TypeError, ValueError):
        return
    named = [own for own, p in parameters.items() if p.kind in _NAMED]
    any_name = any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    pairs = {own: own for own in sequences}
    if not set(sequences) <= set(named):
        if len(named) < len(sequences):
            return
        pairs = dict(zip(sequences, named, strict=False))
    rest = [own for own in named if own not in pairs.values()]
    given = {own: others[own] for own in rest if others.get(own) is not None and not _has_tensors(others[own])}
    rest = [own for own in rest if own not in given]
    counters = [own for own in rest if own in COUNTERS]
    for counter in [*((own, first) for own in counters[:1] for first in (0, 1)), None]:
        carried = [own for own in rest if counter is None or own != counter[0]]
        if carried or any_name:
            for keeps_time in (True, False):
                needed = sum(parameters[own].default is inspect.Parameter.empty for own in carried)
                yield Method(name, pairs, keeps_time, carried, any_name, counter, given, needed=needed)


def cached_readings(
    part: nn.Module, cache: str, sequences: Sequence[str], others: Mapping[str, Any]
) -> Iterator[Method]:
    """How ``forward`` itself may take one step and a ``cache``."""
    parameters = inspect.signature(part.forward).parameters
    given = {own: value for own, value in others.items() if own != cache and value is not None}
    asked = [own for own in parameters if own.startswith("return_") and any(part in own for part in _KEPT)]
    given.update({own: True for own in asked if parameters[own].default is False})
    if "use_cache" in parameters or any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        given["use_cache"] = True
    if not any(_has_tensors(value) for value in given.values()):
        yield Method("forward", {own: own for own in sequences}, True, (cache,), False, None, given, cache)


def _has_tensors(value: Any) -> bool:
    return any(True for _ in named_tensors(value, ""))
