"""Loops over time of few lines, one for each thing that a loop may do: functions of (a module, x [batch, time, 4])."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.export.axes_modules import Net
from tests.strategies import randomize

Run = Callable[[Any, Tensor], Any]


def made(run: Run) -> nn.Module:
    """A module with this ``forward`` and some layers for it."""
    parts: dict[str, nn.Module] = {
        "read": nn.Linear(4, 5),
        "recall": nn.Linear(5, 5),
        "table": nn.Embedding(9, 5),
        "norm": nn.LayerNorm(5),
        "conv": nn.Conv1d(1, 2, 3, padding=1),
        "cell": nn.GRUCell(4, 5),
    }
    return randomize(Net(run, **parts).eval(), 5)


def step(s: Any, x: Tensor, h: Tensor) -> Tensor:
    """The next state of a plain recurrence."""
    return torch.tanh(s.read(x) + s.recall(h))


def zeros(x: Tensor) -> Tensor:
    """Its first."""
    return x.new_zeros(x.shape[0], 5)


def states(s: Any, x: Tensor, order: Any = None) -> list[Tensor]:
    """The states after each step, in this order of the steps."""
    h, out = zeros(x), []
    for t in range(x.shape[1]) if order is None else order:
        h = step(s, x[:, t], h)
        out.append(h)
    return out


def from_the_end(s: Any, x: Tensor) -> Tensor:
    return torch.stack(states(s, x, reversed(range(x.shape[1])))[::-1], 1)


def first_in_front(s: Any, x: Tensor) -> Tensor:
    """Stacked along the first axis, the last step first."""
    return torch.stack(states(s, x)[::-1])


def joined(s: Any, x: Tensor) -> Tensor:
    return torch.cat(states(s, x), 1)


def joined_rows(s: Any, x: Tensor) -> Tensor:
    """Along the first axis: all rows of the first step, then those of the second; and nothing in front."""
    return torch.cat([zeros(x), *states(s, x)])


def stacked_last(s: Any, x: Tensor) -> Tensor:
    return torch.stack(states(s, x), -1)


def start_in_front(s: Any, x: Tensor) -> Tensor:
    return torch.stack([zeros(x) + 1, *states(s, x)], 1)


def two_each(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        z = s.read(x[:, t])
        h = torch.tanh(z + s.recall(h))
        out += [h, z]
    return torch.stack(out, 1)


def last_only(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    out = states(s, x)
    return out[-1], out[-2]


def second_and_first(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    out = states(s, x, reversed(range(x.shape[1])))
    return out[0], out[1] + out[-1]


def by_items(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for row in x.transpose(0, 1):
        h = step(s, row, h)
        out.append(h)
    return torch.stack(out, 1)


def items_from_the_end(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for row in reversed(x.unbind(1)):
        h = step(s, row, h)
        out.insert(0, h)
    return torch.stack(out, 1)


def pieces(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for piece in x.split(1, dim=1):
        h = step(s, piece[:, 0], h)
        out.append(h)
    return torch.stack(out, 1)


def pairs(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for pair in x[:, : x.shape[1] // 2 * 2].split(2, 1):
        h = step(s, pair[:, 1] - pair[:, 0], h)
        out.append(h)
    return torch.stack(out, 1)


def windows(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for t in range(x.shape[1] - 2):
        h = step(s, x[:, t : t + 3].mean(1), h)
        out.append(h)
    return torch.stack(out, 1)


def both_ends(s: Any, x: Tensor) -> Tensor:
    """A step reads one entry from the beginning and one from the end."""
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = step(s, x[:, t] - x[:, -1 - t], h)
        out.append(h)
    return torch.stack(out, 1)


def loop_behind_loop(s: Any, x: Tensor) -> Tensor:
    """The second loop reads what the first gave, from its end."""
    h, out = zeros(x), []
    for y in reversed(states(s, x)):
        h = torch.tanh(y + s.recall(h))
        out.append(h)
    return torch.stack(out, 1)


def backward_behind_backward(s: Any, x: Tensor) -> Tensor:
    first = states(s, x, reversed(range(x.shape[1])))[::-1]
    h, out = zeros(x), []
    for y in first[::-1]:
        h = torch.tanh(y - s.recall(h))
        out.append(h)
    return torch.stack(out[::-1], 1)


def forward_behind_backward(s: Any, x: Tensor) -> Tensor:
    first = states(s, x, reversed(range(x.shape[1])))[::-1]
    h, out = zeros(x), []
    for y in first:
        h = torch.tanh(y - s.recall(h))
        out.append(h)
    return torch.stack(out, 1)


def written(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_zeros(x.shape[0], x.shape[1], 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t] = h
    return out


def written_backward(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_zeros(x.shape[0], 5, x.shape[1])
    for t in range(x.shape[1] - 1, -1, -1):
        h = step(s, x[:, t], h)
        out[:, :, t] = h
    return out


def written_twice(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_zeros(x.shape[0], x.shape[1], 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t] = h
        out[:, t] = out[:, t] * 2 + 1
    return out


def written_in_parts(s: Any, x: Tensor) -> Tensor:
    """All but the first entry, which stays as it was."""
    h, out = zeros(x), x.new_ones(x.shape[0], x.shape[1] + 1, 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t + 1] = h
    return out


def written_apart(s: Any, x: Tensor) -> Tensor:
    """Every second entry."""
    h, out = zeros(x), x.new_ones(x.shape[0], 2 * x.shape[1], 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, 2 * t] = h
    return out


def written_wide(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_zeros(x.shape[0], x.shape[1], 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t : t + 1] = h.unsqueeze(1)
    return out


def wide_in_parts(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_ones(x.shape[0], x.shape[1] + 2, 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t + 1 : t + 2] = h.unsqueeze(1)
    return out


def reads_what_it_wrote(s: Any, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], x.shape[1] + 1, 5)
    out[:, 0] = 0.5
    for t in range(x.shape[1]):
        out[:, t + 1] = step(s, x[:, t], out[:, t])
    return out[:, 1:]


def reads_two_before(s: Any, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], x.shape[1] + 2, 5)
    for t in range(x.shape[1]):
        out[:, t + 2] = step(s, x[:, t], out[:, t] - out[:, t + 1])
    return out


def grows_in_front(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_zeros(x.shape[0], 0, 5)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out = torch.cat([h.unsqueeze(1), out], 1)
    return out


def grows_backward(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), x.new_ones(1, x.shape[0], 5)
    for t in reversed(range(x.shape[1])):
        h = step(s, x[:, t], h)
        out = torch.cat([h[None], out])
    return out


def as_whole_numbers(s: Any, x: Tensor) -> Tensor:
    """What is written takes the dtype of what it is written into."""
    h, out = zeros(x), torch.zeros(x.shape[0], x.shape[1], 5, dtype=torch.float64)
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out[:, t] = h.double()
    return out


SMALL: dict[str, Run] = {
    run.__name__.replace("_", " "): run
    for run in (
        *(from_the_end, first_in_front, joined, joined_rows, stacked_last, start_in_front, two_each),
        *(last_only, second_and_first, by_items, items_from_the_end, pieces, pairs, windows, both_ends),
        *(loop_behind_loop, backward_behind_backward, forward_behind_backward, written),
        *(written_backward, written_twice, written_in_parts, written_apart, written_wide, wide_in_parts),
        *(reads_what_it_wrote, reads_two_before, grows_in_front, grows_backward, as_whole_numbers),
    )
}
