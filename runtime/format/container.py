"""The outside of a model file: its metadata and its fingerprint, read from the bytes without onnx.

An ONNX file is one protobuf message.  Walking its dozen outermost fields is enough to tell a damaged file from a whole
one and to find the metadata, so bytes that fail here, or do not match their fingerprint, never reach a native parser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from mmap import mmap

from rnncore.runtime.errors import ForeignModelError, NotOnnxError, TamperedModelError
from rnncore.runtime.format.onnx_schema import BYTES
from rnncore.runtime.format.protobuf import CutShortError, MalformedError, field, fields, whole_fields
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, PREFIX

FINGERPRINT_KEY = "rnncore.fingerprint"

# Field numbers of onnx.ModelProto and of its StringStringEntryProto.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_KEY, _VALUE = 1, 2
_ORT_FORMAT = b"ORTM"  # the identifier of a flatbuffer, after four bytes


def is_ort_format(data: bytes | mmap) -> bool:
    """Whether a file begins as those of onnxruntime's own format do."""
    return data[4:8] == _ORT_FORMAT


def metadata_of(data: bytes | mmap) -> dict[str, str]:
    """All metadata of an ONNX file given as bytes; NotOnnxError when the bytes are no ONNX file or are cut short."""
    if not data:
        raise NotOnnxError("the file is empty")
    metadata: dict[str, str] = {}
    seen: set[int] = set()
    try:
        for number, wire, start, end in fields(data, 0, len(data)):
            seen.add(number)
            if number == _METADATA_PROPS and wire == BYTES:
                name, text = _pair(data, start, end)
                if name in metadata and name.startswith(PREFIX):
                    raise TamperedModelError(f"the file does not hold exactly one {name}: it was edited after export")
                metadata[name] = text
    except CutShortError as error:
        if _IR_VERSION in seen:
            raise NotOnnxError(f"the file is truncated or damaged: {error}; copy or export it again") from None
        raise NotOnnxError("the file is no ONNX model") from None
    except (MalformedError, UnicodeDecodeError):
        if is_ort_format(data):
            raise NotOnnxError(
                "the file has onnxruntime's own format (.ort), which keeps neither fingerprint nor all metadata: load the .onnx "
                "file that it was made from, or have rnncore.export.adapt make one of it"
            ) from None
        raise NotOnnxError("the file is no ONNX model, or is damaged") from None
    if _GRAPH not in seen:
        raise NotOnnxError("the file is no ONNX model: it holds no graph")
    return metadata


def digest(data: bytes) -> str:
    """SHA-256 of a file, as 64 hex digits: the fingerprint of one that does not hold its own."""
    return hashlib.sha256(data).hexdigest()


def fingerprint_of(data: bytes, stored: str) -> str:
    """SHA-256, as 64 hex digits, of a model file in which the fingerprint is replaced by 64 zeros.

    ``stored`` is the value of ``rnncore.fingerprint`` in the file: the file is genuine if the result equals it.  Raises
    TamperedModelError when the file does not hold that metadata entry exactly once.
    """
    at = _position(data, stored)
    view = memoryview(data)
    digest = hashlib.sha256(view[:at])
    digest.update(BLANK_FINGERPRINT.encode())
    digest.update(view[at + len(stored) :])
    return digest.hexdigest()


def stamp(data: bytes) -> bytes:
    """The same model file with its blank fingerprint (64 zeros) replaced by the real one.

    Raises ForeignModelError when the metadata has no blank fingerprint.
    """
    try:
        at = _position(data, BLANK_FINGERPRINT)
    except TamperedModelError:
        raise ForeignModelError(f"the metadata holds no {FINGERPRINT_KEY!r} of 64 zeros to fill in") from None
    real = fingerprint_of(data, BLANK_FINGERPRINT).encode()
    return data[:at] + real + data[at + len(real) :]


def replace_metadata(data: bytes, entries: Mapping[str, str]) -> bytes:
    """The same model file with these metadata entries in place of its own of those names, not stamped.

    Nothing else is touched or even parsed, so it is cheap for a model of any size.
    """
    kept: list[bytes | memoryview] = [
        whole
        for number, start, end, whole in whole_fields(data, 0, len(data))
        if number != _METADATA_PROPS or _pair(data, start, end)[0] not in entries
    ]
    for name, text in entries.items():
        pair = field(_KEY, name.encode()) + field(_VALUE, text.encode())
        kept.append(field(_METADATA_PROPS, pair))
    return b"".join(kept)


def _pair(data: bytes | mmap, start: int, end: int) -> tuple[str, str]:
    """Key and value of one metadata entry."""
    found: dict[int, str] = {}
    for number, wire, first, last in fields(data, start, end):
        if number not in (_KEY, _VALUE) or wire != BYTES or number in found:
            raise MalformedError("a metadata entry is no key and value")
        found[number] = data[first:last].decode()
    return found.get(_KEY, ""), found.get(_VALUE, "")


def _position(data: bytes, stored: str) -> int:
    """Where the 64 digits start.  The whole metadata entry is looked for, so no weight can be mistaken for it."""
    key, value = FINGERPRINT_KEY.encode(), stored.encode()
    if len(value) != len(BLANK_FINGERPRINT):
        raise TamperedModelError(f"{FINGERPRINT_KEY} in the file has {len(value)} characters, expected 64 hex digits")
    head = bytes([_KEY << 3 | BYTES, len(key)]) + key + bytes([_VALUE << 3 | BYTES, len(value)])
    at = data.find(head + value)
    if at < 0 or data.count(head) > 1:
        raise TamperedModelError(f"the file does not hold exactly one {FINGERPRINT_KEY}: it was edited after export")
    return at + len(head)
