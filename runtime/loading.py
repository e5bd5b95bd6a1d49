"""From a file to a session: read once, check everything, and only then let onnxruntime see the bytes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnncore.runtime.errors import (
    ForeignModelError,
    FormatVersionError,
    InputError,
    ModelFileError,
    NotOnnxError,
    TamperedModelError,
    raise_all,
)
from rnncore.runtime.foreign.description import Foreign
from rnncore.runtime.foreign.fingerprint import fingerprint_as_loaded
from rnncore.runtime.foreign.graph import read_graph
from rnncore.runtime.format.container import FINGERPRINT_KEY, digest, fingerprint_of, metadata_of
from rnncore.runtime.format.external_data import folder_of_foreign_weights, folder_of_weights
from rnncore.runtime.format.signature import FORMAT_VERSION, PREFIX, Signature
from rnncore.runtime.origin import Options, Origin, logger
from rnncore.runtime.session.session import Engine, graph_values, open_session
from rnncore.runtime.session.threads import check_threads
from rnncore.runtime.tensors.graph_contract import graph_problems, signature_problems
from rnncore.runtime.tensors.specs import Layout

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


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


def read_source(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    """Name and bytes of a model file; NotOnnxError when there is nothing to read."""
    if isinstance(source, bytes):
        return "model in memory", source
    path = Path(source)
    if not path.exists():
        raise NotOnnxError(f"{path}: there is no such file")
    if path.is_dir():
        raise NotOnnxError(f"{path}: this is a directory, expected an ONNX file")
    try:
        return str(path), path.read_bytes()
    except OSError as error:
        raise NotOnnxError(f"{path}: the file cannot be read: {error.strerror}") from error


def open_model(data: bytes, origin: Origin) -> LoadedFile:
    """Check the bytes of a model file and open a session over them; raises a ModelFileError of the class that fits."""
    options = origin.options
    if options.foreign is not None:
        return _open_foreign(data, origin, options.foreign)
    metadata = {key: value for key, value in metadata_of(data).items() if key.startswith(PREFIX)}
    if not metadata:
        raise ForeignModelError(
            "this ONNX model was not written by rnncore: export it with rnncore.export, or say which output each of its "
            'states becomes, load(path, states={"h": "h_out"}), with states={} if it has none'
        )
    _check_format_version(metadata)
    fingerprint = _checked_fingerprint(data, metadata)
    signature = Signature.from_json(_entry(metadata, "rnncore.signature"))
    raise_all(signature_problems(signature), ModelFileError, "the signature in the file makes no sense")
    session = _session(data, options, folder_of_weights(data, metadata, origin.source))
    inputs, outputs = graph_values(session)
    raise_all(graph_problems(signature, inputs, outputs), ModelFileError, "signature and graph of the file disagree")
    layout = Layout.of(signature, options.max_steps)
    engine = Engine(session, layout, fingerprint, lambda: _reopened(origin, fingerprint), options.max_batch_steps)
    return LoadedFile(engine, metadata, _report(metadata), fingerprint, fingerprint, origin)


def read_again(origin: Origin, fingerprint: str) -> bytes:
    """The bytes of a model that was loaded before; ModelFileError when the file has changed or is gone."""
    name, data = read_source(origin.source)
    try:
        if origin.options.foreign is not None and _foreign_fingerprint(data, origin)[0] == fingerprint:
            return data
        found = metadata_of(data).get(FINGERPRINT_KEY, "")
        if found == fingerprint and fingerprint_of(data, found) == found:
            return data
    except ModelFileError as error:
        raise type(error)(f"{name}: {error}") from None
    raise TamperedModelError(
        f"{name}: the file has changed since it was loaded (fingerprint {found[:12]}… instead of "
        f"{fingerprint[:12]}…): give a new model a new name, then load it"
    )


def _open_foreign(data: bytes, origin: Origin, foreign: Foreign) -> LoadedFile:
    """The same for a file of somebody else, which is checked by a trial run instead of by its signature."""
    options = origin.options
    if any(key.startswith(PREFIX) for key in metadata_of(data)):
        raise InputError("this file was written by rnncore and knows its states: load it without states=")
    of_file, folder = _foreign_fingerprint(data, origin)
    session = _session(data, options, folder)
    signature, adapter = read_graph(session, foreign)
    layout = Layout.of(signature, options.max_steps, adapter)
    fingerprint = fingerprint_as_loaded(of_file, signature, adapter)
    engine = Engine(session, layout, fingerprint, lambda: _reopened(origin, of_file), options.max_batch_steps)
    return LoadedFile(engine, {}, {}, fingerprint, of_file, origin)


def _foreign_fingerprint(data: bytes, origin: Origin) -> tuple[str, Path | None]:
    """SHA-256 of a foreign model and of the weights beside it, and the folder of these, None without."""
    folder, weights = folder_of_foreign_weights(data, origin.source)
    return digest(data if folder is None else digest(data).encode() + weights.encode()), folder


def _session(data: bytes, options: Options, folder: Path | None) -> InferenceSession:
    return open_session(data, threads=options.threads, arena=options.arena, folder=folder)


def _reopened(origin: Origin, fingerprint: str) -> InferenceSession:
    """A session for a forked child."""
    options = origin.options
    check_threads(options.threads)
    data = read_again(origin, fingerprint)
    if options.foreign is not None:
        folder = _foreign_fingerprint(data, origin)[1]
    else:
        folder = folder_of_weights(data, metadata_of(data), origin.source)
    session = _session(data, options, folder)
    logger.info("model %s… opened again in the forked process %d", fingerprint[:12], os.getpid())
    return session


def _check_format_version(metadata: dict[str, str]) -> None:
    """Comes before the fingerprint: a newer format may compute it in another way."""
    text = _entry(metadata, "rnncore.format_version")
    try:
        version = int(text)
    except ValueError:
        raise ModelFileError(f"rnncore.format_version in the file is {text!r}, expected a number") from None
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"the file has format {version}, this rnncore reads formats up to {FORMAT_VERSION}: upgrade rnncore"
        )
    if version < 1:
        raise ModelFileError(f"rnncore.format_version in the file is {version}, expected 1 to {FORMAT_VERSION}")


def _checked_fingerprint(data: bytes, metadata: dict[str, str]) -> str:
    stored = _entry(metadata, FINGERPRINT_KEY)
    actual = fingerprint_of(data, stored)
    if actual != stored:
        raise TamperedModelError(
            f"weights or graph were changed after export (fingerprint {actual[:12]}…, the file says {stored[:12]}…): "
            "copy or export the file again"
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
