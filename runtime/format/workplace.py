"""A folder to write a file in before it takes its place, told apart from what a killed process left behind.

Whoever writes holds a lock on a file in the folder, which the system lets go when the process ends, however it ends: a
folder whose lock can be had belongs to nobody and is removed by the next who writes the same file.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this system: nothing can be told to be left over, so nothing is removed
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock-of-rnncore"
_NO_LOCK = -1
_TOKEN = "[0-9a-f]{16}"
_LONGEST_NAME = 200  # bytes of the name of a file that its folder's name repeats; a name ends at 255
_OLD_S = 24 * 3600
"""Files of a form that nobody locks are left over when they are so old."""


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``, removed afterwards; nobody but this user can look into it.

    Raises OSError if the folder of ``target`` does not exist or cannot be written.
    """
    while True:
        folder = target.with_name(f".{_stem(target)}.{secrets.token_hex(8)}.part")
        folder.mkdir(0o700)
        lock = _locked(folder)
        if lock is not None:
            break
    try:
        yield folder
    finally:
        _remove(folder)
        if lock != _NO_LOCK:
            os.close(lock)


def remove_leftovers(target: Path) -> None:
    """Remove what processes that were killed while they wrote ``target`` have left beside it; never what one is writing."""
    mine = re.compile(rf"\.{re.escape(_stem(target))}\.{_TOKEN}\.part")
    old = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.part")  # as written before there were locks
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if mine.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(Path(entry.path))
            elif old.fullmatch(entry.name):
                _remove_if_old(Path(entry.path))


@contextmanager
def only_one(folder: Path, *, wait_s: float = 60.0) -> Iterator[None]:
    """Hold the one lock of ``folder``, under which files that belong together are exchanged there.

    Raises TimeoutError if somebody else holds it for ``wait_s``.  A system or file system without locks has no protection.
    """
    if fcntl is None:  # such systems do not open folders either
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + wait_s
        while not _try_lock(handle):
            if time.monotonic() > until:
                raise TimeoutError(f"another program has held the lock of the folder {folder} for {wait_s:g} s")
            time.sleep(0.005)
        yield
    finally:
        os.close(handle)


def _stem(target: Path) -> str:
    """What the names of all workplaces of ``target`` have in common."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()[:32]


def _locked(folder: Path) -> int | None:
    """The open, locked file of a workplace; None if somebody who cleans up took the new folder for an abandoned one."""
    if fcntl is None:  # an open file could not be removed there
        return _NO_LOCK
    path = folder / _LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    with suppress(OSError):
        if _try_lock(handle) and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    os.close(handle)
    return None


def _try_lock(handle: int) -> bool:
    """Lock an open file, without waiting; True as well where the file system knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_if_abandoned(folder: Path) -> None:
    if fcntl is None:
        return
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:  # before the lock was made or after it was removed, and then the folder is empty
        with suppress(OSError):
            folder.rmdir()
        return
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    except OSError:  # in use, or nobody can tell
        pass
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a workplace, its lock last: while anything else is in it, whoever is killed here leaves it to the next."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink()
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _remove_if_old(path: Path) -> None:
    with suppress(OSError):
        found = path.lstat()
        if time.time() - found.st_mtime < _OLD_S:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(found.st_mode):
            path.unlink()
