"""One push on its way through a pool, and the stream that it belongs to."""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from rnncore.runtime.layout import Array, Layout


class Stage(enum.Enum):
    """Life of a ticket.  Only a queued one can be withdrawn; one that is running is finished first."""

    QUEUED = enum.auto()
    RUNNING = enum.auto()
    OVER = enum.auto()


class Lane:
    """A stream as the scheduler sees it.

    row: where its state is resident, -1 when it is not.
    parked: its state when it is not resident.
    tickets: its pushes in the order of their arrival; the first may be running.
    queued: it waits for a batch, or is in one.
    """

    __slots__ = ("closed", "evicted", "key", "last_used", "parked", "queued", "row", "steps", "tickets")

    def __init__(self, key: str, row: int, steps: int) -> None:
        self.key = key
        self.row = row
        self.steps = steps
        self.parked: tuple[Array, ...] | None = None
        self.tickets: deque[Ticket] = deque()
        self.queued = False
        self.closed = False
        self.evicted = False
        self.last_used = time.monotonic()


class Ticket:
    """One push.

    items: the pool's own copy of the checked chunk, by input name.
    done: steps that have been run; their outputs are ``parts`` and the state they led to is ``carry``, which becomes
        the state of the stream only with the last step.
    deadline: on the clock of ``time.monotonic``.
    """

    __slots__ = (
        "abandoned",
        "carry",
        "deadline",
        "done",
        "error",
        "future",
        "gate",
        "items",
        "lane",
        "loop",
        "outputs",
        "parts",
        "queued_at",
        "stage",
        "steps",
    )

    def __init__(self, lane: Lane, items: dict[str, Array], steps: int, timeout_s: float | None) -> None:
        self.lane = lane
        self.items = items
        self.steps = steps
        self.done = 0
        self.carry: tuple[Array, ...] | None = None
        self.parts: list[list[Array]] = []
        self.stage = Stage.QUEUED
        self.abandoned = False
        self.outputs: list[Array] | None = None
        self.error: BaseException | None = None
        self.queued_at = time.monotonic()
        self.deadline = None if timeout_s is None else self.queued_at + timeout_s
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | None = None
        self.gate: threading.Lock | None = None

    def wait_in_thread(self) -> None:
        """Make the ticket one that a thread waits for, at ``gate``."""
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait_in_loop(self) -> asyncio.Future[None]:
        """Make the ticket one that a coroutine of the running loop waits for; returns what it awaits."""
        loop = self.loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.future = future
        return future

    def result(self) -> list[Array]:
        """Outputs of the whole chunk; raises what went wrong.  Only when the ticket is over."""
        if self.error is not None:
            raise self.error
        assert self.outputs is not None, "the ticket is not over"
        return self.outputs

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


def join_parts(layout: Layout, parts: Sequence[list[Array]]) -> list[Array]:
    """Outputs of the parts of a chunk, joined along time."""
    columns = zip(*parts, strict=True)
    return [np.concatenate(own, slot.item_time_axis or 0) for slot, own in zip(layout.outputs, columns, strict=True)]


def settle(tickets: Sequence[Ticket]) -> None:
    """Tell everybody who waits for these tickets that they are over; one wake-up for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Ticket]] = {}
    for ticket in tickets:
        if ticket.gate is not None:
            ticket.gate.release()
        elif ticket.loop is not None:
            loops.setdefault(ticket.loop, []).append(ticket)
    for loop, own in loops.items():
        try:
            loop.call_soon_threadsafe(_settle_in_loop, own)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            continue


def _settle_in_loop(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        if ticket.future is not None and not ticket.future.done():
            ticket.future.set_result(None)
