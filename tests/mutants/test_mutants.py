"""The parity check sees: each planted fault must make it fail, and without the fault it must pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import rnncore
from tests.mutants.cell_faults import CELL_MUTANTS, Mutant
from tests.mutants.layer_faults import LAYER_MUTANTS
from tests.oracle.adapt import oracle_of
from tests.parity import assert_matches_oracle, map_state
from tests.strategies import randomize

MUTANTS = [*CELL_MUTANTS, *LAYER_MUTANTS]
EVERY = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def check(layer: rnncore.RecurrentLayer, reference: object, dtype: torch.dtype, seed: int) -> None:
    """What the real tests do to a layer: with and without lengths, with and without a given state."""
    random = np.random.default_rng(seed)
    x = torch.from_numpy(random.standard_normal((7, 13, 5))).to(dtype)
    lengths = torch.tensor([12, 0, 5, 1, 13, 13, 3])
    given = map_state(
        lambda s: torch.from_numpy(random.uniform(-1, 1, tuple(s.shape))).to(dtype), layer.initial_state(7, x)
    )
    for state in (None, given):
        assert_matches_oracle(layer, reference, x, state, lengths)
        assert_matches_oracle(layer, reference, x, state)


def healthy_and_faulty(mutant: Mutant, dtype: torch.dtype, seed: int) -> tuple[rnncore.RecurrentLayer, ...]:
    healthy = randomize(mutant.healthy().to(dtype), seed)
    faulty = copy.deepcopy(healthy)
    mutant.plant(faulty)
    return healthy, faulty


@DTYPES
@EVERY
def test_fault_is_seen(mutant: Mutant, dtype: torch.dtype) -> None:
    seed = 0 if dtype == torch.float64 else 1
    healthy, faulty = healthy_and_faulty(mutant, dtype, seed)
    reference = oracle_of(healthy)
    check(healthy, reference, dtype, seed)
    with pytest.raises(AssertionError, match="differs by"):
        check(faulty, reference, dtype, seed)


def test_names_are_unique() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) > 80
