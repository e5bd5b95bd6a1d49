"""A signature made ready for work: numpy dtypes, positions of the batch and time axes, decoded initial states."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.axes import Flat, Size, Steps, base_of, known_size
from rnncore.runtime.format.options import Option
from rnncore.runtime.format.signature import BATCH, TIME, Signature, StateSpec, TensorSpec
from rnncore.runtime.tensors.graph_adapter import GraphAdapter


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output as the runtime handles it; every slot has a batch axis.

    bounds: smallest and largest value, for ids; None if any will do.
    chunk: samples of one step of a model that takes chunks of fixed size; they lie on the axis after time.
    flat: the graph has two of these axes as one, which only callers of whole arrays see.
    named: the axes that are neither batch nor time and by whose names sizes agree, as (position in an item, name).
    tied: of an input, the axes whose sizes follow an axis of another input, as (position in an item, size).
    option: what stands for an input that is left out, None if it must be given.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Size, ...]
    bounds: tuple[int, int] | None
    batch_axis: int
    time_axis: int | None
    item_shape: tuple[Size, ...]
    item_time_axis: int | None
    chunk: int | None = None
    flat: int | None = None
    named: tuple[tuple[int, str], ...] = ()
    option: Option | None = None
    tied: tuple[tuple[int, Steps], ...] = ()

    @classmethod
    def of(
        cls,
        port: TensorSpec,
        chunk: int | None = None,
        names: frozenset[str] = frozenset(),
        option: Option | None = None,
    ) -> Slot:
        """The slot of a port that has a batch axis; ``names`` are those of axes whose sizes agree."""
        shape = port.inner
        batch_axis = shape.index(BATCH)
        item_shape = shape[:batch_axis] + shape[batch_axis + 1 :]
        bases = [base_of(size) for size in item_shape]
        return cls(
            port.name,
            np.dtype(port.dtype),
            shape,
            port.bounds,
            batch_axis,
            port.time_axis,
            item_shape,
            bases.index(TIME) if TIME in bases else None,
            chunk,
            next((axis for axis, size in enumerate(port.shape) if isinstance(size, Flat)), None),
            tuple((axis, size) for axis, size in enumerate(item_shape) if size in names and size != TIME),
            option,
            tuple((axis, size) for axis, size in enumerate(item_shape) if isinstance(size, Steps)),
        )

    @property
    def ragged(self) -> bool:
        """Whether sequences may differ in the size of this, so that several of them are a list."""
        return self.time_axis is not None or bool(self.named) or bool(self.tied)

    @property
    def counts_steps(self) -> bool:
        """Whether the time axis is that by which all others count, and follows none."""
        return self.time_axis is not None and not isinstance(self.shape[self.time_axis], Steps)

    def steps(self, time: int) -> int:
        """Size of the time axis for a sequence of ``time`` steps."""
        size = TIME if self.time_axis is None else self.shape[self.time_axis]
        return size.at(time) if isinstance(size, Steps) else time

    def each_steps(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """:meth:`steps` of many sequences."""
        size = TIME if self.time_axis is None else self.shape[self.time_axis]
        if not isinstance(size, Steps):
            return times
        return np.maximum(0, (size.times * times + size.plus) // size.over)

    def unfolded(self, array: Array, batch: int, time: int) -> Array:
        """A whole array as the graph gives it, with an axis for each of the two that are one there.

        Raises:
            InputError: the graph left rows or steps out, by the values that it was given.
        """
        if self.flat is None:
            return array
        first, second = (known_size(size, {BATCH: batch, TIME: time}) for size in self.shape[self.flat : self.flat + 2])
        if array.shape[self.flat] != first * second:
            raise InputError(
                f"output '{self.name}' has {array.shape[self.flat]} entries for {batch} sequences of {time} steps, expected "
                f"{first * second}: the model leaves some out by what the inputs hold (NaN, say), and then nobody can tell "
                "whose the others are; hand in sequences without these"
            )
        return array.reshape(*array.shape[: self.flat], first, second, *array.shape[self.flat + 1 :])

    def holds(self, array: Array, batch: int, time: int) -> bool:
        """Whether a whole array as the graph gives it may be one of ``batch`` sequences of ``time`` steps."""
        sizes = {BATCH: batch, TIME: time}
        if self.flat is not None:
            first, second = (known_size(size, sizes) for size in self.shape[self.flat : self.flat + 2])
            return array.ndim == len(self.shape) - 1 and array.shape[self.flat] == first * second
        return self.time_axis is None or (
            array.ndim == len(self.shape)
            and array.shape[self.batch_axis] == batch
            and array.shape[self.time_axis] == self.steps(time)
        )

    def folded(self, array: Array) -> Array:
        """Inverse of :meth:`unfolded`."""
        if self.flat is None:
            return array
        rows = array.shape[self.flat] * array.shape[self.flat + 1]
        return array.reshape(*array.shape[: self.flat], rows, *array.shape[self.flat + 2 :])

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
    def blank(self) -> int:
        """The value of padding: 0, or the id nearest to it that the model takes."""
        return 0 if self.bounds is None else min(max(0, self.bounds[0]), self.bounds[1])

    @property
    def fixed(self) -> bool:
        """True when batch and time are the only free axes."""
        return self.flat is None and all(isinstance(d, int) or base_of(d) in (BATCH, TIME) for d in self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{shape_text(self.shape)}"


@dataclass(frozen=True, slots=True)
class StateSlot:
    """One recurrent state: graph input ``name``, graph output ``output``, value [size] that a sequence starts from.

    batch_axis: where the graph has its batch axis among those of ``item_shape``; None if the graph has [batch, size].
    """

    name: str
    output: str
    dtype: np.dtype[Any]
    size: int
    initial: Array
    item_shape: tuple[int, ...]
    batch_axis: int | None = None

    @classmethod
    def of(cls, state: StateSpec) -> StateSlot:
        """The slot of a state, its initial value decoded once."""
        dtype = np.dtype(state.dtype)
        batch_axis = None if state.shape is None or BATCH not in state.shape else state.shape.index(BATCH)
        return cls(state.name, state.output, dtype, state.size, state.initial_value(), state.item_shape, batch_axis)

    def to_graph(self, value: Array) -> Array:
        """[batch, size] as the graph wants it."""
        if self.batch_axis is None:
            return value
        rows = value.reshape(len(value), *self.item_shape)
        return rows if self.batch_axis == 0 else np.ascontiguousarray(np.moveaxis(rows, 0, self.batch_axis))

    def from_graph(self, value: Array) -> Array:
        """The graph's answer as [batch, size]."""
        if self.batch_axis is None:
            return value
        rows = np.moveaxis(value, self.batch_axis, 0) if self.batch_axis else value  # which takes 5 us to do nothing
        return rows.reshape(len(rows), -1)

    def view_of_one(self, value: Array) -> Array:
        """A view of a buffer [1, size] in the shape that the graph has for one sequence."""
        if self.batch_axis is None:
            return value
        return value.reshape(*self.item_shape[: self.batch_axis], 1, *self.item_shape[self.batch_axis :])


@dataclass(frozen=True, slots=True)
class Layout:
    """All slots of a model.

    options: those of the inputs that may be left out.
    timed: some input has a time axis.
    fixed: batch and time are the only free axes, so buffers can be made before a run.
    timeless_outputs: names of outputs with one value for the whole sequence.
    max_steps: longest sequence or chunk that is accepted, None for no limit.
    border: how the graph differs from all this, None in a file of rnncore.
    graph_states: so many of ``states`` are known to the graph; the others hold what waits for the next run.
    plain: states and outputs of the graph are as the runtime handles them.
    stride: a stream runs in multiples of so many steps.
    overlap: each run of a stream begins with so many steps of the run before.
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
    adapter: GraphAdapter | None = None
    graph_states: int = 0
    plain: bool = True
    stride: int = 1
    overlap: int = 0

    @classmethod
    def of(cls, signature: Signature, max_steps: int | None = None, adapter: GraphAdapter | None = None) -> Layout:
        """The layout of a signature in which :func:`rnncore.runtime.tensors.graph_contract.signature_problems` finds nothing."""
        chunks = {} if adapter is None else adapter.chunks
        options = {option.name: option for option in signature.options}
        names = frozenset(axis.name for axis in signature.axes) - {BATCH, TIME}
        inputs = tuple(Slot.of(port, chunks.get(port.name), names, options.get(port.name)) for port in signature.inputs)
        outputs = tuple(Slot.of(port, names=names) for port in signature.outputs)
        states = tuple(StateSlot.of(state) for state in signature.states)
        rests = tuple(rest for slot in inputs for rest in _rests(slot, signature)) if signature.causal else ()
        plain = adapter is not None or (
            not rests
            and all(slot.flat is None for slot in outputs)
            and all(state.batch_axis is None for state in states)
        )
        return cls(
            signature,
            inputs,
            tuple(slot for slot in inputs if slot.option is not None),
            outputs,
            states + rests,
            None if signature.lengths is None else signature.lengths.name,
            any(slot.time_axis is not None for slot in inputs),
            all(slot.fixed for slot in inputs + outputs),
            tuple(slot.name for slot in outputs if slot.time_axis is None),
            max_steps,
            adapter,
            len(states),
            plain,
            signature.stride,
            signature.overlap,
        )

    @property
    def waits(self) -> bool:
        """Whether a stream keeps steps for the next run."""
        return self.stride > 1 or self.overlap > 0

    @property
    def most_waiting(self) -> int:
        """Steps that a stream keeps at most."""
        return self.overlap + self.stride - 1

    def run_of(self, steps: int) -> int:
        """Of so many steps, those kept included, how many the next run takes: the overlap and whole strides, or none."""
        return steps - (steps - self.overlap) % self.stride if steps > self.most_waiting else 0

    def binds(self, steps: int) -> bool:
        """True when buffers can be made and bound before one sequence of so many steps is run."""
        return self.fixed and (self.adapter is None or self.adapter.binds(steps))


def _rests(slot: Slot, signature: Signature) -> list[StateSlot]:
    """What a stream keeps of an input for the next run: its steps, and how many they are."""
    most = signature.overlap + signature.stride - 1
    if slot.time_axis is None or most == 0:
        return []
    item = tuple(most if axis == slot.item_time_axis else size for axis, size in enumerate(slot.item_shape))
    shape = tuple(size for size in item if isinstance(size, int))  # the exporter lets no other axis of a stream be free
    name, count = f"{slot.name}.rest", f"{slot.name}.rest.steps"
    size = prod(shape)
    return [
        StateSlot(name, name, slot.dtype, size, np.zeros(size, slot.dtype), shape),
        StateSlot(count, count, np.dtype(np.int64), 1, np.zeros(1, np.int64), ()),
    ]


def shape_text(shape: tuple[Size, ...]) -> str:
    """A shape as the messages print it: ``[batch, time, 40]``."""
    return "[" + ", ".join(str(d) for d in shape) + "]"


def _sizes(shape: tuple[Size, ...], named: dict[str, int], free: int) -> tuple[int, ...]:
    return tuple(known_size(size, named, free) for size in shape)
