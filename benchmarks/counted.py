"""Run under ``valgrind --tool=callgrind`` by :mod:`benchmarks.bench_instructions`: parts of the work, a dump after each.

Arguments: an LSTM file with an input of its size, a file that takes ids, and the number of pushes of each part.
"""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np

from rnncore.runtime import Model, Stream, load
from rnncore.runtime.pool.stream import PoolStream

STREAMS = 16
NAMES = (
    "nothing",
    "bound run",
    "push",
    f"push_many of {STREAMS}",
    f"asyncio alone, {STREAMS} coroutines",
    f"pool, {STREAMS} coroutines",
    "bound run, ids",
    "push, ids",
)


def parts(paths: tuple[str, str], count: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is counted, by its name in :data:`NAMES`; ``count`` pushes of one step each."""
    model, reader = load(paths[0]), load(paths[1])
    frame, token = np.zeros((1, model.signature.inputs[0].shape[-1]), np.float32), np.ones(1, np.int64)
    many, frames = [model.stream() for _ in range(STREAMS)], [frame] * STREAMS
    with model.pool() as pool:
        clients = [pool.open() for _ in range(STREAMS)]
        works: tuple[Callable[[], None], ...] = (
            lambda: None,
            lambda: _bound_runs(model, frame, count),
            lambda: _pushes(model.stream(), frame, count),
            lambda: _pushes_of_many(model, many, frames, count // STREAMS),
            lambda: asyncio.run(_told_by_a_thread(STREAMS, count // STREAMS)),
            lambda: asyncio.run(_pooled(clients, frame, count // STREAMS)),
            lambda: _bound_runs(reader, token, count),
            lambda: _pushes(reader.stream(), token, count),
        )
        yield from zip(NAMES, works, strict=True)


def _pushes(stream: Stream, chunk: np.ndarray, count: int) -> None:
    for _ in range(count):
        stream.push(chunk)


def _bound_runs(model: Model, chunk: np.ndarray, count: int) -> None:
    """onnxruntime's call of the session for one step, with buffers bound as in a push, and nothing else."""
    from onnxruntime import OrtValue

    engine = model.engine
    session = engine.one_step_session()
    assert session is not None
    binding = session.io_binding()
    buffers = {slot.name: np.zeros(slot.full_shape(1, 1), slot.dtype) for slot in engine.layout.inputs}
    buffers[engine.layout.inputs[0].name][...] = chunk
    outputs = {slot.name: np.zeros(slot.full_shape(1, 1), slot.dtype) for slot in engine.layout.outputs}
    for state in engine.layout.states:
        buffers[state.name] = np.zeros((1, state.size), state.dtype)
        outputs[state.output] = np.zeros((1, state.size), state.dtype)
    for name, array in buffers.items():
        binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))
    for _ in range(count):
        session.run_with_iobinding(binding)


def _pushes_of_many(model: Model, streams: list[Stream], chunks: list[np.ndarray], rounds: int) -> None:
    for _ in range(rounds):
        model.push_many(streams, chunks)


async def _pooled(streams: list[PoolStream], frame: np.ndarray, rounds: int) -> None:
    async def client(stream: PoolStream) -> None:
        for _ in range(rounds):
            await stream.apush(frame)

    await asyncio.gather(*map(client, streams))


async def _told_by_a_thread(clients: int, rounds: int) -> None:
    """What coroutines cost that wait for another thread, which tells all of them at once: no model, no queue."""
    loop, waiting, due = asyncio.get_running_loop(), list[asyncio.Future[None]](), queue.SimpleQueue[bool]()

    def tell() -> None:
        told = waiting.copy()
        waiting.clear()
        for future in told:
            future.set_result(None)

    def thread() -> None:
        while due.get():
            loop.call_soon_threadsafe(tell)

    async def client() -> None:
        for _ in range(rounds):
            future = loop.create_future()
            waiting.append(future)
            if len(waiting) == clients:
                due.put(True)
            await future

    other = threading.Thread(target=thread)
    other.start()
    await asyncio.gather(*(client() for _ in range(clients)))
    due.put(False)
    other.join()


def _dump(name: str) -> None:
    """Have callgrind write what it has counted since the last dump, and begin anew."""
    subprocess.run(
        ["callgrind_control", f"--dump={name}", str(os.getpid())], check=True, stdout=subprocess.DEVNULL, timeout=300
    )


def main(arguments: list[str]) -> None:
    """Do every part twice, and dump the second time only under its name."""
    first, second, count = arguments
    gc.disable()  # a collection would be counted in whichever part it falls
    for name, work in parts((first, second), int(count)):
        work()
        _dump("before")
        work()
        _dump(name)
    os._exit(0)  # what ends here is not counted


if __name__ == "__main__":
    main(sys.argv[1:])
