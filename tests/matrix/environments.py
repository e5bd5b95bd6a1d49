"""Which environments are tried, and how one is made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".matrix"  # ignored by git; environments with torch take 1 to 6 GB each

PINNED_PYTHON = "3.11"
TORCH_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "setuptools")
TORCH_NEEDS = ("accelerate", "tokenizers", "typer", "rich", "numpy", "onnxruntime", "onnx", "onnx-ir", "onnxscript")
EXPORT_TESTS = (
    "tests/hosts/test_hosts.py::test_python_gives_the_golden_answers_of_ten_files",
    *("tests/layers/test_torch_nn.py", "tests/export/test_fused.py", "tests/export/test_packed.py"),
)


@dataclass(frozen=True)
class Environment:
    """One row of the table.

    kind: "runtime" (files written by the pinned set are run without torch) or "export" (tests of training and export run
    with another torch).  packages: requirements beside rnncore's own.
    """

    kind: str
    name: str
    python: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its environment lies."""
        return CACHE / f"{self.kind}-{self.name}".replace(" ", "-").replace("=", "")


def runtime_environments(
    onnxruntimes: Sequence[str], numpys: Sequence[str], pythons: Sequence[str]
) -> list[Environment]:
    """Floor and newest of both, on the pinned Python; then the newest of both on every other Python of this machine."""
    made = [
        Environment(
            "runtime",
            f"onnxruntime{ort or ' newest'}, numpy{numpy or ' newest'}",
            PINNED_PYTHON,
            (f"onnxruntime{ort}", f"numpy{numpy}"),
        )
        for ort in onnxruntimes
        for numpy in numpys
    ]
    made += [
        Environment("runtime", f"Python {python}, newest", python, ("onnxruntime", "numpy"))
        for python in pythons
        if python != PINNED_PYTHON
    ]
    return made


def export_environments(torches: Sequence[str]) -> list[Environment]:
    """One for each version of torch."""
    return [Environment("export", f"torch {torch}", PINNED_PYTHON, (f"torch=={torch}",)) for torch in torches]


def interpreter(version: str) -> str | None:
    """The command of a Python of this version, if this machine has one that starts."""
    command = shutil.which(f"python{version}")
    works = command and subprocess.run([command, "-c", ""], capture_output=True).returncode == 0
    return command if works else None


def make(environment: Environment) -> Path:
    """Make the environment if it is not there; returns its Python.  Raises CalledProcessError with pip's words."""
    python = environment.folder / "bin" / "python"
    if (environment.folder / "made").exists():
        return python
    command = interpreter(environment.python)
    if command is None:
        raise FileNotFoundError(f"this machine has no Python {environment.python}")
    shutil.rmtree(environment.folder, ignore_errors=True)
    _run([command, "-m", "venv", str(environment.folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    _run([*pip, *environment.packages])
    if environment.kind == "export":
        constraints = environment.folder / "constraints.txt"
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        # torch 2.11 and 2.12 have a limit of their own for setuptools
        constraints.write_text("\n".join(line for line in lines if not line.startswith(("torch==", "setuptools=="))))
        # torch stays what it is: whatever else is installed may not replace it.
        _run([*pip, "-c", str(constraints), *TORCH_TOOLS, *TORCH_NEEDS, *environment.packages])
    else:
        _run([*pip, "tokenizers", *environment.packages])
    _run([*pip, "--no-deps", *(["--editable"] if environment.kind == "export" else []), str(ROOT)])
    (environment.folder / "made").touch()
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1][:200])
