"""Which sizes are asked, how answers are cut and joined, and what the reference says: parts of verification, number by number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.size_limits import Guard, Number, SizeLimits
from rnncore.export.verification.bench import Bench, Question, open_file, outputs_of
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.not_finite import _kinds, _spoiled, not_finite_cases
from rnncore.export.verification.reference import Reference, first_line
from rnncore.export.verification.rows import counted_cases, masked_cases
from rnncore.export.verification.sizes import Sizes, broken_at, chunkings
from rnncore.export.verification.streams import _short, longest_stream, whole_chunks
from rnncore.export.verification.verifier import Verifier, size_of
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import TensorSpec
from tests.proof.small_files import File, Sum, Totals, X, recorder

BATCH, TIME = "batch", "time"


def guard(axes: tuple[str, ...], holds: Callable[[Any], bool], *numbers: int, own: bool = True) -> Guard:
    return Guard("it holds", "here", own, axes, numbers, holds)


# --------------------------------------------------------------------------------------------------------------- sizes
def test_both_sides_of_each_number_and_guard_are_asked() -> None:
    limits = SizeLimits(
        (guard((TIME,), lambda s: s[TIME] <= 100, 100),), (Number(TIME, 40, "x"), Number("width", 9, "x")), 40
    )
    sizes = Sizes.of(limits, 5)
    assert sizes.whole == ((1, 100), (1, 101), (1, 39), (1, 40), (1, 41), (1, 56))
    assert sizes.streams == (117, 100, 56, 13) and sizes.unchecked == () and sizes.too_far == ""
    batches = Sizes.of(SizeLimits((guard((BATCH,), lambda s: s[BATCH] < 20, 20),)), 5)
    assert batches.whole == ((19, 7), (20, 7)) and batches.streams == (13,)
    both = Sizes.of(SizeLimits((guard((BATCH, TIME), lambda s: s[BATCH] * s[TIME] <= 60, 60),)), 5).whole
    assert {(1, 60), (1, 61)} <= set(both) and len(both) <= 8
    assert all((rows * steps <= 60) != (rows * (steps + 1) <= 60) or rows * steps > 60 for rows, steps in both[:2])
    assert Sizes.of(SizeLimits((), (), 0), 13).streams == (13,) and Sizes.of(SizeLimits(), 14).streams == (14, 13)


def test_where_an_axis_is_missing_only_the_other_one_is_asked() -> None:
    limits = SizeLimits(
        (guard((BATCH,), lambda s: s[BATCH] < 20, 20), guard((TIME,), lambda s: s[TIME] < 30, 30)),
        (Number(TIME, 50, "x"),),
    )
    assert Sizes.of(limits, 5, (BATCH,)).whole == ((19, 7), (20, 7))
    assert Sizes.of(limits, 5, (TIME,)).whole == ()
    assert (1, 50) in Sizes.of(limits, 5, (BATCH, TIME, "width")).whole


def test_what_turns_too_far_away_is_said() -> None:
    far = guard((TIME,), lambda s: s[TIME] <= 100_000, 100_000)
    theirs = guard((TIME,), lambda s: s[TIME] <= 100_000, 100_000, own=False)
    never = guard((TIME,), lambda s: True, 100_000)
    sizes = Sizes.of(SizeLimits((far, theirs, never)), 5)
    assert sizes.unchecked == (far,) and sizes.whole == ()
    reaches = Sizes.of(SizeLimits((), (Number(TIME, 8177, "m.py:3"), Number(TIME, 9000, "m.py:4", False)), 8177), 5)
    assert reaches.too_far == "it looks 8177 steps back (m.py:3), more than 8192 are not checked"
    assert (
        reaches.streams[0] == 8192 and (1, 8192) in reaches.whole and all(steps <= 8192 for _, steps in reaches.whole)
    )
    assert Sizes.of(SizeLimits((), (Number(TIME, 8176, "x"),), 8176), 5).too_far == ""
    both = guard((BATCH, TIME), lambda s: s[BATCH] + s[TIME] <= 10**8, 10**8)
    assert Sizes.of(SizeLimits((both,)), 5).unchecked == (both,)


def test_sizes_that_no_file_takes_are_passed_over() -> None:
    asks: Any = SimpleNamespace(
        sizes=SimpleNamespace(whole=[(1, 3), (1, 4), (1, 5), (1, 6)]),
        takes=lambda batch, time: time % 2 == 0,
        _unless_left_out=lambda model, batch, time: (batch, time),
    )
    found: list[Any] = list(Verifier._both_sides(asks, None))  # type: ignore[arg-type]
    assert found == [(1, 4), (1, 6)]


def test_an_input_called_lengths_that_is_none_goes_by_its_place() -> None:
    """As with ``lengths=False``: it is no keyword then."""
    asked: list[Any] = []

    def run(*places: np.ndarray, lengths: Any = None, **named: np.ndarray) -> np.ndarray:
        asked.append((*(array.tolist() for array in places), lengths))
        return places[0]

    model: Any = SimpleNamespace(run=run, inputs=("lengths", "x"))
    x, lengths = torch.ones(1, 2), torch.tensor([2])
    bench: Any = SimpleNamespace(named=lambda tensors: list(zip(("x", "lengths"), tensors, strict=True)))
    Bench.run(bench, model, [x, lengths])
    assert asked == [([2], [[1.0, 1.0]], None)]


def test_many_numbers_are_spread_with_the_first_and_the_last() -> None:
    numbers = tuple(Number(TIME, 10 * n, "x", False) for n in range(1, 41))
    whole = Sizes.of(SizeLimits((), numbers), 5).whole
    assert len(whole) == 24 and whole[0] == (1, 9) and whole[-1] == (1, 401)
    assert len(set(whole)) == 24 and list(whole) == sorted(whole)


def test_long_streams_are_cut_in_two_ways() -> None:
    assert chunkings(13) == []
    assert chunkings(14) == [(8, 1, 5), (1,) * 14] and chunkings(15) == [(8, 1, 3, 2, 1), (1,) * 15]
    assert chunkings(40) == [(21, 1, 3, 2, 13), (3,) * 13 + (1,)]
    assert chunkings(32) == [(17, 1, 3, 2, 9), (2,) * 16]


def test_guards_that_break_are_named_the_users_own_first() -> None:
    theirs, mine = (guard((TIME,), lambda s: s[TIME] < 10, own=own) for own in (False, True))
    wide, fine = guard(("width",), lambda s: False), guard((TIME,), lambda s: True)
    assert broken_at([theirs, mine, wide, fine], {TIME: 10}) == [mine, theirs]
    assert broken_at([theirs], {TIME: 9}) == []


# ----------------------------------------------------------------------------------------------------- cut, and joined
def test_answers_and_questions_are_cut_alike(tmp_path: Path) -> None:
    bench, model = recorder(Sum()), open_file(File().written(tmp_path / "m.onnx"))
    assert size_of(bench.example, TIME) == 6 and size_of(bench.example, BATCH) == 2 and size_of(bench.example, "w") == 1
    (row,) = bench.cut([X], 1, 4)
    assert torch.equal(row, X[1:, :4])
    assert bench.chunk([X], 2, 3)["x"].tolist() == X[0, 2:5].tolist()
    y = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    (own,) = bench.row(model, [y], 1, 2, (2, 4))
    np.testing.assert_array_equal(own, y[1:, :2])
    question = Question("ragged", 2, 5, [X], "", np.array([4, 1]))
    (valid,) = bench.valid(model, [y], question)
    assert valid.shape == (2, 5, 3) and not valid[0, 4].any() and not valid[1, 1:].any() and y[1, 1:].all()
    np.testing.assert_array_equal(valid[0, :4], y[0])
    for other in (y[:1], y[:, :3], y[0]):  # of fewer rows, of other steps: judged as it is
        assert bench.valid(model, [other], question)[0] is other
    (joined,) = bench.join(model, [[y[0, :1]], [y[0, 1:]]])
    np.testing.assert_array_equal(joined, y[:1])
    slots: Any = SimpleNamespace(signature=SimpleNamespace(outputs=[TensorSpec("y", "float32", ("batch", 3))]))
    (last,) = bench.join(slots, [[y[0, 0]], [y[0, 1]], [y[0, 2]]])
    np.testing.assert_array_equal(last, y[:1, 2])  # of an output without time, whatever the chunks before said
    assert outputs_of(model, {"y": 5}) == [5] and outputs_of(model, 7) == [7]
    assert bench.near(3, 11) == (3, 11) and bench.takes(3, 11)


def test_lengths_of_the_modules_own_go_along(tmp_path: Path) -> None:
    bench = recorder(Totals(), example=(X, torch.tensor([6, 4])))
    lengths = torch.tensor([5, 2])
    x, own = bench.with_lengths([X, torch.tensor([6, 6])], lengths)
    assert x is X and own.tolist() == [5, 2] and own.dtype == torch.int64
    x, own = bench.cut([X, torch.tensor([6, 6])], 1, 3)
    assert x.shape == (1, 3, 3) and own.tolist() == [3]
    assert [name for name, _ in bench.named([X, lengths])] == ["x"]


def test_streams_in_whole_strides_with_names_for_their_cuts(tmp_path: Path) -> None:
    class Strided:
        class signature:
            stride, overlap = 4, 0

    class Shared:
        class signature:
            stride, overlap = 2, 3

    assert whole_chunks(Shared(), (1, 3)) == (1, 3, 1) and whole_chunks(Shared(), (1,)) == (1, 4)  # type: ignore[arg-type]
    assert whole_chunks(Strided(), (3, 2)) == (3, 2, 3) and whole_chunks(Strided(), (3, 5)) == (3, 5)  # type: ignore[arg-type]
    assert [_short(c) for c in ((2, 2, 2, 2), (2, 2, 2), (3,) * 6 + (1,), (3,) * 5 + (1,), (1, 3, 3, 3, 3, 3, 3))] == [
        "4 of 2",
        "[2, 2, 2]",
        "6 of 3 and 1",
        "[3, 3, 3, 3, 3, 1]",
        "[1, 3, 3, 3, 3, 3, 3]",
    ]

    class Short(Sum):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] > 50:
                raise ValueError("too long")
            return super().forward(x)

    sizes = Sizes((), (90, 40, 13), (), "")
    assert longest_stream(recorder(Short()), sizes, 0) == 40 and longest_stream(recorder(Sum()), sizes, 0) == 90
    assert longest_stream(recorder(Short()), Sizes((), (90,), (), ""), 0) == 13
    assert longest_stream(recorder(Short()), sizes, 30) == 43


def test_numbers_that_are_none_are_told_apart_and_put_where_they_are_looked_for() -> None:
    found = _kinds(np.array([1.0, np.nan, np.inf, -np.inf]))
    assert found.tolist() == [0, 1, 2, 3] and _kinds(np.array([5, 6])).tolist() == [0, 0]
    spoiled = _spoiled(X, (BATCH, TIME, None), float("nan"))
    assert spoiled.isnan().nonzero().tolist() == [[0, 3, 0]] and not X.isnan().any()
    assert _spoiled(X[:, :2], (BATCH, TIME, None), float("nan")).isnan().nonzero().tolist() == [[0, 1, 0]]


class FromMean(nn.Module):
    """What differs from the mean of the batch, summed: no row is finite where one of them is not."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).cumsum(1)


def test_rows_that_pytorch_itself_mixes_are_not_asked_for_each_other(tmp_path: Path) -> None:
    mixed = "m = ReduceMean <keepdims = 1> (x, zeros)  c = Sub (x, m)  y = CumSum (c, one)"
    remarks: list[str] = []
    model = open_file(File(mixed, causal=False, lengths=False).written(tmp_path / "m.onnx"))
    cases = list(not_finite_cases(recorder(FromMean()), model, remarks))
    assert [(case.max_abs, case.passed) for case in cases[:1]] == [(0.0, True)]
    assert not remarks


# ----------------------------------------------------------------------------------------------------------- reference
def test_the_reference_is_asked_once_for_the_same_tensors() -> None:
    asked: list[int] = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(x.shape[1])
            return x

    module = Counted().eval()
    reference = Reference(module, Example.of(module, X, None, False))
    asked.clear()
    first = reference([X])
    assert reference([X]) is first and asked == [6]
    reference([X.clone()])
    reference([X])
    assert asked == [6, 6, 6]
    assert reference.failure([X]) == ""


def test_what_the_module_itself_cannot_do_is_one_line() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] > 6:
                raise RuntimeError("\n kernel of 3 \nand more")
            if x.shape[1] < 3:
                raise KeyError
            return x + (torch.rand(1) if x.shape[1] == 5 else 0)

    module = Fails().eval()
    reference = Reference(module, Example.of(module, X, None, False))
    assert reference.failure([torch.ones(1, 7, 3)]) == "kernel of 3 "
    assert reference.failure([torch.ones(1, 2, 3)]) == "KeyError"
    assert first_line(ValueError("a\nb")) == "a"
    says = r"^forward is random .*: it draws random numbers at inputs of \[1, 5, 3\]; leave that out$"
    with pytest.raises(ExportError, match=says):
        reference.failure([torch.ones(1, 5, 3)])


# -------------------------------------------------------------------------------------------------------------- counts
class Asks(Bench):
    """Hands back what it is asked."""

    def asked(self, model: Any, question: Question, lengths: Tensor | None = None) -> Any:
        return question


class Weighs(nn.Module):
    def forward(self, x: Tensor, some: Tensor) -> Tensor:
        return x * some[:, None, None]


def counted(some: Tensor, counts: dict[str, str]) -> list[Question]:
    module = Weighs().eval()
    example = replace(Example.of(module, (X, some), None, False), counts=counts)
    bench = Asks(Reference(module, example), example, Judge.of("float32"), 3)
    return list(counted_cases(bench, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["shares", "counts"])
def test_rows_of_different_counts_are_asked_the_first_full_or_a_little_less(kind: str) -> None:
    shares = kind == "shares"
    questions = counted(torch.tensor([1.0, 0.5]), {}) if shares else counted(torch.tensor([6, 4]), {"some": "time"})
    assert [(q.kind, q.batch, q.time, q.may_be_shorter) for q in questions] == [
        ("whole", 4, 11, False),
        ("whole", 2, 5, False),
        ("whole", 3, 9, True),
    ]
    for question, full in zip(questions, (11, 5, 8), strict=True):
        x, some = question.tensors
        assert x.shape[:2] == (question.batch, question.time) and question.detail == f"some {some.tolist()}"
        assert some[0] == (1.0 if shares else full) and some.tolist() == sorted(some.tolist(), reverse=True)
        assert some.shape == (question.batch,) and some.min() >= (0.05 if shares else 1)
        assert some.dtype == (torch.float32 if shares else torch.int64)
    assert len(set(questions[0].tensors[1].tolist())) > 1


def test_what_counts_nothing_is_not_asked_again() -> None:
    assert counted(torch.tensor([2.0, 3.0]), {}) == []


class Reads(nn.Module):
    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        return ids * attention_mask


@pytest.mark.parametrize("filling", [1, 0])
@pytest.mark.parametrize("causal", [True, False])
def test_rows_are_masked_behind_their_steps_the_first_full_or_none(filling: int, causal: bool) -> None:
    """PyTorch may answer for fewer steps where none is full, but not in a stream."""
    module, ids = Reads().eval(), torch.randint(1, 9, (2, 6))
    example = Example.of(module, (ids, torch.full_like(ids, filling)), None, False)
    bench = Asks(Reference(module, example), example, Judge.of("float32"), 3)
    model: Any = SimpleNamespace(signature=SimpleNamespace(causal=causal))
    questions: list[Any] = list(masked_cases(bench, model))
    sizes = [("whole", 4, 11), ("whole", 2, 5), *[("whole", 3, 9)] * (not causal)]
    assert [(q.kind, q.batch, q.time) for q in questions] == sizes
    for question, longest in zip(questions, (11, 5, 7), strict=False):
        _, mask = question.tensors
        there = (mask == filling).sum(1).tolist()
        assert there[0] == longest and min(there) >= 1 and len(set(there)) > 1
        for row, count in zip(mask.tolist(), there, strict=True):
            assert row == [filling] * count + [1 - filling] * (question.time - count)
        shares = [count / question.time for count in there]
        said = [float(part) for part in re.findall(r"\d+\.\d+", question.detail)]
        assert len(said) == len(shares) and all(
            0 <= own - told < 1 / question.time + 0.01 for own, told in zip(shares, said, strict=True)
        )


def test_what_takes_no_mask_is_not_masked() -> None:
    example = Example.of(Weighs(), (X, torch.ones(2)), None, False)
    bench = Asks(Reference(Weighs(), example), example, Judge.of("float32"), 3)
    model: Any = SimpleNamespace(signature=SimpleNamespace(causal=False))
    assert list(masked_cases(bench, model)) == []
