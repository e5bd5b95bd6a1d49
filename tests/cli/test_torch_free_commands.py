"""``score``, ``sample`` and ``inspect``."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnncore.__main__ import main
from tests.cli.conftest import Run
from tests.language_models import runtime_model, vocabulary


def python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


# ----------------------------------------------------------------------------------------------------------------score
def test_score_prints_every_character_and_the_total(run: Run, model: Path) -> None:
    result = run("score", model, "abc\n<é>")
    assert result.exit_code == 0
    scores = runtime_model().token_scores("abc\n<é>")
    rows = [line.split() for line in result.stdout.splitlines()]
    for row, score in zip(rows[1:], scores, strict=False):
        assert row == [repr(score.token), f"{score.log_prob:.4f}", f"{math.exp(score.log_prob):.4f}"]
    total = math.fsum(score.log_prob for score in scores)
    assert rows[8] == ["log-probability", f"{total:.4f}"]
    assert rows[9] == ["perplexity", f"{math.exp(-total / 7):.4f}", "over", "7", "tokens"]


def test_score_as_json(run: Run, model: Path) -> None:
    result = run("score", model, "ab", "--json", "--eos")
    data = json.loads(result.stdout)
    scores = runtime_model().token_scores("ab", eos=True)
    assert data["text"] == "ab"
    assert [(one["token"], one["log_prob"]) for one in data["tokens"]] == [tuple(score) for score in scores]
    assert data["log_prob"] == pytest.approx(runtime_model().score("ab", eos=True))
    assert data["perplexity"] == pytest.approx(runtime_model().perplexity("ab", eos=True))


@pytest.mark.parametrize("text", ["[bold]", "a" * 300])
def test_nothing_is_taken_for_markup_or_folded(run: Run, model: Path, text: str) -> None:
    known = "".join(character for character in text if character in "abcdeos")
    result = run("score", model, known)
    assert len(result.stdout.splitlines()) == len(known) + 3
    assert run("score", model, text).exit_code == (0 if known == text else 1)


# ---------------------------------------------------------------------------------------------------------------sample
def test_sample_writes_on_from_a_prefix(run: Run, model: Path) -> None:
    result = run("sample", model, "--prefix", "abc", "--length", "20", "--seed", "4", "--temperature", "1.5")
    assert result.exit_code == 0
    assert result.stdout == "abc" + runtime_model().sample(20, temperature=1.5, seed=4, prefix="abc") + "\n"
    greedy = run("sample", model, "--length", "9", "--top-k", "1", "--top-p", "0.5")
    assert greedy.stdout == runtime_model().sample(9, temperature=0) + "\n"


def test_texts_come_from_standard_input_and_answers_as_json(run: Run, model: Path, tmp_path: Path) -> None:
    text = "abc abc\nabd"
    scored = json.loads(run("score", model, "-", "--json", stdin=text + "\n").stdout)
    assert scored["text"] == text and "".join(one["token"] for one in scored["tokens"]) == text
    book = run("score", model, "-", "--total", "--json", stdin=("\ufeff" + text * 2000).encode())
    assert json.loads(book.stdout) == {
        "log_prob": pytest.approx(runtime_model().score(text * 2000)),
        "perplexity": pytest.approx(runtime_model().perplexity(text * 2000)),
        "count": len(text) * 2000,
    }
    told = run("score", model, "ab", "--total").stdout
    assert told.splitlines()[0] == f"log-probability  {runtime_model().score('ab'):.4f}"
    sampled = json.loads(
        run("sample", model, "--prefix", "-", "--length", 5, "--seed", 3, "--json", stdin="ab\n").stdout
    )
    assert sampled == {"prefix": "ab", "written": runtime_model().sample(5, temperature=0.7, seed=3, prefix="ab")}
    page = tmp_path / "page.html"
    plotted = json.loads(run("plot", "surprisal", model, "-", "--json", "--out", page, stdin="abc").stdout)
    assert plotted["wrote"] == str(page) and page.exists()
    bits = [one["bits"] for one in plotted["tokens"]]
    assert -math.log(2.0) * sum(bits) == pytest.approx(runtime_model().score("abc"))
    refused = run("score", model, "-", stdin=b"ab\xff")
    assert (refused.exit_code, refused.stdout) == (1, "") and "standard input: byte 2" in refused.stderr


# --------------------------------------------------------------------------------------------------------------inspect
def test_inspect_prints_signature_and_report(run: Run, model: Path) -> None:
    result = run("inspect", model)
    assert result.exit_code == 0
    assert re.search(r"input +ids +int64 +\[batch, time\]", result.stdout)
    assert re.search(r"state +stack\.layers\.0\.h +float32 +\[batch, 11\]", result.stdout)
    assert re.search(rf"output +\S+ +float32 +\[batch, time, {len(vocabulary())}\]", result.stdout)
    assert runtime_model().model.fingerprint in result.stdout
    cases = runtime_model().model.report["cases"]
    assert len(re.findall(r"passed$", result.stdout, re.MULTILINE)) == len(cases) > 5
    assert "FAILED" not in result.stdout


def test_inspect_as_json_is_all_that_the_file_says(run: Run, model: Path) -> None:
    result = run("inspect", model, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    metadata = runtime_model().model.metadata
    assert document.keys() - {"document_version"} == {key.removeprefix("rnncore.") for key in metadata}
    assert document["document_version"] == 1
    for name in ("signature", "golden", "report", "tokenizer"):
        assert document[name] == json.loads(metadata[f"rnncore.{name}"])
    for name in ("format_version", "form", "precision", "fingerprint"):
        assert document[name] == metadata[f"rnncore.{name}"]


def test_a_model_comes_from_standard_input(run: Run, model: Path) -> None:
    data = model.read_bytes()
    shown = run("inspect", "-", stdin=data)
    assert re.search(r"file +standard input", shown.stdout)
    assert re.search(rf"size +{len(data) / 1e6:.2f} MB", shown.stdout)
    assert runtime_model().model.fingerprint in shown.stdout
    verified = json.loads(run("verify", "-", "--json", stdin=data).stdout)
    assert verified["passed"] is True and len(verified["cases"]) >= 3
    for command in ("inspect", "verify"):
        assert "no model in it" in run(command, "-", stdin=b"").stderr
        assert "no ONNX model" in run(command, "-", stdin=bytes(range(256)) * 9).stderr
    assert "openvino reads a file" in run("verify", "-", "--backend", "openvino", stdin=data).stderr


# ---------------------------------------------------------------------------------------------------------------errors
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "MODEL", "abz"), "error: unknown character 'z' (U+007A) at position 2"),
        (("score", "MODEL", ""), "error: the text is empty"),
        (("sample", "MODEL", "--temperature", "-1"), "error: temperature is -1.0"),
        (("sample", "MODEL", "--prefix", "z"), "error: unknown character 'z'"),
        (("score", "missing.onnx", "a"), "missing.onnx"),
        (("inspect", "missing.onnx"), "missing.onnx"),
        (("inspect", "."), "error: "),
        (("score", __file__, "a"), "error: "),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(
    run: Run, model: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*(model if argument == "MODEL" else argument for argument in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("score",), ("bogus",), ("sample", "m.onnx", "--length", "many")])
def test_wrong_usage_exits_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


# ---------------------------------------------------------------------------------------------------------- subprocess
COMMANDS = """
import contextlib, io, json, sys
from rnncore.__main__ import main
told = []
for missing, arguments in json.loads(sys.argv[1]):
    held = {name: sys.modules.pop(name, None) for name in missing}
    sys.modules.update(dict.fromkeys(missing))  # an import is an error
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["rnncore", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main()
    except SystemExit as end:
        code = end.code
    for name, module in held.items():
        del sys.modules[name]
        sys.modules.update({} if module is None else {name: module})
    told.append([code or 0, out.getvalue(), err.getvalue()])
print(json.dumps([told, [name for name in ("torch", "onnx", "onnxscript") if name in sys.modules]]))
"""


def commands(*lines: tuple[tuple[str, ...], tuple[object, ...]]) -> tuple[list[list[str]], list[str]]:
    """Command lines in one new process, each without some packages: [exit code or message, stdout, stderr], and heavy imports."""
    done = python(COMMANDS, json.dumps([[missing, list(map(str, arguments))] for missing, arguments in lines]))
    assert (done.returncode, done.stderr) == (0, "")
    told, imported = json.loads(done.stdout)
    return told, imported


def test_commands_work_without_torch_and_do_not_import_it_where_it_is(model: Path) -> None:
    without = ("torch", "onnx", "onnx_ir", "onnxscript", "matplotlib")
    lines = [
        ("score", model, "abc"),
        ("sample", model, "--length", 5),
        ("inspect", model),
        ("plot", "surprisal", model, "bad"),
    ]
    for missing in (without, ()):
        told, imported = commands(*((missing, line) for line in lines))
        assert [(code, err) for code, _, err in told] == [(0, "")] * len(lines)
        assert all(out for _, out, _ in told) and told[3][1].startswith("bad\n")
        assert imported == []


def test_a_missing_package_names_the_extra(model: Path, tmp_path: Path) -> None:
    train = ("train", "--out", tmp_path / "m.onnx")
    expected = [
        ("typer", ("--help",), "text"),
        ("rich", ("--help",), "text"),
        ("tokenizers", ("score", model, "abc"), "text"),
        ("torch", train, "train"),
        ("onnxscript", train, "export"),
        ("onnx", train, "export"),
    ]
    told, _ = commands(*(((missing,), arguments) for missing, arguments, _ in expected))
    for (missing, _, extra), (code, out, err) in zip(expected, told, strict=True):
        assert code == 1 or str(code).startswith("error: ")
        assert out == ""
        assert f"'{missing}': pip install 'rnncore[{extra}]'" in (err or str(code))
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_completion_that_cannot_be_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/none")

    monkeypatch.setattr(sys, "argv", ["rnncore", "--install-completion"])
    monkeypatch.setattr("rnncore.cli.app.app", fail)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == "error: /proc/none: No such file or directory"


def test_the_version_needs_no_extra() -> None:
    told, _ = commands((("typer", "rich"), ("--version",)))
    assert [told[0][0], told[0][2]] == [0, ""] and re.fullmatch(r"rnncore \d+\.\d+\.\d+\n", told[0][1])


def test_the_module_runs_like_the_command_on_a_terminal_of_another_encoding(model: Path) -> None:
    """And without a home to write to, of which onnxruntime would tell on standard error."""
    command = [sys.executable, "-m", "rnncore", "score", str(model), "aé中"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "HOME": "/proc/none"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode("cp1252").splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["'a'", "'é'", r"'\u4e2d'"]


def test_a_closed_pipe_is_no_traceback(model: Path) -> None:
    text = "abc" * 30
    command = [sys.executable, "-m", "rnncore", "score", str(model), text]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1
