"""How far one answer is from another: in numbers that are told apart, and where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnncore.runtime.format.comparison import error, rms_error

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("got", "expected", "far"),
    [
        ([1.0, 2.5], [1.0, 2.0], (0.5, 0.25)),
        ([0.5, 0.25], [0.5, 0.0], (0.25, 0.25)),  # never as a part of less than 1
        ([-9.0, 2.0], [-8.0, 2.0], (1.0, 0.125)),
        ([], [], (0.0, 0.0)),
        ([NAN, INF, -INF, 3.0], [NAN, INF, -INF, 2.0], (1.0, 0.5)),
        ([NAN, INF], [NAN, INF], (0.0, 0.0)),
        ([NAN, 1.0], [1.0, 1.0], (INF, INF)),
        ([1.0, 1.0], [NAN, 1.0], (INF, INF)),
        ([INF, 1.0], [-INF, 1.0], (INF, INF)),
        ([NAN, 1.0], [INF, 1.0], (INF, INF)),
        ([1.0], [1.0, 1.0], (INF, INF)),
    ],
)
def test_the_largest_error(got: list[float], expected: list[float], far: tuple[float, float]) -> None:
    assert error(np.array(got, np.float32), np.array(expected, np.float32)) == far


def test_errors_are_computed_in_float64() -> None:
    big = np.array([60_000.0], np.float16)
    assert error(-big, big) == (120_000.0, 2.0)
    assert error(np.array([3], np.uint8), np.array([5], np.uint8)) == (2.0, 0.4)
    assert rms_error([(-big, big)]) == 2.0


@pytest.mark.parametrize(
    ("pairs", "far"),
    [
        ([([1.0, 2.0], [1.0, 4.0])], math.sqrt(4 / 17)),
        ([([1.0], [2.0]), ([2.0, 2.0], [2.0, 4.0])], math.sqrt(5 / 24)),
        ([([3.0, 1.0], [0.0, 0.0])], math.sqrt(10 / 2)),
        ([([3.0], [0.0]), ([1.0, 0.0], [0.0, 0.0])], math.sqrt(10 / 3)),
        ([], 0.0),
        ([([], [])], 0.0),
        ([([NAN, INF, 3.0], [NAN, INF, 2.0])], 0.5),
        ([([NAN], [NAN])], 0.0),
        ([([NAN, 1.0], [1.0, 1.0])], INF),
        ([([1.0, 1.0], [NAN, 1.0])], INF),
        ([([1.0], [1.0]), ([1.0], [1.0, 1.0])], INF),
    ],
)
def test_the_root_mean_square(pairs: list[tuple[list[float], list[float]]], far: float) -> None:
    arrays = [(np.array(a, np.float32), np.array(b, np.float32)) for a, b in pairs]
    assert rms_error(arrays) == pytest.approx(far)


def test_whole_numbers_are_wrong_or_right() -> None:
    got, expected = np.array([1, 2, 9, 9]), np.array([1, 2, 3, 4])
    assert rms_error([(got, expected)]) == math.sqrt(2 / 4)
    assert rms_error([(got, expected), (got > 1, expected > 0)]) == math.sqrt(3 / 8)
    assert rms_error([(got, expected), (np.array([1.0]), np.array([2.0]))]) == math.sqrt(3 / 8)
