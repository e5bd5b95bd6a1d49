"""Numbers that code computes of the sizes: roots, logarithms, powers, quotients, of which a file has to know the rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.rolling.curves import fit_curve
from rnncore.export.tracing.rolling.fitting import fit
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

NUMBERS: dict[str, Callable[[int], float]] = {
    "root": math.sqrt,
    "logarithm": lambda n: math.log(n + 1),
    "quotient": lambda n: 1 / n,
    "exponential": lambda n: math.exp(-n / 10),
    "product": lambda n: 0.125 * float(n),
    "of numpy": lambda n: float(np.sqrt(n)),
}
POINTS = [{"batch": b, "time": t} for b, t in ((3, 6), (3, 7), (3, 8), (3, 9), (4, 6), (4, 7), (5, 12), (3, 17))]


class Scaled(nn.Module):
    """A layer whose result is multiplied by a number of its size."""

    def __init__(self, number: Callable[[int], float]) -> None:
        super().__init__()
        self.layer, self.number = nn.GRU(4, 5, batch_first=True), number

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(x)
        return y * self.number(x.shape[1])


class Attending(nn.Module):
    """A loop whose scores are divided by a number of its size, and whose state is multiplied by one."""

    def __init__(self, number: Callable[[int], float]) -> None:
        super().__init__()
        self.cell, self.number = nn.GRUCell(5, 5), number

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 5), []
        for _ in range(x.shape[1]):
            scores = (x * h[:, None]).sum(-1) / self.number(x.shape[1])
            h = self.cell((torch.softmax(scores, 1)[..., None] * x).sum(1), torch.tanh(h * self.number(x.shape[1])))
            outputs.append(h)
        return torch.stack(outputs, 1)


class Fading(nn.Module):
    """A loop that reads nothing but the number and one step: no value in it has the steps as an axis."""

    def __init__(self, number: Callable[[int], float]) -> None:
        super().__init__()
        self.cell, self.number = nn.GRUCell(5, 5), number

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 5), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h / (1 + self.number(x.shape[1])))
            outputs.append(h)
        return torch.stack(outputs, 1)


def check(module: nn.Module, features: int, folder: Path) -> None:
    report = export(module.eval(), folder / "m.onnx", torch.randn(2, 9, features))
    model = runtime.load(report.path)
    for batch, steps in ((1, 2), (2, 9), (3, 40)):
        x = torch.randn(batch, steps, features)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(x.numpy()), module(x).numpy(), atol=fixed("float32"))


@pytest.mark.parametrize("kind", NUMBERS)
def test_beside_a_layer(kind: str, tmp_path: Path) -> None:
    check(Scaled(NUMBERS[kind]), 4, tmp_path)


@pytest.mark.parametrize("kind", ["root", "logarithm", "product"])
@pytest.mark.parametrize("module", [Attending, Fading])
def test_inside_a_loop(module: type[nn.Module], kind: str, tmp_path: Path) -> None:
    check(module(NUMBERS[kind]), 5, tmp_path)


def test_squares_of_the_steps(tmp_path: Path) -> None:
    check(Fading(lambda n: n * n + 1), 5, tmp_path)


def test_where_no_tensor_may_stand_is_refused_by_its_line(tmp_path: Path) -> None:
    class Clamped(Fading):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).clamp(max=1 / x.shape[1])

    with pytest.raises(ExportError, match="otherwise than by sums and products, in clamp") as failure:
        export(Clamped(math.sqrt).eval(), tmp_path / "m.onnx", torch.randn(2, 9, 5))
    assert "test_numbers_of_sizes.py" in str(failure.value)


@settings(deadline=None)
@given(
    shape=st.sampled_from(["sqrt", "rsqrt", "quotient", "log", "exp", "power"]),
    factor=st.sampled_from([-2.5, -1.0, 0.25, 1.0, 3.0]),
    shift=st.integers(-3, 9),
    other=st.sampled_from([0.3, -0.75, 1.5, 2.5]),
)
def test_curves_go_on_as_they_began(shape: str, factor: float, shift: int, other: float) -> None:
    """What is fitted at a few sizes holds far beyond them."""
    rules: dict[str, Callable[[int], float]] = {
        "sqrt": lambda n: abs(factor) * math.sqrt(n + shift),
        "rsqrt": lambda n: abs(factor) / math.sqrt(n + shift),
        "quotient": lambda n: factor / (n + shift),
        "log": lambda n: factor * math.log(n) + shift if factor != 1.0 else math.log(n + shift),
        "exp": lambda n: abs(factor) * math.exp(other * n / 10),
        "power": lambda n: abs(factor) * n**other,
    }
    rule = rules[shape]
    values = [rule(point["time"]) for point in POINTS]
    plain = fit(values, POINTS)
    curve = plain if plain is not None else fit_curve(values, POINTS)
    assert curve is not None
    for steps in (1, 5, 64, 1000):
        if steps + shift > 0:
            assert curve({"batch": 2, "time": steps}) == pytest.approx(rule(steps), rel=fixed("float32"))


@settings(deadline=None)
@given(values=st.lists(st.floats(-10, 10), min_size=len(POINTS), max_size=len(POINTS)))
def test_what_follows_no_rule_has_no_curve(values: list[float]) -> None:
    """A curve goes through what it was fitted to, or there is none."""
    found = fit_curve(values, POINTS)
    if found is not None:
        assert [found(point) for point in POINTS] == pytest.approx(values, rel=fixed("float32"))


def test_few_numbers_are_no_curve() -> None:
    assert fit_curve([1 / point["batch"] for point in POINTS], POINTS) is None
