"""Dropout along a sequence."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore.cells import GRUCell
from rnncore.layers import Recurrent, Stacked
from rnncore.layers.dropout import dropout
from tests.tolerances import fixed


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5)),
    rate=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    seed=st.integers(0, 99),
)
def test_a_row_loses_the_same_features_at_all_steps(shape: tuple[int, int, int], rate: float, seed: int) -> None:
    y = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.5
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = dropout(y, rate, True, variational=True)
    kept = found != 0
    assert bool((kept == kept[:, :1]).all())
    torch.testing.assert_close(found[kept], (y / (1 - rate))[kept], rtol=fixed("float32"), atol=fixed("float32"))
    assert torch.equal(dropout(y, rate, False, variational=True), y)


def test_rows_and_features_are_drawn_by_the_rate_each_for_itself() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept = dropout(torch.ones(300, 2, 200), 0.3, True, variational=True)[:, 0] != 0
    assert 41_400 < int(kept.sum()) < 42_600  # of 60,000, five deviations each way
    for counts, of in ((kept.sum(0), 300), (kept.sum(1), 200)):
        assert of * 0.5 < int(counts.min())
        assert int(counts.max()) < of * 0.9


def test_between_the_layers_of_a_stack() -> None:
    stack = Stacked([Recurrent(GRUCell(3, 6)), Recurrent(GRUCell(6, 4))], dropout=0.5, variational=True)
    seen: list[torch.Tensor] = []
    stack.layers[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    x = torch.randn(5, 9, 3)
    stack(x)
    stack.eval()(x)
    dropped, whole = (one != 0 for one in seen)
    assert bool(whole.all()) and not bool(dropped.all())
    assert bool((dropped == dropped[:, :1]).all())
