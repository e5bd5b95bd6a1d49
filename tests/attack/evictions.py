"""Clients whose streams are evicted and restored all the time; every answer against the stream alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec
from tests.service.alone import assert_same

SPEC = Spec(lengths=True, learned=True)
CLIENTS, PUSHES = 12, 60


def run(amount: int) -> dict[str, int]:
    kept: dict[str, bytes] = {}
    arrived = threading.Condition()

    def keep(key: str, blob: bytes) -> None:
        with arrived:
            kept[key] = blob
            arrived.notify_all()

    def take(key: str) -> bytes:
        with arrived:
            assert arrived.wait_for(lambda: key in kept, 120), "evicted, and never handed over"
            return kept.pop(key)

    with model(SPEC).pool(max_streams=5, max_idle_s=0.01, max_wait_ms=0, on_overload="wait", on_evict=keep) as pool:

        def client(seed: int) -> int:
            rng, evictions, key = np.random.default_rng(seed), 0, f"{seed}-0"
            stream = patiently(pool, key, None)
            with model(SPEC).stream() as twin:
                for _ in range(PUSHES * amount):
                    chunk = sequence(SPEC, rng, int(rng.integers(1, 5)))
                    if rng.random() < 0.1:
                        time.sleep(rng.random() * 0.02)
                    while True:
                        try:
                            found = stream.push(chunk)
                            break
                        except runtime.StreamEvictedError:
                            evictions += 1
                            blob, key = take(key), f"{seed}-{evictions}"
                            stream = patiently(pool, key, blob)
                    assert_same(found, twin.push(chunk))
            return evictions

        with ThreadPoolExecutor(CLIENTS) as executor:
            evictions = sum(executor.map(client, range(CLIENTS)))
        stats = pool.stats()
    assert stats["failed"] == stats["pending"] == 0 and stats["resident"] <= 5, stats
    return {"answers, all right": CLIENTS * PUSHES * amount, "pushes that met an eviction": evictions}


def patiently(pool: runtime.Pool, key: str, blob: bytes | None) -> runtime.PoolStream:
    while True:
        try:
            return pool.open(key) if blob is None else pool.restore(blob, key)
        except runtime.Overloaded:
            time.sleep(1e-4)
