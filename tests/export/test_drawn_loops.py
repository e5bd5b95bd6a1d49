"""Loops over time drawn from every spelling, on the pass that rolls them: what runs afterwards gives the module's own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.conversion import convert_plain_layers
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.one_step import over_time
from rnncore.export.tracing.operators import Operators, find_operators
from rnncore.export.tracing.rolling.program import roll
from rnncore.export.tracing.trace import trace
from tests.tolerances import fixed

WIDTH, SIZE = 3, 4


@dataclass(frozen=True)
class Spelling:
    """steps: how the entries along time are had.  body: what a step does.  start: of the state.  results: how they are kept."""

    steps: str
    body: str
    start: str
    results: str
    backward: bool
    feeds_back: bool
    layers: int


SPELLINGS = st.builds(
    Spelling,
    steps=st.sampled_from(
        ["index", "ellipsis", "unbind", "split", "chunks", "time first", "zip", "enumerate", "while"]
    ),
    body=st.sampled_from(["cell", "lstm cell", "bare", "gates", "matrix", "attends", "layer", "first is asked for"]),
    start=st.sampled_from(["zeros", "ones", "learned", "computed", "none"]),
    results=st.sampled_from(["stack", "cat", "grows", "written", "written time first", "last", "every state"]),
    backward=st.booleans(),
    feeds_back=st.booleans(),
    layers=st.integers(1, 2),
)


class Drawn(nn.Module):
    """A recurrence [batch, time, WIDTH] -> [batch, time, SIZE], or the last [batch, SIZE], written as ``spelling`` says."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        back = SIZE if spelling.feeds_back else 0
        self.cells = nn.ModuleList(
            Body(spelling.body, (WIDTH if n == 0 else SIZE) + back) for n in range(spelling.layers)
        )
        self.begin, self.first = nn.Parameter(torch.randn(SIZE)), nn.Linear(WIDTH, SIZE)

    def _steps(self, x: Tensor) -> Iterator[Tensor]:
        count = x.shape[1]
        order = range(count - 1, -1, -1) if self.spelling.backward else range(count)
        match self.spelling.steps:
            case "index":
                yield from (x[:, t] for t in order)
            case "ellipsis":
                yield from (x[..., t, :] for t in order)
            case "time first":
                by_time = x.transpose(0, 1)
                yield from (by_time[t] for t in order)
            case "unbind" | "zip" | "enumerate":
                entries = x.unbind(1)
                entries = entries[::-1] if self.spelling.backward else entries
                pairs = zip(order, entries, strict=True) if self.spelling.steps == "zip" else enumerate(entries)
                yield from (entry for _, entry in pairs)
            case "split":
                entries = x.split(1, dim=1)
                yield from (entry.squeeze(1) for entry in (reversed(entries) if self.spelling.backward else entries))
            case "chunks":
                entries = x.chunk(count, 1)
                yield from (entry[:, 0] for entry in (reversed(entries) if self.spelling.backward else entries))
            case _:
                t = order[0]
                while 0 <= t < count:
                    yield x[:, t : t + 1].squeeze(1)
                    t += order.step

    def _start(self, x: Tensor) -> Tensor | None:
        match self.spelling.start:
            case "zeros":
                return x.new_zeros(x.size(0), SIZE)
            case "ones":
                return torch.ones(len(x), SIZE)
            case "learned":
                return self.begin.expand(x.shape[0], -1)
            case "computed":
                return torch.tanh(self.first(x[:, 0]))
        return None

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        results, backward = self.spelling.results, self.spelling.backward
        states = [self._start(x)] * len(self.cells)
        memories = [cell.memory(batch) for cell in self.cells]
        y, kept = x.new_zeros(batch, SIZE), []
        written = x.new_zeros(batch, count, SIZE) if results == "written" else x.new_zeros(count, batch, SIZE)
        grown = x.new_zeros(batch, 0, SIZE)
        for t, step in enumerate(self._steps(x)):
            place, value = count - 1 - t if backward else t, step
            for n, cell in enumerate(self.cells):
                given = torch.cat([value, y], 1) if self.spelling.feeds_back else value
                states[n], memories[n] = cell(given, states[n], memories[n], x)
                value = states[n]
            y = torch.sigmoid(value) if self.spelling.feeds_back else value
            if results == "written":
                written[:, place] = y
            elif results == "written time first":
                written[place] = y
            elif results == "grows":
                grown = torch.cat([y[:, None], grown] if backward else [grown, y[:, None]], 1)
            kept.append(y.unsqueeze(1) if results == "cat" else y)
        kept = kept[::-1] if backward else kept
        match results:
            case "stack" | "every state":
                return torch.stack(kept, dim=1)
            case "cat":
                return torch.cat(kept, 1)
            case "grows":
                return grown
            case "written":
                return written
            case "written time first":
                return written.transpose(0, 1)
        return y


class Squashed(torch.autograd.Function):
    """tanh, with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y).clamp(min=0.1)


squashed = Squashed.apply  # a name of its own, as people give it


class Body(nn.Module):
    """One step: (x, h or None, memory, the whole sequence) -> (h, memory)."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        whole = WIDTH if kind == "attends" else 0
        self.cell = nn.LSTMCell(width, SIZE) if kind == "lstm cell" else nn.GRUCell(width + whole, SIZE)
        self.layer = nn.LSTM(width, SIZE, batch_first=True)
        self.read, self.recall = nn.Linear(width, SIZE), nn.Linear(SIZE, SIZE, bias=False)
        self.gates, self.query = nn.Linear(width + SIZE, 2 * SIZE), nn.Linear(SIZE, WIDTH)
        self.weight = nn.Parameter(torch.randn(width, SIZE) * 0.4)

    def memory(self, batch: int) -> Tensor:
        """What a step carries beside ``h``."""
        return torch.zeros(batch, SIZE, SIZE) if self.kind == "matrix" else torch.zeros(batch, SIZE)

    def forward(self, x: Tensor, h: Tensor | None, memory: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        if h is None:
            return torch.tanh(self.read(x)), memory
        match self.kind:
            case "cell":
                return self.cell(x, h), memory
            case "lstm cell":
                return self.cell(x, (h, memory))
            case "layer":
                _, (h, memory) = self.layer(x[:, None], (h.unsqueeze(0), memory[None]))
                return h[0], memory.squeeze(0)
            case "bare":
                return squashed(x @ self.weight + self.recall(h) * 0.5), memory
            case "gates":
                forget, new = self.gates(torch.cat((x, h), -1)).split(SIZE, 1)
                memory = memory * forget.sigmoid() + new.tanh()
                return torch.tanh(memory), memory
            case "matrix":
                memory = 0.7 * memory + torch.einsum("bi,bj->bij", self.read(x), h)
                return torch.tanh((memory @ h[..., None]).squeeze(-1)), memory
            case "attends":
                weights = torch.softmax((whole @ self.query(h).unsqueeze(-1)).squeeze(-1), -1)
                return self.cell(torch.cat([x, torch.bmm(weights[:, None], whole)[:, 0]], 1), h), memory
        gate = self.read(x)
        top = gate if torch.all(memory == 0) else torch.maximum(gate, 0.5 * memory)
        return torch.tanh(self.recall(h) + gate - top), 1 + top.abs()


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(spelling=SPELLINGS, seed=st.integers(0, 2**16))
def test_a_loop_is_rolled_however_it_is_spelled(spelling: Spelling, seed: int) -> None:
    torch.manual_seed(seed)
    module = Drawn(spelling).eval()
    call = find_axes(module, Example.of(module, torch.randn(2, 6, WIDTH), None, "auto"), None, seed)
    with torch.no_grad():
        plain = convert_plain_layers(copied(module))
        rolled = roll(plain, call, find_operators(plain, call, seed), seed)
        assert rolled is not None
        starts = [loop.layer.cell.starts for loop in rolled.loops if loop.layer is not None]
        assert spelling.start == "computed" or None not in starts  # else a stream would begin anew with every chunk
        for batch, steps in ((1, 5), (3, 8), (2, 33)):
            x = torch.randn(batch, steps, WIDTH)
            (got,) = rolled(x).values()
            torch.testing.assert_close(got, module(x), rtol=0, atol=fixed("float32"))


class Step(nn.Module):
    """One step of a stack of cells that looks ids up, with a loop of its own over the layers, as a cached language model has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, SIZE)
        self.cells = nn.ModuleList(nn.GRUCell(SIZE, SIZE) for _ in range(2))

    def forward(self, ids: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        value, states = self.table(ids[:, None])[:, 0], [first.clone(), second.clone()]
        for n, cell in enumerate(self.cells):
            value = states[n] = cell(value, states[n])
        return value, *states


def test_a_step_of_layers_that_looks_ids_up_streams_from_zeros() -> None:
    torch.manual_seed(0)
    step, example = Step().eval(), (torch.randint(9, (2,)), torch.zeros(2, SIZE), torch.zeros(2, SIZE))
    call = find_axes(step, Example.of(step, example, None, "auto"), None, 0)
    module, drawn = over_time(step, call, {"first": "output_1", "second": "output_2"}, None)
    with torch.no_grad():
        call = find_axes(module, Example.of(module, drawn, None, "auto"), None, 0)
        rolled = roll(module, call, find_operators(module, call, 0), 0)
        assert rolled is not None
        (loop,) = rolled.loops
        assert loop.layer is not None and loop.layer.cell.starts is not None  # else it would be batch only
        ids = torch.randint(9, (3, 17))
        for got, wanted in zip(rolled(ids).values(), module(ids).values(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=fixed("float32"))
        found = trace(rolled, call, Operators([]), lift_lengths=False, output_names=None, seed=0)
    assert [str(value.name) for value in found.model.graph.inputs] == ["ids"]
