"""What is bound to onnxruntime stays alive, whatever else the process allocates between two pushes."""

from __future__ import annotations

import numpy as np

from tests.runtime.data import BOUND, model, sequence
from tests.runtime.files import Spec, reference


def test_lengths_that_are_bound_are_not_memory_of_somebody_else() -> None:
    spec = Spec(lengths=True)
    x = sequence(spec, np.random.default_rng(31), 40)
    answers, others = [], []
    with model(spec).stream() as stream:
        for row in x:
            answers.append(stream.push(row[None]))
            others = [np.zeros(1, np.int64) for _ in range(50)]  # freed and taken again where a length may have been
    assert not any(other.any() for other in others)
    np.testing.assert_allclose(np.concatenate(answers), reference(spec, x)["y"], **BOUND)
