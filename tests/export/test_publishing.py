"""A file that takes the place of another: at any moment one of the two is there, whole, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from rnncore import runtime
from rnncore.export import ExportReport, export, export_generator
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.format.atomic import replacing
from rnncore.runtime.format.workplace import only_one, remove_leftovers, workplace
from tests.export.publish import publish

ROOT = Path(__file__).resolve().parents[2]
FEATURES = 5


class Net(torch.nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rnn = torch.nn.GRU(FEATURES, 19, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0]


def written(path: Path, seed: int = 0, **options: object) -> ExportReport:
    return export(Net(seed).eval(), path, torch.randn(2, 4, FEATURES), verify=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with their second files, a/m.onnx and b/m.onnx."""
    folder = tmp_path_factory.mktemp("two")
    for seed, name in enumerate("ab"):
        (folder / name).mkdir()
        written(folder / name / "m.onnx", seed, external_data=True)
    return folder


@pytest.mark.parametrize("what", ["kills", "races"])
def test_readers_meet_a_whole_pair(what: str, two: Path) -> None:
    shutil.rmtree(two / "here", ignore_errors=True)
    (two / "here").mkdir()
    command = [sys.executable, "-m", "tests.export.publish", what, str(two)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"] == 2, "what was left over is gone"
    if what == "kills":
        assert found["wrong"] == 0, done.stderr
        assert found["points"] > 20 and found["most files"] > 2, "it was killed in the middle of things"
    else:
        assert found["failed"] == 0, done.stderr


def test_a_second_file_that_goes_just_after_it_was_seen(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange that falls between two looks of a reader: the reader begins again with the new file."""
    new = [(file.name, file.read_bytes()) for file in (two / "b").iterdir()]
    shutil.copytree(two / "a", tmp_path, dirs_exist_ok=True)
    exists = Path.exists

    def exchanged(self: Path, **options: bool) -> bool:
        found = exists(self, **options)
        if self.suffix == ".data" and self.parent == tmp_path and new:
            self.unlink()
            while new:
                name, data = new.pop()
                (tmp_path / name).write_bytes(data)
        return found

    monkeypatch.setattr(Path, "exists", exchanged)
    x = np.ones((1, 3, FEATURES), np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(x)
    assert not new
    np.testing.assert_array_equal(found, runtime.load(two / "b" / "m.onnx").run(x))


def test_a_loaded_model_does_not_change_with_its_files(two: Path, tmp_path: Path) -> None:
    for file in (two / "a").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = runtime.load(tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((2, 7, FEATURES)).astype(np.float32)
    before = model.run(x)
    for file in tmp_path.iterdir():
        file.write_bytes(bytes(file.stat().st_size))  # into the same file, not a new one of that name
        np.testing.assert_array_equal(model.run(x), before)
        os.truncate(file, 0)
        np.testing.assert_array_equal(model.run(x), before)


def test_the_second_file_of_before_goes_last(two: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    names = {name: {file.name for file in (two / name).iterdir()} for name in "ab"}
    for name in "aabba":
        publish(two / name, path)
        assert {file.name for file in tmp_path.iterdir()} == names[name]
    others = {"m.onnx.data", "m.onnx.0123.data", "n.onnx.0123456789abcdef.data"}
    for other in others:
        (tmp_path / other).write_text("of somebody else")
    assert written(path).weights_path is None
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", *others}
    runtime.load(path)


def test_pairs_of_before_there_were_hashes_load_and_are_replaced(two: Path, tmp_path: Path) -> None:
    from rnncore.runtime.format.container import FINGERPRINT_KEY, metadata_of, replace_metadata, stamp
    from rnncore.runtime.format.external_data import WEIGHTS_KEY
    from rnncore.runtime.format.signature import BLANK_FINGERPRINT

    path = tmp_path / "m.onnx"
    data = (two / "a" / "m.onnx").read_bytes()
    entry = json.loads(metadata_of(data)[WEIGHTS_KEY])
    new = entry["file"]
    entry["file"] = "m.onnx.data" + "x" * (
        len(new) - len("m.onnx.data")
    )  # as long, so that the graph need not be rebuilt
    data = data.replace(new.encode(), entry["file"].encode())
    data = replace_metadata(data, {WEIGHTS_KEY: json.dumps(entry), FINGERPRINT_KEY: BLANK_FINGERPRINT})
    path.write_bytes(stamp(data))
    (tmp_path / entry["file"]).write_bytes((two / "a" / new).read_bytes())
    x = np.ones((1, 3, FEATURES), np.float32)
    np.testing.assert_array_equal(runtime.load(path).run(x), runtime.load(two / "a" / "m.onnx").run(x))


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "circle", "socket", "nul", "file in the way", "long"])
def test_what_no_file_may_replace_is_refused_before_the_work(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnncore.export.stages.Example.of", lambda *_: pytest.fail("the work has begun"))
    path = tmp_path / "m.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path(os.devnull)
    elif kind == "circle":
        path.symlink_to("n.onnx")
        (tmp_path / "n.onnx").symlink_to("m.onnx")
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(tmp_path)
            listener.bind("m.onnx")
    elif kind == "nul":
        path = tmp_path / "a\0b"
    elif kind == "file in the way":
        path.touch()
        path = path / "m.onnx"
    else:
        path = tmp_path / ("m" * 300)
    before = path.lstat() if kind not in ("nul", "file in the way", "long") else None
    for write in (written, lambda where: export_generator("none.onnx", where, start=0, end=1)):
        with pytest.raises((InputError, ExportError)) as caught:
            write(path)
        assert len(str(caught.value).splitlines()) <= 12
    if before is not None:
        assert os.path.samestat(path.lstat(), before)


def test_links_and_modes_stay(two: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.onnx", tmp_path / "link.onnx"
    link.symlink_to(Path("elsewhere") / "real.onnx")
    for mode in (0o600, 0o644, 0o640, 0o444):
        real.touch()
        real.chmod(mode)
        weights = written(link, mode, external_data=True).weights_path
        assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == mode
        assert weights is not None and weights.parent == real.parent
        assert stat.S_IMODE(weights.stat().st_mode) == mode
        np.testing.assert_array_equal(
            runtime.load(link).run(X := np.ones((1, 2, FEATURES), "f")), runtime.load(real).run(X)
        )
    real.unlink()
    for file in real.parent.iterdir():
        file.unlink()
    written(link)  # a link to what is not there yet
    assert link.is_symlink() and real.is_file()


def test_only_abandoned_workplaces_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    with workplace(target) as running:
        dead = tmp_path / ".m.onnx.0123456789abcdef.part"
        dead.mkdir()
        (dead / ".lock-of-rnncore").touch()
        (dead / "m.onnx").write_text("half")
        others = [tmp_path / name for name in (".n.onnx.0123456789abcdef.part", ".m.onnx.mine.part", ".m.onnx.part")]
        for other in others:
            other.mkdir()
            (other / ".lock-of-rnncore").touch()
        remove_leftovers(target)
        assert sorted(tmp_path.iterdir()) == sorted([running, *others])
        old = tmp_path / ".m.onnx.ab12_xyz.part"  # of a version without locks
        old.touch()
        remove_leftovers(target)
        assert old.exists(), "somebody may be writing it"
        os.utime(old, (0, 0))
        remove_leftovers(target)
        assert not old.exists()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_folder_that_is_locked_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(TimeoutError, match="has held the lock"), only_one(tmp_path, wait_s=0.05):
        pass
    with only_one(tmp_path):
        pass


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    target, problems = tmp_path / "file", []

    def write(text: str) -> None:
        try:
            for _ in range(30):
                with replacing(target) as temporary:
                    temporary.write_text(text)
                if target.read_text() not in ("a" * 999, "b" * 999, "c" * 999):
                    problems.append(text[0])
        except BaseException as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=write, args=(letter * 999,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and list(tmp_path.iterdir()) == [target]
