"""Spans of equal labels in a tagged sequence, and how well predicted ones agree with the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rnncore.runtime.errors import InputError

OUTSIDE = "O"


class Span(NamedTuple):
    """Steps ``start`` to ``end``, the latter not included, that together are a ``label``."""

    label: str
    start: int
    end: int


class SpanCounts(NamedTuple):
    """How many spans were predicted, how many are right ones, and how many are both."""

    correct: int
    predicted: int
    wanted: int

    @property
    def precision(self) -> float:
        """Part of the predicted spans that are right; 0 if there are none."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Part of the right spans that were predicted; 0 if there are none."""
        return self.correct / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is correct."""
        total = self.predicted + self.wanted
        return 2 * self.correct / total if total else 0.0


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of a tagged sequence, in order.

    ``B-x`` begins a span of label x, ``I-x`` goes on with it, or begins one after anything else (as the CoNLL script
    reads it); ``O`` is in none.  A tag without prefix is like ``I-``: equal ones side by side are one span.
    """
    spans: list[Span] = []
    open_label, start = "", 0
    for i, tag in enumerate([*tags, OUTSIDE]):
        begins = tag.startswith("B-")
        label = tag[2:] if begins or tag.startswith("I-") else "" if tag == OUTSIDE else tag
        if open_label and (begins or label != open_label):
            spans.append(Span(open_label, start, i))
            open_label = ""
        if label and not open_label:
            open_label, start = label, i
    return spans


def count_spans(predicted: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> SpanCounts:
    """Compare tagged sequences: a span is correct if label, start and end agree.

    Raises:
        InputError: another number of sequences, or of tags in one.
    """
    lengths = [len(tags) for tags in predicted], [len(tags) for tags in wanted]
    if lengths[0] != lengths[1]:
        raise InputError(
            f"predicted tags have lengths {lengths[0][:9]}, the right ones {lengths[1][:9]}: expected equal ones"
        )
    found = {(i, span) for i, tags in enumerate(predicted) for span in spans_of(tags)}
    right = {(i, span) for i, tags in enumerate(wanted) for span in spans_of(tags)}
    return SpanCounts(len(found & right), len(found), len(right))
