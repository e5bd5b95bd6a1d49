"""Weights in a second file beside the model: what a file that is too large for one protobuf message has.

A graph names the files that its tensors are in, and onnxruntime opens what it names.  So every name is read from the bytes
first: the one file that rnncore wrote and took the hash of, or, in a file of somebody else, files in the model's own folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rnncore.runtime.errors import ForeignModelError, ModelFileError, NotOnnxError, TamperedModelError
from rnncore.runtime.format.protobuf import external_locations

WEIGHTS_KEY = "rnncore.weights"
_BLOCK = 1 << 22


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
        except (ValueError, TypeError, KeyError):
            raise ModelFileError(f"{WEIGHTS_KEY} in the file makes no sense: export the model again") from None
        return weights

    def to_json(self) -> str:
        """The text for the metadata of the model file."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def check(self, folder: Path) -> None:
        """Raise unless the file lies in ``folder`` and holds what it held at export."""
        path = _inside(folder, self.file)
        size = path.stat().st_size
        if size != self.size:
            raise TamperedModelError(
                f"the weights in {path} have {size} bytes, the model was exported with {self.size}: copy both files again"
            )
        if _hash(path) != self.sha256:
            raise TamperedModelError(
                f"the weights in {path} are not those the model was exported with: copy both files again"
            )


def folder_of_weights(data: bytes, metadata: Mapping[str, str], source: str | bytes) -> Path | None:
    """The folder from which onnxruntime may read weights of our model ``data``, checked; None if they are all inside.

    Raises:
        TamperedModelError: the weights have changed, or the graph names a file that rnncore did not write.
        ModelFileError: the file with the weights is missing, or the model was handed in as bytes and has no folder.
    """
    named = external_locations(data)
    weights = WeightsFile.from_json(metadata[WEIGHTS_KEY]) if WEIGHTS_KEY in metadata else None
    strangers = sorted(named - ({weights.file} if weights is not None else set()))
    if strangers:
        raise TamperedModelError(f"the graph reads weights from {strangers[0]!r}, which rnncore did not write")
    if weights is None:
        return None
    folder = _folder(source, weights.file)
    weights.check(folder)
    return folder


def folder_of_foreign_weights(data: bytes, source: str | bytes) -> tuple[Path | None, str]:
    """The same for a model of somebody else: (folder, SHA-256 of its weights), each file being in the folder of the model."""
    named = external_locations(data)
    if not named:
        return None, ""
    folder = _folder(source, min(named))
    return folder, hash_of_files(folder, named)


def hash_of_files(folder: Path, names: Collection[str]) -> str:
    """One SHA-256 for several files in ``folder``."""
    both = hashlib.sha256()
    for name in sorted(names):
        both.update(f"{name}\0{_hash(_inside(folder, name))}\n".encode())
    return both.hexdigest()


def _folder(source: str | bytes, file: str) -> Path:
    if isinstance(source, bytes):
        raise ModelFileError(
            f"the model has its weights in a second file, {file!r}: load it from its path, with that file beside it"
        )
    return Path(source).parent


def _inside(folder: Path, name: str) -> Path:
    """The file ``name`` in ``folder``, which must be there itself: no other folder, no link that leads out."""
    path = folder / name
    if not name or Path(name).name != name or "\\" in name or name in (".", ".."):
        raise ForeignModelError(f"the graph reads weights from {name!r}, expected a file in the model's own folder")
    if not path.is_file():
        raise NotOnnxError(f"the weights are in a second file, {path}, which is not there: copy both files")
    if path.resolve().parent != folder.resolve():
        raise ForeignModelError(f"the weights in {path} are a link out of the model's own folder: copy the file there")
    return path


def _hash(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
