"""Modules with which a proof can be fooled: long reach, guards on sizes, leaking padding, hidden randomness."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FEATURES, HIDDEN = 3, 5


class Base(nn.Module):
    """A GRU behind something."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.before(x))[0]

    def before(self, x: Tensor) -> Tensor:
        return x


class Before(nn.Module):
    """What a module does before its GRU, which torch would unroll."""

    def __init__(self, module: Base) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.before(x)


class Dilated(Base):
    """A causal convolution that looks ``reach`` steps back."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.conv = nn.Conv1d(FEATURES, FEATURES, 2, dilation=reach)

    def before(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x.transpose(1, 2), (self.reach, 0))).transpose(1, 2)


class Lag(Base):
    """Adds what was ``reach`` steps ago."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def before(self, x: Tensor) -> Tensor:
        return x + F.pad(x, (0, 0, self.reach, 0))[:, : x.shape[1]]


class WarmUp(Base):
    """Zero for the first ``reach`` steps; ``stored``: the number is in a buffer, not in the code."""

    def __init__(self, reach: int, stored: bool = False) -> None:
        super().__init__()
        self.reach = reach
        if stored:
            self.register_buffer("threshold", torch.tensor(reach))

    def before(self, x: Tensor) -> Tensor:
        started = torch.arange(x.shape[1]) >= (self.threshold if hasattr(self, "threshold") else self.reach)
        return x * started[None, :, None]


class Window(Base):
    """The mean of the last ``reach`` steps, by a mask over all pairs of steps."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def before(self, x: Tensor) -> Tensor:
        t = torch.arange(x.shape[1])
        back = t[:, None] - t[None, :]
        weights = ((back >= 0) & (back < self.reach)).to(x.dtype)
        return (weights / weights.sum(1, keepdim=True)) @ x


class Branch(Base):
    """Does something else when ``axis`` is longer than ``most``."""

    def __init__(self, most: int, axis: int = 1) -> None:
        super().__init__()
        self.most, self.axis = most, axis

    def before(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[self.axis] > self.most else x


class Nested(Base):
    """Branches again beyond the branch that the trace sees."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def before(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.most and x.shape[1] > 2 * self.most:
            return x * 2
        return x


class Sliced(Base):
    """The sum of the first or of the last ``most`` steps: one answer for a sequence."""

    def __init__(self, most: int, last: bool) -> None:
        super().__init__()
        self.part = slice(-most, None) if last else slice(None, most)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0][:, self.part].sum(1)


class Table(Base):
    """Adds a learned vector for each of ``most`` positions; longer sequences fail in PyTorch too."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, most, FEATURES))

    def before(self, x: Tensor) -> Tensor:
        return x + self.table[:, : x.shape[1]]


class Noise(Base):
    """Draws random numbers; ``only``: where they show."""

    def __init__(self, only: str, most: int = 40) -> None:
        super().__init__()
        self.only, self.most = only, most

    def before(self, x: Tensor) -> Tensor:
        if self.only == "always":
            return F.dropout(x, 0.5, training=True)
        if self.only == "rarely":
            return torch.where(torch.rand_like(x) < 1e-6, 0.0, x)
        if self.only == "training":
            return F.dropout(x, 0.5, training=self.training)
        if self.only == "long" and x.shape[1] > self.most:
            return x + torch.randn_like(x)
        if self.only == "float64" and x.dtype == torch.float64:
            return x + torch.randn_like(x)
        return x


class Counter(Base):
    """Remembers how often it was called, as a buffer or as an attribute."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.calls: Any
        if buffer:
            self.register_buffer("calls", torch.zeros(()))
        else:
            self.calls = 0

    def before(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Remembers(Base):
    """An attribute moves and no answer depends on it."""

    seen = 0

    def before(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


class MixesRows(Base):
    def before(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Packed(nn.Module):
    """Packs; ``before`` and ``after`` look at the padding, or do not."""

    def __init__(self, before: str = "", after: str = "") -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, HIDDEN, batch_first=True, bidirectional=True)
        self.before, self.after = before, after

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.before == "mean":
            x = x - x.mean(1, keepdim=True)
        elif self.before == "masked mean":
            mask = (torch.arange(x.shape[1])[None] < lengths[:, None])[:, :, None]
            x = x - (x * mask).sum(1, keepdim=True) / lengths[:, None, None]
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]
        if self.after == "mean":
            return y.mean(1)
        if self.after == "max":
            return y.max(1).values
        if self.after == "last":
            return y[:, -1]
        if self.after == "masked mean":
            return y.sum(1) / lengths[:, None]
        return y
