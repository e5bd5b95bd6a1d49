"""How many threads: what the machine allows, what models share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rnncore import runtime
from rnncore.runtime.session.threads import usable_processors
from tests.runtime.files import Spec, causal_file

MANY = 10_000


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)))
    return tmp_path


def test_without_limits_it_is_the_cpuset(cgroup: Path) -> None:
    assert usable_processors(cgroup) == MANY
    (cgroup / "cpu.max").write_text("max 100000\n")
    assert usable_processors(cgroup) == MANY
    (cgroup / "cpu.max").write_text("nonsense\n")
    assert usable_processors(cgroup) == MANY


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("100000 100000", 1), ("20000 100000", 1)])
def test_the_quota_of_version_2(cgroup: Path, quota: str, expected: int) -> None:
    (cgroup / "cpu.max").write_text(quota + "\n")
    assert usable_processors(cgroup) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", MANY), ("250000", 3)])
def test_the_quota_of_version_1(cgroup: Path, quota: str, expected: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert usable_processors(cgroup) == expected


def test_the_tightest_group_counts(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = cgroup / "services" / "ours"
    inner.mkdir(parents=True)
    (cgroup / "services" / "cpu.max").write_text("300000 100000")
    (inner / "cpu.max").write_text("max 100000")
    read = Path.read_text
    ours = Path("/proc/self/cgroup")
    monkeypatch.setattr(Path, "read_text", lambda self: "0::/services/ours\n" if self == ours else read(self))
    assert usable_processors(cgroup) == 3


def test_this_process_has_some() -> None:
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("threads", [None, "auto"])
def test_threads_by_what_is_allowed(threads: None) -> None:
    runtime.load(causal_file(Spec()), threads=threads)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "many"])
def test_wrong_numbers_are_refused(wrong: object) -> None:
    with pytest.raises(runtime.InputError, match="threads"):
        runtime.load(causal_file(Spec()), threads=wrong)  # type: ignore[arg-type]
    if wrong != "many":
        with pytest.raises(runtime.InputError, match="count"):
            runtime.share_threads(wrong)  # type: ignore[arg-type]


def test_models_share_one_pool_of_threads(tmp_path: Path) -> None:
    """In a process of its own: the pool is there for good."""
    (tmp_path / "model.onnx").write_bytes(causal_file(Spec()))
    code = textwrap.dedent("""
        import os, numpy as np
        from rnncore import runtime
        x = np.ones((1, 5, 13), "f")
        def refused(use):
            try:
                use()
            except runtime.StateError as error:
                return str(error)
            return ""
        own = runtime.load("model.onnx", threads=1)
        wanted = own.run(x)
        runtime.share_threads(3)
        runtime.share_threads(3)
        first = runtime.load("model.onnx", threads="shared")
        count = len(os.listdir("/proc/self/task"))
        models = [runtime.load("model.onnx", threads="shared") for _ in range(5)]
        assert len(os.listdir("/proc/self/task")) == count, "five models more, and no thread more"
        for model in (first, *models):
            np.testing.assert_array_equal(model.run(x), wanted)
        np.testing.assert_array_equal(own.run(x), wanted)
        assert "3 threads already" in refused(lambda: runtime.share_threads(2))
        assert "threads='shared'" in refused(lambda: runtime.load("model.onnx"))
        child = os.fork()
        if child == 0:
            uses = (lambda: first.run(x), lambda: own.run(x), lambda: runtime.load("model.onnx"), runtime.share_threads)
            os._exit(sum("forked" not in refused(use) for use in uses))
        assert os.waitpid(child, 0)[1] == 0
    """)
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "", "nothing on the terminal"
