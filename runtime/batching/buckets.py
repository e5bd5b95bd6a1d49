"""Which sequences share a call: those of similar length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Sequence

BATCH_SIZE = 64
PADDING_BUDGET = 0.25

_FEW = 32  # so many sequences are grouped by what the calls cost; of more, padding is what matters
# What a call costs, in steps of one sequence alone: as LSTMs and GRUs of 256 units have it; smaller ones gain more by groups.
_CALL, _PADDING = 2.5, 1.5
_STEP, _STEP_OF_PADDED, _STEP_OF_A_ROW = 0.7, 1.05, 0.28


def buckets(
    lengths: Sequence[int], *, batch_size: int = BATCH_SIZE, padding_budget: float = PADDING_BUDGET
) -> list[list[int]]:
    """Indices of ``lengths`` in groups of at most ``batch_size``, longest sequences first.

    padding_budget: padded steps of a group as a share of its real ones, at most.  0 groups equal lengths only.

    Sequences without steps are a group of their own.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    longest = real = padded = 0
    for i in order:
        length = lengths[i]
        fits = bool(groups) and len(groups[-1]) < batch_size and (length > 0) == (longest > 0)
        if fits and padded + longest - length <= padding_budget * (real + length):
            groups[-1].append(i)
            padded += longest - length
            real += length
        else:
            groups.append([i])
            longest, real, padded = length, length, 0
    return groups


def quickest(lengths: Sequence[int]) -> list[list[int]]:
    """As :func:`buckets`, by what the calls cost where sequences are few: two of very different lengths go alone.

    A list of three or four is then never slower than its sequences one by one.
    """
    if len(lengths) > _FEW:
        return buckets(lengths)
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    ordered = [lengths[i] for i in order if lengths[i] > 0]
    costs, firsts = [0.0], [0]  # of the cheapest groups of the first sequences, and where their last group begins
    for end, shortest in enumerate(ordered, 1):
        cost, first = costs[-1] + _CALL + shortest, end - 1
        for i in range(end - 1):  # written out: it is most of what a short list pays for being one
            longest = ordered[i]
            if longest > shortest:
                together = costs[i] + _CALL + _PADDING + longest * (_STEP_OF_PADDED + _STEP_OF_A_ROW * (end - i))
            else:
                together = costs[i] + _CALL + longest * (_STEP + _STEP_OF_A_ROW * (end - i))
            if together < cost:
                cost, first = together, i
        costs.append(cost)
        firsts.append(first)
    end = len(ordered)
    groups = [order[end:]] if end < len(order) else []
    while end:
        groups.append(order[firsts[end] : end])
        end = firsts[end]
    return groups[::-1]
