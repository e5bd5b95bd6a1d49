"""A module that reads its lengths as numbers, as one of rows that are all full: it takes no lengths any more.

``for i, n in enumerate(lengths.tolist())`` is Python's own loop over the rows of one batch, which a file cannot have.  Of rows
that are full, all these numbers are one, the size of the time axis; lists of sequences are run in groups of one length then.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example, Input
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.format.axes import BATCH, TIME


class FullRows(nn.Module):
    """``module`` with full lengths in place of inputs that hold lengths.

    example: of the module, with its axes found.  held: those inputs, each with the axis that it counts along.  flat: its code
    reads packed rows by itself, step by step.
    """

    failure: Exception | None = None  # of its export

    def __init__(self, module: nn.Module, example: Example, held: Mapping[str, str], *, flat: bool = False) -> None:
        super().__init__()
        self.module = module
        self.flat = flat
        self._example, self._held = example, dict(held)

    def run(self, given: Sequence[Tensor]) -> Any:
        """What the module answers; ``given`` are all other inputs in order."""
        source = iter(given)
        tensors = {own.name: None if own.name in self._held else next(source) for own in self._example.inputs}
        sizes: dict[str, Any] = {}
        for own in self._example.inputs:
            value = tensors[own.name]
            if value is not None:
                sizes.update({str(axis): size for axis, size in zip(own.axes, value.shape, strict=True) if axis})
        every = [
            self._full(own, sizes) if tensors[own.name] is None else tensors[own.name] for own in self._example.inputs
        ]
        return self._example.call(self.module, every)  # type: ignore[arg-type]

    def _full(self, own: Input, sizes: Mapping[str, Any]) -> Tensor:
        shape = (sizes[BATCH], *own.value.shape[1:])
        return torch.full(shape, sizes[self._held[own.name]], dtype=own.value.dtype)


def lengths_of(example: Example) -> dict[str, str]:
    """Inputs of ``example``, with its axes found, that say how long each row is, with the axis that they count along.

    Empty where none says so of the longest row.
    """
    own = {i.name: TIME for i in example.inputs if i.name == example.lengths}
    columns = {i.name: "" for i in example.inputs if _is_column_of_lengths(i)}
    held: dict[str, str] = {**columns, **example.counts, **own}
    others = [i for i in example.inputs if i.name not in held]
    sizes = {str(axis): size for i in others for axis, size in zip(i.axes, i.value.shape, strict=True) if axis}
    for one in [i for i in example.inputs if i.name in {**columns, **own}]:
        alike = [axis for axis, size in sizes.items() if axis != BATCH and size == int(one.value.max())]
        held[one.name] = TIME if TIME in alike else next(iter(alike), held[one.name])
    full = all(int(i.value.max()) == sizes.get(held[i.name], -1) for i in example.inputs if i.name in held)
    return held if full and BATCH in sizes else {}


def rows_stand_alone(module: nn.Module, example: Example, held: Mapping[str, str]) -> bool:
    """Whether each row of the example gets what it gets alone, as a full one of so many steps; so do full rows by themselves."""
    ends = next(i.value.flatten() for i in example.inputs if i.name in held)
    if bool((ends == ends[0]).all()):
        return True
    along, shapes = {BATCH, *held.values()}, example.output_shapes
    if shapes is None or len({*held.values()}) > 1 or any(BATCH not in shape for shape in shapes):
        return False
    with torch.no_grad(), unchanged(module):
        whole = [value for _, value in named_tensors(example.call(module, [i.value for i in example.inputs]), "")]
        for row, n in enumerate(ends.tolist()):
            cuts = {axis: (row, 1) if axis == BATCH else (0, n) for axis in along}
            tensors = [torch.full_like(i.value[:1], n) if i.name in held else _cut(i, cuts) for i in example.inputs]
            alone = [value for _, value in named_tensors(example.call(module, tensors), "")]
            for own, one, shape in zip(whole, alone, shapes, strict=True):
                place = tuple(
                    slice(row, row + 1) if s == BATCH else slice(k) for s, k in zip(shape, one.shape, strict=True)
                )
                if own[place].shape != one.shape or not torch.allclose(
                    own[place].double(), one.double(), rtol=1e-4, atol=1e-5
                ):
                    return False
    return True


def _cut(own: Input, cuts: Mapping[str, tuple[int, int]]) -> Tensor:
    value = own.value
    for axis, name in enumerate(own.axes):
        if name in cuts:
            value = value.narrow(axis, *cuts[str(name)])
    return value


def _is_column_of_lengths(own: Input) -> bool:
    """Whether an input is [batch, 1] and called lengths."""
    whole = not own.value.is_floating_point() and own.value.dtype != torch.bool
    return whole and own.value.dim() == 2 and own.value.shape[1] == 1 and "len" in own.name


def of_full_rows(
    module: nn.Module, example: Example, held: Mapping[str, str], *, flat: bool = False
) -> tuple[FullRows, dict[str, Tensor]]:
    """``module`` without the lengths ``held``, and an example of that."""
    others = [own for own in example.inputs if own.name not in held]
    parameters = [inspect.Parameter(own.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for own in others]

    def forward(self: FullRows, *args: Tensor, **named: Tensor) -> Any:
        bound = forward.__signature__.bind(self, *args, **named)  # type: ignore[attr-defined]
        return self.run(list(bound.arguments.values())[1:])

    own_self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([own_self, *parameters])  # type: ignore[attr-defined]
    made = type(type(module).__name__, (FullRows,), {"forward": forward})
    return made(module, example, held, flat=flat).eval(), {own.name: own.value for own in others}
