"""A module that computes one step, such as the policy of an agent, as one that runs over time.

``forward(x [batch, ...], state) -> (y [batch, ...], state)`` has no time axis to stream along.  Where the caller says which
inputs are states, or starts them from zeros in the example, the step is put into the loop that everybody writes around it:
``x`` is [batch, time, ...], the states start from zeros, or from what all rows of the example start with, and the loop is
rolled like any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.chosen_outputs import left_out_by
from rnncore.export.tracing.example import Example, Input
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.operators import KINDS
from rnncore.export.tracing.starting_states import begun
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.axes import BATCH, TIME, Size

_STEPS = 6  # of the example that is made
_RECURRENT = frozenset(name for kind in KINDS for name in (kind, f"{kind}_cell"))  # of torch's functions


class OverTime(nn.Module):
    """``step``, run for each entry along the axis behind the batch.

    example: of the step, with its axes found.  pairs: each input that is a state, with the place of the output it becomes.
    """

    def __init__(self, step: nn.Module, example: Example, pairs: Mapping[str, int], names: Sequence[str]) -> None:
        super().__init__()
        self.step = step
        self._example, self._pairs, self._names = example, dict(pairs), list(names)

    def run(self, sequences: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs of all steps by name, those that are states left out; a cell gives nothing else, and all of them."""
        source = iter(sequences)
        tensors = {own.name: None if own.name in self._pairs else next(source) for own in self._example.inputs}
        axes = {own.name: _batch(own.axes) for own in self._example.inputs}
        first, like = next((name, value) for name, value in tensors.items() if value is not None)
        rows, steps = like.shape[axes[first]], like.shape[axes[first] + 1]
        states = {
            own.name: begun(own, like.new_zeros(_shape(own, rows), dtype=own.value.dtype)) for own in self._states
        }
        kept: list[list[Tensor]] = [[] for _ in self._names]
        for t in range(steps):
            entries = [
                states[name] if value is None else value.select(axes[name] + 1, t) for name, value in tensors.items()
            ]
            outputs = [value for _, value in named_tensors(self._example.call(self.step, entries), "")]
            states = {name: outputs[place] for name, place in self._pairs.items()}
            for own, value in zip(kept, outputs, strict=True):
                own.append(value)
        shapes = self._example.output_shapes or ()
        given = [k for k in range(len(kept)) if k not in self._pairs.values()] or list(range(len(kept)))
        return {self._names[k]: torch.stack(kept[k], _batch(shapes[k]) + 1) for k in given}

    @property
    def _states(self) -> list[Any]:
        return [own for own in self._example.inputs if own.name in self._pairs]


def is_one_step(example: Example) -> bool:
    """Whether there is no time that states could run along, as far as the axes of ``example`` were found."""
    return TIME not in example.axis_names and example.output_shapes is not None


def with_fixed_states(example: Example, states: Iterable[str]) -> Example:
    """``example`` whose ``states`` are free along the batch only: one may be read to some depth, and have more."""
    named = set(states)
    inputs = [
        replace(own, axes=tuple(axis if axis == BATCH else None for axis in own.axes)) if own.name in named else own
        for own in example.inputs
    ]
    return replace(example, inputs=tuple(inputs))


def states_from_zeros(step: nn.Module, example: Example) -> dict[str, str]:
    """Inputs of a step that the example starts from zeros, each with the output that it becomes; none if that is not clear.

    Nobody shows how a module is called with nothing but zeros, unless that is where a state starts.  Every such input has an
    output of its shape, in the same order, which notices what is in the state; where more outputs do, the state is the one
    that a recurrent layer gave.
    """
    zeros = [own for own in example.inputs if _starts_from_zeros(own)]
    fixed = with_fixed_states(example, [own.name for own in zeros])
    if not zeros or not is_one_step(fixed) or all(BATCH not in own.axes or own in zeros for own in example.inputs):
        return {}
    other = [torch.randn_like(own.value) if own in zeros else own.value for own in example.inputs]
    recurrent = _RecurrentResults()
    with torch.no_grad():
        with recurrent:
            straight = list(named_tensors(example.call(step, [i.value for i in example.inputs]), ""))
        moved = list(named_tensors(example.call(step, other), ""))
    notice = [k for k, (_, value) in enumerate(straight) if not torch.equal(value, moved[k][1])]
    names = names_of_outputs([name for name, _ in straight], example.names)
    pairs: dict[str, str] = {}
    for kind in dict.fromkeys((own.value.shape, own.value.dtype) for own in zeros):
        alike = [own for own in zeros if (own.value.shape, own.value.dtype) == kind]
        fits = [k for k in notice if (straight[k][1].shape, straight[k][1].dtype) == kind]
        if len(fits) > len(alike):  # `return h, [h]`
            fits = _each_once(fits, [(value, moved[k][1]) for k, (_, value) in enumerate(straight)])
        if len(fits) > len(alike):  # a layer of as many units on top, say: the state is what a recurrent layer gave
            fits = recurrent.among(fits, [value for _, value in straight]) or _by_name(alike, fits, names)
        if len(fits) != len(alike):
            return {}
        pairs |= {own.name: names[k] for own, k in zip(alike, fits, strict=True)}
    return {own.name: pairs[own.name] for own in zeros}


def unclear_states(step: nn.Module, example: Example) -> dict[str, str]:
    """Inputs of a step that start from zeros, where it is not clear which output each becomes, with the last it may be."""
    zeros = [own for own in example.inputs if _starts_from_zeros(own)]
    if not zeros or not is_one_step(with_fixed_states(example, [own.name for own in zeros])):
        return {}
    with torch.no_grad():
        found = list(named_tensors(example.call(step, [own.value.clone() for own in example.inputs]), ""))
    names = names_of_outputs([name for name, _ in found], example.names)
    left = list(zip(names, [value for _, value in found], strict=True))
    pairs: dict[str, str] = {}
    for own in reversed(zeros):
        fits = [k for k, (_, value) in enumerate(left) if value.shape == own.value.shape]
        if not fits:
            return {}
        pairs[own.name] = left.pop(fits[-1])[0]
    return {own.name: pairs[own.name] for own in zeros}


def _each_once(places: Sequence[int], answers: Sequence[tuple[Tensor, ...]]) -> list[int]:
    """Of outputs that are one and the same in all ``answers`` the last, which is where code puts its states."""
    kept: dict[int, int] = {}
    for k in places:
        same = (j for j in kept if all(torch.equal(a, b) for a, b in zip(answers[j], answers[k], strict=True)))
        kept[next(same, k)] = k
    return list(kept.values())


def _by_name(states: Sequence[Input], places: Sequence[int], names: Sequence[str]) -> list[int]:
    """The outputs called after the states, as ``h_n`` after ``h_0``; empty if that is not clear."""
    found = [[k for k in places if _stem(names[k]) == _stem(own.name)] for own in states]
    return [own[0] for own in found] if all(len(own) == 1 for own in found) else []


def _stem(name: str) -> str:
    return name.partition("_")[0]


class _RecurrentResults(TorchFunctionMode):
    """Keeps what torch's recurrent functions give."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _RECURRENT:
            self._found += [value.clone() for value in (result if isinstance(result, tuple) else (result,))]
        return result

    def among(self, places: Sequence[int], values: Sequence[Tensor]) -> list[int]:
        """Those of ``places`` whose value is such a result, of equal values the last."""
        own = [k for k in places if any(torch.equal(values[k].flatten(), found.flatten()) for found in self._found)]
        return [k for k in own if not any(other > k and torch.equal(values[other], values[k]) for other in own)]


def _starts_from_zeros(own: Input) -> bool:
    value = own.value
    return value.is_floating_point() and value.dim() > 1 and BATCH in own.axes and not bool(value.any())


def over_time(
    step: nn.Module,
    example: Example,
    states: Mapping[str, str],
    output_names: Sequence[str | None] | None,
    kind: type[OverTime] = OverTime,
) -> tuple[OverTime, dict[str, Tensor]]:
    """``step`` as a module over time, of that ``kind``, and an example of that.

    Raises:
        InputError: ``states`` names what is no input or output, or an input or output has no batch axis.
    """
    with torch.no_grad():
        results = list(named_tensors(example.call(step, [own.value for own in example.inputs]), ""))
    names = [*map(str, output_names or names_of_outputs([name for name, _ in results], example.names))]
    for name, output in states.items():
        if name not in example.names or output not in names:
            raise InputError(
                f"states={{{name!r}: {output!r}}} pairs an input with an output; the inputs are {example.names}, the "
                f"outputs {names}"
            )
    shapes = example.output_shapes or ()
    sequences = [own for own in example.inputs if own.name not in states]
    without = [own.name for own in example.inputs if BATCH not in own.axes]
    without += [name for name, shape in zip(names, shapes, strict=True) if BATCH not in shape]
    if without or not sequences:
        lacking = f"{without or 'any input but states'}{left_out_by(names, without)}"
        raise InputError(f"one step of {type(step).__name__} has no batch axis in {lacking}")
    parameters = [inspect.Parameter(own.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for own in sequences]

    def forward(self: OverTime, *args: Tensor, **named: Tensor) -> dict[str, Tensor]:
        bound = forward.__signature__.bind(self, *args, **named)  # type: ignore[attr-defined]
        return self.run(list(bound.arguments.values())[1:])

    own_self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([own_self, *parameters])  # type: ignore[attr-defined]
    made = type(type(step).__name__, (kind,), {"forward": forward})
    pairs = {name: names.index(output) for name, output in states.items()}
    drawn = {
        own.name: torch.stack([own.value.roll(t, _batch(own.axes)) for t in range(_STEPS)], _batch(own.axes) + 1)
        for own in sequences
    }
    return made(step, example, pairs, names).eval(), drawn


def names_of_outputs(found: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Names of outputs as files have them."""
    named = [("output" if len(found) == 1 else f"output_{n}") if not n or n[0].isdigit() else n for n in found]
    return [f"{name}_out" if name in inputs else name for name in named]


def _batch(axes: Sequence[Size | None]) -> int:
    return list(axes).index(BATCH)


def _shape(own: Any, rows: int) -> list[int]:
    return [rows if axis == BATCH else size for axis, size in zip(own.axes, own.value.shape, strict=True)]
