"""Which examples go into which batch: shuffled by a seed, of like lengths, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

import numpy as np

_MOST_BATCHES_SORTED = 32  # together; more would save little padding and make batches too much alike


def example_length(example: Any) -> int:
    """Time steps of an example, guessed: of an array its first axis, of a tuple, dict or dataclass its longest part.

    Text and lists count their entries, and so do tuples of plain numbers; anything else counts as 0.
    """
    shape = getattr(example, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    if is_dataclass(example) and not isinstance(example, type):
        return max((example_length(getattr(example, field.name)) for field in fields(example)), default=0)
    if isinstance(example, Mapping):
        return max((example_length(part) for part in example.values()), default=0)
    if isinstance(example, tuple):
        if all(isinstance(part, int | float) for part in example):
            return len(example)
        return max(map(example_length, example))
    return len(example) if isinstance(example, Sequence) else 0


def example_lengths(examples: Sequence[Any], length: Callable[[Any], int] | None) -> np.ndarray:
    """Length of each example, int64 [examples]; ``length`` says which, :func:`example_length` unless given."""
    count = length or example_length
    return np.fromiter((count(examples[i]) for i in range(len(examples))), np.int64, len(examples))


def shuffled_batches(lengths: np.ndarray, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Every example once, as index arrays of up to ``batch``, in an order that depends on seed and epoch alone.

    Examples are shuffled, sorted by length within some batches' worth of neighbours, and cut into batches whose sizes
    differ by one at most; then the batches are shuffled.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = batch * max(2, min(_MOST_BATCHES_SORTED, len(lengths) // (4 * batch)))
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        order[start : start + pool] = part[np.argsort(lengths[part], kind="stable")]
    batches = evenly_cut(order, batch)
    return [batches[i] for i in random.permutation(len(batches))]


def grouped_batches(
    labels: Sequence[Hashable], lengths: np.ndarray, batch: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Every example once, no example without another of its label, in about as many batches as otherwise.

    The examples of a label are shuffled and cut into pairs, one of them with a third where their number is odd; pairs are
    shuffled, sorted by length within neighbours and never cut, so that a batch may have two examples more or fewer than
    another.  A label with one example only has no pair.  Pairs lie side by side in a batch.

    Losses that compare the examples of a batch need it: with 200 labels of two examples each, 14 of 400 examples met their
    like in random batches of 16.
    """
    random = np.random.default_rng([seed, epoch])
    by_label: dict[Hashable, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(label, []).append(index)
    pairs = [pair for members in by_label.values() for pair in _pairs(random.permutation(members))]
    order = random.permutation(len(pairs))
    count = min(-(-len(labels) // batch), len(pairs))
    pool = max(1, len(pairs) // count) * max(2, min(_MOST_BATCHES_SORTED, count // 4))
    longest = np.array([lengths[pair].max() for pair in pairs])
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        order[start : start + pool] = part[np.argsort(longest[part], kind="stable")]
    batches = _filled([pairs[i] for i in order], count)
    return [batches[i] for i in random.permutation(len(batches))]


def _pairs(members: np.ndarray) -> list[np.ndarray]:
    return np.array_split(members, max(1, len(members) // 2))


def _filled(groups: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """``groups`` in their order, joined into ``count`` batches of about the same number of examples, none of them empty."""
    sizes = np.array([len(group) for group in groups])
    middles = np.cumsum(sizes) - sizes / 2
    number = np.arange(1, count)
    cuts = np.searchsorted(middles, number * sizes.sum() / count)
    cuts = np.maximum.accumulate(np.maximum(cuts, number) - number) + number
    cuts = np.minimum(cuts, len(groups) - count + number)
    return [np.concatenate(groups[start:end]) for start, end in pairwise([0, *cuts.tolist(), len(groups)])]


def sorted_batches(lengths: np.ndarray, batch: int) -> list[np.ndarray]:
    """Every example once, shortest first."""
    return evenly_cut(np.argsort(lengths, kind="stable"), batch)


def evenly_cut(order: np.ndarray, batch: int) -> list[np.ndarray]:
    """``order`` in as few pieces of up to ``batch`` as possible, their sizes as equal as possible: no tiny last batch."""
    return np.array_split(order, -(-len(order) // batch))
