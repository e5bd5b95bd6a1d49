"""Write down speech while it arrives, for many clients by WebSocket: python examples/speech_service.py --seconds 60

Needs ``pip install 'rnncore[examples]'``.  A client connects to ``/speech`` and sends 16-bit samples, little-endian, one channel,
at the rate that the first message of the service tells it, in messages of any length; the text "end" ends an utterance.  It
gets ``{"partial": text}`` after each message, and ``{"final": text, "log_prob": ..., "letters": [[letter, from_ms, to_ms,
log_prob]]}`` at the end of an utterance: when it says so, or when it has been silent.  Wave to bands, bands to letters in
the pool, letters to text by beams, with a language model of characters if one is given.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from rnncore.runtime import BeamDecoder, BeamOptions, Endpointing, InputError, LanguageModel, LogMel, Recogniser

MAX_BYTES = 1 << 16  # of a message: 4 s at 8 kHz


@dataclass(frozen=True)
class Settings:
    mel: LogMel
    options: BeamOptions
    endpointing: Endpointing


def make_app(recogniser: Recogniser, settings: Settings) -> FastAPI:
    pool = recogniser.model.pool(max_batch=64, max_wait_ms=2, on_overload="wait")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            pool.warm_up()
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.websocket("/speech")
    async def speech(client: WebSocket) -> None:
        await client.accept()
        decoder = BeamDecoder(recogniser.labels, settings.options, settings.endpointing)
        wave = settings.mel.stream()
        await client.send_json({"rate": settings.mel.rate})
        try:
            with pool.open() as stream:
                while True:
                    message = await client.receive()
                    if message["type"] == "websocket.disconnect":
                        return
                    await client.send_json(await answer(message, wave, stream, decoder, settings))
        except InputError as error:
            await client.close(1003, str(error)[:120])
        except WebSocketDisconnect:
            return

    return app


async def answer(message: Any, wave: Any, stream: Any, decoder: BeamDecoder, settings: Settings) -> dict[str, Any]:
    """What a message of samples, or the text "end", is answered."""
    samples, said_so = message.get("bytes"), message.get("text") == "end"
    if samples is None and not said_so:
        raise InputError('expected binary messages of 16-bit samples, or the text "end"')
    if samples is not None and len(samples) % 2:
        raise InputError("a message ends within a sample: send an even number of bytes")
    rows = wave.finish() if samples is None else wave.push(np.frombuffer(samples, "<i2"))
    # The pool steps all clients together; the search is a millisecond a row, so another thread does it.
    if len(rows):
        await asyncio.to_thread(decoder.push, await stream.apush(rows))
    if not (said_so or decoder.ended):
        return {"partial": decoder.text}
    ms = settings.mel.step_ms * settings.mel.stacked
    found = await asyncio.to_thread(decoder.finish)
    letters = [[one.label, one.start * ms, one.end * ms, round(one.log_prob, 3)] for one in found.labels]
    return {"final": found.text, "log_prob": found.log_prob, "letters": letters}


def small_recogniser(path: Path, mel: LogMel) -> None:
    """A recogniser that has learned nothing, to try the service with: examples/recognise_speech.py trains a real one."""
    import torch

    from rnncore import CellConfig, ReaderConfig
    from rnncore import Recogniser as NewRecogniser
    from rnncore.export import export_model

    torch.manual_seed(0)
    config = ReaderConfig((CellConfig.named("gru", 32),), features=mel.features)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_model(NewRecogniser(config, "abcdefghijklmnopqrstuvwxyz '"), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/small_speech.onnx"), help="made up unless it is there")
    parser.add_argument("--language-model", type=Path, help="of single characters")
    parser.add_argument("--hot-word", nargs="*", default=[], help="worth more than the wave says")
    parser.add_argument("--rate", type=int, default=8000, help="samples a second, of the clients and of the training")
    parser.add_argument("--beams", type=int, default=8)
    parser.add_argument("--seconds", type=float, help="stop after so long")
    arguments = parser.parse_args()
    mel = LogMel(arguments.rate, stacked=3)
    if not arguments.model.exists():
        small_recogniser(arguments.model, mel)
    options = BeamOptions(
        arguments.beams,
        LanguageModel.load(arguments.language_model) if arguments.language_model else None,
        hot_words=dict.fromkeys(arguments.hot_word, 2.0),
    )
    app = make_app(Recogniser.load(arguments.model), Settings(mel, options, Endpointing()))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws_max_size=MAX_BYTES))
    print(f"ws://127.0.0.1:{listener.getsockname()[1]}/speech", flush=True)
    if arguments.seconds is not None:
        timer = threading.Timer(arguments.seconds, lambda: setattr(server, "should_exit", True))
        timer.daemon = True
        timer.start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
