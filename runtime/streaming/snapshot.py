"""The state of a stream as bytes: plain data, checked before anything of it is believed.

========= ======================================================================================================
bytes     content
========= ======================================================================================================
8         ``RNNSTATE``
4         format version, unsigned little-endian; a reader refuses versions newer than its own
4         length of the header, unsigned little-endian
header    UTF-8 JSON: ``fingerprint`` of the model, ``steps`` read so far, ``states`` as [name, dtype, size] each
states    little-endian raw values, in the order of the header
32        SHA-256 of all bytes before it
========= ======================================================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, SnapshotError, StateError
from rnncore.runtime.format.atomic import replacing
from rnncore.runtime.tensors.specs import Layout

SNAPSHOT_VERSION = 1

_MAGIC = b"RNNSTATE"
_PREFIX = struct.Struct("<8sII")
_DIGEST_SIZE = hashlib.sha256().digest_size
_MOST_HEADER = 1 << 26  # bytes, with all that is around it
MOST_STEPS = 2**63 - 1
"""No stream counts further: int64, as long as numpy's."""


@dataclass(frozen=True)
class Snapshot:
    """What a stream has reached.  ``states`` are [size] each, in the order of the signature."""

    steps: int
    states: tuple[Array, ...]


def encode(fingerprint: str, layout: Layout, snapshot: Snapshot) -> bytes:
    """The snapshot as bytes."""
    header = {
        "fingerprint": fingerprint,
        "steps": snapshot.steps,
        "states": _described(layout),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    body = [_PREFIX.pack(_MAGIC, SNAPSHOT_VERSION, len(text)), text]
    body += [
        np.ascontiguousarray(array, state.dtype.newbyteorder("<")).tobytes()
        for state, array in zip(layout.states, snapshot.states, strict=True)
    ]
    data = b"".join(body)
    return data + hashlib.sha256(data).digest()


def decode(blob: bytes, fingerprint: str, layout: Layout) -> Snapshot:
    """The snapshot that :func:`encode` made of a stream of this very model; SnapshotError for anything else."""
    header, values = _opened(blob)
    if header.get("fingerprint") != fingerprint:
        raise SnapshotError(
            f"the saved state belongs to another model (fingerprint {str(header.get('fingerprint'))[:12]}…, this one "
            f"has {fingerprint[:12]}…): load the model that saved it, or open a new stream"
        )
    steps = header.get("steps")
    if type(steps) is not int or not 0 <= steps <= MOST_STEPS:
        raise SnapshotError(f"the saved state counts {steps!r} steps: it was not made by rnncore")
    if header.get("states") != _described(layout):
        raise SnapshotError("the saved state lists other states than this model has: it was not made by rnncore")
    expected = _values_size(layout)
    if len(values) != expected:
        raise SnapshotError(f"the saved state holds {len(values)} bytes of values, expected {expected}")
    states = []
    at = 0
    for state in layout.states:
        stored = np.frombuffer(values, state.dtype.newbyteorder("<"), state.size, at)
        states.append(stored.astype(state.dtype))
        at += stored.nbytes
    return Snapshot(steps, tuple(states))


def check_count(before: int, steps: int, most: int | None = None) -> None:
    """Raise StateError if no snapshot could count that far, InputError for more steps than a stream of the model takes."""
    if most is not None and before > most - steps:
        raise InputError(
            f"the stream has read {before} steps, {steps} more are beyond the {most} that this model takes in all (its "
            "positions end there): reset() begins a new sequence"
        )
    if before > MOST_STEPS - steps:
        raise StateError(
            f"the stream has counted {before} steps, {steps} more are beyond {MOST_STEPS}: set_state(stream.state, steps=0)"
        )


def write_file(path: str | os.PathLike[str], blob: bytes) -> None:
    """Write a file that is either the old one or the whole new one, whenever the process or the machine stops.

    The file is readable by its owner only; see :func:`rnncore.runtime.format.atomic.replacing`.
    """
    with replacing(path, private=True) as temporary:
        temporary.write_bytes(blob)


def read_file(path: str | os.PathLike[str], layout: Layout) -> bytes:
    """The bytes of a snapshot file; SnapshotError when there is nothing to read, or more than any state of the model takes."""
    try:
        _check_file(os.stat(path), layout)  # to open a device may already do something
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with FileIO(handle, "rb") as file:
            _check_file(os.fstat(handle), layout)
            return file.readall()
    except SnapshotError:  # which is a ValueError too
        raise
    except OSError as error:
        raise SnapshotError(f"the saved state cannot be read: {error.strerror}") from error
    except ValueError:
        raise SnapshotError("the saved state cannot be read: this is no path of a file") from None


def _check_file(found: os.stat_result, layout: Layout) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SnapshotError(
            "the saved state cannot be read: there is no ordinary file, but a folder, a pipe or the like"
        )
    most = _values_size(layout) + _MOST_HEADER
    if found.st_size > most:
        raise SnapshotError(f"the saved state has {found.st_size} bytes, no state of this model takes more than {most}")


def _opened(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and values of a blob whose version is known and whose checksum is right."""
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise SnapshotError(f"a saved state is bytes, got a {type(blob).__name__}")
    data = bytes(blob)
    if data[: len(_MAGIC)] != _MAGIC:
        raise SnapshotError("these bytes are no saved state of rnncore")
    if len(data) < _PREFIX.size + _DIGEST_SIZE:
        raise SnapshotError(f"the saved state is cut short: {len(data)} bytes")
    _, version, header_size = _PREFIX.unpack_from(data)
    if version > SNAPSHOT_VERSION:
        raise SnapshotError(
            f"the saved state has format {version}, this rnncore reads formats up to {SNAPSHOT_VERSION}: upgrade "
            "rnncore (or the bytes were altered)"
        )
    body, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("the saved state is cut short or was altered: its checksum does not match")
    end = _PREFIX.size + header_size
    if version < 1 or end > len(body):
        raise SnapshotError("the saved state contradicts itself: it was not made by rnncore")
    try:
        header = json.loads(body[_PREFIX.size : end])
    except (ValueError, RecursionError):
        raise SnapshotError("the header of the saved state cannot be read: it was not made by rnncore") from None
    if not isinstance(header, dict):
        raise SnapshotError("the header of the saved state is no JSON object: it was not made by rnncore")
    return header, body[end:]


def _values_size(layout: Layout) -> int:
    return sum(state.size * state.dtype.itemsize for state in layout.states)


def _described(layout: Layout) -> list[Sequence[Any]]:
    return [[state.name, state.dtype.name, state.size] for state in layout.states]
