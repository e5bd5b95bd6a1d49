"""The step of a rolled loop as a cell: its recurrent calls are those of any other layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.export.tracing.rolling.fitting import Formula


@dataclass(frozen=True)
class Packing:
    """How a value of one iteration is laid out in a row: its shape without the batch axis, where that axis is, its dtype.

    batch_axis: None for a value that is the same for all rows.  free: axes, without that of the batch, whose sizes follow
    the inputs; ``shape`` has them as they were when the loop was recorded.  folded: that axis has so many entries for each row,
    such as one for each head, which stand in ``shape`` as an axis of their own in its place; 0 if it has one.
    """

    shape: tuple[Any, ...]
    batch_axis: int | None
    dtype: torch.dtype
    free: tuple[tuple[int, Formula], ...] = ()
    folded: int = 0

    @property
    def size(self) -> Any:
        """Numbers in a row."""
        return prod(self.shape)

    def at(self, sizes: Mapping[str, Any]) -> Packing:
        """The same with free axes as they are at ``sizes``."""
        shape = list(self.shape)
        for axis, formula in self.free:
            shape[axis] = formula(sizes)
        return replace(self, shape=tuple(shape))

    def shape_of(self, batch: Any) -> list[Any]:
        """The shape of the value, which has a batch axis, for so many rows."""
        assert self.batch_axis is not None
        before, after = self.shape[: self.batch_axis], self.shape[self.batch_axis + bool(self.folded) :]
        return [*before, batch * (self.folded or 1), *after]

    def rows_of(self, value: Tensor) -> Any:
        """How many rows ``value`` has."""
        return value.shape[self.batch_axis or 0] // (self.folded or 1)

    def rows(self, value: Tensor, batch: Any, like: torch.dtype) -> Tensor:
        """``value`` as [batch, *shape]."""
        value = value.to(like)
        if self.batch_axis is None:
            return value.unsqueeze(0).expand(batch, *value.shape)
        value = self._apart(value, self.batch_axis)
        return value if self.batch_axis == 0 else value.movedim(self.batch_axis, 0)

    def _apart(self, value: Tensor, axis: int) -> Tensor:
        return value.unflatten(axis, (-1, self.folded)) if self.folded else value

    def _together(self, value: Tensor, axis: int) -> Tensor:
        return value.flatten(axis, axis + 1) if self.folded else value

    def value(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`rows`."""
        rows = rows if rows.dtype == self.dtype else rows.to(self.dtype)
        if self.batch_axis is None:
            return rows[0]
        return self._together(rows if self.batch_axis == 0 else rows.movedim(0, self.batch_axis), self.batch_axis)

    def packed(self, value: Tensor, batch: Any, like: torch.dtype) -> Tensor:
        """Values over time [time, ...] as [batch, time, size]."""
        value = value.to(like)
        if self.batch_axis is None:
            value = value.unsqueeze(0).expand(batch, *value.shape)
        else:
            value = self._apart(value, self.batch_axis + 1).movedim(self.batch_axis + 1, 0)
        return value.flatten(2) if len(self.shape) != 1 and self.shape else value if self.shape else value.unsqueeze(2)

    def unpacked(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`packed`."""
        value = value.unflatten(2, self.shape) if len(self.shape) > 1 else value if self.shape else value.squeeze(2)
        value = value if value.dtype == self.dtype else value.to(self.dtype)
        if self.batch_axis is None:
            return value[0]
        return self._together(value.movedim(0, self.batch_axis + 1), self.batch_axis + 1)

    def one(self, rows: Tensor) -> Tensor:
        """The value of one step from its row [batch, size]."""
        return self.value(
            rows.unflatten(1, self.shape) if len(self.shape) > 1 else rows if self.shape else rows.squeeze(1)
        )


@dataclass(frozen=True)
class StepLayout:
    """How what a step reads, what it gives and its states, by name, lie in rows, which are of ``dtype``."""

    reads: Sequence[Packing]
    gives: Sequence[Packing]
    states: Mapping[str, Packing]
    dtype: torch.dtype


class RolledCell(Cell):
    """A step that somebody wrote as the body of a loop.

    Args:
        run: (what it reads of this step, states, captured values, weights) -> (results, new states), all as the code has
            them.
        layout: of all that goes in and out in each step.
        weights: parameters and constants.
        starts: the value that each state begins with, without a batch axis; None if the loop is handed its states.
        captured: an example of every value from outside that the step reads as a whole, and which of its axes are free.
    """

    def __init__(
        self,
        run: Callable[
            [Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[list[Tensor], list[Tensor]]
        ],
        layout: StepLayout,
        weights: Sequence[Tensor],
        starts: Sequence[Tensor] | None,
        captured: Sequence[tuple[Tensor, tuple[int, ...]]],
    ) -> None:
        reads, gives, states = layout.reads, layout.gives, layout.states
        shapes = {name: p.shape or (1,) for name, p in states.items()}
        sizes: Any = {name: shape if len(shape) > 1 else shape[0] for name, shape in shapes.items()}
        super().__init__(max(1, sum(p.size for p in reads)), max(1, sum(p.size for p in gives)), sizes)
        self._run = run
        self.dtype = layout.dtype
        self._reads, self._gives, self._states = list(reads), list(gives), list(states.values())
        self._weights: list[str] = []
        for i, weight in enumerate(weights):
            self._weights.append(f"weight_{i}")
            if isinstance(weight, nn.Parameter):
                self.register_parameter(self._weights[-1], weight)
            else:
                self.register_buffer(self._weights[-1], weight)
        self.starts = None if starts is None else list(starts)
        self.captured: tuple[Tensor, ...] = ()
        self.width: Any = None  # of the results where that is not ``output_size`` but follows the inputs
        self.free_state_axes = [tuple(axis + 1 for axis, _ in p.free) for p in states.values()]
        self.captured_examples = list(captured)

    def step(self, z: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """One step; behind the states stand captured values where they are handed in."""
        states, captured = values[: len(self._states)], values[len(self._states) :] or self.captured
        sizes = [p.size for p in self._reads]
        rows = z.split(sizes, 1) if len(sizes) > 1 else [z]
        reads = [p.one(row) for p, row in zip(self._reads, rows, strict=False)]
        before = [p.value(s if p.shape else s.squeeze(1)) for p, s in zip(self._states, states, strict=True)]
        weights = [getattr(self, name) for name in self._weights]
        results, new = self._run(reads, before, captured, weights)
        batch, dtype = z.shape[0], z.dtype
        after = []
        for p, value in zip(self._states, new, strict=True):
            row = p.rows(value, batch, dtype)
            after.append(row if p.shape else row.unsqueeze(1))
        given = [p.rows(value, batch, dtype) for p, value in zip(self._gives, results, strict=True)]
        flat = [v.flatten(1) if v.dim() > 2 else v if v.dim() == 2 else v.unsqueeze(1) for v in given] or [
            after[0].flatten(1)[:, :1]
        ]
        return (torch.cat(flat, 1) if len(flat) > 1 else flat[0], *after)

    @property
    def is_free(self) -> bool:
        """Whether the size of a state follows the inputs: it is no state that a stream could carry."""
        return any(self.free_state_axes)

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """What the code begins with, [batch, ...] each."""
        if self.starts is None:
            return super().initial_state(batch, like)
        return tuple(
            start.to(like.device, like.dtype).unsqueeze(0).expand(batch, *[-1] * start.dim()) for start in self.starts
        )
