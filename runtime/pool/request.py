"""One push on its way through a pool, and the stream that it belongs to."""

from __future__ import annotations

import asyncio
import enum
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import is_number
from rnncore.runtime.tensors.specs import Layout


class Stage(enum.Enum):
    """Life of a request.  One that waits for a place, or is queued, can be withdrawn; one that runs is finished first."""

    WAITING = enum.auto()
    QUEUED = enum.auto()
    RUNNING = enum.auto()
    OVER = enum.auto()


WAITING, QUEUED, RUNNING, OVER = Stage.WAITING, Stage.QUEUED, Stage.RUNNING, Stage.OVER
"""Found faster than members of a class, and asked for in every push."""


def is_duration(value: Any) -> bool:
    """Whether ``value`` is a number from 0 on, such as seconds; infinity is one, too large an integer is none."""
    return is_number(value) and float(value) >= 0


class Owner(weakref.ref[Any]):
    """The PoolStream that somebody holds.  It calls what it is made with, from C code, when nobody holds it any more."""

    __slots__ = ("queue",)
    queue: StreamQueue


class StreamQueue:
    """A stream as the scheduler sees it.

    row: where its state is resident, -1 when it is not.
    parked: its state when it is not resident.
    requests: its pushes in the order of their arrival; the first may be running.
    queued: it waits for a batch, or is in one.
    owner: set until the stream is closed.
    """

    __slots__ = ("closed", "evicted", "key", "last_used", "owner", "parked", "queued", "requests", "row", "steps")

    def __init__(self, key: str, row: int, steps: int) -> None:
        self.key = key
        self.row = row
        self.steps = steps
        self.parked: tuple[Array, ...] | None = None
        self.requests: deque[PushRequest] = deque()
        self.queued = False
        self.closed = False
        self.evicted = False
        self.owner: Owner | None = None
        self.last_used = time.monotonic()

    @property
    def runs(self) -> bool:
        """A push of it is in a batch in this moment: its state must stay where it is."""
        return bool(self.requests) and self.requests[0].stage is RUNNING


class PushRequest:
    """One push.

    items: the pool's own copy of the checked chunk, by input name.
    done: steps that have been run; their outputs are ``parts`` and the state they led to is ``carry``, which becomes
        the state of the stream only with the last step.
    outputs: the answer, in arrays that may be parts of larger ones.
    deadline: on the clock of ``time.monotonic``.
    blank: its answer has no step, because all of it waits for the next chunk.
    placed: it had to wait for its place in the queue, and has it now.
    gate, future, deliver: how to tell whoever waits: a thread, a coroutine, or a function to be called.
    """

    # Most requests never change these: as attributes of the class they cost nothing to make.
    stage = QUEUED
    done = 0
    parts: Sequence[Sequence[Array]] = ()
    carry: tuple[Array, ...] | None = None
    abandoned = False
    placed = False
    blank = False
    outputs: Sequence[Array] | None = None
    error: BaseException | None = None
    deadline: float | None = None
    gate: threading.Lock | None = None
    future: asyncio.Future[None] | None = None
    deliver: Callable[[PushRequest], None] | None = None

    def __init__(self, queue: StreamQueue, items: dict[str, Array], steps: int, timeout_s: float | None) -> None:
        self.queue = queue
        self.items = items
        self.steps = steps
        self.queued_at = time.monotonic()
        if timeout_s is not None:
            self.deadline = self.queued_at + float(timeout_s)  # of NumPy, say, which locks do not take

    def wait_in_thread(self) -> threading.Lock:
        """Make the request one that a thread waits for; returns the lock that it is to acquire."""
        gate = self.gate = threading.Lock()
        gate.acquire()
        return gate

    def open_gate(self) -> None:
        """Let the thread that waits go on, if there is one; doing so twice is once."""
        gate = self.gate
        if gate is not None and gate.locked():
            try:
                gate.release()
            except RuntimeError:  # somebody else told in this moment
                return

    def wait_in_loop(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Make the request one that a coroutine of ``loop`` waits for; returns what it awaits."""
        future = self.future = loop.create_future()
        return future

    @property
    def waits_by_lock(self) -> bool:
        """A thread waits for the request, and nothing but a lock has to be opened for it."""
        return self.gate is not None and self.deliver is None

    def result(self) -> list[Array]:
        """Outputs of the whole chunk, the caller's own; raises what went wrong.  Only when the request is over."""
        if self.error is not None:
            raise self.error
        assert self.outputs is not None, "the request is not over"
        return [own_array(output) for output in self.outputs]

    def slice(self, layout: Layout, steps: int) -> dict[str, Array]:
        """Inputs of the next ``steps`` steps."""
        if self.done == 0 and steps >= self.steps:
            return self.items
        cut = slice(self.done, self.done + steps)
        return {
            slot.name: self.items[slot.name]
            if slot.item_time_axis is None
            else slot.item_from_row(slot.item_row(self.items[slot.name])[cut])
            for slot in layout.inputs
        }


def own_array(output: Array) -> Array:
    """``output`` itself, or a copy if it is part of a larger array."""
    return output if output.base is None else output.copy()


def join_parts(layout: Layout, parts: Sequence[Sequence[Array]]) -> list[Array]:
    """Outputs of the parts of a chunk, joined along time."""
    columns = zip(*parts, strict=True)
    return [np.concatenate(own, slot.item_time_axis or 0) for slot, own in zip(layout.outputs, columns, strict=True)]
