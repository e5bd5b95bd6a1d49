"""What other systems lack, taken away on this one: locks, open folders, flags of open, cgroups.  Nothing here was run on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rnncore.runtime import isolation
from rnncore.runtime.format import workplace
from rnncore.runtime.format.atomic import replacing
from rnncore.runtime.session.cpu_features import has_avx512
from rnncore.runtime.session.threads import usable_processors


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fcntl, no flags of POSIX, folders that cannot be opened, open files that cannot be removed."""
    monkeypatch.setattr(workplace, "fcntl", None)
    for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"):
        monkeypatch.delattr(os, flag)
    monkeypatch.delattr(os, "chown")
    monkeypatch.delattr(os, "sched_getaffinity")
    real, opened = os.open, set()

    def open_file(path: Any, *args: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        handle = real(path, *args, **options)
        opened.add(str(path))
        return handle

    unlink = Path.unlink

    def remove(path: Path, missing_ok: bool = False) -> None:
        if str(path) in opened:
            raise PermissionError(13, "it is open", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(Path, "unlink", remove)


def test_a_file_is_replaced_whole_and_nothing_is_left_behind(windows: None, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    for content in (b"first", b"second"):
        with replacing(target) as temporary:
            temporary.write_bytes(content)
        assert target.read_bytes() == content
    with pytest.raises(RuntimeError, match="half way"), replacing(target) as temporary:
        temporary.write_bytes(b"third")
        raise RuntimeError("half way")
    with workplace.only_one(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"second"


def test_processors_are_counted_without_cgroups_and_flags(windows: None, tmp_path: Path) -> None:
    assert 1 <= usable_processors(tmp_path / "none") <= (os.cpu_count() or 1)
    assert has_avx512(tmp_path / "none") is False


@pytest.mark.parametrize("error", [ValueError("current limit exceeds maximum limit"), OSError("no")])
def test_a_system_that_bounds_no_memory_is_told_from_one_that_must(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    def refuse(*args: Any) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr("sys.platform", "darwin")
    isolation._bound_memory(1 << 30)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(type(error)):
        isolation._bound_memory(1 << 30)
