"""Run benchmarks and keep their tables: ``python -m benchmarks [NAME ...]`` writes benchmarks/results/NAME.md; all by default."""

from __future__ import annotations

import importlib
import platform
import sys
from pathlib import Path

import onnxruntime
import torch

HERE = Path(__file__).parent
NAMES = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def main(arguments: list[str]) -> int:
    unknown = sorted(set(arguments) - set(NAMES))
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    (HERE / "results").mkdir(exist_ok=True)
    machine = f"{_processor()}; torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}"
    for name in arguments or NAMES:
        text = f"{importlib.import_module(f'benchmarks.bench_{name}').run().markdown()}\n{machine}.\n"
        print(text, flush=True)
        (HERE / "results" / f"{name}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
