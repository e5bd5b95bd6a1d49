"""``rnncore plot``."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnncore.training import TrainingSettings
from tests.cli.conftest import Run
from tests.language_models import model_file
from tests.training import tagging
from tests.training.small import CORPUS, trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a training with patience and a log."""
    folder = tmp_path_factory.mktemp("plot")
    settings = TrainingSettings(epochs=2, batch=3, bptt=29, learning_rate=0.02, seed=7, patience=1)
    trainer(settings, checkpoint=folder / "model.pt", log_dir=folder / "log").run()
    return folder / "model.pt"


def test_gates_of_several_texts(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "gates.svg"
    texts = [argument for text in CORPUS.texts[:2] for argument in ("--text", text)]
    result = run("plot", "gates", checkpoint, *texts, "--out", out, "--units", "4,2", "--show", "update,h")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"wrote {out}\n"
    drawn = out.read_text()
    assert "model.pt: GRUCell, layer 1" in drawn
    assert "hidden state h" in drawn
    assert "reset gate" not in drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layer", "2"), "layer is 2, expected 0 to 1"),
        (("--units", "a"), "--units is 'a', expected a number"),
        (("--units", "99,1"), "units are [99, 1], expected some of 0 to 10"),
        (("--show", "forget"), "nothing was recorded of forget"),
        (("--out", "gates.txt"), "gates.txt: the name of a picture ends in one of"),
        (("--text", "ZZZ"), "unknown character"),
    ],
)
def test_gates_that_cannot_be_drawn(run: Run, checkpoint: Path, options: tuple[str, ...], message: str) -> None:
    result = run("plot", "gates", checkpoint, "--text", "the cat", *options)
    assert result.exit_code == 1
    assert message in result.stderr


def test_learning_curves_of_files_and_checkpoints(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    fitted = tmp_path / "fit.pt"
    tagging.train(tagging.Tagger(), checkpoint=fitted)
    for source, shown in (
        (checkpoint, "held out"),
        (checkpoint.parent / "log" / "metrics.csv", "single steps"),
        (fitted, "accuracy"),
    ):
        out = tmp_path / "curve.svg"
        result = run("plot", "learning", source, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert shown in out.read_text()
    other = tmp_path / "other.pt"
    other.write_bytes(b"PK")
    result = run("plot", "learning", other)
    assert result.exit_code == 1
    assert "other.pt is not a checkpoint" in result.stderr


def test_surprisal_in_the_terminal_and_as_a_page(run: Run, tmp_path: Path) -> None:
    model, out = tmp_path / "model.onnx", tmp_path / "page.html"
    model.write_bytes(model_file())
    result = run("plot", "surprisal", model, "bad <ed", "--out", out, "--eos")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("bad <ed<eos>\n")
    assert "8 tokens" in result.stdout
    assert "&lt;</span>" in out.read_text(encoding="utf-8")
    wrong = run("plot", "surprisal", model, "bad", "--out", tmp_path / "page.txt")
    assert (wrong.exit_code, "expected a name that ends in .html" in wrong.stderr) == (1, True)
