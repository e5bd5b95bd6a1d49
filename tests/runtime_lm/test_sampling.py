"""From log-probabilities to one token: exact on distributions made by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError
from rnncore.runtime.text.columns import text_of
from rnncore.runtime.text.sampling import check_sampling, draw, sampling_probabilities
from tests.tolerances import fixed

P = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
LOG_P = np.log(P)


def test_without_options_the_distribution_is_the_models() -> None:
    np.testing.assert_allclose(sampling_probabilities(LOG_P), P, rtol=fixed("float64"))


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [
        (1, [0, 1, 0, 0, 0]),
        (2, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (4, [0.1 / 0.95, 0.4 / 0.95, 0, 0.25 / 0.95, 0.2 / 0.95]),
        (5, P),
        (99, P),
    ],
)
def test_top_k_keeps_the_k_likeliest(top_k: int, expected: list[float]) -> None:
    np.testing.assert_allclose(sampling_probabilities(LOG_P, top_k=top_k), expected, rtol=fixed("float64"))


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.01, [0, 1, 0, 0, 0]),
        (0.39, [0, 1, 0, 0, 0]),
        (0.41, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (0.64, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (0.84, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (1.0, P),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, expected: list[float]) -> None:
    np.testing.assert_allclose(sampling_probabilities(LOG_P, top_p=top_p), expected, rtol=fixed("float64"))


def test_top_k_comes_before_top_p() -> None:
    # Of 0.4 and 0.25, rescaled to 0.615 and 0.385, the first alone reaches 0.6; of all five it would not.
    np.testing.assert_allclose(sampling_probabilities(LOG_P, top_k=2, top_p=0.6), [0, 1, 0, 0, 0])


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0, 10.0])
def test_temperature_is_a_power_of_the_probabilities(temperature: float) -> None:
    expected = P ** (1 / temperature)
    np.testing.assert_allclose(
        sampling_probabilities(LOG_P, temperature=temperature), expected / expected.sum(), rtol=fixed("float64")
    )


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-6])
def test_a_temperature_of_or_near_zero_takes_the_likeliest(temperature: float) -> None:
    assert sampling_probabilities(LOG_P, temperature=temperature).tolist() == [0, 1, 0, 0, 0]


def test_equally_likely_tokens_are_kept_from_the_lowest_id() -> None:
    flat = np.log(np.full(4, 0.25))
    assert sampling_probabilities(flat, top_k=2).tolist() == [0.5, 0.5, 0, 0]
    assert sampling_probabilities(flat, temperature=0).tolist() == [1, 0, 0, 0]


def test_impossible_tokens_stay_impossible() -> None:
    log_p = np.array([-np.inf, np.log(0.5), -np.inf, np.log(0.5)])
    for options in ({}, {"top_k": 4}, {"top_p": 1.0}, {"temperature": 3.0}):
        assert sampling_probabilities(log_p, **options).tolist() == [0, 0.5, 0, 0.5]  # type: ignore[arg-type]


@given(
    st.lists(st.floats(-30, 0), min_size=1, max_size=9),
    st.floats(0, 5),
    st.none() | st.integers(1, 12),
    st.none() | st.floats(0.001, 1),
)
def test_it_is_always_a_distribution_over_the_likeliest(
    log_p: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    p = sampling_probabilities(np.array(log_p, np.float32), temperature=temperature, top_k=top_k, top_p=top_p)
    assert p.shape == (len(log_p),)
    assert p.sum() == pytest.approx(1.0)
    assert (p >= 0).all()
    if top_k is not None:
        assert np.count_nonzero(p) <= top_k
    kept = np.array(log_p, np.float32)[p > 0]
    dropped = np.array(log_p, np.float32)[p == 0]
    assert not dropped.size or kept.min() >= dropped.max() or temperature < 0.5, "small temperatures underflow"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": 0, "top_p": 2.0}, "2 problems"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampling_probabilities(LOG_P, **options)  # type: ignore[arg-type]


def test_draws_follow_the_distribution() -> None:
    p = np.array([0.0, 0.1, 0.6, 0.0, 0.3, 0.0])
    generator = np.random.default_rng(1)
    counts = np.bincount([draw(p, generator) for _ in range(20_000)], minlength=6)
    assert (counts[p == 0] == 0).all()
    expected = 20_000 * p[p > 0]
    chi_square = (((counts[p > 0] - expected) ** 2) / expected).sum()
    assert chi_square < 13.8, "0.1 % of all seeds"


def test_the_ends_of_the_unit_interval_draw_possible_tokens() -> None:
    class Fixed:
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self) -> float:
            return self.value

    p = np.array([0.0, 0.3, 0.7, 0.0])
    assert draw(p, Fixed(0.0)) == 1  # type: ignore[arg-type]
    assert draw(p, Fixed(np.nextafter(1.0, 0.0))) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("temperature", value) for value in (-1, float("nan"), float("inf"), "1", True, 10**400, None, [1.0])),
        *(("top_k", value) for value in (0, "3", True, 1.5)),
        *(("top_p", value) for value in (0, 1.5, "1", True, float("nan"))),
        *(("seed", value) for value in (-1, 1.5, "a", True, [1, -1])),
    ],
    ids=repr,
)
def test_an_option_that_is_no_number_or_out_of_range_is_named(name: str, wrong: Any) -> None:
    options: dict[str, Any] = {"temperature": np.float32(1), "top_k": np.int64(2), "top_p": 1, "seed": 2**70}
    check_sampling(**options)
    check_sampling(0, None, None, [1, 2])
    with pytest.raises(InputError, match=rf"^{name} is {re.escape(repr(wrong))}, expected "):
        check_sampling(**options | {name: wrong})


def test_a_text_of_numpy_keeps_the_nul_at_its_end() -> None:
    """Which str() of it drops: "ab" has other ids."""
    assert text_of(np.str_("ab\0")) == "ab\0" and type(text_of(np.str_("ab"))) is str
