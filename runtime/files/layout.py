"""A signature made ready for work: numpy dtypes, positions of the batch and time axes, decoded initial states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.files.options import Option
from rnncore.runtime.files.signature import BATCH, TIME, Port, Signature, State
from rnncore.runtime.foreign.border import Border

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output as the runtime handles it; every slot has a batch axis.

    chunk: samples of one step of a model that takes chunks of fixed size; they lie on the axis after time.
    option: what stands for an input that is left out, None if it must be given.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]
    limit: int | None
    batch_axis: int
    time_axis: int | None
    item_shape: tuple[int | str, ...]
    item_time_axis: int | None
    chunk: int | None = None
    option: Option | None = None

    @classmethod
    def of(cls, port: Port, chunk: int | None = None, option: Option | None = None) -> Slot:
        """The slot of a port that has a batch axis."""
        batch_axis = port.shape.index(BATCH)
        item_shape = port.shape[:batch_axis] + port.shape[batch_axis + 1 :]
        item_time_axis = item_shape.index(TIME) if TIME in item_shape else None
        return cls(
            port.name,
            np.dtype(port.dtype),
            port.shape,
            port.limit,
            batch_axis,
            port.time_axis,
            item_shape,
            item_time_axis,
            chunk,
            option,
        )

    def left_out(self, batch: int) -> Array:
        """The array of an optional input that nobody gave; axes of free size have one place."""
        assert self.option is not None
        return np.full(self.full_shape(batch, 1, 1), self.option.default, self.dtype)

    def item_left_out(self) -> Array:
        """The same for one sequence."""
        assert self.option is not None
        return np.full(self.item_full_shape(1, 1), self.option.default, self.dtype)

    def full_shape(self, batch: int, steps: int, free: int = 0) -> tuple[int, ...]:
        """Shape of a whole array; ``free`` is the size of axes that are neither fixed nor batch nor time."""
        return _sizes(self.shape, {BATCH: batch, TIME: steps}, free)

    def item_full_shape(self, steps: int, free: int = 0) -> tuple[int, ...]:
        """Shape of the part that belongs to one sequence."""
        return _sizes(self.item_shape, {TIME: steps}, free)

    def rows(self, array: Array) -> Array:
        """View of a whole array as [batch, time, ...], or [batch, ...] without a time axis."""
        if self.time_axis is None:
            return array if self.batch_axis == 0 else np.moveaxis(array, self.batch_axis, 0)
        if (self.batch_axis, self.time_axis) == (0, 1):
            return array
        return np.moveaxis(array, (self.batch_axis, self.time_axis), (0, 1))

    def item_row(self, item: Array) -> Array:
        """View of one sequence's part as [time, ...], or unchanged without a time axis."""
        return item if self.item_time_axis in (None, 0) else np.moveaxis(item, self.item_time_axis, 0)

    def item_from_row(self, row: Array) -> Array:
        """Inverse of :meth:`item_row`."""
        return row if self.item_time_axis in (None, 0) else np.moveaxis(row, 0, self.item_time_axis)

    @property
    def fixed(self) -> bool:
        """True when batch and time are the only free axes."""
        return all(isinstance(d, int) or d in (BATCH, TIME) for d in self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{shape_text(self.shape)}"


@dataclass(frozen=True, slots=True)
class StateSlot:
    """One recurrent state: graph input ``name``, graph output ``output``, value [size] that a sequence starts from."""

    name: str
    output: str
    dtype: np.dtype[Any]
    size: int
    initial: Array
    item_shape: tuple[int, ...]

    @classmethod
    def of(cls, state: State) -> StateSlot:
        """The slot of a state, its initial value decoded once."""
        dtype = np.dtype(state.dtype)
        return cls(state.name, state.output, dtype, state.size, state.initial_value(), state.item_shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """All slots of a model.

    options: those of the inputs that may be left out.
    timed: some input has a time axis.
    fixed: batch and time are the only free axes, so buffers can be made before a run.
    timeless_outputs: names of outputs with one value for the whole sequence.
    max_steps: longest sequence or chunk that is accepted, None for no limit.
    border: how the graph differs from all this, None in a file of rnncore.
    """

    signature: Signature
    inputs: tuple[Slot, ...]
    options: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    states: tuple[StateSlot, ...]
    lengths: str | None
    timed: bool
    fixed: bool
    timeless_outputs: tuple[str, ...]
    max_steps: int | None = None
    border: Border | None = None

    @classmethod
    def of(cls, signature: Signature, max_steps: int | None = None, border: Border | None = None) -> Layout:
        """The layout of a signature in which :func:`rnncore.runtime.files.contract.signature_problems` finds nothing."""
        chunks = {} if border is None else border.chunks
        options = {option.name: option for option in signature.options}
        inputs = tuple(Slot.of(port, chunks.get(port.name), options.get(port.name)) for port in signature.inputs)
        outputs = tuple(Slot.of(port) for port in signature.outputs)
        return cls(
            signature,
            inputs,
            tuple(slot for slot in inputs if slot.option is not None),
            outputs,
            tuple(StateSlot.of(state) for state in signature.states),
            None if signature.lengths is None else signature.lengths.name,
            any(slot.time_axis is not None for slot in inputs),
            all(slot.fixed for slot in inputs + outputs),
            tuple(slot.name for slot in outputs if slot.time_axis is None),
            max_steps,
            border,
        )

    def binds(self, steps: int) -> bool:
        """True when buffers can be made and bound before one sequence of so many steps is run."""
        return self.fixed and (self.border is None or self.border.binds(steps))


def shape_text(shape: tuple[int | str, ...]) -> str:
    """A shape as the messages print it: ``[batch, time, 40]``."""
    return "[" + ", ".join(str(d) for d in shape) + "]"


def _sizes(shape: tuple[int | str, ...], named: dict[str, int], free: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else named.get(d, free) for d in shape)
