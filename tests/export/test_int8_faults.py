"""The verification of int8 files sees wrong scales, and answers that depend on other rows or on other steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.example import Example
from rnncore.export.verification.judging import Int8Judge
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.errors import ExportError, InputError, VerificationError
from tests.export.exporting import one_trace
from tests.export.faults import with_fault
from tests.export.int8_models import Product
from tests.strategies import randomize

pytestmark = pytest.mark.slow
X = torch.randn(2, 5, 23, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """A head on a GRU; its outputs are of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(23, 37, batch_first=True)
        self.head = nn.Linear(37, 53)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


@pytest.fixture(scope="module")
def module() -> nn.Module:
    small = randomize(Small().eval(), 4)
    with torch.no_grad():
        small.head.weight *= torch.linspace(0.1, 3.0, 53)[
            torch.randperm(53, generator=torch.Generator().manual_seed(2))
        ][:, None]
    return small


@pytest.fixture(scope="module")
def data(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("int8_faults") / "model.onnx"
    export(module, path, X, quantize="int8", streaming=True)
    return path.read_bytes()


def failed_kinds(data: bytes, module: nn.Module, folder: Path) -> set[str]:
    path = folder / "model.onnx"
    path.write_bytes(data)
    example = Example.of(module, X, None, "auto")
    verdict = Verifier(Reference(module, example), example, Int8Judge(), seed=3).verify(path)
    return {case.kind for case in verdict.cases if not case.passed}


def scales_of_other_columns(model: ir.Model) -> int:
    return change(model, ".scale", lambda scale: np.roll(scale, 1))


def weights_transposed(model: ir.Model) -> int:
    return change(model, ".int8", lambda weight: weight.T.copy().reshape(weight.shape))


def weights_wrapped(model: ir.Model) -> int:
    """What a sum that overflows does: the largest weights change their sign."""
    return change(model, ".int8", lambda weight: np.where(np.abs(weight) > 56, -weight, weight).astype(np.int8))


def zero_points_off(model: ir.Model) -> int:
    """Products subtract another zero than was added."""
    zero = ir.Value(name="zero", const_value=ir.tensor(np.uint8(100), name="zero"))
    model.graph.register_initializer(zero)
    found = [node for node in nodes(model) if node.op_type == "MatMulInteger"]
    for node in found:
        node.replace_input_with(2, zero)
    return len(found)


def row_scales_lost(model: ir.Model) -> int:
    """Products are not multiplied back by what their rows were divided by."""
    lost = 0
    for node in list(nodes(model)):
        if (
            node.op_type == "Mul"
            and (row := node.inputs[1]) is not None
            and "Add" in str(row.name)
            and row.const_value is None
        ):
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
            lost += 1
    return lost


def one_scale_for_all_rows(model: ir.Model) -> int:
    """What DynamicQuantizeLinear does."""
    found = [node for node in nodes(model) if node.op_type == "ReduceMax"]
    for node in found:
        node.replace_input_with(1, None)
    return len(found)


def state_never_rounded_alike(model: ir.Model) -> int:
    """The loop over several steps rounds its state in other units than the single step."""
    places = 0
    for node in nodes(model):
        if node.op_type == "QuantizeLinear" and isinstance(node.graph, ir.Graph) and "one_step" in str(node.graph.name):
            step = ir.Value(name="coarse", const_value=ir.tensor(np.float32(1 / 40), name="coarse"))
            model.graph.register_initializer(step)
            node.replace_input_with(1, step)
            places += 1
    return places


FAULTS: dict[str, tuple[Callable[[ir.Model], int], set[str]]] = {
    "scales of other columns": (scales_of_other_columns, {"whole"}),
    "weights transposed": (weights_transposed, {"whole"}),
    "weights wrapped": (weights_wrapped, {"whole"}),
    "zero points off": (zero_points_off, {"whole"}),
    "row scales lost": (row_scales_lost, {"whole"}),
    "one scale for all rows": (one_scale_for_all_rows, {"ragged", "stream"}),
    "a step differs from a loop of one": (state_never_rounded_alike, {"stream"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_verification_sees(name: str, data: bytes, module: nn.Module, tmp_path: Path) -> None:
    fault, kinds = FAULTS[name]
    assert kinds <= failed_kinds(with_fault(data, fault), module, tmp_path)


def test_without_a_fault_it_passes(data: bytes, module: nn.Module, tmp_path: Path) -> None:
    assert failed_kinds(with_fault(data, lambda _: 1), module, tmp_path) == set()


class Difference(nn.Module):
    """The small difference of two large products: float32 can tell, int8 cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(23, 41, batch_first=True)
        self.a, self.b = nn.Linear(41, 43), nn.Linear(41, 43)
        self.b.weight = nn.Parameter(self.a.weight.detach() + 1e-4 * torch.randn(43, 41))
        self.b.bias = self.a.bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x)[0]
        return self.a(y) - self.b(y)


def test_a_model_that_int8_ruins_is_refused(folder: Path) -> None:
    with pytest.raises(
        VerificationError, match=r"in float32 the file is right, in int8 it is not(.|\n)*without quantize"
    ):
        export(Difference().eval(), folder / "model.onnx", X, quantize="int8", streaming=False, lengths=False)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantize": "int4"}, InputError, "quantize is 'int4', expected 'int8' or None"),
        ({"accuracy_data": [X]}, InputError, "pass quantize='int8' as well"),
        ({"quantize": "int8", "accuracy_data": X}, InputError, "accuracy_data is a Tensor, expected a list of calls"),
        ({"quantize": "int8", "accuracy_data": []}, InputError, "accuracy_data is empty"),
        ({"quantize": "int8", "accuracy_data": [(X, X)]}, InputError, r"accuracy_data\[0\]: the example does not fit"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], message: str, folder: Path) -> None:
    with pytest.raises(error, match=message):
        export(Small(), folder / "model.onnx", X, **options)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


def test_other_precisions_are_refused(folder: Path) -> None:
    with pytest.raises(ExportError, match=r"weights of torch\.float64: call \.float\(\)"):
        export(Small().double(), folder / "model.onnx", X.double(), quantize="int8")


def test_refusals_late_in_the_export(folder: Path) -> None:
    """The fused form names its layers; a model of small products has nothing to gain."""
    options = {"streaming": False, "verify": False, "lengths": False, "quantize": "int8"}
    small = Product(torch.ones(5, 23)).eval()
    with one_trace():
        with pytest.raises(ExportError, match=r"form='fused' has no int8 operator .* for layer 'rnn\.layers\.0'"):
            export(small, folder / "model.onnx", X, form="fused", **options)  # type: ignore[arg-type]
        with pytest.raises(ExportError, match="no matrix product with a constant weight of at least 1024 numbers"):
            export(small, folder / "model.onnx", X, **options)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


def nodes(model: ir.Model) -> list[ir.Node]:
    return list(ir.traversal.RecursiveGraphIterator(model.graph))


def change(model: ir.Model, ending: str, how: Callable[[np.ndarray], np.ndarray]) -> int:
    """``how`` done to each initializer whose name ends so."""
    found = [v for v in model.graph.initializers.values() if str(v.name).endswith(ending) and v.const_value is not None]
    for value in found:
        assert value.const_value is not None
        value.const_value = ir.tensor(how(value.const_value.numpy()), name=value.name)
    return len(found)
