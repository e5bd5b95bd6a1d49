"""A stream whose pushes are batched with those of other streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rnncore.runtime.chunks import empty_outputs, read_chunk
from rnncore.runtime.errors import InputError, StateError, StreamBusyError, StreamEvictedError
from rnncore.runtime.hooks import Hook, apply_hooks, one_or_all
from rnncore.runtime.layout import Array
from rnncore.runtime.snapshot import Snapshot, encode, write_file
from rnncore.runtime.stream import read_state
from rnncore.runtime.ticket import Lane, Ticket, settle

if TYPE_CHECKING:
    import os

    from rnncore.runtime.pool import Pool

_BUSY = "pushes of this stream are pending: wait for them before you {} it"
_EVICTED = (
    "the stream was idle and its state was handed to on_evict as {!r}: go on from those bytes with pool.restore(blob)"
)
_CLOSED = "the stream is closed: open a new one with pool.open()"


class PoolStream:
    """One sequence in chunks, through a pool; opened by :meth:`Pool.open`.

    Pushes are answered in the order in which they were made, also if several are pending.  Each is applied as a whole or
    not at all: one that is refused, fails, is cancelled in the queue or passes its deadline leaves the state as it was,
    and :attr:`steps` says how far the stream is.
    """

    __slots__ = ("__weakref__", "_hooks", "_lane", "_pool", "_scheduler")

    def __init__(self, pool: Pool, lane: Lane) -> None:
        self._pool = pool  # an open stream keeps its pool alive
        self._scheduler = pool._scheduler
        self._lane = lane
        self._hooks: tuple[Hook, ...] = ()

    def push(self, /, *chunks: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """Run the next chunk, which is what ``Stream.push`` takes, and return what that returns.

        timeout_s: how long the push may wait for its turn.  DeadlineExceeded then means that it was not applied; a
            push that has begun to run is finished and answered, however late.

        Raises InputError (a bad chunk, refused before it is queued), Overloaded, DeadlineExceeded, PoolClosedError,
        StreamEvictedError, or StateError when the stream is closed.
        """
        ticket, outputs = self._ticket(chunks, named, timeout_s)
        if ticket is None:
            return one_or_all(self._scheduler.engine.layout, outputs)
        ticket.wait_in_thread()
        self._scheduler.submit(ticket)
        try:
            self._wait(ticket)
        except BaseException:  # KeyboardInterrupt, say
            self._scheduler.cancel(ticket)
            raise
        return self._answer(ticket)

    async def apush(self, /, *chunks: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """:meth:`push` for asyncio: the event loop goes on while the chunk waits and is run.

        A cancelled task takes its chunk back if it is still in the queue, or between two calls of a long chunk;
        otherwise the chunk is applied and its outputs are dropped.
        """
        ticket, outputs = self._ticket(chunks, named, timeout_s)
        if ticket is None:
            return one_or_all(self._scheduler.engine.layout, outputs)
        future = ticket.wait_in_loop()
        self._scheduler.submit(ticket)
        timer = None if timeout_s is None else future.get_loop().call_later(timeout_s, self._scheduler.expire, ticket)
        try:
            await future
        except BaseException:
            self._scheduler.cancel(ticket)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return self._answer(ticket)

    def on_output(self, callback: Hook) -> Callable[[], None]:
        """Have ``callback`` called with what every push is about to return; returns a function that stops this.

        As ``Stream.on_output``, but called by whoever pushed, in its thread or event loop, so that a slow callback
        holds up nobody else.  The chunk has then been applied, whatever the callback does: if it raises, the push
        raises that error, the outputs are lost, and the stream goes on after the chunk.
        """
        self._hooks = (*self._hooks, callback)

        def remove() -> None:
            self._hooks = tuple(hook for hook in self._hooks if hook is not callback)

        return remove

    def fork(self, key: str | None = None) -> PoolStream:
        """A second stream of the pool that goes on from here; it starts without callbacks."""
        with self._quiet("fork"):
            snapshot = Snapshot(self._lane.steps, self._states())
        return self._pool._open(key, snapshot)

    def save(self) -> bytes:
        """The state as bytes; both ``pool.restore`` and ``model.restore`` go on from them."""
        with self._quiet("save"):
            snapshot = Snapshot(self._lane.steps, self._states())
        engine = self._scheduler.engine
        return encode(engine.fingerprint, engine.layout, snapshot)

    def save_file(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`save` to a file that is, whatever happens, the old one or the whole new one."""
        write_file(path, self.save())

    def reset(self) -> None:
        """Back to the initial state and step 0."""
        with self._quiet("reset"):
            self._replace(None)
            self._lane.steps = 0

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the recurrent state, [size] each, by name."""
        with self._quiet("read"):
            states = self._states()
        return {slot.name: array for slot, array in zip(self._scheduler.engine.layout.states, states, strict=True)}

    def set_state(self, state: Mapping[str, Any], *, steps: int | None = None) -> None:
        """Go on from ``state``, a mapping as :attr:`state` returns it; ``steps`` sets the counter if given."""
        values = read_state(self._scheduler.engine.layout, state)
        with self._quiet("change"):
            self._replace(values)
            if steps is not None:
                self._lane.steps = steps

    def close(self) -> None:
        """Give the state up.  Pushes still in the queue get StateError; closing twice does nothing."""
        self._scheduler.check_process()
        with self._scheduler.lock:
            dropped = self._scheduler.release(self._lane)
        settle(dropped)

    @property
    def key(self) -> str:
        """Name of the stream in its pool."""
        return self._lane.key

    @property
    def steps(self) -> int:
        """Time steps applied since the stream was opened or reset."""
        return self._lane.steps

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._lane.closed

    @property
    def evicted(self) -> bool:
        """True when the state was handed to ``on_evict``."""
        return self._lane.evicted

    def __enter__(self) -> PoolStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        lane = getattr(self, "_lane", None)
        if lane is not None and not lane.closed:
            # Not closed here: the garbage collector may run while this very thread holds the lock.
            self._scheduler.dropped.append(lane)

    def __repr__(self) -> str:
        if self._lane.closed:
            return f"<PoolStream {self._lane.key!r} closed>"
        return f"<PoolStream {self._lane.key!r} at step {self._lane.steps}>"

    def _ticket(
        self, chunks: tuple[Any, ...], named: dict[str, Any], timeout_s: float | None
    ) -> tuple[Ticket | None, list[Array]]:
        """A ticket for a checked chunk, or the answer if it needs none."""
        if timeout_s is not None and not timeout_s >= 0:
            raise InputError(f"timeout_s is {timeout_s!r}, expected seconds of at least 0, or None")
        self._check_usable()
        engine = self._scheduler.engine
        items, steps = read_chunk(engine, chunks, named)  # copies: the caller may use its arrays again at once
        if steps == 0:
            nothing = empty_outputs(engine.layout)
            if nothing is not None:
                return None, nothing
        return Ticket(self._lane, items, steps, timeout_s), []

    def _wait(self, ticket: Ticket) -> None:
        gate = ticket.gate
        assert gate is not None, "the ticket has no gate"
        if ticket.deadline is not None:
            left = max(ticket.deadline - time.monotonic(), 0)
            if gate.acquire(timeout=min(left, 1e6)):
                return
            self._scheduler.expire(ticket)
        gate.acquire()

    def _answer(self, ticket: Ticket) -> Any:
        outputs = ticket.result()
        layout = self._scheduler.engine.layout
        if self._hooks and ticket.steps:
            outputs = apply_hooks(self._hooks, layout, outputs)
        return outputs[0] if len(outputs) == 1 else one_or_all(layout, outputs)

    def _check_usable(self) -> None:
        if self._lane.closed:
            raise StateError(_CLOSED)
        if self._lane.evicted:
            raise StreamEvictedError(_EVICTED.format(self._lane.key))

    @contextmanager
    def _quiet(self, verb: str) -> Iterator[None]:
        """Hold the lock of the pool while no push of this stream is pending."""
        self._scheduler.check_process()
        with self._scheduler.lock:
            self._check_usable()
            if not self._scheduler.quiet(self._lane):
                raise StreamBusyError(_BUSY.format(verb))
            yield

    def _states(self) -> tuple[Array, ...]:
        lane = self._lane
        if lane.parked is not None:
            return tuple(array.copy() for array in lane.parked)
        return self._scheduler.resident.read(lane.row)

    def _replace(self, states: tuple[Array, ...] | None) -> None:
        """New states, the initial ones if None."""
        lane = self._lane
        if lane.row >= 0:
            self._scheduler.resident.write(lane.row, states)
        else:
            lane.row, lane.parked = self._scheduler.resident.allocate(states), None
