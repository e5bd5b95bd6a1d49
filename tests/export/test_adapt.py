"""Files of others whose recurrent nodes hide their states stream after ``adapt``; changed files of ours are stamped again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from typer.testing import CliRunner

from rnncore import runtime
from rnncore.cli.app import app
from rnncore.export import adapt, export
from rnncore.runtime.errors import ExportError, ModelFileError, TamperedModelError, VerificationError
from tests.tolerances import fixed

F, H = 4, 3
SHAPES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def hidden(kinds: list[str], *, direction: str = "forward", ahead: bool = False, names: bool = True) -> onnx.ModelProto:
    """Layers [time, batch, .] one above the other, without a word about their states; ``ahead``: time is turned first."""
    rng = np.random.default_rng(5)
    nodes, tensors, x, width = [], {"one": np.array([1])}, "x", F
    if ahead:
        tensors |= {"start": np.array([-1]), "end": np.array([-(2**62)]), "axis": np.array([0]), "step": np.array([-1])}
        nodes.append(helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["turned"]))
        x = "turned"
    for i, kind in enumerate(kinds):
        gates = SHAPES[kind]
        tensors[f"W{i}"] = (rng.standard_normal((1, gates * H, width)) * 0.6).astype(np.float32)
        tensors[f"R{i}"] = (rng.standard_normal((1, gates * H, H)) * 0.6).astype(np.float32)
        options: dict[str, Any] = {"hidden_size": H, "direction": direction}
        name = {"name": f"layer{i}"} if names else {}
        nodes.append(helper.make_node(kind, [x, f"W{i}", f"R{i}"], [f"y4_{i}"], **options, **name))
        nodes.append(helper.make_node("Squeeze", [f"y4_{i}", "one"], [f"y_{i}"]))
        x, width = f"y_{i}", H
    graph = helper.make_graph(
        nodes,
        "others",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "rows", F])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def windowed(stride: int, *, before: bool) -> onnx.ModelProto:
    """A window of four steps, ``stride`` apart, before or behind a layer that hides its states."""
    rng = np.random.default_rng(6)
    tensors = {
        "one": np.array([1]),
        "K": (rng.standard_normal((F, F, 4)) * 0.4).astype(np.float32),
        "W": (rng.standard_normal((1, 3 * F, F)) * 0.6).astype(np.float32),
        "R": (rng.standard_normal((1, 3 * F, F)) * 0.6).astype(np.float32),
    }

    def window(x: str, y: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Transpose", [x], [f"{y}_last"], perm=[1, 2, 0]),
            helper.make_node("Conv", [f"{y}_last", "K"], [f"{y}_cut"], strides=[stride]),
            helper.make_node("Transpose", [f"{y}_cut"], [y], perm=[2, 0, 1]),
        ]

    def layer(x: str, y: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("GRU", [x, "W", "R"], [f"{y}_4"], hidden_size=F),
            helper.make_node("Squeeze", [f"{y}_4", "one"], [y]),
        ]

    first, second = (window, layer) if before else (layer, window)
    graph = helper.make_graph(
        [*first("x", "v"), *second("v", "y")],
        "others",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "rows", F])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_before_a_layer_stream(stride: int, tmp_path: Path) -> None:
    source, path = tmp_path / "theirs.onnx", tmp_path / "ours.onnx"
    onnx.save(windowed(stride, before=True), source)
    adapt(source, path)
    model = runtime.load(path)
    assert (model.signature.stride, model.signature.overlap) == (stride, 4 - stride)
    x = np.random.default_rng(1).standard_normal((15, F)).astype(np.float32)
    whole = runtime.load(path).run(x[:, None])[:, 0]
    with model.stream() as stream:
        parts = [stream.push(x[start:end]) for start, end in ((0, 2), (2, 3), (3, 9), (9, 9), (9, 15))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=fixed("float32"))
    onnx.save(windowed(stride, before=False), source)
    with pytest.raises(VerificationError, match="whole or in chunks it does not answer as the file did"):
        adapt(source, tmp_path / "other.onnx")


@pytest.mark.parametrize("kinds", [["LSTM"], ["GRU", "LSTM"], ["RNN", "RNN"]], ids="+".join)
@pytest.mark.parametrize("names", [True, False], ids=["named", "nameless"])
def test_hidden_states_are_lifted(kinds: list[str], names: bool, tmp_path: Path) -> None:
    source, path = tmp_path / "theirs.onnx", tmp_path / "ours.onnx"
    onnx.save(hidden(kinds, names=names), source)
    report = adapt(source, path)
    assert len(report.lifted) == sum(1 + (kind == "LSTM") for kind in kinds) and report.path == path
    assert not names or report.lifted[0] == "layer0.h"
    model = runtime.load(path)
    assert model.causal and runtime.verify(model).passed
    x = np.random.default_rng(1).standard_normal((23, F)).astype(np.float32)
    theirs = runtime.load(source, states={}, axes={"x": "time batch features"}).run(x[None])[0]
    with model.stream() as stream:
        got = np.concatenate([stream.push(x[a:b]) for a, b in ((0, 1), (1, 9), (9, 9), (9, 23))])
    np.testing.assert_allclose(got, theirs, atol=fixed("float32"))
    np.testing.assert_allclose(model.run(x[:, None])[:, 0], theirs, atol=fixed("float32"))
    streams = [model.stream(), model.stream()]
    for answer in model.push_many(streams, [x[:5], x[:5]]):
        np.testing.assert_allclose(answer, theirs[:5], atol=fixed("float32"))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (hidden(["GRU"], direction="reverse"), ExportError, "node 'layer0' reads reverse"),
        (hidden(["GRU"], ahead=True), VerificationError, "in chunks it does not answer as the file did"),
    ],
    ids=["reverse", "turned"],
)
def test_what_cannot_stream_is_refused(
    model: onnx.ModelProto, error: type[Exception], message: str, tmp_path: Path
) -> None:
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(error, match=message):
        adapt(tmp_path / "theirs.onnx", tmp_path / "ours.onnx")
    assert not (tmp_path / "ours.onnx").exists()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "m.onnx"
    module = nn.GRU(F, H, batch_first=True)
    export(module, path, torch.randn(2, 5, F))
    return path


def test_a_file_that_another_tool_wrote_anew_is_stamped_again(ours: Path, tmp_path: Path) -> None:
    model = onnx.load(ours)
    model.producer_name = "another tool"
    model.graph.doc_string = "touched"
    touched, again = tmp_path / "touched.onnx", tmp_path / "again.onnx"
    onnx.save(model, touched)
    with pytest.raises(TamperedModelError, match=r"written anew by another tool.*rnncore adapt"):
        runtime.load(touched)
    result = CliRunner().invoke(app, ["adapt", str(touched), "--out", str(again)])
    assert result.exit_code == 0, result.output
    assert "streams" in result.output
    x = np.random.default_rng(1).standard_normal((2, 9, F)).astype(np.float32)
    first, second = (runtime.load(path).run(x) for path in (ours, again))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_changed_weight_is_not_stamped(ours: Path, tmp_path: Path) -> None:
    model = onnx.load(ours)
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))
    onnx.save(model, tmp_path / "touched.onnx")
    with pytest.raises(VerificationError, match="does not answer as at export any more"):
        adapt(tmp_path / "touched.onnx", tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()


def test_a_file_without_golden_cases_is_not_stamped(ours: Path, tmp_path: Path) -> None:
    model = onnx.load(ours)
    entries = {p.key: p.value for p in model.metadata_props if p.key != "rnncore.golden"}
    del model.metadata_props[:]
    helper.set_model_props(model, entries)
    onnx.save(model, tmp_path / "touched.onnx")
    with pytest.raises(ModelFileError, match="no golden cases"):
        adapt(tmp_path / "touched.onnx", tmp_path / "again.onnx")
