"""Loops over time as people write them: one class for each spelling, all with inputs [batch, time, 5]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 5


class Lstm(nn.Module):
    """An LSTM from bare parameters."""

    def __init__(self, width: int = WIDTH, size: int = 7, *, reverse: bool = False) -> None:
        super().__init__()
        self.w, self.u = (nn.Parameter(torch.randn(n, 4 * size) * 0.3) for n in (width, size))
        self.bias = nn.Parameter(torch.randn(4 * size) * 0.3)
        self.size, self.reverse = size, reverse

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.size)
        out = []
        for t in reversed(range(x.shape[1])) if self.reverse else range(x.shape[1]):
            i, f, o, g = (x[:, t] @ self.w + h @ self.u + self.bias).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            out.append(h)
        return torch.stack(out[::-1] if self.reverse else out, 1)


class BothWays(nn.Module):
    """Two directions, one behind the other, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.forth, self.back, self.head = Lstm(), Lstm(size=6, reverse=True), nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.forth(x), self.back(x)], -1))


class WaysAsRows(nn.Module):
    """Two directions as rows of one loop."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Linear(WIDTH, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        z = self.w(torch.cat([x, x.flip(1)], 0))
        h, out = z.new_zeros(z.shape[0], 6), []
        for t in range(z.shape[1]):
            h = torch.tanh(z[:, t] + self.u(h))
            out.append(h)
        forth, back = torch.stack(out, 1).chunk(2, 0)
        return torch.cat([forth, back.flip(1)], 2)


class LayersInTime(nn.Module):
    """A stack of cells inside one loop; a head at every step; the final states as well."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.GRUCell(5, 6), nn.GRUCell(6, 4)])
        self.last, self.head = nn.LSTMCell(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states = [x.new_zeros(x.shape[0], cell.hidden_size) for cell in self.cells]
        h = c = x.new_zeros(x.shape[0], 3)
        out = []
        for y in x.unbind(1):
            for i, cell in enumerate(self.cells):
                y = states[i] = cell(y, states[i])
            h, c = self.last(y, (h, c))
            out.append(self.head(h).unsqueeze(1))
        return torch.cat(out, 1), states[0]


class TimeInLayers(nn.Module):
    """A loop over layers around the loop over time; steps are kept in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.RNNCell(5, 6), nn.RNNCell(6, 4, nonlinearity="relu")])

    def forward(self, x: Tensor) -> Tensor:
        steps = list(x.split(1, 1))
        steps = [step.squeeze(1) for step in steps]
        for cell in self.cells:
            h = x.new_zeros(x.shape[0], cell.hidden_size)
            made = []
            for step in steps:
                h = cell(step, h)
                made.append(h)
            steps = made
        return torch.stack(steps).transpose(0, 1)


class WritesInPlace(nn.Module):
    """``out[:, t] = ...``, time first, and each step reads what the one before has written."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.recall = nn.Linear(5, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 6)
        out = torch.zeros(x.shape[1], x.shape[0], 6)
        for t in range(x.shape[1]):
            h = torch.tanh(self.read(x[:, t]) + self.recall(h))
            out[t] = h
        return out.transpose(0, 1)


class Grows(nn.Module):
    """A tensor that grows by ``cat``, from an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 0, 6)
        for t in range(x.size(1)):
            h = self.cell(x[:, t, :], h)
            out = torch.cat((out, h[:, None]), dim=1)
        return out


class FirstStep(nn.Module):
    """The first step is a case of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.recall = nn.Linear(5, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h, out = None, []
        for t in range(x.shape[1]):
            h = torch.tanh(self.read(x[:, t])) if h is None else torch.tanh(self.read(x[:, t]) + self.recall(h))
            out.append(h)
        return torch.stack(out, 1)


class LearnedStart(nn.Module):
    """The state begins with a parameter, the memory with a number off a buffer; the last state is returned beside the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.start = nn.LSTMCell(5, 6), nn.Parameter(torch.randn(6))
        self.register_buffer("level", torch.tensor(1.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.start.expand(x.shape[0], -1)
        c = torch.full((x.shape[0], 6), self.level.exp().item())
        out = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            out += [h]
        return {"y": torch.stack(out, dim=1), "memory": c}


class Attends(nn.Module):
    """A decoder that attends to the whole sequence and feeds back what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.query, self.head = nn.GRUCell(8, 6), nn.Linear(6, 5), nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, y, out = x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 3), []
        for _ in range(x.shape[1]):
            weights = torch.softmax((x * self.query(h)[:, None]).sum(-1), 1)
            context = (weights[..., None] * x).sum(1)
            h = self.cell(torch.cat([context, y], 1), h)
            y = self.head(torch.cat([h, context], 1))
            out.append(y)
        return torch.stack(out, 1)


class MatrixMemory(nn.Module):
    """A fast-weight memory: the state is a matrix [batch, heads, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.decay = nn.Linear(5, 3 * 2 * 4), nn.Parameter(torch.rand(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.make(x).view(x.shape[0], x.shape[1], 3, 2, 4).unbind(2)
        memory, out = torch.zeros(x.shape[0], 2, 4, 4), []
        for t in range(x.shape[1]):
            update = torch.einsum("bhi,bhj->bhij", k[:, t], v[:, t])
            memory = torch.sigmoid(self.decay)[:, None, None] * memory + update
            out.append(torch.einsum("bhi,bhij->bhj", q[:, t], memory).flatten(1))
        return torch.stack(out, 1)


class SelectiveScan(nn.Module):
    """A state space layer with a matrix state, as the slow paths of public libraries write it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.rand(5, 4) + 0.5)
        self.b, self.c, self.d = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        step, b, c = functional.softplus(self.d(x)), self.b(x), self.c(x)
        decay = torch.exp(-step[..., None] * self.a)
        h, out = x.new_zeros(x.shape[0], 5, 4), []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
            out.append((h @ c[:, t].unsqueeze(-1))[:, :, 0])
        return torch.stack(out, 1)


class Scans(nn.Module):
    """No loop at all: running sums of exponentials, and products, which ONNX has no operator for."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        values, factors = self.make(x).chunk(2, -1)
        return 0.1 * values.logcumsumexp(dim=1) + torch.cumprod(torch.sigmoid(factors), -2)


class ReadsFirst(nn.Module):
    """What a step gives comes from the state as it was before the step, with a bonus for the present, as in RWKV."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.head = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.key(x), self.value(x)
        above, below = x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 6)
        out = torch.zeros_like(k)
        for t in range(x.shape[1]):
            now = torch.exp(torch.tanh(k[:, t]))
            out[:, t] = (above + 2 * now * v[:, t]) / (below + 2 * now)
            above, below = 0.9 * above + now * v[:, t], 0.9 * below + now
        return self.head(out)


class TwoAgo(nn.Module):
    """A step that reads the state of two steps ago, and counts its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.recall = nn.Linear(5, 6), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        before = h = x.new_zeros(x.shape[0], 6)
        out = []
        for t in range(x.shape[1]):
            new = torch.tanh(self.read(x[:, t]) + self.recall(torch.cat([h, before], 1)))
            before, h = h, new
            out.append(h)
        return torch.stack(out, 1)


class Pairs(nn.Module):
    """Half as many steps as the input has: each reads two of them, and their difference."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.new_zeros(x.shape[0], 6), []
        for i in range(x.shape[1] // 2):
            h = self.cell(torch.cat([x[:, 2 * i], x[:, 2 * i + 1] - x[:, 2 * i]], -1), h)
            out.append(h)
        return torch.stack(out, 1)


class Greedy(nn.Module):
    """A decoder that looks up what it has just chosen: the state holds ids."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.lookup = nn.GRU(5, 6, batch_first=True), nn.Embedding(9, 4)
        self.decoder, self.head = nn.GRU(10, 6, batch_first=True), nn.Linear(6, 9)

    def forward(self, x: Tensor) -> Tensor:
        memory, h = self.encoder(x)
        chosen, out = torch.zeros(x.size(0), 1, dtype=torch.long), []
        for _ in range(x.shape[1]):
            weights = torch.softmax(h.transpose(0, 1) @ memory.mT, -1)
            y, h = self.decoder(torch.cat([self.lookup(chosen), weights @ memory], 2), h)
            out.append(self.head(y))
            chosen = out[-1].squeeze(1).topk(1)[1].detach()
        return torch.cat(out, 1)


class LocationSensitive(nn.Module):
    """Attention that remembers where it has looked: states as long as the input, one of them changed in place and viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.query, self.key = nn.LSTMCell(10, 6), nn.Linear(6, 7), nn.Linear(5, 7)
        self.where, self.score, self.head = nn.Conv1d(2, 7, 3, padding=1), nn.Linear(7, 1), nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        keys, h, c = self.key(x), x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 6)
        context, looked, weights = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[:2]), x.new_zeros(x.shape[:2])
        out: list[Tensor] = []
        t = 0
        while t < x.shape[1]:
            h, c = self.cell(torch.cat((x[:, t], context), -1), (h, c))
            seen = self.where(torch.cat((weights.unsqueeze(1), looked.unsqueeze(1)), 1)).transpose(1, 2)
            weights = torch.softmax(self.score(torch.tanh(self.query(h)[:, None] + keys + seen)).squeeze(-1), 1)
            looked += weights
            context = torch.bmm(weights[:, None], x).squeeze(1)
            out.append(self.head(torch.cat((h, context), 1)))
            t += 1
        return torch.stack(out).transpose(0, 1)


class AsksForFirst(nn.Module):
    """Exponential gates with a stabiliser, which has no past in the first step: asked of the values, as xLSTM's sLSTM does."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.back = nn.Linear(WIDTH, 12), nn.Linear(3, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h, c, n, m = x.new_zeros(4, x.shape[0], 3)
        out = []
        for step in self.gates(x).unbind(1):
            i, f, z, o = (step + self.back(h)).chunk(4, 1)
            f = m + functional.logsigmoid(f)
            if torch.all(n == 0):
                m = i
            else:
                m = torch.maximum(i, f)
            i, f = torch.exp(i - m), torch.exp(f - m)
            c, n = f * c + i * torch.tanh(z), f * n + i
            h = torch.sigmoid(o) * c / n
            out.append(h)
        return torch.stack(out, 1)


class Smooths(nn.Module):
    """The state begins as the first entry, and what each step gives is computed in the loop as well as before it."""

    def __init__(self) -> None:
        super().__init__()
        self.share, self.head = nn.Parameter(torch.tensor(0.3)), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        level = x[:, 0].squeeze(1)  # which has more than one entry: torch lets it be
        out = [self.head(level)]
        for t in range(1, x.shape[1]):
            level = self.share * x[:, t] + (1 - self.share) * level
            out.append(self.head(level))
        return torch.stack(out, 1)


class Forecasts(nn.Module):
    """Cells over the history, and the same code again for twelve steps to come, which read what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.GRUCell(1, 4), nn.GRUCell(4, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, g = x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 3)
        y, out = x[:, 0, :1], []
        for history in x[..., 0].chunk(x.shape[1], 1):
            h = self.first(history, h)
            g = self.second(h, g)
            y = self.head(g)
            out.append(y)
        for _ in range(12):
            h = self.first(y, h)
            g = self.second(h, g)
            y = self.head(g)
            out.append(y)
        return torch.cat(out, 1)


class PrefixSums(torch.autograd.Function):
    """``h[t] = a[t] * h[t - 1] + x[t]`` along axis 1, each round over steps twice as far apart."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        far = 1
        while far < x.shape[1]:
            later = x[:, far:] + a[:, far:] * x[:, :-far]
            x = torch.cat([x[:, :far], later], 1)
            a = torch.cat([a[:, :far], a[:, far:] * a[:, :-far]], 1)
            far *= 2
        return x


prefix_sums = PrefixSums.apply  # called by this name, as packages do


class ParallelScan(nn.Module):
    """A linear recurrence in a logarithm of the steps, whose graph is another one at every length."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        forget, new = self.gates(x).chunk(2, 2)
        return prefix_sums(torch.sigmoid(forget), new)


STREAMING: dict[str, Callable[[], nn.Module]] = {
    "lstm": Lstm,
    "layers in time": LayersInTime,
    "time in layers": TimeInLayers,
    "writes in place": WritesInPlace,
    "grows": Grows,
    "learned start": LearnedStart,
    "matrix memory": MatrixMemory,
    "selective scan": SelectiveScan,
    "two ago": TwoAgo,
    "scans": Scans,
    "reads first": ReadsFirst,
    "asks for first": AsksForFirst,
    "first step": FirstStep,
    "smooths": Smooths,
    "parallel scan": ParallelScan,
}
BATCH_ONLY: dict[str, Callable[[], nn.Module]] = {
    "ways as rows": WaysAsRows,
    "both ways": BothWays,
    "attends": Attends,
    "greedy": Greedy,
    "forecasts": Forecasts,
    "location sensitive": LocationSensitive,
}
