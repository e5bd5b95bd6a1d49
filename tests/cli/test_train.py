"""``rnncore train`` from a corpus to a file, with and without interruptions."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rnncore.export
from rnncore.cli.train_setup import Running, resumed_trainer
from rnncore.layers import Recurrent
from rnncore.runtime import LanguageModel
from rnncore.runtime.errors import VerificationError
from rnncore.text import Vocabulary, read_corpus
from rnncore.training import Checkpoint, Observer, Trainer, new_model
from tests.cli.conftest import Run
from tests.compilers import needs_compiler
from tests.tolerances import fixed
from tests.training.small import CORPUS, assert_same_bits

OPTIONS = ("--layers", "1", "--hidden", "12", "--embedding", "6", "--batch", "4", "--bptt", "40", "--device", "cpu")
OPTIONS += ("--ngrams", "0")  # so that the file gives what training says


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(CORPUS.texts), encoding="utf-8")
    return path


def not_now(*_: object, **__: object) -> None:
    raise VerificationError("the file disagrees")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def held_out_perplexity(text: str) -> float:
    return float(re.findall(r"held-out.*perplexity ([\d.]+)", text)[-1])


@pytest.mark.slow
def test_train_makes_a_verified_file_and_shows_what_it_does(run: Run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "model.onnx"
    text = corpus.read_bytes()
    choices = ("--epochs", "2", "--cell", "gru-before", "--form", "scan")
    result = run("train", "-", "--out", out, *OPTIONS, *choices, stdin=text)
    assert result.exit_code == 0, result.stderr
    assert names(out.parent) == ["model.onnx", "model.pt"]
    assert "epoch 2 done: training loss" in result.stderr
    shown = held_out_perplexity(result.stdout)
    assert shown == pytest.approx(held_out_perplexity(result.stderr), abs=fixed("printed with 3 digits")), (
        "PyTorch and the file agree"
    )
    assert "comparisons with PyTorch" in result.stdout
    model = LanguageModel.load(out)
    assert model.model.metadata["rnncore.form"] == "scan"
    assert all(case["passed"] for case in model.model.report["cases"])
    assert model.score(CORPUS.texts[0]) > model.score(CORPUS.texts[0][::-1])
    assert Checkpoint.load(out.with_suffix(".pt")).model_config.cells[0].options == {"reset": "before"}

    assert "hand it in again" in run("train", "--out", out, "--resume").stderr
    again = run("train", "-", "--out", out, "--resume", "--json", stdin=text)
    assert again.exit_code == 0, again.stderr
    told = json.loads(again.stdout)
    assert f"{told['held_out']['perplexity']:.3f}" == f"{shown:.3f}"
    assert [report["epoch"] for report in told["epochs"]] == [1, 2] and len(told["samples"]) == 3
    assert told["size_bytes"] == out.stat().st_size


@needs_compiler
@pytest.mark.slow
def test_compiled_steps_train_and_a_resumed_training_keeps_them(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        out = tmp_path / f"{name}.onnx"
        with monkeypatch.context() as patch:
            if name == "plain":  # what it learns is told before the export, which other tests see
                patch.setattr(rnncore.export, "export", not_now)
            result = run("train", corpus, "--out", out, *OPTIONS, "--epochs", "1", "--cell", "peephole-lstm", *more)
        assert result.exit_code == (1 if name == "plain" else 0), result.stderr
        found.append(held_out_perplexity(result.stderr))
    assert found[1] == pytest.approx(found[0], rel=fixed("compiled training"))
    assert held_out_perplexity(result.stdout) == pytest.approx(found[1], abs=fixed("printed with 3 digits"))
    checkpoint = out.with_suffix(".pt")
    resumed = resumed_trainer(checkpoint, None, Running("cpu", 60.0, Observer()), given=(), epochs=2)
    assert [layer.compiled is not None for layer in resumed.model.modules() if isinstance(layer, Recurrent)] == [True]
    refused = run("train", "--out", out, "--resume", "--compile")
    assert "--compile: fixed by the training that --resume goes on with" in refused.stderr


@pytest.mark.slow
def test_ctrl_c_then_resume_ends_with_the_same_weights(run: Run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    command = [sys.executable, "-m", "rnncore", "train", corpus, "--out", out, *OPTIONS, "--epochs", "20"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2 done"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 130
    assert "Traceback" not in rest
    assert f"go on with: rnncore train --resume --out {out}" in rest
    assert names(tmp_path) == ["corpus.txt", "model.pt"]
    stopped = Checkpoint.load(tmp_path / "model.pt")
    assert 2 <= stopped.position.epoch < 20

    refused = run("train", corpus, "--out", out, *OPTIONS)
    assert refused.exit_code == 1
    assert "go on with --resume, or throw it away with --restart" in refused.stderr
    refused = run("train", "--out", out, "--resume", "--hidden", "12", "--lr", "1")
    assert refused.exit_code == 1
    assert "--hidden, --lr: fixed by the training that --resume goes on with" in refused.stderr

    result = run("train", "--out", out, "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    straight = tmp_path / "straight.pt"
    Trainer(
        new_model(stopped.model_config, stopped.settings.seed),
        Vocabulary.from_json(stopped.vocabulary),
        read_corpus(corpus),
        stopped.settings,
        checkpoint=straight,
        device="cpu",
    ).run()
    assert_same_bits(Checkpoint.load(tmp_path / "model.pt"), Checkpoint.load(straight))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cell", "lstn"), "unknown cell 'lstn'; known: rnn"),
        (("--hidden", "0"), "hidden_size is 0"),
        (("--layers", "0"), "--layers is 0"),
        (("--epochs", "0"), "epochs is 0"),
        (("--lr", "-1"), "learning_rate is -1.0"),
        (("--dropout", "1"), "dropout is 1.0"),
        (("--batch", "100000"), "too few for a batch"),
        (("--held-out", "0"), "held_out is 0.0"),
        (("--texts", "word"), "texts_by is 'word'"),
        (("--form", "fusedd"), "--form is 'fusedd'"),
        (("--ngrams", "1"), "--ngrams is 1, expected at least 2 tokens, or 0 for none"),
        (("--tied",), "tied weights: the top layer gives"),
        (("--out", "model.pt"), "expected a name that ends in .onnx"),
        (("--resume",), "nothing to resume"),
    ],
)
def test_mistakes_are_found_before_training_and_leave_nothing(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("train", corpus, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert names(tmp_path) == ["corpus.txt"]


def test_a_missing_corpus_is_one_line(run: Run, tmp_path: Path) -> None:
    result = run("train", tmp_path / "missing.txt", "--out", tmp_path / "m.onnx")
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path / 'missing.txt'}: No such file or directory\n"


def test_an_export_that_fails_leaves_the_checkpoint_and_no_file(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rnncore.export, "export", not_now)
    result = run("train", corpus, "--out", tmp_path / "m.onnx", *OPTIONS, "--epochs", "1")
    assert result.exit_code == 1
    assert result.stderr.endswith("error: the file disagrees\n")
    assert names(tmp_path) == ["corpus.txt", "m.pt"]
    assert Checkpoint.load(tmp_path / "m.pt").is_finished


@pytest.mark.slow
def test_words_with_adaptive_softmax_and_a_log(run: Run, corpus: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "words.onnx", tmp_path / "log"
    options = (
        *OPTIONS,
        "--tokens",
        "words",
        "--vocabulary-size",
        "12",
        "--adaptive",
        "--patience",
        "1",
        "--log-dir",
        log,
    )
    result = run("train", corpus, "--out", out, *options, "--epochs", "2")
    assert result.exit_code == 0, result.stderr
    assert held_out_perplexity(result.stdout) == pytest.approx(
        held_out_perplexity(result.stderr), abs=fixed("printed with 3 digits")
    )
    assert "a character over" in result.stdout
    model = LanguageModel.load(out)
    assert len(model.vocabulary) == 12
    assert model.score("the zebra sat on the mat.") < 0
    assert Checkpoint.load(out.with_suffix(".pt")).model_config.cutoffs == (1, 4)
    assert (log / "metrics.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tokens", "syllables"), "--tokens is 'syllables', expected one of: characters, words, subwords"),
        (("--vocabulary-size", "99"), "--vocabulary-size: characters are all taken"),
        (("--tokens", "subwords", "--vocabulary-size", "99"), "expected at least 257"),
        (("--patience", "0"), "patience is 0"),
    ],
)
def test_tokens_that_do_not_work(
    run: Run, corpus: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = run("train", corpus, "--out", tmp_path / "model.onnx", *OPTIONS, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "model.onnx" not in names(tmp_path)
