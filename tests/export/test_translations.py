"""torch's translations of operators are read once a process, and are those that torch itself would read."""

from __future__ import annotations

from typing import Any
from unittest import mock

from onnxscript._internal.values import TracedOnnxFunction
from torch.onnx._internal.exporter import _registration

from rnncore.export.tracing.silence import silent
from rnncore.export.tracing.translations import operators_read_once


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
    with silent():
        assert _registration.ONNXRegistry.from_torchlib(18).opset_version == 18
