"""Modules that compute all steps at once, as tables of time x time, and have a step of the same mathematics, in all spellings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SIZE = 3
KEEPS, FORGETS = 0.8, 0.5


@dataclass(frozen=True)
class Spelling:
    """keeps_time: a step has an axis of 1.  passing: how the states go out and in.  start: what there is before the first step.

    counts: a step must be told its number.  channels_first: x is [batch, size, time].
    """

    passing: str = "one"
    start: str = "none"
    keeps_time: bool = True
    counts: bool = False
    channels_first: bool = False


class Retention(nn.Module):
    """``y[t] = q[t] M[t] + s[t]``, ``M[t] = 0.8 M[t-1] + k[t] v[t]``, ``s[t] = 0.5 s[t-1] + x[t]``; turned by t if it counts."""

    spelling = Spelling()

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(SIZE, SIZE) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2) if self.spelling.channels_first else x
        steps = torch.arange(x.shape[1])
        back = (steps[:, None] - steps[None]).clamp(min=0)
        past = steps[:, None] >= steps[None]
        table = torch.where(past, KEEPS**back, 0.0) * (self.q(x) @ self.k(x).transpose(1, 2))
        y = table @ self.v(x) + torch.where(past, FORGETS**back, 0.0) @ x
        if self.spelling.counts:
            y = y * torch.cos(0.3 * steps)[:, None]
        return y.transpose(1, 2) if self.spelling.channels_first else y

    def once(self, x: Tensor, memory: Any, total: Any, number: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """One step as the spelling has it: [batch, size], or with an axis of 1 where time is."""
        time = 2 if self.spelling.channels_first else 1
        x = x.squeeze(time) if self.spelling.keeps_time else x
        if memory is None:
            memory, total = x.new_zeros(x.shape[0], SIZE, SIZE), torch.zeros_like(x)
        memory = KEEPS * memory + self.k(x).unsqueeze(2) * self.v(x).unsqueeze(1)
        total = FORGETS * total + x
        y = (self.q(x).unsqueeze(1) @ memory).squeeze(1) + total
        y = y if number is None else y * torch.cos(torch.tensor(0.3 * number))
        return y.unsqueeze(time) if self.spelling.keeps_time else y, memory, total

    def _zeros(self, rows: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(rows, SIZE, SIZE), torch.zeros(rows, SIZE)


def _one(self: Retention, x: Tensor, state: Any, number: int | None = None) -> tuple[Tensor, Any]:
    y, *state = self.once(x, *((None, None) if state is None else state), number)
    return y, tuple(state)


def _nested(self: Retention, x: Tensor, state: Any, number: int | None = None) -> tuple[Tensor, Any]:
    memory, total = (None, None) if state is None else (state[0][0], state[1][0])
    y, memory, total = self.once(x, memory, total, number)
    return y, [[memory], [total]]


def _optional(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, x, state=None: step(self, x, state)


def _counted(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, x, state, n: step(self, x, state, n)


def _several(self: Retention, x: Tensor, memory: Any, total: Any) -> tuple[Tensor, Tensor, Tensor]:
    return self.once(x, memory, total, None)


def _by_name(self: Retention, x: Tensor, memory: Any = None, total: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
    y, memory, total = self.once(x, memory, total, None)
    return y, {"total": total, "memory": memory}


def retention(spelling: Spelling) -> Retention:
    """A module whose step is spelled so."""
    step: Callable[..., Any] = {"one": _one, "nested": _nested, "several": _several, "names": _by_name}[
        spelling.passing
    ]
    if spelling.passing in ("one", "nested"):
        step = _counted(step) if spelling.counts else _optional(step) if spelling.start == "none" else step
    methods: dict[str, Any] = {"forward_recurrent" if spelling.counts else "step": step, "spelling": spelling}
    if spelling.start == "made":
        methods["default_state"] = lambda self, batch_size: self._zeros(batch_size)
    return type("Retention", (Retention,), methods)()


class Held:
    """What a model of a large library keeps between calls: tensors in lists, written in place."""

    def __init__(self) -> None:
        self.memory: list[Tensor | None] = [None]
        self.has_begun = [False]


@dataclass
class Answer:
    y: Tensor
    cache: Held | None = None


class Cached(nn.Module):
    """``forward`` goes on from a cache if it is given one that has begun and one step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Retention()
        self.head = nn.Linear(SIZE, 2)

    def forward(self, x: Tensor, cache: Held | None = None, use_cache: bool = False) -> Answer:
        cache = Held() if use_cache and cache is None else cache
        k, v = self.inner.k(x), self.inner.v(x)
        if cache is not None and cache.has_begun[0] and x.shape[1] == 1:
            memory = cache.memory[0]
            assert memory is not None
            memory.copy_(KEEPS * memory + k.transpose(1, 2) @ v)
            y = self.inner.q(x) @ memory
        else:
            back = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])[None]
            y = (torch.where(back >= 0, KEEPS ** back.clamp(min=0), 0.0) * (self.inner.q(x) @ k.transpose(1, 2))) @ v
            if cache is not None:
                left = KEEPS ** torch.arange(x.shape[1] - 1, -1, -1)
                cache.memory[0] = (k * left[:, None]).transpose(1, 2) @ v
                cache.has_begun[0] = True
        return Answer(self.head(y), cache)


class Around(nn.Module):
    """A part that has a step, in a model that has none; a convolution with padding on the left beside it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.into, self.part = nn.Conv1d(SIZE, SIZE, 3), part

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.into(nn.functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2))
        return self.part(x) + x
