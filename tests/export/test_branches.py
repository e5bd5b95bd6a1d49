"""Each recurrence stands in one branch for each way of calling; all give PyTorch's numbers, and onnxruntime packs weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.helper import get_attribute_value

import rnncore
from rnncore import runtime
from rnncore.export import ExportReport, export
from rnncore.export.lowering import forms
from rnncore.export.tracing.example import Example
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.session.cpu_features import supposing
from tests.export.exporting import FORMS, Exported, all_graphs, all_nodes, as_loaded, export_forms, one_trace
from tests.export.faults import Fault, with_fault
from tests.strategies import randomize
from tests.tolerances import fixed

SIZE = 3


class Pair(torch.nn.Module):
    """Two layers of different cells, so that they share an extent."""

    def __init__(self) -> None:
        super().__init__()
        self.first = rnncore.LSTM(SIZE, 5, peephole="previous")
        self.second = rnncore.GRU(5, 7, reset="before")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)[0])[0]


@pytest.fixture(scope="module")
def module() -> Iterator[Pair]:
    """Every file of this module comes from one trace with lengths, or from one without."""
    with one_trace():
        yield randomize(Pair().eval(), 3)


@pytest.fixture(scope="module")
def with_lengths(module: Pair, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_forms(module, tmp_path_factory.mktemp("lengths"), torch.randn(2, 4, SIZE))


@pytest.fixture(scope="module")
def without_lengths(module: Pair, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_forms(module, tmp_path_factory.mktemp("plain"), torch.randn(2, 4, SIZE), lengths=False)


def branch_names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in all_nodes(graph):
        if node.op_type == "If":
            yield from (get_attribute_value(a).name.split("/")[-1].rstrip("_0123456789") for a in node.attribute)


@pytest.mark.parametrize("form", FORMS)
def test_every_way_of_calling_has_its_branch(form: str, with_lengths: Exported, without_lengths: Exported) -> None:
    common = ["one_step", "steps", "one_row", "rows"]
    assert sorted(branch_names(with_lengths.proto(form).graph)) == sorted(2 * [*common, "full", "masked"])
    assert sorted(branch_names(without_lengths.proto(form).graph)) == sorted(2 * common)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data(), batch=st.integers(1, 4), time=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_every_branch_gives_pytorchs_numbers(
    form: str,
    data: st.DataObject,
    batch: int,
    time: int,
    seed: int,
    module: Pair,
    with_lengths: Exported,
    without_lengths: Exported,
) -> None:
    x = torch.randn(batch, time, SIZE, generator=torch.Generator().manual_seed(seed))
    lengths = data.draw(st.lists(st.integers(0, time), min_size=batch, max_size=batch))
    with torch.no_grad():
        np.testing.assert_allclose(without_lengths.models[form].run(x.numpy()), module(x), atol=fixed("float32"))
        for steps in (lengths, [time] * batch):
            got = with_lengths.models[form].run(x.numpy(), lengths=np.array(steps))
            for row, length in enumerate(steps):
                np.testing.assert_allclose(
                    got[row, :length], module(x[row : row + 1, :length])[0], atol=fixed("float32")
                )
                assert not got[row, length:].any()


@pytest.fixture(scope="module")
def plain(module: Pair, tmp_path_factory: pytest.TempPathFactory) -> list[ExportReport]:
    """Files without branches: loops with masks, and scans without."""
    folder, x = tmp_path_factory.mktemp("one loop"), torch.randn(2, 4, SIZE)
    return [
        export(module, folder / f"{form}.onnx", x, form=form, lengths=lengths, branches=False)
        for form, lengths in (("loop", "auto"), ("scan", False))
    ]


def test_without_branches_each_layer_is_one_loop(plain: list[ExportReport]) -> None:
    for report, operator, lengths in zip(plain, ("Loop", "Scan"), (True, False), strict=True):
        kinds = Counter(node.op_type for node in all_nodes(onnx.load(report.path).graph))
        assert (kinds[operator], kinds["Tanh"], kinds["If"]) == (2, 3, 0)  # an LSTM has two of them, a GRU one
        assert bool(kinds["Where"]) == lengths
        assert report.causal and "without branches" in str(report)


@given(steps=st.lists(st.integers(0, 4), min_size=1, max_size=4), seed=st.integers(0, 2**31), cut=st.integers(0, 4))
def test_without_branches_the_answers_are_the_same(
    steps: list[int], seed: int, cut: int, module: Pair, plain: list[ExportReport]
) -> None:
    masked, scan = (runtime.load(report.path) for report in plain)
    x = torch.randn(len(steps), 4, SIZE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = module(x).numpy()
    np.testing.assert_allclose(scan.run(x.numpy()), right, atol=fixed("float32"))
    got = masked.run(x.numpy(), lengths=np.array(steps))
    for row, length in enumerate(steps):
        np.testing.assert_allclose(got[row, :length], right[row, :length], atol=fixed("float32"))
        assert not got[row, length:].any()
    for model in (masked, scan):
        with model.stream() as stream:
            pieces = [stream.push(piece) for piece in (x[0, :cut].numpy(), x[0, cut:].numpy()) if len(piece)]
        np.testing.assert_allclose(np.concatenate(pieces), right[0], atol=fixed("float32"))


@pytest.mark.parametrize("form", FORMS)
def test_copies_for_packing_are_constants_once_onnxruntime_has_loaded_them(
    form: str, with_lengths: Exported, tmp_path: Path
) -> None:
    """A loop that reads its weight from further out packs it anew at every step, or gets no plan of its memory."""
    graph = as_loaded(with_lengths.path(form), tmp_path)
    assert not any(node.op_type == "Flatten" for node in all_nodes(graph))
    packed = [part for part in all_graphs(graph) if part.name.split("/")[-1].startswith(("full", "masked"))]
    assert len(packed) == 4
    for part in packed:
        (body,) = (inner for inner in all_graphs(part) if "/body" in inner.name)
        here = {tensor.name for tensor in body.initializer}
        products = [node for node in body.node if node.op_type in ("MatMul", "Gemm")]
        assert products and all(node.input[1] in here for node in products)


def test_a_large_cell_keeps_its_loop_for_one_step(
    module: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "SMALL", 5 * 20)  # the LSTM's, not the GRU's
    export(module, tmp_path / "large.onnx", torch.randn(2, 4, SIZE))
    names = list(branch_names(onnx.load(tmp_path / "large.onnx").graph))
    assert (names.count("one_step"), names.count("one_row")) == (1, 2)
    x = torch.randn(6, SIZE, generator=torch.Generator().manual_seed(1))
    with runtime.load(tmp_path / "large.onnx").stream() as stream, torch.no_grad():
        got = np.concatenate([stream.push(step[None].numpy()) for step in x])
        np.testing.assert_allclose(got, module(x[None])[0], atol=fixed("float32"))


def broken(name: str) -> Fault:
    """Every branch of this name gives the opposite of its output."""

    def fault(model: ir.Model) -> int:
        places = 0
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            for attribute in node.attributes.values():
                branch = attribute.value
                if isinstance(branch, ir.Graph) and str(branch.name).split("/")[-1].startswith(name):
                    wrong = ir.Node("", "Neg", [branch.outputs[0]], name=f"{branch.name}/wrong")
                    wrong.outputs[0].name = wrong.name
                    branch.append(wrong)
                    branch.outputs[0] = wrong.outputs[0]
                    places += 1
        return places

    return fault


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("avx512", [False, True])
def test_one_row_takes_the_branch_that_suits_the_processor(
    avx512: bool, form: str, with_lengths: Exported, module: Pair
) -> None:
    x = torch.randn(1, 4, SIZE, generator=torch.Generator().manual_seed(1))
    taken, other = ("full", "one_row") if avx512 else ("one_row", "full")
    data = with_lengths.path(form).read_bytes()
    with supposing(avx512), torch.no_grad():
        np.testing.assert_allclose(
            runtime.load(with_fault(data, broken(other))).run(x.numpy()), module(x), atol=fixed("float32")
        )
        wrong = runtime.load(with_fault(data, broken(taken))).run(x.numpy())
    assert np.abs(wrong - module(x).detach().numpy()).max() > 1e-2


@pytest.mark.parametrize("branch", ["one_step", "one_row", "full", "masked"])
@pytest.mark.parametrize("form", FORMS)
def test_verification_sees_every_branch_whatever_processor_it_runs_on(
    branch: str, form: str, with_lengths: Exported, module: Pair, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(with_fault(with_lengths.path(form).read_bytes(), broken(branch)))
    example = Example.of(module, torch.randn(2, 4, SIZE), None, "auto")
    verdict = Verifier(Reference(module, example), example, Judge.of("float32"), seed=3).verify(
        tmp_path / "broken.onnx"
    )
    assert [case for case in verdict.cases if not case.passed]
