"""The generators that a forward may draw from: whether it does, and what it answers to the most unusual draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNUSUAL = (0, 0x12DD9BB3)
"""Words of the Mersenne twister, which Python and NumPy share, that become 32 zeros and 32 ones.

Whoever draws a number to see whether it is below some share is told yes, however small that is, and no, however large.
"""
_WORDS = 128  # more could keep a method that draws until something fits drawing for ever


@dataclass(frozen=True)
class RandomState:
    """How far the generators that a forward may draw from have come."""

    of_torch: Tensor
    of_numpy: tuple[Any, ...]
    of_python: tuple[Any, ...]

    @classmethod
    def now(cls) -> RandomState:
        """As they are."""
        key = np.random.get_state(legacy=True)
        return cls(torch.get_rng_state(), (key[1].tobytes(), key[2]), random.getstate())  # type: ignore[index]

    def same(self, other: RandomState) -> bool:
        """Whether nothing was drawn between both."""
        return bool(torch.equal(self.of_torch, other.of_torch)) and self.same_but_torch(other)

    def same_but_torch(self, other: RandomState) -> bool:
        """Whether nothing was drawn between both that a program of torch would not show."""
        return self.of_numpy == other.of_numpy and self.of_python == other.of_python


def draws_random_numbers(call: Callable[[], Any], tries: int = 3) -> bool:
    """Whether ``call`` draws from a global generator each time; other threads may do so once in a while."""
    for _ in range(tries):
        before = RandomState.now()
        call()
        if before.same(RandomState.now()):
            return False
    return True


@contextmanager
def drawing(word: int) -> Iterator[None]:
    """Python and NumPy draw numbers made of 128 of this word of :data:`UNUSUAL`, then any, and are afterwards as they were."""
    of_python, of_numpy = random.getstate(), np.random.get_state(legacy=False)
    words = np.random.MT19937(1).state["state"]["key"]
    words[:_WORDS] = word
    try:
        random.setstate((3, (*map(int, words), 0), None))
        np.random.set_state(("MT19937", words, 0, 0, 0.0))
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
