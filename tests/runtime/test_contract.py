"""What a signature may say, and where a graph contradicts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rnncore.runtime import Signature, TensorSpec
from rnncore.runtime.format.axes import Axis, Flat, Steps
from rnncore.runtime.format.options import Option
from rnncore.runtime.format.signature import GatherOutput, StateSpec
from rnncore.runtime.tensors.graph_contract import GraphValue, graph_problems, signature_problems
from rnncore.runtime.tensors.ports import Port, ports_of

X = TensorSpec("x", "float32", ("batch", "time", 2))
IDS = TensorSpec("ids", "int64", ("batch", "time"), 9, 1)
Y = TensorSpec("y", "float32", ("batch", "time", 4))
SPEAKER = TensorSpec("speaker", "float32", ("batch", 3))


H = StateSpec("h", "h_out", "float32", 4)
SOUND = Signature((X,), (Y,), states=(H,), causal=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": ()}, ["there is no input", "the model is marked causal, but no input has a time axis"]),
        ({"outputs": ()}, ["there is no output"]),
        ({"inputs": (replace(X, dtype="text"),)}, ["input 'x' has the unknown dtype 'text'"]),
        ({"inputs": (replace(X, limit=5),)}, ["input 'x' is float32, but has limits for ids"]),
        (
            {"inputs": (X, TensorSpec("i", "int64", ("batch",), 3, 3))},
            ["input 'i' has limits between which there is no id: minimum 3, limit 3"],
        ),
        ({"inputs": (X, TensorSpec("i", "int64", ("batch",), 4, 3))}, []),
        (
            {"outputs": (replace(Y, shape=("time", 4)),)},
            ["output 'y' has shape [time, 4], expected exactly one batch axis"],
        ),
        (
            {"outputs": (replace(Y, shape=("batch", "batch")),)},
            ["output 'y' has shape [batch, batch], expected exactly one batch axis"],
        ),
        (
            {"outputs": (replace(Y, shape=("batch", "time", "time")),)},
            ["output 'y' has shape [batch, time, time], expected at most one time axis"],
        ),
        (
            {"outputs": (replace(Y, shape=("batch", -1)),)},
            ["output 'y' has shape [batch, -1], expected no negative size"],
        ),
        ({"outputs": (replace(Y, shape=("batch", 0)),)}, []),
        (
            {"lengths": TensorSpec("n", "int32", ("batch",))},
            ["lengths 'n' is int32[batch], expected int64[batch]"],
        ),
        ({"causal": False}, ["there are states, but the model is not marked causal"]),
        ({"inputs": (SPEAKER,)}, ["the model is marked causal, but no input has a time axis"]),
        ({"lengths": TensorSpec("x", "int64", ("batch",))}, ["the name 'x' is used 2 times"]),
        ({"states": (replace(H, output="y"),)}, ["the name 'y' is used 2 times"]),
        ({"states": (replace(H, dtype="q"),)}, ["state 'h' has the unknown dtype 'q'"]),
        ({"states": (replace(H, initial="?"),)}, ["state 'h' has an initial value that cannot be decoded"]),
        (
            {"states": (replace(H, initial=StateSpec.encode_initial(np.ones(3, "f"))),)},
            ["state 'h' has an initial value of 3 numbers, expected 4"],
        ),
        (
            {"states": (replace(H, initial=StateSpec.encode_initial(np.full(4, np.nan, "f"))),)},
            ["state 'h' has an initial value that is not finite"],
        ),
        (
            {"states": (replace(H, shape=(2, "batch", 3)),)},
            ["state 'h' has shape [2, batch, 3], expected one batch axis and 4 values for each row"],
        ),
        ({"states": (replace(H, shape=(2, "batch", 2)),)}, []),
        ({"stride": 0}, ["stride is 0, expected at least 1"]),
        (
            {"axes": (Axis("width"),)},
            ["axis 'width' (any size) is no axis of an input, or takes no size"],
        ),
        (
            {"axes": (Axis("time", 3, 2),)},
            ["axis 'time' (at least 3, at most 2) is no axis of an input, or takes no size"],
        ),
        ({"axes": (Axis("time", 3, 3),)}, []),
        (
            {"axes": (Axis("time", 1),), "outputs": (replace(Y, shape=("batch", "time", "w")),)},
            ["output 'y' has shape [batch, time, w], but no input has an axis 'w'"],
        ),
        (
            {"inputs": (X, TensorSpec("h2", "float32", ("batch", Steps("time", 2))))},
            ["the model is marked causal, but input 'h2' has steps of another number"],
        ),
        (
            {"inputs": (X, TensorSpec("f", "float32", (Flat(("batch", "time")),)))},
            [
                "input 'f' has shape [batch * time], expected sizes, names, and sizes that follow an axis of another input"
            ],
        ),
        ({"pick": GatherOutput("z", "a", "b")}, ["there are picks of 'z', which is no output"]),
        (
            {"pick": GatherOutput("y", "a", "b"), "outputs": (Y, replace(Y, name="y2"))},
            ["there are picks of output 'y', but there are other outputs too"],
        ),
        (
            {"pick": GatherOutput("y", "a", "b"), "outputs": (replace(Y, shape=("batch", "time", "w")),)},
            ["there are picks of output 'y' [batch, time, w], expected [batch, time, a fixed size]"],
        ),
        ({"pick": GatherOutput("y", "x", "y")}, ["the name 'x' is used 2 times", "the name 'y' is used 2 times"]),
        ({"options": (Option("g", 1.0),)}, ["there is an option 'g', which is no input"]),
        ({"options": (Option("x", 1.0),)}, ["option 'x' has a time axis, so nothing can stand for it"]),
        (
            {"inputs": (X, SPEAKER), "options": (Option("speaker", 1.0, minimum=2.0),)},
            ["option 'speaker' is 1.0 by default, expected at least 2"],
        ),
        (
            {"inputs": (X, SPEAKER), "options": (Option("speaker", float("inf")),)},
            ["option 'speaker' is inf by default, expected any number"],
        ),
    ],
)
def test_what_a_signature_cannot_say(changes: dict[str, Any], says: list[str]) -> None:
    assert signature_problems(SOUND) == []
    assert signature_problems(replace(SOUND, **changes)) == says


def value(name: str, kind: str, *shape: int | str | None) -> GraphValue:
    return GraphValue(name, f"tensor({kind})", shape)


def test_a_graph_keeps_what_its_signature_says() -> None:
    said = replace(SOUND, lengths=TensorSpec("n", "int64", ("batch",)), pick=GatherOutput("y", "at", "picked"))
    inputs = [
        value("x", "float", "b", None, 2),
        value("n", "int64", None),
        value("h", "float", None, 4),
        value("at", "int64", None, None, None),
    ]
    outputs = [value("y", "float", None, None, 4), value("h_out", "float"), value("picked", "float", None, None, None)]
    assert graph_problems(said, inputs, outputs) == []
    wrong_inputs = [value("x", "double", 1, None, 3), value("extra", "float"), *inputs[2:]]
    wrong_outputs = [value("y", "float", None, 4), *outputs[1:]]
    assert graph_problems(said, wrong_inputs, wrong_outputs) == [
        "input 'n' is in the signature, not in the graph",
        "input 'extra' is in the graph, not in the signature",
        "input 'x' is tensor(double) in the graph, tensor(float) in the signature",
        "input 'x' has shape [1, ?, 3] in the graph, [batch, time, 2] in the signature",
        "output 'y' has shape [?, 4] in the graph, [batch, time, 4] in the signature",
    ]
    wide = replace(SOUND, outputs=(replace(Y, shape=("batch", "time", "width")),))
    states = [value("h", "float", None, 4)], value("h_out", "float", None, 4)
    sides = [value("x", "float", None, None, 2), *states[0]]
    assert graph_problems(wide, sides, [value("y", "float", None, None, 7), states[1]]) == []
    assert len(graph_problems(wide, sides, [value("y", "float", None, 7, 7), states[1]])) == 1
    free = replace(SOUND, inputs=(replace(X, shape=("batch", "time", "width")),))
    assert (
        len(graph_problems(free, [value("x", "float", None, None, 7), *states[0]], [value("y", "float"), states[1]]))
        == 1
    )
    shaped = replace(SOUND, states=(replace(H, shape=(2, "batch", 2)),))
    assert len(graph_problems(shaped, sides, [value("y", "float"), states[1]])) == 2


def test_a_signature_as_a_table() -> None:
    said = Signature(
        (X, replace(IDS, minimum=None), TensorSpec("g", "float32", ("batch",))),
        (Y,),
        TensorSpec("n", "int64", ("batch",)),
        (H, replace(H, name="c", output="c_out", initial=StateSpec.encode_initial(np.ones(4, "f")))),
        causal=True,
        pick=GatherOutput("y", "at", "picked"),
        options=(Option("g", 1.5, minimum=0.0, maximum=2.0),),
    )
    assert list(ports_of(said)) == [
        Port("input", "x", "float32", "[batch, time, 2]", ""),
        Port("input", "ids", "int64", "[batch, time]", "below 9"),
        Port("option", "g", "float32", "[batch]", "1.5 if left out; at least 0 and at most 2"),
        Port("lengths", "n", "int64", "[batch]", "valid steps of each row"),
        Port("state", "h", "float32", "[batch, 4]", "-> h_out, starts at zero"),
        Port("state", "c", "float32", "[batch, 4]", "-> c_out, starts at a learned value"),
        Port("output", "y", "float32", "[batch, time, 4]", ""),
        Port("input of picks", "at", "int64", "[batch, time, picks]", "which numbers of y are asked"),
        Port("picks", "picked", "float32", "[batch, time, picks]", "these of y"),
    ]
