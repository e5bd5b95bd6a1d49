"""What a stream answers when it is alone, and how near a stream in company must come to that."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.runtime.data import BOUND, model
from tests.runtime.files import Spec

SPECS = (
    Spec(lengths=True, learned=True),
    Spec(learned=True),
    Spec(lengths=True, learned=True, last=True, speaker=True),
    Spec(ids=True, learned=True, limit=True),
    Spec(last=True, time_major=True),
    Spec(lengths=True, time_major=True, speaker=True, open_width=True),
)


def alone(spec: Spec, chunks: list[tuple[np.ndarray, ...]]) -> list[Any]:
    """The answers to ``chunks`` of one stream of its own."""
    with model(spec).stream() as stream:
        return [stream.push(*chunk) for chunk in chunks]


def assert_same(found: Any, wanted: Any) -> None:
    """Equal within the rounding of float32, NaN where NaN is wanted."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], **BOUND)
    else:
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, **BOUND)
