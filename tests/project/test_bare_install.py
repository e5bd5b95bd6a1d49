"""A real second environment with the bare install, from a built wheel: the runtime needs neither torch nor onnx."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import nn

import rnncore.export
from tests.tolerances import fixed

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
IMPORT_BOUND = 3.0
"""What our own import takes at most, as a part of numpy's in the same process (1.0 to 1.4 on an idle machine)."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a folder of its own, away from the project."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "venv" / "bin" / "python"

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the interpreter, warnings being errors, with nothing of the project on its path."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
        return subprocess.run(
            [self.python, "-W", "error", *arguments], cwd=self.folder, env=clean, capture_output=True, text=True
        )

    def answer(self, code: str, *arguments: str | Path) -> object:
        """Run ``code`` and return what it printed, read as JSON."""
        done = self.run("-c", code, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


def run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, so that nothing left in ``build/`` gets into it."""
    sources, wheels = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "PACKAGE.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("rnncore", "export", "runtime"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, sources)
    (file,) = wheels.glob("rnncore-*.whl")
    return file


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the wheel, and what a bare install asks for, into a new environment."""
    environment = Environment(tmp_path_factory.mktemp("bare"))
    venv.create(environment.folder / "venv", with_pip=True)
    run(environment.python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, wheel)
    return environment


def test_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    files = ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in files} == {"rnncore"}
    for folder, package in {"rnncore": "rnncore", "export": "rnncore/export", "runtime": "rnncore/runtime"}.items():
        wanted = {f"{package}/{file.relative_to(ROOT / folder)}" for file in (ROOT / folder).rglob("*.py")}
        assert sorted(wanted - set(files)) == []
        assert f"{package}/py.typed" in files
    assert any(name.endswith("licenses/LICENSE") for name in files)


def test_bare_install_is_numpy_and_onnxruntime(bare: Environment) -> None:
    found = bare.answer(
        "import importlib.util as u, json\n"
        "names = 'numpy onnxruntime torch onnx onnx_ir onnxscript tokenizers typer rich'.split()\n"
        "print(json.dumps([name for name in names if u.find_spec(name)]))"
    )
    assert found == ["numpy", "onnxruntime"]


def test_importing_the_runtime_is_quick_and_brings_neither_torch_nor_onnx(bare: Environment) -> None:
    code = (
        "import time; start = time.perf_counter(); import numpy; numpy_s = time.perf_counter() - start\n"
        "import rnncore.runtime; own_s = time.perf_counter() - start - numpy_s\n"
        "import json, sys\n"
        "print(json.dumps([own_s / numpy_s, [m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules]]))"
    )
    answers = [bare.answer(code) for _ in range(6)][1:]  # the first one writes the .pyc files
    assert [modules for _, modules in answers] == [[]] * 5
    assert min(ratio for ratio, _ in answers) < IMPORT_BOUND


def test_the_rest_says_which_extra_to_install(bare: Environment) -> None:
    answers = bare.answer(
        "import importlib, json, rnncore\n"
        "from rnncore.runtime.errors import MissingExtraError\n"
        "found = []\n"
        "for name in ('LSTM', 'cells', 'layers', 'models', 'training', 'sklearn'):\n"
        "    try: getattr(rnncore, name) if name == 'LSTM' else importlib.import_module('rnncore.' + name)\n"
        "    except MissingExtraError as error: found.append(str(error))\n"
        "print(json.dumps(found))"
    )
    assert isinstance(answers, list)
    assert len(answers) == 6
    assert all("pip install 'rnncore[train]'" in answer for answer in answers)


def test_importing_the_exporter_says_which_extra_to_install(bare: Environment) -> None:
    done = bare.run("-c", "import rnncore.export; rnncore.export.export")
    assert done.returncode == 1
    assert "MissingExtraError" in done.stderr
    assert "pip install 'rnncore[export]'" in done.stderr


def test_the_command_says_which_extra_to_install(bare: Environment) -> None:
    done = bare.run(bare.python.with_name("rnncore"), "--help")
    assert done.returncode != 0
    assert "pip install 'rnncore[" in done.stderr
    assert "Traceback" not in done.stderr


class Tagger(nn.Module):
    """A model that a user might have: a recurrent layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return self.head(y)


def test_a_file_exported_here_runs_there(bare: Environment) -> None:
    torch.manual_seed(11)
    model = Tagger().eval()
    rnncore.export.export(model, bare.folder / "tagger.onnx", torch.randn(2, 5, 5))
    x = torch.randn(3, 13, 5)
    np.save(bare.folder / "x.npy", x.numpy())

    found = bare.answer(
        "import json, sys, numpy as np, rnncore.runtime\n"
        "x = np.load('x.npy')\n"
        "model = rnncore.runtime.load('tagger.onnx')\n"
        "with model.stream() as stream: parts = [stream.push(x[0, :4]), stream.push(x[0, 4:])]\n"
        "print(json.dumps({'whole': model.run(x).tolist(), 'streamed': np.concatenate(parts).tolist(),\n"
        "                  'torch': 'torch' in sys.modules}))"
    )
    with torch.no_grad():
        expected = model(x).numpy()
    assert isinstance(found, dict)
    assert not found["torch"]
    np.testing.assert_allclose(found["whole"], expected, rtol=fixed("float32"), atol=fixed("float32 same steps"))
    np.testing.assert_allclose(found["streamed"], expected[0], rtol=fixed("float32"), atol=fixed("float32 same steps"))
