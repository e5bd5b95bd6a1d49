"""form="fused": ONNX's own operators where they compute exactly the cell, a reasoned refusal everywhere else."""

from __future__ import annotations

import io
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import rnncore
from rnncore.export import export, form_advice
from rnncore.export.targets import choose_forms
from rnncore.runtime import Model, load
from rnncore.runtime.errors import ExportError
from tests.export.modules import Network
from tests.strategies import randomize
from tests.tolerances import fixed

INPUT, HIDDEN = 3, 5

FUSABLE = {
    **{f"rnn_{a}": {"activation": a} for a in ("tanh", "relu", "softsign", "hard_sigmoid", "elu", "leaky_relu")},
    **{f"gru_{r}": {"reset": r} for r in ("after", "before")},
    **{
        f"gru_{r}_hard": {
            "reset": r,
            "gate_activation": "hard_sigmoid_keras2",
            "activation": "softsign",
            "bias": False,
        }
        for r in ("after", "before")
    },
    "lstm_plain": {},
    "lstm_peephole": {"peephole": "current"},
    "lstm_coupled": {"coupled": True},
    "lstm_coupled_peephole": {"coupled": True, "peephole": "current", "bias": False},
    "lstm_learned": {"gate_activation": "hard_sigmoid", "activation": "relu", "learn_initial_state": True},
}

REFUSED = {
    "ONNX's LSTM has no projection": rnncore.LSTMCell(INPUT, HIDDEN, projection=2),
    "ONNX's LSTM has no layer normalisation": rnncore.LSTMCell(INPUT, HIDDEN, layer_norm=True),
    "ONNX's output peephole sees the current memory (peephole='current'), not the previous one": rnncore.LSTMCell(
        INPUT, HIDDEN, peephole="previous"
    ),
    "ONNX's GRU always has a reset gate": rnncore.GRUCell(INPUT, HIDDEN, reset=None),
    "ONNX has no operator for MinGRUCell": rnncore.MinGRUCell(INPUT, HIDDEN),
    "ONNX's operators have no activation 'gelu'": rnncore.RNNCell(INPUT, HIDDEN, activation="gelu"),
    "coupled gates turn into ONNX's only for the sigmoid, where 1 - f(v) = f(-v)": rnncore.LSTMCell(
        INPUT, HIDDEN, coupled=True, gate_activation="hard_sigmoid"
    ),
}


class Parallel(nn.Module):
    """Every fusable cell on the same input, each an output of its own."""

    def __init__(self, reverse: bool) -> None:
        super().__init__()
        kinds = {"rnn": rnncore.RNNCell, "gru": rnncore.GRUCell, "lstm": rnncore.LSTMCell}
        self.branches = nn.ModuleDict(
            {
                name: rnncore.Recurrent(kinds[name.partition("_")[0]](INPUT, HIDDEN, **options), reverse=reverse)
                for name, options in FUSABLE.items()
            }
        )

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        results = {}
        for name, layer in self.branches.items():
            y, state = layer(x, lengths=lengths)
            results[name] = y
            results.update({f"{name}_{i}": s for i, s in enumerate(state)})
        return results


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_every_fusable_cell_equals_pytorch_with_lengths_of_zero(tmp_path: Path, reverse: bool) -> None:
    module = randomize(Parallel(reverse).eval(), seed=3)
    path = tmp_path / "fused.onnx"
    export(module, path, (torch.randn(2, 4, INPUT), torch.tensor([4, 2])), form="fused", streaming=False)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert {"RNN", "GRU", "LSTM"} <= operators and not operators & {"Loop", "Scan"}
    x = torch.randn(5, 7, INPUT, generator=torch.Generator().manual_seed(5))
    lengths = torch.tensor([7, 0, 1, 3, 6])
    got = load(path).run(x.numpy(), lengths=lengths.numpy())
    with torch.no_grad():
        for name, expected in module(x, lengths).items():
            np.testing.assert_allclose(got[name], expected.numpy(), atol=fixed("float32 fused operator"), err_msg=name)


class Refused(nn.Module):
    """Every cell that has no such operator, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(rnncore.Recurrent(cell) for cell in REFUSED.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x)[0] for layer in self.encoder]


def test_refusals_name_the_layer_the_reason_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(Refused(), tmp_path / "x.onnx", torch.randn(2, 4, INPUT), form="fused", streaming=False, verify=False)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == len(REFUSED) and not list(tmp_path.iterdir())
    for number, (reason, line) in enumerate(zip(REFUSED, lines, strict=True)):
        assert line.endswith(f"layer 'encoder.{number}': {reason}; use form='loop' or 'scan'")


class Small(nn.Module):
    """Layers of which form="auto" writes both: the operator, and a Scan for what it hides."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUT, HIDDEN, 2, batch_first=True)
        self.gru = nn.GRU(HIDDEN, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(x)[0])[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, Path]:
    module = randomize(Small().eval(), seed=7)
    path = tmp_path_factory.mktemp("both") / "both.onnx"
    report = export(module, path, torch.randn(2, 4, INPUT), form="auto", streaming=True)
    assert report.form == "fused+scan"
    return module, path


UNUSUAL = st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e31, -1e29])


@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    unusual=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, INPUT - 1), UNUSUAL), max_size=2),
    cuts=st.lists(st.integers(0, 7), max_size=4),
    seed=st.integers(0, 99),
)
def test_the_operator_beside_a_scan_shows_what_pytorch_shows(
    both: tuple[Small, Path],
    lengths: list[int],
    unusual: list[tuple[int, int, int, float]],
    cuts: list[int],
    seed: int,
) -> None:
    """NaN where it is, and after it, in whole batches with padding, alone, and in chunks, of one step among others."""
    module, model = both[0], _loaded(both[1])
    x = np.random.default_rng(seed).standard_normal((len(lengths), 7, INPUT)).astype(np.float32)
    for row, t, column, value in unusual:
        x[row % len(lengths), t, column] = value
    together = model.run(x, lengths=lengths)
    for row, (own, length) in enumerate(zip(x, lengths, strict=True)):
        own = own[:length]
        if length == 0:
            assert not together[row].any()
            continue
        with torch.no_grad():
            wanted = module(torch.from_numpy(own)[None])[0].numpy()
        ends = sorted({min(cut, length) for cut in cuts} | {0, length})
        with model.stream() as stream:
            parts = [stream.push(own[start:end]) for start, end in pairwise(ends)]
        for found in (together[row, :length], model.run(own[None])[0], np.concatenate(parts)):
            np.testing.assert_allclose(found, wanted, atol=fixed("float32"), rtol=0, equal_nan=True)


@cache
def _loaded(path: Path) -> Model:
    return load(path)


def test_weights_that_overflow_and_other_activations_get_no_operator(both: tuple[Small, Path]) -> None:
    """As it would hide what comes of them; ``choose_forms`` alone, without an export."""
    graph = onnx.load(both[1]).graph
    assert "LSTM" not in {node.op_type for node in graph.node}, "it stands in a branch"
    wild = rnncore.LSTMCell(INPUT, HIDDEN)
    with torch.no_grad():
        wild.weight_hh[0, 0] = 1e7
    usual = rnncore.GRUCell(INPUT, HIDDEN)
    cells = {
        "fused+scan": [usual, rnncore.LSTMCell(INPUT, HIDDEN, coupled=True, peephole="current")],
        "scan": [
            wild,
            rnncore.LSTMCell(INPUT, HIDDEN, activation="relu"),
            rnncore.GRUCell(INPUT, HIDDEN).double(),
            rnncore.LSTMCell(750, 750),
        ],
    }
    for form, own in cells.items():
        for cell in own:
            call = SimpleNamespace(name="layer", cell=cell, layer=SimpleNamespace(reverse=False), lengths=True)
            assert choose_forms([call], "auto", "onnxruntime", int8=False)["layer"].form == form, cell  # type: ignore[list-item]
            assert choose_forms([call], "auto", "portable", int8=False)["layer"].form == "portable", cell  # type: ignore[list-item]
    call = SimpleNamespace(name="layer", cell=usual, layer=SimpleNamespace(reverse=False), lengths=True)
    assert choose_forms([call], "auto", "onnxruntime", int8=True)["layer"].form == "scan"  # type: ignore[list-item]


def test_the_operator_and_the_scan_share_one_copy_of_the_weights(both: tuple[Small, Path]) -> None:
    """And answer alike where nothing computes them before the first call."""
    module, path = both
    held = {value.name: value.dims for value in onnx.load(path).graph.initializer}
    matrices = {name: list(dims) for name, dims in held.items() if len(dims) > 1 and not name.endswith(".B")}
    assert sorted(matrices.values()) == sorted(
        [[INPUT, 20], [HIDDEN, 20], [HIDDEN, 20], [HIDDEN, 20], [HIDDEN, 12], [12, 4]]
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    x = np.random.default_rng(0).standard_normal((2, 6, INPUT)).astype(np.float32)
    feed = {
        spec.name: x
        if spec.name == "x"
        else np.full(2, 6)
        if spec.name == "lengths"
        else np.zeros((2, spec.shape[1]), "f")
        for spec in session.get_inputs()
    }
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, feed)[0], wanted, atol=fixed("float32"), rtol=0)


def test_weights_of_other_numbers_stay_where_they_are(tmp_path: Path) -> None:
    """Coupled gates are turned into others for the operator, whose weights no loop holds."""
    torch.manual_seed(0)
    layer = rnncore.Recurrent(rnncore.LSTMCell(INPUT, HIDDEN, coupled=True))
    export(Network(layer).eval(), tmp_path / "m.onnx", torch.randn(2, 4, INPUT), form="auto")
    names = [value.name for value in onnx.load(tmp_path / "m.onnx").graph.initializer]
    assert [name[-2:] for name in names if name.endswith((".W", ".R"))] == [".W", ".R"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_report_says_what_another_form_gains_and_measures_it_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(form_advice, "_WORTH_A_LINE", 0)  # how much it gains is a matter of the machine
    report = export(nn.LSTM(INPUT, 32, batch_first=True), tmp_path / "loop.onnx", torch.randn(2, 4, INPUT))
    gain = re.search(r"form='auto' runs this model (\d+\.\d)x faster here \(measured\)", str(report))
    assert gain is not None and float(gain[1]) > 0, report
    assert [file.name for file in tmp_path.iterdir()] == ["loop.onnx"]
    assert load(report.path).metadata["rnncore.form"] == report.form == "loop"
