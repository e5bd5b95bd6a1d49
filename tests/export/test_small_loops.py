"""Loops that are rolled give the module's numbers at every size, and wait for the past with no more than they must."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.rolling.cell import RolledCell
from rnncore.export.tracing.rolling.loop import RolledLoop
from rnncore.export.tracing.rolling.program import RolledProgram
from tests.export.loops_by_hand import BATCH_ONLY, STREAMING
from tests.export.rolled import rolled
from tests.export.small_beginnings import BEGINNINGS
from tests.export.small_loops import SMALL, made
from tests.export.small_steps import STEPS
from tests.strategies import randomize
from tests.tolerances import fixed

PLAIN = ["5 -> addmm add tanh -> 5; h 5"]
PLANS: dict[str, list[str]] = {
    "from the end": ["5 -> addmm add tanh -> 5; h 5 backward"],
    "second and first": ["5 -> addmm add tanh -> 5; h 5 backward"],
    "items from the end": ["5 -> addmm add tanh -> 5; h 5 backward"],
    "loop behind loop": ["5 -> addmm add tanh -> 5; h 5", "5 -> addmm add tanh -> 5; h 5 backward"],
    "backward behind backward": ["5 -> addmm add tanh -> 5; h 5 backward", "5 -> addmm sub tanh -> 5; h 5"],
    "forward behind backward": ["5 -> addmm add tanh -> 5; h 5 backward", "5 -> addmm sub tanh -> 5; h 5 backward"],
    "written backward": ["5 -> addmm add tanh -> 5; h 5 backward"],
    "reads what it wrote": ["5 -> addmm add tanh -> 5; state 5"],
    "reads two before": ["5 -> sub addmm add tanh -> 5; state 5 state_2_ago 5 state_2 5"],
    "grows backward": ["5 -> addmm add tanh -> 5; h 5 backward"],
    "two ago": ["5 -> addmm add tanh -> 5; state 5 state_2_ago 5"],
    "hidden first": ["5 -> mm add tanh -> 5; h 5"],
    "turned rows": ["5 -> addmm add tanh reshape flip reshape -> 5; h 5"],
    "one number": ["1 -> mul add -> 1; h 1"],
    "of ids": ["5 -> embedding add tanh argmax select gt add -> 6; state 1 state_2 1 wide"],
    "with flags": ["6 -> bitwise_or unsqueeze addmm add tanh where -> 5; h 5 seen 1"],
    "counted": ["6 -> addmm add tanh div -> 5; h 5"],
    "steps left": ["6 -> addmm add tanh div -> 5; h 5 wide"],
    "extremes": [
        "20 -> ge where bitwise_or eq bitwise_or where maximum -> 15; state 5 state_2 5 state_3 5, sees [3, 5] wide",
        "20 -> le where bitwise_or eq bitwise_or where minimum -> 15; state 5 state_2 5 state_3 5, sees [3, 5] wide",
    ],
    "started by inputs": ["5 -> addmm add tanh -> 5; h 5 from outside"],
    "sequence in steps": ["1 -> unsqueeze mul sum add tanh -> 5; h 5, sees [3, 6, 5], sees [3, 1]"],
    "made larger": ["4 -> mul mul add -> 20; h (4, 5)"],
    "two states": ["15 -> many -> 10; state 5 state_2 1 state_3 5"],
    "backward from the last": ["5 -> addmm add tanh -> 5; h 5 backward from outside"],
    "features first": ["5 -> clamp lt mm add tanh where -> 5; h 5 state 1"],
    "other weights": ["10 -> clamp lt addmm add tanh where -> 5; h 5 state 1"],
    "written first": ["10 -> clamp lt addmm add tanh where -> 5; h 5 state 1"],
    "grown from it": ["5 -> addmm add tanh -> 5; h 5 from outside"],
    "without its result": ["10 -> clamp lt addmm add tanh where -> 5; h 5 state 1"],
    "whole sequence": ["5 -> addmm add tanh -> 5; h 5 from outside"],
    "of whole numbers": ["5 -> embedding add tanh argmax -> 5; ids 1 from outside"],
    "cell of torch": ["15 -> many -> 5; h 5"],
}
"""Of each loop: how many numbers a step reads, what is computed in it, how many it gives; its states, and what else it reads."""
BY_HAND: dict[str, tuple[dict[str, str], list[str]]] = {
    "lstm": ({"loop_layers.0": "loop"}, ["28 -> many -> 7; h 7 c 7"]),
    "layers in time": ({"loop_layers.0": "loop"}, ["18 -> many -> 9; state 3 y 4 y_2 6 state_2 3"]),
    "time in layers": (
        {"loop_layers.0": "cells.0", "loop_layers.1": "cells.1"},
        ["6 -> addmm add tanh -> 6; h 6", "4 -> addmm add relu -> 4; h 4"],
    ),
    "writes in place": ({"loop_layers.0": "loop"}, ["6 -> addmm add tanh -> 6; h 6"]),
    "grows": ({"loop_layers.0": "cell"}, ["18 -> many -> 6; h 6"]),
    "learned start": ({"loop_layers.0": "cell"}, ["24 -> many -> 12; state 6 state_2 6"]),
    "matrix memory": ({"loop_layers.0": "loop"}, ["16 -> mul mul add -> 32; memory (2, 4, 4)"]),
    "selective scan": ({"loop_layers.0": "loop"}, ["29 -> mul mul add -> 20; h (5, 4)"]),
    "two ago": ({"loop_layers.0": "loop"}, ["6 -> cat addmm add tanh -> 6; new 6 new_2 6 new_2_2_ago 6"]),
    "scans": (
        {"loop_layers.0": "loop", "loop_layers.1": "loop.loop_2"},
        ["4 -> maximum minimum eq sub where exp log1p add -> 4; state 4", "4 -> mul -> 4; state 4"],
    ),
    "reads first": ({"loop_layers.0": "loop"}, ["24 -> add add mul add mul add -> 12; state 6 state_2 6"]),
    "asks for first": ({"loop_layers.0": "loop"}, ["12 -> many -> 3; state 3 h 3 state_2 3 state_3 3"]),
    "first step": ({"loop_layers.0": "loop"}, ["12 -> clamp lt addmm add tanh where -> 6; h 6 state 1"]),
    "smooths": ({"loop_layers.0": "loop"}, ["10 -> clamp lt mul add where -> 5; level 5 state 1"]),
    "parallel scan": ({"loop_layers.0": "loop"}, ["8 -> mul add -> 4; state 4"]),
    "ways as rows": ({"loop_layers.0": "loop"}, ["6 -> addmm add tanh -> 6; h 6"]),
    "attends": ({"loop_layers.0": "loop"}, ["1 -> many -> 3; h 6 y 3, sees [3, 6, 5]"]),
    "greedy": (
        {
            "module.encoder.stack.layers.0": "encoder.layers.0",
            "module.decoder.stack.layers.0": "decoder.layers.0",
            "other_layers.0": "encoder.layers.0",
            "other_layers.1": "decoder.layers.0",
            "loop_layers.0": "loop",
        },
        ["1 -> many -> 9; state (1, 6) chosen 1, sees [3, 6, 6], sees [3, 6, 6] from outside"],
    ),
    "location sensitive": (
        {"loop_layers.0": "loop"},
        [
            "5 -> many -> 11; looked 6 weights 6 state 6 context 5 state_2 6, sees [3, 6, 7], sees [3, 6, 5] from outside"
        ],
    ),
}
"""Where layers are in the file, and of each loop the same."""


def plan_of(loop: RolledLoop, most: int = 8) -> str:
    assert loop.layer is not None
    cell, core = loop.layer.cell, loop.plan.core
    assert isinstance(cell, RolledCell)
    inside = " ".join(loop.plan.block.statements[place].op.name for place in core)
    inside = inside if len(core) <= most else "many"
    states = " ".join(f"{name} {size}" for name, size in cell.state_sizes.items())
    held = "".join(f", sees {[*example.shape]}" for example, _ in cell.captured_examples)
    kind = " backward" * loop.reverse + " from outside" * (cell.starts is None)
    kind += " wide" * (cell.dtype == torch.float64)
    return f"{cell.input_size} -> {inside} -> {cell.output_size}; {states}{held}{kind}"


def plans_of(program: RolledProgram) -> list[str]:
    return [plan_of(loop) for loop in program.loops if loop.layer is not None]


def check(module: nn.Module, program: RolledProgram, width: int, sizes: tuple[tuple[int, int], ...]) -> None:
    for batch, time in sizes:
        x = torch.randn(batch, time, width)
        with torch.no_grad():
            wanted, got = dict(named_tensors(module(x), "")), program(x)
        assert list(got) == list(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(
                got[name], value, rtol=0, atol=fixed("float32"), msg=f"{name} at {batch}, {time}"
            )


@pytest.mark.parametrize("name", {**SMALL, **STEPS, **BEGINNINGS})
def test_small_loops(name: str) -> None:
    module = made({**SMALL, **STEPS, **BEGINNINGS}[name])
    program = rolled(module, torch.randn(2, 7, 4))
    assert program is not None
    check(module, program, 4, ((1, 4), (3, 6), (2, 23)))
    assert plans_of(program) == PLANS.get(name, PLAIN)


@pytest.mark.parametrize("name", BY_HAND)
def test_loops_as_people_write_them(name: str) -> None:
    torch.manual_seed(0)
    module = randomize({**STREAMING, **BATCH_ONLY}[name]().eval(), 1)
    program = rolled(module, torch.randn(2, 7, 5))
    assert program is not None
    # States that are as long as the input are those of the recording, where nobody hands them in.
    check(module, program, 5, ((3, 6),) if name == "location sensitive" else ((1, 2), (2, 23)))
    assert (program.layer_names, plans_of(program)) == BY_HAND[name]


class TwoAgoFromOutside(nn.Module):
    """A step reads the state of two steps ago; both that it begins with are inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 5)

    def forward(self, x: Tensor, before: Tensor, h: Tensor) -> Tensor:
        out = []
        for t in range(x.shape[1]):
            before, h = h, torch.tanh(self.read(x[:, t]) + 0.5 * before)
            out.append(h)
        return torch.stack(out, 1)


def test_states_of_two_steps_ago_may_begin_with_inputs() -> None:
    module = TwoAgoFromOutside().eval()
    program = rolled(module, (torch.randn(2, 7, 4), torch.randn(2, 5), torch.randn(2, 5)))
    assert program is not None and len(program.loops) == 1
    given = torch.randn(3, 11, 4), torch.randn(3, 5), torch.randn(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(program(*given)[""], module(*given), rtol=0, atol=fixed("float32"))
