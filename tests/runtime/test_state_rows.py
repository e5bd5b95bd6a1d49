"""Rows of states against a dictionary: whatever is allocated, grown, released and written, nobody reads another's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime.streaming.state_rows import SelectedRows, StateBlocks, StateRows
from tests.runtime.data import model
from tests.runtime.files import Spec

LAYOUT = model(Spec(lengths=True, learned=True, last=True, speaker=True)).engine.layout
STARTS = [state.initial for state in LAYOUT.states]


def states(value: int) -> list[np.ndarray]:
    return [np.full(start.shape, value, start.dtype) for start in STARTS]


@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.lists(st.sampled_from(["new", "learned", "release", "write", "scatter", "keep"]), max_size=20),
    st.randoms(use_true_random=False),
)
def test_each_row_holds_what_was_written_to_it(streams: int, width: int, actions: list[str], random: object) -> None:
    rows = StateRows(LAYOUT, streams, width=width)
    held: dict[int, list[np.ndarray]] = {}
    for number, action in enumerate(actions):
        some = list(held)[:2]
        if action in ("new", "learned"):
            given_states = states(number) if action == "new" else None
            row = rows.allocate(given_states)
            assert row % width == 0 and row not in held
            held[row] = given_states or STARTS
        elif action == "release" and some:
            rows.release(some[0])
            del held[some[0]]
        elif action == "write" and some:
            rows.write(some[0], states(number))
            held[some[0]] = states(number)
        elif action == "scatter" and some:
            rows.scatter(np.array(some), [np.stack([part, part][: len(some)]) for part in states(number)])
            held |= {row: states(number) for row in some}
        elif action == "keep":
            rows.keep(held)
        assert len(rows) == len(held)
        for row, wanted in held.items():
            for read, view, expected in zip(rows.read(row), rows.views(row), wanted, strict=True):
                np.testing.assert_array_equal(read, expected)
                np.testing.assert_array_equal(view, expected[None])
    gathered = rows.gather(np.array(list(held), np.intp))
    for place, wanted in enumerate(held.values()):
        for array, expected in zip(gathered, wanted, strict=True):
            np.testing.assert_array_equal(array[place], expected)


def test_rows_in_several_blocks_are_gathered_and_written_as_one() -> None:
    """Two streams of one block, one of another: the first rows are read, the second ones written, each its own."""
    first, second = StateRows(LAYOUT, 2, width=2), StateRows(LAYOUT, 1, width=2)
    places = [(block, block.allocate(states(number))) for number, block in enumerate((first, second, first), 1)]
    for chosen in (places, [places[0], places[2]]):
        selected = SelectedRows(*zip(*chosen, strict=True))
        gathered = selected.gather()
        wanted = [np.stack(column) for column in zip(*(block.read(row) for block, row in chosen), strict=True)]
        for array, expected in zip(gathered, wanted, strict=True):
            np.testing.assert_array_equal(array, expected)
        selected.scatter_other([10 + array for array in gathered])
        for block, row in chosen:
            for before, after in zip(block.read(row), block.read(row + 1), strict=True):
                np.testing.assert_array_equal(after, 10 + before)


def test_blocks_give_each_stream_two_rows_of_its_own() -> None:
    blocks = StateBlocks(LAYOUT)
    taken = [blocks.take() for _ in range(300)]  # more than the first block holds
    assert len({(id(block), row) for block, row in taken}) == 300 and len({id(block) for block, _ in taken}) == 2
    assert all(row % 2 == 0 for _, row in taken)
    first = taken[0][0]
    assert len(first) == 256
    for block, row in taken:
        block.release(row)
    assert len(first) == 0 and blocks.take()[0] is taken[-1][0], "the newest block, the largest, is filled first"
