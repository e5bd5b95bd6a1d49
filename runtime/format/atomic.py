"""Files that are either the old one or the whole new one, whenever the process or the machine stops."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; afterwards it takes its place, or is removed if the block raised.

    A process that is killed may leave a file ``.NAME.….part`` beside it, which nothing reads.

    Args:
        path: what shall be replaced; its folder must exist.
        private: readable by its owner only; otherwise by others too, as far as the umask allows.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        if not private:
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
        yield temporary
        _put(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


@contextmanager
def replacing_both(path: str | os.PathLike[str], companion: str) -> Iterator[Path]:
    """As :func:`replacing`, for a file and another one named ``companion``, to be written beside the path that is yielded.

    The companion takes its place first: a process that is killed between the two leaves the old file with a companion that
    is not its own, which whoever reads them has to notice.
    """
    target = Path(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        yield folder / target.name
        for name in (companion, target.name):
            _put(folder / name, target.with_name(name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sync_folder(target.parent)


def _put(temporary: Path, target: Path) -> None:
    with temporary.open("rb+") as file:  # on disk before it has a name, or a power cut leaves an empty file
        os.fsync(file.fileno())
    temporary.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
