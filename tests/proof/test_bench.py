"""Verification on small files written by hand: what it asks, what it sees, what it lets pass, and what it keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.size_limits import Number, SizeLimits
from rnncore.export.verification.bench import Question, open_file
from rnncore.export.verification.cases import Case, Verdict
from rnncore.export.verification.golden import GoldenRecorder
from rnncore.export.verification.judging import Int8Judge
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.rows import ragged_cases
from rnncore.runtime.errors import ExportError, VerificationError
from rnncore.runtime.format.axes import Axis, Flat
from rnncore.runtime.format.golden import Golden
from rnncore.runtime.format.signature import TensorSpec
from rnncore.runtime.tensors.specs import Slot
from tests.proof.small_files import File, Sum, Totals, X, recorder, verified
from tests.tolerances import fixed

WHOLE = [
    (2, 6, "the example itself"),
    *((batch, time, "") for batch, time in ((1, 1), (1, 9), (2, 7), (5, 2), (3, 64))),
]
ROWS = [
    *((1, 7, f"row {row} of a batch of 2") for row in (0, 1)),
    *((2, 9, f"{what} in 'x' of row 0, seen from row 1") for what in ("NaN", "infinity")),
]
STREAMS = [
    *((1, 13, f"chunks {chunks}") for chunks in ("13 of 1", "[4, 0, 1, 8]", "[12, 1]")),
    (1, 13, "moved together, row 0 of 2, chunks [2, 9, 2]"),
    (1, 13, "moved together, row 1 of 2, chunks [4, 1, 8]"),
]


def asked(verdict: Verdict, kind: str) -> list[tuple[int, int, str]]:
    """Sizes and details of the cases of one kind, but for the one on another processor, whose detail is the machine's."""
    return [(c.batch, c.time, c.detail) for c in verdict.cases if c.kind == kind and "processor" not in c.detail]


def failed(verdict: Verdict) -> list[Case]:
    return [case for case in verdict.cases if not case.passed]


def test_what_is_asked_of_a_file_that_takes_lengths_and_streams(tmp_path: Path) -> None:
    verdict = verified(File(), Sum(), tmp_path)
    assert not failed(verdict) and not verdict.remarks and verdict.seed == 3
    assert all(0 <= case.max_rel <= case.max_abs < verdict.tolerance and not case.note for case in verdict.cases)
    assert asked(verdict, "whole") == WHOLE and asked(verdict, "rows") == ROWS and asked(verdict, "stream") == STREAMS
    ragged = asked(verdict, "ragged")
    padded = [11] * 4 + [13] * 3
    assert [detail for *_, detail in ragged] == [
        f"row {row} of a batch padded to {time}, alone"
        for row, time in zip((*range(4), *range(3)), padded, strict=True)
    ]
    assert [batch for batch, *_ in ragged] == [1] * 7
    assert [time for _, time, _ in ragged][3] == 11 and [time for _, time, _ in ragged][6] == 8
    assert len({time for _, time, _ in ragged[:3]}) > 1 and all(1 <= time <= 11 for _, time, _ in ragged)
    assert sum("processor" in case.detail for case in verdict.cases) == 1


def test_what_is_not_in_the_file_is_not_asked(tmp_path: Path) -> None:
    verdict = verified(File(lengths=False, causal=False), Sum(), tmp_path)
    assert not failed(verdict) and {case.kind for case in verdict.cases} == {"whole", "rows"}


def test_numbers_of_the_program_are_asked_on_both_sides_and_streams_go_beyond_their_reach(tmp_path: Path) -> None:
    limits = SizeLimits((), (Number("time", 40, "here"),), 40)
    verdict = verified(File(), Sum(), tmp_path, limits)
    assert asked(verdict, "whole")[6:] == [(1, 39, ""), (1, 40, ""), (1, 41, ""), (1, 56, "")]
    assert asked(verdict, "stream")[5:] == [(1, 56, "chunks [29, 1, 3, 2, 21]"), (1, 56, "chunks 14 of 4")]
    assert not failed(verdict)


class Mixed(Sum):
    def after(self, y: Tensor) -> Tensor:
        return y - y.mean(0, keepdim=True)


class Centred(Sum):
    def after(self, y: Tensor) -> Tensor:
        return y - y.mean(1, keepdim=True)


class Short(Sum):
    """Fails on fewer than 3 and on more than 60 steps."""

    def forward(self, x: Tensor) -> Tensor:
        if not 3 <= x.shape[1] <= 60:
            raise ValueError("a kernel of 3\nand more")
        return super().forward(x)


class Chaos(Sum):
    def after(self, y: Tensor) -> Tensor:
        return torch.sin(y * 1e6)


PICK = "y_pick = GatherElements <axis = 2> (y, y_at)"


@dataclass(frozen=True)
class Fault:
    """A file that does not do what the module does, the kinds of cases that fail, and what the first one says."""

    file: File
    kinds: set[str]
    says: str = ""
    make: Callable[[], Sum] = Sum
    details: set[str] = field(default_factory=set)


FAULTS = {
    "off": Fault(File("y = Add (sum, small)"), {"whole"}),
    "wider": Fault(File("y = Concat <axis = 1> (sum, sum)", causal=False, lengths=False), {"whole"}, "instead of"),
    "chance": Fault(
        File("r = RandomUniformLike <high = 0.000001, low = 0.0> (sum)  y = Add (sum, r)", causal=False, lengths=False),
        {"whole"},
        "a second run gave other bits",
    ),
    "rows mixed": Fault(
        File("m = ReduceMean (sum, zeros)  y = Sub (sum, m)", causal=False, lengths=False), {"rows"}, "", Mixed
    ),
    "padding counted": Fault(
        File("m = ReduceMean (sum, ones)  y = Sub (sum, m)", causal=False), {"ragged"}, "", Centred
    ),
    "state stays": Fault(File(end="s_next = Identity (s)"), {"stream"}),
    "streams mixed": Fault(
        File(end="m = ReduceMean (total, zeros)  d = Sub (total, m)  t = Add (total, d)  s_next = Add (s, t)"),
        {"stream"},
        details={detail for *_, detail in STREAMS[3:]},
    ),
    "NaN of other rows": Fault(
        File("m = ReduceMean (sum, zeros)  n = Mul (m, nought)  y = Add (sum, n)"),
        {"rows"},
        details={detail for *_, detail in ROWS[2:]},
    ),
    "too long": Fault(
        File(axes=(Axis("time", maximum=20),)),
        {"whole"},
        "the file refuses it: input 'x' has size 64 along axis 'time', expected at most 20",
    ),
    "picks": Fault(
        File(pick="y_pick = GatherElements <axis = 2> (x, y_at)"),
        {"whole"},
        "the picks are not what output 'y' has there",
        details={"3 picked a step"},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_where_it_shows(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    verdict = verified(fault.file, fault.make(), tmp_path)
    assert {case.kind for case in failed(verdict)} == fault.kinds
    assert fault.says in failed(verdict)[0].note
    if fault.details:
        assert {case.detail for case in failed(verdict)} == fault.details
    assert len(verdict.failures(*fault.kinds)) == len(failed(verdict)) and not verdict.failures("none")


def test_what_can_be_asked_by_index_is(tmp_path: Path) -> None:
    verdict = verified(File(pick=PICK), Sum(), tmp_path)
    assert not failed(verdict)
    assert asked(verdict, "whole")[6:] == [(1, 1, "1 picked a step"), (2, 7, "3 picked a step")]


OWN = (X, torch.tensor([6, 4]))
TOTAL = "t = Unsqueeze (total, ones)  z = Mul (sum, nought)  y = Add (z, t)"


def test_lengths_of_the_modules_own_are_asked_as_they_are_and_row_by_row(tmp_path: Path) -> None:
    verdict = verified(File(TOTAL, causal=False), Totals(), tmp_path, example=OWN)
    assert not failed(verdict)
    ragged = asked(verdict, "ragged")
    assert ragged[0] == (2, 6, "the example itself") and asked(verdict, "whole") == WHOLE[1:]
    own = [(batch, time) for batch, time, detail in ragged if detail.startswith("lengths [")]
    assert own == [(4, 11), (3, 13)]
    assert sum(detail.endswith("alone") for *_, detail in ragged) == 7
    golden = recorder(Totals(), example=OWN).record(tmp_path / "m.onnx")
    _, kept = golden.cases
    assert (kept.kind, kept.lengths, list(kept.inputs)) == ("ragged", (5, 3), ["x"])
    wanted = np.stack([kept.inputs["x"][0].sum(0), kept.inputs["x"][1, :3].sum(0)])[:, None].repeat(5, 1)
    wanted[1, 3:] = 0
    np.testing.assert_allclose(kept.outputs["y"].values, wanted.ravel(), rtol=0, atol=fixed("float32"))


def test_padding_that_is_not_zero_is_what_shows_it(tmp_path: Path) -> None:
    """The runtime pads a list of rows with zeros, which a sum does not see; the callers' own padding may be anything."""
    verdict = verified(File(TOTAL, causal=False, heeds=False), Totals(), tmp_path, example=OWN)
    details = {case.detail for case in failed(verdict)}
    assert "the example itself" in details and {case.kind for case in failed(verdict)} == {"ragged"}
    assert all(detail.startswith(("lengths [", "the example")) for detail in details) and len(details) == 3


def test_after_a_padded_batch_that_is_refused_the_next_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnncore.export.verification.rows.RAGGED_SIZES", ((3, 13, 8), (4, 11, 11)))
    model = open_file(File(axes=(Axis("time", maximum=12),)).written(tmp_path / "m.onnx"))
    first, *others = ragged_cases(recorder(Sum()), model)
    assert (first.kind, first.batch, first.time, first.passed) == ("ragged", 3, 13, False)
    assert first.note == "the file refuses it: input 'x' has size 13 along axis 'time', expected at most 12"
    assert first.detail.startswith("lengths [") and math.isinf(first.max_abs)
    assert [(case.passed, case.note) for case in others] == [(True, "")] * 4
    assert all(case.detail.endswith("of a batch padded to 11, alone") for case in others)


class Ends(Sum):
    def after(self, y: Tensor) -> Tensor:
        return y[:, :4]


def test_an_answer_that_ends_before_the_files_is_as_if_it_went_on_with_zeros(tmp_path: Path) -> None:
    bench, model = recorder(Ends()), open_file(File().written(tmp_path / "m.onnx"))
    right = X.cumsum(1).numpy()
    right[:, 4:] = 0
    for may, got, passed, note in (
        (True, right, True, ""),
        (True, right[:, :4], True, ""),
        (True, np.where(right == 0, np.float32(1), right), False, ""),
        (False, right, False, "shape (2, 6, 3) instead of (2, 4, 3)"),
        (True, right[:, :3], False, "shape (2, 3, 3) instead of (2, 4, 3)"),
        (True, right[0], False, "shape (6, 3) instead of (2, 4, 3)"),
    ):
        case = bench.judge(Question("whole", 2, 6, [X], may_be_shorter=may), model, [got])
        assert (case.passed, case.note) == (passed, note)


def test_a_hidden_nan_is_a_remark(tmp_path: Path) -> None:
    verdict = verified(File("n = IsNaN (sum)  y = Where (n, nought, sum)"), Sum(), tmp_path)
    assert not failed(verdict)
    assert verdict.remarks == ["NaN in 'x' does not show in 'y' as it does in PyTorch: check inputs before"]
    verdict = verified(File("n = IsInf (sum)  y = Where (n, nought, sum)"), Sum(), tmp_path)
    assert verdict.remarks == ["infinity in 'x' does not show in 'y' as it does in PyTorch: check inputs before"]


def test_where_pytorch_fails_nothing_is_compared(tmp_path: Path) -> None:
    verdict = verified(File(causal=False), Short(), tmp_path)
    assert not failed(verdict)
    left_out = {
        (c.batch, c.time, c.kind) for c in verdict.cases if c.note == "left out, PyTorch itself fails: a kernel of 3"
    }
    assert left_out == {(1, 1, "whole"), (5, 2, "whole"), (3, 64, "whole")}
    assert len(asked(verdict, "ragged")) < 7

    class Never(Sum):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    with pytest.raises(ExportError, match=r"PyTorch itself fails at every size that was tried, such as: no$"):
        verified(File(causal=False), Never(), tmp_path)


def test_what_a_module_makes_of_rounding_is_excused(tmp_path: Path) -> None:
    million = "c = Constant <value_float = 1000000.0> ()  m = Mul (sum, c)  y = Sin (m)"
    verdict = verified(File(million, causal=False, lengths=False), Chaos(), tmp_path)
    assert not failed(verdict)
    assert "the model amplifies rounding; float64 confirms the file" in {case.note for case in verdict.cases}
    path = File(million, causal=False, lengths=False).written(tmp_path / "m.onnx")
    golden = recorder(Chaos()).record(path)
    assert "batch: the model amplifies rounding beyond the tolerance" in golden.left_out


# ------------------------------------------------------------------------------------------------------- golden cases
def test_golden_cases_are_whole_ragged_and_a_stream(tmp_path: Path) -> None:
    golden = recorder(Sum()).record(File().written(tmp_path / "m.onnx"))
    kept = [(c.kind, c.batch, c.time, c.lengths, c.chunks, list(c.drawn)) for c in golden.cases]
    assert kept == [
        ("whole", 1, 1, None, None, []),
        ("ragged", 2, 5, (5, 3), None, []),
        ("stream", 1, 13, None, (4, 0, 1, 8), ["x"]),
    ]
    assert (golden.tolerance, golden.measure, golden.left_out) == (1e-4, "max", ())
    whole, ragged, stream = golden.cases
    for case in (whole, stream):
        np.testing.assert_allclose(
            case.outputs["y"].values, case.inputs["x"].cumsum(1).ravel(), rtol=0, atol=fixed("float32")
        )
    wanted = ragged.inputs["x"].cumsum(1)
    wanted[1, 3:] = 0
    np.testing.assert_allclose(ragged.outputs["y"].values, wanted.ravel(), rtol=0, atol=fixed("float32"))
    drawn = stream.drawn["x"]
    assert (drawn.low, drawn.high) == (float(X.min()), float(X.max())) and drawn.shape == (1, 13, 3)


def test_golden_cases_of_int8_are_measured_by_the_spread_of_the_answers(tmp_path: Path) -> None:
    """Half of answers that are all small is much, though no number is far off."""

    class Small(Sum):
        def after(self, y: Tensor) -> Tensor:
            return y / 1000

    read = Example.of(Small(), X, None, False)
    int8 = GoldenRecorder(Reference(Small(), read), read, Int8Judge(), 3)
    for factor, kept in ((0.00101, 3), (0.0015, 0)):
        y = f"f = Constant <value_float = {factor}> ()  y = Mul (sum, f)"
        golden = int8.record(File(y, lengths=False).written(tmp_path / "m.onnx"))
        assert (golden.measure, len(golden.cases), len(golden.left_out)) == ("rms", kept, 3 - kept)


def test_golden_streams_are_as_long_as_those_that_were_verified(tmp_path: Path) -> None:
    path = File(lengths=False).written(tmp_path / "m.onnx")
    _, batch, stream = recorder(Sum(), SizeLimits((), (), 40)).record(path).cases
    assert (batch.kind, batch.batch, batch.time, batch.lengths) == ("whole", 2, 5, None)
    assert (stream.time, stream.chunks) == (56, (29, 1, 3, 2, 21))


def test_golden_streams_are_as_long_as_the_example_and_take_no_room(tmp_path: Path) -> None:
    path = File(lengths=False).written(tmp_path / "m.onnx")
    golden = recorder(Sum(), example=torch.randn(2, 400, 3, generator=torch.Generator().manual_seed(1))).record(path)
    stream = golden.cases[2]
    assert stream.time == 400 and sum(stream.chunks or ()) == 400 and set(stream.drawn) == {"x"}
    kept, right = stream.outputs["y"], stream.inputs["x"].cumsum(1)
    np.testing.assert_allclose(kept.values, right.ravel()[:: kept.every], rtol=0, atol=fixed("float32 long"))
    assert len(golden.to_json()) < 25_000 and Golden.from_json(golden.to_json()).to_json() == golden.to_json()


def test_golden_inputs_that_are_too_large_to_keep_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnncore.export.verification.golden.RAW_BYTES", 3 * 238)
    path = File().written(tmp_path / "m.onnx")
    assert [set(case.drawn) for case in recorder(Sum()).record(path).cases] == [set(), {"x"}, {"x"}]
    monkeypatch.setattr("rnncore.export.verification.golden.RAW_BYTES", 3 * 240)  # half of it is the ragged input
    golden = recorder(Sum()).record(path)
    assert [set(case.drawn) for case in golden.cases] == [set(), set(), {"x"}] and not golden.left_out
    assert [case.outputs["y"].every for case in golden.cases] == [1, 1, 1]


def test_golden_inputs_are_spread_where_the_example_is_constant(tmp_path: Path) -> None:
    path = File().written(tmp_path / "m.onnx")
    (*_, stream) = recorder(Sum(), example=torch.full((2, 6, 3), 7.0)).record(path).cases
    assert (stream.drawn["x"].low, stream.drawn["x"].high) == (6.0, 8.0)


def test_golden_cases_that_the_module_does_not_take_are_left_out(tmp_path: Path) -> None:
    golden = recorder(Short()).record(File(lengths=False).written(tmp_path / "m.onnx"))
    assert [case.kind for case in golden.cases] == ["whole", "stream"]
    assert golden.left_out == ("whole: PyTorch itself fails at this size: a kernel of 3",)


@pytest.mark.parametrize("file", [FAULTS["off"].file, FAULTS["state stays"].file], ids=["off", "state stays"])
def test_golden_cases_of_a_wrong_file_are_not_recorded(file: File, tmp_path: Path) -> None:
    with pytest.raises(
        VerificationError, match=r"^the file answers its golden cases differently:\n.*1 of 1 cases FAILED"
    ):
        recorder(Sum()).record(file.written(tmp_path / "m.onnx"))


def test_a_verdict_is_plain_data(tmp_path: Path) -> None:
    verdict = verified(FAULTS["off"].file, Sum(), tmp_path)
    data = verdict.to_dict()
    assert list(data) == ["seed", "tolerance", "versions", "cases", "remarks"]
    assert list(data["versions"]) == ["python", "torch", "onnx", "onnxruntime"] and all(data["versions"].values())
    assert [Case(**case) for case in data["cases"]] == verdict.cases and math.isfinite(data["cases"][0]["max_abs"])


@pytest.mark.parametrize("longest", [6, 4])
def test_flat_answers_as_long_as_the_longest_row_are_padded(longest: int) -> None:
    """[batch * steps, n], of a module that gives back only as many steps as its longest row has."""
    slot = Slot.of(TensorSpec("y", "float32", (Flat(("batch", "time")), 2)))
    value = np.arange(2 * longest * 2, dtype=np.float32).reshape(2 * longest, 2)
    assert slot.holds(value, 2, longest)
    assert not slot.holds(value, 2, longest + 1)
    assert not slot.holds(value[:, 0], 2, longest)
