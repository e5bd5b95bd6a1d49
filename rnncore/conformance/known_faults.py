"""What a program is known to do otherwise than PyTorch and what golden cases, which are finite, do not show."""

from __future__ import annotations

import os

from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.protobuf import Message, parse
from rnncore.runtime.reopening import read_source

# Field numbers of NodeProto and of AttributeProto.
_OP_TYPE, _STRINGS = 4, 9


def known_faults(path: str | os.PathLike[str], backend: str, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """One line for each such fault of ``backend`` that an operator in the file has.

    Raises ModelFileError when the file cannot be read.
    """
    if backend != "openvino":
        return []
    data = read_source(path, limits)[1]
    if any(_has_relu(data, message) for message in parse(data, limits)):
        return [
            "OpenVINO's Relu gives 0 for NaN: for inputs that are not finite this file answers plausible numbers there, where "
            "PyTorch and onnxruntime show NaN; check inputs before"
        ]
    return []


def _has_relu(data: bytes, message: Message) -> bool:
    """Whether it is a node of that name, or an attribute that lists it among the activations of a recurrent layer."""
    if message.kind == "NodeProto":
        return bool(message.one(_OP_TYPE) == "Relu")
    return message.kind == "AttributeProto" and any(data[at:end] == b"Relu" for at, end in message.all(_STRINGS))
