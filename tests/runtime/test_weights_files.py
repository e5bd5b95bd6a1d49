"""Which files a model may read weights from, and what is said when it may not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from rnncore.runtime.format.tensors import external_locations

FEATURES = 4


def somewhere(tensor: TensorProto, location: str) -> TensorProto:
    """The tensor, said to be in the file ``location``."""
    outside = TensorProto()
    outside.CopyFrom(tensor)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(tensor.raw_data)))):
        outside.external_data.add(key=key, value=value)
    return outside


def model_reading(location: str, where: str = "initializer") -> bytes:
    """y = x W in which W is in the file ``location``, said so in one of the places that hold tensors."""
    weight = somewhere(numpy_helper.from_array(np.eye(FEATURES, dtype=np.float32) * 2, "W"), location)
    info = helper.make_tensor_value_info
    shape = ["batch", "time", FEATURES]
    product = helper.make_node("MatMul", ["x", "W"], ["y"])
    nodes, initializers = [product], [weight]
    if where == "constant":
        nodes, initializers = [helper.make_node("Constant", [], ["W"], value=weight), product], []
    elif where == "branch":
        branches = {
            name: helper.make_graph([product], name, [], [info("y", TensorProto.FLOAT, None)], [weight])
            for name in ("then_branch", "else_branch")
        }
        true = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True)))
        nodes, initializers = [true, helper.make_node("If", ["true"], ["y"], **branches)], []
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, shape)], initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


PLACES = ("initializer", "constant", "branch")


@pytest.mark.parametrize("where", PLACES)
@given(location=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_every_file_that_is_read_is_found(where: str, location: str) -> None:
    assert external_locations(model_reading(location, where)) == {location}


@pytest.mark.parametrize("where", PLACES)
@given(location=st.text(max_size=20).filter(lambda s: s.isascii()), data=st.data())
def test_damaged_graphs_are_walked_or_refused(where: str, location: str, data: st.DataObject) -> None:
    damaged = bytearray(model_reading(location, where))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(runtime.NotOnnxError):
        external_locations(bytes(damaged))


def test_models_without_such_files_name_none() -> None:
    inside = onnx.load_from_string(model_reading("w"))
    inside.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.frombuffer(b"location", np.uint8), "location"))
    assert external_locations(inside.SerializeToString()) == set()


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("location", ["../weights", "/etc/hostname", "in/weights", "..", ".", "", "in\\weights"])
def test_no_file_outside_the_folder_is_read(location: str, where: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "in").mkdir(parents=True)
    weights = np.eye(FEATURES, dtype=np.float32).tobytes()
    for file in (tmp_path / "weights", folder / "in" / "weights", folder / "in\\weights"):
        file.write_bytes(weights)
    (folder / "m.onnx").write_bytes(model_reading(location, where))
    with pytest.raises(runtime.ForeignModelError, match="expected a file in the model's own folder"):
        runtime.load(folder / "m.onnx", states={})


def test_no_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights").write_bytes(np.eye(FEATURES, dtype=np.float32).tobytes())
    os.symlink(tmp_path / "weights", folder / "weights")
    (folder / "m.onnx").write_bytes(model_reading("weights"))
    with pytest.raises(runtime.ForeignModelError, match="a link out of the model's own folder"):
        runtime.load(folder / "m.onnx", states={})


@pytest.mark.parametrize("where", PLACES)
def test_bytes_have_no_folder(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime alone would read a model's weights from the working directory, or from wherever it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(np.eye(FEATURES, dtype=np.float32).tobytes())
    with pytest.raises(runtime.ModelFileError, match="load it from its path"):
        runtime.load(model_reading("weights", where), states={})
