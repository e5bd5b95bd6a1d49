"""``torch.stft`` and ``torch.istft`` as what they compute: windows of a signal, their frequencies, windows laid over each other.

Torch reads windows by strides that depend on the length of the signal, and asks whether the windows together come to zero
anywhere: a file can do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_STFT = (
    *("input", "n_fft", "hop_length", "win_length", "window", "center", "pad_mode", "normalized", "onesided"),
    *("return_complex", "align_to_window"),
)
_ISTFT = (
    *("input", "n_fft", "hop_length", "win_length", "window", "center", "normalized", "onesided", "length"),
    "return_complex",
)

_MOST_PARTS = 7
"""That are laid over each other one by one: more of them would be taken for a loop."""


def spectrum(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """What a call of torch's own transforms gives; None for another function, or a kind that is left to torch."""
    if func is torch.stft:
        defaults = {**dict.fromkeys(_STFT), "center": True, "pad_mode": "reflect"}
        return _stft(**{**defaults, **dict(zip(_STFT, args, strict=False)), **kwargs})
    if func is torch.istft:
        defaults = {**dict.fromkeys(_ISTFT), "center": True}
        return _istft(**{**defaults, **dict(zip(_ISTFT, args, strict=False)), **kwargs})
    return None


def _window(own: Tensor | None, n_fft: int, win_length: int | None, like: Tensor) -> Tensor:
    """The window, in the middle of ``n_fft`` places."""
    width = n_fft if win_length is None else win_length
    window = torch.ones(width, dtype=like.dtype) if own is None else own
    left = (n_fft - width) // 2
    return F.pad(window, (left, n_fft - width - left)) if width < n_fft else window


def _stft(
    input: Tensor, n_fft: int, hop_length: int | None, window: Tensor | None, return_complex: bool | None, **more: Any
) -> Tensor | None:
    if input.is_complex() or input.dim() != 2 or more["onesided"] is False or more["align_to_window"]:
        return None
    if more["center"]:
        half = n_fft // 2
        input = F.pad(input.unsqueeze(1), (half, half), more["pad_mode"]).squeeze(1)
    frames = input.unfold(-1, n_fft, n_fft // 4 if hop_length is None else hop_length)
    frames = frames * _window(window, n_fft, more["win_length"], input)
    found = torch.fft.rfft(frames, norm="ortho" if more["normalized"] else "backward").transpose(1, 2)
    return found if return_complex else torch.view_as_real(found)


def _istft(
    input: Tensor, n_fft: int, hop_length: int | None, window: Tensor | None, length: int | None, **more: Any
) -> Tensor | None:
    hop = n_fft // 4 if hop_length is None else hop_length
    if not input.is_complex() or input.dim() != 3 or more["onesided"] is False or more["return_complex"] or hop > n_fft:
        return None
    frames = torch.fft.irfft(input.transpose(1, 2), n=n_fft, norm="ortho" if more["normalized"] else "backward")
    own = _window(window, n_fft, more["win_length"], frames)
    signal = overlapped(frames * own, hop)
    weights = overlapped((own * own).expand(1, frames.shape[1], n_fft), hop)
    whole = n_fft + hop * (frames.shape[1] - 1)
    start = n_fft // 2 if more["center"] else 0
    if length is None:
        return signal[:, start : whole - start] / weights[:, start : whole - start]
    # A slice up to there would ask which of the two ends first, and the file would hold where the example does.
    places = torch.arange(start, start + length).clamp(max=whole)
    return F.pad(signal, (0, 1))[:, places] / F.pad(weights, (0, 1), value=1)[:, places]


def overlapped(frames: Tensor, hop: int) -> Tensor:
    """The sum of ``frames`` [batch, n, width], each ``hop`` places behind the one before: [batch, width + hop (n - 1)]."""
    width = frames.shape[2]
    parts = -(-width // hop)
    apart = F.pad(frames, (0, parts * hop - width)).unflatten(2, (parts, hop))
    if parts <= _MOST_PARTS:
        laid = [F.pad(apart[:, :, k], (0, 0, k, parts - 1 - k)) for k in range(parts)]
        total = sum(laid[1:], laid[0])
    else:
        # Rows that are one shorter than what is written into them begin one place later each.
        longer = F.pad(apart.transpose(1, 2), (0, 0, 0, parts)).flatten(1, 2)
        total = longer[:, :-parts].unflatten(1, (parts, frames.shape[1] + parts - 1)).sum(1)
    return total.flatten(1)[:, : width + hop * (frames.shape[1] - 1)]
