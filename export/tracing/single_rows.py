"""Why a module has no batch, or takes none of 1, in words for a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from rnncore.export.tracing.groups import Group
from rnncore.export.tracing.probing import Place, Prober
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.export.tracing.squeezes import Squeezes

_MOST_WORDS = 200  # characters of what the module itself says


def why_no_batch(prober: Prober, how: str) -> str:
    """Why no axis of the inputs may be the batch."""
    if prober.exhausted:
        return (
            "computes so much with this example that no more sizes of it were tried, and those that were show no batch: hand in "
            f"a smaller one (fewer rows, steps or pixels), or say which axes are free: {how}"
        )
    listed = listed_axis(prober)
    if listed:
        return as_a_list(listed)
    return (
        f"takes no other size along any axis that could be the batch: inputs {prober.shapes()}; a file needs one.  "
        f"{held_arrays(prober) or 'If forward takes one sequence, add an axis for several'}; {how}{_with_more_rows(prober)}"
    )


def _with_more_rows(prober: Prober) -> str:
    """What the module raises if all inputs of as many entries in front get one more, with its line; empty if it answers."""
    rows = next((size for (_, axis), size in prober.base.items() if axis == 0), 0)
    failure = prober.failure({place: rows + 1 for place, size in prober.base.items() if place[1] == 0 and size == rows})
    if failure is None:
        return ""
    where = line_of_exception(failure)
    return f"\n  with {rows + 1} in place of {rows} along axis 0 it fails: {_said(failure)}" + (
        where and f"\n  {where}"
    )


def _said(failure: Exception) -> str:
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:_MOST_WORDS]}"


def why_not_one_row(prober: Prober, batch: Group, how: str) -> str:
    """What the module does for a batch of 1 in place of answering as for several; ``how``: to say which axes are free."""
    line = _dropping_line(prober, batch)
    failure = prober.failure(batch.sizes(1))
    if line and failure is None:
        return (
            "answers in another shape, or other numbers, for a batch of 1: squeeze() drops that axis, squeeze(-1) does not; "
            f"{how}: then one row gives what it gives among others:\n  {line}"
        )
    if line:
        return f"fails for a batch of 1: squeeze() drops that axis, squeeze(-1) does not:\n  {line}"
    if failure is None and batch.multiple > 1:
        return f"takes batches of a multiple of {batch.multiple} only, and a file takes any number of rows"
    if failure is None:
        return "answers in another shape for a batch of 1 than for more, and a file answers every batch alike"
    where = line_of_exception(failure)
    said = _said(failure)
    held = held_arrays(prober)
    rest = (f"; {held}" if held else "") + (f":\n  {where}" if where else "")
    return f"fails for a batch of 1, and a file takes any number of rows ({said}){rest}"


def held_arrays(prober: Prober) -> str:
    """Words on arrays in the example that are no tensors; empty if there are none."""
    kinds = prober.held_arrays()
    return f"the example holds {kinds}, which stays as it is in every call: hand over a tensor" if kinds else ""


def listed_axis(prober: Prober, places: Iterable[Place] | None = None) -> str:
    """The first of ``places``, or of the leading axes, with whose size the number of outputs grows, in words; else empty."""
    base = prober.run({})
    for place in [p for p in prober.base if p[1] < 2] if places is None else places:
        other = prober.run({place: prober.base[place] + 1})
        if base is not None and other is not None and len(other.shapes) > len(base.shapes):
            return prober.name(place)
    return ""


def as_a_list(axis: str) -> str:
    """What is wrong with outputs whose number grows along ``axis``."""
    return (
        f"gives one output more for each entry along {axis}, as a list of rows or steps does, and a file has as many outputs for "
        "every size: stack them into one tensor"
    )


def _dropping_line(prober: Prober, batch: Group) -> str:
    """The line of the first ``squeeze`` that drops more axes of one row than of several; empty if there is none."""
    one, several = Squeezes(), Squeezes()
    prober.run_under(one, batch.sizes(1))
    prober.run_under(several, batch.sizes(max(2, batch.size)))
    for (lines, (_, dropped), _), (_, (_, usual), _) in zip_longest(
        one.seen, several.seen, fillvalue=((), (0, ()), True)
    ):
        if len(dropped) > len(usual):
            return str((lines or ("",))[-1])
    return ""
