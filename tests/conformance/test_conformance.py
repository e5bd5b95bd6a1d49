"""docs/conformance.md is true: claims rest on it, and files made here do what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import helper, parser
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.conformance.backends import BACKENDS, open_backend
from rnncore.conformance.driver import verify_on
from rnncore.conformance.known_faults import known_faults
from rnncore.conformance.measuring import measure
from rnncore.conformance.models import MODELS, measure_models
from rnncore.conformance.table import page as page_of
from rnncore.conformance.table import parse, parse_models
from rnncore.conformance.variants import CELLS
from rnncore.export import export
from rnncore.export.targets import why_not
from rnncore.runtime.errors import InputError, ModelFileError

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def page() -> dict[tuple[str, str, str, str], dict[str, bool]]:
    return {
        (row.cell, row.direction, row.form, row.lengths): {
            backend: isinstance(result, float) for backend, result in row.results.items()
        }
        for row in parse(PAGE.read_text(encoding="utf-8"))
    }


RELU = "g (float[b, t, 3] x) => (float[b, t, 3] y) {{ {} }}"


@pytest.mark.parametrize(
    ("nodes", "faults"),
    [
        ("y = Relu (x)", 1),
        ("y = Tanh (x)", 0),
        ("y = If <then_branch = t () => (z) { z = Relu (x) }, else_branch = e () => (z) { z = Neg (x) }> (c)", 1),
        ('y = RNN <hidden_size = 3, activations = ["Tanh", "Relu"], direction = "bidirectional"> (x, w, r)', 1),
        ('y = RNN <hidden_size = 3, activations = ["Tanh"]> (x, w, r)', 0),
    ],
    ids=["node", "none", "branch", "activation", "other activation"],
)
def test_what_openvino_makes_of_nan_is_known(nodes: str, faults: int, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(helper.make_model(parser.parse_graph(RELU.format(nodes))).SerializeToString())
    assert len(known_faults(tmp_path / "m.onnx", "openvino")) == faults and known_faults("none", "tract") == []


def test_the_page_holds_every_cell_and_the_portable_form_is_right_everywhere(
    page: dict[tuple[str, str, str, str], dict[str, bool]],
) -> None:
    portable = {row: right for row, right in page.items() if row[2] == "portable"}
    assert len(portable) == len(CELLS) * 3 * 2
    assert [row for row, right in portable.items() if right != dict.fromkeys(BACKENDS, True)] == []


def test_a_page_is_read_as_it_was_written() -> None:
    """So that some models can be measured anew while the other rows stay."""
    text = PAGE.read_text(encoding="utf-8")
    again = page_of(parse(text), parse_models(text))
    assert again[again.index("## Files that are right") :] == text[text.index("## Files that are right") :]


def test_what_targets_are_said_to_run_they_run(page: dict[tuple[str, str, str, str], dict[str, bool]]) -> None:
    wrong = [
        (cell, direction, form, lengths, program)
        for (cell, direction, form, lengths), right in page.items()
        for program, is_right in right.items()
        if not is_right
        and not why_not(program, form, CELLS[cell](), reverse=direction != "forward", lengths=lengths == "ragged")
    ]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("direction, lengths", [("forward", "none"), ("reverse", "ragged")])
def test_a_sample_does_what_the_page_says(
    page: dict[tuple[str, str, str, str], dict[str, bool]], direction: str, lengths: str
) -> None:
    rows = list(measure(cells=("LSTM peephole current",), directions=(direction,), lengths=(lengths,)))
    assert [row.form for row in rows] == ["loop", "scan", "fused", "portable"]
    for row in rows:
        found = {backend: isinstance(result, float) for backend, result in row.results.items()}
        assert found == page[row.cell, row.direction, row.form, row.lengths], row


class Mixed(nn.Module):
    """Four kinds of layers: fused anywhere; right but for NaN; right on onnxruntime but for NaN; fused nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tanh = nn.RNN(3, 4, batch_first=True)
        self.plain = nn.LSTM(4, 7, batch_first=True)
        self.peephole = rnncore.Recurrent(rnncore.LSTMCell(7, 5, peephole="current"))
        self.notes = rnncore.Recurrent(rnncore.LSTMCell(5, 2, peephole="previous"))

    def forward(self, x: Tensor) -> Tensor:
        return self.notes(self.peephole(self.plain(self.tanh(x)[0])[0])[0])[0]


@pytest.mark.slow
def test_auto_chooses_for_each_layer_and_portable_runs_everywhere(tmp_path: Path) -> None:
    torch.manual_seed(3)
    report = export(Mixed(), tmp_path / "m.onnx", torch.randn(2, 4, 3), form="auto", target="portable", lengths=False)
    forms = {name: choice.form for name, choice in report.form_choices.items()}
    assert forms == {
        "tanh.layers.0": "fused",
        "plain.layers.0": "portable",
        "peephole": "portable",
        "notes": "portable",
    }
    assert "NaN" in report.form_choices["plain.layers.0"].reason
    assert report.form == "fused+portable" and "peepholes" in report.form_choices["peephole"].reason
    assert runtime.verify(report.path).passed
    for backend in BACKENDS:
        found = verify_on(report.path, backend)
        assert found.passed, str(found)
        assert [case.kind for case in found.cases] == ["whole", "whole", "stream"]


def test_auto_takes_the_faster_loop_of_onnxruntime_where_no_operator_fits(tmp_path: Path) -> None:
    report = export(Mixed(), tmp_path / "m.onnx", torch.randn(2, 4, 3), form="auto", target="onnxruntime")
    forms = {name: choice.form for name, choice in report.form_choices.items()}
    both = "fused+scan"  # where the operator hides NaN
    assert forms == {"tanh.layers.0": "fused", "plain.layers.0": both, "peephole": both, "notes": "scan"}
    assert report.form == both and not report.verification["remarks"]


@pytest.mark.slow
def test_golden_cases_catch_a_wrong_file_and_its_absence(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = nn.GRU(3, 5, batch_first=True)
    golden = runtime.load(export(module, tmp_path / "a.onnx", torch.randn(2, 4, 3)).path).metadata["rnncore.golden"]
    with torch.no_grad():
        module.weight_hh_l0[0, 0] += 0.1
    other = {"rnncore.golden": golden}
    bare = export(module, tmp_path / "b.onnx", torch.randn(2, 4, 3), verify=False)
    with pytest.raises(ModelFileError, match="verify=True"):
        runtime.verify(bare.path)
    export(module, tmp_path / "c.onnx", torch.randn(2, 4, 3))
    from rnncore.export.file import write_entries

    write_entries(tmp_path / "c.onnx", other)  # a file whose weights are not those that the golden answers came from
    report = runtime.verify(tmp_path / "c.onnx")
    assert not report.passed and report.max_error > 1e-4 and "FAILED" in str(report)


def test_unknown_backends_and_targets_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no backend 'caffe'"):
        open_backend("caffe", tmp_path / "x.onnx")
    with pytest.raises(InputError, match=r"(?s)target is 'gpu'"):
        export(Mixed(), tmp_path / "x.onnx", torch.randn(2, 4, 3), form="auto", target="gpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="only form='auto'"):
        export(Mixed(), tmp_path / "x.onnx", torch.randn(2, 4, 3), target="tract")


def test_whole_models_in_the_portable_form_are_right_everywhere_on_the_page() -> None:
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in PAGE.read_text("utf-8").splitlines()]
    portable = {line[0]: line[2:] for line in lines if line[0] in MODELS and line[1] == "portable"}
    assert sorted(portable) == sorted(MODELS)
    assert all(len(line) == len(BACKENDS) and all(c.startswith("✓") for c in line) for line in portable.values())


@pytest.mark.slow
def test_an_int8_model_in_the_portable_form_is_right_everywhere() -> None:
    (row,) = measure_models(models=["LSTM, 2 layers, int8"], forms=["portable"])
    assert row.results.keys() == BACKENDS.keys()
    for backend, result in row.results.items():
        assert isinstance(result, float) and 0 < result < 0.1, (backend, result)
