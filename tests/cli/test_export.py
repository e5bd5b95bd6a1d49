"""``rnncore export``: somebody's file and weights as one ONNX file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rnncore import runtime
from tests.cli.conftest import Run
from tests.tolerances import bound

SOURCE = """
import torch
from torch import nn
from beside import SIZE

class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gru, self.head = nn.GRU(SIZE, hidden, batch_first=True), nn.Linear(hidden, 2)

    def forward(self, x):
        return self.head(self.gru(x)[0])

made = Net(5)
words = "no module"
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("beside", "net_of_a_test", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "beside.py").write_text("SIZE = 3\n")
    path = tmp_path / "net_of_a_test.py"
    path.write_text(SOURCE)
    return path


def test_a_class_with_weights_becomes_a_file_that_answers_as_pytorch(run: Run, source: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    sys.path.insert(0, str(tmp_path))
    exec(SOURCE, names)
    torch.manual_seed(3)
    net = names["Net"](7)  # type: ignore[operator]
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 3), np.float32))
    result = run(
        *("export", f"{source}:Net", "--arguments", '{"hidden": 7}', "--weights", tmp_path / "w.pt"),
        *("--example", f"x={tmp_path / 'x.npy'}", "--out", tmp_path / "net.onnx", "--streaming", "yes", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["causal"] is True
    x = torch.randn(2, 6, 3)
    with torch.no_grad():
        wanted = net(x).numpy()
    np.testing.assert_allclose(
        runtime.load(tmp_path / "net.onnx").run(x.numpy()), wanted, atol=bound("float32", "onnx", depth=2, length=6)
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("Missing", "--example", "float32[1,4,3]"), "has no Missing"),
        (("words", "--example", "float32[1,4,3]"), "words is a str"),
        (("Net", "--example", "float32[1,4,3]"), "see --arguments"),
        (("Net", "--example", "float32[1,4,3]", "--arguments", "[5]"), "expected a class; --arguments a JSON object"),
        (("made", "--example", "float33[1,4,3]"), "expected DTYPE[SIZES]"),
        (("made", "--example", "float32[1,4,3]<5"), "only integers have a limit"),
        (("made", "--example", "x=float32[1,4,3]", "--example", "float32[1]"), "name each of them, or none"),
        (("made", "--example", "nowhere.npy"), "nowhere.npy does not exist"),
        (("made", "--example", "float32[1,4,3]", "--weights", "beside.py"), "beside.py is no state dict"),
        (("made", "--example", "float32[1,4,3]", "--streaming", "maybe"), "--streaming is 'maybe'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    run: Run, source: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(source.parent)
    result = run("export", f"{source.name}:{options[0]}", *options[1:], "--out", "never.onnx")
    assert result.exit_code == 1
    assert says in result.stderr
    assert not Path("never.onnx").exists()


def test_sources_that_cannot_be_imported(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    for text, says in (
        ("net", "expected FILE.py:NAME"),
        (f"{tmp_path}/nothing.py:Net", "does not exist"),
        (f"{tmp_path}/broken.py:Net", "ZeroDivisionError"),
        ("no.such.package:Net", "ModuleNotFoundError"),
    ):
        result = run("export", text, "--example", "float32[1,4,3]")
        assert result.exit_code == 1
        assert says in result.stderr


def test_a_file_that_is_called_as_a_module_of_python_takes_nobodys_place(
    run: Run, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text(SOURCE)
    result = run("export", f"{tmp_path / 'json.py'}:made", "--example", "float33[1,4,3]")
    assert "expected DTYPE[SIZES]" in result.stderr
    assert sys.modules["json"] is json
    del sys.modules["exported_json"]


def test_the_version_and_short_help(run: Run) -> None:
    assert run("--version").stdout.startswith("rnncore ")
    assert run("-h").exit_code == 0
    assert "--weights" in run("export", "-h").stdout
