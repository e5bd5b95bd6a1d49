"""The tensors in an ONNX file: does each hold what its shape says, and which lie in other files?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rnncore.runtime.errors import ModelFileError, NotOnnxError
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.protobuf import Message, integers, parse

# Field numbers of TensorProto, SparseTensorProto and StringStringEntryProto.
_DIMS, _DATA_TYPE, _STRINGS, _NAME, _RAW, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 6, 8, 9, 13, 14
_TYPED = (4, 5, 7, 10, 11)
_SPARSE_DIMS = 3
_KEY, _VALUE = 1, 2

_STRING_TYPE = 8
_EXTERNAL = 1
_ENTRIES = frozenset({"location", "offset", "length", "checksum"})
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
_BITS |= dict.fromkeys((17, 18, 19, 20, 24), 8) | dict.fromkeys((21, 22, 23), 4) | dict.fromkeys((25, 26), 2)
"""Bits of one number, by TensorProto.DataType; texts have no size."""


@dataclass(frozen=True)
class Outside:
    """A tensor whose bytes are in another file.

    nested: it lies in a branch, a loop or a function, where onnxruntime reads it from a folder and from nowhere else.
    """

    name: str
    location: str
    offset: int
    size: int
    nested: bool


def external_locations(data: bytes) -> set[str]:
    """Every file that a tensor of an ONNX model says it is in, wherever in the model the tensor is.

    Raises NotOnnxError when the bytes cannot be walked.
    """
    return {tensor.location for tensor in outside_tensors(data, parse(data))}


def outside_tensors(data: bytes, messages: Sequence[Message]) -> list[Outside]:
    """All tensors in other files; NotOnnxError when it is not clear which bytes one of them is."""
    return [
        found
        for message in messages
        if message.kind == "TensorProto" and (found := _outside(data, message)) is not None
    ]


def check_tensors(data: bytes, messages: Sequence[Message], limits: Limits) -> None:
    """Raise NotOnnxError unless every tensor holds as many bytes as its shape and type say.

    A sparse tensor, which onnxruntime writes out in full, must stay within ``limits.constant_numbers`` (ModelFileError).
    """
    left = limits.constant_numbers
    for message in messages:
        if message.kind == "SparseTensorProto":
            left -= _numbers(integers(data, message, _SPARSE_DIMS), "a sparse tensor")
            if left < 0:
                raise ModelFileError("sparse tensors have more numbers in full than limits.constant_numbers allows")
        elif message.kind == "TensorProto" and not message.all(_EXTERNAL_DATA):
            _check_inside(data, message)


def _outside(data: bytes, tensor: Message) -> Outside | None:
    entries = tensor.all(_EXTERNAL_DATA)
    name = _shown(tensor)
    if tensor.one(_DATA_LOCATION, 0) != _EXTERNAL:
        if entries:
            raise NotOnnxError(f"{name} names another file, but says that its data are here: export the model again")
        return None
    said = {}
    for entry in entries:
        key = entry.one(_KEY, "")
        if key in said or key not in _ENTRIES:
            raise NotOnnxError(
                f"the entry {key!r} of external data of {name} is {'there twice' if key in said else 'unknown'}"
            )
        said[key] = entry.one(_VALUE, "")
    offset = _decimal(said.get("offset", "0"), name)
    needed = _bytes_needed(data, tensor)
    size = _decimal(said["length"], name) if "length" in said else needed
    if size != needed:
        raise NotOnnxError(f"{name} has {size} bytes in another file, its shape takes {needed}: export the model again")
    nested = tensor.graphs != 1 or tensor.parent == "SparseTensorProto"
    return Outside(name, said.get("location", ""), offset, size, nested)


def _check_inside(data: bytes, tensor: Message) -> None:
    numbers = _numbers(integers(data, tensor, _DIMS), _shown(tensor))
    if tensor.one(_DATA_TYPE) == _STRING_TYPE:
        held = len(tensor.all(_STRINGS))
        fits = held == numbers
    elif tensor.all(_RAW):
        start, end = tensor.one(_RAW)
        held = end - start
        fits = held == _bytes_needed(data, tensor)
    else:  # a number takes a byte or more in each of these
        held = sum(_size_of(value) for number in _TYPED for value in tensor.all(number))
        fits = numbers <= held * 4  # several small ones may share an integer
    if not fits:
        raise NotOnnxError(
            f"{_shown(tensor)} has {numbers} numbers by its shape, but {held} bytes: export the model again"
        )


def _size_of(value: int | tuple[int, int]) -> int:
    return 1 if isinstance(value, int) else value[1] - value[0]


def _bytes_needed(data: bytes, tensor: Message) -> int:
    numbers, bits = _numbers(integers(data, tensor, _DIMS), _shown(tensor)), _BITS.get(tensor.one(_DATA_TYPE, 0))
    if bits is None:
        raise NotOnnxError(f"{_shown(tensor)} has the data type {tensor.one(_DATA_TYPE, 0)}, which is not known here")
    return (numbers * bits + 7) // 8


def _numbers(dims: Sequence[int], name: str) -> int:
    if any(size < 0 for size in dims) or math.prod(dims) >= 1 << 48:
        raise NotOnnxError(f"{name} has a shape that no tensor has: export the model again")
    return math.prod(dims)


def _decimal(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise NotOnnxError(f"the external data of {name} begin at {text!r}, expected a number")
    return int(text)


def _shown(tensor: Message) -> str:
    name = tensor.one(_NAME, "")
    return f"the tensor {name[:60]!r}" if name else "a tensor"
