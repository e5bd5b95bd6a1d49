"""Golden cases on a bare backend: lengths handed in, states driven by hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rnncore.conformance.backends import BackendError, Run, check_backend, open_backend
from rnncore.runtime.arrays import Array
from rnncore.runtime.format.external_data import read_foreign_weights
from rnncore.runtime.format.golden import Golden, GoldenCase
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.signature import Signature
from rnncore.runtime.format.structure import Structure
from rnncore.runtime.model import load
from rnncore.runtime.reopening import read_source
from rnncore.runtime.signing import Key, check_signature, check_signed_weights, read_key, read_signature
from rnncore.runtime.verification import VerifyReport, chunks_of, compare, golden_of, joined, verify_elsewhere


def verify_on(
    path: str | os.PathLike[str],
    backend: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    isolated: bool = False,
    public_key: Key | None = None,
) -> VerifyReport:
    """Run the golden cases of a file on ``backend`` and compare with what PyTorch answered at export.

    A case that the backend cannot run fails, with the backend's own message as its note.  What the backend answers to its
    first call at a shape and what it answers to the second both count: the worse one is reported.

    Args:
        path: the file.
        backend: one of :data:`rnncore.conformance.backends.BACKENDS`.
        limits, isolated: as for :func:`rnncore.runtime.verify`.
        public_key: who must have signed the file; the backend then reads a private copy of what was checked.

    Raises:
        ModelFileError: the file cannot be loaded, holds no golden cases, or is not signed by the owner of the key.
        InputError, MissingExtraError: there is no such backend, or its package is not installed.
    """
    check_backend(backend)
    key = None if public_key is None else read_key(public_key)
    if isolated:
        named = {"backend": backend, "limits": limits, "public_key": key}
        return verify_elsewhere("rnncore.conformance.driver", "verify_on", path, named)
    if key is None:
        return _verified(Path(path), str(path), backend, limits)
    with tempfile.TemporaryDirectory() as folder:
        return _verified(_signed_copy(Path(path), Path(folder), key, limits), str(path), backend, limits)


def _verified(path: Path, name: str, backend: str, limits: Limits) -> VerifyReport:
    model = load(path, limits=limits)
    golden = golden_of(model)
    try:
        run = open_backend(backend, path)
    except BackendError as error:
        run = _failing(error)
    return compare(golden, lambda case: _worse(golden, case, model.signature, run), name, backend)


def _signed_copy(path: Path, folder: Path, key: bytes, limits: Limits) -> Path:
    """The file and its weights as they were signed, where nobody changes them before another program has read them."""
    data = read_source(path, limits)[1]
    signed = check_signature(data, read_signature(path), key)
    weights = read_foreign_weights(Structure.of(data, limits).outside, str(path), limits)
    check_signed_weights(weights, signed)
    for name, content in weights.items():
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content.data)
    (folder / path.name).write_bytes(data)
    return folder / path.name


def _worse(golden: Golden, case: GoldenCase, signature: Signature, run: Run) -> dict[str, Array]:
    """The answer to a case that is further off, of the first call and of a second one: a program may compile at the first."""
    first, second = put(signature, case, run), put(signature, case, run)

    def off(answer: Mapping[str, Array]) -> float:
        errors = [kept.error(answer[name], golden.measure)[1] for name, kept in case.outputs.items() if name in answer]
        return max(errors, default=0.0)

    return first if not off(second) > off(first) else second


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
