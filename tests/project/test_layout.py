"""The shape of the project: what is packaged, what is public, which way the arrows run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
PUBLIC_PACKAGES = ("rnncore", "rnncore.export", "rnncore.runtime")


def packages_on_disk() -> set[str]:
    """Name every folder with Python files in it, the way it is imported."""
    found = set()
    for package, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            found.add(".".join([package, *file.parent.relative_to(ROOT / folder).parts]))
    return found


def test_every_package_folder_is_in_the_list_of_pyproject() -> None:
    assert sorted(packages_on_disk()) == sorted(SETUPTOOLS["packages"])


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_package_folder_has_an_init_file(package: str) -> None:
    home = max((p for p in FOLDERS if f"{package}.".startswith(f"{p}.")), key=len)
    inside = package.removeprefix(home).strip(".").split(".")
    assert ROOT.joinpath(FOLDERS[home], *inside, "__init__.py").is_file()


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / FOLDERS[package] / "py.typed").is_file()
    assert SETUPTOOLS["package-data"][package] == ["py.typed"]


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_all_lists_exactly_the_public_names(package: str) -> None:
    module = importlib.import_module(package)
    listed = set(module.__all__)
    assert len(module.__all__) == len(listed), "a name is listed twice"
    assert [name for name in sorted(listed) if not hasattr(module, name)] == []
    assert sorted(listed - set(dir(module))) == [], "missing in dir(): completion does not show it"

    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isroutine(value))
        and str(value.__module__).startswith("rnncore")
    }
    assert sorted(defined - listed) == [], "public, but not in __all__"


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_no_public_name_is_also_a_modules_name(package: str) -> None:
    """Importing ``package.name`` as a module binds the module in the package, and hides a name that loads when used."""
    names = importlib.import_module(package).__all__
    assert [name for name in names if importlib.util.find_spec(f"{package}.{name}")] == []


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_public_names_say_what_they_are(package: str) -> None:
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in module.__all__}
    described = {name: value for name, value in values.items() if inspect.isclass(value) or inspect.isroutine(value)}
    assert [name for name, value in described.items() if not inspect.getdoc(value)] == []


def test_import_arrows(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "linktree.py", tmp_path], check=True, capture_output=True)
    linter = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run(
        [linter, "--config", ROOT / "pyproject.toml", "--no-cache"], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def _make_real(folder: Path) -> None:
    """A folder of links to what is in the linked one, in the place of the link."""
    if not folder.is_symlink():
        return
    target = folder.resolve()
    folder.unlink()
    folder.mkdir()
    for child in target.iterdir():
        if child.name != "__pycache__":
            (folder / child.name).symlink_to(child)


# In which folder, what is written into a new module of it, and the contract that has to see it.
WRONG_IMPORTS = [
    ("rnncore/runtime", "import rnncore.cells", "Arrows"),
    ("rnncore/runtime/format", "import rnncore.runtime.model", "Inside the runtime"),
    ("rnncore/runtime", "import rnncore.runtime.errors", "Inside the runtime"),  # a module without a place
    ("rnncore/export/graph", "import rnncore.export.tracing.trace", "Inside export"),
    ("rnncore/runtime", "import rnncore.export", "Arrows"),
    ("rnncore/runtime", "import rnncore", "facade"),
    ("rnncore/runtime", "def f() -> None:\n    import torch", "bare install"),
    ("rnncore/runtime", "import onnx.checker", "bare install"),
    ("rnncore/cells", "import rnncore.export", "Arrows"),
    ("rnncore/cells", "import onnx", "install set"),
]


def test_every_planted_wrong_import_breaks_its_contract(tmp_path: Path) -> None:
    """The contracts see what they are there for: an arrow the wrong way fails, and by the right contract."""
    subprocess.run([sys.executable, ROOT / "scripts" / "linktree.py", tmp_path], check=True, capture_output=True)
    for number, (folder, planted, _) in enumerate(WRONG_IMPORTS):
        place = tmp_path / folder
        for link in [*reversed(place.relative_to(tmp_path).parents), place.relative_to(tmp_path)]:
            _make_real(tmp_path / link)
        (place / f"planted_{number}.py").write_text(planted + "\n", encoding="utf-8")

    linter = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run(
        [linter, "--config", ROOT / "pyproject.toml", "--no-cache"], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode == 1, answer.stdout + answer.stderr
    contracts = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]
    broken = answer.stdout.partition("Broken contracts")[2]
    places = sorted(
        (broken.find(f"{name}\n"), name) for name in contracts
    )  # one behind the other, each with its arrows
    ends = [start for start, _ in places[1:]] + [len(broken)]
    found = {name: broken[start:end] for (start, name), end in zip(places, ends, strict=True)}
    for number, (_, planted, contract) in enumerate(WRONG_IMPORTS):
        (section,) = [text for name, text in found.items() if contract in name]
        assert re.search(rf"planted_{number}\b", section), f"{planted} is not seen by {contract}:\n{answer.stdout}"


def test_what_only_our_own_checks_know_is_seen(tmp_path: Path) -> None:
    for folder in (
        "rnncore/text",
        "export/graph",
        "runtime/streaming",
    ):  # a part of the tree: scripts/lint reads the whole
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    checks = [
        ("private_names.py", "def f(stream):\n    return stream._reached\n", "planted.py:2: reads _reached"),
        (
            "parameters.py",
            "class _A:\n    def f(self, a, b, c, d, e, f): ...\n\n    def g(self, a, b, c, *d, e, f, **g): ...\n",
            "planted.py:4: g has 7 parameters",
        ),
    ]
    for script, planted, seen in checks:
        check = [sys.executable, ROOT / "scripts" / script, tmp_path]
        (tmp_path / "runtime" / "planted.py").write_text("", encoding="utf-8")
        assert subprocess.run(check, capture_output=True).returncode == 0
        (tmp_path / "runtime" / "planted.py").write_text(planted, encoding="utf-8")
        answer = subprocess.run(check, capture_output=True, text=True)
        assert answer.returncode == 1
        assert [line for line in answer.stdout.splitlines() if "planted" in line] == answer.stdout.splitlines()
        assert seen in answer.stdout


def test_the_linter_bans_torch_inside_the_runtime_and_says_why(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "runtime/planted.py", "-"],
        input='"""A file."""\n\nimport torch\n\nprint(torch)\n',
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 1
    assert "TID251" in answer.stdout
    assert "the runtime runs without PyTorch" in answer.stdout


@pytest.mark.parametrize("script", ["setup", "demo", "test", "check", "lint", "bench", "../.ci/run"])
def test_scripts_can_be_run(script: str) -> None:
    file = ROOT / "scripts" / script
    assert os.access(file, os.X_OK)
    assert file.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", file], check=True)


def test_a_bare_install_needs_numpy_and_onnxruntime_only() -> None:
    needed = [line for line in requires("rnncore") or [] if "extra ==" not in line]
    assert sorted(re.split(r"[^\w-]", line)[0] for line in needed) == ["numpy", "onnxruntime"]


def test_every_dependency_has_one_pinned_version_for_development() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if line and not line.startswith("#")}
    declared = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[^\w-]", line)[0].lower() for line in declared} - {"rnncore"}
    assert sorted(names - pinned) == []


@pytest.mark.parametrize(
    ("old", "new"), [("CaseResult", "Case"), ("Pick", "GatherOutput"), ("Port", "TensorSpec"), ("State", "StateSpec")]
)
def test_old_public_names_go_on_working_and_say_the_new_one(old: str, new: str) -> None:
    runtime = importlib.import_module("rnncore.runtime")
    with pytest.warns(DeprecationWarning, match=f"is now called {new}"):
        value = getattr(runtime, old)
    assert value is getattr(runtime, new)
    assert old not in runtime.__all__
