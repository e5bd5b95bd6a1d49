"""Callbacks that raise, leave, push, close and cancel; whoever does none of that is answered all the same."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec
from tests.service.alone import assert_same

SPEC = Spec(lengths=True, learned=True)
ROUNDS = 60


def run(amount: int) -> dict[str, int]:
    logging.getLogger("rnncore").addHandler(logging.NullHandler())
    logging.getLogger("rnncore").propagate = False
    chance, refused, cancelled = random.Random(11), 0, 0
    chunk = sequence(SPEC, np.random.default_rng(6), 2)
    with model(SPEC).pool(max_wait_ms=0) as pool, model(SPEC).stream() as twin:
        good = pool.open()
        for _ in range(ROUNDS * amount):
            streams = [pool.open() for _ in range(6)]
            other = pool.open()
            futures: list[Future[Any]] = []
            for stream in streams:
                stream.on_output(mischief(chance.randrange(5), other, chunk))
                future = stream.submit(chunk)
                with contextlib.suppress(SystemExit):  # of one that is over it is called here, in this thread
                    future.add_done_callback(mischief(chance.randrange(5), other, chunk))
                futures.append(future)
                if chance.random() < 0.2:
                    with contextlib.suppress(SystemExit):
                        cancelled += future.cancel()
            assert_same(good.push(chunk), twin.push(chunk))
            for future in futures:
                try:
                    future.result(120)
                except runtime.PoolError:
                    refused += 1
                except (ZeroDivisionError, SystemExit, CancelledError, runtime.RnncoreError):
                    pass
            for stream in (*streams, other):
                with contextlib.suppress(runtime.StateError):
                    stream.close()
        assert pool.stats()["pending"] == 0
    return {
        "futures with mischievous callbacks, all resolved": 6 * ROUNDS * amount,
        "blocking pushes refused": refused,
        "cancelled": cancelled,
        "answers of the one beside them, all right": ROUNDS * amount,
    }


def mischief(kind: int, other: runtime.PoolStream, chunk: np.ndarray) -> Any:
    def callback(told: Any) -> None:
        if kind == 0:
            raise ZeroDivisionError
        if kind == 1:
            sys.exit()
        if kind == 2:
            other.push(chunk)
        if kind == 3:
            other.close()

    return callback
