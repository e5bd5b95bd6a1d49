"""Files that are either the old one or the whole new one, whenever the process or the machine stops."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rnncore.runtime.errors import InputError
from rnncore.runtime.format.workplace import only_one, remove_leftovers, workplace


def target_of(path: str | os.PathLike[str]) -> Path:
    """The file that shall be written: ``path``, or what it leads to if it is a link.

    Raises InputError if there is something that no file may replace: a folder, a device, a pipe, a socket, a link that
    leads in a circle.
    """
    try:
        target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
        found = target.lstat()
    except FileNotFoundError:
        return target
    except NotADirectoryError:
        raise InputError(f"{path} lies in a file, not in a folder: name another place") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    except (TypeError, ValueError):
        raise InputError(f"{path!r} is no path of a file") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path} is a folder, expected the path of a file to write: put a name behind it")
    if not stat.S_ISREG(found.st_mode):
        what = "a link that leads in a circle" if stat.S_ISLNK(found.st_mode) else "a device, a pipe or a socket"
        raise InputError(f"{path} is {what}, which is never replaced: name a file")
    return target


@contextmanager
def replacing(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path, of the same name; afterwards it takes the place of ``path``, or is removed if the block raised.

    The new file has the mode of the old one.  A process that is killed may leave a folder ``.NAME.….part`` behind, which
    nothing reads and the next who writes the same file removes.

    Args:
        path: what shall be replaced; its folder must exist.  If it is a link, the file it leads to is replaced.
        private: readable by its owner only; otherwise a new file is so by others too, as far as the umask allows.

    Raises:
        InputError: there is no file at ``path`` but a folder, a device or the like.
        OSError: the folder does not exist or cannot be written.
    """
    target = target_of(path)
    if not private:
        remove_leftovers(target)
    with workplace(target) as folder:
        yield folder / target.name
        _put(folder / target.name, target, private=private)
    _sync_folder(target.parent)


@dataclass
class Replacement:
    """A file that is being written at ``path``, and the names of the files beside it that it cannot do without."""

    path: Path
    needs: set[str] = field(default_factory=set)


@contextmanager
def replacing_with_companions(path: str | os.PathLike[str], belongs: re.Pattern[str]) -> Iterator[Replacement]:
    """As :func:`replacing`, for a file that needs others beside it, whose names hold a hash of what is in them.

    What the new file needs takes its place first, then the file itself; then what only older ones needed is removed.  A
    reader, a process that is killed, and another one that writes the same file at the same time meet a whole set at any
    moment, though a reader who is slow may have to read the file once more.

    Args:
        path: what shall be replaced, as in :func:`replacing`.
        belongs: the names that such a file, of this one or of an older one, may have beside ``path``.

    Yields:
        Where to write; ``needs`` is to be filled, and what it names written beside ``path``, before the block ends.
    """
    target = target_of(path)
    remove_leftovers(target)
    with workplace(target) as folder:
        new = Replacement(folder / target.name)
        yield new
        with only_one(target.parent):
            for name in sorted(new.needs):
                _put(folder / name, target.with_name(name), like=target)
            _put(folder / target.name, target)
            _sync_folder(target.parent)
            _remove_others(target.parent, new.needs, belongs)
    _sync_folder(target.parent)


def _remove_others(folder: Path, needed: set[str], belongs: re.Pattern[str]) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in needed and belongs.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(entry.path)


def _put(temporary: Path, target: Path, *, private: bool = False, like: Path | None = None) -> None:
    """Give a finished file its name, and the mode of the file that has it; a new companion is ``like`` the file it goes with."""
    with temporary.open("rb+") as file:  # on disk before it has a name, or a power cut leaves an empty file
        os.fsync(file.fileno())
    if private:
        temporary.chmod(0o600)
    else:
        _keep_mode(temporary, target if like is None or target.exists() else like)
    temporary.replace(target)


def _keep_mode(temporary: Path, old: Path) -> None:
    try:
        found = old.lstat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        with suppress(OSError):  # only root may give files away
            os.chown(temporary, found.st_uid, found.st_gid)
    temporary.chmod(stat.S_IMODE(found.st_mode))


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
