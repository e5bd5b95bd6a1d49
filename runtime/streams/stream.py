"""A stream: one sequence that arrives in chunks, and the recurrent state it has reached."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnncore.runtime.batches.items import Items, no_steps_message, run_items, split_items
from rnncore.runtime.calls.binding import Binding, One, Step
from rnncore.runtime.calls.checking import bind_arguments, read_array, read_item
from rnncore.runtime.calls.chunks import empty_outputs
from rnncore.runtime.calls.engine import Engine, run_error
from rnncore.runtime.calls.forks import abandon, watch
from rnncore.runtime.errors import InputError, NotStreamableError, StateError, StreamBusyError, raise_all
from rnncore.runtime.files.layout import Array, Layout, Slot
from rnncore.runtime.files.signature import BATCH, Port
from rnncore.runtime.streams.closing import Closing
from rnncore.runtime.streams.hooks import Hook, apply_hooks, one_or_all
from rnncore.runtime.streams.shelves import StateSet
from rnncore.runtime.streams.snapshot import Snapshot, encode, write_file
from rnncore.runtime.streams.strides import join_rest, keep, waiting

_ndarray = np.ndarray
_BUSY = "the stream is in use by another caller: one stream serves one caller at a time, use fork() for a second one"
_CLOSED = "the stream is closed: open a new one with model.stream()"


def check_streamable(layout: Layout) -> None:
    """Raise NotStreamableError, with the reason stored at export, unless the model is causal."""
    if not layout.signature.causal:
        reason = layout.signature.not_causal_because or "its answers depend on inputs that come later"
        raise NotStreamableError(f"this model does not stream: {reason}; use model.run() with whole sequences")


class Stream(Closing):
    """One sequence in chunks.  Opened by :meth:`Model.stream`; belongs to one caller at a time.

    ``push`` in any chunks gives, joined together, what ``model.run`` gives for the whole sequence.  A push that fails
    leaves the state as it was.  Two callers at the same time get StreamBusyError, a closed stream raises StateError.
    """

    __slots__ = (
        "__weakref__",
        "_binding",
        "_closed",
        "_engine",
        "_hooks",
        "_lock",
        "_now",
        "_one",
        "_place",
        "_sets",
        "_shelf",
        "_step",
        "_steps",
    )

    def __init__(self, engine: Engine, start: Snapshot | None = None) -> None:
        check_streamable(engine.layout)
        self._engine = engine
        self._lock = threading.Lock()
        self._shelf, self._place = engine.shelves.take()
        self._sets: tuple[StateSet, StateSet] = self._shelf.sets(self._place)
        self._now = 0
        self._steps = 0 if start is None else start.steps
        self._closed = False
        self._binding: Binding | None = None
        self._step: Step | None = None
        self._one: One | None = None  # what a push of one step needs, when nothing else is to be done
        self._hooks: tuple[Hook, ...] = ()
        self._load(tuple(state.initial for state in engine.layout.states) if start is None else start.states)
        watch(self)

    def push(self, /, *chunks: Any, **named: Any) -> Any:
        """Run the next chunk and move the state on.

        chunks: one array for each input in the order of the signature, or by name; shape [t, ...] with any t, 0
        included, or [...] for an input without a time axis; lists of ints will do for token ids.  A model that takes
        strides of several steps answers the whole ones; the rest waits, as part of the state, for the next chunk.

        Returns [t, ...] for an output with a time axis, one value for the chunk otherwise; one array, or a dict by name
        if the model has several outputs.  The arrays are the caller's own.  Raises InputError and leaves the state as
        it was.
        """
        lock = self._lock
        if not lock.acquire(False):
            raise StreamBusyError(_BUSY)
        try:
            one = self._one
            if one is not None and len(chunks) == 1 and not named:
                dtype, shape, buffer, run, arguments, output = one
                chunk = chunks[0]
                if type(chunk) is _ndarray and chunk.dtype is dtype and chunk.shape == shape:
                    buffer[...] = chunk
                    now = self._now
                    try:
                        run(*arguments[now])
                    except Exception as error:
                        raise run_error(error) from error
                    self._now = 1 - now
                    self._steps += 1
                    return output.copy()
            elif self._step is not None and not named and self._step.take(chunks):
                return self._finish(self._step.run(self._now), 1)
            return self._push(chunks, named)
        finally:
            lock.release()

    def fork(self) -> Stream:
        """A second stream that goes on from here; the two do not share anything that changes."""
        with self._held():
            twin = Stream(self._engine)
            twin._load(self._sets[self._now])
            twin._steps = self._steps
            return twin

    def save(self) -> bytes:
        """The state as bytes, to go on from with :meth:`Model.restore`, in this process or another one.

        Plain data with a checksum and the fingerprint of the model; see :mod:`rnncore.runtime.streams.snapshot`.
        """
        with self._held():
            states = tuple(array[0] for array in self._sets[self._now])
            return encode(self._engine.fingerprint, self._engine.layout, Snapshot(self._steps, states))

    def save_file(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`save` to a file that is, whatever happens, the old one or the whole new one."""
        write_file(path, self.save())

    def on_output(self, callback: Hook) -> Callable[[], None]:
        """Have ``callback`` called with what every push is about to return; returns a function that stops this.

        The callback may return None, or arrays of the same shapes to be returned instead.  It runs before the state
        moves on: if it raises, the push fails with that error and the stream is as it was.  It changes nothing but
        outputs, the state least of all, and must not use the stream, which is busy.  Several are called in the order
        in which they were added.  Chunks without steps are not shown; a fork starts without callbacks.
        """
        with self._held():
            self._hooks = (*self._hooks, callback)
            self._one = None

        def remove() -> None:
            self._hooks = tuple(hook for hook in self._hooks if hook is not callback)

        return remove

    def reset(self) -> None:
        """Back to the initial state and step 0."""
        with self._held():
            self._load(tuple(state.initial for state in self._engine.layout.states))
            self._steps = 0

    def close(self) -> None:
        """Free the buffers.  Closing twice does nothing."""
        if self._closed:
            return
        with self._held():
            self._closed = True
            self._one = self._step = self._binding = None
            self._sets = ((), ())
            self._shelf.free.append(self._place)

    @property
    def steps(self) -> int:
        """Time steps pushed since the stream was opened or reset."""
        return self._steps

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the recurrent state, [size] each, by name."""
        with self._held():
            states = zip(self._engine.layout.states, self._sets[self._now], strict=True)
            return {state.name: array[0].copy().reshape(state.item_shape) for state, array in states}

    def set_state(self, state: Mapping[str, Any], *, steps: int | None = None) -> None:
        """Go on from ``state``, a mapping as :attr:`state` returns it; ``steps`` sets the counter if given.

        Raises StateError that lists every missing, unknown and ill-shaped state; the stream is then as it was.
        """
        with self._held():
            self._load(read_state(self._engine.layout, state))
            if steps is not None:
                self._steps = steps

    def after_fork(self) -> None:
        """In a forked child: go on from the last finished push, with a lock and bindings of this process."""
        abandon(self._step)
        abandon(self._binding)
        self._one = self._step = self._binding = None
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._shelf.free.append(self._place)

    def __reduce__(self) -> Any:
        raise TypeError("a Stream cannot be pickled or copied: use save() and model.restore(), or fork()")

    def __repr__(self) -> str:
        return "<Stream closed>" if self._closed else f"<Stream at step {self._steps}>"

    def _push(self, chunks: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._check_open()
        layout = self._engine.layout
        problems: list[str] = []
        items, steps = read_item(layout, bind_arguments(layout.inputs, chunks, named), "", problems, whole=False)
        raise_all(problems)
        if layout.stride > 1:
            return self._push_strides(items, steps)
        if steps == 0:
            return self._push_nothing(items)
        if not layout.binds(steps):
            return self._finish(self._run_unbound(items, steps, steps), steps)
        if self._binding is None:
            self._binding = Binding(self._engine, self._sets)
        if steps == 1:
            step = self._step = self._binding.step()
            self._one = None if self._hooks else step.one
            if not step.take(list(items.values())):  # never go on with what the buffers held before
                raise RuntimeError("a checked chunk does not fit the buffers of one step: this is an error of rnncore")
            return self._finish(step.run(self._now), 1)
        return self._finish(self._binding.run_chunk(self._now, items, steps), steps)

    def _push_strides(self, items: Items, steps: int) -> Any:
        """Run the strides that are whole by now; the rest waits."""
        layout = self._engine.layout
        before, after = self._sets[self._now], self._sets[1 - self._now]
        items, run, rest = join_rest(layout, waiting(layout, before), items, steps)
        if not run:  # nothing to show to callbacks either
            keep(layout, rest, before)
            self._steps += steps
            return one_or_all(layout, empty_outputs(layout) or [])
        outputs = self._run_unbound(items, run, run)
        keep(layout, rest, after)
        return self._finish(outputs, steps)

    def _push_nothing(self, items: dict[str, Array]) -> Any:
        """Answer to a chunk without steps; the state stays, so nothing is finished."""
        layout = self._engine.layout
        if layout.fixed and not layout.timeless_outputs:
            return one_or_all(layout, [np.zeros(slot.item_full_shape(0), slot.dtype) for slot in layout.outputs])
        if layout.timeless_outputs and layout.lengths is None:
            raise InputError(no_steps_message(layout, [0]))
        return one_or_all(layout, self._run_unbound(items, 1, 0))

    def _run_unbound(self, items: dict[str, Array], steps: int, length: int) -> list[Array]:
        """Run without buffers of known shape: arrays padded to ``steps``, of which ``length`` count."""
        outputs, finals = run_items(self._engine, [items], [length], steps, self._sets[self._now])
        for buffer, final in zip(self._sets[1 - self._now], finals, strict=True):
            buffer[...] = final
        return split_items(self._engine.layout, outputs, [length], steps)[0]

    def _finish(self, outputs: list[Array], steps: int) -> Any:
        """Everything went well: what was written becomes the state."""
        if self._hooks:
            outputs = apply_hooks(self._hooks, self._engine.layout, outputs)
        self._now = 1 - self._now
        self._steps += steps
        return outputs[0] if len(outputs) == 1 else one_or_all(self._engine.layout, outputs)

    def _load(self, values: tuple[Array, ...]) -> None:
        for buffer, value in zip(self._sets[self._now], values, strict=True):
            buffer[...] = value

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(_CLOSED)

    def _held(self) -> _Held:
        return _Held(self)


class _Held:
    """Holds the lock of an open stream, or says why it cannot."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        if not self._stream._lock.acquire(False):
            raise StreamBusyError(_BUSY)
        try:
            self._stream._check_open()
        except StateError:
            self._stream._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._stream._lock.release()


def read_state(layout: Layout, state: Mapping[str, Any]) -> tuple[Array, ...]:
    """The checked arrays of a state, [size] each, in the order of the signature; StateError lists every problem."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state is a mapping from name to array, got a {type(state).__name__}")
    names = [slot.name for slot in layout.states]
    problems = [f"state {name!r} is missing" for name in names if name not in state]
    problems += [
        f"there is no state {name!r}, expected {', '.join(names) or 'none'}" for name in state if name not in names
    ]
    values = []
    for known in layout.states:
        if known.name in state:
            slot = Slot.of(Port(known.name, known.dtype.name, (BATCH, *known.item_shape)))
            value = read_array(state[known.name], slot, slot.item_shape, f"state {known.name!r}", problems)
            if value is not None:
                values.append(value.reshape(-1))
    raise_all(problems, StateError)
    return tuple(values)
