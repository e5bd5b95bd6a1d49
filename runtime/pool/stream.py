"""A stream whose pushes are batched with those of other streams."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.pool.request import OVER, WAITING, Owner, PushRequest, StreamQueue, is_duration, own_array
from rnncore.runtime.streaming.callbacks import Hook, apply_hooks, check_hook
from rnncore.runtime.streaming.chunk import empty_outputs, read_chunk
from rnncore.runtime.streaming.closing import Closing
from rnncore.runtime.streaming.given_state import read_state, read_steps
from rnncore.runtime.streaming.snapshot import Snapshot, encode, write_file
from rnncore.runtime.tensors.outputs import one_or_all

if TYPE_CHECKING:
    import os

    from rnncore.runtime.pool.pool import Pool

_BUSY = "pushes of this stream are pending: wait for them before you {} it"


class PoolStream(Closing):
    """One sequence in chunks, through a pool; opened by :meth:`Pool.open`.

    Pushes are answered in the order in which they were made, also if several are pending.  Each is applied as a whole or
    not at all: one that is refused, fails, is cancelled in the queue or passes its deadline leaves the state as it was,
    and :attr:`steps` says how far the stream is.
    """

    __slots__ = ("__weakref__", "_hooks", "_pool", "_queue", "_read", "_scheduler")

    def __init__(self, pool: Pool, queue: StreamQueue) -> None:
        self._pool = pool  # an open stream keeps its pool alive
        self._scheduler = pool._scheduler
        self._queue = queue
        # Not closed at once: the garbage collector may run while this very thread holds the lock.  And no __del__, which
        # an exception of a signal handler would break off and Python would then forget.
        queue.owner = Owner(self, pool._scheduler.dropped.append)
        queue.owner.queue = queue
        self._read = pool._scheduler.engine.quick.read_copies
        self._hooks: tuple[Hook, ...] = ()

    def push(self, /, *chunks: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """Run the next chunk, which is what ``Stream.push`` takes, and return what that returns.

        timeout_s: how long the push may wait for its turn.  DeadlineExceeded then means that it was not applied; a
            push that has begun to run is finished and answered, however late.

        Raises InputError (a bad chunk, refused before it is queued), Overloaded, DeadlineExceeded, PoolClosedError,
        StreamEvictedError, or StateError when the stream is closed.
        """
        request = self._request(chunks, named, timeout_s)
        if request.stage is not OVER:
            scheduler = self._scheduler
            scheduler.notifier.check_may_wait()
            gate = request.wait_in_thread()
            try:
                if not scheduler.submit(request, _running_loop()):
                    self._wait_for_place(request, gate)
                    self._fill(request, chunks, named)
                while request.stage is not OVER:
                    self._wait(request, gate)
            except BaseException:  # of a signal handler, say
                scheduler.withdrawn.append(request)
                scheduler.settle()
                raise
        return self._answer(request)

    async def apush(self, /, *chunks: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """:meth:`push` for asyncio: the event loop goes on while the chunk waits and is run.

        A cancelled task takes its chunk back if it is still in the queue, or between two calls of a long chunk;
        otherwise the chunk is applied and its outputs are dropped.
        """
        request = self._request(chunks, named, timeout_s)
        if request.stage is OVER:
            return self._answer(request)
        loop = asyncio.get_running_loop()
        scheduler = self._scheduler
        future = request.wait_in_loop(loop)
        timer = None if timeout_s is None else loop.call_later(float(timeout_s), scheduler.expire, request)
        try:
            if not scheduler.submit(request):
                while request.stage is WAITING and not request.placed:
                    await future
                    future = request.wait_in_loop(loop)
                self._fill(request, chunks, named)
            while request.stage is not OVER:
                await future
                if request.stage is not OVER:  # told of something else, or twice
                    future = request.wait_in_loop(loop)
        except BaseException:
            scheduler.withdrawn.append(request)
            scheduler.settle()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return self._answer(request)

    def submit(self, /, *chunks: Any, timeout_s: float | None = None, **named: Any) -> Future[Any]:
        """:meth:`push` without waiting for the answer, which comes as a ``concurrent.futures.Future``.

        Raises at once what is wrong with the chunk or the stream; with ``on_overload="wait"`` it waits for a place in
        the queue before it returns.  ``future.cancel()`` is to the chunk what cancelling its task is in :meth:`apush`.
        Callbacks, of the future and of :meth:`on_output`, run in a thread of the pool: keep them short.  What waits for
        the pool there, such as :meth:`push`, would wait for ever and is refused with PoolError.
        """
        request = self._request(chunks, named, timeout_s)
        future: Future[Any] = Future()
        if request.stage is OVER:
            self._deliver(future, request)
            return future
        gate = request.wait_in_thread()
        request.deliver = lambda over: self._deliver(future, over)
        scheduler = self._scheduler
        try:
            if not scheduler.submit(request, _running_loop()):
                self._wait_for_place(request, gate)
                self._fill(request, chunks, named)
            future.add_done_callback(lambda done: scheduler.cancel(request) if done.cancelled() else None)
        except BaseException:
            scheduler.withdrawn.append(request)
            scheduler.settle()
            raise
        return future

    def on_output(self, callback: Hook) -> Callable[[], None]:
        """Have ``callback`` called with what every push is about to return; returns a function that stops this.

        As ``Stream.on_output``, but called by whoever pushed, in its thread or event loop, so that a slow callback
        holds up nobody else.  The chunk has then been applied, whatever the callback does: if it raises, the push
        raises that error, the outputs are lost, and the stream goes on after the chunk.
        """
        check_hook(callback)
        self._hooks = (*self._hooks, callback)

        def remove() -> None:
            self._hooks = tuple(hook for hook in self._hooks if hook is not callback)

        return remove

    def fork(self, key: str | None = None) -> PoolStream:
        """A second stream of the pool that goes on from here; it starts without callbacks."""
        return self._pool.open_at(key, self._snapshot("fork"))

    def save(self) -> bytes:
        """The state as bytes; both ``pool.restore`` and ``model.restore`` go on from them."""
        engine = self._scheduler.engine
        return encode(engine.fingerprint, engine.layout, self._snapshot("save"))

    def save_file(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`save` to a file that is, whatever happens, the old one or the whole new one."""
        write_file(path, self.save())

    def reset(self) -> None:
        """Back to the initial state and step 0."""
        initial = tuple(state.initial for state in self._scheduler.engine.layout.states)
        queue, scheduler = self._queue, self._scheduler
        start = Snapshot(0, initial)
        scheduler.when_quiet(queue, _BUSY.format("reset"), lambda: scheduler.replace(queue, start))

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the recurrent state, [size] each, by name."""
        states = self._snapshot("read").states
        slots = self._scheduler.engine.layout.states
        return {slot.name: array.reshape(slot.item_shape) for slot, array in zip(slots, states, strict=True)}

    def set_state(self, state: Mapping[str, Any], *, steps: int | None = None) -> None:
        """Go on from ``state``, a mapping as :attr:`state` returns it; ``steps`` sets the counter if given.

        Raises StateError that lists what is wrong with the state, or says why ``steps`` is no count; nothing has changed
        then.
        """
        count = None if steps is None else read_steps(steps)
        values = read_state(self._scheduler.engine.layout, state)
        own = tuple(value.copy() for value in values)
        queue, scheduler = self._queue, self._scheduler
        scheduler.when_quiet(
            queue,
            _BUSY.format("change"),
            lambda: scheduler.replace(queue, Snapshot(queue.steps if count is None else count, own)),
        )

    def close(self) -> None:
        """Give the state up.  Pushes still in the queue get StateError; closing twice does nothing."""
        self._scheduler.check_process()
        self._scheduler.close_stream(self._queue)

    @property
    def key(self) -> str:
        """Name of the stream in its pool."""
        return self._queue.key

    @property
    def steps(self) -> int:
        """Time steps applied since the stream was opened or reset."""
        return self._queue.steps

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._queue.closed

    @property
    def evicted(self) -> bool:
        """True when the state was handed to ``on_evict``."""
        return self._queue.evicted

    def __repr__(self) -> str:
        if self._queue.closed:
            return f"<PoolStream {self._queue.key!r} closed>"
        return f"<PoolStream {self._queue.key!r} at step {self._queue.steps}>"

    def _request(self, chunks: tuple[Any, ...], named: dict[str, Any], timeout_s: float | None) -> PushRequest:
        """A request for a copy of the checked chunk; one that is over if the answer is known."""
        if timeout_s is not None and not is_duration(timeout_s):
            raise InputError(f"timeout_s is {timeout_s!r}, expected seconds of at least 0, or None")
        queue = self._queue
        if queue.closed or queue.evicted:
            self._scheduler.check_usable(queue)
        read = None if named else self._read(chunks)
        if read is not None and read[1]:
            return PushRequest(queue, read[0], read[1], timeout_s)
        items, steps = read_chunk(self._scheduler.engine, chunks, named)
        request = PushRequest(queue, items, steps, timeout_s)
        if steps == 0:
            request.outputs = empty_outputs(self._scheduler.engine.layout)
            if request.outputs is not None:
                request.stage = OVER
        return request

    def _fill(self, request: PushRequest, chunks: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The request has its place: now its chunk is copied."""
        items, steps = read_chunk(self._scheduler.engine, chunks, named)
        if steps != request.steps:
            raise InputError(
                f"the chunk had {request.steps} steps and has {steps} now: leave it as it is until its turn"
            )
        self._scheduler.fill(request, items)

    def _wait_for_place(self, request: PushRequest, gate: threading.Lock) -> None:
        while request.stage is WAITING and not request.placed:
            self._wait(request, gate)

    def _wait(self, request: PushRequest, gate: threading.Lock) -> None:
        if request.deadline is not None:
            left = max(request.deadline - time.monotonic(), 0)
            if gate.acquire(timeout=min(left, 1e6)):
                return
            self._scheduler.expire(request)
        gate.acquire()

    def _answer(self, request: PushRequest) -> Any:
        whole = request.outputs
        if whole is not None and len(whole) == 1 and request.error is None and not self._hooks:
            return own_array(whole[0])  # as below, without lists
        outputs = request.result()
        layout = self._scheduler.engine.layout
        if self._hooks and request.steps and not request.blank:
            outputs = apply_hooks(self._hooks, layout, outputs)
        return one_or_all(layout, outputs)

    def _deliver(self, future: Future[Any], request: PushRequest) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            answer = self._answer(request)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(answer)

    def _snapshot(self, verb: str) -> Snapshot:
        """A copy of where the stream is, while no push of it is pending."""
        queue, resident = self._queue, self._scheduler.resident

        def read() -> Snapshot:
            parked = queue.parked
            states = resident.read(queue.row) if parked is None else tuple(array.copy() for array in parked)
            return Snapshot(queue.steps, states)

        return self._scheduler.when_quiet(queue, _BUSY.format(verb), read)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread, which stands still while the thread waits."""
    return asyncio._get_running_loop()
