"""Small layouts, arrays for them, and what a call is refused with: for tests of single parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.runtime import Signature, TensorSpec
from rnncore.runtime.tensors.specs import Layout

X = TensorSpec("x", "float32", ("batch", "time", 2))
IDS = TensorSpec("ids", "int64", ("batch", "time"), 9, 1)
Y = TensorSpec("y", "float32", ("batch", "time", 4))
SPEAKER = TensorSpec("speaker", "float32", ("batch", 3))
TIME_MAJOR = TensorSpec("z", "float32", ("time", "batch", 2))


def layout(
    *inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (Y,), max_steps: int | None = None, **more: Any
) -> Layout:
    """Of a signature with these inputs."""
    return Layout.of(Signature(inputs, outputs, **more), max_steps)


def x(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Numbers from 0 on."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)
