"""Checkpoint files: plain data, whole or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rnncore.runtime.errors import TrainingError
from rnncore.runtime.format.atomic import replacing
from rnncore.training import Checkpoint, Trainer
from tests.training.small import CORPUS, assert_same_bits, trainer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    trainer(checkpoint=path, source={"corpus": None, "held_out": 0.05}).run()
    return path


def test_it_is_plain_data(saved: Path) -> None:
    data = torch.load(saved, weights_only=True)
    assert data["source"] == {"corpus": None, "held_out": 0.05}
    assert isinstance(data["model_config"], str)


def test_round_trip(saved: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved)
    checkpoint.save(tmp_path / "again.pt")
    again = Checkpoint.load(tmp_path / "again.pt")
    assert_same_bits(again, checkpoint)
    assert (again.model_config, again.vocabulary, again.corpus_digest, again.source) == (
        checkpoint.model_config,
        checkpoint.vocabulary,
        checkpoint.corpus_digest,
        checkpoint.source,
    )


@pytest.mark.parametrize("keep", [0, 1, 100, -1000, -1])
def test_truncated_files_are_refused(saved: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(TrainingError, match=r"cut\.pt is not a checkpoint"):
        Checkpoint.load(path)


def test_other_files_are_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    for content in ({"weights": torch.zeros(3)}, [1, 2], 7):
        torch.save(content, path)
        with pytest.raises(TrainingError, match=r"other\.pt is not a checkpoint of rnncore"):
            Checkpoint.load(path)
    data = torch.load(saved, weights_only=True)
    torch.save({**data, "format": 3}, path)
    with pytest.raises(TrainingError, match="checkpoint format 3, this rnncore reads 2"):
        Checkpoint.load(path)
    torch.save({**data, "position": {"epoch": 1}}, path)
    with pytest.raises(TrainingError, match="not a checkpoint"):
        Checkpoint.load(path)
    with pytest.raises(FileNotFoundError):
        Checkpoint.load(tmp_path / "missing.pt")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        Checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_that_does_not_fit_itself_is_refused(saved: Path) -> None:
    checkpoint = Checkpoint.load(saved)
    weights = dict(checkpoint.model)
    weights["head.bias"] = torch.zeros(3)
    for broken in (
        replace(checkpoint, model=weights),
        replace(checkpoint, carried=[torch.zeros(3, 13)]),
        replace(checkpoint, optimizer={"state": {}, "param_groups": []}),
    ):
        with pytest.raises(TrainingError, match="does not fit its own model"):
            Trainer.resume(broken, CORPUS, device="cpu")


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_new_files_can_be_read_by_those_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "file"):
        pass
