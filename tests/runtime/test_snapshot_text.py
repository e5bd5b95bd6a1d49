"""Saved states as bytes, without a stream: each thing that can be wrong in them is told by its own words."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncore.runtime.errors import SnapshotError, StateError
from rnncore.runtime.streaming.snapshot import MOST_STEPS, Snapshot, check_count, decode, encode, read_file, write_file
from tests.runtime.data import model
from tests.runtime.files import C, H, Spec

LAYOUT = model(Spec()).engine.layout
PRINT = "0123456789abcdef" * 4
SAVED = Snapshot(7, (np.arange(C, dtype=np.float32), -np.arange(H, dtype=np.float32)))
BLOB = encode(PRINT, LAYOUT, SAVED)


def sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
    (size,) = struct.unpack_from("<I", BLOB, 12)
    header = json.loads(BLOB[16 : 16 + size])
    change(header)
    return with_text(json.dumps(header).encode())


def with_text(text: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", BLOB, 12)
    return sealed(BLOB[:12] + struct.pack("<I", len(text)) + text + BLOB[16 + size : -32])


def with_numbers(version: int, size: int) -> bytes:
    return sealed(BLOB[:8] + struct.pack("<II", version, size) + BLOB[16:-32])


def test_what_is_encoded_is_decoded() -> None:
    found = decode(bytearray(BLOB), PRINT, LAYOUT)  # type: ignore[arg-type]
    assert found.steps == 7 and decode(with_header(lambda h: None), PRINT, LAYOUT).steps == 7
    for one, other in zip(found.states, SAVED.states, strict=True):
        np.testing.assert_array_equal(one, other)
    for steps in (0, MOST_STEPS):
        assert decode(encode(PRINT, LAYOUT, Snapshot(steps, SAVED.states)), PRINT, LAYOUT).steps == steps


FOREIGN = ": it was not made by rnncore$"
FAULTS: dict[str, tuple[Any, str]] = {
    "a text": ("RNNSTATE", "^a saved state is bytes, got a str$"),
    "nothing": (b"", "^these bytes are no saved state of rnncore$"),
    "other bytes": (b"x" + BLOB, "^these bytes are no saved state of rnncore$"),
    "cut short at once": (BLOB[:47], "^the saved state is cut short: 47 bytes$"),
    "cut short": (BLOB[:-1], "cut short or was altered: its checksum does not match$"),
    "altered": (BLOB[:-40] + b"\1" + BLOB[-39:], "cut short or was altered: its checksum does not match$"),
    "of a newer one": (with_numbers(2, 9), r"has format 2, this rnncore reads formats up to 1: upgrade rnncore \("),
    "no version": (with_numbers(0, 9), "^the saved state contradicts itself" + FOREIGN),
    "a header without end": (with_numbers(1, 1 << 20), "^the saved state contradicts itself" + FOREIGN),
    "no JSON": (with_text(b"{"), "^the header of the saved state cannot be read" + FOREIGN),
    "deep": (with_text(b"[" * 100_000), "^the header of the saved state cannot be read" + FOREIGN),
    "a list": (with_text(b"[]"), "^the header of the saved state is no JSON object" + FOREIGN),
    "another model": (
        with_header(lambda h: h.update(fingerprint="f" * 64)),
        r"another model \(fingerprint ffffffffffff…, this one has 0123456789ab…\): load the model that saved it",
    ),
    "no model": (with_header(lambda h: h.pop("fingerprint")), r"another model \(fingerprint None…"),
    "no steps": (with_header(lambda h: h.pop("steps")), "counts None steps" + FOREIGN),
    "steps below zero": (with_header(lambda h: h.update(steps=-1)), "counts -1 steps" + FOREIGN),
    "too many steps": (with_header(lambda h: h.update(steps=2**63)), f"counts {2**63} steps" + FOREIGN),
    "steps that are true": (with_header(lambda h: h.update(steps=True)), "counts True steps" + FOREIGN),
    "other states": (with_header(lambda h: h["states"].pop()), "lists other states than this model has" + FOREIGN),
    "bytes too many": (sealed(BLOB[:-32] + b"\0"), "^the saved state holds 49 bytes of values, expected 48$"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told(fault: str) -> None:
    blob, message = FAULTS[fault]
    with pytest.raises(SnapshotError, match=message):
        decode(blob, PRINT, LAYOUT)


def test_counts_end_where_int64_ends() -> None:
    check_count(MOST_STEPS - 3, 3)
    with pytest.raises(
        StateError, match=rf"has counted {MOST_STEPS - 3} steps, 4 more are beyond {MOST_STEPS}: set_state"
    ):
        check_count(MOST_STEPS - 3, 4)


def test_files_of_states_are_their_owners(tmp_path: Path) -> None:
    write_file(tmp_path / "s", BLOB)
    assert read_file(str(tmp_path / "s"), LAYOUT) == BLOB and (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SnapshotError, match=r"^the saved state cannot be read: No such file or directory$"):
        read_file(tmp_path / "none", LAYOUT)


def test_what_is_no_file_of_a_state_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe would be waited for, a device never ends, and a file with a hole takes all memory."""
    no_file = r"^the saved state cannot be read: there is no ordinary file, but a folder, a pipe or the like$"
    others = [tmp_path, Path("/dev/zero")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        others.append(tmp_path / "pipe")
    for other in others:
        with pytest.raises(SnapshotError, match=no_file):
            read_file(other, LAYOUT)
    with pytest.raises(SnapshotError, match=r"^the saved state cannot be read: this is no path of a file$"):
        read_file("a\0b", LAYOUT)
    size = 4 * (C + H) + (1 << 26)
    with (tmp_path / "giant").open("wb") as giant:
        giant.truncate(size + 1)
    with pytest.raises(
        SnapshotError, match=rf"^the saved state has {size + 1} bytes, no state of this model takes more than {size}$"
    ):
        read_file(tmp_path / "giant", LAYOUT)
    with pytest.raises(SnapshotError, match=r"giant: the saved state has"):
        model(Spec()).restore_file(tmp_path / "giant")
