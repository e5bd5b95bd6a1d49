"""From a file to a session: read once, check everything, and only then let onnxruntime see the bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnncore.runtime.errors import (
    ForeignModelError,
    FormatVersionError,
    InputError,
    ModelFileError,
    SignatureError,
    TamperedModelError,
    raise_all,
)
from rnncore.runtime.foreign.description import Foreign
from rnncore.runtime.foreign.fingerprint import fingerprint_as_loaded
from rnncore.runtime.foreign.graph import read_graph
from rnncore.runtime.format.container import FINGERPRINT_KEY, fingerprint_of, metadata_of
from rnncore.runtime.format.metadata_limits import check_metadata, check_states
from rnncore.runtime.format.reading import Stamp
from rnncore.runtime.format.signature import FORMAT_VERSION, PREFIX, Signature
from rnncore.runtime.origin import Options, Origin
from rnncore.runtime.reopening import Opener, foreign_fingerprint, graph_of, read_source, session_of
from rnncore.runtime.session.opening import graph_values
from rnncore.runtime.session.providers import on_cpu_only
from rnncore.runtime.session.row_sharing import RowSharing, rows_are_independent
from rnncore.runtime.session.session import Engine
from rnncore.runtime.signing import check_signature, read_signature
from rnncore.runtime.tensors.graph_contract import graph_problems, signature_problems
from rnncore.runtime.tensors.specs import Layout

_TRIES = 100
"""How often a file is read that is exchanged again and again while it is read."""


@dataclass(frozen=True)
class LoadedFile:
    """What a model file holds, checked.  ``metadata`` has the ``rnncore.*`` entries only.

    fingerprint: which model it is.  file_fingerprint: which file; another one where the caller says how to read it.
    """

    engine: Engine
    metadata: dict[str, str]
    report: dict[str, Any]
    fingerprint: str
    file_fingerprint: str
    origin: Origin


def open_source(source: str | os.PathLike[str] | bytes, origin: Origin) -> tuple[str, LoadedFile]:
    """Read and open what was handed to ``load``: (name, opened file); raises a ModelFileError that begins with the name.

    If a file is exchanged for another one while it is read, with its weights beside it, the new one is read.
    """
    path = None if isinstance(source, bytes) else Path(source)
    for left in reversed(range(_TRIES)):
        before = None if path is None else Stamp.of(path)
        name, data = read_source(source, origin.options.limits)
        try:
            return name, open_model(data, origin, _signed_weights(data, origin))
        except ModelFileError as error:
            if path is None or not left or Stamp.of(path) == before:
                raise type(error)(f"{name}: {error}") from error.__cause__
    raise AssertionError("unreachable")


def open_model(data: bytes, origin: Origin, signed: Mapping[str, str] | None = None) -> LoadedFile:
    """Check the bytes of a model file and open a session over them; raises a ModelFileError of the class that fits.

    signed: hashes of its weights that are in other files, if these were signed with it.
    """
    options = origin.options
    if options.foreign is not None:
        return _open_foreign(data, origin, options.foreign, signed)
    metadata = {key: value for key, value in metadata_of(data).items() if key.startswith(PREFIX)}
    if not metadata:
        raise ForeignModelError(
            "this ONNX model was not written by rnncore: export it with rnncore.export, or say which output each of its "
            'states becomes, load(path, states={"h": "h_out"}), with states={} if it has none'
        )
    check_metadata(metadata, options.limits)
    _check_format_version(metadata)
    fingerprint = _checked_fingerprint(data, metadata)
    signature = Signature.from_json(_entry(metadata, "rnncore.signature"))
    check_states(signature, options.limits)
    raise_all(signature_problems(signature), ModelFileError, "the signature in the file makes no sense")
    if signature.rows_together and options.max_batch_steps is not None:
        raise InputError(
            "the longest row of a batch tells this model where all rows end, so no call can be run in parts: load it without "
            "max_batch_steps"
        )
    report = _report(metadata)
    sharing = None if signature.rows_together else _row_sharing(report, options)
    shared_out = sharing is not None
    session = session_of(graph_of(data, metadata, origin, signed), options, shared_out)
    inputs, outputs = graph_values(session)
    raise_all(graph_problems(signature, inputs, outputs), ModelFileError, "signature and graph of the file disagree")
    layout = Layout.of(signature, options.max_steps)
    engine = Engine(
        session,
        layout,
        fingerprint,
        Opener(origin, fingerprint, shared_out),
        options.max_batch_steps,
        sharing,
    )
    return LoadedFile(engine, metadata, report, fingerprint, fingerprint, origin)


def _open_foreign(data: bytes, origin: Origin, foreign: Foreign, signed: Mapping[str, str] | None) -> LoadedFile:
    """The same for a file of somebody else, which is checked by a trial run instead of by its signature."""
    options = origin.options
    if any(key.startswith(PREFIX) for key in metadata_of(data)):
        raise InputError("this file was written by rnncore and knows its states: load it without states=")
    graph = graph_of(data, {}, origin, signed)
    of_file = foreign_fingerprint(graph)
    session = session_of(graph, options)
    signature, adapter = read_graph(session, foreign)
    layout = Layout.of(signature, options.max_steps, adapter)
    fingerprint = fingerprint_as_loaded(of_file, signature, adapter)
    engine = Engine(session, layout, fingerprint, Opener(origin, of_file), options.max_batch_steps)
    return LoadedFile(engine, {}, {}, fingerprint, of_file, origin)


def _signed_weights(data: bytes, origin: Origin) -> dict[str, str] | None:
    """Check who signed a file, before anything else of it is read, if that is asked."""
    key, signature = origin.options.public_key, origin.options.signature
    if key is None:
        return None
    if signature is None:
        if isinstance(origin.source, bytes):
            raise SignatureError("a model in memory has no file with its signature: hand it in, signature=")
        signature = read_signature(origin.source)
    return check_signature(data, signature, key)


def _row_sharing(report: dict[str, Any], options: Options) -> RowSharing | None:
    """Threads for the rows of a batch, if the caller allows several and the file's rows were seen to be independent."""
    threads = options.threads
    if threads is None or threads < 2 or not on_cpu_only(options.providers) or not rows_are_independent(report):
        return None
    return RowSharing(threads)


def _check_format_version(metadata: dict[str, str]) -> None:
    """Comes before the fingerprint: a newer format may compute it in another way."""
    text = _entry(metadata, "rnncore.format_version")
    try:
        version = int(text)
    except ValueError:
        raise ModelFileError(f"rnncore.format_version in the file is {text[:40]!r}, expected a number") from None
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"the file has format {text[:40]}, this rnncore reads formats up to {FORMAT_VERSION}: upgrade rnncore"
        )
    if version < 1:
        raise ModelFileError(f"rnncore.format_version in the file is {text[:40]}, expected 1 to {FORMAT_VERSION}")


def _checked_fingerprint(data: bytes, metadata: dict[str, str]) -> str:
    stored = _entry(metadata, FINGERPRINT_KEY)
    actual = fingerprint_of(data, stored)
    if actual != stored:
        raise TamperedModelError(
            "weights or graph were changed after export, or written anew by another tool (fingerprint "
            f"{actual[:12]}…, the file says {stored[:12]}…): copy or export the file again; if the change was meant, "
            "rnncore adapt asks the file its golden cases and stamps it again"
        )
    return stored


def _entry(metadata: dict[str, str], key: str) -> str:
    if key not in metadata:
        raise TamperedModelError(f"the metadata has no {key}: the file was cut or edited after export")
    return metadata[key]


def _report(metadata: dict[str, str]) -> dict[str, Any]:
    try:
        report = json.loads(metadata.get("rnncore.report", "{}"))
    except ValueError:
        raise ModelFileError("rnncore.report in the file is no JSON: export the model again") from None
    if not isinstance(report, dict):
        raise ModelFileError("rnncore.report in the file is no JSON object: export the model again")
    return report
