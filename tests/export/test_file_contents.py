"""What is inside a file: weights once and by name, unique names, standard operators, metadata that tells all."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import rnncore
from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import ModelFileError
from tests.export.exporting import FORMS, Exported, all_graphs, all_nodes
from tests.export.modules import ids
from tests.tolerances import fixed

every_file = pytest.mark.parametrize("which, form", list(product(("causal", "both_ways"), FORMS)))


@pytest.fixture
def exported(which: str, request: pytest.FixtureRequest) -> Exported:
    return request.getfixturevalue(which)


@every_file
def test_file_is_valid_standard_onnx(exported: Exported, form: str) -> None:
    proto = exported.proto(form)
    onnx.checker.check_model(proto, full_check=True)
    assert [opset.domain for opset in proto.opset_import] == [""]
    assert not proto.functions
    assert {node.domain for node in all_nodes(proto.graph)} == {""}
    kinds = Counter(node.op_type for node in all_nodes(proto.graph))
    assert kinds[form.capitalize()] > 0 and not kinds[{"loop": "Scan", "scan": "Loop"}[form]]


@every_file
def test_names_are_unique_across_nested_graphs(exported: Exported, form: str) -> None:
    proto = exported.proto(form)
    graphs = list(all_graphs(proto.graph))
    values = Counter(
        name
        for graph in graphs
        for name in (
            *(value.name for value in graph.input),
            *(tensor.name for tensor in graph.initializer),
            *(name for node in graph.node for name in node.output if name),
        )
    )
    assert [name for name, count in values.items() if count > 1] == []
    nodes = Counter(node.name for node in all_nodes(proto.graph) if node.name)
    assert [name for name, count in nodes.items() if count > 1] == []
    assert len(graphs) > 3


@every_file
def test_nothing_of_the_build_is_left(exported: Exported, form: str) -> None:
    data = exported.path(form).read_bytes()
    for left_over in (b"pkg.torch", b"site-packages", bytes(Path(__file__).parent), b"rnncore::", b"Recurrent"):
        assert left_over not in data


@every_file
def test_weights_are_in_the_main_graph_once_under_their_paths(exported: Exported, form: str) -> None:
    proto = exported.proto(form)
    assert all(not graph.initializer for graph in all_graphs(proto.graph) if graph is not proto.graph)
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    weights = {name: value for name, value in stored.items() if value.dtype == np.float32 and value.size > 1}
    parameters = rnncore.convert(exported.module).named_parameters()
    paths = {path.replace(".stack.", "."): p.detach().numpy() for path, p in parameters}
    assert len(weights) > 5
    for name, value in weights.items():
        path, transposed = name.removesuffix(".T").replace(".stack.", "."), name.endswith(".T")
        if path.endswith(".bias_ih+bias_hh"):
            cell = path.removesuffix("bias_ih+bias_hh")
            want = paths[f"{cell}bias_ih"] + paths[f"{cell}bias_hh"]
        else:
            want = paths[path]
        np.testing.assert_array_equal(value, want.T if transposed else want, err_msg=name)
    contents = Counter((value.shape, value.tobytes()) for value in weights.values())
    assert max(contents.values()) == 1


@pytest.mark.parametrize("form", FORMS)
def test_file_is_hardly_larger_than_its_weights(form: str, both_ways: Exported) -> None:
    size_bytes = sum(p.numel() * p.element_size() for p in both_ways.module.parameters())
    stored = sum(len(t.raw_data) for t in both_ways.proto(form).graph.initializer)
    assert stored <= 1.01 * size_bytes
    assert both_ways.path(form).stat().st_size < 1.2 * size_bytes
    assert both_ways.reports[form].size_bytes == both_ways.path(form).stat().st_size


@every_file
def test_report_in_the_file_is_the_report(exported: Exported, form: str) -> None:
    report, model = exported.reports[form], exported.models[form]
    assert model.report == report.verification == json.loads(report.to_json())["verification"]
    assert set(model.report["versions"]) == {"python", "torch", "onnx", "onnxruntime"}
    assert model.report["versions"]["torch"] == torch.__version__
    cases = model.report["cases"]
    assert {case["kind"] for case in cases} == {"whole", "rows", "ragged"} | ({"stream"} if report.causal else set())
    assert {(1, 1), (2, 7), (5, 2), (3, 64)} <= {(case["batch"], case["time"]) for case in cases}
    assert all(case["passed"] and case["max_rel"] <= model.report["tolerance"] for case in cases)
    assert 0 < report.max_error < fixed("float32 long")
    assert f"{len(cases)} cases verified" in str(report) and f"form {form}" in str(report)
    assert model.metadata["rnncore.form"] == form and model.metadata["rnncore.precision"] == "float32"


@pytest.mark.slow
def test_same_module_and_seed_give_the_same_bytes(both_ways: Exported, folder: Path) -> None:
    again = export(both_ways.module, folder / "again.onnx", ids(2, 6))
    assert again.path.read_bytes() == both_ways.path().read_bytes()


@every_file
def test_damaged_files_are_refused(exported: Exported, form: str) -> None:
    """Cut at any place or with any bit flipped, a file is refused and never half-understood."""
    data = exported.path(form).read_bytes()
    random = np.random.default_rng(2)
    for end in (0, 1, len(data) // 2, len(data) - 1, *random.integers(2, len(data), 10)):
        with pytest.raises(ModelFileError):
            runtime.load(data[:end])
    for at in random.integers(0, len(data), 40):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(random.integers(8))
        with pytest.raises(ModelFileError):
            runtime.load(bytes(flipped))
    assert runtime.load(data).fingerprint == exported.models[form].fingerprint
