"""Measure applications and keep the table: ``python -m benchmarks.applications [NAME ...]``; all by default.

``--check`` holds the committed table to its floors, ``--table`` writes it from the kept measurements; neither trains.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from pathlib import Path

import onnxruntime
import torch

from benchmarks.applications import record, table

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if "\nFLOORS" in path.read_text("utf-8"))


def machine() -> str:
    """The processor and the versions that a measurement was made with."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    return f"{processor}, torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/applications", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--check", action="store_true", help="hold the committed table to its floors, without training")
    parser.add_argument("--table", action="store_true", help="write the table from the kept measurements")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown application {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    if chosen.check:
        floors = {name: importlib.import_module(f"benchmarks.applications.{name}").FLOORS for name in NAMES}
        problems = table.check(NAMES, floors)
        print("\n".join(problems) if problems else "every row meets its floor, and the page says what was measured")
        return 1 if problems else 0
    if not chosen.table:
        torch.set_num_threads(1)
        for name in chosen.names or NAMES:
            rows = importlib.import_module(f"benchmarks.applications.{name}").measure()
            for row in rows:
                print(row, flush=True)
            record.save(name, rows, machine())
    table.write(NAMES)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
