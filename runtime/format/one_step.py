"""The same graph for one step of one sequence: with fewer inputs, fewer outputs, and constants in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rnncore.runtime.format.protobuf import field, fields, whole_fields

# Field numbers of ModelProto, GraphProto, ValueInfoProto and TensorProto.
_GRAPH, _METADATA_PROPS = 7, 14
_INITIALIZERS, _INPUTS, _OUTPUTS = 5, 11, 12
_NAME = 1
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9
_INT64 = 7


def for_one_step(data: bytes, lengths: str | None, nothing_asked: str | None, outputs: Collection[str]) -> bytes:
    """The bytes of a checked file whose graph takes one sequence of one step, without metadata.

    lengths, nothing_asked: the inputs int64 [1] and int64 [1, 1, 1] that are the constants 1 and 0 then, if there are such.
    outputs: those that are kept; onnxruntime leaves out what only the others need.
    """
    constants = {}
    if lengths is not None:
        constants[lengths] = _integer(lengths, 1, rank=1)
    if nothing_asked is not None:
        constants[nothing_asked] = _integer(nothing_asked, 0, rank=3)
    return b"".join(
        field(_GRAPH, b"".join(_graph(data, start, end, constants, outputs))) if number == _GRAPH else whole
        for number, start, end, whole in whole_fields(data, 0, len(data))
        if number != _METADATA_PROPS
    )


def _graph(
    data: bytes, begin: int, end: int, constants: dict[str, bytes], outputs: Collection[str]
) -> Iterable[bytes | memoryview]:
    """The fields of the graph in ``data[begin:end]`` that stay, and the constants."""
    for number, start, after, whole in whole_fields(data, begin, end):
        is_constant = number == _INPUTS and _name(data, start, after) in constants
        is_unasked = number == _OUTPUTS and _name(data, start, after) not in outputs
        if not is_constant and not is_unasked:
            yield whole
    for tensor in constants.values():
        yield field(_INITIALIZERS, tensor)


def _name(data: bytes, begin: int, end: int) -> str:
    """That of an input or output."""
    return next(
        (data[start:after].decode() for number, _, start, after in fields(data, begin, end) if number == _NAME), ""
    )


def _integer(name: str, value: int, rank: int) -> bytes:
    """A tensor of one integer."""
    head = bytes([_DIMS << 3, 1]) * rank + bytes([_DATA_TYPE << 3, _INT64])
    return head + field(_TENSOR_NAME, name.encode()) + field(_RAW, value.to_bytes(8, "little"))
