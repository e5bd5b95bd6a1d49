"""Mutation testing of the product's own source by mutmut, package by package; ``scripts/mutation`` is this command.

mutmut changes each function in many small ways (``<`` to ``<=``, ``a`` to ``None``, ``+`` to ``-`` ...) and runs, for each
change, the tests that call the function.  A change that no test sees has survived: a test is missing, or it makes no
difference.  All of it happens in a copy of the tree.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from mutation_packages import PACKAGES, Package

ROOT = Path(__file__).parents[1]
COPIED = ("tests", "docs", "README.md")
CAUGHT = ("killed", "timeout", "segfault", "caught by type check")
TIME_LIMIT_S = 900.0
"""For the tests of one mutant in place: some loop for ever."""


def main() -> int:
    """Mutate, test, print a line of the table and the survivors of each package."""
    parser = argparse.ArgumentParser(prog="scripts/mutation", description=__doc__.split("\n\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; all by default")
    parser.add_argument("--sample", type=int, help="so many mutants of each package, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="these tests instead of those of the package")
    parser.add_argument("--files", nargs="+", default=["*"], metavar="GLOB", help="these modules of the package only")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.packages) - set(PACKAGES))
    if unknown:
        parser.error(f"there is no package {', '.join(unknown)}; there are: {', '.join(PACKAGES)}")
    for name in arguments.packages or PACKAGES:
        package = PACKAGES[name]
        tests = arguments.tests or [test for test in package.tests if (ROOT / test).exists()]
        with tempfile.TemporaryDirectory(prefix="rnncore-mutation-") as folder:
            tree = Path(folder)
            left_out = [f"{package.source}/{name}.py" for name in package.left_out]
            mutated = [f"{package.source}/{glob}.py" for glob in arguments.files]
            copy_tree(tree, mutated, tests, left_out, package.deselected)
            names = [name for name in all_mutants(tree) if not runs_at_import(name)]
            chosen = names if arguments.sample is None else sample(names, arguments.sample, arguments.seed)
            found = test_in_place(tree, chosen, package) if package.in_place else test_mutants(tree, chosen)
            report(name, len(names), found, tree)
    return 0


def pytest(tree: Path, *tests: str, limit_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy on the copy, until one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "fast", "PYTHONPATH": str(tree)}
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=limit_s
    )


def copy_tree(
    tree: Path,
    mutated: Sequence[str],
    tests: Sequence[str],
    left_out: Sequence[str] = (),
    deselected: Sequence[str] = (),
) -> None:
    """The three folders where an installed package has them, since mutmut names modules by their paths."""
    leave = shutil.ignore_patterns("__pycache__", ".hypothesis")
    shutil.copytree(ROOT / "rnncore", tree / "rnncore", ignore=leave)
    for part in ("export", "runtime"):
        shutil.copytree(ROOT / part, tree / "rnncore" / part, ignore=leave)
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, tree / name, ignore=leave) if source.is_dir() else shutil.copy(source, tree / name)
    settings = {
        "source_paths": ["rnncore"],
        "only_mutate": list(mutated),
        "do_not_mutate": list(left_out),
        "also_copy": list(COPIED),
        "pytest_add_cli_args_test_selection": list(tests),
        "pytest_add_cli_args": [
            *("-p", "no:cacheprovider", "-p", "no:xdist"),
            *(part for test in deselected for part in ("--deselect", test)),
        ],
        "timeout_constant": 30.0,
    }
    lines = [f"{key} = {value!r}" for key, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tree / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")


def all_mutants(tree: Path) -> list[str]:
    """Write all mutants, run the tests once to see which call what; the names of the mutants, in order."""
    mutmut(tree, "run", "none of them", may_fail=True)
    return sorted(status_of(tree))


def runs_at_import(name: str) -> bool:
    """Whether only lines outside all functions call a private function: it has run before any mutant is switched on."""
    path, _, mutated = name.partition(".x_")
    function = mutated.rpartition("__mutmut_")[0]
    if not function.startswith("_"):
        return False
    module = ast.parse((ROOT / Path(*path.split(".")[1:]).with_suffix(".py")).read_text(encoding="utf-8"))
    inside = [node for part in ast.walk(module) if isinstance(part, ast.FunctionDef) for node in ast.walk(part)]
    callers = {node.id for node in inside if isinstance(node, ast.Name)}
    everywhere = [node.id for node in ast.walk(module) if isinstance(node, ast.Name)]
    return function in everywhere and function not in callers


def sample(names: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` of the names, the same ones for the same seed."""
    return sorted(random.Random(seed).sample(list(names), min(count, len(names))))


def test_mutants(tree: Path, names: Sequence[str]) -> dict[str, str]:
    """What became of each: "killed", "survived", "timeout", "no tests" ..."""
    mutmut(tree, "run", "--max-children", "1", *names)
    found = status_of(tree)
    return {name: found[name] for name in names}


def test_in_place(tree: Path, names: Sequence[str], package: Package) -> dict[str, str]:
    """As :func:`test_mutants`, each mutant written into the copy in place of its function."""
    found: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        module = name.partition(".x")[0]
        file = tree / Path(*module.split(".")).with_suffix(".py")
        as_it_is = file.read_text(encoding="utf-8")
        mutmut(tree, "apply", name)
        inside = file.relative_to(tree / package.source).with_suffix("").as_posix()
        tests = next(own for glob, own in package.in_place.items() if fnmatch(inside, glob))
        try:
            code = pytest(tree, *tests, limit_s=TIME_LIMIT_S).returncode
            found[name] = {0: "survived", 1: "killed"}.get(code, f"pytest ended with {code}")
        except subprocess.TimeoutExpired:
            found[name] = "timeout"
        file.write_text(as_it_is, encoding="utf-8")
        print(f"{number} of {len(names)}: {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def status_of(tree: Path) -> dict[str, str]:
    """Mutants by name, those that were not run too."""
    lines = mutmut(tree, "results", "--all", "true").splitlines()
    found = [line.strip().rpartition(": ") for line in lines if line.startswith("    ")]
    return {name: status for name, _, status in found}


def report(package: str, count: int, found: dict[str, str], tree: Path) -> None:
    """A line of the table of docs/mutation.md, then the survivors as diffs."""
    killed = sum(status in CAUGHT for status in found.values())
    print(f"| {package} | {count} | {len(found)} | {killed} | {len(found) - killed} | {killed / len(found):.0%} |")
    print(f"  {dict(Counter(found.values()))}")
    survivors = {name: mutmut(tree, "show", name) for name, status in found.items() if status not in CAUGHT}
    lengths = sum(only_lengths(diff) for diff in survivors.values())
    print(f"  of the survivors {lengths} change nothing but zip(strict=...)")
    for name, diff in survivors.items():
        print(f"\n## {name}: {found[name]}\n{diff}", flush=True)


def only_lengths(diff: str) -> bool:
    """Whether a mutant differs in what ``zip`` does with sequences of different lengths, and in nothing else."""
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    bare = [re.sub(r",? ?strict=\w+,? ?", "", line[1:]).replace(", )", ")") for line in lines]
    return len(bare) == 2 and bare[0] == bare[1] and lines[0] != lines[1]


def mutmut(tree: Path, *command: str, may_fail: bool = False) -> str:
    """Its output; its progress goes to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *command],
        cwd=tree,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "fast", "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not (may_fail and "nothing matches" in done.stderr):
        sys.exit(
            f"mutmut {' '.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
