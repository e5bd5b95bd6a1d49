"""Numbers that a file names by a seed: the same everywhere, and nothing else than the page says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.format.drawn import Drawn
from rnncore.runtime.format.golden import Golden

M = (1 << 128) - 1


def words(seed: int, count: int) -> list[int]:
    """PCG64 written out: the state by 128-bit arithmetic, the output by xor of its halves and a rotation."""
    inner = np.random.PCG64(seed).state["state"]  # what SeedSequence makes of the seed
    state, step = inner["state"], inner["inc"]
    found = []
    for _ in range(count):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + step) & M
        folded, turn = (state >> 64) ^ (state & (1 << 64) - 1), state >> 122
        found.append(((folded >> turn) | (folded << (64 - turn) % 64)) & (1 << 64) - 1)
    return found


@given(st.integers(0, 2**40), st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_numbers_are_those_of_the_documented_algorithm(seed: int, shape: list[int]) -> None:
    raw = words(seed, int(np.prod(shape)))
    floats = Drawn(seed, "float32", tuple(shape), -2.0, 5.0).array()
    wanted = [np.float32(-2.0 + 7.0 * ((word >> 11) / 2.0**53)) for word in raw]
    assert floats.dtype == np.float32 and floats.shape == tuple(shape) and floats.ravel().tolist() == wanted
    whole = Drawn(seed, "int64", tuple(shape), 3, 9).array()
    assert whole.ravel().tolist() == [3 + (word >> 11) % 7 for word in raw]
    assert Drawn(seed, "bool", tuple(shape), 0, 1).array().ravel().tolist() == [bool(word >> 63) for word in raw]


def test_the_stream_does_not_change() -> None:
    """Numbers that stand in files."""
    assert Drawn(7, "int64", (6,), 0, 999).array().tolist() == [529, 493, 759, 572, 762, 636]


def test_round_trip() -> None:
    drawn = Drawn(3, "float64", (2, 3), -1.5, 1.5)
    assert Drawn.from_data(drawn.to_data()) == drawn


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"dtype": "object"},
        {"dtype": "complex64"},
        {"shape": [1 << 20, 1 << 20]},
        {"shape": [-1]},
        {"low": "x"},
    ],
)
def test_what_a_file_may_not_ask_for(change: dict[str, object]) -> None:
    drawn = {**Drawn(3, "int64", (2, 3), 0, 9).to_data(), **change}
    case = {
        "kind": "whole",
        "batch": 2,
        "time": 3,
        "lengths": None,
        "chunks": None,
        "inputs": {"x": drawn},
        "outputs": {},
    }
    text = json.dumps({"measure": "max", "tolerance": 1e-4, "cases": [case], "left_out": []})
    with pytest.raises(ModelFileError, match=r"rnncore\.golden in the file cannot be read|limits\.golden_bytes allows"):
        Golden.from_json(text)
