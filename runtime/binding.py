"""One stream's buffers, bound to onnxruntime once.

A stream owns two sets of state buffers.  A push reads one set and writes the other, so nothing is copied between steps
and a push that fails has not touched the state it started from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore.runtime.checking import within
from rnncore.runtime.engine import Engine, run_error
from rnncore.runtime.layout import Array

if TYPE_CHECKING:
    from onnxruntime import IOBinding

_ndarray = np.ndarray

StateSet = tuple[Array, ...]
"""Every state, [1, size] each, in the order of the signature."""


def state_set(engine: Engine) -> StateSet:
    """New buffers that hold the initial values."""
    return tuple(state.initial[None].copy() for state in engine.layout.states)


class Binding:
    """Runs chunks of one stream from one state set into the other.  For layouts that are ``fixed``."""

    __slots__ = ("_engine", "_step", "_values", "_wrap")

    def __init__(self, engine: Engine, sets: tuple[StateSet, StateSet]) -> None:
        from onnxruntime import OrtValue

        self._engine = engine
        self._wrap = OrtValue.ortvalue_from_numpy  # shares memory with the array and keeps it alive
        self._values = tuple([self._wrap(array) for array in arrays] for arrays in sets)
        self._step: Step | None = None

    def step(self) -> Step:
        """The fixed buffers and prepared bindings for chunks of one step, made when first asked for."""
        if self._step is None:
            layout = self._engine.layout
            inputs = {slot.name: np.zeros(slot.full_shape(1, 1), slot.dtype) for slot in layout.inputs}
            outputs = {slot.name: np.zeros(slot.full_shape(1, 1), slot.dtype) for slot in layout.outputs}
            pair = (self._bind(0, inputs, outputs, 1), self._bind(1, inputs, outputs, 1))
            self._step = Step(self._engine, inputs, outputs, pair)
        return self._step

    def run_chunk(self, now: int, items: dict[str, Array], steps: int) -> list[Array]:
        """Run the checked chunk ``items``, at least one step, from state set ``now``; the outputs are new arrays."""
        layout = self._engine.layout
        inputs = {slot.name: items[slot.name].reshape(slot.full_shape(1, steps)) for slot in layout.inputs}
        results = [np.empty(slot.item_full_shape(steps), slot.dtype) for slot in layout.outputs]
        outputs = {
            slot.name: result.reshape(slot.full_shape(1, steps))
            for slot, result in zip(layout.outputs, results, strict=True)
        }
        binding = self._bind(now, inputs, outputs, steps)
        try:
            self._engine.session.run_with_iobinding(binding)
        except Exception as error:
            raise run_error(error) from error
        return results

    def _bind(self, now: int, inputs: dict[str, Array], outputs: dict[str, Array], steps: int) -> IOBinding:
        layout = self._engine.layout
        binding = self._engine.session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._wrap(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self._wrap(array))
        if layout.lengths is not None:
            binding.bind_ortvalue_input(layout.lengths, self._wrap(np.array([steps], np.int64)))
        for state, old, new in zip(layout.states, self._values[now], self._values[1 - now], strict=True):
            binding.bind_ortvalue_input(state.name, old)
            binding.bind_ortvalue_output(state.output, new)
        return binding


class Step:
    """One time step: fixed input and output buffers, and one prepared binding for each direction of the ping-pong."""

    __slots__ = ("_inputs", "_one", "_outputs", "_pair", "_run")

    def __init__(
        self, engine: Engine, inputs: dict[str, Array], outputs: dict[str, Array], pair: tuple[IOBinding, IOBinding]
    ) -> None:
        layout = engine.layout
        shapes = {slot.name: slot.item_full_shape(1) for slot in layout.inputs + layout.outputs}
        self._inputs = tuple(
            (inputs[slot.name].reshape(shapes[slot.name]), shapes[slot.name], slot.dtype, slot.limit)
            for slot in layout.inputs
        )
        self._outputs = tuple(outputs[slot.name].reshape(shapes[slot.name]) for slot in layout.outputs)
        self._pair = pair
        self._run = engine.session.run_with_iobinding
        # Most models have one input and one output; for them a step is told in as few operations as can be, since
        # each of them finds the processor's caches full of weights.
        self._one = len(self._inputs) == len(self._outputs) == 1 and self._inputs[0][3] is None

    def quick(self, chunk: Any, now: int) -> Array | None:
        """:meth:`take` and :meth:`run` for the one array of a model with one output; None if it is not that simple."""
        if not self._one:
            return None
        buffer, shape, dtype, _ = self._inputs[0]
        if type(chunk) is not _ndarray or chunk.dtype is not dtype or chunk.shape != shape:
            return None
        buffer[...] = chunk
        try:
            self._run(self._pair[now])
        except Exception as error:
            raise run_error(error) from error
        return self._outputs[0].copy()

    def take(self, chunks: Sequence[Any]) -> bool:
        """Copy chunks that need no conversion into the buffers; False if there is anything to convert or to refuse."""
        if len(chunks) != len(self._inputs):
            return False
        for chunk, (buffer, shape, dtype, limit) in zip(chunks, self._inputs, strict=True):
            if type(chunk) is not np.ndarray or chunk.shape != shape:
                return False
            if chunk.dtype is not dtype and chunk.dtype != dtype:
                return False
            if limit is not None and not within(chunk, limit):
                return False
            buffer[...] = chunk
        return True

    def run(self, now: int) -> list[Array]:
        """Run what is in the buffers from state set ``now``; the outputs are copies."""
        try:
            self._run(self._pair[now])
        except Exception as error:
            raise run_error(error) from error
        return [output.copy() for output in self._outputs]
