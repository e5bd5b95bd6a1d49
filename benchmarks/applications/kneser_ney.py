"""Modified Kneser-Ney n-grams of token ids (Chen and Goodman 1998), interpolated: what a language model has to beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

Gram = tuple[int, ...]


class KneserNey:
    """Counted in texts that begin after, and end with, ``eos``; probabilities of all of ``vocabulary`` tokens sum to 1."""

    def __init__(self, texts: Sequence[Sequence[int]], order: int, eos: int, vocabulary: int) -> None:
        self.order, self.eos, self.vocabulary = order, eos, vocabulary
        raw = [Counter[Gram]() for _ in range(order + 1)]
        for text in texts:
            tokens = (eos, *text, eos)
            for n in range(1, order + 1):
                raw[n].update(tokens[i - n + 1 : i + 1] for i in range(max(1, n - 1), len(tokens)))
        self._counts = [self._continued(raw, n) for n in range(order)] + [raw[order]]
        self._discounts = [_discounts(counts) for counts in self._counts]
        self._totals: list[dict[Gram, tuple[int, float]]] = []
        for counts, discounts in zip(self._counts, self._discounts, strict=True):
            totals: dict[Gram, tuple[int, float]] = {}
            for gram, count in counts.items():
                total, freed = totals.get(gram[:-1], (0, 0.0))
                totals[gram[:-1]] = (total + count, freed + discounts[min(count, 3)])
            self._totals.append(totals)

    def log_prob(self, text: Sequence[int]) -> float:
        """Natural-log probability of a whole text, its end included."""
        tokens = (self.eos, *text, self.eos)
        return float(sum(np.log(self.probability(tokens[:i], tokens[i])) for i in range(1, len(tokens))))

    def probability(self, before: Gram, token: int) -> float:
        """Of ``token`` after all of ``before``, which begins with ``eos``."""
        found = 1.0 / self.vocabulary
        for n in range(1, min(self.order, len(before) + 1) + 1):
            context = before[len(before) - n + 1 :]
            total, freed = self._totals[n].get(context, (0, 0.0))
            if total:
                count = self._counts[n].get((*context, token), 0)
                found = (count - self._discounts[n][min(count, 3)] + freed * found) / total
        return found

    def _continued(self, raw: Sequence[Counter[Gram]], n: int) -> Counter[Gram]:
        """How many different tokens stand before each n-gram; of those that begin a text, how often they do."""
        counts = Counter[Gram]()
        if n:
            counts.update(gram[1:] for gram in raw[n + 1])
            counts.update({gram: count for gram, count in raw[n].items() if n > 1 and gram[0] == self.eos})
        return counts


def _discounts(counts: Counter[Gram]) -> tuple[float, float, float, float]:
    """What is taken from counts of 0, 1, 2, and 3 or more."""
    of = Counter(counts.values())
    if not of[1] or not of[2]:
        return 0.0, 0.5, 1.0, 1.5
    share = of[1] / (of[1] + 2 * of[2])
    two, three = (
        min(float(k), max(0.0, k - (k + 1) * share * of[k + 1] / of[k])) if of[k] else 0.5 * k for k in (2, 3)
    )
    return 0.0, 1.0 - 2.0 * share * of[2] / of[1], two, three
