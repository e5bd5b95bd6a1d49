"""Run benchmarks and keep their tables: ``python -m benchmarks [NAME ...]``; all by default.

Tables go to benchmarks/results/KIND/NAME.md.  KIND is the instruction set of this processor, "avx2", "avx512" or
another: tables differ between them.  "instructions" needs valgrind, and is left out by default where that is missing.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from pathlib import Path

import onnxruntime
import torch

HERE = Path(__file__).parent
NAMES = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []


def kind() -> str:
    """The instruction set that decides which kernels run here, a folder of results."""
    flags = next((line.split() for line in _cpuinfo() if line.startswith("flags")), [])
    found = [name for flag, name in (("avx512f", "avx512"), ("avx2", "avx2")) if flag in flags]
    return found[0] if found else platform.machine()


def _processor() -> str:
    lines = _cpuinfo()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def main(arguments: list[str]) -> int:
    unknown = sorted(set(arguments) - set(NAMES))
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    folder = HERE / "results" / kind()
    folder.mkdir(parents=True, exist_ok=True)
    machine = (
        f"{_processor()}, {kind()}; torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}"
    )
    default = [name for name in NAMES if name != "instructions" or shutil.which("valgrind")]
    for name in arguments or default:
        text = f"{importlib.import_module(f'benchmarks.bench_{name}').run().markdown()}\n{machine}.\n"
        print(text, flush=True)
        (folder / f"{name}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
