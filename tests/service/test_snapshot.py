"""Saved states: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import hashlib
import json
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rnncore import runtime
from tests.runtime.data import arguments, model, sequence, voice
from tests.runtime.files import Spec, causal_file
from tests.service.alone import SPECS, assert_same

SPEC = Spec(lengths=True, learned=True)


def used_stream(spec: Spec = SPEC, steps: int = 5) -> runtime.Stream:
    rng = np.random.default_rng(3)
    stream = model(spec).stream()
    stream.push(*arguments(spec, sequence(spec, rng, steps), voice(rng)))
    return stream


def resealed(blob: bytes, **changes: Any) -> bytes:
    """A blob with other header entries and a right checksum: what only somebody who means it can make."""
    size = struct.unpack_from("<I", blob, 12)[0]
    header = json.loads(blob[16 : 16 + size]) | changes
    text = json.dumps(header).encode()
    data = blob[:12] + struct.pack("<I", len(text)) + text + blob[16 + size : -32]
    return data + hashlib.sha256(data).digest()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_restored_stream_goes_on_bit_for_bit(spec: Spec) -> None:
    rng = np.random.default_rng(4)
    stream = used_stream(spec)
    chunk = arguments(spec, sequence(spec, rng, 3), voice(rng))
    restored = model(spec).restore(stream.save())
    assert restored.steps == stream.steps == 5
    for found, wanted in zip(restored.state.values(), stream.state.values(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert_same(restored.push(*chunk), stream.push(*chunk))


def test_saving_changes_nothing_and_equal_states_are_equal_bytes() -> None:
    stream = used_stream()
    blob = stream.save()
    assert stream.save() == blob == model(SPEC).restore(blob).save() == stream.fork().save()


def test_another_process_loads_the_same_file_and_goes_on() -> None:
    again = runtime.load(causal_file(SPEC))
    blob = used_stream().save()
    assert again.restore(blob).save() == blob


def test_a_state_that_is_not_finite_is_kept_as_it_is() -> None:
    stream = used_stream()
    state = {name: np.full_like(array, np.nan) for name, array in stream.state.items()}
    state["h"][:] = -np.inf
    stream.set_state(state)
    for name, array in model(SPEC).restore(stream.save()).state.items():
        np.testing.assert_array_equal(array, state[name])


@given(data=st.data())
def test_altered_bytes_are_refused(data: st.DataObject) -> None:
    blob = used_stream().save()
    altered = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(altered) - 1))
        altered[at] ^= data.draw(st.integers(1, 255))
    if bytes(altered) != blob:
        with pytest.raises(runtime.SnapshotError):
            model(SPEC).restore(bytes(altered))


@given(size=st.integers(0, 200), tail=st.binary(min_size=1, max_size=40))
@example(size=0, tail=b"RNNSTATE" + b"\0" * 4 + b"\xff" * 4 + b"\0" * 40)
def test_foreign_cut_and_lengthened_bytes_are_refused(size: int, tail: bytes) -> None:
    blob = used_stream().save()
    for bad in (tail, blob[:size], blob + tail, blob[:size] + tail, tail + blob):
        if bad != blob:
            with pytest.raises(runtime.SnapshotError):
                model(SPEC).restore(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(entry=st.sampled_from(["steps", "states", "fingerprint"]), value=JSON)
@example(entry="steps", value=True)
@example(entry="steps", value=-1)
@example(entry="steps", value=2**63)
@example(entry="states", value=[["c", "float32", 7]])
@example(entry="states", value=[["c", "float32", 2**62], ["h", "float32", 5]])
@example(entry="states", value=[["h", "float32", 5], ["c", "float32", 7]])
@example(entry="states", value=[["c", "object", 7], ["h", "float32", 5]])
def test_a_header_that_lies_is_refused_even_with_a_right_checksum(entry: str, value: Any) -> None:
    if entry == "steps" and type(value) is int and 0 <= value < 2**63:
        return
    with pytest.raises(runtime.SnapshotError):
        model(SPEC).restore(resealed(used_stream().save(), **{entry: value}))


def test_the_reason_is_named() -> None:
    blob = used_stream().save()
    newer = blob[:8] + struct.pack("<I", 2) + blob[12:]
    other = model(Spec(learned=True))
    for bad, reason in [
        (b"", "no saved state"),
        (b"PK\x03\x04 something else", "no saved state"),
        (newer, "format 2, this rnncore reads formats up to 1"),
        (blob[:-1], "cut short or was altered"),
        (blob[:30], "cut short"),
        ("text", "is bytes, got a str"),
    ]:
        with pytest.raises(runtime.SnapshotError, match=reason):
            model(SPEC).restore(bad)  # type: ignore[arg-type]
    with pytest.raises(runtime.SnapshotError, match="belongs to another model"):
        other.restore(blob)
    assert issubclass(runtime.SnapshotError, runtime.StateError)


def test_a_closed_or_busy_stream_is_not_saved() -> None:
    stream = used_stream()
    stream.close()
    with pytest.raises(runtime.StateError, match="closed"):
        stream.save()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "user.state"
    stream = used_stream()
    stream.save_file(path)
    assert model(SPEC).restore_file(path).save() == stream.save()
    assert path.stat().st_mode & 0o077 == 0, "states are private"
    assert [p.name for p in tmp_path.iterdir()] == ["user.state"]
    path.write_bytes(b"nothing")
    with pytest.raises(runtime.SnapshotError, match=r"user.state.*no saved state"):
        model(SPEC).restore_file(path)
    with pytest.raises(runtime.SnapshotError, match=r"missing.state.*cannot be read"):
        model(SPEC).restore_file(tmp_path / "missing.state")
    with pytest.raises(FileNotFoundError):
        stream.save_file(tmp_path / "no-such-folder" / "user.state")


def test_killed_while_saving(tmp_path: Path) -> None:
    """kill -9 at any moment leaves the old file or a new one, never a part."""
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    code = textwrap.dedent("""
        import sys, numpy as np
        from rnncore.runtime import load
        model = load("model.onnx")
        stream = model.stream()
        print("ready", flush=True)
        while True:
            stream.push(np.ones((1, 13), "f"))
            stream.save_file("user.state")
    """)
    path = tmp_path / "user.state"
    delays = np.random.default_rng(5).uniform(0.01, 0.06, 6)
    seen = 0
    for delay in delays:
        with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        if path.exists():
            seen += 1
            restored = model(SPEC).restore_file(path)
            assert restored.steps > 0
    assert seen, "no process came as far as saving once"
