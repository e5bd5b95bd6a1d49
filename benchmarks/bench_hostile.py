"""What a good client of the example service notices of 500 idle and 50 hostile ones: ``python -m benchmarks hostile``."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

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
        alone: list[float] = []
        beside: list[float] = []
        with program("token_service.py", "--model", str(path), "--seconds", "3600") as url:
            for _ in range(WINDOWS):
                alone.append(median_ms(url, model))
                with program(
                    "bad_company.py", url, "--idle", str(IDLE), "--hostile", str(HOSTILE), "--seconds", "3600"
                ):
                    beside.append(median_ms(url, model))
    quiet, loud = statistics.median(alone), statistics.median(beside)
    ratio = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
    note = (
        f"Milliseconds until one client of `examples/token_service.py` has its answer to a character; medians of {WINDOWS} "
        f"windows of {WINDOW_S:g} s, alone and in company in turn, every answer checked. Service, good client and company are a "
        f"process each; the 1-minute load of the machine was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end."
    )
    rows = (
        ("alone", f"{quiet:.1f} ms", "", ""),
        (f"beside {IDLE} idle and {HOSTILE} hostile clients", f"{loud:.1f} ms", f"{ratio:.2f}", "2"),
    )
    return Table("Hostile clients", note, ("the good client is", "median", "ratio", "target"), rows)


def median_ms(url: str, model: LanguageModel) -> float:
    return float(np.median(asyncio.run(load(url, model, 1, WINDOW_S, PAUSE_S))))


@contextmanager
def program(name: str, *arguments: str) -> Iterator[str]:
    """An example that runs; yields the first line that it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise SystemExit(f"{name} did not start")
            yield line
        finally:
            process.terminate()
