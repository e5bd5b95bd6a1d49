"""Clients that a service would rather not have: python examples/bad_company.py URL --idle 500 --hostile 50 --seconds 60

Needs ``pip install 'rnncore[examples]'``.  An idle client connects and says nothing; a hostile one does one thing after another
that it should not.  A client that is closed comes again.  Prints "ready" when the idle ones are there.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

PAUSE_S = 0.05  # of a hostile client between two deeds
LONGEST = 4096  # characters of a message that the service takes

Deed = Callable[[ClientConnection], Awaitable[object]]


async def sends_bytes(socket: ClientConnection) -> None:
    await socket.send(b"abc")
    await socket.recv()


async def sends_too_much(socket: ClientConnection) -> None:
    await socket.send("a" * 2 * LONGEST)
    await socket.recv()


async def does_not_read(socket: ClientConnection) -> None:
    for _ in range(100):
        await socket.send("a" * LONGEST)


async def asks_and_leaves(socket: ClientConnection) -> None:
    await socket.send("a" * LONGEST)


async def leaves(socket: ClientConnection) -> None:
    socket.transport.abort()


async def knows_no_letters(socket: ClientConnection) -> None:
    for _ in range(8):
        await socket.send("\0\u4e2d" * 100)
        await socket.recv()


DEEDS: tuple[Deed, ...] = (sends_bytes, sends_too_much, does_not_read, asks_and_leaves, leaves, knows_no_letters)


async def idle(url: str, there: asyncio.Semaphore) -> None:
    first = True
    while True:
        try:
            async with connect(url) as socket:
                if first:
                    there.release()
                first = False
                await socket.wait_closed()
        except (OSError, WebSocketException):
            await asyncio.sleep(PAUSE_S)


async def hostile(url: str, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        try:
            async with connect(url, close_timeout=1) as socket:
                await asyncio.wait_for(chance.choice(DEEDS)(socket), 5)
        except (OSError, WebSocketException, TimeoutError):
            pass
        await asyncio.sleep(PAUSE_S)


async def keep_company(url: str, idlers: int, foes: int, seconds: float) -> None:
    there = asyncio.Semaphore(0)
    tasks = [asyncio.ensure_future(idle(url, there)) for _ in range(idlers)]
    for _ in tasks:
        await there.acquire()
    tasks += [asyncio.ensure_future(hostile(url, seed)) for seed in range(foes)]
    print("ready", flush=True)
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="what the service prints when it starts")
    parser.add_argument("--idle", type=int, default=500, help="clients that say nothing")
    parser.add_argument("--hostile", type=int, default=50, help="clients that do what they should not")
    parser.add_argument("--seconds", type=float, default=60, help="end after so long")
    arguments = parser.parse_args()
    asyncio.run(keep_company(arguments.url, arguments.idle, arguments.hostile, arguments.seconds))


if __name__ == "__main__":
    main()
