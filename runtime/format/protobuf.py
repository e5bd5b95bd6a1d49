"""A reader of protobuf messages that walks an ONNX file: strict, without recursion, and no weight is copied.

A parser that skips what it does not expect can be shown another file than onnxruntime sees: a field of another wire type, a
field twice, a number in more bytes than it needs.  Here each of these is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import Any

from rnncore.runtime.errors import ModelFileError, NotOnnxError
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.onnx_schema import BYTES, FIXED32, FIXED64, RULES, VARINT, Rule

_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MOST_MESSAGES = 100  # in each other: where protobuf itself ends


class MalformedError(Exception):
    """The bytes are no protobuf message, or one with something in it that no ONNX file has."""


class CutShortError(MalformedError):
    """A field ends after the last byte."""


class Message:
    """One message of an ONNX file.

    kind: its type, such as "NodeProto".  parent: that of the message it is in.  values: by number of field a list of what
    is there: texts, integers, other messages, and for bytes and packed numbers (start, end) of the content in the file.
    graphs: how many graphs it lies in, itself included.
    """

    __slots__ = ("depth", "end", "graphs", "kind", "parent", "start", "values")

    def __init__(self, kind: str, start: int, end: int, parent: Message | None) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.parent = "" if parent is None else parent.kind
        self.depth: int = 1 if parent is None else parent.depth + 1
        self.graphs: int = (0 if parent is None else parent.graphs) + (kind == "GraphProto")
        self.values: dict[int, list[Any]] = {}

    def all(self, number: int) -> list[Any]:
        """Everything in a repeated field."""
        return self.values.get(number, [])

    def one(self, number: int, default: Any = None) -> Any:
        """What is in a field that is there once or not at all."""
        return self.values.get(number, (default,))[0]


def fields(data: bytes | mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, start and end of the content of each field of the message in ``data[start:end]``."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == BYTES:
            size, at = _varint(data, at, end)
        elif wire == VARINT:
            size = _varint(data, at, end)[1] - at
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
        else:
            raise MalformedError(f"byte {at} begins a field of wire type {wire}")
        if number == 0:
            raise MalformedError(f"byte {at} belongs to a field of number 0")
        if at + size > end:
            raise CutShortError(f"a field ends at byte {at + size}, the file has {len(data)}")
        yield number, wire, at, at + size
        at += size


def whole_fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, memoryview]]:
    """Number, start and end of the content of each field, and all of the field as it stands there, to be kept."""
    view, begin = memoryview(data), start
    for number, _, first, after in fields(data, start, end):
        yield number, first, after, view[begin:after]
        begin = after


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    head, size = [number << 3 | BYTES], len(content)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content


def parse(data: bytes | mmap, limits: Limits = DEFAULT_LIMITS) -> list[Message]:
    """All messages of an ONNX file; the first one is the model itself.

    Raises:
        NotOnnxError: something is not as onnx's own schema says.
        ModelFileError: there is more of something than ``limits`` allows.
    """
    found = [Message("ModelProto", 0, len(data), None)]
    count = 0
    try:
        for message in found:  # grows while it is walked
            count += _fill(data, message, found)
            if count > limits.fields:
                raise ModelFileError(f"the file has more than {limits.fields} fields (limits.fields)")
            if message.graphs > limits.graph_depth:
                raise ModelFileError(f"more than {limits.graph_depth} graphs lie in each other (limits.graph_depth)")
    except (MalformedError, UnicodeDecodeError) as error:
        raise NotOnnxError(f"the graph in the file is damaged: {error}; copy or export it again") from None
    return found


def integers(data: bytes | mmap, message: Message, number: int) -> list[int]:
    """The integers of a repeated field, packed or not, with their sign; NotOnnxError if they cannot be read."""
    found: list[int] = []
    try:
        for value in message.all(number):
            if isinstance(value, int):
                found.append(value)
                continue
            at, end = value
            while at < end:
                one, at = _varint(data, at, end)
                found.append(one)
    except MalformedError as error:
        raise NotOnnxError(f"the graph in the file is damaged: {error}; copy or export it again") from None
    return [value - (1 << 64) if value >> 63 else value for value in found]


def _fill(data: bytes | mmap, message: Message, found: list[Message]) -> int:
    """Read the fields of one message; messages in it go to ``found``.  Returns how many fields there are."""
    rules, values = RULES[message.kind], message.values
    at, end, count = message.start, message.end, 0
    if message.depth > _MOST_MESSAGES:
        raise MalformedError(f"more than {_MOST_MESSAGES} messages lie in each other")
    while at < end:
        begin = at
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, begin, end)
        rule = rules.get(tag)
        if rule is None:
            raise MalformedError(_unexpected(message, tag, begin))
        value, at = _value(data, message, rule, at)
        if rule.message:
            found.append(value)
        number = rule.number
        if number not in values:
            values[number] = [value]
        elif rule.repeated:
            values[number].append(value)
        else:
            raise MalformedError(f"field {number} of a {message.kind} is there twice, again at byte {begin}")
        count += 1
    return count


def _value(data: bytes | mmap, message: Message, rule: Rule, at: int) -> tuple[Any, int]:
    """What is in a field whose content begins at ``at``, and where the next one begins."""
    end, kind = message.end, rule.kind
    if kind == "i" and not rule.packed:
        return _varint(data, at, end)
    if kind in "fd" and not rule.packed:
        after = at + (4 if kind == "f" else 8)
        value: Any = (at, after)
    else:
        size, at = _varint(data, at, end)
        after = at + size
        value = (at, after)
    if after > end:
        raise CutShortError(f"a field of a {message.kind} ends at byte {after}, the message at {end}")
    if kind == "s":
        value = data[at:after].decode()
    elif kind == "m":
        value = Message(rule.message, at, after, message)
    return value, after


def _unexpected(message: Message, tag: int, at: int) -> str:
    number, wire = tag >> 3, tag & 7
    wires = sorted(tag & 7 for tag, rule in RULES[message.kind].items() if rule.number == number)
    if not wires:
        return f"a {message.kind} has a field {number} at byte {at}, which is not known here"
    return f"field {number} of a {message.kind} has wire type {wire} at byte {at}, expected {wires[0]}"


def _varint(data: bytes | mmap, at: int, end: int) -> tuple[int, int]:
    """Value of a base-128 number and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise CutShortError(f"it ends inside a field, at byte {end}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (not byte and shift) or value >> 64:
                raise MalformedError(f"the number that ends at byte {at} is written in more bytes than it needs")
            return value, at
    raise MalformedError(f"the number at byte {at} does not end")
