"""Every variant of every cell, side by side in one module: one export shows them all, in both forms and directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnncore
from tests.cells.variants import VARIANTS
from tests.export.backends import by_onnx_reference, by_runtime, by_streams
from tests.export.exporting import Exported, export_forms
from tests.oracle.adapt import oracle_of
from tests.parity import assert_same
from tests.strategies import CellSpec, randomize

pytestmark = pytest.mark.slow

INPUT, TIME = 5, 13
LENGTHS = np.array([13, 0, 5, 1, 12, 13, 3])

# One of each, all pairs of the four options of an LSTM, and what the options of the other cells are.
CHOSEN = (
    "rnn tanh",
    "rnn relu",
    "gru reset=after",
    "gru reset=before",
    "gru reset=None",
    "lstm",
    "lstm peephole=current",
    "lstm peephole=previous",
    "lstm projection=3",
    "lstm coupled=True",
    "lstm layer_norm=True",
    "lstm peephole=current projection=3 coupled=True",
    "lstm peephole=current layer_norm=True",
    "lstm peephole=previous coupled=True layer_norm=True",
    "lstm peephole=previous projection=3 layer_norm=True",
    "min_gru",
    "min_lstm",
)
OTHERS = {
    "gru, other functions": CellSpec("gru", 11, {"gate_activation": "hard_sigmoid", "activation": "softsign"}),
    "lstm, other functions": CellSpec("lstm", 11, {"gate_activation": "hard_sigmoid_keras2", "activation": "elu"}),
    "lstm, no bias": CellSpec("lstm", 11, {"bias": False}),
    "gru, learned": CellSpec("gru", 11, {"learn_initial_state": True}),
    "lstm, learned": CellSpec("lstm", 11, {"learn_initial_state": True, "projection": 3}),
}
SPECS = {**{name: VARIANTS[name] for name in CHOSEN}, **OTHERS}
REVERSED = (
    "rnn relu",
    "gru reset=before",
    "lstm peephole=current projection=3 coupled=True",
    "min_lstm",
    "lstm, learned",
)


class SideBySide(nn.Module):
    """Branches that all read x; each gives its output and its final states."""

    def __init__(self, names: tuple[str, ...], *, reverse: bool) -> None:
        super().__init__()
        self.names = names
        self.layers = nn.ModuleList(rnncore.Recurrent(SPECS[name].build(INPUT), reverse=reverse) for name in names)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        answers = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            y, state = layer(x)
            answers[name] = y
            answers |= {f"{name}: {of}": value for of, value in zip(layer.cell.state_sizes, state, strict=True)}
        return answers


def side_by_side(tmp_path_factory: pytest.TempPathFactory, *, reverse: bool) -> Exported:
    module = SideBySide(REVERSED if reverse else tuple(SPECS), reverse=reverse)
    module = randomize(module.eval(), 4)
    return export_forms(module, tmp_path_factory.mktemp("variants"), torch.randn(2, 4, INPUT))


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return side_by_side(tmp_path_factory, reverse=False)


@pytest.fixture(scope="module")
def backward(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return side_by_side(tmp_path_factory, reverse=True)


def by_notes(module: nn.Module, x: np.ndarray, lengths: np.ndarray | None) -> dict[str, np.ndarray]:
    """The answers by the equations of the notes."""
    assert isinstance(module, SideBySide)
    steps = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
    answers = {}
    for name, layer in zip(module.names, module.layers, strict=True):
        reference = oracle_of(layer)
        y, state = reference.run(x.astype(np.float64), reference.initial(len(x)), steps)
        answers[name] = y
        answers |= {f"{name}: {of}": value for of, value in zip(layer.cell.state_sizes, state, strict=True)}
    return answers


def example(scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(7).standard_normal((7, TIME, INPUT))).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["plain", "large"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("form", ["loop", "scan"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_variants_equal_the_notes(
    direction: str, form: str, lengths: np.ndarray | None, scale: float, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(direction)
    x = example(scale)
    got = by_runtime(exported.models[form])(x, lengths)
    expected = by_notes(exported.module, x, lengths)
    assert_same(got, expected, torch.float32, "onnx", depth=1, x=x, what=f"{direction} {form}")


@pytest.mark.parametrize("form", ["loop", "scan"])
def test_variants_stream(form: str, forward: Exported) -> None:
    x = example()
    got, expected = by_streams(forward.models[form], [1, 0, 5, 7])(x, None), by_notes(forward.module, x, None)
    assert_same(got, expected, torch.float32, "onnx", depth=1, x=x, what=f"streams, {form}")


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_variants_in_onnx_reference(direction: str, lengths: np.ndarray | None, request: pytest.FixtureRequest) -> None:
    """onnx's own evaluator in Python shares no code with onnxruntime: both branches of the If, and the Loop in each.

    ================  =======================================================================================
    onnx.reference    what it cannot do (onnx 1.23)
    ================  =======================================================================================
    Loop              joins the outputs of the steps along their first axis instead of a new one; tests mend that
    Loop, no steps    "need at least one array to concatenate"
    Scan              "not implemented" for reversed directions
    ================  =======================================================================================
    """
    exported: Exported = request.getfixturevalue(direction)
    x = example()
    for form in ["loop", *["scan"] * (direction == "forward")]:
        run = by_onnx_reference(exported.models[form], exported.proto(form))
        got, expected = run(x, lengths), by_notes(exported.module, x, lengths)
        assert_same(got, expected, torch.float32, "onnx", depth=1, x=x, what=f"onnx.reference, {form} {direction}")


def test_what_onnx_reference_cannot_do(forward: Exported, backward: Exported) -> None:
    """When onnx learns one of these, the table above and tests.export.backends can be shortened."""
    x = example()
    with pytest.raises(RuntimeError, match="other output input_direction than 0"):
        by_onnx_reference(backward.models["scan"], backward.proto("scan"))(x, None)
    with pytest.raises(ValueError, match="at least one array"):
        by_onnx_reference(forward.loop, forward.proto())(x[:, :0], None)
    with pytest.raises(RuntimeError, match="Inconsistent permutation"):
        by_onnx_reference(forward.loop, forward.proto(), mended=False)(x, None)
