"""Learning curves, gradient norms, and what the norms are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import rnncore
from rnncore.plots.gradient_norms import plot_gradient_norms
from rnncore.plots.learning import plot_learning
from rnncore.runtime.errors import InputError
from rnncore.training import gradient_norms
from tests.cells.variants import VARIANTS
from tests.strategies import randomize
from tests.tolerances import fixed

ROWS = [
    {"epoch": 1, "training_loss": 2.0, "held_out_loss": 1.5, "accuracy": 0.5},
    {"epoch": 2, "training_loss": 1.0, "held_out_loss": 1.25, "accuracy": 0.75},
    {"epoch": 3, "training_loss": 0.5, "held_out_loss": 1.75, "accuracy": 0.7},
]


def test_a_learning_curve_from_rows_and_from_a_file(tmp_path: Path) -> None:
    plot_learning(ROWS, tmp_path / "rows.svg")
    lines = [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS)]
    (tmp_path / "metrics.csv").write_text("\n".join(lines), encoding="utf-8")
    plot_learning(tmp_path / "metrics.csv", tmp_path / "file.svg")
    drawn = [(tmp_path / name).read_text() for name in ("rows.svg", "file.svg")]
    for text in drawn:
        assert "<!-- best: 1.25 -->" in text
        assert "<!-- accuracy (last: 0.7) -->" in text
        assert "single steps" not in text
    (tmp_path / "steps.csv").write_text(
        "step,epoch,loss\n" + "\n".join(f"{i},{i // 4 + 1},{9 / i}" for i in range(1, 12))
    )
    plot_learning(tmp_path / "metrics.csv", tmp_path / "steps.svg")
    assert "single steps" in (tmp_path / "steps.svg").read_text()


def test_what_is_no_learning_curve(tmp_path: Path) -> None:
    bad = tmp_path / "metrics.csv"
    for content in ("", "a,b\n1,2\n", "epoch,training_loss,held_out_loss\n1,x,2\n", "epoch,training_loss\n1,2,3\n"):
        bad.write_text(content)
        with pytest.raises(InputError, match=r"metrics\.csv"):
            plot_learning(bad, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_gradient_norms_of_a_linear_recurrence_are_powers_of_its_factor() -> None:
    """h = 0.5 h + x in one dimension: known without any library."""
    cell = rnncore.RNNCell(1, 1, activation="linear", bias=False).double()
    with torch.no_grad():
        cell.weight_hh.fill_(0.5)
        cell.weight_ih.fill_(3.0)
    x = torch.randn(1, 5, 1, dtype=torch.float64)
    by_state, by_input = (gradient_norms(cell, x, of=of) for of in ("state", "input"))
    torch.testing.assert_close(by_state / by_state[0], 0.5 ** torch.arange(5, dtype=torch.float64))
    torch.testing.assert_close(by_input, 6.0 * by_state)


@pytest.mark.parametrize("name", ["gru reset=before", "lstm peephole=previous projection=3", "min_lstm"])
def test_gradient_norms_are_those_of_finite_differences(name: str) -> None:
    cell = randomize(VARIANTS[name].build(3).double(), seed=3)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    layer = rnncore.Recurrent(cell, fused=False)
    direction = torch.randn(2, cell.output_size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def loss(step: int, row: int, feature: int, shift: float) -> float:
        moved = x.clone()
        moved[row, step, feature] += shift
        return (layer(moved)[0][:, -1] * direction).sum().item()

    norms = gradient_norms(cell, x, of="input", seed=4)
    for distance in (0, 2, 5):
        squares = [
            ((loss(5 - distance, row, feature, 1e-5) - loss(5 - distance, row, feature, -1e-5)) / 2e-5) ** 2
            for row in range(2)
            for feature in range(3)
        ]
        assert float(norms[distance]) == pytest.approx(math.sqrt(sum(squares) / 2), rel=fixed("float32"))
    assert gradient_norms(cell, x).shape == (6,)


def test_gradient_norms_are_drawn(tmp_path: Path) -> None:
    plot_gradient_norms({"RNN (new)": [2.0, 0.1, 0.0], "RNN (old)": [1.0, 1.0]}, tmp_path / "norms.svg", title="Far")
    drawn = (tmp_path / "norms.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("RNN (new)", "RNN (old)", "Far"))
    for wrong in ({}, {"RNN": []}, {"RNN": [0.0, 1.0]}):
        with pytest.raises(InputError, match="expected at least one value, the first above 0"):
            plot_gradient_norms(wrong, tmp_path / "no.png")
    with pytest.raises(InputError, match="x has shape"):
        gradient_norms(rnncore.GRUCell(3, 2), torch.zeros(2, 0, 3))
    with pytest.raises(InputError, match="of is 'c'"):
        gradient_norms(rnncore.GRUCell(3, 2), torch.zeros(2, 1, 3), of="c")
