"""Inputs that say which steps a row has are known by their name or their company, and drawn as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.masks import filling_of, masked_behind
from rnncore.runtime import load
from tests.tolerances import fixed

BOUND = {"rtol": 0, "atol": fixed("float32 two hosts")}
IDS = torch.tensor([[4, 7, 2, 9], [3, 1, 8, 5]])
ONES = torch.ones_like(IDS)
BEHIND = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("name", "mask", "filling"),
    [
        ("attention_mask", ONES, 1),
        ("attention_mask", BEHIND, 1),
        ("mask", BEHIND.bool(), 1),
        ("src_key_padding_mask", BEHIND == 0, 0),
        ("padding_mask", torch.zeros_like(IDS), 0),
        ("there", ONES, 1),  # beside ids
        ("there", BEHIND, None),  # two ids
        ("mask", torch.tensor([[0, 1, 0, 1]]), None),
        ("attention_mask", BEHIND.flip(1), None),  # padded in front
        ("mask", ONES.float(), 1),
        ("mask", BEHIND.float(), 1),
        ("mask", BEHIND.float()[:, :, None], 1),
        ("mask", BEHIND.float()[:, None, None], 1),
        ("mask", BEHIND.float()[:, :, None].expand(-1, -1, 3), None),  # of values, not of steps
        ("mask", 0.5 * BEHIND, None),
        ("mask", 0 * ONES.float(), None),  # added to scores, perhaps
        ("padding_mask", (BEHIND == 0).float(), None),
        ("there", ONES.float(), None),
        ("mask", IDS, None),
        ("ids", ONES[:1], None),
    ],
)
def test_what_is_a_mask(name: str, mask: Tensor, filling: int | None) -> None:
    assert filling_of(name, mask, {"ids": IDS, name: mask}) == filling


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self.table(ids) * mask.unsqueeze(-1)).sum(1)


@given(
    counts=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    filling=st.integers(0, 1),
    whole=st.sampled_from((torch.int64, torch.bool, torch.float32)),
    time_first=st.booleans(),
)
def test_masks_are_drawn_full_and_cut_behind_the_steps(
    counts: list[int], filling: int, whole: torch.dtype, time_first: bool
) -> None:
    filling = filling if whole != torch.float32 else 1
    both = ("batch", "time")  # what probing finds for floats, whose second axis is one of features by default
    given_axes = {"ids": both, "mask": both}
    example = Example.of(Masked(), (IDS, torch.full(IDS.shape, filling, dtype=whole)), given_axes, "auto")
    _, mask = example.draw({"batch": len(counts), "time": 6}, torch.Generator().manual_seed(0))
    assert mask.dtype == whole and bool((mask == filling).all())
    axes = (1, 0) if time_first else (0, 1)
    cut = masked_behind(mask.T if time_first else mask, torch.tensor(counts), filling, *axes)
    assert cut.dtype == whole
    for row, count in zip(cut.movedim(axes, (0, 1)), counts, strict=True):
        assert row.tolist() == [filling] * count + [1 - filling] * (6 - count)


class Last(nn.Module):
    """The state at the last step that a mask of floats has, as recommenders and knowledge tracing write it."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        states, _ = self.gru(x)
        last = (mask.sum(1) - 1).long().view(-1, 1, 1).expand(-1, 1, states.shape[2])
        return states.gather(1, last).squeeze(1)


@pytest.mark.parametrize("mask", [BEHIND.float(), ONES.float()], ids=["ragged", "full"])
def test_a_mask_of_floats_streams_and_tells_the_last_step(mask: Tensor, tmp_path: Path) -> None:
    module = Last().eval()
    export(module, tmp_path / "m.onnx", (torch.randn(2, 4, 3), mask))
    model = load(tmp_path / "m.onnx")
    x, longer = torch.randn(3, 6, 3), (torch.arange(6) < torch.tensor([[6], [1], [4]])).float()
    with torch.no_grad():
        expected = module(x, longer).numpy()
    np.testing.assert_allclose(model.run(x.numpy(), longer.numpy()), expected, **BOUND)
    assert model.causal


def test_a_list_of_tensors_is_several_arguments_unless_it_is_one() -> None:
    class Lists(nn.Module):
        def forward(self, parts: list[Tensor]) -> Tensor:
            return torch.cat(parts)

    assert bind(Masked(), [IDS, ONES]).arguments.keys() == {"ids", "mask"}
    assert bind(Lists(), [IDS, ONES]).arguments.keys() == {"parts"}
