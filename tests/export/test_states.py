"""States that a module takes and returns, starts that no input changes: found, paired, and carried by streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import InputError
from tests.export import axes_modules as kinds
from tests.strategies import randomize
from tests.tolerances import fixed

CHUNKS = (3, 1, 0, 9, 4)


def streamed(model: runtime.Model, x: np.ndarray) -> np.ndarray:
    with model.stream() as stream:
        parts, start = [], 0
        for size in CHUNKS:
            answer = stream.push(x[start : start + size])
            parts.append(next(iter(answer.values())) if isinstance(answer, dict) else answer)
            start += size
    return np.concatenate(parts)


def check_streams(model: runtime.Model, module: nn.Module, *more: Tensor) -> None:
    """The file in chunks and whole against the module, which is given ``more`` beside the sequence."""
    x = torch.randn(1, sum(CHUNKS), 4)
    with torch.no_grad():
        answer = module(x, *more)
    expected = (answer[0] if isinstance(answer, tuple) else answer).numpy()
    np.testing.assert_allclose(streamed(model, x[0].numpy()), expected[0], atol=fixed("float32"))
    np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32"))


def test_a_state_that_forward_takes_and_returns(tmp_path: Path) -> None:
    module = kinds.with_state()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 9, 4), *torch.randn(2, 2, 2, 5)))
    model = runtime.load(report.path)
    assert model.inputs == ("x",) and model.outputs == ("output_0",)
    assert [(s.name, s.output, s.shape) for s in model.signature.states] == [
        ("h", "output_1", (2, "batch", 5)),
        ("c", "output_2", (2, "batch", 5)),
    ]
    check_streams(model, module, *torch.zeros(2, 2, 1, 5))
    x = torch.randn(1, 6, 4)
    with model.stream() as stream:
        h, c = torch.randn(2, 2, 1, 5)
        stream.set_state({"h": h[:, 0].numpy(), "c": c[:, 0].numpy()})
        got = stream.push(x[0].numpy())
        with torch.no_grad():
            expected, h, c = module(x, h, c)
        np.testing.assert_allclose(got, expected[0].numpy(), atol=fixed("float32"))
        np.testing.assert_allclose(stream.state["c"], c[:, 0].numpy(), atol=fixed("float32"))
        twin = model.restore(stream.save())
        np.testing.assert_array_equal(twin.push(x[0].numpy()), stream.push(x[0].numpy()))
    streams = [model.stream() for _ in range(3)]
    first = model.push_many(streams, [x[0].numpy()] * 3)
    np.testing.assert_allclose(first[2], model.run(x.numpy())[0], atol=fixed("float32"))


def test_batch_only_leaves_the_state_an_input(tmp_path: Path) -> None:
    module = kinds.with_state()
    inputs = (torch.randn(2, 9, 4), *torch.randn(2, 2, 2, 5))
    export(module, tmp_path / "m.onnx", inputs, streaming=False)
    model = runtime.load(tmp_path / "m.onnx")
    assert model.inputs == ("x", "h", "c")
    with torch.no_grad():
        expected = module(*inputs)
    got = model.run(*[value.numpy() for value in inputs])
    for name, value in zip(model.outputs, expected, strict=True):
        np.testing.assert_allclose(got[name], value.numpy(), atol=fixed("float32"))


class Started(nn.Module):
    """A start of the module's own: learned, written out, or read off the first step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.gru = nn.GRU(4, 5, 2, batch_first=True)
        self.start = nn.Parameter(torch.randn(2, 1, 5))
        self.read = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "learned":
            h = self.start.expand(-1, x.shape[0], -1).contiguous()
        elif self.kind == "repeated":
            h = torch.tanh(self.start).repeat(1, x.shape[0], 1)
        elif self.kind == "full":
            h = x.new_full((2, x.shape[0], 5), 0.5)
        else:
            h = self.read(x[:, -1]).expand(2, -1, -1).contiguous()
        return self.gru(x, h)[0]


@pytest.mark.parametrize("kind", ["learned", "repeated", "full"])
def test_a_start_that_no_input_changes_is_the_initial_value(kind: str, tmp_path: Path) -> None:
    module = randomize(Started(kind).eval(), 7)
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 9, 4), streaming=True)
    model = runtime.load(report.path)
    assert any(state.initial is not None for state in model.signature.states)
    check_streams(model, module)


def test_a_start_from_the_end_of_the_inputs_is_batch_only_by_name(tmp_path: Path) -> None:
    report = export(randomize(Started("read").eval(), 7), tmp_path / "m.onnx", torch.randn(2, 9, 4))
    assert not report.causal
    assert "gru.layers.0: starts from a state that forward hands over" in report.signature.not_causal_because


class Halved(nn.Module):
    """Its state is not what the layer ends with: only the caller can say that it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, end = self.gru(x, h[None] * 2)
        return y, end[0] / 2


def test_states_by_hand(tmp_path: Path) -> None:
    module = randomize(Halved().eval(), 8)
    inputs = (torch.randn(2, 9, 4), torch.zeros(2, 5))
    report = export(module, tmp_path / "auto.onnx", inputs)
    assert not report.causal and runtime.load(report.path).inputs == ("x", "h")
    report = export(module, tmp_path / "m.onnx", inputs, states={"h": "last"}, output_names=["y", "last"])
    model = runtime.load(report.path)
    assert report.causal and model.inputs == ("x",) and model.outputs == ("y",)
    check_streams(model, module, torch.zeros(1, 5))


def test_one_step_becomes_a_loop_over_time(tmp_path: Path) -> None:
    """A policy has no time axis: what its caller would write around it is the file."""
    policy = randomize(kinds.Policy().eval(), 11)
    report = export(policy, tmp_path / "m.onnx", (torch.randn(2, 4), torch.zeros(1, 2, 5)))
    model = runtime.load(report.path)
    assert report.causal and model.inputs == ("x",) and model.outputs == ("output_0",)
    x, h, expected = torch.randn(1, sum(CHUNKS), 4), torch.zeros(1, 1, 5), []
    with torch.no_grad():
        for t in range(x.shape[1]):
            y, h = policy(x[:, t], h)
            expected.append(y[0].numpy())
    np.testing.assert_allclose(streamed(model, x[0].numpy()), np.stack(expected), atol=fixed("float32"))
    np.testing.assert_allclose(model.run(x.numpy())[0], np.stack(expected), atol=fixed("float32"))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"h": "nothing"}, r"the inputs are \['x', 'h'\], the outputs \['output_0', 'output_1'\]"),
        ({"x": "output_0"}, "expected equal shapes with a batch and without a time axis"),
        ({"h": "output_0"}, "expected equal shapes"),
    ],
)
def test_states_that_are_none(states: dict[str, str], message: str, tmp_path: Path) -> None:
    inputs: Any = (torch.randn(2, 9, 4), torch.zeros(2, 5))
    with pytest.raises(InputError, match=message):
        export(Halved(), tmp_path / "m.onnx", inputs, states=states)
    assert list(tmp_path.iterdir()) == []


def test_one_step_says_what_it_has() -> None:
    inputs = (torch.randn(2, 4), torch.zeros(1, 2, 5))
    with pytest.raises(InputError, match=r"the inputs are \['x', 'h'\], the outputs \['output_0', 'output_1'\]"):
        export(kinds.Policy(), "unused.onnx", inputs, states={"h": "end"})
