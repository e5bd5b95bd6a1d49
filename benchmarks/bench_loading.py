"""What comes before the first answer: imports, loading, the memory of loaded models, an export."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.contestants import FOLDER, Layer, exported, exported_path, torch_layer
from benchmarks.measure import Table, percent, ratio, timings
from rnncore.export import export

Row = tuple[str, ...]
SIZES = (64, 256, 512)
MODELS, TURNS = 50, 5
IMPORTS = {
    "rnncore.runtime": "from rnncore.runtime import load",
    "onnxruntime": "from onnxruntime import InferenceSession",
    "rnncore": "from rnncore import LSTM",
    "rnncore.export": "from rnncore.export import export",
    "torch": "import torch.onnx",
}
_LOAD = """
import os, sys, time
import onnxruntime
import rnncore.runtime
def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
load = {"rnncore": rnncore.runtime.load, "onnxruntime": session}[sys.argv[1]]
path, count = sys.argv[2], int(sys.argv[3])
first = load(path)
before, started = memory(), time.perf_counter()
kept = [load(path) for _ in range(count)]
print((time.perf_counter() - started) / count, (memory() - before) / count)
"""


def run() -> Table:
    rows = [*_imports(), *(row for size in SIZES for row in _loading(size)), _export()]
    note = (
        "Imports: a new process each, in turn, medians of 7. Loading: what each of "
        f"{MODELS} models costs that a process loads and keeps, beside as many InferenceSessions of one thread; medians of "
        f"{TURNS} processes each, in turn, the file in the page cache. Memory: what each adds to the process. Export: one "
        "layer, in a process that has exported before, beside `torch.onnx.export` of the same with dynamic axes, which "
        "writes a file that verifies nothing and keeps no state."
    )
    return Table("Before the first answer", note, ("what", "rnncore", "beside", "ratio", "spread"), tuple(rows))


def _imports() -> list[Row]:
    took: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for turn in range(8):
        for name in IMPORTS if turn % 2 else reversed(IMPORTS):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", IMPORTS[name]], check=True)
            if turn:  # the first brings the files into the page cache
                took[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(times) for name, times in took.items()}

    def row(name: str, peer: str) -> Row:
        low, _, high = statistics.quantiles(took[name], n=4)
        times = f"{middle[name] * 1e3:.0f} ms", f"{peer}: {middle[peer] * 1e3:.0f} ms"
        return (IMPORTS[name], *times, ratio(middle[name], middle[peer]), percent((high - low) / middle[name]))

    return [row("rnncore.runtime", "onnxruntime"), row("rnncore", "torch"), row("rnncore.export", "torch")]


def _loading(size: int) -> list[Row]:
    """Seconds and bytes of each of many models that a process loads and keeps."""
    exported("lstm", size, "loop")
    path = exported_path("lstm", size, "loop")
    took: dict[str, list[tuple[float, float]]] = {"rnncore": [], "onnxruntime": []}
    for turn in range(TURNS):
        for loader in took if turn % 2 else reversed(took):
            took[loader].append(_in_new_process(loader, path))
    (ours, own), (theirs, other) = (
        [statistics.median(values) for values in zip(*found, strict=True)] for found in took.values()
    )
    whole = path.stat().st_size
    seconds = [second for second, _ in took["rnncore"]]
    return [
        (
            f"load an LSTM of {size}, {whole / 2**20:.1f} MB",
            f"{ours * 1e3:.1f} ms",
            f"InferenceSession: {theirs * 1e3:.1f} ms",
            ratio(ours, theirs),
            percent((max(seconds) - min(seconds)) / ours),
        ),
        (
            f"memory of a loaded LSTM of {size}",
            f"{own / 2**20:.1f} MB, {own / whole:.1f} times the file",
            f"InferenceSession: {other / 2**20:.1f} MB",
            ratio(own, other),
            "",
        ),
    ]


def _in_new_process(loader: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", _LOAD, loader, str(path), str(MODELS)]
    seconds, size = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(size)


def _export() -> Row:
    layer, example = torch_layer("lstm", 64), torch.randn(2, 5, 64)
    took = timings({"ours": _ours(layer, example), "torch": _torchs(layer, example)}, seconds=10.0, least=3, cold=False)
    ours, theirs = took["ours"].warm, took["torch"].warm
    return (
        "export an LSTM of 64, verified",
        f"{ours:.1f} s",
        f"torch.onnx.export: {theirs:.1f} s",
        ratio(ours, theirs),
        percent(max(timing.spread for timing in took.values())),
    )


def _ours(layer: nn.Module, example: torch.Tensor) -> Callable[[], object]:
    return partial(export, layer, FOLDER / "again.onnx", example, streaming=True)


def _torchs(layer: nn.Module, example: torch.Tensor) -> Callable[[], object]:
    assert isinstance(layer, Layer)
    axes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
    path = FOLDER / "torchs.onnx"
    return lambda: torch.onnx.export(layer, (example,), path, dynamo=True, dynamic_shapes=axes, verbose=False)
