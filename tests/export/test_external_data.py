"""Weights in a second file: the same numbers, and nothing but the file that was written at export is read."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import rnncore
from rnncore import runtime
from rnncore.export import ExportReport, adapt, export, export_generator
from rnncore.export import file as saving
from rnncore.runtime.errors import ExportError, InputError, VerificationError
from rnncore.runtime.format.container import FINGERPRINT_KEY, metadata_of, replace_metadata, stamp
from rnncore.runtime.format.external_data import WEIGHTS_KEY, WeightsFile
from rnncore.runtime.format.signature import BLANK_FINGERPRINT
from tests.export.exporting import one_trace

SIZE, HIDDEN = 5, 19


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(4)

    class Tagger(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnncore.GRU(SIZE, HIDDEN, reset="before")
            self.head = torch.nn.Linear(HIDDEN, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0])

    return Tagger().eval()


@pytest.fixture(scope="module")
def written(module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    folder = tmp_path_factory.mktemp("external")
    with one_trace():
        export(module, folder / "one.onnx", torch.randn(2, 4, SIZE))
        return export(module, folder / "two.onnx", torch.randn(2, 4, SIZE), external_data=True)


@pytest.fixture
def copied(written: ExportReport, tmp_path: Path) -> Path:
    """The model in a folder of its own."""
    for file in written.path.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / written.path.name


def test_both_ways_give_the_same_bits(written: ExportReport) -> None:
    one, two = runtime.load(written.path.with_name("one.onnx")), runtime.load(written.path)
    x = np.random.default_rng(1).normal(size=(3, 7, SIZE)).astype(np.float32)
    np.testing.assert_array_equal(one.run(x), two.run(x))
    with one.stream() as a, two.stream() as b:
        np.testing.assert_array_equal(a.push(x[0]), b.push(x[0]))
    assert runtime.verify(written.path).passed
    with pickle.loads(pickle.dumps(two)).stream() as stream:
        np.testing.assert_array_equal(stream.push(x[0]), one.stream().push(x[0]))


def test_the_weights_are_in_the_second_file_and_small_constants_in_the_first(written: ExportReport) -> None:
    assert written.weights_path is not None
    digest = hashlib.sha256(written.weights_path.read_bytes()).hexdigest()
    assert written.weights_path == written.path.with_name(f"two.onnx.{digest[:16]}.data")
    names = ["one.onnx", "two.onnx", written.weights_path.name]
    assert sorted(file.name for file in written.path.parent.iterdir()) == sorted(names)
    assert written.size_bytes == written.path.stat().st_size + written.weights_path.stat().st_size
    assert str(written.weights_path) in str(written)
    graph = onnx.load(written.path, load_external_data=False).graph
    outside = {tensor.name for tensor in graph.initializer if tensor.external_data}
    assert any("weight_hh" in name for name in outside)
    assert not any(tensor.external_data for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64)
    onnx.checker.check_model(written.path, full_check=True)


def weights_beside(model: Path) -> Path:
    (weights,) = model.parent.glob(f"{model.name}.*.data")
    return weights


@pytest.mark.parametrize("change", ["bit", "cut", "longer", "gone", "link"])
def test_other_weights_are_refused(change: str, copied: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    weights = weights_beside(copied)
    data = weights.read_bytes()
    errors: dict[str, tuple[type[Exception], str]] = {
        "bit": (runtime.TamperedModelError, "not those the model was exported with"),
        "cut": (runtime.TamperedModelError, f"have {len(data) - 1} bytes, the model was exported with {len(data)}"),
        "longer": (runtime.TamperedModelError, f"have {len(data) + 1} bytes"),
        "gone": (runtime.NotOnnxError, "which is not there: copy both files"),
        "link": (runtime.ForeignModelError, "a link out of the model's own folder"),
    }
    model = runtime.load(copied)
    weights.unlink()
    if change == "link":
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "weights"
        elsewhere.write_bytes(data)
        weights.symlink_to(elsewhere)
    elif change != "gone":
        changed = {"bit": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "longer": data + b"0"}[change]
        weights.write_bytes(changed)
    error, message = errors[change]
    with pytest.raises(error, match=message):
        runtime.load(copied)
    with pytest.raises(error, match=message):
        pickle.loads(pickle.dumps(model))


def test_a_graph_that_reads_another_file_is_refused(copied: Path) -> None:
    """Whoever edits a file can give it a fingerprint that fits; it still reads nothing but what its metadata names."""
    model = onnx.load(copied, load_external_data=False)
    model.graph.initializer[next(i for i, t in enumerate(model.graph.initializer) if t.external_data)].external_data[
        0
    ].value = "one.onnx"
    data = replace_metadata(model.SerializeToString(), {FINGERPRINT_KEY: BLANK_FINGERPRINT})
    copied.write_bytes(stamp(data))
    with pytest.raises(
        runtime.TamperedModelError, match=r"reads weights from 'one\.onnx', which rnncore did not write"
    ):
        runtime.load(copied)


def test_adapt_leaves_no_second_file_behind(copied: Path) -> None:
    """In the place of a file of two, which a tool has touched, comes one with all weights inside."""
    x = np.random.default_rng(3).standard_normal((2, 7, SIZE)).astype(np.float32)
    wanted = runtime.load(copied).run(x)
    touched = onnx.load(copied, load_external_data=False)
    touched.graph.doc_string = "touched"
    copied.write_bytes(touched.SerializeToString())
    adapt(copied, copied)
    assert {file.name for file in copied.parent.iterdir()} == {"one.onnx", "two.onnx"}
    np.testing.assert_array_equal(runtime.load(copied).run(x), wanted)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"file": "two.onnx.data", "size": "x", "sha256": ""}'])
def test_metadata_that_make_no_sense_are_refused(text: str, copied: Path) -> None:
    data = replace_metadata(copied.read_bytes(), {WEIGHTS_KEY: text, FINGERPRINT_KEY: BLANK_FINGERPRINT})
    copied.write_bytes(stamp(data))
    with pytest.raises(runtime.ModelFileError):
        runtime.load(copied)


def test_bytes_are_refused_with_the_remedy(written: ExportReport) -> None:
    with pytest.raises(runtime.ModelFileError, match=r"second file, 'two\.onnx\.[0-9a-f]{16}\.data': load it"):
        runtime.load(written.path.read_bytes())


def test_what_fails_leaves_what_was_there(
    module: torch.nn.Module, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in copied.parent.iterdir()}
    monkeypatch.setattr("rnncore.export.verification.reference.TOLERANCE", {"float32": -1.0})
    monkeypatch.setattr("rnncore.export.verification.judging.TOLERANCE", {"float32": -1.0})
    with one_trace(), pytest.raises(VerificationError):
        export(module, copied, torch.randn(2, 4, SIZE), external_data=True)
    assert {file.name: file.read_bytes() for file in copied.parent.iterdir()} == before


def test_what_is_too_large_for_one_file_goes_to_two(
    module: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "LARGEST_FILE", 1000)
    example = torch.randn(2, 4, SIZE)
    with one_trace():
        written = export(module, tmp_path / "m.onnx", example)
    assert written.weights_path == weights_beside(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="leave external_data out"):
        export(module, tmp_path / "m.onnx", example, external_data=False)
    with pytest.raises(InputError, match=r"quantize='int8' starts from one float32 file"):
        export(module, tmp_path / "m.onnx", example, quantize="int8")
    with pytest.raises(ExportError, match="a generator is one file"):
        export_generator(tmp_path / "m.onnx", tmp_path / "g.onnx", start=0, end=1)


def test_the_hash_is_under_the_fingerprint(copied: Path) -> None:
    """Weights and their hash exchanged together do not pass: the fingerprint of the model covers the hash."""
    weights = weights_beside(copied)
    weights.write_bytes(bytes(weights.stat().st_size))
    data = copied.read_bytes()
    entry = json.loads(metadata_of(data)[WEIGHTS_KEY])
    entry["sha256"] = WeightsFile.of(weights).sha256
    copied.write_bytes(replace_metadata(data, {WEIGHTS_KEY: json.dumps(entry)}))
    with pytest.raises(runtime.TamperedModelError, match="weights or graph were changed after export"):
        runtime.load(copied)


def test_weights_that_all_stay_inside_need_no_second_file(tmp_path: Path) -> None:
    values = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([3])) for name in ("x", "y")]
    weight = ir.tensor(np.arange(3, dtype=np.float32), name="w")
    kept = ir.Value(name="w", type=values[0].type, shape=values[0].shape, const_value=weight)
    node = ir.Node("", "Add", [values[0], kept], outputs=[values[1]])
    graph = ir.Graph([values[0]], [values[1]], nodes=[node], initializers=[kept], opset_imports={"": 20}, name="small")
    model = ir.Model(graph, ir_version=10)
    model.metadata_props[FINGERPRINT_KEY] = BLANK_FINGERPRINT
    saving.write_model(model, tmp_path / "small.onnx", external=True)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    assert WEIGHTS_KEY not in metadata_of((tmp_path / "small.onnx").read_bytes())
