"""torch's translations of operators are read once a process, and are those that torch itself would read."""

from __future__ import annotations

from unittest import mock

from onnxscript._internal.values import TracedOnnxFunction
from torch.onnx._internal.exporter import _registration

from rnncore.export.tracing.silence import silent
from rnncore.export.tracing.translations import operators_read_once


def registered() -> dict[object, list[object]]:
    with silent():
        functions = _registration.ONNXRegistry.from_torchlib(20).functions
    return {target: [one.onnx_function for one in found] for target, found in functions.items()}


def test_kept_translations_are_torchs_own_and_no_source_is_read_twice() -> None:
    plain, before = registered(), _registration.onnxscript_apis
    with operators_read_once():
        assert registered() == plain
        with mock.patch.object(TracedOnnxFunction, "function_ir", property(lambda self: 1 / 0)):
            assert registered() == plain
            with operators_read_once():
                assert registered() == plain
    assert _registration.onnxscript_apis is before
