"""A signature as rows of a table: what goes in, what is carried, what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rnncore.runtime.format.signature import PICKS, Signature, TensorSpec
from rnncore.runtime.tensors.specs import shape_text


class Port(NamedTuple):
    """One of them.  role: "input", "option", "lengths", "state", "output", "input of picks" or "picks"."""

    role: str
    name: str
    dtype: str
    shape: str
    note: str = ""


def ports_of(signature: Signature) -> Iterator[Port]:
    """Inputs, options and lengths, then states, then outputs, each as the file has them in order."""
    options = {option.name: option for option in signature.options}
    for port in signature.inputs:
        option = options.get(port.name)
        if option is None:
            yield _port("input", port, "" if port.limit is None else f"below {port.limit}")
        else:
            yield _port("option", port, f"{option.default:g} if left out; {option.text}")
    if signature.lengths is not None:
        yield _port("lengths", signature.lengths, "valid steps of each row")
    for state in signature.states:
        initial = "starts at zero" if state.initial is None else "starts at a learned value"
        shape = shape_text(("batch", state.size))
        yield Port("state", state.name, state.dtype, shape, f"-> {state.output}, {initial}")
    for port in signature.outputs:
        yield _port("output", port, "")
    if signature.pick is not None:
        shape, pick = shape_text(("batch", "time", PICKS)), signature.pick
        yield Port("input of picks", pick.at, "int64", shape, f"which numbers of {pick.of} are asked")
        yield Port("picks", pick.picked, signature.outputs[0].dtype, shape, f"these of {pick.of}")


def _port(role: str, port: TensorSpec, note: str) -> Port:
    return Port(role, port.name, port.dtype, shape_text(port.shape), note)
