"""Score tokens for many clients over one pool, by WebSocket, on this machine only: python examples/token_service.py --seconds 60

Needs ``pip install 'rnncore[examples]'``.  A client connects to ``/score`` and sends text in pieces of up to 4096 characters;
for each piece it gets the log-probability of every character given all that it has sent before.  A client that is idle, does
not read its answers, sends anything but text, or comes from another site's page is closed with a code and one line in the
log; one that leaves takes its work with it.  New clients beyond ``--arrivals`` a second wait at the door, so that those who come
again and again cost the others nothing.  ``--token`` asks for ``Authorization: Bearer``, ``--stats`` shows the pool,
``/health`` says that the service is alive.  ``--host 0.0.0.0 --seconds 0`` serves other machines, for ever: the
``Dockerfile`` runs it so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request, WebSocket
from small_model import small_model
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from rnncore.runtime import InputError, LanguageModel, PoolStream

MAX_MESSAGE = 4096  # characters; uvicorn also refuses more bytes than that before they are read
PIECE = 64  # characters of one push: so much is done at most for somebody who has left
SPARE = 200  # clients that may come at once after a while without any
LONGEST_WAIT_S = 8.0  # at the door: clients give up after ten seconds
UNANSWERED = 8  # messages that a client may send ahead
NOT_TEXT, REFUSED, TOO_LONG, TRY_AGAIN_LATER = 1003, 1008, 1009, 1013

log = logging.getLogger("token_service")


@dataclass(frozen=True)
class Limits:
    clients: int = 1024
    idle_s: float = 60.0
    send_s: float = 10.0
    arrivals: float = 25.0
    token: str | None = None
    stats: bool = False


class Door:
    """Lets so many in a second, and as many more at once as came too few before; the others wait, first come first served."""

    def __init__(self, per_s: float) -> None:
        self._pause_s = 1 / per_s
        self._spare_s = SPARE * self._pause_s
        self._next = 0.0

    def wait_s(self, now: float) -> float:
        """How long one who comes now has to wait; raises Refused, and keeps no place, if that is too long to be worth it."""
        turn = max(self._next, now - self._spare_s)
        if turn - now > LONGEST_WAIT_S:
            raise Refused(TRY_AGAIN_LATER, "too many clients come at once, try again later")
        self._next = turn + self._pause_s
        return max(0.0, turn - now)


class Connection(WebSocketsSansIOProtocol):
    """uvicorn's own, but for a client that does not read: what is left for it does not keep the connection open."""

    linger_s = 2.0  # to take the reason and to answer it; until then all that it sends is read and thrown away

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(self.linger_s, self.transport.abort)


class Refused(Exception):
    """The client is closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def make_app(model: LanguageModel, limits: Limits = Limits()) -> FastAPI:
    # Pushes that are too many wait their turn, so that clients slow down to what the pool can do.
    pool = model.model.pool(max_batch=64, max_wait_ms=2, on_overload="wait")
    clients: set[WebSocket] = set()
    door = Door(limits.arrivals)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            pool.warm_up()
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, object]:
        return {"ok": True, "clients": len(clients)}

    if limits.stats:

        @app.get("/stats")
        def stats(request: Request) -> dict[str, object]:
            if not allowed(request.headers.get("authorization"), limits.token):
                raise HTTPException(401)
            return pool.stats()

    @app.websocket("/score")
    async def score(client: WebSocket) -> None:
        try:
            await asyncio.sleep(door.wait_s(time.monotonic()))
            await client.accept()
            clients.add(client)
            check_client(client, len(clients), limits)
            with pool.open() as stream:
                await serve(client, model, stream, limits)
        except Refused as refused:
            log.warning("%s closed with %d: %s", client.client and client.client.host, refused.code, refused)
            with contextlib.suppress(Exception):  # it may be gone, or not read this either
                async with asyncio.timeout(limits.send_s):
                    await client.close(refused.code, str(refused))
        finally:
            clients.discard(client)

    return app


def allowed(header: str | None, token: str | None) -> bool:
    return token is None or hmac.compare_digest((header or "").encode(), f"Bearer {token}".encode())


def check_client(client: WebSocket, count: int, limits: Limits) -> None:
    """Raise Refused for one that is too many, has no token, or is a page of another site (browsers say so)."""
    origin = client.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != client.headers.get("host"):
        raise Refused(REFUSED, "pages of other sites may not connect")
    if not allowed(client.headers.get("authorization"), limits.token):
        raise Refused(REFUSED, "the token is missing or wrong")
    if count > limits.clients:
        raise Refused(TRY_AGAIN_LATER, f"{limits.clients} clients are connected, try again later")


async def serve(client: WebSocket, model: LanguageModel, stream: PoolStream, limits: Limits) -> None:
    """Read and answer at the same time: who reads sees at once that the client has left, and then nothing is answered."""
    messages: asyncio.Queue[str] = asyncio.Queue(UNANSWERED)
    tasks = [
        asyncio.ensure_future(read(client, messages)),
        asyncio.ensure_future(answer(client, model, stream, messages, limits)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read(client: WebSocket, messages: asyncio.Queue[str]) -> None:
    """Return when the client has left."""
    while (message := await client.receive())["type"] != "websocket.disconnect":
        text = message.get("text")
        if text is None:
            raise Refused(NOT_TEXT, "expected text, got a binary frame")
        if len(text) > MAX_MESSAGE:
            raise Refused(TOO_LONG, f"expected at most {MAX_MESSAGE} characters a message, got {len(text)}")
        try:
            messages.put_nowait(text)
        except asyncio.QueueFull:
            raise Refused(REFUSED, f"{UNANSWERED} messages are not answered yet: read answers before sending") from None


async def answer(
    client: WebSocket, model: LanguageModel, stream: PoolStream, messages: asyncio.Queue[str], limits: Limits
) -> None:
    following = (await stream.apush(np.array([model.vocabulary.eos_id])))[-1:]
    while True:
        try:
            async with asyncio.timeout(limits.idle_s):  # wait_for() would lose a cancellation that comes with a message
                text = await messages.get()
        except TimeoutError:
            raise Refused(REFUSED, f"idle for {limits.idle_s:g} s") from None
        try:
            ids = model.encode(text)
        except InputError as error:  # an unknown character: the stream is as it was
            await send(client, {"error": str(error)[:500]}, limits)
            continue
        log_probs: list[float] = []
        for start in range(0, len(ids), PIECE):
            piece = ids[start : start + PIECE]
            rows = np.concatenate((following, await stream.apush(piece)))
            following = rows[-1:]
            log_probs += rows[np.arange(len(piece)), piece].tolist()
        await send(client, {"log_probs": log_probs}, limits)


async def send(client: WebSocket, content: dict[str, Any], limits: Limits) -> None:
    try:
        async with asyncio.timeout(limits.send_s):
            await client.send_json(content)
    except TimeoutError:
        raise Refused(REFUSED, f"no answer was read for {limits.send_s:g} s") from None


def in_one_line(record: logging.LogRecord) -> bool:
    """uvicorn writes a whole traceback for a client that sends text that is no UTF-8."""
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.msg, record.args, record.exc_info = (
            f"client closed: its text is no UTF-8: {record.exc_info[1]}",
            None,
            None,
        )
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/small.onnx"), help="a file of `rnncore train`")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of this machine")
    parser.add_argument("--seconds", type=float, default=60, help="stop after so long; 0: never")
    parser.add_argument("--max-clients", type=int, default=Limits.clients, help="more are told to try again later")
    parser.add_argument(
        "--idle-s", type=float, default=Limits.idle_s, help="close a client that says nothing for so long"
    )
    parser.add_argument("--send-s", type=float, default=Limits.send_s, help="close one that does not read for so long")
    parser.add_argument("--arrivals", type=float, default=Limits.arrivals, help="new clients a second; others wait")
    token = os.environ.get("TOKEN_SERVICE_TOKEN")
    parser.add_argument(
        "--token", default=token, help="what clients must know; default: $TOKEN_SERVICE_TOKEN, or nothing"
    )
    parser.add_argument("--stats", action="store_true", help="show the pool under /stats")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s")
    limits = Limits(
        arguments.max_clients, arguments.idle_s, arguments.send_s, arguments.arrivals, arguments.token, arguments.stats
    )
    app = make_app(LanguageModel.load(small_model(arguments.model)), limits)
    config = uvicorn.Config(
        app, log_level="warning", ws=Connection, ws_max_size=MAX_MESSAGE, timeout_graceful_shutdown=2
    )
    logging.getLogger("uvicorn.error").addFilter(in_one_line)
    server = uvicorn.Server(config)
    if arguments.seconds:
        timer = threading.Timer(arguments.seconds, lambda: setattr(server, "should_exit", True))
        timer.daemon = True
        timer.start()
    with socket.create_server((arguments.host, arguments.port), backlog=1024) as listener:
        print(f"ws://{arguments.host}:{listener.getsockname()[1]}/score", flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
