"""Modules that the export itself makes, and that say where their inputs have the rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rnncore.export.tracing.probing import Place


class KnownRows(nn.Module):
    """A module whose input ``i`` has its rows along axis ``rows_along[i]``."""

    rows_along: Sequence[int] = ()


def rows_of_inputs(module: nn.Module) -> list[Place]:
    """The axes that are known to be the batch; none of a module that does not say so."""
    return list(enumerate(module.rows_along)) if isinstance(module, KnownRows) else []
