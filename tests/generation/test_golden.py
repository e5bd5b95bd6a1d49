"""Files that write whole sequences prove themselves without PyTorch, and notice when they are wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rnncore import runtime
from rnncore.runtime.format.container import FINGERPRINT_KEY, stamp
from rnncore.runtime.format.signature import BLANK_FINGERPRINT
from rnncore.runtime.verification import golden_of
from tests.generation.models import generator_file, translator_file

FILES: dict[str, tuple[Callable[[], bytes], int]] = {
    "generator": (generator_file, 2),
    "translator": (lambda: translator_file("additive, two layers"), 2),
}


@pytest.mark.parametrize("name", FILES)
def test_the_file_passes(name: str) -> None:
    file, cases = FILES[name]
    report = runtime.verify(file())
    assert report.passed and len(report.cases) == cases and not report.left_out


@pytest.mark.parametrize("name", FILES)
def test_the_golden_texts_differ_from_row_to_row(name: str) -> None:
    """Else a file that mixes its rows would pass."""
    for case in golden_of(runtime.load(FILES[name][0]())).cases:
        rows = case.outputs["log_probs"].values.reshape(3, -1)
        assert len(np.unique(rows, axis=0)) == 3


@pytest.mark.parametrize("name", FILES)
def test_every_changed_weight_is_noticed(name: str) -> None:
    model = ir.from_proto(onnx.load_from_string(FILES[name][0]()))
    weights = [value for value in model.graph.initializers.values() if "weight" in str(value.name)]
    assert len(weights) > 3
    for value in weights:
        tensor = value.const_value
        assert tensor is not None
        value.const_value = ir.tensor(tensor.numpy()[..., ::-1].copy() * np.float32(0.7), name=value.name)
        model.metadata_props[FINGERPRINT_KEY] = BLANK_FINGERPRINT
        assert not runtime.verify(stamp(ir.to_proto(model).SerializeToString())).passed, value.name
        value.const_value = tensor
