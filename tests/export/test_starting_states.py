"""What explicit states start from: what every row of the example starts with, or zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.example import Input
from rnncore.export.tracing.starting_states import begun, remarks_on, start_of, starts_of
from tests.tolerances import fixed


class Memory(nn.Module):
    """A matrix memory that forward takes and returns, as relational memories do."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for t in range(x.shape[1]):
            memory = torch.tanh(0.5 * memory + self.read(x[:, t])[:, :, None] * self.write(x[:, t])[:, None])
            outputs.append(memory.flatten(1))
        return torch.stack(outputs, 1), memory

    def beginning(self, batch: int) -> Tensor:
        return torch.eye(3, 5).expand(batch, 3, 5)


class Step(nn.Module):
    """One step of a recurrence, its state taken and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return 2 * h, h


def test_a_file_starts_from_what_every_row_starts_with(tmp_path: Path) -> None:
    module = Memory().eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 9, 4), module.beginning(2)))
    assert "state 'memory' starts from what every row of the example starts with" in str(report)
    model = runtime.load(report.path)
    for batch, steps in ((1, 1), (3, 7), (5, 20)):
        x = torch.randn(batch, steps, 4)
        with torch.no_grad():
            expected = module(x, module.beginning(batch))[0].numpy()
        np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32"))
    with model.stream() as stream:
        parts = [stream.push(part) for part in np.split(x[0].numpy(), [3, 4, 11])]
    np.testing.assert_allclose(np.concatenate(parts), expected[0], atol=fixed("float32"))
    assert runtime.verify(report.path).passed


def test_rows_that_differ_are_no_start(tmp_path: Path) -> None:
    module = Memory().eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 9, 4), torch.randn(2, 3, 5)))
    assert "state 'memory' starts from zeros: what the example starts with differs" in str(report)
    x = torch.randn(2, 6, 4)
    with torch.no_grad():
        expected = module(x, torch.zeros(2, 3, 5))[0].numpy()
    np.testing.assert_allclose(runtime.load(report.path).run(x.numpy()), expected, atol=fixed("float32"))


def test_one_step_starts_as_the_example_does(tmp_path: Path) -> None:
    module, start = Step().eval(), torch.tensor([0.5, -0.25, 1.0])
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 4), start.expand(2, 3)), states={"h": "output_1"})
    x, h, expected = torch.randn(2, 6, 4), start.expand(2, 3), []
    with torch.no_grad():
        for t in range(6):
            y, h = module(x[:, t], h)
            expected.append(y.numpy())
    np.testing.assert_allclose(runtime.load(report.path).run(x.numpy()), np.stack(expected, 1), atol=fixed("float32"))


@settings(deadline=None)
@given(rows=st.integers(1, 4), shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), batch=st.data())
def test_only_equal_rows_are_a_start(rows: int, shape: list[int], batch: st.DataObject) -> None:
    at = batch.draw(st.integers(0, len(shape)))
    row = torch.randint(-2, 3, (*shape[:at], 1, *shape[at:]), generator=torch.Generator().manual_seed(rows)).float()
    value = row.expand(*shape[:at], rows, *shape[at:]).clone()
    axes = tuple("batch" if axis == at else None for axis in range(value.dim()))
    state = Input("h", value, axes)
    start = start_of(state)
    if rows > 1 and row.any():
        assert start is not None and torch.equal(start, row)
        assert np.array_equal(starts_of([state])["h"], row.flatten().numpy())
        changed = value.clone()
        changed.select(at, rows - 1).add_(1)
        assert start_of(Input("h", changed, axes)) is None
        infinite = torch.full_like(value, float("-inf"))
        assert start_of(Input("h", infinite, axes)) is None
    else:
        assert start is None and not starts_of([state])
    like = torch.ones(*shape[:at], rows + 2, *shape[at:])
    wanted = row.expand_as(like) if start is not None else torch.zeros_like(like)
    assert torch.equal(begun(state, like), wanted)
    assert bool(remarks_on([state])) == bool(row.any())
    assert start_of(Input("h", value, (*axes[:-1], "time") if at < len(shape) else ("time", *axes[1:]))) is None
