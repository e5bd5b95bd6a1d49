"""``rnncore train --quantize int8``."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnncore.runtime import LanguageModel
from tests.cli.conftest import Run
from tests.training.small import CORPUS


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(CORPUS.texts), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_file_is_in_int8_and_its_cost_is_told(run: Run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    size = ("--layers", "1", "--hidden", "43", "--embedding", "37", "--ngrams", "0")
    result = run("train", corpus, "--out", out, *size, "--epochs", "1", "--batch", "4", "--quantize", "int8")
    assert result.exit_code == 0, result.stderr
    assert "int8 against float32 on" in result.stderr and "perplexity" in result.stderr
    model = LanguageModel.load(out)
    assert model.model.metadata["rnncore.precision"] == "int8"
    assert model.score(CORPUS.texts[0]) < 0


def test_an_unknown_precision_is_refused_before_the_training(run: Run, corpus: Path, tmp_path: Path) -> None:
    result = run("train", corpus, "--out", tmp_path / "model.onnx", "--quantize", "int4")
    assert result.exit_code != 0 and "--quantize is 'int4', expected int8" in result.stderr
    assert list(tmp_path.iterdir()) == [corpus]
