"""A reader of protobuf messages that knows just enough to walk an ONNX file: no message is built, no byte is copied."""

from __future__ import annotations

from collections.abc import Iterator

from rnncore.runtime.errors import NotOnnxError

_VARINT, BYTES = 0, 2
_FIXED_SIZE = {1: 8, 5: 4}

# Where tensors are, by message: field number -> what it holds.  A tensor is in a graph (initializer, sparse_initializer's
# values and indices), in an attribute (t, tensors, sparse_tensor, sparse_tensors), and attributes are in nodes, which are
# in graphs and in functions; graphs are in the model and in attributes.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto


class MalformedError(Exception):
    """The bytes are no protobuf message."""


class CutShortError(MalformedError):
    """A field ends after the last byte."""


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the content of each field of the message in ``data[start:end]``."""
    for number, _, first, last in _typed_fields(data, start, end):
        yield number, first, last


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    head, size = [number << 3 | BYTES], len(content)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content


def external_locations(data: bytes) -> set[str]:
    """Every file that a tensor of an ONNX model says it is in, wherever in the model the tensor is.

    Raises NotOnnxError when the bytes cannot be walked.
    """
    if b"location" not in data:  # the key of the entry: nearly every file is through here
        return set()
    found: set[str] = set()
    todo = [("model", 0, len(data))]
    try:
        while todo:
            kind, start, end = todo.pop()
            if kind == "tensor":
                found.update(_locations(data, start, end))
                continue
            inside = _INSIDE[kind]
            for number, wire, first, last in _typed_fields(data, start, end):
                if wire == BYTES and number in inside:
                    todo.append((inside[number], first, last))
    except (MalformedError, UnicodeDecodeError):
        raise NotOnnxError("the graph in the file is damaged; copy or export it again") from None
    return found


def _locations(data: bytes, start: int, end: int) -> Iterator[str]:
    """The file of one tensor: the entry ``location`` of its external data; "" if it is external and does not say where."""
    external, named = False, False
    for number, wire, first, last in _typed_fields(data, start, end):
        if number == _DATA_LOCATION and wire == _VARINT:
            external = _varint(data, first, last)[0] != 0
        elif number == _EXTERNAL_DATA and wire == BYTES:
            entry = {key: data[a:b].decode() for key, a, b in fields(data, first, last)}
            if entry.get(_KEY) == "location":
                named = True
                yield entry.get(_VALUE, "")
    if external and not named:
        yield ""


def _typed_fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == BYTES:
            size, at = _varint(data, at, end)
        elif wire == _VARINT:
            size = _varint(data, at, end)[1] - at
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
        else:
            raise MalformedError
        if number == 0:
            raise MalformedError
        if at + size > end:
            raise CutShortError(f"a field ends at byte {at + size}, the file has {len(data)}")
        yield number, wire, at, at + size
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Value of a base-128 number and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise CutShortError(f"it ends inside a field, at byte {end}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError
