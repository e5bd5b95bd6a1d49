"""Files of ours that the field's tools have rewritten come back by ``adapt``: the same answers, the same streams."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import version_converter
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from typer.testing import CliRunner

from rnncore import runtime
from rnncore.cli.app import app
from rnncore.export import adapt, export, quantize
from rnncore.export import quantizing as quantizing_module
from rnncore.export.verification.judging import INT8_RMS, INT8_SELF
from rnncore.runtime.errors import ExportError, InputError, ModelFileError, RnncoreError, VerificationError
from tests.tolerances import bound, fixed

WIDTH, HIDDEN = 5, 41
Tool = Callable[[Path, Path], object]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(WIDTH, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A loop, and a fused node with its weights in a second file."""
    folder = tmp_path_factory.mktemp("ours")
    torch.manual_seed(3)
    module = Net().eval()
    with torch.no_grad():  # weights of a trained size: answers that hang on the input
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
    paths = {"loop": folder / "loop.onnx", "two files": folder / "fused.onnx"}
    export(module, paths["loop"], torch.randn(2, 5, WIDTH), form="loop")
    export(module, paths["two files"], torch.randn(2, 5, WIDTH), form="fused", external_data=True)
    return paths


def optimised(level: onnxruntime.GraphOptimizationLevel) -> Tool:
    def write(source: Path, target: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.optimized_model_filepath = level, str(target)
        options.log_severity_level = 4  # it warns that the file suits this machine alone
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return write


def converted(source: Path, target: Path) -> None:
    onnx.save(version_converter.convert_version(onnx.load(source), 22), target)


def spread_out(source: Path, target: Path) -> None:
    """Every tensor in a second file of another name."""
    onnx.save(onnx.load(source), target, save_as_external_data=True, location="elsewhere.bin", size_threshold=0)


def in_own_format(source: Path, target: Path) -> None:
    """onnxruntime's .ort, as its tool ``convert_onnx_models_to_ort`` writes it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(target), 4  # as above
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


LEVELS = onnxruntime.GraphOptimizationLevel
TOOLS: dict[str, Tool] = {
    "optimiser, basic": optimised(LEVELS.ORT_ENABLE_BASIC),
    "optimiser, extended": optimised(LEVELS.ORT_ENABLE_EXTENDED),
    "optimiser, all": optimised(LEVELS.ORT_ENABLE_ALL),
    "version converter": converted,
    "weights moved out": spread_out,
    "own format of onnxruntime": in_own_format,
}


@pytest.mark.parametrize("form", ["loop", "two files"])
@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_rewrote_answers_and_streams_as_before(
    ours: dict[str, Path], form: str, tool: str, tmp_path: Path
) -> None:
    touched, again = tmp_path / "touched.onnx", tmp_path / "again.onnx"
    for file in ours[form].parent.glob(f"{ours[form].name}*"):  # tools leave weights where they are
        shutil.copy(file, tmp_path)
    TOOLS[tool](tmp_path / ours[form].name, touched)
    with pytest.raises(RnncoreError):
        runtime.load(touched)
    report = adapt(touched, again)
    for path in tmp_path.iterdir():  # nothing of it is needed any more
        if path != again:
            path.unlink()
    assert report.signature.causal and runtime.verify(again).passed
    x = np.random.default_rng(1).standard_normal((2, 19, WIDTH)).astype(np.float32)
    first, second = runtime.load(ours[form]), runtime.load(again)
    allowed = bound("float32", "onnx", length=19)
    np.testing.assert_allclose(second.run(x), first.run(x), atol=allowed)
    with second.stream() as stream:
        chunks = [stream.push(x[0, :4]), stream.push(x[0, 4:])]
    np.testing.assert_allclose(np.concatenate(chunks), first.run(x)[0], atol=allowed)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_file_is_held_to_what_int8_files_are_held_to(ours: dict[str, Path], tmp_path: Path) -> None:
    touched, again = tmp_path / "touched.onnx", tmp_path / "again.onnx"
    quantize_dynamic(ours["loop"], touched, per_channel=True, weight_type=QuantType.QInt8)
    with pytest.raises(VerificationError, match="does not answer as at export"):
        adapt(touched, again)
    result = CliRunner().invoke(app, ["adapt", str(touched), "--out", str(again), "--quantized"])
    assert result.exit_code == 0, result.output
    model = runtime.load(again)
    report = runtime.verify(model)
    assert report.passed and model.metadata["rnncore.precision"] == "int8"
    x = np.random.default_rng(1).standard_normal((2, 19, WIDTH)).astype(np.float32)
    assert not np.array_equal(model.run(x), runtime.load(ours["loop"]).run(x))


def test_a_quantised_file_that_answers_something_else_is_refused(ours: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(ours["loop"])
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
    onnx.save(model, tmp_path / "touched.onnx")
    with pytest.raises(VerificationError):
        adapt(tmp_path / "touched.onnx", tmp_path / "again.onnx", quantized=True)
    assert not (tmp_path / "again.onnx").exists()


def test_a_second_file_that_is_missing_is_named(ours: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(ours["two files"], tmp_path / "alone.onnx")
    with pytest.raises(ModelFileError, match=r"fused\.onnx\..*data"):
        adapt(tmp_path / "alone.onnx", tmp_path / "again.onnx")


def test_quantized_is_for_files_with_golden_answers(tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), path)
    with pytest.raises(InputError, match="quantized="):
        adapt(path, tmp_path / "again.onnx", quantized=True)


def test_a_float_file_becomes_an_int8_one_without_its_module(ours: dict[str, Path], tmp_path: Path) -> None:
    out, random = tmp_path / "small.onnx", np.random.default_rng(2)
    x = random.standard_normal((3, 23, WIDTH)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    result = CliRunner().invoke(
        app, ["quantize", str(ours["loop"]), "--out", str(out), "--data", str(tmp_path / "x.npy"), "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    model, float_model = runtime.load(out), runtime.load(ours["loop"])
    assert model.metadata["rnncore.precision"] == "int8" and runtime.verify(model).passed
    assert told["size_bytes"] == out.stat().st_size < told["size_bytes_before"] == ours["loop"].stat().st_size
    assert re.fullmatch(r"\d+ weights in int8, \d+ small ones left in float32", told["quantized"])
    (accuracy,) = told["accuracy"]["outputs"]
    got, right = model.run(x), float_model.run(x)
    rms = np.sqrt(np.mean((got - right).astype(np.float64) ** 2) / np.mean(right.astype(np.float64) ** 2))
    assert accuracy["rms"] == pytest.approx(rms, rel=fixed("float32"))
    assert 0 < accuracy["rms"] < INT8_RMS and 0 < told["worst_rms"] < INT8_RMS
    with model.stream() as stream:
        chunks = np.concatenate([stream.push(x[0, :9]), stream.push(x[0, 9:])])
    assert np.abs(chunks - got[0]).max() <= INT8_SELF * np.abs(got).max()
    kinds = {case["kind"] for case in model.report["cases"]}
    assert {"whole", "stream", "rows"} <= kinds and model.report["int8"]["quantized"] == told["quantized"]
    with pytest.raises(ExportError, match="is in int8"):
        quantize(out, tmp_path / "again.onnx")


def test_what_cannot_become_int8_is_refused(
    ours: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small.onnx"
    with pytest.raises(ExportError, match="fused layers"):
        quantize(ours["two files"], out)
    with pytest.raises(InputError, match=r"accuracy_data\[1\]"):
        quantize(ours["loop"], out, accuracy_data=[np.zeros((1, 3, WIDTH)), np.zeros((1, 3, WIDTH + 1))])
    right = quantizing_module.quantize_int8

    def negated(model: ir.Model, states: Sequence[runtime.StateSpec]) -> object:
        for value in model.graph.initializers.values():
            if value.const_value is not None and value.const_value.shape == (HIDDEN, 3):
                value.const_value = ir.Tensor(-value.const_value.numpy())
        return right(model, states)

    monkeypatch.setattr(quantizing_module, "quantize_int8", negated)
    with pytest.raises(VerificationError, match="keep it in float32"):
        quantize(ours["loop"], out)
    assert list(tmp_path.iterdir()) == []
