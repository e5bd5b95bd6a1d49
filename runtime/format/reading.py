"""Bytes from a path that somebody else named: an ordinary file of bounded size, or an error at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.errors import ModelFileError, NotOnnxError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class Stamp:
    """What tells one version of a file from the next that takes its name."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """The stamp of the file at ``path``, links followed; None if there is none."""
        try:
            return cls._from(path.stat())
        except OSError:
            return None

    @classmethod
    def _from(cls, found: os.stat_result) -> Stamp:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_file(path: Path, most: int, limit: str) -> bytes:
    """All bytes of a file.

    most: of bytes; a larger file is refused before anything is read.  limit: the field of
    :class:`rnncore.runtime.Limits` that says so.

    Raises:
        NotOnnxError: there is no file but a folder, a device, a pipe or the like, or it cannot be read.
        ModelFileError: it is too large.
    """
    with _opened(path, most, limit) as (file, size):
        parts = []
        while size and (part := file.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def read_array(path: Path, most: int, limit: str) -> NDArray[np.uint8]:
    """The same as an array of bytes, which is made once, however large the file is."""
    with _opened(path, most, limit) as (file, size):
        array = np.empty(size, np.uint8)
        left = array.data
        while left and (count := file.readinto(left)):
            left = left[count:]
        return array[: size - len(left)]


def size_of(path: Path) -> int:
    """Bytes of a file; NotOnnxError if it is not there (any more) or is no ordinary file."""
    try:
        found = path.stat()
    except OSError as error:
        raise NotOnnxError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    _check_kind(path, found)
    return found.st_size


@contextmanager
def _opened(path: Path, most: int, limit: str) -> Iterator[tuple[FileIO, int]]:
    try:
        _check_kind(path, path.stat())  # to open a device may already do something
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
        with FileIO(handle, "rb") as file:
            found = os.fstat(handle)
            _check_kind(path, found)
            if found.st_size > most:
                raise ModelFileError(
                    f"{path} has {found.st_size} bytes, limits.{limit} allows {most}: if you trust it, load it with "
                    f"limits=Limits({limit}={found.st_size})"
                )
            yield file, found.st_size
    except ModelFileError:
        raise
    except FileNotFoundError:
        raise NotOnnxError(f"{path}: there is no such file") from None
    except MemoryError:
        raise ModelFileError(f"{path}: there is not enough memory to read it") from None
    except OSError as error:
        raise NotOnnxError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    except ValueError:
        raise NotOnnxError(f"{path!r} is no path of a file") from None


def _check_kind(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise NotOnnxError(f"{path}: this is {kind}, expected an ONNX file")
