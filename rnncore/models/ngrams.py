"""``Ngrams``: counted n-grams as a layer of tables, which streams as any causal layer does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rnncore.runtime.errors import InputError
from rnncore.text.kneser_ney import NgramLevel

_INTEGERS = (torch.uint8, torch.int16, torch.int32)
_LEAST_BACKOFF = 1e-9  # of a context whose counts leave nothing
_SEED = 19  # of the numbers that contexts are hashed with; those of a file stand in the file


@dataclass(frozen=True)
class NgramSizes:
    """What fixes the tables of :class:`Ngrams` except the numbers in them.

    vocabulary: number of tokens.
    reach: tokens that the longest context has.
    contexts, entries: how many of both there are, the empty context left out.
    buckets, deepest: how many lists the contexts are sorted into, and the longest of them.
    widest: most successors of a context.
    """

    vocabulary: int
    reach: int
    contexts: int
    entries: int
    buckets: int
    deepest: int
    widest: int


class Ngrams(nn.Module):
    r"""The distribution of the next token by the last tokens alone, from the tables of :func:`rnncore.text.count_ngrams`.

    .. math:: P_k(w) = m_k(w) + b_k P_{k-1}(w), \quad P_{-1}(w) = 1 / V

    with masses m and backoff b of the context of k tokens; a context that the tables lack has m = 0, b = 1.  Nothing in it
    is a loop: all steps are looked up at once.  A context is found by its 64-bit hash, the sum of its tokens times fixed random
    odd numbers: one list of the table is compared with it.  That an unknown context has the hash of a known one is left to
    chance, of about 2^-64 for each pair.
    """

    factors: Tensor
    salts: Tensor
    buckets: Tensor
    hashes: Tensor
    first: Tensor
    log_backoff: Tensor
    tokens: Tensor
    masses: Tensor
    unigrams: Tensor

    def __init__(self, sizes: NgramSizes) -> None:
        super().__init__()
        self.sizes = sizes
        # What is read beyond the last list is not used, but must be there.
        contexts, entries = sizes.contexts + 1 + sizes.deepest, sizes.entries + sizes.widest
        small = next(t for t in _INTEGERS if torch.iinfo(t).max >= sizes.vocabulary - 1)
        tables = {
            "factors": ((sizes.reach,), torch.int64),
            "salts": ((sizes.reach,), torch.int64),
            "buckets": ((sizes.buckets, 1), torch.int32),
            "hashes": ((contexts, 1), torch.int64),
            "first": ((contexts + 1, 1), torch.int32),
            "log_backoff": ((contexts, 1), torch.float32),
            "tokens": ((entries, 1), small),
            "masses": ((entries, 1), torch.float32),
            "unigrams": ((sizes.vocabulary + 1,), torch.float32),
        }
        for name, (shape, dtype) in tables.items():
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))

    @classmethod
    def of(cls, levels: Sequence[NgramLevel], vocabulary_size: int) -> Ngrams:
        """The tables of ``levels``, whose contexts have 0, 1, 2 ... tokens."""
        if len(levels) < 2:
            raise InputError("there are no n-grams of two tokens: count at least contexts of one token, order 2")
        return _filled(levels, vocabulary_size)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(probabilities of the next token [batch, time, vocabulary], tokens of the longest known context [batch, time]).

        Args:
            ids: int64 [batch, time].
        """
        contexts = self._find(ids)
        log_backoff = functional.embedding(contexts, self.log_backoff)
        total = log_backoff.sum(-2, keepdim=True)
        weights = torch.exp(total - log_backoff.cumsum(-2))  # what all longer contexts leave to each
        probabilities = torch.exp(total).squeeze(-1) * self.unigrams
        tokens, masses = self._successors(contexts)
        probabilities = probabilities.scatter_add(-1, tokens.flatten(2), (masses * weights).flatten(2))
        longest = ((contexts > 0).to(torch.int64) * torch.arange(1, self.sizes.reach + 1)).amax(-1)
        return probabilities[..., :-1], longest

    def _find(self, ids: Tensor) -> Tensor:
        """Number of the context of every length, int64 [batch, time, reach]; 0 for those that the tables lack."""
        reach = self.sizes.reach
        # What pads is no token, so that no context reaches beyond the beginning.
        padded = functional.pad(ids, (reach - 1, 0), value=self.sizes.vocabulary).unsqueeze(-1)
        latest_first = [padded[:, reach - 1 - back : -back or None] for back in range(reach)]
        hashes = (torch.cat(latest_first, -1) * self.factors).cumsum(-1) + self.salts
        bucket = functional.embedding(hashes % self.sizes.buckets, self.buckets)
        places = bucket.to(torch.int64) + torch.arange(self.sizes.deepest)
        found = functional.embedding(places, self.hashes).squeeze(-1) == hashes.unsqueeze(-1)
        return (found.to(torch.int64) * places).amax(-1)

    def _successors(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Of each context [..., widest]; beyond the end of its list the token is none."""
        first = functional.embedding(contexts, self.first)
        places = first.to(torch.int64) + torch.arange(self.sizes.widest)
        tokens = functional.embedding(places, self.tokens).squeeze(-1).to(torch.int64)
        masses = functional.embedding(places, self.masses).squeeze(-1)
        valid = places < functional.embedding(contexts + 1, self.first)
        return torch.where(valid, tokens, self.sizes.vocabulary), masses


def _filled(levels: Sequence[NgramLevel], vocabulary_size: int) -> Ngrams:
    empty, *longer = levels
    random = np.random.default_rng(_SEED)
    factors, salts = (random.integers(-(2**62), 2**62, len(longer)) * 2 + 1 for _ in range(2))
    hashes = np.concatenate([_hash(level.contexts, factors, salts) for level in longer])
    buckets = (len(hashes) // 2) | 1
    order = np.argsort(hashes % buckets, kind="stable")
    fill = np.bincount(hashes % buckets, minlength=buckets)
    counts = np.concatenate([np.diff(level.first) for level in longer])
    widest = max(level.widest for level in longer)
    sizes = NgramSizes(vocabulary_size, len(longer), len(hashes), int(counts.sum()), buckets, int(fill.max()), widest)
    model = Ngrams(sizes)
    entries = _entries_in(order, counts)
    unigrams = np.full(vocabulary_size + 1, empty.backoff[0] / vocabulary_size)
    unigrams[empty.tokens] += empty.masses
    backoff = np.maximum(np.concatenate([level.backoff for level in longer]), _LEAST_BACKOFF)
    ends = np.cumsum(counts[order])
    contents: dict[str, tuple[int, NDArray[np.generic]]] = {
        "factors": (0, factors),
        "salts": (0, salts),
        "buckets": (0, 1 + np.concatenate(([0], np.cumsum(fill)[:-1]))),
        "hashes": (1, hashes[order]),  # context 0 is the one that the tables lack
        "first": (2, ends),
        "log_backoff": (1, np.log(backoff)[order]),
        "tokens": (0, np.concatenate([level.tokens for level in longer])[entries]),
        "masses": (0, np.concatenate([level.masses for level in longer])[entries]),
        "unigrams": (0, unigrams),
    }
    for name, (start, values) in contents.items():
        buffer = model.get_buffer(name)
        buffer.flatten()[start : start + len(values)] = torch.from_numpy(values).to(buffer.dtype)
    return model


def _entries_in(order: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of all entries, list after list, when the lists come in ``order``."""
    starts = np.cumsum(counts) - counts
    own_starts = np.cumsum(counts[order]) - counts[order]
    return np.repeat(starts[order] - own_starts, counts[order]) + np.arange(counts.sum())


def _hash(contexts: NDArray[np.int64], factors: NDArray[np.int64], salts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Wraps around at 2^64, as the layer does."""
    length = contexts.shape[1]
    with np.errstate(over="ignore"):
        return (contexts[:, ::-1] * factors[:length]).sum(1) + salts[length - 1]
