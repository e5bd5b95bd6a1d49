"""The oldest versions that pyproject.toml allows, in an environment of their own: our files run there and answer the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rnncore import runtime
from rnncore.export import export

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ASKED = """
import json, sys
import numpy as np, onnxruntime
from rnncore import runtime

folder = sys.argv[1]
x = np.load(folder + "/x.npy")
for name in sys.argv[2:]:
    model, expected = runtime.load(f"{folder}/{name}.onnx"), np.load(f"{folder}/{name}.npy")
    assert runtime.verify(f"{folder}/{name}.onnx", isolated=name == "external").passed, name
    np.testing.assert_allclose(model.run(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.run([x[0], x[1, :3]])[1], expected[1, :3], rtol=1e-4, atol=1e-5)
    with model.stream() as stream:
        first = stream.push(x[0, :4])
        rest = model.restore(stream.save()).push(x[0, 4:])
    np.testing.assert_allclose(np.concatenate([first, rest]), expected[0], rtol=1e-4, atol=1e-5)
    with model.pool() as pool:
        np.testing.assert_allclose(pool.open().push(x[0]), expected[0], rtol=1e-4, atol=1e-5)
print(json.dumps([np.__version__, onnxruntime.__version__]))
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 67, num_layers=2, batch_first=True)
        self.head = nn.Linear(67, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return self.head(y)


def floors() -> dict[str, str]:
    """The oldest allowed version of each package of the bare install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(dependency.split(">=") for dependency in project["dependencies"])


def test_files_run_on_the_oldest_versions(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, example = Net().eval(), torch.randn(2, 4, 5)
    ways: dict[str, dict[str, object]] = {
        "external": {"external_data": True},
        "fused": {"form": "auto"},
        "int8": {"quantize": "int8", "form": "scan"},
    }
    x = np.random.default_rng(0).standard_normal((2, 9, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for name, options in ways.items():
        export(model, tmp_path / f"{name}.onnx", example, **options)  # type: ignore[arg-type]
        np.save(tmp_path / f"{name}.npy", runtime.load(tmp_path / f"{name}.onnx").run(x))

    packages, tree = tmp_path / "packages", tmp_path / "tree"
    exact = [f"{name}=={version}" for name, version in floors().items()]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *exact]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, ROOT / "scripts" / "linktree.py", tree], check=True, capture_output=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", ASKED, str(tmp_path), *ways],
        cwd=tmp_path,
        env=clean | {"PYTHONPATH": f"{packages}{os.pathsep}{tree}", "PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [part.strip(' "[]\n') for part in done.stdout.split(",")]
    assert found == [floors()["numpy"] + ".0" * (2 - floors()["numpy"].count(".")), floors()["onnxruntime"]]
