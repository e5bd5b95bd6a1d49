"""One stream's buffers, bound to onnxruntime once.

A stream owns two sets of state buffers.  A push reads one set and writes the other, so nothing is copied between steps
and a push that fails has not touched the state it started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.session.bare_calls import bound_run_of
from rnncore.runtime.session.failures import enough_memory, of_runtime, run_error
from rnncore.runtime.session.session import Engine
from rnncore.runtime.streaming.state_rows import StateSet
from rnncore.runtime.tensors.specs import Layout
from rnncore.runtime.tensors.validation import within

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

FastStep = tuple[str, np.dtype[Any], tuple[int, ...], Array, Any, tuple[Any, Any], Array, tuple[int, int] | None]
"""What :attr:`Step.one` holds."""

_Call = tuple[Any, tuple[Any, Any]]
"""What runs a prepared binding, and its arguments for each direction of the ping-pong."""


class Binding:
    """Runs chunks of one stream from one state set into the other.  For layouts that are ``fixed``."""

    __slots__ = ("_asked", "_engine", "_lengths", "_sets", "_step", "_values", "_wrap")

    def __init__(self, engine: Engine, sets: tuple[StateSet, StateSet]) -> None:
        from onnxruntime import OrtValue

        self._engine = engine
        self._sets = sets
        self._wrap = OrtValue.ortvalue_from_numpy  # shares memory with the array and keeps it alive
        adapter = engine.layout.adapter
        if adapter is not None:
            views = tuple(adapter.bound_states(arrays) for arrays in sets)
        else:
            graph = engine.layout.states[: engine.layout.graph_states]
            views = tuple([s.view_of_one(array) for s, array in zip(graph, own, strict=False)] for own in sets)
        self._values = tuple([self._wrap(array) for array in arrays] for arrays in views)
        self._step: Step | None = None
        # For one step, which stays bound, and for any other number.  onnxruntime does not keep arrays alive: we have to.
        self._lengths = (np.ones(1, np.int64), np.ones(1, np.int64))
        self._asked = [np.zeros((1, 1, 1), np.int64), np.zeros((1, 1, 1), np.int64)]

    def step(self) -> Step:
        """The fixed buffers and prepared bindings for chunks of one step, made when first asked for."""
        if self._step is None:
            layout = self._engine.layout
            inputs = {slot.name: np.zeros(slot.full_shape(1, 1), slot.dtype) for slot in layout.inputs}
            outputs = {slot.name: np.zeros(slot.full_shape(1, 1), slot.dtype) for slot in layout.outputs}
            if layout.adapter is not None and layout.adapter.chunks:
                whole = {name: layout.adapter.with_context(name, array) for name, array in inputs.items()}
                call = self._call_of_one(whole, outputs)
                self._step = ChunkStep(layout, whole, outputs, call, self._sets)
            else:
                self._step = Step(layout, inputs, outputs, self._call_of_one(inputs, outputs))
        return self._step

    def run_chunk(self, now: int, items: dict[str, Array], steps: int) -> list[Array]:
        """Run the checked chunk ``items``, at least one step, from state set ``now``; the outputs are new arrays."""
        layout = self._engine.layout
        inputs = {slot.name: items[slot.name].reshape(slot.full_shape(1, steps)) for slot in layout.inputs}
        with enough_memory():
            results = [np.empty(slot.item_full_shape(steps), slot.dtype) for slot in layout.outputs]
        outputs = {
            slot.name: result.reshape(slot.full_shape(1, steps))
            for slot, result in zip(layout.outputs, results, strict=True)
        }
        session = self._engine.session
        binding = self._bind(session, now, inputs, outputs, steps)
        self._bind_constants(binding, steps)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            if not of_runtime(error):
                raise
            raise run_error(error) from error
        return results

    def _call_of_one(self, inputs: dict[str, Array], outputs: dict[str, Array]) -> _Call:
        """What runs one step in these buffers, from either set of states."""
        one = self._engine.one_step_session()
        session = self._engine.session if one is None else one
        pair = (self._bind(session, 0, inputs, outputs, 1), self._bind(session, 1, inputs, outputs, 1))
        if one is None:
            for binding in pair:
                self._bind_constants(binding, 1)
        return bound_run_of(session, pair)

    def _bind(
        self, session: InferenceSession, now: int, inputs: dict[str, Array], outputs: dict[str, Array], steps: int
    ) -> IOBinding:
        layout = self._engine.layout
        binding = session.io_binding()
        if layout.adapter is not None:
            inputs = {**layout.adapter.bound(inputs, steps), **layout.adapter.constants}
            outputs = layout.adapter.bound(outputs, steps)
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._wrap(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self._wrap(array))
        # A context is a state that the graph does not know of; it has no value here.
        for state, old, new in zip(layout.states, self._values[now], self._values[1 - now], strict=False):
            binding.bind_ortvalue_input(state.name, old)
            binding.bind_ortvalue_output(state.output, new)
        return binding

    def _bind_constants(self, binding: IOBinding, steps: int) -> None:
        """The inputs that only say how many steps there are, and that nobody asks for some numbers (see Pick)."""
        layout = self._engine.layout
        if layout.lengths is not None:
            length = self._lengths[min(steps, 2) - 1]
            length[0] = steps
            binding.bind_ortvalue_input(layout.lengths, self._wrap(length))
        if layout.signature.pick is not None:
            if steps > 1:
                self._asked[1] = np.zeros((1, steps, 1), np.int64)
            binding.bind_ortvalue_input(layout.signature.pick.at, self._wrap(self._asked[min(steps, 2) - 1]))


class Step:
    """One time step: fixed input and output buffers, and one prepared binding for each direction of the ping-pong.

    one: (name of the input, dtype, shape, input buffer, call, arguments of the call for each direction, output buffer,
        bounds) of a model with one output whose one input can only be wrong in dtype and shape, or is one id within bounds,
        else None.  :meth:`Stream.push` then does the rest itself, in as few operations as can be: each of them finds the
        processor's caches full of weights.
    """

    __slots__ = ("_inputs", "_names", "_outputs", "_pair", "_run", "one")

    def __init__(self, layout: Layout, inputs: dict[str, Array], outputs: dict[str, Array], call: _Call) -> None:
        shapes = {slot.name: slot.item_full_shape(1) for slot in layout.inputs + layout.outputs}
        self._names = [slot.name for slot in layout.inputs]
        self._inputs = tuple(
            (inputs[slot.name].reshape(shapes[slot.name]), shapes[slot.name], slot.dtype, slot.bounds)
            for slot in layout.inputs
        )
        self._outputs = tuple(outputs[slot.name].reshape(shapes[slot.name]) for slot in layout.outputs)
        self._run, self._pair = call
        self.one: FastStep | None = None
        if len(self._inputs) == len(self._outputs) == 1:
            buffer, shape, dtype, bounds = self._inputs[0]
            if bounds is None or buffer.size == 1:
                self.one = (self._names[0], dtype, shape, buffer, self._run, self._pair, self._outputs[0], bounds)

    def ordered(self, chunks: Sequence[Any], named: Mapping[str, Any]) -> Sequence[Any]:
        """Arguments by position and by name in the order of the inputs; none if that takes a closer look."""
        rest = self._names[len(chunks) :]
        if len(rest) != len(named) or not all([name in named for name in rest]):
            return ()
        return (*chunks, *[named[name] for name in rest])

    def take(self, chunks: Sequence[Any]) -> bool:
        """Copy chunks that need no conversion into the buffers; False if there is anything to convert or to refuse."""
        if len(chunks) != len(self._inputs):
            return False
        for chunk, (buffer, shape, dtype, bounds) in zip(chunks, self._inputs, strict=True):
            if type(chunk) is not np.ndarray or chunk.shape != shape:
                return False
            if chunk.dtype is not dtype and chunk.dtype != dtype:
                return False
            if bounds is not None and not within(chunk, bounds):
                return False
            buffer[...] = chunk
        return True

    def run(self, now: int) -> list[Array]:
        """Run what is in the buffers from state set ``now``; the outputs are copies."""
        try:
            self._run(*self._pair[now])
        except Exception as error:
            if not of_runtime(error):
                raise
            raise run_error(error) from error
        return [output.copy() for output in self._outputs]


class ChunkStep(Step):
    """A step that is a chunk of several samples, perhaps with those before it that the graph wants to see again.

    whole: buffers of the inputs, [1, context + chunk, ...].
    """

    __slots__ = ("_contexts", "_flat")

    def __init__(
        self,
        layout: Layout,
        whole: dict[str, Array],
        outputs: dict[str, Array],
        call: _Call,
        sets: tuple[StateSet, StateSet],
    ) -> None:
        adapter = layout.adapter
        assert adapter is not None
        sizes = {context.input: context.size for context in adapter.contexts}
        super().__init__(layout, {name: array[:, sizes.get(name, 0) :] for name, array in whole.items()}, outputs, call)
        self.one = None  # there is more to do than run
        # For each set of states the kept samples, where they go before a run, and where they are after it.
        states = range(len(adapter.states), len(adapter.states) + len(adapter.contexts))
        self._contexts = tuple(
            [
                (
                    own[k].reshape(whole[c.input][:, : c.size].shape),
                    whole[c.input][:, : c.size],
                    whole[c.input][:, -c.size :],
                )
                for k, c in zip(states, adapter.contexts, strict=True)
            ]
            for own in sets
        )
        self._flat = tuple(shape[1:] for _, shape, _, _ in self._inputs)

    def take(self, chunks: Sequence[Any]) -> bool:
        """As for any step; samples without a time axis of their own are one chunk too."""
        if len(chunks) != len(self._flat):
            return False
        return super().take(
            [
                chunk[None] if type(chunk) is np.ndarray and chunk.shape == flat else chunk
                for chunk, flat in zip(chunks, self._flat, strict=True)
            ]
        )

    def run(self, now: int) -> list[Array]:
        """Run what is in the buffers after what is kept in state set ``now``."""
        for kept, before, _ in self._contexts[now]:
            before[...] = kept
        outputs = super().run(now)
        for kept, _, last in self._contexts[1 - now]:
            kept[...] = last
        return outputs
