"""How pushes of different lengths share calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime.batching.buckets import buckets, quickest
from rnncore.runtime.pool.slices import PADDING_BUDGET, plan_slice, plan_whole

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30)


def padding(lengths: list[int], steps: int) -> tuple[int, int]:
    real = sum(min(n, steps) for n in lengths)
    return steps * len(lengths) - real, real


@given(LENGTHS)
def test_slices_without_padding_waste_nothing(remaining: list[int]) -> None:
    chosen, steps = plan_slice(remaining, paddable=False)
    assert chosen and all(remaining[i] >= steps for i in chosen)
    if steps == 0:
        assert chosen == [i for i, n in enumerate(remaining) if n == 0]
    else:
        assert chosen == list(range(len(remaining)))


@given(LENGTHS)
def test_slices_with_padding_keep_to_the_budget_and_finish_somebody(remaining: list[int]) -> None:
    chosen, steps = plan_slice(remaining, paddable=True)
    assert chosen == list(range(len(remaining)))
    assert steps in remaining
    longer = sorted({n for n in remaining if n > steps})
    padded, real = padding(remaining, steps)
    smallest = min((n for n in remaining if n > 0), default=0)
    assert padded <= PADDING_BUDGET * real or steps == smallest
    if longer:
        padded, real = padding(remaining, longer[0])
        assert padded > PADDING_BUDGET * real, "one more length would have fitted"


@given(LENGTHS, st.booleans())
def test_whole_chunks_serve_the_first_within_the_budget(steps_of: list[int], paddable: bool) -> None:
    chosen, steps = plan_whole(steps_of, paddable=paddable)
    assert chosen[0] == 0 and steps == steps_of[0]
    assert len(set(chosen)) == len(chosen)
    padded, real = padding([steps_of[i] for i in chosen], steps)
    assert all(steps_of[i] <= steps for i in chosen)
    assert padded <= (PADDING_BUDGET * real if paddable else 0)


@given(LENGTHS, st.integers(1, 8), st.sampled_from([0.0, 0.1, 0.25, 3.0]))
def test_buckets_hold_everybody_once_within_the_budget(lengths: list[int], batch_size: int, budget: float) -> None:
    groups = buckets(lengths, batch_size=batch_size, padding_budget=budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        own = [lengths[i] for i in group]
        assert len(group) <= batch_size
        padded, real = padding(own, max(own))
        assert padded <= budget * real
        assert (0 in own) == (max(own) == 0)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_few_sequences_share_calls_where_that_is_quicker(lengths: list[int]) -> None:
    """Groups of neighbours by length, those without steps apart; sequences far longer than the next one alone."""
    groups = quickest(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    owns = [[lengths[i] for i in group] for group in groups]
    assert [n for own in owns for n in own] == sorted(lengths, reverse=True)
    for own in owns:
        assert (0 in own) == (max(own) == 0)
        if len(lengths) <= 32 and len(own) > 1 and own[0]:
            # At most what they take one by one, by what padded and equal rows cost in steps of one sequence alone.
            call, step = (2.5, 0.7) if own[0] == own[-1] else (4, 1.05)
            assert call + own[0] * (step + 0.28 * len(own)) <= sum(2.5 + n for n in own) + 1e-9
    if max(lengths) and len(lengths) <= 32:
        assert len(quickest([lengths[0] or 1] * len(lengths))) == 1, "equal lengths go together"


def test_three_of_very_different_lengths_go_alone() -> None:
    assert quickest([5, 100, 30]) == [[1], [2], [0]]
    assert quickest([12, 1, 1]) == [[0], [1, 2]], "so short that padding costs more than a call"
    assert quickest([19, 0, 20, 18]) == [[2, 0, 3], [1]]
