"""Every cell and variant of rnncore, once, under a readable name."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from tests.strategies import CellSpec

HIDDEN, PROJECTION = 11, 3


def _lstm_variants() -> dict[str, dict[str, object]]:
    found = {}
    for peephole, projection, coupled, layer_norm in product(
        (None, "current", "previous"), (None, PROJECTION), (False, True), (False, True)
    ):
        options = {"peephole": peephole, "projection": projection, "coupled": coupled, "layer_norm": layer_norm}
        chosen = [f"{name}={value}" for name, value in options.items() if value]
        found[" ".join(["lstm", *chosen])] = options
    return found


VARIANTS: dict[str, CellSpec] = {
    "rnn tanh": CellSpec("rnn", HIDDEN, {"activation": "tanh"}),
    "rnn relu": CellSpec("rnn", HIDDEN, {"activation": "relu"}),
    "gru reset=after": CellSpec("gru", HIDDEN, {"reset": "after"}),
    "gru reset=before": CellSpec("gru", HIDDEN, {"reset": "before"}),
    "gru reset=None": CellSpec("gru", HIDDEN, {"reset": None}),
    **{name: CellSpec("lstm", HIDDEN, options) for name, options in _lstm_variants().items()},
    "min_gru": CellSpec("min_gru", HIDDEN),
    "min_lstm": CellSpec("min_lstm", HIDDEN),
}


def with_options(spec: CellSpec, *, hidden_size: int | None = None, **options: object) -> CellSpec:
    """``spec`` with more options; ``hidden_size`` makes it smaller, its projection too."""
    merged = {**spec.options, **options}
    if hidden_size is not None and merged.get("projection"):
        merged["projection"] = hidden_size - 1
    return CellSpec(spec.kind, hidden_size or spec.hidden_size, merged)


def example(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(x [7, 13, 5], lengths [7] with 0, 1 and 13 in it)."""
    x = np.random.default_rng(seed).standard_normal((7, 13, 5))
    return torch.from_numpy(x).to(dtype), torch.tensor([13, 0, 5, 1, 12, 13, 3])
