"""Every example runs by the command in its first line, here with settings that take seconds."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.examples.conftest import EXAMPLES, Run, command
from tests.language_models import model_file, runtime_model
from tests.tolerances import fixed

ROOT = EXAMPLES.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "model.onnx"
    path.write_bytes(model_file())
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, as the examples make it."""
    path = tmp_path_factory.mktemp("small") / "new" / "small.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        made: Path = importlib.import_module("small_model").small_model(path)
    return made


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_first_line_is_the_command(example: Path) -> None:
    first = example.read_text(encoding="utf-8").splitlines()[0]
    found = re.search(r": (python \S+\.py.*?)(?:\"\"\")?$", first)
    assert found, first
    python, script, *_ = shlex.split(found[1])
    assert (python, ROOT / script) == ("python", example)


def test_the_small_model_is_made_once(small: Path) -> None:
    made = small.stat().st_mtime_ns
    assert command("small_model.py", small).strip() == str(small)
    assert small.stat().st_mtime_ns == made
    out = command("multiprocess_workers.py", "--model", small, "--workers", 2, "--utterances", 8)
    assert "8 of 8 answers are those of this process" in out


def test_the_load_generator_checks_and_plots(main: Run, small: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plots" / "latency.png"
    out = main("load_generator", "--model", small, "--clients", 1, 3, "--seconds", 0.3, "--out", plot)
    assert re.search(r"   1 clients: +\d+ answers, all right; p50 [\d.]+, p90 [\d.]+, p99 [\d.]+ ms", out)
    assert re.search(r"   3 clients: +\d+ answers, all right", out)
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def service(model: Path) -> Iterator[str]:
    """Address of a running service, which ends by itself should the test be killed."""
    line = [sys.executable, str(EXAMPLES / "token_service.py"), "--model", str(model), "--seconds", "100"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def test_the_service_keeps_clients_apart_and_survives_their_mistakes(service: str) -> None:
    expected = [score.log_prob for score in runtime_model().token_scores("abcde")]
    with connect(service) as one, connect(service) as two:

        def ask(client: object, text: str) -> dict[str, object]:
            client.send(text)  # type: ignore[attr-defined]
            return json.loads(client.recv(timeout=30))  # type: ignore[attr-defined, no-any-return]

        assert ask(one, "ab")["log_probs"] == pytest.approx(expected[:2], abs=fixed("float32 long"))
        assert ask(two, "a")["log_probs"] == pytest.approx(expected[:1], abs=fixed("float32 long"))
        assert "'z'" in str(ask(one, "cz")["error"])
        assert ask(one, "") == {"log_probs": []}
        assert ask(one, "cde")["log_probs"] == pytest.approx(expected[2:], abs=fixed("float32 long"))
        assert ask(two, "bcde")["log_probs"] == pytest.approx(expected[1:], abs=fixed("float32 long"))
        one.send("a" * 5000)  # more than the service takes
        with pytest.raises(ConnectionClosed):
            one.recv(timeout=30)
        assert len(ask(two, "a")["log_probs"]) == 1  # type: ignore[arg-type]


def test_the_service_stops_by_itself(model: Path) -> None:
    start = time.monotonic()
    out = command("token_service.py", "--model", model, "--seconds", 1)
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/score\n", out)
    assert time.monotonic() - start < 60


def test_a_host_without_rnncore_writes_texts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host is a process of its own, which has neither rnncore nor torch; what it would start first runs here."""
    generator = tmp_path / "g.onnx"
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["-c", str(model), str(generator)])
    exec(importlib.import_module("generate_in_one_call").MAKE, {})
    assert "generates in one call" in capsys.readouterr().out
    out = command(
        "generate_in_one_call.py", "--model", "none", "--generator", generator, "--prefix", "code", "", "ab a"
    )
    assert re.search(r"^'code' -> '.*' \(log-probability -?\d+\.\d\)$", out, re.MULTILINE)
    assert re.search(r"\d+ tokens in \d+ steps of one call", out)
