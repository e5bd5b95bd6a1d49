"""More loops over time of few lines: what their steps carry, read and give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.export.small_loops import Run, step, zeros


def two_ago(s: Any, x: Tensor) -> Tensor:
    before = h = zeros(x) + 1
    out = []
    for t in range(x.shape[1]):
        before, h = h, step(s, x[:, t], before)
        out.append(h)
    return torch.stack(out, 1)


def hidden_first(s: Any, x: Tensor) -> Tensor:
    """A state [5, batch]."""
    h, out = x.new_zeros(5, x.shape[0]), []
    for t in range(x.shape[1]):
        h = torch.tanh(s.read(x[:, t]).T + s.recall.weight @ h)
        out.append(h)
    return torch.stack(out)


def turned_rows(s: Any, x: Tensor) -> Tensor:
    """Two rows for each of the batch, which change places in every step."""
    z, rows = torch.cat([x, x.flip(1)]), x.shape[0]
    h, out = z.new_zeros(2 * rows, 5), []
    for t in range(z.shape[1]):
        h = step(s, z[:, t], h).reshape(2, rows, 5).flip(0).reshape(2 * rows, 5)
        out.append(h)
    return torch.stack(out, 1)


def one_number(s: Any, x: Tensor) -> Tensor:
    """A state [batch]."""
    h, out = x.new_zeros(x.shape[0]), []
    for t in range(x.shape[1]):
        h = 0.5 * h + x[:, t].sum(1)
        out.append(h)
    return torch.stack(out, 1)


def of_ids(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A state of ids, and a count that nobody bounds."""
    ids, count, out = torch.zeros(x.shape[0], dtype=torch.int64), torch.zeros(x.shape[0], dtype=torch.int64), []
    for t in range(x.shape[1]):
        y = torch.tanh(s.read(x[:, t]) + s.table(ids))
        ids, count = y.argmax(1), count + (y[:, 0] > 0)
        out.append(y)
    return torch.stack(out, 1), count


def with_flags(s: Any, x: Tensor) -> Tensor:
    """A truth as a state: once it is true it stays so."""
    seen, h, out = torch.zeros(x.shape[0], dtype=torch.bool), zeros(x), []
    for t in range(x.shape[1]):
        seen = seen | (x[:, t, 0] > 0.5)
        h = torch.where(seen[:, None], h, step(s, x[:, t], h))
        out.append(h)
    return torch.stack(out, 1)


def counted(s: Any, x: Tensor) -> Tensor:
    """The number of the step takes part."""
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h) / (t + 1)
        out.append(h + t)
    return torch.stack(out, 1)


def steps_left(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h) / torch.tensor(x.shape[1] - t)
        out.append(h)
    return torch.stack(out, 1)


def normed(s: Any, x: Tensor) -> Tensor:
    """Layers that look along an axis, before the step and after it."""
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = torch.tanh(s.norm(s.read(x[:, t])) + s.recall(h))
        out.append(s.norm(h))
    return torch.stack(out, 1)


def pictures(s: Any, x: Tensor) -> Tensor:
    """A convolution along the features of each step."""
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = step(s, s.conv(x[:, t].unsqueeze(1)).amax(1), h)
        out.append(s.conv(h[:, None]))
    return torch.stack(out, 1)


def joined_in_steps(s: Any, x: Tensor) -> Tensor:
    """``cat`` and ``stack`` before the step and after it, also of what is the same in all steps."""
    h, out, more = zeros(x), [], x.new_ones(x.shape[0], 1)
    for t in range(x.shape[1]):
        h = step(s, torch.cat([x[:, t, :3], more], -1), h)
        out.append(torch.stack([h, torch.cat([x[:, t], more], 1)], 1))
    return torch.stack(out, 1)


def put_in_places(s: Any, x: Tensor) -> Tensor:
    """``scatter`` and ``gather`` after the step, at places that it found."""
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        best = h.argmax(-1, keepdim=True)
        out.append(torch.zeros_like(h).scatter(1, best, 1.0) * h.gather(1, best))
    return torch.stack(out, 1)


def extremes(s: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Torch's own scans."""
    y = s.read(x)
    top, low = y.cummax(1), y.cummin(1)
    return top.values, top.indices, low.values, low.indices


def learned_start(s: Any, x: Tensor) -> Tensor:
    """The state begins as weights do, and the input has no part in it."""
    h, out = s.table.weight[2].expand(x.shape[0], -1), []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


def started_by_inputs(s: Any, x: Tensor) -> Tensor:
    """And here it has."""
    h, out = x.mean(1) @ s.read.weight.T, []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


def sequence_in_steps(s: Any, x: Tensor) -> Tensor:
    """Each step reads the whole sequence, and one number of the input beside it."""
    h, out, level = zeros(x), [], x.amax((1, 2))
    for _ in range(x.shape[1]):
        h = torch.tanh((s.read(x) * h[:, None]).sum(1) + level[:, None])
        out.append(h)
    return torch.stack(out, 1)


def sequence_after_steps(s: Any, x: Tensor) -> Tensor:
    """What a step gives is compared with the whole sequence: of all steps at once that would fill memory."""
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = step(s, x[:, t], h)
        out.append((s.read(x) * h[:, None]).amax(1))
    return torch.stack(out, 1)


def made_larger(s: Any, x: Tensor) -> Tensor:
    """What only makes the input of a step larger is done in the step."""
    h, out = x.new_zeros(x.shape[0], 4, 5), []
    for t in range(x.shape[1]):
        h = 0.5 * h + x[:, t, :, None] * s.recall.bias
        out.append(h)
    return torch.stack(out, 1)


def cell_of_torch(s: Any, x: Tensor) -> Tensor:
    h, out = zeros(x), []
    for t in range(x.shape[1]):
        h = s.cell(x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


STEPS: dict[str, Run] = {
    run.__name__.replace("_", " "): run
    for run in (
        *(two_ago, hidden_first, turned_rows, one_number, of_ids, with_flags, counted, steps_left, normed, pictures),
        *(joined_in_steps, put_in_places, extremes, learned_start, started_by_inputs, sequence_in_steps),
        *(sequence_after_steps, made_larger, cell_of_torch),
    )
}
