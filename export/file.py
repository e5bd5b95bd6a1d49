"""Check a model and write it with its fingerprint."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn

from rnncore.export.lowering.unique_names import make_names_unique
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, InputError, ModelFileError
from rnncore.runtime.format.atomic import replacing_with_companions, target_of
from rnncore.runtime.format.container import FINGERPRINT_KEY, metadata_of, replace_metadata, stamp
from rnncore.runtime.format.external_data import WEIGHTS_KEY, WeightsFile
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.signature import BLANK_FINGERPRINT
from rnncore.runtime.format.structure import Structure

LARGEST_FILE = 1_900_000_000
"""Bytes of weights that go into the model file itself, at most: a protobuf message ends at 2 GiB."""

_STAYS_INSIDE = 1024
"""Tensors of fewer bytes stay in the model file: sizes and axes are among them, which shape inference reads."""


_HASH_DIGITS = 16
_LONGEST_NAME = 255
_BEFORE_HASHES = ".data"  # what the second file had behind its name before that held a hash


def named(path: str | os.PathLike[str]) -> Path:
    """``path``, as callers write it.

    Raises InputError if it is none, such as the example, which ``torch.onnx.export`` takes in its place.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"path is a {type(path).__name__}, expected the name of the file to write, which comes right after the model: "
            f'export(model, "model.onnx", example)'
        )
    return Path(path)


def writable(path: Path, *, external: bool) -> Path:
    """The file that an export to ``path`` writes: ``path``, or what it leads to if it is a link.

    Raises InputError if it cannot be written: checked before the work.
    """
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} does not exist; create it first")
    target = target_of(path)
    if not target.parent.is_dir():
        raise InputError(f"{path} is a link to {target}, whose folder does not exist; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"the folder {target.parent} cannot be written by this user")
    longest = _LONGEST_NAME - (len(_weights_name("", "0" * 64)) if external else 0)
    if len(os.fsencode(target.name)) > longest:
        raise InputError(f"the name of {target} has more than {longest} bytes: choose a shorter one")
    if external and ("\\" in target.name or not target.name.isprintable()):
        raise InputError(f"the second file cannot be named after {target.name!r}: use plain characters")
    return target


@contextmanager
def saving(target: Path) -> Iterator[Path]:
    """Yield a temporary path for a model file, with its weights beside it if they are in a second one; then publish both.

    Raises ExportError when they cannot be written.
    """
    former = _former_weights(target)
    own = re.escape(target.name) + rf"\.[0-9a-f]{{{_HASH_DIGITS}}}\.data"
    names = own if former is None else f"{own}|{re.escape(former)}"
    try:
        with replacing_with_companions(target, re.compile(names)) as new:
            yield new.path
            new.needs = _companions(new.path)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}") from error


def in_one_file(file: Path, data: bytes) -> bytes:
    """``data``, the bytes of ``file``, with the weights that it has in other files, and without a word about such files."""
    if not Structure.of(data, Limits()).outside and WEIGHTS_KEY not in metadata_of(data):
        return data
    try:
        model = onnx.load(file)
        kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != WEIGHTS_KEY]
        del model.metadata_props[:]
        for key, value in kept:
            model.metadata_props.add(key=key, value=value)
        return model.SerializeToString()
    except Exception as error:
        pass_on_interruption(error)
        raise ModelFileError(f"{file}: the weights in its other files cannot be read into one file: {error}") from error


def weights_of(path: Path) -> Path | None:
    """The second file of the model file at ``path``; None if its weights are all inside."""
    return next((path.with_name(name) for name in _companions(path)), None)


def write_model(model: ir.Model, path: Path, *, external: bool = False) -> None:
    """Check ``model`` in full and write it to ``path`` with its fingerprint; ``external``: weights to a file beside it."""
    make_names_unique(model.graph)
    weights = _unload(model, path) if external else None
    if weights is not None:
        model.metadata_props[WEIGHTS_KEY] = weights.to_json()
    proto = ir.to_proto(model)
    if weights is not None:
        _rename(proto.graph, weights.file)
    data = proto.SerializeToString()
    try:
        if weights is not None:  # the checker finds the weights by the path of the model only
            path.write_bytes(data)
            onnx.checker.check_model(path, full_check=True)
        else:
            onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker rejects the graph: {error}") from error
    path.write_bytes(stamp(data))


def _unload(model: ir.Model, path: Path) -> WeightsFile | None:
    """Write the weights to a file beside ``path`` whose name holds their hash: other weights never have the same name.

    None, and no file, if all are so small that they stay inside.
    """
    file = path.with_name("weights")
    ir.external_data.unload_from_model(model, path.parent, file.name, size_threshold_bytes=_STAYS_INSIDE)
    if not file.exists() or not file.stat().st_size:
        file.unlink(missing_ok=True)
        return None
    found = WeightsFile.of(file)
    named = WeightsFile(_weights_name(path.name, found.sha256), found.size, found.sha256)
    file.replace(path.with_name(named.file))
    return named


def _weights_name(model: str, sha256: str) -> str:
    return f"{model}.{sha256[:_HASH_DIGITS]}.data"


def _rename(graph: onnx.GraphProto, file: str) -> None:
    for tensor in _tensors(graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = file


def _tensors(graph: onnx.GraphProto) -> Iterable[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _companions(path: Path) -> set[str]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        metadata = metadata_of(data)
    return {WeightsFile.from_json(metadata[WEIGHTS_KEY]).file} if WEIGHTS_KEY in metadata else set()


def _former_weights(target: Path) -> str | None:
    """The second file of the model that ``target`` is now, if its name is of the time before it held a hash."""
    former = target.name + _BEFORE_HASHES
    if not target.with_name(former).is_file() or not target.is_file():
        return None
    try:
        return former if former in _companions(target) else None
    except (OSError, ValueError):  # not ours, or cut short
        return None


def check_size(module: nn.Module, external: bool | None, *, int8: bool) -> bool:
    """Whether the weights of ``module`` go to a second file; ``external`` is what the caller wants, None if it is all the same.

    Raises InputError when they must and cannot.
    """
    tensors = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size <= LARGEST_FILE and not external:
        return False
    if external is False:
        raise InputError(
            f"the weights are {size / 1e9:.1f} GB, one ONNX file holds {LARGEST_FILE / 1e9:.1f}: leave external_data out, "
            "and they go to a second file beside it"
        )
    if int8:
        raise InputError(
            f"quantize='int8' starts from one float32 file of up to {LARGEST_FILE / 1e9:.1f} GB, these weights are "
            f"{size / 1e9:.1f} GB: "
            + ("leave external_data out" if size <= LARGEST_FILE else "export without quantize")
        )
    return True


def write_entries(path: Path, entries: Mapping[str, str]) -> None:
    """Set metadata entries of the file at ``path``; the graph, which was checked, stays as it is, byte for byte."""
    data = replace_metadata(path.read_bytes(), {**entries, FINGERPRINT_KEY: BLANK_FINGERPRINT})
    path.write_bytes(stamp(data))
