"""What streams, what does not, and what the caller is told about it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rnncore
from rnncore import runtime
from rnncore.export import ExportReport, export
from rnncore.runtime import NotStreamableError
from tests.export.exporting import FORMS, Exported
from tests.export.modules import Around, Convolution, FutureSum, Network, ids, tagger
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow


def written(module: nn.Module, folder: Path, **options: object) -> tuple[ExportReport, runtime.Model]:
    report = export(module, folder / "model.onnx", torch.randn(2, 4, 5), **options)  # type: ignore[arg-type]
    return report, runtime.load(report.path)


def test_bidirectional_refuses_and_keeps_the_old_file(folder: Path) -> None:
    old = folder / "model.onnx"
    old.write_bytes(b"what was here before")
    with pytest.raises(
        NotStreamableError, match=r"streaming=True, but layer 'layer\.layers\.0\.backward_layer' reads back"
    ):
        export(tagger("lstm bidirectional"), old, ids(2, 6), streaming=True)
    assert old.read_bytes() == b"what was here before"
    assert list(folder.iterdir()) == [old]


def test_bidirectional_says_so_when_a_stream_is_asked_for(both_ways: Exported) -> None:
    signature = both_ways.loop.signature
    assert not signature.causal and not signature.states
    assert "layer 'layer.layers.0.backward_layer' reads backward in time" in signature.not_causal_because
    with pytest.raises(NotStreamableError, match=re.escape(signature.not_causal_because)):
        both_ways.loop.stream()


def check_batch_only(report: ExportReport, model: runtime.Model, module: nn.Module, because: str) -> None:
    assert not report.causal and not model.signature.states
    assert "fed in chunks the model answers differently" in model.signature.not_causal_because
    assert f"it looks along the time axis: {because}" in model.signature.not_causal_because
    assert model.signature.not_causal_because in str(report)
    with pytest.raises(NotStreamableError, match=re.escape(model.signature.not_causal_because)):
        model.stream()
    x = torch.randn(3, 9, 5)
    with torch.no_grad():
        np.testing.assert_allclose(model.run(x.numpy()), module(x), rtol=0, atol=fixed("float32"))


@pytest.mark.parametrize("form", FORMS)
def test_mean_over_time_is_batch_only(form: str, mean_pool: Exported) -> None:
    because = "MeanPool.forward computes mean over the time axis"
    check_batch_only(mean_pool.reports[form], mean_pool.models[form], mean_pool.module, because)


@pytest.mark.parametrize(
    "kind, because",
    [
        (Convolution, "conv: Conv1d with kernel 3 over the time axis (use rnncore.CausalConv1d"),
        (
            FutureSum,
            "FutureSum.forward computes flip over the time axis; FutureSum.forward computes cumsum over the time axis",
        ),
    ],
)
def test_models_that_look_along_time_are_batch_only(kind: type[Around], because: str, folder: Path) -> None:
    module = randomize(kind().eval(), 3)
    check_batch_only(*written(module, folder), module, because)


def test_streaming_demanded_of_a_convolution_over_time(folder: Path) -> None:
    with pytest.raises(NotStreamableError, match=r"streaming=True, but fed in chunks .*: conv: Conv1d with kernel 3"):
        written(randomize(Convolution().eval(), 3), folder, streaming=True)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("form", FORMS)
def test_last_step_head_streams(form: str, last_step: Exported) -> None:
    """The answer of each push is the answer for all that was pushed."""
    x = torch.randn(1, 9, 5)
    with last_step.models[form].stream() as stream, torch.no_grad():
        for start, end in ((0, 1), (1, 4), (4, 9)):
            got = stream.push(x[0, start:end].numpy())
            np.testing.assert_allclose(got, last_step.module(x[:, :end])[0], rtol=0, atol=fixed("float32 same steps"))


@pytest.mark.parametrize(
    "options, reason",
    [({"streaming": False, "lengths": False}, "streaming=False"), ({"verify": False}, "not verified")],
)
def test_streaming_not_wanted_or_not_proved(options: dict[str, bool], reason: str, folder: Path) -> None:
    report, model = written(Network(rnncore.Recurrent(rnncore.GRUCell(5, 11))).eval(), folder, **options)
    assert not report.causal and reason in model.signature.not_causal_because
    assert model.signature.lengths is None  # lifted only where it is wanted and proved
    assert bool(report.verification.get("cases")) is options.get("verify", True)
    with pytest.raises(NotStreamableError, match=reason):
        model.stream()


def test_learned_initial_states_are_in_the_file(causal: Exported) -> None:
    states = {state.name: state.initial_value() for state in causal.loop.signature.states}
    cells = {path: layer.cell for path, layer in causal.module.named_modules() if isinstance(layer, rnncore.Recurrent)}
    learned = {
        f"{path}.{name}" for path, cell in cells.items() for name in cell.state_sizes if cell.learn_initial_state
    }
    assert learned == {"stack.layers.0.h", "stack.layers.1.h", "stack.layers.1.c"}
    for path, cell in cells.items():
        for name, start in zip(cell.state_sizes, cell.initial_state(1, torch.zeros(())), strict=True):
            np.testing.assert_array_equal(states[f"{path}.{name}"], start[0].detach())
    assert states["stack.layers.0.h"].all() and not states["stack.layers.2.h"].any()
    with causal.loop.stream() as stream:
        assert {name: value.tolist() for name, value in stream.state.items()} == {
            k: v.tolist() for k, v in states.items()
        }
