"""Which sequences share a call: those of similar length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Sequence

BATCH_SIZE = 64
PADDING_BUDGET = 0.25


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
