"""What a service pays and gets: batching of streams, the pool, its latency, ragged batches, and a soak."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from onnxruntime import OrtValue

from benchmarks.contestants import exported
from benchmarks.measure import Table, ratio, timings
from rnncore.runtime import Model, Pool, PoolStream

SIZE, STREAMS, ROUNDS = 256, 64, 30
MANY_STREAMS, MANY_PUSHES = 1000, 5
LOAD, LOAD_SECONDS, LOAD_WINDOWS = 0.8, 2.0, 7
SOAK_STEPS = int(os.environ.get("RNNCORE_SOAK_STEPS", "200_000"))
OVERHEAD_CALLS = 20_000
ATOL = 1e-5

Row = tuple[str, str, str, str]


def run() -> Table:
    torch.set_num_threads(1)
    model = exported("lstm", SIZE, "loop")
    gc.collect()
    gc.freeze()  # a service has no torch to walk through at every collection: 0.3 s here
    rows = [*batching(model), *workers(), latency(model), lossless(model), *overhead(), *ragged(model), *few()]
    rows.append(soak())
    note = (
        f"LSTM, H = {SIZE} unless it says otherwise, steps of one frame, one thread for the model; medians of interleaved "
        'runs, parity checked first. "one after another" is `stream.push` for each stream in turn.'
    )
    return Table("Service", note, ("what", "measured", "ratio", "target"), tuple(rows))


def batching(model: Model) -> list[Row]:
    """Throughput of 64 streams: one after another, push_many, a pool with coroutines, a pool with threads."""
    frames = np.random.default_rng(3).normal(size=(STREAMS, 1, SIZE)).astype(np.float32)
    streams = [model.stream() for _ in range(STREAMS)]
    batched = [model.stream() for _ in range(STREAMS)]
    with model.pool() as pool, model.pool() as threaded, ThreadPoolExecutor(STREAMS) as executor:
        pooled = [pool.open() for _ in range(STREAMS)]
        by_thread = [threaded.open() for _ in range(STREAMS)]
        pool.warm_up()
        threaded.warm_up()

        def in_turn() -> list[np.ndarray]:
            for _ in range(ROUNDS):
                answers = [stream.push(frame) for stream, frame in zip(streams, frames, strict=True)]
            return answers

        def many() -> list[np.ndarray]:
            for _ in range(ROUNDS):
                answers = model.push_many(batched, list(frames))
            return answers

        def threads() -> list[np.ndarray]:
            return list(executor.map(lambda pair: repeat(pair[0].push, pair[1]), zip(by_thread, frames, strict=True)))

        contestants: dict[str, Callable[[], list[np.ndarray]]] = {
            "one after another": in_turn,
            "push_many": many,
            "pool, coroutines": partial(by_coroutines, pooled, frames),
            "pool, threads": threads,
        }
        wanted = in_turn()
        for name in list(contestants)[1:]:
            for found, expected in zip(contestants[name](), wanted, strict=True):
                np.testing.assert_allclose(found, expected, atol=ATOL)
        took = timings(contestants, seconds=4.0, cold=False)
    per_push = {name: timing.warm / ROUNDS / STREAMS for name, timing in took.items()}
    base = per_push["one after another"]
    targets = {"push_many": "4", "pool, coroutines": "2.5"}
    return [
        (f"{STREAMS} streams, {name}", f"{seconds * 1e6:.1f} µs a push", f"{base / seconds:.2f}", targets.get(name, ""))
        for name, seconds in per_push.items()
    ]


def workers() -> list[Row]:
    """The same streams through a pool of one worker and of two, from coroutines: single steps, and chunks of ten."""
    rows: list[Row] = []
    for size, steps in itertools.product((SIZE, 2 * SIZE), (1, 10)):
        model = exported("lstm", size, "loop")
        frames = np.random.default_rng(3).normal(size=(STREAMS, steps, size)).astype(np.float32)
        wanted = [model.stream().push(frame) for frame in frames]
        with model.pool() as one, model.pool(workers=2) as two:
            contestants: dict[str, Callable[[], list[np.ndarray]]] = {}
            for name, pool in (("one", one), ("two", two)):
                pool.warm_up()
                streams = [pool.open() for _ in range(STREAMS)]
                for stream, frame, expected in zip(streams, frames, wanted, strict=True):
                    np.testing.assert_allclose(stream.push(frame), expected, atol=ATOL)
                contestants[name] = partial(by_coroutines, streams, frames)
            took = timings(contestants, seconds=4.0, cold=False)
        one_s, two_s = (took[name].warm / ROUNDS / STREAMS for name in ("one", "two"))
        text = f"{two_s * 1e6:.0f} µs a push, {one_s * 1e6:.0f} with one"
        rows.append((f"pool, workers=2, H = {size}, pushes of {steps}", text, ratio(one_s, two_s), "1.7"))
    return rows


def by_coroutines(streams: list[PoolStream], frames: np.ndarray) -> list[np.ndarray]:
    """The last answer of each stream, each pushed by a coroutine."""
    answers: list[list[np.ndarray]] = [[] for _ in streams]
    asyncio.run(all_clients(streams, frames, answers))
    return [own[-1] for own in answers]


def repeat(push: Callable[[np.ndarray], np.ndarray], frame: np.ndarray) -> np.ndarray:
    for _ in range(ROUNDS):
        answer = push(frame)
    return answer


# No coroutine returns arrays to asyncio.run: signal.signal, with which that ends, makes a text of the main task and of its
# result, at 13 ms for 64 arrays, and throws the text away.
async def all_clients(streams: list[PoolStream], frames: np.ndarray, answers: list[list[np.ndarray]]) -> None:
    async def client(stream: PoolStream, frame: np.ndarray, own: list[np.ndarray]) -> None:
        for _ in range(ROUNDS):
            answer: np.ndarray = await stream.apush(frame)
        own.append(answer)

    await asyncio.gather(*map(client, streams, frames, answers))


def latency(model: Model) -> Row:
    """Pushes that arrive by chance (Poisson) at 80 % of what the pool can do; capacity and latency take turns."""
    frame = np.zeros((1, SIZE), np.float32)
    medians_ms, p99s_ms, rates = [], [], []
    with model.pool(on_overload="wait") as pool:
        pool.warm_up()
        streams = [pool.open() for _ in range(STREAMS)]
        for window in range(LOAD_WINDOWS):
            rate = LOAD * statistics.median(capacity(streams, frame) for _ in range(5))
            gaps = np.random.default_rng(window).exponential(1 / rate, int(rate * LOAD_SECONDS))
            taken = asyncio.run(arrivals(streams, frame, np.cumsum(gaps)))
            medians_ms.append(float(np.median(taken)) * 1e3)
            p99s_ms.append(float(np.quantile(taken, 0.99)) * 1e3)
            rates.append(rate)
    shares = [p99 / median for p99, median in zip(p99s_ms, medians_ms, strict=True)]
    text = (
        f"{statistics.median(rates):.0f} pushes/s, median {statistics.median(medians_ms):.2f} ms, "
        f"p99 {statistics.median(p99s_ms):.2f} ms (best window {min(shares):.2f}, worst {max(shares):.2f})"
    )
    return (f"{STREAMS} streams at {LOAD:.0%} of capacity, p99/median", text, f"{statistics.median(shares):.2f}", "< 3")


def capacity(streams: list[PoolStream], frame: np.ndarray) -> float:
    """Pushes a second when all are due at once."""
    count = STREAMS * ROUNDS
    start = time.perf_counter()
    asyncio.run(arrivals(streams, frame, np.zeros(count)))
    return count / (time.perf_counter() - start)


async def arrivals(streams: list[PoolStream], frame: np.ndarray, due_s: np.ndarray) -> list[float]:
    """Seconds from the moment each push was due to its answer, so that a late sender counts as well."""
    taken: list[float] = []
    turn = itertools.cycle(streams)
    start = time.perf_counter()

    async def one(stream: PoolStream, due: float) -> None:
        await stream.apush(frame)
        taken.append(time.perf_counter() - due)

    tasks: set[asyncio.Task[None]] = set()
    for due in (due_s + start).tolist():
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.create_task(one(next(turn), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return taken


def lossless(model: Model) -> Row:
    """1,000 streams with chunks of different lengths, several pending each; every answer against the stream alone."""
    rng = np.random.default_rng(5)
    work = [
        [rng.normal(size=(int(n), SIZE)).astype(np.float32) for n in rng.integers(1, 4, MANY_PUSHES)]
        for _ in range(MANY_STREAMS)
    ]
    start = time.perf_counter()
    with model.pool(max_pending=MANY_STREAMS * MANY_PUSHES) as pool:
        found: list[list[np.ndarray]] = [[] for _ in work]
        asyncio.run(_pushed_at_once(pool, work, found))
    took = time.perf_counter() - start
    wrong = 0
    for own, answers in zip(work, found, strict=True):
        with model.stream() as stream:
            wrong += sum(not np.allclose(stream.push(c), a, atol=ATOL) for c, a in zip(own, answers, strict=True))
    count = sum(len(answers) for answers in found)
    text = f"{count} of {MANY_STREAMS * MANY_PUSHES} answers in {took:.2f} s, {wrong} wrong or out of order"
    return (f"{MANY_STREAMS} streams, {MANY_PUSHES} chunks of 1 to 3 frames each", text, "", "none lost or wrong")


async def _pushed_at_once(pool: Pool, work: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> None:
    async def client(own: list[np.ndarray], answers: list[np.ndarray]) -> None:
        with pool.open() as stream:
            answers += await asyncio.gather(*(stream.apush(chunk) for chunk in own))

    await asyncio.gather(*map(client, work, found))


def overhead() -> list[Row]:
    """What ``push`` adds to the prepared onnxruntime call that a caller would make without this package."""
    rows: list[Row] = []
    for size in (64, SIZE):
        model = exported("lstm", size, "loop")
        stream, frame = model.stream(), np.zeros((1, size), np.float32)
        call, binding = bound_call(model)
        stream.push(frame)
        pushes, runs = [], []
        for _ in range(OVERHEAD_CALLS):
            start = time.perf_counter()
            stream.push(frame)
            middle = time.perf_counter()
            call(binding)
            runs.append(time.perf_counter() - middle)
            pushes.append(middle - start)
        push, bound, added = (np.array(values) * 1e6 for values in (pushes, runs, np.subtract(pushes, runs)))
        text = (
            f"push {np.median(push):.1f} µs, bound run {np.median(bound):.1f} µs: {np.median(added):.1f} µs added (medians "
            f"of turns), {np.quantile(push, 0.1) - np.quantile(bound, 0.1):.1f} between the 10th percentiles"
        )
        rows.append((f"push of one step above the bound run, H = {size}", text, "", "≤ 5 µs"))
    return rows


def bound_call(model: Model) -> tuple[Callable[[object], None], object]:
    """``run_with_iobinding`` of the session for one step, and a binding of fixed buffers."""
    engine = model.engine
    session = engine.one_step_session()
    assert session is not None
    binding = session.io_binding()
    for slot in engine.layout.inputs:
        binding.bind_ortvalue_input(
            slot.name, OrtValue.ortvalue_from_numpy(np.zeros(slot.full_shape(1, 1), slot.dtype))
        )
    for slot in engine.layout.outputs:
        binding.bind_ortvalue_output(
            slot.name, OrtValue.ortvalue_from_numpy(np.zeros(slot.full_shape(1, 1), slot.dtype))
        )
    for state in engine.layout.states:
        binding.bind_ortvalue_input(state.name, OrtValue.ortvalue_from_numpy(np.zeros((1, state.size), state.dtype)))
        binding.bind_ortvalue_output(state.output, OrtValue.ortvalue_from_numpy(np.zeros((1, state.size), state.dtype)))
    return session.run_with_iobinding, binding


def ragged(model: Model) -> list[Row]:
    """256 sequences, lengths from 1 to 200, most of them short."""
    rng = np.random.default_rng(6)
    lengths = np.clip(rng.lognormal(3, 0.9, 256).astype(int), 1, 200)
    items = [rng.normal(size=(int(n), SIZE)).astype(np.float32) for n in lengths]
    padded = np.zeros((len(items), int(lengths.max()), SIZE), np.float32)
    for row, item in zip(padded, items, strict=True):
        row[: len(item)] = item
    contestants = {
        "model.run of the list": lambda: model.run(items),
        "model.run_iter": lambda: list(model.run_iter(iter(items))),
        "one call an item": lambda: [model.run(item[None])[0] for item in items],
        "padded to the longest": lambda: model.run(padded, lengths=lengths),
    }
    wanted = contestants["one call an item"]()
    for name in ("model.run of the list", "model.run_iter", "padded to the longest"):
        for found, expected in zip(contestants[name](), wanted, strict=True):
            np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-4)
    took = timings(contestants, seconds=3.0, least=5, cold=False)
    best = took["model.run of the list"].warm
    targets = {"one call an item": "> 1", "padded to the longest": "> 1"}
    steps = int(lengths.sum())
    return [
        (
            f"256 ragged sequences, {name}",
            f"{timing.warm / steps * 1e6:.1f} µs a step",
            ratio(timing.warm, best),
            targets.get(name, ""),
        )
        for name, timing in took.items()
    ]


def few() -> list[Row]:
    """Lists of three or four sequences against the same sequences one by one."""
    rows: list[Row] = []
    for size in (64, SIZE):
        model = exported("lstm", size, "loop")
        for lengths in ((20, 19, 18), (100, 30, 5), (8, 2, 1, 5), (40, 12, 3, 1)):
            items = [np.full((n, size), 0.1, np.float32) for n in lengths]
            contestants: dict[str, Callable[[], object]] = {
                "list": partial(model.run, items),
                "one by one": partial(_one_by_one, model, items),
            }
            for found, expected in zip(model.run(items), _one_by_one(model, items), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-4)
            took = timings(contestants, seconds=1.0, cold=False)
            one, together = took["one by one"].warm, took["list"].warm
            text = f"{together * 1e6:.0f} µs, one by one {one * 1e6:.0f} µs"
            rows.append(
                (f"a list of {', '.join(map(str, lengths))} steps, H = {size}", text, ratio(one, together), "≥ 1")
            )
    return rows


def _one_by_one(model: Model, items: list[np.ndarray]) -> list[np.ndarray]:
    return [model.run(item[None])[0] for item in items]


def soak() -> Row:
    """Steps of one stream without end: the last tenth against the first, and the memory between."""
    size = 64
    stream, frame = exported("lstm", size, "loop").stream(), np.zeros((1, size), np.float32)
    part = SOAK_STEPS // 10
    costs, memory = [], []
    for _ in range(10):
        samples = []
        for _ in range(10):
            start = time.perf_counter()
            for _ in range(part // 10):
                stream.push(frame)
            samples.append((time.perf_counter() - start) / (part // 10))
        costs.append(min(samples))
        memory.append(_resident_kb())
    grown = memory[-1] - memory[0]
    text = f"{costs[0] * 1e6:.1f} µs a step at first, {costs[-1] * 1e6:.1f} at last; memory {grown:+} kB after a tenth"
    return (f"soak, H = {size}, {stream.steps:,} steps", text, ratio(costs[-1], costs[0]), "1, +0 kB")


def _resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
