"""The Dockerfile's commands, in order, in a bare environment: its last line serves, without PyTorch.

No Docker is needed; what a line does besides (users, ports, the base image) is not tested.  ``scripts/ecosystem`` runs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest
import websockets

from tests import language_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("/source", "/wheels", "/app")


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


class Box:
    """A folder in the place of the image's root, and an environment in the place of its Python."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.at = self.root
        venv.create(folder / "venv", with_pip=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environment["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def place(self, name: str) -> Path:
        return self.root / name[1:] if name.startswith("/") else self.at / name

    def here(self, command: str) -> str:
        return re.sub(rf"(?<![\w/])({'|'.join(FOLDERS)})\b", lambda found: str(self.place(found[1])), command)

    def copy(self, sources: list[str], target: str) -> None:
        into = self.place(target)
        stage = sources[0].startswith("--from=")
        for name in sources[stage:]:
            source = self.place(name) if stage else ROOT / name
            if source == into:  # all stages share one root
                continue
            if source.is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)

    def run(self, command: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", self.here(command)], cwd=self.at, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    "RNNCORE_ECOSYSTEM" not in os.environ, reason="installs from the network: scripts/ecosystem runs it"
)
def test_what_the_image_would_do_serves(tmp_path: Path) -> None:
    box = Box(tmp_path)
    final: list[str] = []
    for word, rest in instructions():
        if word == "WORKDIR":
            box.at = box.place(rest)
            box.at.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *sources, target = rest.split()
            box.copy(sources, target)
        elif word == "RUN" and not rest.startswith("useradd"):
            box.run(rest)
        elif word == "ENV":
            box.environment |= dict(pair.split("=") for pair in rest.split())
        elif word == "CMD":
            final = json.loads(rest)
        else:
            assert word in ("FROM", "RUN", "USER", "EXPOSE", "HEALTHCHECK"), word
    box.run("! python -c 'import torch' 2>/dev/null")
    (box.at / "model.onnx").write_bytes(language_models.model_file())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    final[final.index("--port") + 1] = str(port)
    service = subprocess.Popen(
        [shutil.which(final[0], path=box.environment["PATH"]) or "", *final[1:]], cwd=box.at, env=box.environment
    )
    try:
        check = dict(instructions())["HEALTHCHECK"].removeprefix("CMD ")
        _healthy(json.loads(check), port, service)
        asyncio.run(_scores(port))
    finally:
        service.terminate()
        assert service.wait(60) in (0, -15)


def test_what_is_copied_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    assert {name for names in copied for name in names} == kept


def _healthy(check: list[str], port: int, service: subprocess.Popen[bytes]) -> None:
    command = [sys.executable, *(part.replace("8000", str(port)) for part in check[1:])]
    for _ in range(240):
        if subprocess.run(command, capture_output=True).returncode == 0:
            break
        assert service.poll() is None, "the service has ended"
        time.sleep(0.5)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
        assert json.loads(answer.read()) == {"ok": True, "clients": 0}


async def _scores(port: int) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}/score") as client:
        await client.send("abc")
        found = json.loads(await client.recv())["log_probs"]
    assert len(found) == 3 and all(value < 0 for value in found)
