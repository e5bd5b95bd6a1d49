"""What torch's exporter is spared changes nothing of what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnxscript._internal.values import TracedOnnxFunction
from torch import Tensor, nn
from torch.onnx._internal.exporter import _registration

from rnncore.export.tracing import translations
from rnncore.export.tracing.silence import silent
from rnncore.export.tracing.torch_onnx import to_model, to_program
from rnncore.export.tracing.translations import operators_read_once
from tests.tolerances import fixed


def registry() -> Any:
    with silent():
        return _registration.ONNXRegistry.from_torchlib(opset_version=20)


def contents(made: Any) -> dict[object, list[object]]:
    return {target: [one.onnx_function for one in found] for target, found in made.functions.items()}


def test_kept_translations_are_torchs_own_and_no_source_is_read_twice() -> None:
    plain, before = contents(registry()), _registration.ONNXRegistry.__dict__["from_torchlib"]
    with operators_read_once():
        first = registry()
        assert contents(first) == plain and first.opset_version == 20
        with mock.patch.object(TracedOnnxFunction, "function_ir", property(lambda self: 1 / 0)):
            first.functions.clear()
            with operators_read_once():
                for found in (second := registry()).functions.values():
                    found.clear()
            assert contents(registry()) == plain and set(contents(second)) == set(plain)
    assert _registration.ONNXRegistry.__dict__["from_torchlib"] is before
    import torch.ao.quantization.fx._decomposed  # whose operators are translated from now on

    assert torch.ops.quantized_decomposed.quantize_per_tensor
    with operators_read_once():
        assert contents(registry()) == contents(registry())
        assert "quantized_decomposed::quantize_per_tensor" in registry().functions
    with silent():
        assert _registration.ONNXRegistry.from_torchlib(18).opset_version == 18


def test_no_source_of_a_traced_translation_is_read_and_its_domain_is_the_one_that_reading_gives() -> None:
    names = [found[0].onnx_function for found in registry().functions.values()]
    traced = [name for name in names if isinstance(name, TracedOnnxFunction)][::25]
    assert traced
    before = TracedOnnxFunction.__dict__["function_ir"]
    domains = [one.function_ir.domain for one in traced]
    unread = mock.patch("onnxscript._internal.ast_utils.get_src_and_ast", side_effect=AssertionError("read"))
    with unread, translations._sources_unread():
        assert [one.function_ir.domain for one in traced] == domains
    assert TracedOnnxFunction.__dict__["function_ir"] is before


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Dropout(), nn.Linear(8, 6))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layers(x))


def write_in_place(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, :-1]
    return y


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "gates": (lambda x: torch.cat([torch.sigmoid(gate) * torch.tanh(gate) for gate in x.split(3, -1)]), True),
    "integers": (lambda x: x * 2 + torch.arange(x.shape[1])[None, :, None], True),
    "convolution": (lambda x: torch.conv1d(x.transpose(1, 2), torch.ones(4, 6, 3), stride=2), True),
    "softmax and masks": (lambda x: torch.where(x > 0, x.softmax(-1), x.logsumexp(-1, keepdim=True)), True),
    "bounds of two kinds": (lambda x: torch.clamp(x, -1, 0.5) * x.clamp(max=2), True),
    "views made of others": (lambda x: x.mT, False),
    "written in place": (write_in_place, False),
    "no translation": (lambda x: torch.special.entr(x.abs()), False),
}


def shape_of(model: ir.Model) -> list[object]:
    """Nodes, attributes and weights in order; values by their place, since only their names may differ."""
    places: dict[ir.Value | None, object] = {None: None}
    places |= {value: f"input {i}" for i, value in enumerate(model.graph.inputs)}
    places |= {value: value.const_value.numpy().tobytes() for value in model.graph.initializers.values()}  # type: ignore[union-attr]
    found: list[object] = []
    for index, node in enumerate(model.graph):
        attributes = sorted((a.name, str(a.value)) for a in node.attributes.values())
        found.append((node.op_type, [places[value] for value in node.inputs], attributes))
        places |= {value: (index, i) for i, value in enumerate(node.outputs)}
    return [*found, [places[value] for value in model.graph.outputs]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_program_that_is_not_traced_again_is_written_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, spared = FUNCTIONS[name]
    module = Calls(function).eval()
    seen: list[bool] = []
    decides = translations._is_simple

    def written(decide: Callable[..., bool]) -> list[object]:
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        program = to_program(module, (torch.randn(3, 9, 5),), (free,), what="it")
        monkeypatch.setattr(translations, "_is_simple", decide)
        return shape_of(to_model(program, what="it"))

    def deciding(*args: Any) -> bool:
        seen.append(decides(*args))
        return seen[-1]

    assert written(deciding) == written(lambda *_: False)
    assert seen == [spared]


def spelled(x: Tensor) -> Tensor:
    """Views and conversions that torch writes as others, and n - x."""
    a, b = x.unflatten(-1, (2, 3)).movedim(2, 0).chunk(2, -1)
    joined = torch.cat([a, b], -1).flatten(2).swapaxes(0, -1)
    return torch.rsub((joined.narrow(1, 0, 1).to("cpu") > 0).to(x), 3.5) + joined.to(torch.float64).to(torch.float32)


def test_views_and_conversions_are_spelled_out_and_spare_a_trace() -> None:
    module = Calls(spelled).eval()
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = to_program(module, (torch.randn(3, 9, 5),), (free,), what="it")
    with mock.patch.object(type(program), "run_decompositions", side_effect=AssertionError("traced again")):
        model = to_model(program, what="it")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for sizes in ((3, 9), (1, 4), (5, 2), (2, 0)):
        x = torch.randn(*sizes, 5, generator=torch.Generator().manual_seed(sizes[0]))
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(got, module(x), atol=fixed("float32"))
