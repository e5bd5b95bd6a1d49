"""What packs rows while a module is recorded, modules of full rows, and one step run over time."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.flat_packing import FlatPacker, Place, packer_of, packs
from rnncore.export.tracing.full_rows import lengths_of, of_full_rows, rows_stand_alone
from rnncore.export.tracing.observing import observing
from rnncore.export.tracing.one_step import is_one_step, over_time, states_from_zeros, with_fixed_states
from rnncore.export.tracing.packing import PaddedPacker, packing_by, packing_by_torch
from rnncore.runtime.errors import ExportError, InputError
from tests.tolerances import fixed

Pair = namedtuple("Pair", "left right")
CLOSE = {"rtol": 0, "atol": fixed("float32 same steps")}
X, LENGTHS = torch.randn(3, 5, 4), torch.tensor([2, 5, 4])


def found(module: nn.Module, example: Any, lengths: Any = "auto") -> Example:
    return find_axes(module, Example.of(module, example, None, lengths), None)


# ------------------------------------------------------------------------------------------------------------- packing
def pack() -> PackedSequence:
    return pack_padded_sequence(X, LENGTHS, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize("batch_first", [True, False])
def test_full_rows_lie_flat_as_torch_lays_them(batch_first: bool) -> None:
    packer, x = FlatPacker(), X if batch_first else X.transpose(0, 1)
    wanted = pack_padded_sequence(x, torch.full((3,), 5), batch_first)
    got = packer.pack(x, None, batch_first, True)
    assert torch.equal(got.data, wanted.data) and got.batch_sizes.tolist() == wanted.batch_sizes.tolist() == [3] * 5
    assert got.sorted_indices is None and packer.batch_of == {15: 3}
    free = packer.pack(x, None, batch_first, False)
    assert free.sorted_indices.tolist() == free.unsorted_indices.tolist() == [0, 1, 2]  # type: ignore[union-attr]
    y, lengths = packer.pad(got, batch_first, 7.0, None)
    assert torch.equal(y, x) and lengths.tolist() == [5, 5, 5]
    for layer in (nn.GRU(4, 6, batch_first=batch_first), nn.LSTM(4, 6, batch_first=batch_first)):
        start: Any = torch.ones(1, 3, 6) if isinstance(layer, nn.GRU) else None
        (y, *rest), last = packer.forward(layer, got, start)
        wanted_y, wanted_last = layer(wanted, start)
        torch.testing.assert_close(y, wanted_y.data, **CLOSE)
        torch.testing.assert_close(last, wanted_last, **CLOSE)
        assert rest[0].tolist() == [3] * 5


def test_slices_of_flat_rows_are_steps() -> None:
    packer = FlatPacker()
    packer.pack(X, None, True, True)
    data, one = torch.zeros(15, 4), torch.zeros(3, 4)
    cases: list[tuple[Tensor, tuple[Any, ...], Place | None]] = [
        *((data, (0, 3, 6), Place(3, 1)), (data, (0, None, 3), Place(3, 0)), (data, (0, 12, 15, 1), Place(3, 4))),
        *((data, (0, 2, 5), None), (data, (0, 3, 7), None), (data, (1, 3, 6), None), (data, (0, 3, 6, 2), None)),
        *((data, (0, 0, 16), None), (data, (0, -3, 0), None), (data, (0, 3), None), (data, (), None)),
        *((one, (0, 0, 3), Place(3, None)), (one, (0, 0, 2), None), (torch.zeros(4, 4), (0, 0, 4), None)),
        (torch.tensor(1.0), (0, 0, 0), None),
    ]
    for x, extent, place in cases:
        assert packer.place(x, extent) == place, extent


def test_padded_rows_stand_in_for_packed_ones() -> None:
    packer, listed = PaddedPacker(), PaddedPacker(listed=True)
    for batch_first in (True, False):
        x = X if batch_first else X.transpose(0, 1)
        got = packer.pack(x, LENGTHS, batch_first, False)
        assert torch.equal(got.data, X) and got.batch_sizes.tolist() == [2, 5, 4]
        y, lengths = packer.pad(got, batch_first, -1.0, 5)
        wanted, _ = pad_packed_sequence(pack(), batch_first, -1.0)
        assert torch.equal(y, wanted) and lengths.tolist() == [2, 5, 4]
        with packing_by(packer):
            assert torch.equal(pack_padded_sequence(x, LENGTHS, batch_first, False).data, X)
            with packing_by_torch():
                assert pack_padded_sequence(x, LENGTHS, batch_first, False).data.shape == (11, 4)
    assert listed.pack(X, [2, 5, 4], True, True).batch_sizes.tolist() == [2, 5, 4]
    with pytest.raises(ExportError, match=r"pack_padded_sequence got its lengths as a list, which would be frozen"):
        packer.pack(X, [2, 5, 4], True, True)
    y, _ = packer.pad(packer.pack(X, LENGTHS, True, True), True, -1.0, 7)
    assert torch.equal(y, pad_packed_sequence(pack(), True, -1.0, 7)[0])
    assert pack().data.shape == (11, 4)


def test_who_packs_and_with_what_is_seen() -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 6, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor, h: Tensor) -> Tensor:
            return self.gru(pack_padded_sequence(x, lengths.cpu() + 0, batch_first=True, enforce_sorted=False), hx=h)[1]

    module, h = Packs(), torch.zeros(1, 3, 6)
    with observing(module) as seen:
        module(X, LENGTHS, h)
    assert seen.packs.lengths[0].tolist() == [2, 5, 4] and not seen.packs.sorted
    assert (
        seen.lengths_among([("x", X), ("n", LENGTHS), ("m", LENGTHS + 1)]) == "n"
        and seen.lengths_among([("x", X)]) is None
    )
    with pytest.raises(ExportError) as caught:
        seen.lengths_among([("n", LENGTHS), ("m", LENGTHS.clone())])
    assert str(caught.value) == (
        "the module packs with the lengths of n and m; a file has one time axis and one input for its lengths: export the "
        "parts that read each of them as modules of their own"
    )
    assert seen.is_state(h) and not seen.is_state(h.clone()) and not module.gru._forward_pre_hooks
    assert not seen.packs.packed_with(LENGTHS.float()) and not seen.packs.packed_with(LENGTHS[None])
    assert packs(module, lambda: module(X, LENGTHS, h)) and not packs(module, lambda: None)
    assert isinstance(packer_of(nn.Module()), PaddedPacker)
    module.flat = True  # type: ignore[assignment]
    assert isinstance(packer_of(module), FlatPacker)


# ----------------------------------------------------------------------------------------------------------- full rows
class TakesLengths(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor, counts: Any = None) -> Tensor:
        return torch.stack([row[:n].sum(0) for row, n in zip(x, lengths.flatten().tolist(), strict=True)])


def test_lengths_of_full_rows_are_left_out() -> None:
    full = torch.full((3,), 5)
    for lengths in (full, full[:, None]):
        example = Example.of(
            TakesLengths(), {"x": X, "lengths": lengths}, None, "auto" if lengths.dim() == 1 else False
        )
        held = lengths_of(example)
        assert held == {"lengths": "time"}
        rows, given = of_full_rows(TakesLengths(), example, held, flat=True)
        assert list(given) == ["x"] and rows.flat and not rows.training and type(rows).__name__ == "TakesLengths"
        torch.testing.assert_close(rows(X), X.sum(1), **CLOSE)
        torch.testing.assert_close(rows(x=X[:, :2]), X[:, :2].sum(1), **CLOSE)
        assert not of_full_rows(TakesLengths(), example, held)[0].flat
    shorter = torch.tensor([4, 3, 2])
    assert lengths_of(Example.of(TakesLengths(), {"x": X, "lengths": shorter}, None, "auto")) == {}, "none is full"
    assert lengths_of(Example.of(TakesLengths(), {"x": X, "lengths": full[:, None].float()}, None, False)) == {}


class OfAllRows(TakesLengths):
    """What is behind the end of a row counts for the others."""

    def forward(self, x: Tensor, lengths: Tensor, counts: Any = None) -> Tensor:
        return super().forward(x, lengths) - x.mean((0, 1))


@pytest.mark.parametrize(("kind", "alone"), [(TakesLengths, True), (OfAllRows, False)])
def test_rows_that_end_early_get_what_they_get_alone_or_not(kind: type[TakesLengths], alone: bool) -> None:
    example = find_axes(kind(), Example.of(kind(), {"x": X, "lengths": LENGTHS}, None, "auto"), None, 0)
    held = lengths_of(example)
    assert held == {"lengths": "time"}, "the longest row is full"
    assert rows_stand_alone(kind(), example, held) == alone


# ------------------------------------------------------------------------------------------------------------ one step
class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return self.head(h), h


def test_a_step_runs_over_time() -> None:
    step, given = Step().eval(), (torch.randn(2, 4), torch.zeros(2, 6))
    example = found(step, given)
    assert is_one_step(example) and states_from_zeros(step, example) == {"h": "output_1"}
    module, drawn = over_time(step, example, {"h": "output_1"}, None)
    assert list(drawn) == ["x"] and drawn["x"].shape == (2, 6, 4) and torch.equal(drawn["x"][:, 0], given[0])
    assert (
        torch.equal(drawn["x"][:, 1], given[0].roll(1, 0)) and type(module).__name__ == "Step" and not module.training
    )
    h, wanted = torch.zeros(3, 6), []
    with torch.no_grad():
        for t in range(5):
            y, h = step(X[:, t], h)
            wanted.append(y)
        got = module(X)
    assert list(got) == ["output_0"] and torch.equal(got["output_0"], torch.stack(wanted, 1))
    named, _ = over_time(step, example, {"h": "state"}, ["y", "state"])
    assert list(named(x=X)) == ["y"]
    cell = nn.GRUCell(4, 6)
    alone, _ = over_time(cell, found(cell, given), {"hx": "output"}, None)
    assert alone(X)["output"].shape == (3, 5, 6), "a cell gives nothing but its states"


def test_steps_that_are_none_are_refused() -> None:
    step = Step().eval()
    example = found(step, (torch.randn(2, 4), torch.zeros(2, 6)))
    for states in ({"h": "output_7"}, {"z": "output_1"}):
        (name, output), *_ = states.items()
        with pytest.raises(InputError) as caught:
            over_time(step, example, states, None)
        says = f"states={{{name!r}: {output!r}}} pairs an input with an output; the inputs are ['x', 'h'], "
        assert str(caught.value) == f"{says}the outputs ['output_0', 'output_1']"
    with pytest.raises(InputError, match="one step of Step has no batch axis in any input but states"):
        over_time(step, example, {"h": "output_1", "x": "output_0"}, None)
    assert not is_one_step(found(nn.GRU(4, 6, batch_first=True), X))
    assert states_from_zeros(step, found(step, (torch.randn(2, 4), torch.ones(2, 6)))) == {}
    fixed_states = with_fixed_states(found(nn.GRU(4, 6, batch_first=True), X), ["input"])
    assert fixed_states.inputs[0].axes == ("batch", None, None)
