"""Every field of an ONNX file: its number, how it is written, what it holds.  A test compares this with the onnx package.

A letter after the number says what a field is; capitals are repeated fields, which may also be packed where they are numbers:
``i`` an integer or an enum, ``f`` four bytes, ``d`` eight bytes, ``s`` text, ``b`` bytes, ``m`` one message of the type
behind the colon, ``M`` any number of them.
"""

from __future__ import annotations

from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf; the groups 3 and 4 are in no ONNX file."""

_WIRES = {"i": VARINT, "f": FIXED32, "d": FIXED64}

_FIELDS = {
    "ModelProto": "1i 2s 3s 4s 5i 6s 7m:GraphProto 8M:OperatorSetIdProto 14M:StringStringEntryProto "
    "20M:TrainingInfoProto 25M:FunctionProto 26M:DeviceConfigurationProto",
    "GraphProto": "1M:NodeProto 2s 5M:TensorProto 10s 11M:ValueInfoProto 12M:ValueInfoProto 13M:ValueInfoProto "
    "14M:TensorAnnotation 15M:SparseTensorProto 16M:StringStringEntryProto",
    "NodeProto": "1S 2S 3s 4s 5M:AttributeProto 6s 7s 8s 9M:StringStringEntryProto 10M:NodeDeviceConfigurationProto",
    "AttributeProto": "1s 2f 3i 4b 5m:TensorProto 6m:GraphProto 7F 8I 9B 10M:TensorProto 11M:GraphProto 13s "
    "14m:TypeProto 15M:TypeProto 20i 21s 22m:SparseTensorProto 23M:SparseTensorProto",
    "TensorProto": "1I 2i 3m:TensorProto.Segment 4F 5I 6B 7I 8s 9b 10D 11I 12s 13M:StringStringEntryProto 14i "
    "16M:StringStringEntryProto",
    "TensorProto.Segment": "1i 2i",
    "SparseTensorProto": "1m:TensorProto 2m:TensorProto 3I",
    "FunctionProto": "1s 4S 5S 6S 7M:NodeProto 8s 9M:OperatorSetIdProto 10s 11M:AttributeProto 12M:ValueInfoProto 13s "
    "14M:StringStringEntryProto",
    "TrainingInfoProto": "1m:GraphProto 2m:GraphProto 3M:StringStringEntryProto 4M:StringStringEntryProto",
    "StringStringEntryProto": "1s 2s",
    "OperatorSetIdProto": "1s 2i",
    "ValueInfoProto": "1s 2m:TypeProto 3s 4M:StringStringEntryProto",
    "TypeProto": "1m:TypeProto.Tensor 4m:TypeProto.Sequence 5m:TypeProto.Map 6s 7m:TypeProto.Opaque "
    "8m:TypeProto.SparseTensor 9m:TypeProto.Optional",
    "TypeProto.Tensor": "1i 2m:TensorShapeProto",
    "TypeProto.SparseTensor": "1i 2m:TensorShapeProto",
    "TypeProto.Sequence": "1m:TypeProto",
    "TypeProto.Optional": "1m:TypeProto",
    "TypeProto.Map": "1i 2m:TypeProto",
    "TypeProto.Opaque": "1s 2s",
    "TensorShapeProto": "1M:TensorShapeProto.Dimension",
    "TensorShapeProto.Dimension": "1i 2s 3s",
    "TensorAnnotation": "1s 2M:StringStringEntryProto",
    "DeviceConfigurationProto": "1s 2i 3S",
    "NodeDeviceConfigurationProto": "1s 2M:ShardingSpecProto 3i",
    "ShardingSpecProto": "1s 2I 3M:IntIntListEntryProto 4M:ShardedDimProto",
    "IntIntListEntryProto": "1i 2I",
    "ShardedDimProto": "1i 2M:SimpleShardedDimProto",
    "SimpleShardedDimProto": "1i 2s 3i",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How one field of a message is written.

    kind: the letter of the field, as a small one.  message: type of the message in it, empty for others.
    packed: a repeated number is written as bytes here, all numbers together.
    """

    number: int
    kind: str
    repeated: bool
    message: str
    packed: bool = False


def _rules(text: str) -> dict[int, Rule]:
    """By tag, which is the number of a field and its wire type in one."""
    rules = {}
    for word in text.split():
        head, _, message = word.partition(":")
        number, letter = int(head[:-1]), head[-1]
        kind = letter.lower()
        rules[number << 3 | _WIRES.get(kind, BYTES)] = Rule(number, kind, letter.isupper(), message)
        if letter.isupper() and kind in _WIRES:
            rules[number << 3 | BYTES] = Rule(number, kind, True, "", packed=True)
    return rules


RULES = {message: _rules(text) for message, text in _FIELDS.items()}
"""For each message its fields by tag."""
