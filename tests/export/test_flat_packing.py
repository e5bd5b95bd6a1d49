"""Loops that people write over ``packed.data`` and ``batch_sizes`` become loops over time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.flat_packing import FlatPacker, Place
from tests.strategies import randomize
from tests.tolerances import fixed

Step = Callable[[Tensor, Any], Any]


def _shown(h: Any) -> Tensor:
    return h[0] if isinstance(h, tuple) else h


def _cut(h: Any, rows: Any) -> Any:
    return tuple(part[:rows] for part in h) if isinstance(h, tuple) else h[:rows]


def by_tensors(packed: PackedSequence, h: Any, step: Step) -> Tensor:
    place, out = 0, []
    for size in packed.batch_sizes:
        h = step(packed.data[place : place + size], _cut(h, size))
        place += size
        out.append(_shown(h))
    return torch.cat(out)


def by_numbers(packed: PackedSequence, h: Any, step: Step) -> Tensor:
    """With the last states kept row by row."""
    place, out, last = 0, [], _shown(h).clone()
    for size in packed.batch_sizes.tolist():
        h = step(packed.data[place : place + size], _cut(h, size))
        last[:size] = _shown(h)
        place += size
        out.append(_shown(h))
    return torch.cat(out, 0) + 0 * last.sum()


def by_split(packed: PackedSequence, h: Any, step: Step) -> Tensor:
    out = []
    for x in packed.data.split(packed.batch_sizes.tolist()):
        h = step(x, h)
        out.append(_shown(h))
    return torch.cat(out)


def backward(packed: PackedSequence, h: Any, step: Step) -> Tensor:
    place, out = packed.data.size(0), []
    for size in torch.flip(packed.batch_sizes, [0]):
        h = step(packed.data[place - size : place], h)
        place -= size
        out.append(_shown(h))
    return torch.cat(out[::-1])


SPELLINGS = {run.__name__: run for run in (by_tensors, by_numbers, by_split, backward)}
CELLS: dict[str, type[nn.RNNCellBase]] = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell, "RNN": nn.RNNCell}


class ByHand(nn.Module):
    def __init__(self, spelling: str, kind: str, ordered: bool, own_lengths: bool) -> None:
        super().__init__()
        self.run, self.ordered, self.own_lengths = SPELLINGS[spelling], ordered, own_lengths
        self.cell, self.front = CELLS[kind](4, 5), nn.Linear(4, 4)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            lengths = torch.tensor([x.shape[1]] * x.shape[0])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=self.ordered)
        packed = packed._replace(data=torch.relu(self.front(packed.data)))
        h: Any = x.new_zeros(x.shape[0], 5)
        h = (h, h) if isinstance(self.cell, nn.LSTMCell) else h
        y = self.run(packed, h, self.cell)
        return pad_packed_sequence(packed._replace(data=y), batch_first=True, total_length=x.shape[1])[0]


@settings(max_examples=8, phases=set(Phase) - {Phase.shrink})  # an export is slow
@given(
    spelling=st.sampled_from(sorted(SPELLINGS)),
    kind=st.sampled_from(sorted(CELLS)),
    ordered=st.booleans(),
    own_lengths=st.booleans(),
)
def test_it_is_a_loop_over_time(spelling: str, kind: str, ordered: bool, own_lengths: bool) -> None:
    module = randomize(ByHand(spelling, kind, ordered, own_lengths).eval(), 4)
    x = torch.randn(2, 7, 4)
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", (x, torch.tensor([7, 7])) if own_lengths else x)
        model = runtime.load(report.path)
    assert report.causal == (spelling != "backward")
    rows = [torch.randn(n, 4) for n in (11, 6, 6, 1)]
    with torch.no_grad():
        expected = [module(row[None], torch.tensor([len(row)]))[0].numpy() for row in rows]
    for got, want in zip(model.run([row.numpy() for row in rows]), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=fixed("float32"))
    if report.causal:
        stream = model.stream()
        got = np.concatenate([stream.push(rows[0][start : start + 3].numpy()) for start in range(0, 11, 3)])
        np.testing.assert_allclose(got, expected[0], atol=fixed("float32"))


def test_rows_that_end_early_in_the_example_are_read_as_full_ones(tmp_path: Path) -> None:
    module = ByHand("by_tensors", "GRU", False, True).eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 7, 4), torch.tensor([7, 5])))
    rows = [torch.randn(n, 4) for n in (8, 3)]
    for got, row in zip(runtime.load(report.path).run([row.numpy() for row in rows]), rows, strict=True):
        with torch.no_grad():
            want = module(row[None], torch.tensor([len(row)]))[0].numpy()
        np.testing.assert_allclose(got, want, atol=fixed("float32"))


def test_which_slices_are_steps() -> None:
    packer = FlatPacker()
    packed = packer.pack(torch.randn(3, 5, 2), torch.tensor([5, 5, 5]), True, True)
    assert packed.batch_sizes.tolist() == [3] * 5
    assert packer.place(packed.data, (0, 6, 9)) == Place(3, 2)
    assert packer.place(packed.data[:3], (0, 0, 3)) == Place(3, None)
    for extent in ((0, 5, 8), (0, 6, 10), (1, 0, 3), (0, 0, 9, 3), (0, 13, 16)):
        assert packer.place(packed.data, extent) is None
