"""Weights in a second file beside the model: what a file that is too large for one protobuf message has.

A graph names the files that its tensors are in, and onnxruntime opens what it names.  So every name is read from the bytes
first: the one file that rnncore wrote and took the hash of, or, in a file of somebody else, files in the model's own folder.
The files are read into memory once, and that memory is checked and handed to onnxruntime, which copies from it what it
needs: what becomes of the files afterwards changes no answer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.errors import ForeignModelError, ModelFileError, NotOnnxError, TamperedModelError
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.reading import read_array, size_of
from rnncore.runtime.format.tensors import Outside

WEIGHTS_KEY = "rnncore.weights"
_BLOCK = 1 << 22

Contents = dict[str, NDArray[np.uint8]]
"""The bytes of each file that a graph reads weights from, by the name that the graph has for it."""


@dataclass(frozen=True)
class WeightsFile:
    """What a model file says about the file with its weights: its name in the same folder, its bytes, and their SHA-256."""

    file: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> WeightsFile:
        """What the file at ``path`` is."""
        return cls(path.name, path.stat().st_size, _hash(path))

    @classmethod
    def from_json(cls, text: str) -> WeightsFile:
        """Inverse of :meth:`to_json`; ModelFileError when the text is something else."""
        try:
            fields = json.loads(text)
            weights = cls(str(fields["file"]), int(fields["size"]), str(fields["sha256"]))
        except (ValueError, TypeError, KeyError, ArithmeticError):
            raise ModelFileError(f"{WEIGHTS_KEY} in the file makes no sense: export the model again") from None
        return weights

    def to_json(self) -> str:
        """The text for the metadata of the model file."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def read(self, folder: Path, limits: Limits) -> NDArray[np.uint8]:
        """The bytes of the file in ``folder``; TamperedModelError unless they are those of the export."""
        path = _inside(folder, self.file)
        size = size_of(path)
        if size == self.size:  # else there is nothing worth reading
            found = read_array(path, limits.weights_bytes, "weights_bytes")
            if found.size == self.size and hashlib.sha256(found.data).hexdigest() == self.sha256:
                return found
            raise TamperedModelError(
                f"the weights in {path} are not those the model was exported with: copy both files again"
            )
        raise TamperedModelError(
            f"the weights in {path} have {size} bytes, the model was exported with {self.size}: copy both files again"
        )


def read_weights(
    outside: Sequence[Outside], metadata: Mapping[str, str], source: str | bytes, limits: Limits
) -> Contents:
    """The weights of a model of ours that are in a second file, checked; empty if all are inside.

    outside: the tensors that are in other files.

    Raises:
        TamperedModelError: the weights have changed, or the graph names a file that rnncore did not write.
        ModelFileError: the file with the weights is missing or too large, or the model was handed in as bytes and has no
            folder.
    """
    named = {tensor.location for tensor in outside}
    weights = WeightsFile.from_json(metadata[WEIGHTS_KEY]) if WEIGHTS_KEY in metadata else None
    strangers = sorted(named - ({weights.file} if weights is not None else set()))
    if strangers:
        raise TamperedModelError(f"the graph reads weights from {strangers[0]!r}, which rnncore did not write")
    if weights is None:
        return {}
    contents = {weights.file: weights.read(_folder(source, weights.file), limits)}
    _check_ends(outside, contents)
    return contents


def read_foreign_weights(outside: Sequence[Outside], source: str | bytes, limits: Limits) -> Contents:
    """The same for a model of somebody else, each file being in the folder of the model."""
    named = {tensor.location for tensor in outside}
    if not named:
        return {}
    folder, contents, left = _folder(source, min(named)), {}, limits.weights_bytes
    for name in sorted(named):
        contents[name] = read_array(_inside(folder, name), left, "weights_bytes")
        left -= contents[name].size
    _check_ends(outside, contents)
    return contents


def hash_of_weights(contents: Mapping[str, NDArray[np.uint8]]) -> str:
    """One SHA-256 for several files."""
    both = hashlib.sha256()
    for name in sorted(contents):
        both.update(f"{name}\0{hashlib.sha256(contents[name].data).hexdigest()}\n".encode())
    return both.hexdigest()


def _check_ends(outside: Sequence[Outside], contents: Contents) -> None:
    for tensor in outside:
        size = contents[tensor.location].size
        if tensor.offset + tensor.size > size:
            raise NotOnnxError(
                f"{tensor.name} ends at byte {tensor.offset + tensor.size} of {tensor.location!r}, which has {size}: copy both "
                "files again"
            )


def _folder(source: str | bytes, file: str) -> Path:
    """The folder of the model; that of the file it leads to, if it is a link and the weights are not beside the link."""
    if isinstance(source, bytes):
        raise ModelFileError(
            f"the model has its weights in a second file, {file!r}: load it from its path, with that file beside it"
        )
    folder = Path(source).parent
    if os.path.islink(source) and not os.path.lexists(folder / file):
        return Path(os.path.realpath(source)).parent
    return folder


def _inside(folder: Path, name: str) -> Path:
    """The file ``name`` in ``folder``, which must be there itself: no other folder, no link that leads out."""
    path = folder / name
    if not name or Path(name).name != name or "\\" in name or name in (".", ".."):
        raise ForeignModelError(f"the graph reads weights from {name!r}, expected a file in the model's own folder")
    if not path.exists():
        raise NotOnnxError(f"the weights are in a second file, {path}, which is not there: copy both files")
    resolved = path.resolve()
    if resolved.parent != folder.resolve():
        raise ForeignModelError(f"the weights in {path} are a link out of the model's own folder: copy the file there")
    return path if resolved.name == name else resolved


def _hash(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
