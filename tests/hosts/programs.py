"""The same checks in Node, in a browser without a screen and in C++: one process each, all at once."""

from __future__ import annotations

import base64
import fcntl
import functools
import http.server
import importlib.metadata
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

HOSTS = Path(__file__).parents[2] / "hosts"
JAVASCRIPT, CPP = HOSTS / "javascript", HOSTS / "cpp"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
WAIT_S = 250


@dataclass
class Outcome:
    """What one host said: its checks as {name, passed, note}, saved streams by file, or why it cannot run here."""

    results: list[dict[str, Any]] = field(default_factory=list)
    snapshots: dict[str, bytes] = field(default_factory=dict)
    missing: str = ""


def install_modules() -> str:
    """What the JavaScript host needs from npm, beside its package.json, kept between runs; returns why there is none."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no node or no npm on this machine"
    packages = ("onnxruntime-web", "onnxruntime-node", "typescript")
    with open(JAVASCRIPT / "package.json") as one_at_a_time:  # workers of one run share the folder
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        return _installed(packages)


def _installed(packages: tuple[str, ...]) -> str:
    if all((JAVASCRIPT / "node_modules" / name / "package.json").exists() for name in packages):
        return ""
    command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=JAVASCRIPT, capture_output=True, text=True, timeout=WAIT_S)
    return f"npm cannot install onnxruntime here: {done.stderr[-300:]}" if done.returncode else ""


def in_node(files: Path, missing: str) -> Outcome:
    """Over onnxruntime-node."""
    if missing:
        return Outcome(missing=missing)
    done = subprocess.run(
        ["node", "test/node.js", "onnxruntime-node", str(files)],
        cwd=JAVASCRIPT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    if done.returncode:
        return Outcome([{"name": "node", "passed": False, "note": done.stderr[-2000:]}])
    return _read(json.loads(done.stdout))


def in_browser(files: Path, missing: str) -> Outcome:
    """In Chromium, from a page served on localhost."""
    if missing or CHROMIUM is None:
        return Outcome(missing=missing or "there is no chromium on this machine")
    answers: queue.Queue[Any] = queue.Queue()
    with (
        Serving({"javascript": JAVASCRIPT, "files": files}, answers) as address,
        Browsing(address + "/javascript/test/page.html"),
    ):
        return _read(answers.get(timeout=WAIT_S))


def compile_checks(folder: Path) -> tuple[Path | None, str]:
    """The program of the C++ host's checks, or why there is none; a warning is an error."""
    if COMPILER is None:
        return None, "there is no C++ compiler on this machine"
    if not onnxruntime_library():
        return None, "the package onnxruntime has no shared library on this machine"
    program = folder / "check"
    command = [COMPILER, "-std=c++17", "-O0", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{CPP / 'include'}"]
    done = subprocess.run(
        [*command, str(CPP / "test" / "check.cpp"), "-o", str(program), "-ldl"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return program, ""


def in_cpp(program: Path | None, files: Path, missing: str) -> Outcome:
    """Over the shared library of Python's package."""
    if program is None:
        return Outcome(missing=missing)
    command = [str(program), onnxruntime_library(), str(files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    outcome = Outcome()
    for line in done.stdout.splitlines():
        kind, _, rest = line.partition(" ")
        name, _, note = rest.partition(": ")
        if kind == "snapshot":
            outcome.snapshots[name] = bytes.fromhex(note)
        else:
            outcome.results.append({"name": name, "passed": kind == "ok", "note": note})
    if not outcome.snapshots:
        outcome.results.append(
            {"name": "the program", "passed": False, "note": f"exit {done.returncode}: {done.stderr}"}
        )
    return outcome


def onnxruntime_library() -> str:
    """The shared library that Python's onnxruntime brings; empty if it has none."""
    files = importlib.metadata.files("onnxruntime") or []
    names = ("libonnxruntime.so.", "libonnxruntime.dylib", "libonnxruntime.1", "onnxruntime.dll")
    return next((str(file.locate()) for file in files if file.name.startswith(names)), "")


def _read(answer: dict[str, Any]) -> Outcome:
    return Outcome(answer["results"], {name: base64.b64decode(one) for name, one in answer["snapshots"].items()})


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves folders by the first part of the path; takes what a page posts."""

    extensions_map: ClassVar[dict[str, str]] = {  # type: ignore[misc]
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".html": "text/html",
        ".css": "text/css",
        "": "application/octet-stream",
    }

    def __init__(self, *args: Any, folders: dict[str, Path], answers: queue.Queue[Any]) -> None:
        self.folders, self.answers = folders, answers
        super().__init__(*args)

    def translate_path(self, path: str) -> str:
        _, first, *rest = path.split("?")[0].split("/")
        return str(self.folders.get(first, Path("/nowhere")).joinpath(*rest))

    def do_POST(self) -> None:
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


class Serving:
    """A server on localhost; gives its address."""

    def __init__(self, folders: dict[str, Path], answers: queue.Queue[Any]) -> None:
        handler = functools.partial(_Handler, folders=folders, answers=answers)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://localhost:{self.server.server_address[1]}"

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Browsing:
    """Chromium without a screen at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
        )
        options = (f"--user-data-dir={self.profile.name}", "--remote-debugging-port=0")
        self.browser = subprocess.Popen(
            [str(CHROMIUM), *flags, *options, self.address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __exit__(self, *exception: object) -> None:
        os.killpg(self.browser.pid, signal.SIGKILL)
        self.browser.wait()
        self.profile.cleanup()
