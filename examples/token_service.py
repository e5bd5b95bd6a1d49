"""Score tokens for many clients over one pool, by WebSocket, on this machine only: python examples/token_service.py --seconds 60

Needs ``pip install 'rnncore[examples]'``.  A client connects to ``/score`` and sends text in pieces of any length; for each
piece it gets the log-probability of every character given all that it has sent before.  ``/stats`` shows the pool.
"""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from small_model import small_model

from rnncore.runtime import InputError, LanguageModel, Overloaded

MAX_CLIENTS = 256
MAX_MESSAGE_BYTES = 4096
TRY_AGAIN_LATER = 1013


def make_app(model: LanguageModel) -> FastAPI:
    # Pushes that are too many wait their turn, so that clients slow down to what the pool can do.
    pool = model.model.pool(max_batch=64, max_wait_ms=2, on_overload="wait", max_streams=MAX_CLIENTS)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            pool.warm_up()
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/stats")
    def stats() -> dict[str, object]:
        return pool.stats()

    @app.websocket("/score")
    async def score(client: WebSocket) -> None:
        await client.accept()
        try:
            stream = pool.open()
        except Overloaded as error:
            await client.close(TRY_AGAIN_LATER, str(error)[:120])
            return
        with stream:
            following = (await stream.apush(np.array([model.vocabulary.eos_id])))[-1:]
            try:
                while True:
                    text = await client.receive_text()
                    try:
                        ids = model.encode(text)
                    except InputError as error:  # an unknown character: the stream is as it was
                        await client.send_json({"error": str(error)})
                        continue
                    rows = np.concatenate((following, await stream.apush(ids)))
                    following = rows[-1:]
                    await client.send_json({"log_probs": rows[np.arange(len(ids)), ids].tolist()})
            except WebSocketDisconnect:
                pass

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/small.onnx"), help="a file of `rnncore train`")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seconds", type=float, default=60, help="stop after so long")
    arguments = parser.parse_args()
    app = make_app(LanguageModel.load(small_model(arguments.model)))
    config = uvicorn.Config(app, log_level="warning", ws_max_size=MAX_MESSAGE_BYTES, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    timer = threading.Timer(arguments.seconds, lambda: setattr(server, "should_exit", True))
    timer.daemon = True
    timer.start()
    with socket.create_server(("127.0.0.1", arguments.port)) as listener:
        print(f"ws://127.0.0.1:{listener.getsockname()[1]}/score", flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
