"""Whether a file's numbers are what its task says: probabilities that sum to one, vectors of length one, bounds that hold.

A file may say that it is a classifier and answer scores before their softmax: every shape fits, and every probability read
from it is wrong.  So each class asks its file one small question when it is made.
"""

from __future__ import annotations

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import ModelFileError, RnncoreError
from rnncore.runtime.format.axes import known_size
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.model import Model
from rnncore.runtime.text.log_probs import SUM_TOLERANCE

_STEPS = (3, 64)  # a model with a convolution may need more than three
_SEED = 11


def probe(model: Model) -> Array | None:
    """The one output for one small input, ids of zero or random floats; None if the model reads none of the sizes tried.

    Lengths of the input that a model refuses say nothing about its numbers.
    """
    random = np.random.default_rng(_SEED)
    for steps in _STEPS:
        sizes = {BATCH: 1, TIME: steps}
        arrays = {}
        for spec in model.signature.inputs:
            shape = [known_size(size, sizes, 1) for size in spec.shape]
            floats = np.dtype(spec.dtype).kind == "f"
            arrays[spec.name] = (random.standard_normal(shape) if floats else np.zeros(shape)).astype(spec.dtype)
        try:
            return np.asarray(model.run(**arrays), np.float64)
        except RnncoreError:
            continue
    return None


def best_tagging_problem(values: Array) -> str:
    """Why ``values`` [..., labels] are no scores of tags chosen together: 0 for the one taken, less for any other."""
    largest = values.max(-1, initial=-np.inf)
    if (np.abs(largest) <= SUM_TOLERANCE).all():
        return ""
    worst = largest.flat[np.argmax(np.nan_to_num(np.abs(largest), nan=np.inf))]
    return f"not scores of tags chosen together (the largest of a step is {worst:.3g}, expected 0): use rnncore.Tagger"


def unit_vector_problem(values: Array) -> str:
    """Why ``values`` [..., size] are not of length 1; empty if they are."""
    off = np.abs(np.linalg.norm(values, axis=-1) - 1)
    if (off <= SUM_TOLERANCE).all():
        return ""
    worst = np.linalg.norm(values, axis=-1).flat[np.argmax(np.nan_to_num(off, nan=np.inf))]
    return f"not vectors of length 1 (one has {worst:.3g}): end its forward with torch.nn.functional.normalize"


def bounds_problem(values: Array, bounds: tuple[float, float]) -> str:
    """Why ``values`` are not within ``bounds``; empty if they are."""
    low, high = bounds
    slack = SUM_TOLERANCE * (high - low) if np.isfinite(high - low) else 0.0
    if np.isfinite(values).all() and (values >= low - slack).all() and (values <= high + slack).all():
        return ""
    return f"not ratings from {low:g} to {high:g} (one is {values.flat[0]:.3g}): bound them in its forward"


def refuse(task: str, problem: str) -> None:
    """Raise ModelFileError if there is a problem."""
    if problem:
        raise ModelFileError(f"the file says that it is a {task}, but its numbers are {problem} and export again")
