"""The examples of language models, gates and gradients learn what they claim, here with settings that take seconds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples.conftest import EXAMPLES, Run
from tests.tolerances import fixed

pytestmark = pytest.mark.slow


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_apple_and_pear_salad_is_heard(tmp_path: Path) -> None:
    example = load("apple_and_pear")
    likely, unlikely = example.HEARD
    assert not any(sentence.startswith((likely, unlikely)) for sentence in example.sentences()), "both are new to it"
    example.train(tmp_path / "salad.onnx")
    chances = example.compare(tmp_path / "salad.onnx")
    assert chances[likely] > 100 * chances[unlikely] > 0


def test_open_gates_carry_gradients_far(tmp_path: Path) -> None:
    example = load("vanishing_gradients")
    left = example.main(tmp_path / "gradients.png", steps=15, epochs=1, number=64)
    assert left["GRU, gates open"] > 0.1 > 0.01 > left["LSTM, gates half open"]
    assert left["LSTM, gates open"] > 0.1 > 0.01 > left["RNN"]
    assert (tmp_path / "gradients.png").stat().st_size > 10_000


def test_the_verb_agrees_where_it_follows_its_subject(tmp_path: Path) -> None:
    """As long as training takes a second; the whole one remembers over a clause."""
    share = load("singular_plural").main(tmp_path / "cats.png", epochs=2, number=600)
    assert share > 0.6
    assert (tmp_path / "cats.png").stat().st_size > 10_000


def test_a_word_model_says_the_same_with_and_without_pytorch(main: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lines = [f"the {a} {b} on the {c}." for a in ("cat", "dog") for b in ("sat", "ran") for c in ("mat", "log", "hill")]
    (data / "play.txt").write_text("\n\n".join(lines * 3), encoding="utf-8")
    options = ("--data", data, "--out", tmp_path / "words.onnx", "--hidden", 8, "--epochs", 1)
    inside, outside = re.findall(r"held-out perplexity ([\d.]+) per token", main("word_language_model", *options))
    assert float(inside) == pytest.approx(float(outside), rel=fixed("float32 long"))
    assert (tmp_path / "words.log" / "metrics.csv").exists()
