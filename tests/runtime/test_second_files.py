"""Weights in a second file, on the functions that read them: which file it may be, and what it must hold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnncore.runtime.errors import ForeignModelError, ModelFileError, NotOnnxError, TamperedModelError
from rnncore.runtime.format.external_data import (
    WEIGHTS_KEY,
    WeightsFile,
    hash_of_weights,
    read_foreign_weights,
    read_weights,
)
from rnncore.runtime.format.limits import DEFAULT_LIMITS
from rnncore.runtime.format.tensors import Outside

DATA = bytes(range(40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "w").write_bytes(DATA)
    return tmp_path


def tensor(location: str = "w", offset: int = 0, size: int = 40) -> Outside:
    return Outside("the tensor 'a'", location, offset, size, False)


def said(folder: Path, **changes: object) -> dict[str, str]:
    """What the metadata say of the second file."""
    return {WEIGHTS_KEY: json.dumps(json.loads(WeightsFile.of(folder / "w").to_json()) | changes)}


def test_what_a_file_says_of_its_weights(folder: Path) -> None:
    weights = WeightsFile.of(folder / "w")
    assert weights == WeightsFile("w", 40, hashlib.sha256(DATA).hexdigest())
    assert WeightsFile.from_json(weights.to_json()) == weights and " " not in weights.to_json()
    for text in (
        "{",
        "[]",
        '{"file": "w", "size": 3}',
        '{"file": "w", "size": "x", "sha256": ""}',
        "7",
        '{"size": 1e999}',
    ):
        with pytest.raises(
            ModelFileError, match=r"^rnncore.weights in the file makes no sense: export the model again$"
        ):
            WeightsFile.from_json(text)


def test_ours_are_read_where_they_are_what_was_exported(folder: Path) -> None:
    source = str(folder / "m.onnx")
    found = read_weights([tensor(), tensor(offset=39, size=1)], said(folder), source, DEFAULT_LIMITS)
    assert list(found) == ["w"] and found["w"].tobytes() == DATA
    assert read_weights([], {}, source, DEFAULT_LIMITS) == {}
    for metadata, message in (
        (said(folder, size=41), r"w have 40 bytes, the model was exported with 41: copy both files again$"),
        (said(folder, sha256="0" * 64), r"w are not those the model was exported with: copy both files again$"),
        (said(folder, file="v"), r"^the graph reads weights from 'w', which rnncore did not write$"),
        ({}, r"^the graph reads weights from 'w', which rnncore did not write$"),
    ):
        with pytest.raises(TamperedModelError, match=message):
            read_weights([tensor()], metadata, source, DEFAULT_LIMITS)
    with pytest.raises(
        ModelFileError, match=r"has 40 bytes, limits.weights_bytes allows 39: .*Limits\(weights_bytes=40\)"
    ):
        read_weights([tensor()], said(folder), source, replace(DEFAULT_LIMITS, weights_bytes=39))
    with pytest.raises(
        ModelFileError, match=r"weights in a second file, 'w': load it from its path, with that file beside it$"
    ):
        read_weights([tensor()], said(folder), b"", DEFAULT_LIMITS)
    with pytest.raises(
        NotOnnxError, match=r"^the tensor 'a' ends at byte 41 of 'w', which has 40: copy both files again$"
    ):
        read_weights([tensor(offset=1)], said(folder), source, DEFAULT_LIMITS)


def test_those_of_others_are_all_within_one_limit(folder: Path) -> None:
    (folder / "v").write_bytes(b"abc")
    source, both = str(folder / "m.onnx"), [tensor(), tensor("v", 1, 2)]
    found = read_foreign_weights(both, source, replace(DEFAULT_LIMITS, weights_bytes=43))
    assert {name: data.tobytes() for name, data in found.items()} == {"v": b"abc", "w": DATA}
    assert read_foreign_weights([], b"", DEFAULT_LIMITS) == {}
    with pytest.raises(ModelFileError, match=r"w has 40 bytes, limits.weights_bytes allows 39: if you trust it"):
        read_foreign_weights(both, source, replace(DEFAULT_LIMITS, weights_bytes=42))
    with pytest.raises(ModelFileError, match="second file, 'v': load it from its path"):
        read_foreign_weights(both, b"", DEFAULT_LIMITS)
    with pytest.raises(NotOnnxError, match=r"ends at byte 4 of 'v', which has 3"):
        read_foreign_weights([tensor("v", 1, 3)], source, DEFAULT_LIMITS)


@pytest.mark.parametrize("name", ["", ".", "..", "../w", "/etc/hostname", "in/w", "in\\w", "w/"])
def test_other_places_are_refused_by_name(name: str, folder: Path) -> None:
    with pytest.raises(
        ForeignModelError, match=r"^the graph reads weights from .*, expected a file in the model's own folder$"
    ):
        read_foreign_weights([tensor(name)], str(folder / "m.onnx"), DEFAULT_LIMITS)


def test_links_are_followed_within_the_folder_and_no_further(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "w").write_bytes(DATA)
    (folder / "inside").symlink_to("w")
    (folder / "out").symlink_to(elsewhere / "w")
    source = str(folder / "m.onnx")
    assert read_foreign_weights([tensor("inside")], source, DEFAULT_LIMITS)["inside"].tobytes() == DATA
    with pytest.raises(ForeignModelError, match=r"out are a link out of the model's own folder: copy the file there$"):
        read_foreign_weights([tensor("out")], source, DEFAULT_LIMITS)
    with pytest.raises(NotOnnxError, match=r"none, which is not there: copy both files$"):
        read_foreign_weights([tensor("none")], source, DEFAULT_LIMITS)
    (elsewhere / "link.onnx").symlink_to(folder / "m.onnx")  # beside the link first, then where it leads
    (elsewhere / "w").write_bytes(bytes(40))
    assert read_foreign_weights([tensor()], str(elsewhere / "link.onnx"), DEFAULT_LIMITS)["w"].tobytes() == bytes(40)
    (elsewhere / "w").unlink()
    assert read_foreign_weights([tensor()], str(elsewhere / "link.onnx"), DEFAULT_LIMITS)["w"].tobytes() == DATA


def test_one_hash_for_several_files() -> None:
    a, b = np.arange(3, dtype=np.uint8), np.arange(4, dtype=np.uint8)
    both = hash_of_weights({"a": a, "b": b})
    lines = "".join(f"{name}\0{hashlib.sha256(data.tobytes()).hexdigest()}\n" for name, data in (("a", a), ("b", b)))
    assert both == hashlib.sha256(lines.encode()).hexdigest() == hash_of_weights({"b": b, "a": a})
    assert both != hash_of_weights({"a": b, "b": a}) and len({both, hash_of_weights({"a": a})}) == 2
