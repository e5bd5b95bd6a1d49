"""Files that take the place of others: what is replaced, what stays, what is removed, and whose it is."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from pathlib import Path

import pytest

from rnncore.runtime.errors import InputError
from rnncore.runtime.format.atomic import replacing, replacing_with_companions, target_of
from rnncore.runtime.format.workplace import only_one, remove_leftovers, workplace

BELONGS = re.compile(r"m\.[0-9a-f]{4}\.data")
TOKEN = "0123456789abcdef"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_place_of_a_file_is_told_from_what_no_file_may_replace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    assert target_of(tmp_path / "new") == tmp_path / "new" and target_of(str(tmp_path / "file")) == tmp_path / "file"
    assert target_of(tmp_path / "link") == (tmp_path / "file").resolve()
    for path, message in (
        (tmp_path, rf"^{tmp_path} is a folder, expected the path of a file to write: put a name behind it$"),
        (tmp_path / "pipe", "pipe is a device, a pipe or a socket, which is never replaced: name a file$"),
        (Path(os.devnull), "null is a device, a pipe or a socket, which is never replaced: name a file$"),
        (tmp_path / "circle", "circle is a link that leads in a circle, which is never replaced: name a file$"),
        (tmp_path / "file" / "m", "m lies in a file, not in a folder: name another place$"),
        (tmp_path / ("m" * 300), "m cannot be written: File name too long$"),
        (tmp_path / "a\0b", r"b'\) is no path of a file$"),
        (7.5, r"^7\.5 is no path of a file$"),
    ):
        with pytest.raises(InputError, match=message):
            target_of(path)  # type: ignore[arg-type]


def test_what_is_written_takes_the_place_and_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert temporary.name == "m" and not path.exists() and mode(temporary.parent) == 0o700
        (workplace_,) = names(tmp_path)
        assert re.fullmatch(r"\.m\.[0-9a-f]{16}\.part", workplace_)
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("two")
        raise ZeroDivisionError
    assert path.read_text() == "one" and names(tmp_path) == ["m"]
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "m"):
        pass


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o444, 0o755])
def test_modes_stay_and_private_files_are_their_owners(kept: int, tmp_path: Path) -> None:
    path, umask = tmp_path / "m", os.umask(0o022)
    try:
        with replacing(path) as temporary:
            temporary.touch()
        assert mode(path) == 0o644
        path.chmod(kept)
        with replacing(path) as temporary:
            temporary.touch()
        assert mode(path) == kept
        with replacing(path, private=True) as temporary:
            temporary.touch()
        assert mode(path) == 0o600
    finally:
        os.umask(umask)


def written(path: Path, *companions: str) -> None:
    with replacing_with_companions(path, BELONGS) as new:
        assert new.path.name == path.name and new.path.parent.parent == path.parent and new.needs == set()
        new.path.write_text(f"needs {companions}")
        for name in companions:
            new.path.with_name(name).write_text(name)
        new.needs.update(companions)


def test_companions_come_with_the_file_and_those_of_before_go(tmp_path: Path) -> None:
    path, others = tmp_path / "m", ["m.data", "n.00ab.data", "m.00ab.data.old"]
    for other in others:
        (tmp_path / other).touch()
    (tmp_path / "m.ffff.data").mkdir()  # named like one, and no file
    written(path, "m.00aa.data", "m.00ab.data")
    assert names(tmp_path) == sorted(["m", "m.00aa.data", "m.00ab.data", "m.ffff.data", *others])
    path.chmod(0o640)
    (tmp_path / "m.00ab.data").chmod(0o400)
    written(path, "m.00ab.data", "m.00ac.data")
    assert names(tmp_path) == sorted(["m", "m.00ab.data", "m.00ac.data", "m.ffff.data", *others])
    assert (mode(path), mode(tmp_path / "m.00ab.data"), mode(tmp_path / "m.00ac.data")) == (0o640, 0o400, 0o640)
    written(path)
    assert names(tmp_path) == sorted(["m", "m.ffff.data", *others]) and path.read_text() == "needs ()"


def test_a_companion_that_is_missing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    written(path, "m.00aa.data")
    with pytest.raises(FileNotFoundError), replacing_with_companions(path, BELONGS) as new:
        new.path.touch()
        new.needs.add("m.00bb.data")
    assert names(tmp_path) == ["m", "m.00aa.data"] and path.read_text() == "needs ('m.00aa.data',)"


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network drives."""

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("rnncore.runtime.format.workplace.fcntl.flock", unknown)
    with only_one(tmp_path, wait_s=0), replacing(tmp_path / "m") as new:
        new.write_text("new")
    assert (tmp_path / "m").read_text() == "new" and names(tmp_path) == ["m"]


def abandoned(folder: Path, name: str) -> Path:
    made = folder / f".{name}.{TOKEN}.part"
    made.mkdir()
    (made / ".lock-of-rnncore").touch()
    (made / "half").mkdir()
    (made / "half" / "written").touch()
    return made


@pytest.mark.parametrize("name", ["m", "m.onnx", "m" * 200, "m" * 201, "ü" * 120])
def test_who_writes_a_file_removes_what_others_left_of_it_and_no_more(name: str, tmp_path: Path) -> None:
    """A folder's name repeats that of the file as long as it can."""
    target = tmp_path / name
    with workplace(target) as running:
        stem = running.name.removeprefix(".").rpartition(".part")[0].rpartition(".")[0]
        assert stem == name or (len(name.encode()) > 200 and len(stem) == 32)
        left, other = abandoned(tmp_path, stem), abandoned(tmp_path, f"{stem}x")
        empty = tmp_path / f".{stem}.{TOKEN[::-1]}.part"
        empty.mkdir()  # killed before it had a lock
        not_a_folder = tmp_path / f".{stem}.{'0' * 16}.part"
        not_a_folder.touch()
        remove_leftovers(target)
        assert running.exists() and other.exists() and not_a_folder.exists()
        assert not left.exists() and not empty.exists()
    assert not running.exists() and names(tmp_path) == sorted([other.name, not_a_folder.name])


def test_the_folder_of_somebody_without_a_lock_who_has_begun_is_not_removed(tmp_path: Path) -> None:
    begun = tmp_path / f".m.{TOKEN}.part"
    begun.mkdir()
    (begun / "m").touch()
    remove_leftovers(tmp_path / "m")
    assert names(begun) == ["m"]
    (begun / "m").unlink()
    elsewhere = tmp_path / "elsewhere"
    (begun / ".lock-of-rnncore").symlink_to(elsewhere)
    remove_leftovers(tmp_path / "m")
    assert begun.exists() and not elsewhere.exists()
    elsewhere.touch()
    remove_leftovers(tmp_path / "m")
    assert begun.exists() and elsewhere.exists(), "no link is followed"


@pytest.mark.parametrize(("age_h", "gone"), [(0, False), (23.9, False), (24.1, True), (1000, True)])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_leftovers_of_before_there_were_locks_go_after_a_day(
    kind: str, age_h: float, gone: bool, tmp_path: Path
) -> None:
    old = tmp_path / ".m.ab12_xyz.part"
    other = tmp_path / ".m.ab12_xy.part"
    for path in (old, other):
        if kind == "folder":
            path.mkdir()
            (path / "m").touch()
        elif kind == "file":
            path.touch()
        else:
            path.symlink_to("nowhere")
        then = time.time() - age_h * 3600
        os.utime(path, (then, then), follow_symlinks=False)
    remove_leftovers(tmp_path / "m")
    assert other.is_symlink() or other.exists()
    assert (old.is_symlink() or old.exists()) is not (gone and kind != "link")


def test_one_lock_of_a_folder_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    begun = time.monotonic()
    with (
        only_one(tmp_path),
        pytest.raises(TimeoutError, match=rf"held the lock of the folder {tmp_path} for 0\.05 s$"),
        only_one(tmp_path, wait_s=0.05),
    ):
        pytest.fail("both hold it")
    assert time.monotonic() - begun >= 0.05
    with only_one(tmp_path), only_one(tmp_path.parent, wait_s=0):
        pass
    with pytest.raises(ZeroDivisionError), only_one(tmp_path):
        raise ZeroDivisionError
    with only_one(tmp_path, wait_s=0):
        pass
