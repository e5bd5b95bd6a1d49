"""Zoneout: at random while training, its expectation otherwise, in PyTorch and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import CellConfig, Classifier, GRUCell, LSTMCell, ReaderConfig, Recurrent, Zoneout, runtime
from rnncore.export import export_model
from rnncore.runtime.errors import InputError
from tests.strategies import randomize
from tests.tolerances import fixed


@given(h=st.sampled_from([0.0, 0.1, 0.6]), c=st.sampled_from([0.0, 0.3, 0.9]), seed=st.integers(0, 99))
def test_out_of_training_it_is_the_expectation_by_hand(h: float, c: float, seed: int) -> None:
    layer = randomize(Recurrent(Zoneout(LSTMCell(3, 5, learn_initial_state=True), {"h": h, "c": c})), seed).eval()
    cell, generator = layer.cell.cell, torch.Generator().manual_seed(seed)
    x, lengths = torch.randn(4, 6, 3, generator=generator), torch.tensor([6, 0, 3, 1])
    y, state = layer(x, None, lengths)
    wanted = torch.zeros_like(y)
    for row, length in enumerate(lengths.tolist()):
        old = cell.initial_state(1, x)
        for t in range(length):
            _, *new = cell.step(cell.project(x[row : row + 1, t]), *old)
            old = tuple(p * a + (1 - p) * b for p, a, b in zip((h, c), old, new, strict=True))
            wanted[row, t] = old[0][0]
        for found, own in zip(state, old, strict=True):
            torch.testing.assert_close(found[row], own[0], rtol=fixed("float32"), atol=fixed("float32"))
    torch.testing.assert_close(y, wanted, rtol=fixed("float32"), atol=fixed("float32"))


def test_while_training_each_feature_stays_or_becomes_what_the_cell_says() -> None:
    cell = Zoneout(GRUCell(3, 400), 0.3)
    z, h = cell.project(torch.randn(50, 3)), torch.randn(50, 400)
    y, became = cell.step(z, h)
    assert y is became, "what comes out is the state as it became"
    new = cell.cell.step(z, h)[1]
    assert bool(((became == h) | (became == new)).all())
    assert 5_600 < int((became == h).sum()) < 6_400  # of 20,000, six deviations each way
    assert not torch.equal(cell.step(z, h)[0], y)


def test_an_output_that_is_no_state_is_left_alone() -> None:
    class Doubled(GRUCell):
        def step(self, z: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
            _, new = super().step(z, h)
            return 2 * new, new

    cell = Zoneout(Doubled(3, 4), 0.5).eval()
    z, h = cell.project(torch.randn(2, 3)), torch.randn(2, 4)
    assert torch.equal(cell.step(z, h)[0], cell.cell.step(z, h)[0])


def test_a_file_streams_as_pytorch_does(tmp_path: Path) -> None:
    """Weight drop and smoothed labels leave no trace in it."""
    cells = (CellConfig("lstm", 5, zoneout={"h": 0.1, "c": 0.4}), CellConfig("gru", 4, {"reset": "before"}, 0.2))
    config = ReaderConfig(cells, features=3, weight_drop=0.5)
    model = randomize(Classifier(config, ["a", "b", "c"], label_smoothing=0.1), 3).eval()
    export_model(model, tmp_path / "model.onnx")
    file, x = runtime.load(tmp_path / "model.onnx"), torch.randn(2, 11, 3)
    with torch.no_grad():
        wanted = model(x).numpy()
    torch.testing.assert_close(
        torch.from_numpy(file.run(x.numpy())), torch.from_numpy(wanted), rtol=fixed("float32"), atol=fixed("float32")
    )
    with file.stream() as stream:
        found = [stream.push(part) for part in (x[0, :4].numpy(), x[0, 4:5].numpy(), x[0, 5:].numpy())][-1]
    torch.testing.assert_close(
        torch.from_numpy(found).reshape(-1, 3)[-1],
        torch.from_numpy(wanted[0]),
        rtol=fixed("float32"),
        atol=fixed("float32"),
    )


@pytest.mark.parametrize("rate", [1.0, -0.1, "much", {"h": 0.1, "d": 0.1}, True])
def test_rates_are_checked(rate: object) -> None:
    with pytest.raises(InputError, match=r"zoneout rate|no state 'd'"):
        Zoneout(GRUCell(3, 4), rate)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rnncore Cell"):
        Zoneout(torch.nn.GRUCell(3, 4), 0.1)  # type: ignore[arg-type]
