"""Many hypotheses scored as the tree they are: what several have in common at their beginning is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.text.token_scorer import Ids, Scored, States, TokenScorer, take

# Rows of one call: matrix products gain little beyond, and what they work on still fits the cache.
_ROWS = 128
# Rows times steps of one call: its log-probabilities of the whole vocabulary exist inside onnxruntime.
_CELLS = 4096
# One tree: hypotheses, and hypotheses times the length of the longest.
_TREE = 4096
_AREA = 1 << 22


def score_hypotheses(scorer: TokenScorer, eos_id: int, hypotheses: Sequence[Ids]) -> NDArray[np.float64]:
    """Log-probability of each token sequence as the beginning of a text; 0 for an empty one."""
    scores = np.empty(len(hypotheses))
    for part in _parts([len(ids) for ids in hypotheses]):
        scores[part] = _Tree(eos_id, hypotheses[part]).score(scorer)
    return scores


def _parts(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbours that share a tree, so that memory stays bounded."""
    start = longest = 0
    for i, length in enumerate(lengths):
        count, longest = i - start + 1, max(longest, length)
        if i > start and (count > _TREE or count * longest > _AREA):
            yield slice(start, i)
            start, longest = i, length
    if lengths:
        yield slice(start, len(lengths))


class _Tree:
    """Distinct hypotheses in lexicographic order, so that those with a common beginning are neighbours.

    tokens: [hypotheses, 1 + longest], ``<eos>`` first, padded with -1.
    lengths: tokens of each, ``<eos>`` not counted.
    shared: how many of these each has in common with the one before it.
    which: for each hypothesis of the caller its row.
    """

    def __init__(self, eos_id: int, hypotheses: Sequence[Ids]) -> None:
        keys = [ids.astype(">i8").tobytes() for ids in hypotheses]  # bytes compare as the numbers do
        ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        self.which = np.array([ranks[key] for key in keys], np.intp)
        distinct = dict(zip(keys, hypotheses, strict=True))
        self.lengths = np.array([len(distinct[key]) for key in ranks], np.int64)
        self.tokens = np.full((len(ranks), 1 + int(self.lengths.max())), -1, np.int64)
        self.tokens[:, 0] = eos_id
        for row, key in enumerate(ranks):
            self.tokens[row, 1 : 1 + self.lengths[row]] = distinct[key]
        differs = self.tokens[1:] != self.tokens[:-1]  # somewhere, since they are distinct
        self.shared = np.concatenate(([-1], differs.argmax(1) - 1)) if len(ranks) > 1 else np.array([-1])

    def score(self, scorer: TokenScorer) -> NDArray[np.float64]:
        """Log-probability of each of the caller's hypotheses.

        Goes from one step after which hypotheses part or end to the next.  Between two of them every text in the batch
        goes on alone, so that nothing is padded, and a file that knows no lengths does as well.
        """
        scores = np.zeros(len(self.lengths))
        states = scorer.initial_states(1)
        node = np.zeros(len(scores), np.intp)  # the text that each hypothesis is at ``start``
        origin = np.zeros(1, np.intp)  # the row of ``states`` that each text goes on from
        start = 0
        for end in np.unique(np.concatenate((self.lengths, self.shared + 1))).tolist():
            if end == 0:  # an empty hypothesis, and the first one, which shares nothing
                continue
            going = np.flatnonzero(self.lengths > start)
            texts, first, row = np.unique(node[going], return_index=True, return_inverse=True)
            new = self.shared[going] < end
            child = np.cumsum(new) - 1  # those that are alike up to ``end`` are one text from there on
            node[going], place = child, child - child[first][row]
            tokens = self.tokens[going, start : end + 1]
            sums, states = _run(scorer, take(states, origin[texts]), tokens, first, row, place)
            scores[going] += sums
            origin, start = row[new], end
        return scores[self.which]


def _run(
    scorer: TokenScorer,
    states: States,
    tokens: Ids,
    first: NDArray[np.intp],
    row: NDArray[np.intp],
    place: NDArray[np.intp],
) -> tuple[NDArray[np.float64], States]:
    """Read all but the last of ``tokens`` [hypotheses, steps + 1]: sums of log-probabilities, and the states afterwards.

    Hypothesis i is read in row ``row[i]``, led by hypothesis ``first[row]``; those of a row differ in the last token
    only, of which ``place[i]`` numbers the different ones.
    """
    steps = tokens.shape[1] - 1
    lead = tokens[first]
    sums = np.zeros(len(first))
    size = scorer.steps_of_one_call(max(1, _CELLS // min(len(first), _ROWS)))
    for begin in range(0, steps, size):
        stop = min(begin + size, steps)
        ends = stop == steps
        asked = np.zeros((len(first), stop - begin, 1 + int(place.max()) if ends else 1), np.int64)
        asked[:, :, 0] = lead[:, begin + 1 : stop + 1]
        if ends:
            asked[row, -1, place] = tokens[:, steps]
        log_probs, states = _score_rows(scorer, states, lead[:, begin:stop], asked)
        sums += log_probs[:, : -1 if ends else None, 0].sum(1, dtype=np.float64)
    return sums[row] + log_probs[row, -1, place], states


def _score_rows(scorer: TokenScorer, states: States, read: Ids, asked: Ids) -> Scored:
    """``scorer.score`` in calls of a bounded number of rows."""
    if len(read) <= _ROWS:
        return scorer.score(states, np.ascontiguousarray(read), asked)
    calls = -(-len(read) // _ROWS)
    parts = []
    for rows in np.array_split(np.arange(len(read)), calls):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        own = tuple(array[part] for array in states)
        parts.append(scorer.score(own, np.ascontiguousarray(read[part]), asked[part]))
    log_probs = np.concatenate([part.log_probs for part in parts])
    return Scored(log_probs, tuple(np.concatenate(arrays) for arrays in zip(*(p.states for p in parts), strict=True)))
