"""Recordings that are a little different every time they are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rnncore.runtime import LogMel

Recording = tuple[np.ndarray, str]

SPEEDS = (0.9, 0.95, 1.0, 1.05, 1.1)
LOUDNESS = 1.0
"""Standard deviation of what is added to all logarithms of energy of a recording."""
BANDS_HIDDEN, TIME_HIDDEN, TIMES = 8, 0.06, 3
"""At most so many bands at one place, and so much of the recording at each of some places, are hidden."""


class Varied(Sequence[Recording]):
    """Rows of ``mel`` and the text, of recordings (wave, text): each time at another speed, loudness and start of a row.

    Some bands and some times are hidden behind their mean (Park et al. 2019, "SpecAugment").  Ask for one again and it
    differs.  ``strength`` scales all but the speed.
    """

    def __init__(
        self, recordings: Sequence[tuple[np.ndarray, str]], mel: LogMel, *, strength: float = 1.0, seed: int = 0
    ) -> None:
        single = replace(mel, stacked=1)
        self._mel, self._strength = mel, strength
        self._frames = [[single(faster(wave, speed)) for speed in SPEEDS] for wave, _ in recordings]
        self._texts = [text for _, text in recordings]
        self._mean = np.concatenate([frames[SPEEDS.index(1.0)] for frames in self._frames]).mean(0)
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Recording:  # type: ignore[override]  # nobody asks for slices
        random = self._random
        versions = self._frames[index]
        frames = versions[random.integers(len(versions))]
        frames = frames[random.integers(self._mel.stacked) :] + np.float32(self._strength * LOUDNESS * random.normal())
        first, count = random.integers(self._mel.bands), random.integers(1 + int(self._strength * BANDS_HIDDEN))
        frames[:, first : first + count] = self._mean[first : first + count]
        for _ in range(TIMES):
            most = int(self._strength * TIME_HIDDEN * len(frames))
            first, count = random.integers(len(frames)), random.integers(1 + most)
            frames[first : first + count] = self._mean
        return stacked(frames, self._mel.stacked), self._texts[index]


def faster(wave: np.ndarray, speed: float) -> np.ndarray:
    """The wave played at ``speed``: shorter and higher for more than 1."""
    return np.interp(np.arange(0, len(wave) - 1, speed), np.arange(len(wave)), wave).astype(np.float32)


def stacked(frames: np.ndarray, count: int) -> np.ndarray:
    """Rows of ``count`` frames side by side; those that fill none are left out."""
    rows = len(frames) // count
    return frames[: rows * count].reshape(rows, -1)
