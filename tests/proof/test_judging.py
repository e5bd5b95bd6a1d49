"""How far is too far, in floating point and in int8, and what int8 costs, on arrays made for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.example import Example
from rnncore.export.verification.accuracy import (
    AccuracyReport,
    OutputAccuracy,
    compare,
    is_log_probabilities,
    measure_accuracy,
    read_data,
)
from rnncore.export.verification.judging import INT8_RMS, INT8_SELF, Int8Judge, Judge
from rnncore.runtime.errors import InputError
from tests.proof.small_files import File, Sum, X

ONES = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 1e-4), ("float64", 1e-7), ("float16", 2e-2), ("bfloat16", 1e-1), ("int8", 1e-4)],
)
def test_the_largest_error_counts_against_the_largest_output(precision: str, tolerance: float) -> None:
    judge = Judge.of(precision)
    right = np.array([8.0, -1.0])
    assert judge.tolerance == tolerance and judge.measure == "max" and judge.lenient
    assert judge.objection([(right, right), (right + 7.9 * tolerance, right)], to_file=False) is None
    assert judge.objection([(right + 8.1 * tolerance, right), (right, right)], to_file=False) == ""
    assert not judge.asks_file("rows", padded=False)


def test_another_shape_is_named() -> None:
    pairs = [(ONES, ONES), (ONES[:1], ONES), (ONES[:, :1], ONES)]
    assert Judge.of("float32").objection(pairs, to_file=False) == "shape (1, 4) instead of (2, 4)"


def test_int8_is_loose_against_pytorch_and_tight_against_itself() -> None:
    judge = Int8Judge()
    assert (judge.measure, judge.lenient, judge.tolerance) == ("rms", False, INT8_RMS)
    asked = {(kind, padded): judge.asks_file(kind, padded=padded) for kind in ("whole", "rows") for padded in (0, 1)}
    assert asked == {("whole", 0): False, ("whole", 1): False, ("rows", 0): True, ("rows", 1): False}
    for far, to_file, says in (
        (0.99 * INT8_RMS, False, None),
        (1.01 * INT8_RMS, False, "int8, rms error 10.1% of the values"),
        (0.9 * INT8_SELF, True, None),
        (1.1 * INT8_SELF, True, "against the int8 file run on it alone and in one piece"),
    ):
        pairs = [(ONES, ONES), ((ONES * (1 + far)).astype(np.float32), ONES)]
        assert judge.objection(pairs, to_file=to_file) == says


# ------------------------------------------------------------------------------------------------------ what int8 costs
def log_probabilities(*rows: list[float]) -> np.ndarray:
    return np.log(np.array([rows], np.float32))


def test_differences_are_those_of_all_examples_where_the_right_number_is_finite() -> None:
    got = [np.array([[1.0, 5.0]]), np.array([[2.0, 2.0, 2.0]])]
    right = [np.array([[1.0, 1.0]]), np.array([[2.0, 1.0, 2.0]])]
    found = compare("y", [None, None], got, right)
    assert (found.name, found.max_abs, found.mean_abs) == ("y", 4.0, 1.0)
    assert found.rms == pytest.approx(math.sqrt(17 / 11)) and found.top1_agreement is None and found.perplexity is None
    assert str(found) == "y: max error 4, mean 1, rms 124.32% of the values"
    infinite = np.array([[np.inf, 2.0]])
    assert compare("y", [None], [infinite], [infinite]).max_abs == 0.0
    assert compare("y", [], [], []).mean_abs == compare("y", [None], [ONES[:0]], [ONES[:0]]).mean_abs == 0.0


def test_likeliest_classes_and_the_perplexity_of_the_next_id() -> None:
    right = log_probabilities([0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.2, 0.2, 0.6])
    got = log_probabilities([0.25, 0.5, 0.25], [0.25, 0.5, 0.25], [0.2, 0.2, 0.6])
    ids = np.array([[2, 1, 0]])  # asked are 1 after the first place and 0 after the second
    found = compare("y", [ids], [got], [right])
    assert found.top1_agreement == pytest.approx(2 / 3)
    assert found.perplexity == pytest.approx((math.sqrt(1 / 0.25 / 0.125), math.sqrt(1 / 0.5 / 0.25)))
    assert str(found).endswith(", same likeliest class 66.67%, perplexity 5.657 -> 2.828 (-50.00%)")
    both = compare("y", [ids, ids[:, :2]], [got, got[:, :2]], [right, right[:, :2]])
    assert both.top1_agreement == pytest.approx(3 / 5)
    assert both.perplexity == pytest.approx((math.exp(math.log(4 * 8 * 4) / 3), math.exp(math.log(2 * 4 * 2) / 3)))
    for other in (None, ids[:, :2], np.array([[2, 1, 3]]), ids[:, :0]):
        assert compare("y", [other], [got], [right]).perplexity is None
    assert compare("y", [ids], [got], [right + 0.1]).top1_agreement is None
    assert compare("y", [ids, ids], [got, got], [right, right + 0.1]).perplexity is None


def test_thousands_of_half_precision_logarithms_are_summed_in_full() -> None:
    half = np.full((1, 5000, 2), math.log(0.5), np.float16)
    wanted = float(np.exp(-np.float64(half[0, 0, 0])))
    assert compare("y", [np.zeros((1, 5000), int)], [half], [half]).perplexity == (wanted, wanted)


@pytest.mark.parametrize(
    ("array", "is_one"),
    [
        (log_probabilities([0.5, 0.5]), True),
        (log_probabilities([0.5, 0.5], [0.5, 0.4995]), True),
        (log_probabilities([0.5, 0.5], [0.5, 0.49]), False),
        (np.log(np.full((1, 1, 2), 0.5, np.float16)), True),
        (log_probabilities([0.5, 0.5])[0, 0], False),
        (np.zeros((3, 1), np.float32), False),
        (np.zeros((0, 2), np.float32), False),
        (np.zeros((2, 2), np.int64), False),
        (np.array([[0.01, -30.0]], np.float32), False),
        (np.array([[0.0, -30.0]], np.float32), True),
    ],
)
def test_logarithms_of_numbers_that_sum_to_one(array: np.ndarray, is_one: bool) -> None:
    assert is_log_probabilities(array) is is_one


class Half(Sum):
    """The file's answer is 1 off everywhere."""

    def after(self, y: Tensor) -> Tensor:
        return y - 1.0


def test_a_file_is_measured_on_the_users_own_data(tmp_path: Path) -> None:
    path, module = File().written(tmp_path / "m.onnx"), Half().eval()
    example = Example.of(module, X, None, False)
    report = measure_accuracy(path, module, example, [[X], [X[:1, :2]], [2 * X]])
    assert (report.examples, report.own_data, [one.name for one in report.outputs]) == (3, True, ["y"])
    assert report.outputs[0].max_abs == pytest.approx(1.0) and report.outputs[0].mean_abs == pytest.approx(1.0)
    assert str(report).startswith("int8 against float32 on 3 examples: y: max error 1, mean 1, rms ")
    alone = measure_accuracy(path, module, example, None)
    assert (alone.examples, alone.own_data) == (1, False)
    assert str(alone).startswith("int8 against float32 on the example only (pass accuracy_data for more): y: ")
    assert AccuracyReport(**{**alone.to_dict(), "outputs": (OutputAccuracy(**alone.to_dict()["outputs"][0]),)}) == alone


def test_data_that_do_not_fit_are_named_by_their_place() -> None:
    module: nn.Module = Sum()
    example = Example.of(module, X, None, False)
    assert [[tensor.shape for tensor in call] for call in read_data(module, example, [X, X[:1]], None, False)] == [
        [X.shape],
        [X[:1].shape],
    ]
    with pytest.raises(InputError, match=r"^accuracy_data\[1\]: the example does not fit"):
        read_data(module, example, [X, (X, X)], None, False)
    with pytest.raises(InputError, match=r"^accuracy_data is empty: hand in at least one call"):
        read_data(module, example, [], None, False)

    class Two(nn.Module):
        def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
            return x

    example = Example.of(Two(), X, None, False)
    with pytest.raises(InputError, match=r"^accuracy_data\[0\] has the inputs \['x', 'z'\], the example has \['x'\]$"):
        read_data(Two(), example, [(X, torch.ones(2, 6, 3))], None, False)
