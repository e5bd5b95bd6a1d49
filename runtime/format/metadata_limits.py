"""The metadata of a file before anything in them is believed: how long they are, and how deep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.signature import Signature

_TEXT = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)  # one that does not end is taken whole: no text is read twice
_BRACKETS = re.compile(r"[\[\]{}]")


def check_metadata(metadata: Mapping[str, str], limits: Limits) -> None:
    """Raise ModelFileError when the metadata are larger, or lie deeper in each other, than ``limits`` allows."""
    size = sum(len(text.encode()) for pair in metadata.items() for text in pair)
    if size > limits.metadata_bytes:
        raise ModelFileError(
            f"the metadata in the file have {size} bytes, limits.metadata_bytes allows {limits.metadata_bytes}"
        )
    for key, text in metadata.items():
        if text.lstrip()[:1] in ("{", "[") and _depth(text) > limits.json_depth:
            raise ModelFileError(f"{key} in the file lies more than {limits.json_depth} deep (limits.json_depth)")


def check_states(signature: Signature, limits: Limits) -> None:
    """Raise ModelFileError when a state has no size, or all together have more numbers than ``limits`` allows."""
    total = 0
    for state in signature.states:
        if isinstance(state.size, bool) or not isinstance(state.size, int) or state.size < 0:
            raise ModelFileError(
                f"state {state.name!r} in the file has the size {str(state.size)[:40]!r}: export it again"
            )
        total += state.size
    total += _waiting(signature)
    if total > limits.state_numbers:
        raise ModelFileError(
            f"the states of one sequence have {total} numbers, limits.state_numbers allows {limits.state_numbers}"
        )


def _waiting(signature: Signature) -> int:
    """Numbers that a stream keeps of its inputs for the next run."""
    steps = max(0, signature.overlap) + max(0, signature.stride - 1) if signature.causal else 0
    timed = [port for port in signature.inputs if port.time_axis is not None]
    return sum(steps * prod(abs(size) for size in port.shape if isinstance(size, int)) for port in timed)


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in _BRACKETS.findall(_TEXT.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
