"""A stream: one sequence that arrives in chunks, and the recurrent state it has reached."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from types import FrameType
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, NotStreamableError, StateError, raise_all
from rnncore.runtime.interrupts import set_together
from rnncore.runtime.session.failures import of_runtime, run_error
from rnncore.runtime.session.process_fork import abandon, watch
from rnncore.runtime.session.run import Items, no_steps_message, run_items, split_items
from rnncore.runtime.session.session import Engine
from rnncore.runtime.streaming.callbacks import Hook, apply_hooks, check_hook
from rnncore.runtime.streaming.chunk import blank_outputs, empty_outputs
from rnncore.runtime.streaming.closing import Closing
from rnncore.runtime.streaming.given_state import read_state, read_steps
from rnncore.runtime.streaming.holding import Held, Holder, hold
from rnncore.runtime.streaming.io_binding import Binding, FastStep, Step
from rnncore.runtime.streaming.snapshot import MOST_STEPS, Snapshot, check_count, encode, write_file
from rnncore.runtime.streaming.state_rows import SelectedRows, StateBlocks, StateSet
from rnncore.runtime.streaming.strides import Rest, join_rest, keep, waiting
from rnncore.runtime.tensors.outputs import one_or_all
from rnncore.runtime.tensors.specs import Layout
from rnncore.runtime.tensors.validation import bind_arguments, read_item

_ndarray = np.ndarray
_getframe = sys._getframe
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
        "_block",
        "_closed",
        "_engine",
        "_holder",
        "_hooks",
        "_one",
        "_reached",
        "_row",
        "_sets",
        "_state_blocks",
        "_step",
    )

    def __init__(self, engine: Engine, state_blocks: StateBlocks, start: Snapshot | None = None) -> None:
        check_streamable(engine.layout)
        self._engine = engine
        self._holder: Holder = {}
        self._state_blocks = state_blocks
        self._block, self._row = state_blocks.take()
        self._sets: tuple[StateSet, StateSet] = (self._block.views(self._row), self._block.views(self._row + 1))
        # Which of the two sets is the state, and how many steps led there: both change at once, by one store.
        self._reached = (0, 0)
        self._closed = False
        self._binding: Binding | None = None
        self._step: Step | None = None
        self._one: FastStep | None = None  # what a push of one step needs, when nothing else is to be done
        self._hooks: tuple[Hook, ...] = ()
        self._load(start or _initial(engine.layout))
        watch(self)

    def push(self, /, *chunks: Any, **named: Any) -> Any:
        """Run the next chunk and move the state on.

        chunks: one array for each input in the order of the signature, or by name; shape [t, ...] with any t, 0
        included, or [...] for an input without a time axis; lists of ints will do for token ids.  A model that takes
        strides of several steps answers the whole ones; the rest waits, as part of the state, for the next chunk.  One
        whose answers need steps before their own, as behind a convolution without padding, has none for the first.

        Returns [t, ...] for an output with a time axis, one value for the chunk otherwise; one array, or a dict by name
        if the model has several outputs.  The arrays are the caller's own.  Raises InputError and leaves the state as
        it was.
        """
        holder = self._holder
        if holder.setdefault(0, _getframe()) is not _getframe():
            hold(holder, _getframe())
        try:
            one = self._one
            if one is not None and len(chunks) + len(named) == 1:
                name, dtype, shape, buffer, run, arguments, output, bounds = one
                chunk = chunks[0] if chunks else named.get(name)
                if (
                    type(chunk) is _ndarray
                    and chunk.dtype is dtype
                    and chunk.shape == shape
                    and (bounds is None or bounds[0] <= chunk.item() <= bounds[1])
                ):
                    buffer[...] = chunk
                    now, steps = self._reached
                    try:
                        run(*arguments[now])
                    except Exception as error:
                        if not of_runtime(error):
                            raise
                        raise run_error(error) from error
                    self._reached = (1 - now, steps + 1)
                    return output.copy()
            if self._step is not None and self._step.take(self._step.ordered(chunks, named) if named else chunks):
                return self._finish(self._step.run(self._reached[0]), 1)
            return self._push(chunks, named)
        finally:
            holder.clear()

    def fork(self) -> Stream:
        """A second stream that goes on from here; the two do not share anything that changes."""
        with Held(self._holder):
            return Stream(self._engine, self._state_blocks, self._snapshot())

    def save(self) -> bytes:
        """The state as bytes, to go on from with :meth:`Model.restore`, in this process or another one.

        Plain data with a checksum and the fingerprint of the model; see :mod:`rnncore.runtime.streaming.snapshot`.
        """
        with Held(self._holder):
            return encode(self._engine.fingerprint, self._engine.layout, self._snapshot())

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
        check_hook(callback)
        with Held(self._holder):
            self._check_open()
            self._one = None
            self._hooks = (*self._hooks, callback)

        def remove() -> None:
            self._hooks = tuple(hook for hook in self._hooks if hook is not callback)

        return remove

    def reset(self) -> None:
        """Back to the initial state and step 0."""
        with Held(self._holder):
            self._check_open()
            self._load(_initial(self._engine.layout))

    def close(self) -> None:
        """Free the buffers.  Closing twice does nothing."""
        if self._closed:
            return
        with Held(self._holder):
            self._check_open()
            self._one = self._step = self._binding = None
            self._sets = ((), ())
            self._closed = True
            self._block.free.append(self._row)

    @property
    def steps(self) -> int:
        """Time steps pushed since the stream was opened or reset."""
        return self._reached[1]

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the recurrent state, [size] each, by name."""
        with Held(self._holder):
            states = zip(self._engine.layout.states, self._snapshot().states, strict=True)
            return {state.name: array.copy().reshape(state.item_shape) for state, array in states}

    def set_state(self, state: Mapping[str, Any], *, steps: int | None = None) -> None:
        """Go on from ``state``, a mapping as :attr:`state` returns it; ``steps`` sets the counter if given.

        Raises StateError that lists every missing, unknown and ill-shaped state, or says why ``steps`` is no count; the
        stream is then as it was.
        """
        with Held(self._holder):
            self._check_open()
            count = self.steps if steps is None else read_steps(steps)
            self._load(Snapshot(count, read_state(self._engine.layout, state)))

    def after_process_fork(self) -> None:
        """In a forked child: go on from the last finished push, with bindings of this process."""
        abandon(self._step)
        abandon(self._binding)
        self._one = self._step = self._binding = None
        self._holder = {}

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._block.free.append(self._row)

    def __reduce__(self) -> Any:
        raise TypeError("a Stream cannot be pickled or copied: use save() and model.restore(), or fork()")

    def __repr__(self) -> str:
        return "<Stream closed>" if self._closed else f"<Stream at step {self.steps}>"

    def _push(self, chunks: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._check_open()
        layout = self._engine.layout
        problems: list[str] = []
        items, steps = read_item(layout, bind_arguments(layout.inputs, chunks, named), "", problems, whole=False)
        raise_all(problems)
        most = layout.signature.most_steps
        if most is not None:
            check_count(self.steps, steps, most)
        if layout.waits:
            return self._push_and_keep(items, steps)
        if steps == 0:
            return self._push_nothing(items)
        if not layout.binds(steps):
            return self._finish(self._run_unbound(items, steps, steps), steps)
        if self._binding is None:
            self._binding = Binding(self._engine, self._sets)
        if steps == 1 and most is None:
            step = self._step = self._binding.step()
            # Nobody pushes one step so often that the count, or what is left of it, overflows.
            self._one = None if self._hooks or self.steps > MOST_STEPS // 2 else step.one
            if not step.take(list(items.values())):  # never go on with what the buffers held before
                raise RuntimeError("a checked chunk does not fit the buffers of one step: this is an error of rnncore")
            return self._finish(step.run(self._reached[0]), 1)
        return self._finish(self._binding.run_chunk(self._reached[0], items, steps), steps)

    def _push_and_keep(self, items: Items, steps: int) -> Any:
        """Run what can be run by now; the rest waits."""
        layout = self._engine.layout
        now, count = self._reached
        before, after = self._sets[now], self._sets[1 - now]
        items, run, rest = join_rest(layout, waiting(layout, before), items, steps)
        if run:
            outputs = self._run_unbound(items, run, run)
            keep(layout, rest, after)
            return self._finish(outputs, steps)
        for old, new in zip(before, after, strict=True):
            new[...] = old
        keep(layout, rest, after)
        check_count(count, steps)
        self._reached = (1 - now, count + steps)  # nothing to show to callbacks
        return one_or_all(layout, blank_outputs(layout))

    def _push_nothing(self, items: dict[str, Array]) -> Any:
        """Answer to a chunk without steps; the state stays, so nothing is finished."""
        layout = self._engine.layout
        known = empty_outputs(layout)
        if known is not None:
            return one_or_all(layout, known)
        if layout.timeless_outputs and layout.lengths is None:
            raise InputError(no_steps_message(layout, [0]))
        return one_or_all(layout, self._run_unbound(items, 1, 0))

    def _run_unbound(self, items: dict[str, Array], steps: int, length: int) -> list[Array]:
        """Run without buffers of known shape: arrays padded to ``steps``, of which ``length`` count."""
        now = self._reached[0]
        outputs, finals = run_items(self._engine, [items], [length], steps, self._sets[now])
        for buffer, final in zip(self._sets[1 - now], finals, strict=True):
            buffer[...] = final
        return split_items(self._engine.layout, outputs, [length], steps)[0]

    def _finish(self, outputs: list[Array], steps: int) -> Any:
        """Everything went well: what was written becomes the state."""
        if self._hooks:
            outputs = apply_hooks(self._hooks, self._engine.layout, outputs)
        now, before = self._reached
        check_count(before, steps)
        self._reached = (1 - now, before + steps)
        return outputs[0] if len(outputs) == 1 else one_or_all(self._engine.layout, outputs)

    def _load(self, snapshot: Snapshot) -> None:
        """The snapshot becomes the state, once all of it is in place."""
        other = 1 - self._reached[0]
        for buffer, value in zip(self._sets[other], snapshot.states, strict=True):
            buffer[...] = value
        self._reached = (other, snapshot.steps)

    def _snapshot(self) -> Snapshot:
        """Where the stream is, in views of its own arrays; StateError when it is closed."""
        self._check_open()
        now, steps = self._reached
        return Snapshot(steps, tuple(array[0] for array in self._sets[now]))

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(_CLOSED)


# ------------------------------------------------------------------------------------------- several streams in one call


def hold_together(streams: Sequence[Stream], held: list[Holder], frame: FrameType) -> None:
    """Make ``frame`` the holder of every stream, each noted in ``held`` at once; StreamBusyError names the first in use."""
    for stream in streams:
        holder = stream._holder
        if holder.setdefault(0, frame) is not frame:
            hold(holder, frame, f"stream {len(held)} is in use by another caller: no stream was moved")
        held.append(holder)


def belong_to(streams: Sequence[Stream], engine: Engine) -> list[bool]:
    """For each stream whether it was opened by the model of ``engine``."""
    return [stream._engine is engine for stream in streams]


def callbacks_of(streams: Sequence[Stream]) -> list[tuple[Hook, ...]]:
    """The callbacks of each stream."""
    return [stream._hooks for stream in streams]


def rows_of(streams: Sequence[Stream]) -> SelectedRows:
    """Where the states of ``streams`` are."""
    rows = [stream._row + stream._reached[0] for stream in streams]
    return SelectedRows([stream._block for stream in streams], rows)


def waiting_in(stream: Stream) -> Rest:
    """The steps that wait in ``stream`` for the next run."""
    return waiting(stream._engine.layout, stream._sets[stream._reached[0]])


def move_together(
    streams: Sequence[Stream], lengths: Sequence[int], parts: Sequence[tuple[SelectedRows, Sequence[Array]]]
) -> None:
    """The streams go ahead by ``lengths``, all of them or none.

    parts: their rows, some at a time, and the states that belong there, [number of streams, size] each.
    """
    reached = []
    for stream, steps in zip(streams, lengths, strict=True):
        now, before = stream._reached
        check_count(before, steps)
        reached.append((1 - now, before + steps))
    for rows, finals in parts:
        rows.scatter_other(finals)  # where nobody looks yet
    set_together(streams, repeat("_reached"), reached)


def _initial(layout: Layout) -> Snapshot:
    return Snapshot(0, tuple(state.initial for state in layout.states))
