"""Mel bands of a wave: chunks are the whole, bit for bit; against a plain transcription of the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rnncore.runtime import InputError, LogMel
from tests.strategies import SEEDS
from tests.tolerances import bound

transforms = st.builds(
    LogMel,
    rate=st.sampled_from((8000, 11025, 16000)),
    bands=st.integers(1, 41),
    window_ms=st.sampled_from((25.0, 12.5, 32.0)),
    step_ms=st.sampled_from((10.0, 7.3, 40.0)),
    stacked=st.integers(1, 4),
    low_hz=st.sampled_from((0.0, 125.0)),
)


def wave(samples: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.sin(np.cumsum(random.normal(0.3, 0.2, samples))) * random.uniform(0, 1) + random.normal(0, 0.01, samples)


@given(transforms, st.integers(0, 5000), SEEDS, st.lists(st.integers(0, 5000), max_size=6), st.booleans())
@example(LogMel(8000, window_ms=12.5, step_ms=40), 900, 0, [150, 170, 500], False)  # cut between two frames
def test_chunks_are_the_whole_bit_for_bit(
    mel: LogMel, samples: int, seed: int, cuts: list[int], integers: bool
) -> None:
    signal = wave(samples, seed)
    if integers:
        signal = (signal * 9000).astype(np.int16)
    whole = mel(signal)
    stream = mel.stream()
    parts = [stream.push(part) for part in np.split(signal, sorted(min(cut, samples) for cut in cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.shape == (len(whole), mel.features)
    assert whole.dtype == np.float32
    # Each row needs its own samples only, and every whole one is there.
    needed = ((len(whole) + 1) * mel.stacked - 1) * mel.step + mel.window
    assert samples < needed
    assert stream.pending < needed - len(whole) * mel.stacked * mel.step
    last = stream.fork().finish()
    assert len(last) == (1 if stream.pending > 0 else 0)
    with pytest.raises(InputError, match="NaN"):
        stream.push(np.array([0.0, np.nan]))
    np.testing.assert_array_equal(stream.finish(), last)
    np.testing.assert_array_equal(stream.push(signal), whole)


@given(transforms, SEEDS)
def test_numbers_are_those_of_the_formula(mel: LogMel, seed: int) -> None:
    signal = wave(mel.window + 3 * mel.stacked * mel.step, seed)
    found = mel(signal)
    size = 2
    while size < mel.window:
        size *= 2
    ends = [2595 * np.log10(1 + hz / 700) for hz in (mel.low_hz, mel.rate / 2)]
    for frame, got in zip(range(2 * mel.stacked), found.reshape(-1, mel.bands), strict=False):
        cut = signal[frame * mel.step : frame * mel.step + mel.window]
        angle = 2 * np.pi * np.arange(mel.window) / (mel.window - 1)
        windowed = cut * (0.5 - 0.5 * np.cos(angle))
        turns = np.exp(-2j * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(mel.window)) / size)
        energy = np.abs(turns @ windowed) ** 2
        hz = np.arange(size // 2 + 1) * mel.rate / size
        for band in range(mel.bands):
            left, middle, right = (
                700 * (10 ** ((ends[0] + (ends[1] - ends[0]) * (band + i) / (mel.bands + 1)) / 2595) - 1)
                for i in range(3)
            )
            weight = np.clip(np.minimum((hz - left) / (middle - left), (right - hz) / (right - middle)), 0, None)
            expected = np.log(float(weight @ energy) + mel.floor)
            assert abs(got[band] - expected) < bound("float32", "function", magnitude=abs(expected))


def test_a_tone_is_in_its_band() -> None:
    mel = LogMel(8000)
    places = []
    for pitch in (200, 500, 1200, 3000):
        rows = mel(np.sin(2 * np.pi * pitch * np.arange(8000) / 8000).astype(np.float32))
        assert rows.shape == (98, 40)
        places.append(int(rows.mean(0).argmax()))
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: LogMel(0, bands=0, step_ms=0), "3 problems"),
        (lambda: LogMel(8000, low_hz=4000), "expected 0 to 4000.0, rising"),
        (lambda: LogMel(8000, step_ms=0.01), "expected at least 1"),
        (lambda: LogMel(8000)(np.zeros((2, 3))), "one channel"),
        (lambda: LogMel(8000)(np.zeros(3, np.int32)), "int32"),
        (lambda: LogMel(8000)([np.inf]), "infinity"),
    ],
)
def test_what_is_wrong_is_said(ask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()
