"""A module that takes one sequence, without a batch or with one of 1, read as one that takes several, one after the other.

Tutorials write so: ``self.lstm(x.view(len(x), 1, -1))``, a layer of torch without a batch axis, ``h0 = torch.zeros(1, 1, n)``.
The loop over rows that their callers write is put around it; as every such loop it is computed for all rows at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example, Input
from rnncore.export.tracing.known_rows import KnownRows
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.one_step import names_of_outputs
from rnncore.export.tracing.probing import Outcome, Place, Prober
from rnncore.export.tracing.single_rows import listed_axis
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.format.axes import BATCH, Size

_ROWS = 3  # of the example that is made


class RowByRow(KnownRows):
    """``module``, run for each row of a batch, from the same attributes each time.

    example: of the module.  rows: where each input and output has its rows; those without such an axis get one in front.
    """

    def __init__(self, module: nn.Module, example: Example, rows: Rows) -> None:
        super().__init__()
        self.module = module
        self.rows_along = [axis or 0 for axis in rows.inputs]
        self._example, self._axes, self._joined = example, rows.inputs, rows.outputs

    def run(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of all rows, each as one tensor."""
        answers: list[list[Tensor]] = [[] for _ in self._joined]
        rows = [batch.shape[axis] for batch, axis in zip(batches, self.rows_along, strict=True)]
        if any(own != rows[0] for own in rows):
            raise ValueError(f"inputs of {rows} rows: they must be as many")
        for row in range(rows[0]):
            given = [_row(batch, axis, row) for batch, axis in zip(batches, self._axes, strict=True)]
            with unchanged(self.module):
                found = [value for _, value in named_tensors(self._example.call(self.module, given), "")]
            for own, value in zip(answers, found, strict=True):
                own.append(value)
        pairs = zip(answers, self._joined, strict=True)
        return [torch.stack(own) if axis is None else torch.cat(own, axis) for own, axis in pairs]


def _row(batch: Tensor, axis: int | None, row: int) -> Tensor:
    if axis is None:
        return batch[row]
    return batch[row : row + 1] if axis == 0 else batch[:, row : row + 1]


@dataclass(frozen=True)
class Rows:
    """Where inputs and outputs of a module of one sequence have it: the axis of size 1, None where there is no such axis."""

    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module, example: Example, seed: int) -> Rows | None:
        """Those of ``module``, which has no axis that may be the batch; None if it takes several sequences."""
        prober = Prober(module, example, seed)
        base = prober.run({})
        if base is None or not _is_one(prober, example, base):
            return None
        axes = tuple(_single(prober, i, own) for i, own in enumerate(example.inputs))
        other = next((seen for place in prober.base if (seen := _grown(prober, place)) is not None), base)
        pairs = zip(base.shapes, other.shapes, strict=True)
        joined = [next((a for a in (0, 1) if one[a : a + 1] == two[a : a + 1] == (1,)), None) for one, two in pairs]
        return cls(axes, tuple(joined), base.shapes)

    def as_batch(self, example: Example) -> Example:
        """``example`` with these axes as its batch, and no others that are free."""
        inputs = [
            replace(own, axes=tuple(BATCH if a == axis else None for a in range(own.value.dim())))
            for own, axis in zip(example.inputs, self.inputs, strict=True)
        ]
        shapes: list[tuple[Size, ...]] = [
            tuple(BATCH if a == axis else size for a, size in enumerate(shape))
            for shape, axis in zip(self.shapes, self.outputs, strict=True)
        ]
        return replace(example, inputs=tuple(inputs), output_shapes=tuple(shapes))


def has_real_batch(module: nn.Module, call: Example) -> bool:
    """Whether rows of the example, its axes named, get what each gets alone: then they are several sequences, not one.

    Words of a sentence, each with its letters, are no such rows: what is behind the letters reads the words in turn.
    """
    shapes = call.output_shapes or ()
    rows = {own.value.shape[own.axes.index(BATCH)] for own in call.inputs if BATCH in own.axes}
    if not shapes or any(BATCH not in shape for shape in shapes) or len(rows) != 1 or rows == {1}:
        return False
    try:
        with unchanged(module), torch.no_grad():
            whole = [value for _, value in named_tensors(call.call(module, [own.value for own in call.inputs]), "")]
        for row in range(min(2, *rows)):
            given = [
                own.value.narrow(own.axes.index(BATCH), row, 1) if BATCH in own.axes else own.value
                for own in call.inputs
            ]
            with unchanged(module), torch.no_grad():
                alone = [value for _, value in named_tensors(call.call(module, given), "")]
            for all_rows, one, shape in zip(whole, alone, shapes, strict=True):
                own_row = all_rows.narrow(shape.index(BATCH), row, 1)
                if own_row.shape != one.shape or not torch.allclose(
                    own_row.double(), one.double(), rtol=1e-4, atol=1e-5, equal_nan=True
                ):
                    return False
    except Exception as failure:  # as for a batch of 1: whatever the rows are, nothing is known
        pass_on_interruption(failure)
        return False
    return True


def row_by_row(module: nn.Module, example: Example, rows: Rows) -> tuple[RowByRow, dict[str, Tensor], str]:
    """``module`` as one that takes a batch, an example of that, and what that means in words."""
    with unchanged(module), torch.no_grad():
        results = list(named_tensors(example.call(module, [own.value for own in example.inputs]), ""))
    names = names_of_outputs([name for name, _ in results], example.names)
    parameters = [inspect.Parameter(own.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for own in example.inputs]

    def forward(self: RowByRow, *args: Tensor, **named: Tensor) -> dict[str, Tensor]:
        bound = forward.__signature__.bind(self, *args, **named)  # type: ignore[attr-defined]
        return dict(zip(names, self.run(list(bound.arguments.values())[1:]), strict=True))

    own_self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([own_self, *parameters])  # type: ignore[attr-defined]
    made = type(type(module).__name__, (RowByRow,), {"forward": forward})
    drawn = {own.name: _rows_of(own, axis) for own, axis in zip(example.inputs, rows.inputs, strict=True)}
    return made(module, example, rows).eval(), drawn, _words(example, rows.inputs)


def _is_one(prober: Prober, example: Example, base: Outcome) -> bool:
    """Whether recurrent calls have one row; where there are no calls, whether no axis may be a batch of so many rows.

    Rows that come back one by one, in a list, are several.
    """
    if listed_axis(prober):
        return False
    if base.calls:
        return any(rows == 1 for rows, _ in base.calls)
    places = [
        (i, axis) for i, own in enumerate(example.inputs) for axis in range(min(2, own.value.dim() - 1))
    ]  # the last axis has features
    return all(prober.base[place] == 1 or _grown(prober, place) is not None for place in places)


def _grown(prober: Prober, place: Place) -> Outcome | None:
    return prober.run({place: prober.base[place] + 1})


def _single(prober: Prober, index: int, own: Input) -> int | None:
    """The first of the two leading axes that is 1 and can be nothing else."""
    places = [(index, axis) for axis in range(min(2, own.value.dim()))]
    return next((place[1] for place in places if prober.base[place] == 1 and _grown(prober, place) is None), None)


def _rows_of(own: Input, axis: int | None) -> Tensor:
    """Rows like that of the example; of floats each is another."""
    turned = own.value.is_floating_point() and own.filling is None and own.value.dim() > 0
    rows = [own.value.roll(k, -1) if turned else own.value for k in range(_ROWS)]
    return torch.stack(rows) if axis is None else torch.cat(rows, axis)


def _words(example: Example, axes: Sequence[int | None]) -> str:
    more = [f"'{own.name}'" for own, axis in zip(example.inputs, axes, strict=True) if axis is None]
    in_front = f", with an axis in front of {', '.join(more)}" if more else ""
    return f"forward takes one sequence: the file takes a batch of them, each as if it were alone{in_front}"
