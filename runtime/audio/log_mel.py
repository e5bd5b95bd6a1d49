"""Logarithms of the energy in mel bands, for a whole wave or for one that arrives in chunks: the same numbers, bit for bit."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tensors.array_likes import as_array

_INT16_SCALE = 2.0**-15
_BLOCK = 1024
"""Frames computed at a time: 2 MB of spectra, however long the wave is."""


@dataclass(frozen=True)
class LogMel:
    r"""What speech recognisers read, from samples and without PyTorch.

    .. math:: x_{t, b} = \ln \left( \mathrm{floor} + \sum_k w_{b, k} |\mathrm{FFT}(h \cdot s_t)_k|^2 \right)

    with Hann's window h, the samples s_t of frame t, and triangles w in the mel scale of the HTK book (Young et al., section
    5.4), :math:`\mathrm{mel}(f) = 2595 \log_{10}(1 + f / 700)`.  Frames begin every ``step_ms`` and are not padded, so that none
    depends on what comes after it; ``stacked`` of them side by side are one row.

    ::

        mel = LogMel(rate=8000)
        rows = mel(samples)                         # float32 [time, bands * stacked]
        stream = mel.stream()
        rows = stream.push(chunk)                   # of any length; what the pushes return, joined, is mel(samples)

    Args:
        rate: samples a second.
        bands: triangles.
        window_ms, step_ms: of a frame, milliseconds.
        stacked: frames of a row.
        low_hz, high_hz: edges of the bands; None: half the rate.
        floor: of the energy, for samples between -1 and 1.

    Raises:
        InputError: lists what is out of range.
    """

    rate: int
    bands: int = 40
    window_ms: float = 25.0
    step_ms: float = 10.0
    stacked: int = 1
    low_hz: float = 0.0
    high_hz: float | None = None
    floor: float = 1e-6

    def __post_init__(self) -> None:
        problems = [
            *count_problems("rate", self.rate),
            *count_problems("bands", self.bands),
            *count_problems("stacked", self.stacked),
        ]
        for name in ("window_ms", "step_ms", "floor"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                problems.append(f"{name} is {value!r}, expected a finite number above 0")
        if not problems:
            if min(self.window, self.step) < 1:
                problems.append(f"a window of {self.window} and a step of {self.step} samples, expected at least 1")
            if not 0.0 <= self.low_hz < self.top_hz <= self.rate / 2:
                problems.append(f"bands from {self.low_hz} to {self.top_hz} Hz, expected 0 to {self.rate / 2}, rising")
        raise_all(problems)

    @property
    def window(self) -> int:
        """Samples of a frame."""
        return round(self.window_ms * self.rate / 1000)

    @property
    def step(self) -> int:
        """Samples from one frame to the next."""
        return round(self.step_ms * self.rate / 1000)

    @property
    def features(self) -> int:
        """Numbers of a row."""
        return self.bands * self.stacked

    @property
    def top_hz(self) -> float:
        """The upper edge of the last band."""
        return self.rate / 2 if self.high_hz is None else self.high_hz

    def __call__(self, samples: Any) -> NDArray[np.float32]:
        """Rows float32 [time, features] of a wave [samples]: floats around -1 to 1, or 16-bit integers.

        As many as there are whole ones; a wave that is shorter has none.

        Raises:
            InputError: it is no vector of such numbers, or holds NaN or infinity.
        """
        return self.stream().push(samples)

    def stream(self) -> LogMelStream:
        """A wave that arrives in chunks."""
        return LogMelStream(self)

    def rows(self, samples: Array) -> NDArray[np.float32]:
        """Rows of checked samples, float64."""
        count = max(0, 1 + (len(samples) - self.window) // self.step) // self.stacked
        result = np.empty((count * self.stacked, self.bands), np.float32)
        for start in range(0, len(result), _BLOCK):
            end = min(start + _BLOCK, len(result))
            part = samples[start * self.step : (end - 1) * self.step + self.window]
            frames = np.lib.stride_tricks.sliding_window_view(part, self.window)[:: self.step] * self._hann
            spectra = np.fft.rfft(frames, self._size)
            energy = spectra.real**2 + spectra.imag**2
            # Band by band and frame by frame: a product of matrices adds in an order that depends on how many frames there are.
            bands = [np.add.reduce(energy[:, low:high] * weights, 1) for low, high, weights in self._triangles]
            result[start:end] = np.log(np.stack(bands, 1) + self.floor)
        return result.reshape(count, self.features)

    @cached_property
    def _hann(self) -> Array:
        return np.hanning(self.window)

    @property
    def _size(self) -> int:
        return 1 << (self.window - 1).bit_length() if self.window > 1 else 2

    @cached_property
    def _triangles(self) -> list[tuple[int, int, Array]]:
        """Of each band: its first bin, the one after its last, and the weights between."""
        low, high = (2595 * math.log10(1 + hz / 700) for hz in (self.low_hz, self.top_hz))
        edges = 700 * (10 ** (np.linspace(low, high, self.bands + 2) / 2595) - 1)
        places = np.fft.rfftfreq(self._size, 1 / self.rate)
        found = []
        for left, middle, right in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            weights = np.maximum(0, np.minimum((places - left) / (middle - left), (right - places) / (right - middle)))
            inside = np.flatnonzero(weights)
            first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 1)
            found.append((first, last, weights[first:last]))
        return found


class LogMelStream:
    """Rows of a wave that arrives in chunks; belongs to one caller at a time.  Made by :meth:`LogMel.stream`."""

    def __init__(self, transform: LogMel) -> None:
        self._transform = transform
        self._rest = np.zeros(0)
        self._skip = 0  # samples that come and no frame needs, where steps are longer than windows

    @property
    def pending(self) -> int:
        """Samples that later rows still need."""
        return len(self._rest)

    def push(self, samples: Any) -> NDArray[np.float32]:
        """The rows that these samples make whole, float32 [time, features]; often none.

        Raises:
            InputError: see :meth:`LogMel.__call__`; the stream is as it was.
        """
        new = _samples(samples)
        joined = np.concatenate((self._rest, new[self._skip :]))
        rows = self._transform.rows(joined)
        start = len(rows) * self._transform.stacked * self._transform.step
        self._skip = max(0, self._skip - len(new)) + max(0, start - len(joined))
        self._rest = joined[start:].copy()
        return rows

    def finish(self) -> NDArray[np.float32]:
        """The last rows, of what is pending and silence behind it; then the stream is as new.  No row if nothing is."""
        transform = self._transform
        whole = (transform.stacked - 1) * transform.step + transform.window
        padded = np.pad(self._rest, (0, max(0, whole - len(self._rest)))) if len(self._rest) else self._rest
        self.reset()
        return transform.rows(padded)

    def fork(self) -> LogMelStream:
        """A second stream that goes on from here."""
        return copy.copy(self)

    def reset(self) -> None:
        """Back to the beginning of a wave."""
        self._rest, self._skip = np.zeros(0), 0


def _samples(value: Any) -> Array:
    """Float64 [samples] of floats, or of 16-bit integers divided by 2^15."""
    array = as_array(value)
    if array.ndim != 1 or not (array.dtype.kind == "f" or array.dtype == np.int16 or array.size == 0):
        raise InputError(
            f"samples are {array.dtype} {list(array.shape)}, expected a vector of floats or of int16 (one channel)"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("samples hold NaN or infinity, expected finite numbers")
    return array.astype(np.float64) * (_INT16_SCALE if array.dtype == np.int16 else 1.0)
