"""Loops over time of few lines whose first step is written apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.export.small_loops import Run, step, zeros


def like_the_others(s: Any, x: Tensor) -> Tensor:
    """The first step is what all others are, from zeros."""
    h = step(s, x[:, 0], zeros(x))
    out = [h]
    for t in range(1, x.shape[1]):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


def two_states(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    h, c, out = None, None, []
    for t in range(x.shape[1]):
        z = s.read(x[:, t])
        if h is None or c is None:
            h, c = torch.tanh(z), z * 0.5
        else:
            h, c = torch.tanh(z + s.recall(h) - c), 0.5 * c + z
        out.append(h)
    return torch.stack(out, 1), c


def backward_from_the_last(s: Any, x: Tensor) -> Tensor:
    h = s.read(x[:, -1])
    out = [h]
    for t in range(x.shape[1] - 2, -1, -1):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out[::-1], 1)


def features_first(s: Any, x: Tensor) -> Tensor:
    """A state [5, batch]."""
    h = s.read(x[:, 0]).T
    out = [h]
    for t in range(1, x.shape[1]):
        h = torch.tanh(s.read(x[:, t]).T + s.recall.weight @ h)
        out.append(h)
    return torch.stack(out)


def other_weights(s: Any, x: Tensor) -> Tensor:
    h = s.norm(s.cell(x[:, 0]))
    out = [h]
    for t in range(1, x.shape[1]):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


def written_first(s: Any, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], x.shape[1], 5)
    h = torch.tanh(s.read(x[:, 0]))
    out[:, 0] = h
    for t in range(1, x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t] = h
    return out


def grown_from_it(s: Any, x: Tensor) -> Tensor:
    h = torch.tanh(s.read(x[:, 0]))
    out = h[:, None]
    for t in range(1, x.shape[1]):
        h = step(s, x[:, t], h)
        out = torch.cat([out, h[:, None]], 1)
    return out


def without_its_result(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the first step gave is no part of the steps, and read once more behind them."""
    first = h = torch.tanh(s.read(x[:, 0]))
    out = []
    for t in range(1, x.shape[1]):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out, 1), first - h


def whole_sequence(s: Any, x: Tensor) -> Tensor:
    """What the state begins with is no first step: it is made of all of them."""
    h = s.read(x.mean(1))
    out = []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


def of_whole_numbers(s: Any, x: Tensor) -> Tensor:
    """A state of ids, of which none says which step is the first."""
    ids = x[:, 0].argmax(1)
    out = []
    for t in range(1, x.shape[1]):
        y = torch.tanh(s.read(x[:, t]) + s.table(ids))
        ids = y.argmax(1)
        out.append(y)
    return torch.stack(out, 1)


BEGINNINGS: dict[str, Run] = {
    run.__name__.replace("_", " "): run
    for run in (
        *(like_the_others, two_states, backward_from_the_last, features_first, other_weights, written_first),
        *(grown_from_it, without_its_result, whole_sequence, of_whole_numbers),
    )
}
