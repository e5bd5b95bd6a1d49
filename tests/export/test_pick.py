"""What ``pick=True`` adds to a file, and what it asks of a module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export import stages as module
from rnncore.runtime import GatherOutput, Signature, TensorSpec, load
from rnncore.runtime.errors import ExportError, VerificationError
from tests.tolerances import fixed


class Tagger(nn.Module):
    """Floats in, one number for each of seven tags out; both ways, so that it does not stream."""

    def __init__(self, *, several: bool = False, timeless: bool = False) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 7)
        self.several, self.timeless = several, timeless

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.rnn(x)[0]
        if self.several:
            return self.head(y), y
        return self.head(y[:, -1] if self.timeless else y)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "fused"])
def test_any_module_with_one_output_can_be_picked_from(form: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Tagger().eval()
    report = export(model, tmp_path / "m.onnx", torch.randn(2, 4, 3), form=form, pick=True)  # type: ignore[arg-type]
    assert [case["detail"] for case in report.verification["cases"]].count("3 picked a step") == 1
    x, at = torch.randn(2, 11, 3), np.random.default_rng(1).integers(0, 7, (2, 11, 2))
    with torch.no_grad():
        expected = np.take_along_axis(model(x).numpy(), at, 2)
    loaded = load(tmp_path / "m.onnx")
    np.testing.assert_allclose(loaded.run_picked(x.numpy(), at=at), expected, atol=fixed("float32"))

    # Every host lists the input; who does not ask feeds zeros.
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert "output.at" in [value.name for value in session.get_inputs()]
    assert session.get_overridable_initializers() == []
    lengths = {} if loaded.signature.lengths is None else {loaded.signature.lengths.name: np.array([11, 11])}
    (whole,) = session.run(["output"], {"x": x.numpy(), "output.at": np.zeros((2, 11, 1), np.int64), **lengths})
    np.testing.assert_allclose(whole, loaded.run(x.numpy()), atol=fixed("float32 same steps"))
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"several": True}, "one output, this one has 2"),
        ({"timeless": True}, r"needs an output \['batch', 'time', size\]"),
    ],
)
def test_other_outputs_are_refused(options: dict[str, bool], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export(Tagger(**options), tmp_path / "m.onnx", torch.randn(2, 4, 3), pick=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wrong_picks_do_not_pass_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.add_gather_output

    def of_the_negated_output(graph: ir.Graph, states: set[str]) -> GatherOutput:
        pick = real(graph, states)
        gather = next(node for node in graph if node.op_type == "GatherElements")
        negated = ir.node("Neg", [gather.inputs[0]])
        negated.outputs[0].name = "negated"
        graph.insert_before(gather, negated)
        gather.replace_input_with(0, negated.outputs[0])
        return pick

    monkeypatch.setattr(module, "add_gather_output", of_the_negated_output)
    with pytest.raises(VerificationError, match="the picks are not what output 'output' has there"):
        export(Tagger(), tmp_path / "m.onnx", torch.randn(2, 4, 3), pick=True)
    assert list(tmp_path.iterdir()) == []


def test_signatures_without_picks_are_read() -> None:
    """Files written before there were picks have no such entry."""
    port = TensorSpec("x", "float32", ("batch", "time", 3))
    text = Signature((port,), (port,)).to_json()
    older = text.replace(',"pick":null', "").replace(', "pick": null', "")
    assert older != text
    assert Signature.from_json(older) == Signature((port,), (port,))
    with_pick = Signature((port,), (port,), pick=GatherOutput("x", "x.at", "x.pick"))
    assert Signature.from_json(with_pick.to_json()) == with_pick
