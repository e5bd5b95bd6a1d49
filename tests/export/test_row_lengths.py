"""Lengths that code takes one by one, as numbers of Python: the file has masks in their place, and PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from rnncore.conversion import convert_plain_layers
from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import find_operators
from rnncore.export.tracing.rolling.program import roll
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE

WIDTH, SIZE = 5, 6
Numbers = Callable[[Tensor], list[int]]
NUMBERS: dict[str, Numbers] = {
    "tolist": lambda lengths: lengths.tolist(),
    "int": lambda lengths: [int(n) for n in lengths],
    "item": lambda lengths: [n.item() for n in lengths],
    "tensors": lambda lengths: list(lengths),
    "numpy": lambda lengths: lengths.cpu().numpy(),
    "index": lambda lengths: [lengths[b] for b in range(len(lengths))],
    "less": lambda lengths: [int(n) + 1 for n in lengths - 1],
}


def _filled(y: Tensor, numbers: list[int]) -> Tensor:
    mask = torch.zeros(y.shape[:2])
    for b, n in enumerate(numbers):
        mask[b, :n] = 1
    return y * mask[..., None]


def _tails(y: Tensor, numbers: list[int]) -> Tensor:
    mask = torch.ones(y.shape[0], y.shape[1], dtype=torch.bool)
    for b in range(y.shape[0]):
        mask[b, numbers[b] :] = False
    return y.masked_fill(~mask.unsqueeze(-1), -1.0)


def _zeroed(y: Tensor, numbers: list[int]) -> Tensor:
    y = y * 2
    for b, n in enumerate(numbers):
        y[b, n:, :] = 0
    return y


def _narrowed(y: Tensor, numbers: list[int]) -> Tensor:
    mask = torch.BoolTensor(y.size()).fill_(0)
    for b, n in enumerate(numbers):
        n = int(n)
        if mask[b].size(0) - n > 0:
            mask[b].narrow(0, n, mask[b].size(0) - n).fill_(1)
    return y.masked_fill(mask, 0)


def _listed(y: Tensor, numbers: list[int]) -> Tensor:
    steps = y.shape[1]
    return y * torch.tensor([[1.0] * int(n) + [0.0] * (steps - int(n)) for n in numbers])[:, :, None]


def _array(y: Tensor, numbers: list[int]) -> Tensor:
    mask = np.zeros((y.shape[0], y.shape[1]), np.float32)
    for b, n in enumerate(numbers):
        mask[b, :n] = 1
    return y * torch.from_numpy(mask).unsqueeze(2)


def _last(y: Tensor, numbers: list[int]) -> Tensor:
    return torch.stack([y[b, n - 1] for b, n in enumerate(numbers)])


def _mean(y: Tensor, numbers: list[int]) -> Tensor:
    return torch.stack([y[b, :n].mean(0) for b, n in enumerate(numbers)])


def _largest(y: Tensor, numbers: list[int]) -> Tensor:
    return torch.stack([torch.max(y[b, :n], dim=0)[0] for b, n in enumerate(numbers)])


def _attended(y: Tensor, numbers: list[int]) -> Tensor:
    found = []
    for b in range(len(numbers)):
        own = y[b, : numbers[b]]
        found.append((torch.softmax(own, dim=0) * torch.tanh(own)).sum(dim=0, keepdim=True))
    return torch.cat(found)


def _padded(y: Tensor, numbers: list[int]) -> Tensor:
    return pad_sequence([torch.sigmoid(y[b, :n]) for b, n in enumerate(numbers)], batch_first=True)


USES = {
    **{"filled": _filled, "tails": _tails, "zeroed": _zeroed, "narrowed": _narrowed, "listed": _listed},
    **{"array": _array, "last": _last, "mean": _mean, "largest": _largest, "attended": _attended, "padded": _padded},
    "none": lambda y, numbers: y,
}


@dataclass(frozen=True)
class Spelling:
    """numbers: how they are had.  layer: whether the layer packs with them, runs on each row, or on all.  use: of its answer."""

    numbers: str
    layer: str
    use: str


SPELLINGS = st.builds(
    Spelling,
    numbers=st.sampled_from(list(NUMBERS)),
    layer=st.sampled_from(["all", "packed", "each row"]),
    use=st.sampled_from(list(USES)),
).filter(lambda spelling: spelling.layer != "all" or spelling.use != "none")


class Lengths(nn.Module):
    """(x [batch, time, WIDTH], lengths [batch]) -> [batch, ...], as ``spelling`` says."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        self.layer, self.head = nn.GRU(WIDTH, SIZE, batch_first=True), nn.Linear(SIZE, 3)

    def _layer(self, x: Tensor, numbers: list[int]) -> Tensor:
        match self.spelling.layer:
            case "all":
                return self.layer(x)[0]
            case "packed":
                packed = pack_padded_sequence(x, numbers, batch_first=True, enforce_sorted=False)
                return pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]
        found = torch.zeros(x.shape[0], x.shape[1], SIZE)
        for b, n in enumerate(numbers):
            y, _ = self.layer(x[b : b + 1, :n])
            found[b, :n] = y[0]
        return found

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        numbers = NUMBERS[self.spelling.numbers](lengths)
        return USES[self.spelling.use](self.head(self._layer(x, numbers)), numbers)


@settings(max_examples=50, phases=[Phase.explicit, Phase.generate])
@given(spelling=SPELLINGS, seed=st.integers(0, 2**16))
def test_numbers_of_rows_become_masks(spelling: Spelling, seed: int) -> None:
    torch.manual_seed(seed)
    module = Lengths(spelling).eval()
    example = (torch.randn(3, 7, WIDTH), torch.tensor([7, 5, 2]))
    with torch.no_grad():
        call = find_axes(module, Example.of(module, example, None, "auto"), None, seed)
        plain = convert_plain_layers(copied(module))
        program = roll(plain, call, find_operators(plain, call, seed), seed)
        assert program is not None
        for time, ends in ((7, [7, 5, 2]), (6, [6]), (9, [4, 9, 8, 9, 3]), (8, [8, 8])):
            x, lengths = torch.randn(len(ends), time, WIDTH), torch.tensor(ends)
            (got,) = program(x, lengths).values()
            torch.testing.assert_close(got, module(x, lengths), **TOLERANCE)


@pytest.mark.parametrize(
    "spelling",
    [Spelling("tolist", "packed", "last"), Spelling("index", "all", "narrowed"), Spelling("int", "each row", "mean")],
    ids=str,
)
def test_the_file_takes_lengths(spelling: Spelling, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Lengths(spelling).eval()
    report = export(module, tmp_path / "model.onnx", (torch.randn(3, 7, WIDTH), torch.tensor([7, 5, 2])))
    model = load(report.path)
    rows = [torch.randn(n, WIDTH) for n in (4, 9, 6)]
    got = model.run([row.numpy() for row in rows])
    with torch.no_grad():
        for row, answer in zip(rows, got, strict=True):
            wanted = module(row[None], torch.tensor([len(row)]))[0]
            np.testing.assert_allclose(answer, wanted.numpy(), **TOLERANCE)
