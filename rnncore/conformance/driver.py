"""Golden cases on a bare backend: lengths handed in, states driven by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rnncore.conformance.backends import BackendError, Run, open_backend
from rnncore.runtime.arrays import Array
from rnncore.runtime.format.golden import GoldenCase
from rnncore.runtime.format.signature import Signature
from rnncore.runtime.model import load
from rnncore.runtime.verification import VerifyReport, chunks_of, compare, golden_of, joined


def verify_on(path: str | os.PathLike[str], backend: str) -> VerifyReport:
    """Run the golden cases of a file on ``backend`` and compare with what PyTorch answered at export.

    A case that the backend cannot run fails, with the backend's own message as its note.

    Raises:
        ModelFileError: the file cannot be loaded, or holds no golden cases.
        InputError, MissingExtraError: there is no such backend, or its package is not installed.
    """
    model = load(path)
    golden = golden_of(model)
    try:
        run = open_backend(backend, Path(path))
    except BackendError as error:
        run = _failing(error)
    return compare(golden, lambda case: put(model.signature, case, run), str(path), backend)


def _failing(error: BackendError) -> Run:
    """A backend that did not even load the file: every case fails for that reason."""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise error

    return run


def put(signature: Signature, case: GoldenCase, run: Run) -> dict[str, Array]:
    """The answer of a backend to a case: whole outputs by name, zero beyond the lengths.

    Chunks of no steps are left out: onnxruntime's loops lose an axis there, and :mod:`rnncore.runtime` never asks them.
    """
    states = {state.name: np.tile(state.initial_value(), (case.batch, 1)) for state in signature.states}
    if case.kind != "stream":
        lengths = np.array(case.lengths or [case.time] * case.batch, np.int64)
        answer = run(
            {
                **case.inputs,
                **_lengths(signature, lengths),
                **_nothing_asked(signature, case.time, case.batch),
                **states,
            }
        )
        return _cut(signature, answer, lengths)
    parts: list[Mapping[str, Array]] = []
    for chunk, steps in zip(chunks_of(signature, case), case.chunks or (), strict=True):
        if steps:
            answer = run(
                {**chunk, **_lengths(signature, np.array([steps])), **_nothing_asked(signature, steps), **states}
            )
            states = {state.name: answer[state.output] for state in signature.states}
            parts.append(answer)
    return joined(signature, parts)


def _lengths(signature: Signature, lengths: Array) -> dict[str, Array]:
    return {} if signature.lengths is None else {signature.lengths.name: lengths.astype(np.int64)}


def _nothing_asked(signature: Signature, steps: int, batch: int = 1) -> dict[str, Array]:
    return {} if signature.pick is None else {signature.pick.at: np.zeros((batch, steps, 1), np.int64)}


def _cut(signature: Signature, answer: Mapping[str, Array], lengths: Array) -> dict[str, Array]:
    """As the runtime does: what a head says about padding is cut off."""
    result = {}
    for port in signature.outputs:
        value = answer[port.name]
        if port.time_axis is not None and port.batch_axis is not None and value.ndim == len(port.shape):
            value = np.array(value)
            by_row = np.moveaxis(value, (port.batch_axis, port.time_axis), (0, 1))
            for row, length in enumerate(lengths[: len(by_row)]):
                by_row[row, length:] = 0
        result[port.name] = value
    return result
