"""``scripts/matrix``: which versions of Python, torch, onnxruntime and NumPy work; writes docs/matrix.md.

``--only runtime`` or ``--only export``: those rows alone, the others stay as they were; a version that was tried before gives
its row again.  Environments with torch take gigabytes and go once they were run; ``--keep`` leaves them for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.matrix.environments import (
    CACHE,
    EXPORT_TESTS,
    PINNED_PYTHON,
    ROOT,
    Environment,
    export_environments,
    interpreter,
    make,
    runtime_environments,
)

PAGE = ROOT / "docs" / "matrix.md"
DATA = ROOT / "docs" / "matrix.json"
TORCHES = ("2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.14.1", "2.15.0")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LIMIT_S = 3000


@dataclass
class Row:
    """What one environment gave."""

    kind: str
    name: str
    versions: str
    result: str
    detail: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("runtime", "export"))
    parser.add_argument("--torch", nargs="*", default=list(TORCHES))
    parser.add_argument("--onnxruntime", nargs="*", default=[f"=={_floor('onnxruntime')}", ""])
    parser.add_argument("--numpy", nargs="*", default=[f"=={_floor('numpy')}", ""])
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    before = [Row(**row) for row in json.loads(DATA.read_text())] if DATA.exists() else []
    rows: list[Row] = []
    if arguments.only != "export":
        rows += _runtime_rows(arguments)
    if arguments.only != "runtime":
        for environment in export_environments(arguments.torch):
            rows.append(_row(environment, _run_export_tests))
            if not arguments.keep:
                shutil.rmtree(environment.folder, ignore_errors=True)
    again = {row.name for row in rows}
    rows += [row for row in before if row.name not in again]
    rows.sort(key=lambda row: (row.kind != "runtime", row.name))
    DATA.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    PAGE.write_text(_page(rows))
    return int(any(row.result != "works" for row in rows))


def _floor(name: str) -> str:
    """The oldest version that the bare install allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(dependency.split(">=") for dependency in project["dependencies"])[name]


def _runtime_rows(arguments: argparse.Namespace) -> list[Row]:
    pythons = [version for version in PYTHONS if interpreter(version)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "tests.matrix.files", folder], check=True, cwd=ROOT)
        check = str(ROOT / "tests" / "matrix" / "runtime_check.py")

        def run(python: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(python), check, folder], capture_output=True, text=True, timeout=LIMIT_S, cwd=folder
            )

        environments = runtime_environments(arguments.onnxruntime, arguments.numpy, pythons)
        return [_row(environment, run) for environment in environments]


def _run_export_tests(python: Path) -> subprocess.CompletedProcess[str]:
    # Warnings of other versions of torch about themselves are theirs to mend.
    command = [str(python), "-m", "pytest", "-q", "-n", "0", "-o", "filterwarnings=", *EXPORT_TESTS]
    environ = os.environ | {"HYPOTHESIS_PROFILE": "fast"}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT, env=environ)


def _row(environment: Environment, run: object) -> Row:
    print(f"{environment.kind}: {environment.name} ...", flush=True)
    try:
        python = make(environment)
    except (RuntimeError, FileNotFoundError) as error:
        return _said(Row(environment.kind, environment.name, "", "not installable here", str(error)))
    try:
        done = run(python)  # type: ignore[operator]
    except subprocess.TimeoutExpired:
        return _said(Row(environment.kind, environment.name, _versions(python), "no answer", f"after {LIMIT_S} s"))
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    summary = re.sub(r" in [\d.]+s.*", "", lines[-1]).strip("= ")
    bad = [line[:200] for line in lines if line.startswith(("WRONG", "FAILED", "ERROR"))][:4]
    result = "works" if done.returncode == 0 else "fails"
    return _said(Row(environment.kind, environment.name, _versions(python), result, "; ".join([summary, *bad])))


def _said(row: Row) -> Row:
    print(f"  {row.result}: {row.detail}", flush=True)
    return row


def _versions(python: Path) -> str:
    names = ("torch", "onnxruntime", "numpy", "onnx", "onnxscript")
    code = (
        "import importlib.metadata as m, platform\nprint('Python', platform.python_version(), end='')\n"
        f"for n in {names}:\n try: print(f', {{n}} {{m.version(n)}}', end='')\n except m.PackageNotFoundError: pass"
    )
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True).stdout


def _page(rows: list[Row]) -> str:
    lines = [
        "# Versions",
        "",
        "Made by `scripts/matrix`, outside CI: CI runs the pinned set of `constraints.txt` alone. *Runtime*: files of every "
        "kind, written by the pinned set, are verified again, streamed, pooled, saved and restored without torch. *Export*: "
        "the ten files of tests/hosts are exported and verified, and tests of layers, packed sequences and fused forms run, "
        "with another torch, all else as pinned.",
        "",
        f"Linux on x86-64, Python {PINNED_PYTHON} where not said otherwise. macOS, Windows and ARM: not tried."
        + "".join(
            f" Python {version}: not tried, for want of an interpreter."
            for version in PYTHONS
            if not any(row.versions.startswith(f"Python {version}.") for row in rows)
        ),
        "",
        "| kind | environment | installed | result | detail |",
        "|---|---|---|---|---|",
    ]
    cells = [(row.kind, row.name, row.versions, row.result, row.detail.replace("|", "/")) for row in rows]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
