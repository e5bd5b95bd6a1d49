"""What verification sees in a file, beyond wrong numbers: chance, NaN, other rows; and what golden cases carry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.example import Example
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.format.golden import Golden
from tests.export.faults import with_fault
from tests.export.modules import Network
from tests.proof.modules import FEATURES, HIDDEN, WarmUp
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow
X = torch.randn(2, 6, FEATURES, generator=torch.Generator().manual_seed(1))


def noise(model: ir.Model) -> int:
    """Random numbers of a millionth on every output: each answer is right, and no two are the same bits."""
    places = 0
    for at, value in enumerate(list(model.graph.outputs)):
        if value.name != "output":
            continue
        random = ir.Node("", "RandomUniformLike", [value], [ir.AttrFloat32("high", 1e-6), ir.AttrFloat32("low", 0.0)])
        summed = ir.Node("", "Add", [value, random.outputs[0]])
        summed.outputs[0].name, value.name = "output", "before"
        summed.outputs[0].type, summed.outputs[0].shape = value.type, value.shape
        random.outputs[0].name = "random"
        model.graph.extend([random, summed])
        model.graph.outputs[at] = summed.outputs[0]
        places += 1
    return places


def test_a_file_that_answers_otherwise_the_second_time_fails(tmp_path: Path) -> None:
    module = randomize(nn.Sequential(nn.GRU(FEATURES, HIDDEN, batch_first=True), First()).eval(), 3)
    path = tmp_path / "m.onnx"
    export(module, path, X, streaming=False, lengths=False)
    example = Example.of(module, X, None, False)
    for fault, wanted in ((None, ""), (noise, "a second run gave other bits")):
        if fault is not None:
            path.write_bytes(with_fault(path.read_bytes(), fault))
        verdict = Verifier(Reference(module, example), example, Judge.of("float32"), seed=3).verify(path)
        notes = {case.note for case in verdict.cases if not case.passed}
        assert notes == ({wanted} if wanted else set())


class First(nn.Module):
    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return both[0]


CELLS = {
    "gru": lambda: rnncore.GRUCell(FEATURES, HIDDEN),
    "lstm": lambda: rnncore.LSTMCell(FEATURES, HIDDEN, peephole="current"),
    "rnn relu": lambda: rnncore.RNNCell(FEATURES, HIDDEN, activation="relu"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_nan_shows_in_what_auto_writes_and_hides_in_fused_operators(kind: str, tmp_path: Path) -> None:
    """The report of a fused file says so; the rows beside are clean in both."""
    module = randomize(Network(rnncore.Recurrent(CELLS[kind]())).eval(), 3)
    x = X.clone()
    x[0, 2, 1] = float("nan")
    with torch.no_grad():
        wanted = torch.isnan(module(x)["y"]).numpy()
    for form in ("auto", "fused"):
        report = export(module, tmp_path / f"{form}.onnx", X, form=form, lengths=False)  # type: ignore[arg-type]
        file = runtime.load(report.path)
        shows = np.array_equal(np.isnan(file.run(x.numpy())), wanted)
        assert shows is (form == "auto"), form
        assert ("NaN in 'x' does not show in 'y'" in str(report)) is not shows
        np.testing.assert_array_equal(file.run(x.numpy())[1], file.run(X.numpy())[1])
        assert [c for c in report.verification["cases"] if c["detail"].startswith("NaN in 'x' of row 0")]


def test_int8_keeps_nan_in_its_row(tmp_path: Path) -> None:
    module = randomize(nn.Sequential(nn.GRU(FEATURES, 37, batch_first=True), First()).eval(), 3)
    report = export(module, tmp_path / "m.onnx", X, quantize="int8")
    file = runtime.load(report.path)
    x = X.clone()
    x[0, 2, 1] = float("nan")
    got = file.run(x.numpy())
    assert np.isnan(got[0, 2:]).all() and np.isfinite(got[0, :2]).all()
    np.testing.assert_array_equal(got[1], file.run(X.numpy())[1])
    assert "NaN" not in str(report)


def test_golden_streams_are_as_long_as_what_was_verified_and_take_no_room(tmp_path: Path) -> None:
    """An example of 400 steps: the inputs of the stream are drawn again from a seed."""
    module = randomize(nn.Sequential(nn.LSTM(FEATURES, HIDDEN, batch_first=True), First()).eval(), 3)
    file = runtime.load(export(module, tmp_path / "m.onnx", torch.randn(2, 400, FEATURES), streaming=True).path)
    golden = Golden.from_json(file.metadata["rnncore.golden"])
    stream = next(case for case in golden.cases if case.kind == "stream")
    assert stream.time == 400 and sum(stream.chunks or ()) == 400 and set(stream.drawn) == {"input"}
    assert not golden.left_out and runtime.verify(file).passed
    assert Golden.from_json(golden.to_json()).to_json() == golden.to_json()
    with torch.no_grad():
        expected = module(torch.from_numpy(stream.inputs["input"]))
    kept = stream.outputs["output"]
    np.testing.assert_allclose(kept.values, expected.numpy().ravel()[:: kept.every], rtol=0, atol=fixed("float32"))


def test_golden_inputs_that_are_too_large_to_keep_are_drawn(tmp_path: Path) -> None:
    module = randomize(nn.Sequential(nn.GRU(5000, 4, batch_first=True), First()).eval(), 3)
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 3, 5000), streaming=False, lengths=False)
    golden = json.loads(runtime.load(report.path).metadata["rnncore.golden"])
    assert len(golden["cases"]) == 2 and not golden["left_out"]
    assert runtime.verify(report.path).passed


def test_the_example_itself_is_a_case(tmp_path: Path) -> None:
    module = randomize(WarmUp(4).eval(), 3)
    report = export(module, tmp_path / "m.onnx", torch.randn(3, 17, FEATURES))
    assert [(c["batch"], c["time"]) for c in report.verification["cases"] if c["detail"] == "the example itself"] == [
        (3, 17)
    ]
