"""The same eleven files, and six of others, give the same answers in Python, Node, a browser without a screen, and C++."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rnncore import runtime
from tests.hosts.files import write_files
from tests.hosts.programs import (
    JAVASCRIPT,
    Outcome,
    compile_checks,
    in_browser,
    in_cpp,
    in_node,
    install_modules,
)
from tests.tolerances import bound, fixed

HOSTS = {"node": 51, "browser": 52, "C++": 32}
"""How many checks each makes at least.  Node runs over the native onnxruntime-node, the browser over onnxruntime-web."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # eleven exports, beside whatever else the machine does


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """All hosts at once; what they need is fetched and built while the files are written."""
    with ThreadPoolExecutor(4) as threads:
        installing = threads.submit(install_modules)
        compiling = threads.submit(compile_checks, tmp_path_factory.mktemp("build"))
        files: Path = request.getfixturevalue("files")
        missing, (program, no_program) = installing.result(), compiling.result()
        running = {
            "node": threads.submit(in_node, files, missing),
            "browser": threads.submit(in_browser, files, missing),
            "C++": threads.submit(in_cpp, program, files, no_program),
        }
        return {name: one.result() for name, one in running.items()}


@pytest.mark.parametrize("host", HOSTS)
def test_every_answer(outcomes: dict[str, Outcome], host: str) -> None:
    outcome = outcomes[host]
    if outcome.missing:
        pytest.skip(outcome.missing)
    failed = [f"{one['name']}: {one['note']}" for one in outcome.results if not one["passed"]]
    assert not failed, "\n".join(failed)
    assert len(outcome.results) >= HOSTS[host]


@pytest.mark.parametrize("host", HOSTS)
def test_python_goes_on_with_a_stream_that_a_host_saved(outcomes: dict[str, Outcome], files: Path, host: str) -> None:
    if outcomes[host].missing:
        pytest.skip(outcomes[host].missing)
    saved = json.loads((files / "expected.json").read_text())["saved"]
    assert outcomes[host].snapshots.keys() == saved.keys()
    for name, snapshot in outcomes[host].snapshots.items():
        model = runtime.load(files / name)
        with model.stream() as whole, model.restore(snapshot) as stream:
            whole.push(saved[name]["first"])
            assert stream.steps == whole.steps == len(saved[name]["first"])
            then = saved[name]["then"]
            tolerance = fixed("float16") if name == "layer_norm.onnx" else bound("float32", "onnx", length=7)
            np.testing.assert_allclose(stream.push(then), whole.push(then), atol=tolerance, err_msg=name)


def test_python_gives_the_golden_answers_of_eleven_files(files: Path) -> None:
    reports = {path.name: runtime.verify(path) for path in sorted(files.glob("*.onnx"))}
    assert len(reports) == 11 and all(report.passed for report in reports.values())
    assert {case.kind for report in reports.values() for case in report.cases} == {"whole", "ragged", "stream"}


def test_the_types_of_the_javascript_host_fit_a_program_that_uses_all_of_it() -> None:
    missing = install_modules()
    if missing:
        pytest.skip(missing)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    done = subprocess.run(
        ["node_modules/.bin/tsc", *options, "test/types.ts"],
        cwd=JAVASCRIPT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout
