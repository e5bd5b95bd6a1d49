"""Processor instructions of one push, counted by valgrind: differences within one run are steadier than times."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.contestants import FOLDER, exported, exported_path
from benchmarks.counted import NAMES, STREAMS
from benchmarks.measure import Table, percent
from rnncore.export import export

SIZE = 64
IDS = 100
COUNT = 25 * STREAMS  # pushes of each part
_PARTS = {  # what is told of, and the call of onnxruntime within it
    "push": "bound run",
    f"push_many of {STREAMS}": "",
    f"asyncio alone, {STREAMS} coroutines": "",
    f"pool, {STREAMS} coroutines": f"push_many of {STREAMS}",
    "push, ids": "bound run, ids",
}


class Reader(nn.Module):
    """An LSTM that reads ids."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(IDS, SIZE)
        self.rnn = nn.LSTM(SIZE, SIZE, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.rnn(self.table(ids))[0]


def count(paths: tuple[Path, Path]) -> dict[str, float]:
    """Instructions of one push of each part, all threads together."""
    if shutil.which("valgrind") is None:
        raise SystemExit("instructions are counted by valgrind, which is not installed here")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, "-m"]
        command += ["benchmarks.counted", *map(str, paths), str(COUNT)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"counting failed:\n{done.stderr[-3000:]}")
        found: dict[str, float] = {}
        for path in Path(folder).iterdir():
            text = path.read_text(errors="replace")
            name = re.search(r"^desc: Trigger: dump (.*)$", text, re.MULTILINE)
            total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
            if name and total and name[1] in NAMES:
                found[name[1]] = float(total[1])
    return {name: (found[name] - found["nothing"]) / COUNT for name in NAMES}


def run() -> Table:
    torch.manual_seed(0)
    exported("lstm", SIZE, "loop")
    reader = FOLDER / "reader.onnx"
    export(Reader().eval(), reader, torch.randint(0, IDS, (2, 5)), streaming=True)
    counts = count((exported_path("lstm", SIZE, "loop"), reader))
    rows = []
    for name, within in _PARTS.items():
        if within:
            more = counts[name] - counts[within]
            rows.append(
                (
                    name,
                    f"{counts[name]:,.0f}",
                    f"{within}: {counts[within]:,.0f}",
                    f"{more:,.0f}",
                    percent(more / counts[name]),
                )
            )
        else:
            rows.append((name, f"{counts[name]:,.0f}", "", "", ""))
    note = (
        f"LSTM of {SIZE} units, one step of one stream, instructions counted by valgrind over {COUNT:,} pushes that follow as "
        "many to warm up, in Python, NumPy, this package and onnxruntime together, on all threads. The bound run is "
        "onnxruntime's call of the session for one step, with buffers bound once; what a push adds to it is ours. Asyncio "
        "alone: coroutines that wait for futures which another thread resolves, all in one call of the event loop, and do "
        "nothing else."
    )
    return Table("Instructions", note, ("one step", "instructions", "of these", "added", "share"), tuple(rows))
