"""``pad_packed_sequence(total_length=...)``: as many steps as there are, some more, or always so many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import InputError
from tests.export.rolled import TOLERANCE

STEPS = 8  # of the example


class Padded(nn.Module):
    def __init__(self, total: Callable[[Tensor], Any], padding: float, *, batch_first: bool, flat: bool) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(4, 3, batch_first=batch_first), nn.Linear(3 * STEPS if flat else 3, 2)
        self.total, self.padding, self.batch_first, self.flat = total, padding, batch_first, flat

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        y, _ = pad_packed_sequence(
            self.layer(packed)[0],
            batch_first=self.batch_first,
            padding_value=self.padding,
            total_length=self.total(x if self.batch_first else x.transpose(0, 1)),
        )
        return self.head(y.flatten(1) if self.flat else y)


@given(
    more=st.integers(0, 5),
    fixed=st.booleans(),
    padding=st.sampled_from([0.0, -1.5]),
    batch_first=st.booleans(),
    full=st.booleans(),
    flat=st.booleans(),
    steps=st.integers(1, STEPS),
)
@settings(max_examples=4)
def test_each_total_length(
    more: int,
    fixed: bool,
    padding: float,
    batch_first: bool,
    full: bool,
    flat: bool,
    steps: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    flat, more = (True, 0) if flat and fixed and batch_first else (False, more)
    module = Padded(
        lambda x: STEPS + more if fixed else x.shape[1] + more, padding, batch_first=batch_first, flat=flat
    ).eval()

    def draw(rows: int, steps: int, full: bool = False) -> tuple[Tensor, Tensor]:
        x, lengths = torch.randn(rows, steps, 4), torch.randint(1, steps + 1, (rows,))
        lengths[0] = steps
        return x if batch_first else x.transpose(0, 1), torch.full((rows,), steps) if full else lengths

    report = export(module, tmp_path_factory.mktemp("total") / "model.onnx", draw(3, STEPS, full))
    model, call = load(report.path), draw(2, steps)
    assert model.signature.axis("time").maximum == (STEPS + more if fixed else None)
    with torch.no_grad():
        right = module(*call).numpy()
    got = model.run(call[0].numpy(), lengths=call[1].numpy())
    assert got.shape == right.shape
    if not fixed:  # behind the end of a row, run gives zeros
        rows = [(row, slice(n)) if batch_first else (slice(n), row) for row, n in enumerate(call[1].tolist())]
        got, right = (np.concatenate([own[row] for row in rows]) for own in (got, right))
    np.testing.assert_allclose(got, right, **TOLERANCE)
    if fixed:
        with pytest.raises(InputError, match=f"at most {STEPS + more}"):
            model.run(draw(1, STEPS + more + 1)[0].numpy())
