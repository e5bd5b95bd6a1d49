"""Loops that people write in Python become loops of the file: every spelling, at every length, as a stream where they can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore.export import export
from rnncore.runtime import Model, load
from rnncore.runtime.errors import ExportError
from tests.export.exporting import all_nodes
from tests.export.loops_by_hand import BATCH_ONLY, STREAMING, WIDTH, Lstm, Pairs
from tests.tolerances import fixed

pytestmark = pytest.mark.slow
SIZES = ((1, 1), (3, 2), (2, 23), (1, 150))
TOLERANCE = {"rtol": 0, "atol": fixed("float32")}


class Together(nn.Module):
    """Modules side by side, as one export costs little more than another: outputs by name."""

    def __init__(self, makers: Mapping[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name.replace(" ", "_"): make() for name, make in makers.items()})

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {name: part(x) for name, part in self.parts.items()}


def named(outputs: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Outputs as the file names them."""
    if isinstance(outputs, Tensor):
        return {prefix: outputs.numpy()}
    pairs = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    found: dict[str, np.ndarray] = {}
    for key, value in pairs:
        found |= named(value, f"{prefix}_{key}" if prefix else str(key))
    return found


def answers(module: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return named(module(x))


def check_whole(module: nn.Module, model: Model) -> None:
    for batch, time in SIZES:
        x = torch.randn(batch, time, WIDTH)
        got = model.run(x.numpy())
        for name, wanted in answers(module, x).items():
            np.testing.assert_allclose(got[name], wanted, **TOLERANCE, err_msg=f"{name} at {batch}, {time}")


def test_loops_of_every_spelling_stream(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Together(STREAMING).eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, WIDTH))
    assert report.causal, report.signature.not_causal_because
    model = load(report.path)
    check_whole(module, model)
    x = torch.randn(1, 29, WIDTH)
    parts: list[Mapping[str, np.ndarray]] = []
    with model.stream() as stream:
        for a, b in ((0, 1), (1, 8), (8, 8), (8, 29)):
            parts.append(stream.push(x[0, a:b].numpy()))
    for name, wanted in answers(module, x).items():
        whole = wanted.shape[1] == 29
        got = np.concatenate([part[name] for part in parts]) if whole else parts[-1][name]
        np.testing.assert_allclose(got, wanted[0], **TOLERANCE, err_msg=name)
    matrices = {state.name: state.shape for state in report.signature.states if state.shape is not None}
    assert matrices == {
        "parts.matrix_memory.memory": ("batch", 2, 4, 4),
        "parts.selective_scan.h": ("batch", 5, 4),
    }


def test_loops_that_look_ahead_run_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Together(BATCH_ONLY).eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, WIDTH))
    assert not report.causal
    check_whole(module, load(report.path))


def test_a_loop_over_pairs_of_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Pairs().eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, WIDTH))
    assert report.causal, report.signature.not_causal_because
    for batch, time in ((1, 2), (3, 7), (2, 40)):
        x = torch.randn(batch, time, WIDTH)
        np.testing.assert_allclose(load(report.path).run(x.numpy()), answers(module, x)[""], **TOLERANCE)


@pytest.mark.parametrize("options", [{"form": "scan"}, {"form": "portable"}, {"quantize": "int8"}], ids=str)
def test_a_rolled_loop_is_a_layer_like_any_other(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Lstm(size=24).eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, WIDTH), **options)
    assert report.causal
    assert [state.name for state in report.signature.states] == ["loop.h", "loop.c"]
    x, lengths = torch.randn(3, 9, WIDTH), np.array([9, 2, 5])
    got = load(report.path).run(x.numpy(), lengths=lengths)
    tolerance = fixed("int8 answer") if "quantize" in options else fixed("float32")
    for row, length in enumerate(lengths):
        with torch.no_grad():
            wanted = module(x[row : row + 1, :length])[0].numpy()
        np.testing.assert_allclose(got[row, :length], wanted, rtol=0, atol=tolerance)


class GrowsInside(nn.Module):
    """Each step looks at all steps before it: what it reads is longer every time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h, past = x.new_zeros(x.shape[0], WIDTH), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            past.append(h)
            h = torch.stack(past, 1).mean(1)
        return torch.stack(past, 1)


class Changes(nn.Module):
    """Every third step is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], WIDTH)
        for t in range(x.shape[1]):
            h = (torch.add, self.cell, self.cell)[t % 3](x[:, t], h)
        return h


@pytest.mark.parametrize("make", [GrowsInside, Changes])
def test_what_cannot_be_rolled_names_the_line(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{make.__name__}.*rolled") as caught:
        export(make().eval(), tmp_path / "model.onnx", torch.randn(2, 6, WIDTH))
    message = str(caught.value)
    assert len(message.splitlines()) <= 12 and Path(__file__).name in message, message
    assert list(tmp_path.iterdir()) == []


class Memory(rnncore.Cell):
    """A cell whose state is a matrix beside a vector."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 4, {"matrix": (4, 3), "vector": 3}, learn_initial_state=True)
        self.make = nn.Linear(WIDTH, 7)

    def project(self, x: Tensor) -> Tensor:
        return self.make(x)

    def step(self, z: Tensor, matrix: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        key, value = z.split([4, 3], -1)
        matrix = 0.8 * matrix + key[:, :, None] * torch.tanh(value)[:, None]
        vector = 0.5 * vector + value
        return (matrix @ vector[:, :, None])[:, :, 0], matrix, vector


def test_a_cell_with_a_matrix_for_a_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = rnncore.Recurrent(Memory())
    with torch.no_grad():
        layer.cell.get_parameter("initial_matrix").normal_()
    x, lengths = torch.randn(3, 9, WIDTH), torch.tensor([9, 2, 5])
    with torch.no_grad():
        y, (matrix, _) = layer(x, None, lengths)
        alone, (matrix_alone, _) = layer(x[1:2, :2])
    torch.testing.assert_close(y[1, :2], alone[0])
    torch.testing.assert_close(matrix[1], matrix_alone[0])
    report = export(layer, tmp_path / "model.onnx", (x,), streaming=True)
    model = load(report.path)
    got = model.run(x.numpy(), lengths=lengths.numpy())
    np.testing.assert_allclose(got["0"] if "0" in got else next(iter(got.values())), y.numpy(), **TOLERANCE)
    with model.stream() as stream:
        parts = [next(iter(stream.push(x[0, a:b].numpy()).values())) for a, b in ((0, 4), (4, 9))]
    np.testing.assert_allclose(np.concatenate(parts), y[0].numpy(), **TOLERANCE)


class _StabilisedGates(nn.Module):
    """The gates of an mLSTM step: the logarithm of one waits for no state, and logsigmoid gives a buffer beside its result."""

    def forward(self, gates: Tensor) -> Tensor:
        most = gates.new_zeros(gates.shape[0], 4)
        seen = []
        for t in range(gates.shape[1]):
            forget, enter = gates[:, t].chunk(2, -1)
            most = torch.maximum(torch.nn.functional.logsigmoid(forget) + most, enter)
            seen.append(most)
        return torch.stack(seen, 1)


def test_what_waits_for_no_state_is_computed_outside_of_the_loop(tmp_path: Path) -> None:
    export(_StabilisedGates(), tmp_path / "model.onnx", torch.randn(2, 7, 8))
    graph = onnx.load(tmp_path / "model.onnx").graph
    loops = [node for node in graph.node if node.op_type in ("If", "Loop")]
    inside = {n.op_type for loop in loops for a in loop.attribute if a.HasField("g") for n in all_nodes(a.g)}
    assert "Max" in inside and not {"Log", "Exp"} & inside
