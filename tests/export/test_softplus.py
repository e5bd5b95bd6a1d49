"""``Softplus`` of many numbers is written out and stays what it was, of every size of number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.softplus import branch_softplus
from rnncore.runtime import load
from tests.export.exporting import all_nodes
from tests.export.small_graphs import model as written
from tests.export.test_graph_parts import graph, main_graph, run, value
from tests.tolerances import fixed

FLOATS = st.floats(-105, 105, width=32) | st.sampled_from([0.0, -0.0, 1e-30, -1e-6, np.inf, -np.inf, np.nan])


def both_signs() -> ir.Graph:
    """softplus(x), softplus(-x) and softplus(x) again, x [b, t, 4]."""
    builder = Builder("g", main_graph())
    x = value("x", "b", "t", 4)
    outputs = [builder.op("Softplus", builder.op("Neg", x)), builder.op("Softplus", x), builder.op("Softplus", x)]
    return graph([x], builder, outputs)


def kinds(made: ir.Graph) -> list[str]:
    return [node.op_type for node in made]


@given(numbers=st.lists(FLOATS, min_size=1, max_size=6), steps=st.sampled_from([0, 1, 20, 21, 22, 60]))
def test_few_and_many_numbers_are_what_float64_says(numbers: list[float], steps: int) -> None:
    made = both_signs()
    branch_softplus(made)
    assert kinds(made).count("If") == 1 and "Softplus" not in kinds(made)
    x = np.resize(np.float32(numbers), (3, steps, 4))
    mirrored, plain, again = run(made, x=x)
    np.testing.assert_array_equal(plain, again)
    for got, of in ((plain, x), (mirrored, -x)):
        with np.errstate(invalid="ignore"):
            wanted = np.logaddexp(0, of.astype(np.float64))
        np.testing.assert_allclose(got, wanted, rtol=fixed("float32 same steps"), atol=np.finfo(np.float32).tiny)


def test_the_question_is_asked_once_for_values_of_the_same_sizes() -> None:
    builder = Builder("g", main_graph())
    x, y, z = value("x", "b", "t", 4), value("y", "b", "t", 4), value("z", "b", "t", 5)
    made = graph([x, y, z], builder, [builder.op("Softplus", one) for one in (x, y, z)])
    branch_softplus(made)
    assert [kinds(made).count(kind) for kind in ("ReduceProd", "If")] == [2, 3]
    drawn = [np.random.default_rng(0).normal(size=(2, 50, width)).astype(np.float32) for width in (4, 4, 5)]
    for got, of in zip(run(made, x=drawn[0], y=drawn[1], z=drawn[2]), drawn, strict=True):
        np.testing.assert_allclose(got, np.logaddexp(0, of), rtol=fixed("float32 same steps"))


@pytest.mark.parametrize("text", ["x[3,4] -> y[3,4]\ny = Softplus(x)", "x:d[b,4] -> y:d[b,4]\ny = Softplus(x)"])
def test_fixed_sizes_and_doubles_are_left_alone(text: str) -> None:
    made = written(text).graph
    branch_softplus(made)
    assert kinds(made) == ["Softplus"]


class Rates(nn.Module):
    """Steps whose size a softplus decides, as in Mamba: h[t] = h[t-1] exp(-dt) + dt x."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        steps = nn.functional.softplus(self.rate(x))
        h, out = torch.zeros(x.shape[0], 8), []
        for t in range(x.shape[1]):
            h = h * torch.exp(-steps[:, t]) + steps[:, t]
            out.append(h)
        return torch.stack(out, 1)


@pytest.mark.parametrize("branches", [True, False])
def test_a_file_gives_torchs_numbers_below_and_above(branches: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Rates().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3), branches=branches)
    assert report.signature.causal
    names = {name for node in all_nodes(onnx.load(tmp_path / "m.onnx").graph) for name in node.output}
    assert any(name.startswith("softplus/") for name in names) == branches
    model = load(tmp_path / "m.onnx")
    for batch, steps in ((1, 1), (2, 16), (2, 17), (4, 90)):
        x = 3 * torch.randn(batch, steps, 3)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(x.numpy()), module(x), atol=fixed("float32"), rtol=fixed("float32"))
