"""Every example runs by the command in its first line, here with settings that take seconds."""

from __future__ import annotations

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

from tests.language_models import model_file, runtime_model
from tests.tolerances import fixed

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "model.onnx"
    path.write_bytes(model_file())
    return path


def run(example: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_first_line_is_the_command(example: Path) -> None:
    first = example.read_text(encoding="utf-8").splitlines()[0]
    found = re.search(r": (python \S+\.py.*?)(?:\"\"\")?$", first)
    assert found, first
    python, script, *_ = shlex.split(found[1])
    assert (python, ROOT / script) == ("python", example)


def test_the_small_model_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "small.onnx"
    assert run("small_model.py", path).strip() == str(path)
    made = path.stat().st_mtime_ns
    assert run("small_model.py", path).strip() == str(path)
    assert path.stat().st_mtime_ns == made
    out = run("multiprocess_workers.py", "--model", path, "--workers", 2, "--utterances", 8)
    assert "8 of 8 answers are those of this process" in out


def test_the_load_generator_checks_and_plots(tmp_path: Path) -> None:
    small, plot = tmp_path / "small.onnx", tmp_path / "plots" / "latency.png"
    run("small_model.py", small)
    out = run("load_generator.py", "--model", small, "--clients", 1, 3, "--seconds", 0.3, "--out", plot)
    assert re.search(r"   1 clients: +\d+ answers, all right; p50 [\d.]+, p90 [\d.]+, p99 [\d.]+ ms", out)
    assert re.search(r"   3 clients: +\d+ answers, all right", out)
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def service(model: Path) -> Iterator[str]:
    """Address of a running service, which ends by itself should the test be killed."""
    command = [sys.executable, str(ROOT / "examples" / "token_service.py"), "--model", str(model), "--seconds", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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
    out = run("token_service.py", "--model", model, "--seconds", 1)
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/score\n", out)
    assert time.monotonic() - start < 60


def test_a_host_without_rnncore_writes_texts(model: Path, tmp_path: Path) -> None:
    out = run(
        "generate_in_one_call.py", "--model", model, "--generator", tmp_path / "g.onnx", "--prefix", "code", "", "ab a"
    )
    assert re.search(r"^'code' -> '.*' \(log-probability -?\d+\.\d\)$", out, re.MULTILINE)
    assert re.search(r"\d+ tokens in \d+ steps of one call", out)
