"""Two threads: rows of a batch and ragged buckets shared out by load(threads=2), against one thread and torch with two."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.contestants import exported, exported_path, torch_layer
from benchmarks.measure import Table, percent, ratio, timings
from rnncore.runtime import load

THREADS = 2
CASES = [
    ("lstm", 64, 64, 100, "loop"),
    ("lstm", 256, 16, 100, "loop"),
    ("lstm", 256, 64, 100, "loop"),
    ("gru", 256, 64, 100, "loop"),
    ("lstm", 512, 64, 50, "loop"),
    ("lstm", 64, 64, 100, "auto"),
    ("lstm", 256, 64, 100, "auto"),
    ("lstm", 512, 64, 50, "auto"),
]
ROWS, LONGEST = 256, 200


def torch_run(layer: torch.nn.Module, tensor: torch.Tensor, threads: int) -> Callable[[], object]:
    """The layer in torch with so many threads."""

    def run() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return layer(tensor)

    return run


def run() -> Table:
    rows = [_batch(*case) for case in CASES]
    rows.append(_ragged())
    header = (
        *("what", "one thread, ms", f"threads={THREADS}, ms", "torch, 1, ms", f"torch, {THREADS}, ms"),
        *(f"one/threads={THREADS}", f"threads={THREADS}/torch {THREADS}", "largest spread"),
    )
    note = (
        "Whole calls of `model.run`, input size = hidden size; interleaved medians of equally many calls; the "
        "answers of both models have the same bits, and are torch's within 1e-4. On a machine with two free cores."
    )
    return Table("Two threads", note, header, tuple(rows))


def _batch(kind: str, size: int, batch: int, steps: int, form: str) -> tuple[str, ...]:
    x = np.random.default_rng(1).normal(size=(batch, steps, size)).astype(np.float32)
    one, layer, tensor = exported(kind, size, form), torch_layer(kind, size), torch.from_numpy(x)
    many = load(exported_path(kind, size, form), threads=THREADS)
    wanted = one.run(x)
    for _ in range(3):  # the first calls show what a call is worth
        np.testing.assert_array_equal(many.run(x), wanted)
    with torch.inference_mode():
        np.testing.assert_allclose(wanted, layer(tensor).numpy(), atol=1e-4)
    took = timings(
        {
            "one": lambda: one.run(x),
            "many": lambda: many.run(x),
            "torch": torch_run(layer, tensor, 1),
            "torch, many": torch_run(layer, tensor, THREADS),
        },
        cold=False,
    )
    one_s, many_s, torch_s, torch_many_s = (timing.warm for timing in took.values())
    return (
        f"{kind} H={size}, {batch} rows x {steps} steps, form {form}",
        *(f"{seconds * 1e3:.1f}" for seconds in (one_s, many_s, torch_s, torch_many_s)),
        ratio(one_s, many_s),
        ratio(many_s, torch_many_s),
        percent(max(timing.spread for timing in took.values())),
    )


def _ragged() -> tuple[str, ...]:
    """Sequences of lengths from 1 to 200, most of them short."""
    rng, size = np.random.default_rng(6), 256
    lengths = np.clip(rng.lognormal(3, 0.9, ROWS).astype(int), 1, LONGEST)
    items = [rng.normal(size=(int(n), size)).astype(np.float32) for n in lengths]
    one = exported("lstm", size, "loop")
    many = load(exported_path("lstm", size, "loop"), threads=THREADS)
    for found, wanted in zip(many.run(items), one.run(items), strict=True):
        np.testing.assert_array_equal(found, wanted)
    took = timings({"one": lambda: one.run(items), "many": lambda: many.run(items)}, least=5, cold=False)
    one_s, many_s = (timing.warm for timing in took.values())
    spread = percent(max(timing.spread for timing in took.values()))
    times = f"{one_s * 1e3:.1f}", f"{many_s * 1e3:.1f}"
    return (
        f"lstm H={size}, a list of {ROWS} sequences of 1 to {LONGEST} steps",
        *times,
        "",
        "",
        ratio(one_s, many_s),
        "",
        spread,
    )
