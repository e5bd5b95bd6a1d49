"""Arguments of an export that a module which was refused may need: outputs to leave out, which input holds the lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from rnncore.export.tracing.chosen_outputs import chosen_names
from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.error_boundary import pass_on_interruption


def guesses(
    module: nn.Module, call: Example, *, named: bool
) -> Iterator[tuple[Sequence[str | None] | None, str | None]]:
    """Names of outputs, None for those to leave out, and the input of the lengths; None for what is as it was.

    named: the outputs have names already.
    """
    names = None if named else _of_filled(module, call)
    lengths = [None, *_may_be_lengths(call)] if call.lengths is None else [None]
    for kept in (None, names) if names is not None else (None,):
        yield from ((kept, own) for own in lengths if kept is not None or own is not None)


def _of_filled(module: nn.Module, call: Example) -> Sequence[str | None] | None:
    """Names of the outputs that hold anything, None for each other one; None if all do, or none."""
    try:
        with unchanged(module), torch.no_grad():
            found = list(named_tensors(call.call(module, [own.value.clone() for own in call.inputs]), ""))
    except Exception as failure:  # which is said elsewhere
        pass_on_interruption(failure)
        return None
    names: list[str | None] = [
        name if value.numel() else None
        for name, (_, value) in zip(chosen_names([name for name, _ in found]), found, strict=True)
    ]
    return names if None in names and any(names) else None


def _may_be_lengths(call: Example) -> Iterator[str]:
    """Inputs [batch] of whole numbers of which the largest is the size of an axis of another input."""
    sizes = {size for own in call.inputs if own.value.dim() > 1 for size in own.value.shape[:2]}
    for own in call.inputs:
        whole = not own.value.is_floating_point() and own.value.dtype != torch.bool
        if own.value.dim() == 1 and whole and own.value.numel() and int(own.value.max()) in sizes:
            yield own.name
