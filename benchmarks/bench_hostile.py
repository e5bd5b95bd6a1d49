"""What a good client of the example service notices of 500 idle and 50 hostile ones: ``python -m benchmarks hostile``."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from websockets.asyncio.client import connect

import rnncore
from benchmarks.measure import Table
from rnncore.export import export_model
from rnncore.runtime import LanguageModel
from rnncore.text import character_vocabulary

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))  # programs, not a package; they import each other

from load_generator import TEXT, load  # noqa: E402

IDLE = int(os.environ.get("RNNCORE_IDLE_CLIENTS", "500"))
HOSTILE = int(os.environ.get("RNNCORE_HOSTILE_CLIENTS", "50"))
WINDOWS, WINDOW_S, PAUSE_S = 5, float(os.environ.get("RNNCORE_HOSTILE_WINDOW_S", "6")), 0.02


def run() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        torch.manual_seed(0)
        letters = character_vocabulary([TEXT])
        config = rnncore.LanguageModelConfig(len(letters), 32, (rnncore.CellConfig.named("gru", 64),))
        export_model(rnncore.LanguageModel(config), path, vocabulary=letters)
        model = LanguageModel.load(path)
        alone: list[Window] = []
        beside: list[Window] = []
        with program("token_service.py", "--model", str(path), "--seconds", "3600") as (url, service):
            company = ("bad_company.py", url, "--idle", str(IDLE), "--hostile", str(HOSTILE), "--seconds", "3600")
            for _ in range(WINDOWS):
                alone.append(window(url, model, service))
                with program(*company):
                    beside.append(window(url, model, service))
    ratio = statistics.median(b.answer_ms / a.answer_ms for a, b in zip(alone, beside, strict=True))
    note = (
        f"Milliseconds until one client of `examples/token_service.py` has its answer to a character; medians of {WINDOWS} "
        f"windows of {WINDOW_S:g} s, alone and in company in turn, every answer checked. Service, good client and company are a "
        f"process each; the 1-minute load of the machine was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end. "
        "To connect takes longer in company, since who comes again and again waits at the door with everybody else: the median "
        "of one connection a window. Processor time is that of the service, in a second."
    )
    rows = (
        ("alone", *medians(alone), "", ""),
        (f"beside {IDLE} idle and {HOSTILE} hostile clients", *medians(beside), f"{ratio:.2f}", "2"),
    )
    columns = ("the good client is", "answer", "to connect", "processor time", "ratio of answers", "target")
    return Table("Hostile clients", note, columns, rows)


@dataclass(frozen=True)
class Window:
    """What was seen in some seconds."""

    answer_ms: float
    connect_ms: float
    processor_ms: float


def window(url: str, model: LanguageModel, service: int) -> Window:
    """One client, whose answers are all checked, and what the process ``service`` needs in that time."""
    connect_ms = asyncio.run(connection_ms(url))
    before, start = processor_s(service), time.monotonic()
    answers = asyncio.run(load(url, model, 1, WINDOW_S, PAUSE_S))
    used = (processor_s(service) - before) / (time.monotonic() - start)
    return Window(float(np.median(answers)), connect_ms, 1e3 * used)


async def connection_ms(url: str) -> float:
    start = time.perf_counter()
    async with connect(url, open_timeout=60):
        return (time.perf_counter() - start) * 1e3


def processor_s(process: int) -> float:
    """Processor time of a process so far; NaN where there is no /proc."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def medians(windows: list[Window]) -> tuple[str, str, str]:
    """In words."""
    answer, connection, processor = (
        statistics.median(getattr(one, name) for one in windows) for name in ("answer_ms", "connect_ms", "processor_ms")
    )
    return f"{answer:.1f} ms", f"{connection:.0f} ms", f"{processor:.0f} ms"


@contextmanager
def program(name: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """An example that runs; yields the first line that it prints, and its process."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise SystemExit(f"{name} did not start")
            yield line, process.pid
        finally:
            process.terminate()
