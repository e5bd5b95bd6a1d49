"""A file that is opened again: its bytes and weights, checked, and the sessions that are made of them when they are needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnncore.runtime.errors import ModelFileError, TamperedModelError
from rnncore.runtime.format.container import FINGERPRINT_KEY, digest, fingerprint_of, metadata_of
from rnncore.runtime.format.external_data import hash_of_weights, read_foreign_weights, read_weights
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.reading import read_file
from rnncore.runtime.format.structure import Structure
from rnncore.runtime.origin import Options, Origin, logger
from rnncore.runtime.session.one_step import may_have_one_step, open_one_step
from rnncore.runtime.session.opening import Graph, open_session
from rnncore.runtime.session.providers import on_cpu_only
from rnncore.runtime.session.threads import check_threads
from rnncore.runtime.signing import check_signed_weights
from rnncore.runtime.tensors.specs import Layout

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens the sessions of a model that was loaded from ``origin``, when they are needed.

    fingerprint: of the file.  shared_out: whether the rows of a call are shared out to threads.
    """

    origin: Origin
    fingerprint: str
    shared_out: bool = False

    def again(self) -> InferenceSession:
        """The whole session, for a forked child; ModelFileError if the file is another one, or gone."""
        options = self.origin.options
        check_threads(options.threads)
        data = read_again(self.origin, self.fingerprint)
        session = session_of(graph_of(data, metadata_of(data), self.origin), options, self.shared_out)
        logger.info("model %s… opened again in the forked process %d", self.fingerprint[:12], os.getpid())
        return session

    def one_step(self, layout: Layout, whole: InferenceSession) -> InferenceSession | None:
        """The session for one step of one sequence, where it is worth having and the file is still there."""
        options, source = self.origin.options, self.origin.source
        try:
            size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
            if not may_have_one_step(layout, size) or not on_cpu_only(options.providers):
                return None  # before a large file is read for nothing
            data = read_again(self.origin, self.fingerprint)
            graph = graph_of(data, metadata_of(data), self.origin)
        except (ModelFileError, OSError):
            return None
        return open_one_step(layout, graph, whole, threads=_threads(options, self.shared_out), arena=options.arena)


def read_source(source: str | os.PathLike[str] | bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[str, bytes]:
    """Name and bytes of a model file; NotOnnxError when there is nothing to read, ModelFileError when there is too much."""
    if isinstance(source, bytes):
        if len(source) > limits.file_bytes:
            raise ModelFileError(
                f"the model has {len(source)} bytes, limits.file_bytes allows {limits.file_bytes}: if you trust it, load "
                f"it with limits=Limits(file_bytes={len(source)})"
            )
        return "model in memory", source
    path = Path(source)
    return str(path), read_file(path, limits.file_bytes, "file_bytes")


def read_again(origin: Origin, fingerprint: str) -> bytes:
    """The bytes of a model that was loaded before; ModelFileError when the file has changed or is gone."""
    name, data = read_source(origin.source, origin.options.limits)
    try:
        if origin.options.foreign is not None:
            found = foreign_fingerprint(graph_of(data, {}, origin))
        else:
            found = metadata_of(data).get(FINGERPRINT_KEY, "")
        if found == fingerprint and (origin.options.foreign is not None or fingerprint_of(data, found) == found):
            return data
    except ModelFileError as error:
        raise type(error)(f"{name}: {error}") from None
    raise TamperedModelError(
        f"{name}: the file has changed since it was loaded (fingerprint {found[:12]}… instead of "
        f"{fingerprint[:12]}…): give a new model a new name, then load it"
    )


def graph_of(
    data: bytes, metadata: Mapping[str, str], origin: Origin, signed: Mapping[str, str] | None = None
) -> Graph:
    """The graph in a file with its weights, checked."""
    limits = origin.options.limits
    structure = Structure.of(data, limits)
    if origin.options.foreign is not None:
        weights = read_foreign_weights(structure.outside, origin.source, limits)
    else:
        weights = read_weights(structure.outside, metadata, origin.source, limits)
    if signed is not None:
        check_signed_weights(weights, signed)
    return Graph(data, weights, structure.nested, structure.foldable)


def foreign_fingerprint(graph: Graph) -> str:
    """SHA-256 of a foreign model and of the weights beside it."""
    return digest(
        digest(graph.data).encode() + hash_of_weights(graph.weights).encode() if graph.weights else graph.data
    )


def session_of(graph: Graph, options: Options, shared_out: bool = False) -> InferenceSession:
    """A session over a checked graph."""
    threads = _threads(options, shared_out)
    return open_session(graph, threads=threads, arena=options.arena, providers=options.providers)


def _threads(options: Options, shared_out: bool) -> int | None:
    # Threads that each run over some of the rows do better without those of onnxruntime, which they would wait for: half as
    # fast again for 16 rows of 256 units.
    return 1 if shared_out else options.threads
