"""The sdist holds every file of the repository, and the wheel built from it the three packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"rnncore": "rnncore", "export": "rnncore/export", "runtime": "rnncore/runtime"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def built(kind: str, source: Path, target: Path) -> Path:
    code = f"import sys, setuptools.build_meta as build; print(build.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, target], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def test_the_sdist_is_whole_and_makes_the_wheel(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout: nothing says which files belong to the repository")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    files = {name for name in listed if name and (ROOT / name).is_file()}
    for name in files:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    sdist = built("sdist", tmp_path / "tree", tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    held = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert sorted(files - held) == []
    with ZipFile(built("wheel", unpacked, tmp_path)) as wheel:
        inside = set(wheel.namelist())
    for folder, package in FOLDERS.items():
        wanted = {name.replace(folder, package, 1) for name in files if name.startswith(f"{folder}/")}
        assert sorted(name for name in wanted - inside if not name.endswith("ruff.toml")) == []
