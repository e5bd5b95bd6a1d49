"""Why a module takes no batch of 1, in words for a refusal."""

from __future__ import annotations

from itertools import zip_longest

from rnncore.export.tracing.groups import Group
from rnncore.export.tracing.probing import Prober
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.export.tracing.squeezes import Squeezes

_MOST_WORDS = 200  # characters of what the module itself says


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
    said = f"{type(failure).__name__}: {' '.join(str(failure).split())[:_MOST_WORDS]}"
    held = held_arrays(prober)
    rest = (f"; {held}" if held else "") + (f":\n  {where}" if where else "")
    return f"fails for a batch of 1, and a file takes any number of rows ({said}){rest}"


def held_arrays(prober: Prober) -> str:
    """Words on arrays in the example that are no tensors; empty if there are none."""
    kinds = prober.held_arrays()
    return f"the example holds {kinds}, which stays as it is in every call: hand over a tensor" if kinds else ""


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
