"""Modules of other shapes than [batch, time, features]: what people write, one for each kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.strategies import randomize


class Net(nn.Module):
    """Parts by name and a forward."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._run = run

    def forward(self, x: Tensor) -> Any:
        return self._run(self, x)


def strided(kernel: int = 3, stride: int = 2, padding: int = 1, dilation: int = 1) -> Net:
    """A convolution with a stride in front: [batch, time, 4]."""
    return _made(
        lambda s, x: s.gru(s.conv(x.mT).mT)[0],
        conv=nn.Conv1d(4, 6, kernel, stride, padding, dilation),
        gru=nn.GRU(6, 5, batch_first=True),
    )


def whole_windows() -> Net:
    """Windows of five steps, three apart, of the past, and of zeros after the last step so that the last one is whole."""

    def run(s: Any, x: Tensor) -> Tensor:
        more = math.ceil(x.shape[1] / 3) * 3 - x.shape[1]
        return s.gru(s.conv(F.pad(x.mT, (2, more))).mT)[0]

    return _made(run, conv=nn.Conv1d(4, 6, 5, 3), gru=nn.GRU(6, 5, batch_first=True))


def every_nth(n: int = 2, start: int = 0) -> Net:
    """Each n-th step of [batch, time, 4]."""
    return _made(lambda s, x: s.gru(x[:, start::n])[0], gru=nn.GRU(4, 5, batch_first=True))


def pyramid() -> Net:
    """Two steps joined between layers, an odd last one dropped."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = s.below(x)[0]
        return s.above(y[:, : y.shape[1] // 2 * 2].reshape(y.shape[0], -1, 10))[0]

    return _made(run, below=nn.GRU(4, 5, batch_first=True), above=nn.GRU(10, 3, batch_first=True))


def put_together() -> Net:
    """Frames of four samples of [batch, time], which become samples again; those after the last whole frame are lost."""
    return _made(lambda s, x: s.gru(x.unfold(1, 4, 4))[0].flatten(1), gru=nn.GRU(4, 4, batch_first=True))


def regrouped() -> Net:
    """[batch, time, 4]; what has eight features is taken for pairs of steps, as frames of a vocoder are."""

    def run(s: Any, x: Tensor) -> Tensor:
        return s.gru(x.reshape(x.shape[0], -1, 4) if x.shape[2] == 8 else x)[0]

    return _made(run, gru=nn.GRU(4, 5, batch_first=True))


def points() -> Net:
    """[time, batch, 2], embedded as one long list of points; what the last step leaves."""

    def run(s: Any, x: Tensor) -> Tensor:
        return s.gru(s.embed(x.reshape(-1, 2)).view(-1, x.shape[1], 3))[1][0]

    return _made(run, embed=nn.Linear(2, 3), gru=nn.GRU(3, 5))


def letters() -> Net:
    """[batch, words, letters, 3]: a layer over letters, one over words."""

    def run(s: Any, x: Tensor) -> Tensor:
        return s.words(s.letters(x.flatten(0, 1))[0][:, -1].unflatten(0, x.shape[:2]))[0]

    parts = {"letters": nn.LSTM(3, 4, batch_first=True), "words": nn.LSTM(4, 5, batch_first=True, bidirectional=True)}
    return _made(run, **parts)


def bands() -> Net:
    """[batch, time, 7, 3]: each band is a row of its own."""

    def run(s: Any, x: Tensor) -> Tensor:
        return s.lstm(x.transpose(1, 2).flatten(0, 1))[0].unflatten(0, (x.shape[0], 7)).transpose(1, 2)

    return _made(run, lstm=nn.LSTM(3, 4, batch_first=True))


def channels_first() -> Net:
    """[batch, 4, time]."""
    return _made(
        lambda s, x: s.lstm(s.conv(x).mT)[0], conv=nn.Conv1d(4, 6, 3, padding=1), lstm=nn.LSTM(6, 5, batch_first=True)
    )


def series() -> Net:
    """[batch, time], one number a step."""
    return _made(lambda s, x: s.lstm(x[..., None])[0], lstm=nn.LSTM(1, 5, batch_first=True))


def audio() -> Net:
    """[batch, samples]: frames of 251 samples, 10 apart."""
    return _made(
        lambda s, x: s.lstm(s.conv(x[:, None]).mT)[0],
        conv=nn.Conv1d(1, 6, 251, stride=10),
        lstm=nn.LSTM(6, 5, batch_first=True, bidirectional=True),
    )


def flattened(*, batch_first: bool = True) -> Net:
    """Classes of all steps of all rows under each other: [batch * time, 7] or [time * batch, 7]."""
    parts: dict[str, nn.Module] = {"lstm": nn.LSTM(4, 5, batch_first=batch_first), "head": nn.Linear(5, 7)}
    return _made(lambda s, x: s.head(s.lstm(x)[0]).reshape(-1, 7), **parts)


class PackedAndFlat(nn.Module):
    """All steps of all rows under each other, of a layer that reads packed rows both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.lstm = nn.Linear(4, 3), nn.LSTM(3, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(self.read(x), lengths, batch_first=True)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=1)
        return y, y.contiguous().view(-1, 10)


def packed_and_flat() -> PackedAndFlat:
    return randomize(PackedAndFlat().eval(), 8)


def image_row() -> Net:
    """[batch, 1, 8, width]: convolutions over an image of a line, of whose height one row must be left."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = s.conv(s.pool(x))
        assert y.shape[2] == 1, "the height must be 1"
        return s.lstm(y.squeeze(2).permute(2, 0, 1))[0]

    parts: dict[str, nn.Module] = {"pool": nn.MaxPool2d((4, 2)), "conv": nn.Conv2d(1, 3, (2, 1))}
    return _made(run, lstm=nn.LSTM(3, 5, bidirectional=True), **parts)


def triples() -> Net:
    """Three steps are one: time must be a multiple of 3."""
    return _made(lambda s, x: s.gru(x.unflatten(1, (-1, 3)).flatten(2))[0], gru=nn.GRU(12, 5, batch_first=True))


def upsampled() -> Net:
    """Twice as many steps come out as go in, channels first."""
    parts: dict[str, nn.Module] = {"gru": nn.GRU(4, 5, batch_first=True), "up": nn.ConvTranspose1d(5, 2, 4, 2, 1)}
    return _made(lambda s, x: s.up(s.gru(x)[0].mT), **parts)


def fixed_time() -> Net:
    """A head over all steps at once: nine of them, no more and no less."""
    parts: dict[str, nn.Module] = {"gru": nn.GRU(4, 5, batch_first=True), "head": nn.Linear(45, 2)}
    return _made(lambda s, x: s.head(s.gru(x)[0].flatten(1)), **parts)


def left_padded(kernel: int = 3, dilation: int = 2) -> Net:
    """A convolution that sees the past only."""
    parts: dict[str, nn.Module] = {
        "conv": nn.Conv1d(4, 6, kernel, dilation=dilation),
        "gru": nn.GRU(6, 5, batch_first=True),
    }
    width = (kernel - 1) * dilation
    return _made(lambda s, x: s.gru(s.conv(F.pad(x.mT, (width, 0))).mT)[0], **parts)


def convolutions() -> nn.Module:
    """Convolutions that see the past only, and no layer that says which axis is time: [batch, 4, time]."""
    pad = nn.ConstantPad1d((4, 0), 0.0)
    return nn.Sequential(pad, nn.Conv1d(4, 6, 3, dilation=2), nn.ReLU(), nn.Conv1d(6, 5, 1))


class Attending(nn.Module):
    """Two sequences of their own lengths, source [batch, source, 4] and target [batch, time, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.writer = nn.GRU(4, 5, batch_first=True), nn.GRU(3, 5, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, last = self.reader(source)
        y, _ = self.writer(target, last)
        return torch.softmax(y @ memory.mT, -1) @ memory


class WordsAndFrames(nn.Module):
    """Words [batch, n], and frames [batch, 2 * n, 3] of which ``forward`` takes two for each; no result has 2 * n steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 5)
        self.gru = nn.GRU(11, 5, batch_first=True)

    def forward(self, words: Tensor, frames: Tensor) -> Tensor:
        pairs = frames.reshape(frames.shape[0], frames.shape[1] // 2, 6)
        return self.gru(torch.cat([self.embedding(words), pairs], -1))[0]


class Vocoder(nn.Module):
    """Samples [batch, 6 * (n - 2)] of n frames [batch, 5, n], and memory [batch, letters, 4], of which ``counts`` are a row's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(5, 3, 3), nn.GRU(8, 5, batch_first=True)

    def forward(self, samples: Tensor, frames: Tensor, memory: Tensor, counts: Tensor) -> Tensor:
        seen = self.conv(frames).repeat_interleave(6, -1).mT
        places = torch.arange(int(counts.max()), device=counts.device)
        weights = (memory @ memory[:, :1].mT).masked_fill((places >= counts[:, None])[..., None], -torch.inf)
        context = (torch.softmax(weights, 1) * memory).sum(1, keepdim=True).expand(-1, samples.shape[1], -1)
        return self.gru(torch.cat([samples[..., None], seen, context], -1))[0]


class Enhancer(nn.Module):
    """As many samples come out as go in, [batch, time]: padded so that the last window is whole, and trimmed to the middle.

    What torch writes for its two norms has sizes that nobody knows, and which are not the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(1, 4, 8, 4), nn.ConvTranspose1d(5, 1, 8, 4)
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.before, self.after = nn.GroupNorm(1, 1), nn.GroupNorm(1, 4)

    def whole(self, length: int) -> int:
        windows = max(1, math.ceil((length - 8) / 4) + 1)
        return int((windows - 1) * 4 + 8)

    def forward(self, x: Tensor) -> Tensor:
        more = self.whole(x.shape[1]) - x.shape[1]
        y = self.down(F.pad(self.before(x[:, None]), (more // 2, more - more // 2)))
        y = self.up(self.gru(self.after(y).mT)[0].mT)[:, 0]
        over = y.shape[1] - x.shape[1]
        if over:
            y = y[:, over // 2 : -(over - over // 2)]
        return y


class WithState(nn.Module):
    """A module that takes and returns its state, [layers, batch, size] as torch's layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, 2, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c


def attending() -> Attending:
    return randomize(Attending().eval(), 3)


def vocoder() -> Vocoder:
    return randomize(Vocoder().eval(), 6)


def enhancer() -> Enhancer:
    return randomize(Enhancer().eval(), 7)


def with_state() -> WithState:
    return randomize(WithState().eval(), 4)


def _made(run: Callable[..., Any], **parts: nn.Module) -> Net:
    return randomize(Net(run, **parts).eval(), 5)


class Policy(nn.Module):
    """One step of an agent, as libraries of them write it: rows are as many as the states are, times steps."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.gru = nn.Linear(4, 3), nn.GRU(3, 5)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        steps = self.read(x).reshape(h.shape[1], -1, 3).transpose(0, 1)
        y, h = self.gru(steps, h)
        return y.transpose(0, 1).flatten(0, 1), h


class Agent(nn.Module):
    """A recurrent agent that forgets where an episode ended: rows of some steps, and as many flags."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5)

    def forward(self, x: Tensor, h: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
        out = []
        for step, over in zip(x.reshape(-1, h.shape[1], 4), ended.reshape(-1, h.shape[1]), strict=True):
            y, h = self.gru(step[None], h * (1 - over)[None, :, None])
            out.append(y)
        return torch.cat(out).flatten(0, 1), h


class Decaying(nn.Module):
    """Values that were measured now and then: nobody reads more flags and gaps than there are values."""

    def __init__(self, steps: int | None = None) -> None:
        super().__init__()
        self.cell, self.decay, self.steps = nn.GRUCell(8, 5), nn.Linear(4, 5), steps

    def forward(self, x: Tensor, known: Tensor, gaps: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        for t in range(self.steps or x.shape[1]):
            h = self.cell(
                torch.cat([x[:, t] * known[:, t], known[:, t]], 1), h * torch.exp(-self.decay(gaps[:, t]).relu())
            )
        return h


def decaying(steps: int | None = None) -> Decaying:
    """``steps``: as many as the module was made for, whatever comes."""
    return randomize(Decaying(steps).eval(), 8)


def washed_out() -> Net:
    """Without the first four steps."""
    return _made(lambda s, x: s.gru(x)[0][:, 4:], gru=nn.GRU(4, 5, batch_first=True))


def viewed() -> Net:
    """Rows of nine steps, whatever the shape that came."""
    return _made(lambda s, x: s.gru(x.view(-1, 9, 4))[0], gru=nn.GRU(4, 5, batch_first=True))


class CountedOut(nn.Module):
    """Twelve steps of [time, batch, 4] through a cell of its own; more are not read."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(4, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], 5)
        for t in range(12):
            h = torch.tanh(self.into(x[t]) + self.again(h))
        return h
