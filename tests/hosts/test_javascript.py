"""The same files give the same answers in Python, in Node and in a browser without a screen."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from rnncore import runtime
from tests.hosts.files import write_files
from tests.tolerances import bound

JAVASCRIPT = Path(__file__).parents[2] / "hosts" / "javascript"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_S = 250

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # ten exports, beside whatever else the machine does


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    kinds = write_files(folder)
    assert len(kinds) == 10
    assert {kind for own in kinds.values() for kind in own} == {"whole", "ragged", "stream"}
    for name in kinds:
        assert runtime.verify(folder / name).passed
    return folder


@pytest.fixture(scope="module")
def modules() -> Path:
    """What the host needs from npm, beside its package.json; kept between runs, and ignored by git."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node or no npm on this machine")
    found = JAVASCRIPT / "node_modules"
    if not (found / "onnxruntime-web" / "package.json").exists():
        command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=JAVASCRIPT, capture_output=True, text=True, timeout=200)
        if done.returncode:
            pytest.skip(f"npm cannot install onnxruntime-web here: {done.stderr[-300:]}")
    return found


def expect_all_passed(results: list[dict[str, Any]]) -> None:
    assert len(results) >= 33
    failed = [f"{one['name']}: {one['note']}" for one in results if not one["passed"]]
    assert not failed, "\n".join(failed)


def test_every_answer_in_node(files: Path, modules: Path) -> None:
    done = subprocess.run(
        ["node", "test/node.js", str(files)], cwd=JAVASCRIPT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    expect_all_passed(json.loads(done.stdout))


def test_python_goes_on_with_a_stream_that_javascript_saved(files: Path, modules: Path) -> None:
    done = subprocess.run(
        ["node", "test/save.js", str(files)], cwd=JAVASCRIPT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    model = runtime.load(files / "tagger.onnx")
    with model.stream() as whole, model.restore(base64.b64decode(done.stdout)) as stream:
        whole.push([3, 1, 4])
        assert stream.steps == whole.steps == 3
        np.testing.assert_allclose(stream.push([1, 5]), whole.push([1, 5]), atol=bound("float32", "onnx", length=5))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the module and the files; takes the result."""

    extensions_map: ClassVar[dict[str, str]] = {  # type: ignore[misc]
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".html": "text/html",
        "": "application/octet-stream",
    }

    def __init__(self, *args: Any, folders: dict[str, Path], results: queue.Queue[Any]) -> None:
        self.folders, self.results = folders, results
        super().__init__(*args)

    def translate_path(self, path: str) -> str:
        _, first, *rest = path.split("?")[0].split("/")
        return str(self.folders.get(first, Path("/nowhere")).joinpath(*rest))

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def page(files: Path) -> Iterator[tuple[str, queue.Queue[Any]]]:
    results: queue.Queue[Any] = queue.Queue()
    handler = functools.partial(Handler, folders={"javascript": JAVASCRIPT, "files": files}, results=results)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}/javascript/test/page.html", results
        server.shutdown()
        thread.join()


def test_every_answer_in_a_browser(page: tuple[str, queue.Queue[Any]], modules: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    address, results = page
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *flags, f"--user-data-dir={profile}", address]
        with subprocess.Popen(
            [*command, "--remote-debugging-port=0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as browser:
            try:
                expect_all_passed(results.get(timeout=WAIT_S))
            finally:
                os.killpg(browser.pid, 9)
