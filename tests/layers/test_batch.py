"""Rows of a batch do not know of each other."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.parity import assert_same, depth_of, map_state, named
from tests.strategies import Case, cases


@given(cases(), st.randoms(use_true_random=False))
def test_batch_order_changes_no_answer(case: Case, random: object) -> None:
    module, x, state, lengths = case.build()
    order = list(range(x.shape[0]))
    random.shuffle(order)  # type: ignore[attr-defined]
    index = torch.tensor(order, dtype=torch.int64)
    with torch.no_grad():
        y, end = module(x, state, lengths)
        shuffled = module(
            x[index],
            None if state is None else map_state(lambda s: s[index], state),
            None if lengths is None else lengths[index],
        )
    want = named(y[index], map_state(lambda s: s[index], end))
    assert_same(named(*shuffled), want, x.dtype, "chunked", depth=depth_of(module), x=x)


@given(cases(batches=(7,)))
def test_one_row_is_a_batch_of_one(case: Case) -> None:
    module, x, state, lengths = case.build()
    with torch.no_grad():
        y, end = module(x, state, lengths)
        for row in (0, 4):
            one = slice(row, row + 1)
            alone = module(
                x[one],
                None if state is None else map_state(lambda s: s[one], state),  # noqa: B023
                None if lengths is None else lengths[one],
            )
            want = named(y[one], map_state(lambda s: s[one], end))  # noqa: B023
            assert_same(named(*alone), want, x.dtype, "chunked", depth=depth_of(module), x=x)
