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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("tests", "docs", "README.md")
CAUGHT = ("killed", "timeout", "segfault", "caught by type check")


@dataclass(frozen=True)
class Package:
    """Where the source lies as it is installed, and the test files that concern it, fast ones."""

    source: str
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Modules in which the tool itself breaks."""
    deselected: tuple[str, ...] = ()
    """Tests that see the tool's own frames."""


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{folder}/test_{name}.py" for name in names)


PACKAGES = {
    "runtime/format": Package(
        "rnncore/runtime/format",
        (
            *_in("runtime", "atomic", "axes", "exact_limits", "golden_text", "drawn", "protobuf", "files", "limits"),
            *_in(
                "runtime",
                "options",
                "formats",
                "weights_files",
                "folding",
                "comparison",
                "second_files",
                "format_parts",
            ),
        ),
    ),
    "runtime/session": Package(
        "rnncore/runtime/session",
        (
            *_in("runtime", "session_parts", "run", "instructions", "providers", "other_systems", "options"),
            *_in("service", "threads", "row_sharing"),
        ),
    ),
    "runtime/tensors": Package(
        "rnncore/runtime/tensors",
        (
            *_in("runtime", "reading_arrays", "axes_of_slots", "contract", "batching_parts"),
            *_in("runtime", "run", "foreign", "stream", "strides", "options", "picks", "formats"),
            *_in("service", "ragged"),
        ),
    ),
    "runtime/tasks": Package(
        "rnncore/runtime/tasks",
        _in(
            "runtime_tasks",
            "task_parts",
            "decoding_parts",
            "decoding",
            "vectors",
            "claims",
            "affixes",
            "columns",
            "inputs",
        ),
    ),
    "runtime/batching": Package(
        "rnncore/runtime/batching",
        (*_in("runtime", "batching_parts", "run", "picks", "options", "strides"), *_in("service", "ragged", "slices")),
    ),
    "runtime/streaming": Package(
        "rnncore/runtime/streaming",
        (
            *_in(
                "runtime",
                "stream_parts",
                "stream",
                "strides",
                "state_rows",
                "snapshot_text",
                "bound_buffers",
                "foreign",
            ),
            *_in("runtime", "stream_machine"),
            *_in("service", "hooks", "snapshot"),
        ),
    ),
    "runtime/pool": Package(
        "rnncore/runtime/pool",
        (
            *_in(
                "service",
                "pool_parts",
                "pool_telling",
                "pool_api",
                "pool_streams",
                "slices",
                "swap_and_metrics",
                "pool",
                "admission",
                "eviction",
            ),
            *_in("ecosystem", "telemetry_numbers"),
        ),
    ),
    "export/verification": Package(
        "rnncore/export/verification",
        (
            *_in("proof", "verification_parts", "bench", "judging", "structure", "repeatable", "sizes"),
            *_in("export", "masks"),
        ),
    ),
    "export/tracing": Package(
        "rnncore/export/tracing",
        (
            *_in("export", "example_parts", "axes", "zero_states", "ranges", "id_limits", "packed"),
            *_in("export", "operators", "refusals"),
        ),
        ("packing",),  # lends the code of its functions to torch's, and the tool wraps functions in others
        (
            "tests/export/test_axes.py::test_a_module_without_a_batch_is_refused[squeezed]",
            "tests/export/test_refusals.py::test_modules_that_cannot_be_exported[complex numbers]",
        ),
    ),
    "export/lowering": Package(
        "rnncore/export/lowering",
        (
            *_in(
                "export", "graph_parts", "step_parts", "fused", "context", "names", "pick", "columns", "file_contents"
            ),
            *_in("export", "branches", "calls"),
        ),
    ),
}


@dataclass(frozen=True)
class Fault:
    """A mistake that was once planted and not seen by any test: what to write in place of what, and the test that sees it."""

    what: str
    file: str
    right: str
    wrong: str
    test: str


PLANTED = (
    Fault(
        "states of streams in several blocks overwritten by push_many",
        "runtime/streaming/state_rows.py",
        "array[row ^ 1] = values[i]",
        "array[row ^ 1] = values[0]",
        "tests/runtime/test_stream.py::test_push_many_of_streams_whose_states_lie_in_several_blocks",
    ),
    Fault(
        "ids checked in the first chunk of push_many only",
        "runtime/tensors/fast_validation.py",
        "for chunk in chunks if chunk.size]",
        "for chunk in chunks[:1]]",
        "tests/runtime/test_stream.py::test_ids_of_every_chunk_are_checked",
    ),
    Fault(
        "a push that has begun may expire",
        "runtime/pool/scheduler.py",
        "now > request.deadline and request.done == 0:",
        "now > request.deadline:",
        "tests/service/test_waiting_for_oneself.py::test_a_push_that_has_begun_does_not_expire",
    ),
    Fault(
        "the limit of ids is the larger one of two tables on one input",
        "export/tracing/id_limits.py",
        "min(before[1], needed[1])",
        "max(before[1], needed[1])",
        "tests/export/test_id_limits.py::test_the_smaller_of_two_tables_counts",
    ),
    Fault(
        "no check that a second run gives the same bits",
        "export/verification/verifier.py",
        "if not all(np.array_equal(a, b, equal_nan=True)",
        "if False and not all(np.array_equal(a, b, equal_nan=True)",
        "tests/proof/test_bench.py::test_a_fault_fails_where_it_shows",
    ),
    Fault(
        "Concat or Add of which one part is zero taken for a state of zeros",
        "export/graph/zero_values.py",
        "return all(always_zero(part) for part in node.inputs)",
        "return any(always_zero(part) for part in node.inputs)",
        "tests/export/test_zero_states.py::test_only_what_is_zero_in_every_part_is_zero",
    ),
)


def main() -> int:
    """Mutate, test, print a line of the table and the survivors of each package."""
    parser = argparse.ArgumentParser(prog="scripts/mutation", description=__doc__.split("\n\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; all by default")
    parser.add_argument("--sample", type=int, help="so many mutants of each package, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="these tests instead of those of the package")
    parser.add_argument("--files", nargs="+", default=["*"], metavar="GLOB", help="these modules of the package only")
    parser.add_argument(
        "--planted", action="store_true", help="the faults that once survived, each by its test, instead"
    )
    arguments = parser.parse_args()
    if arguments.planted:
        return plant_all()
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
            report(name, len(names), test_mutants(tree, chosen), tree)
    return 0


def plant_all() -> int:
    """Plant each known fault in a copy, run its test, print whether it was seen."""
    missed = 0
    for fault in PLANTED:
        with tempfile.TemporaryDirectory(prefix="rnncore-mutation-") as folder:
            tree = Path(folder)
            copy_tree(tree, [], [])
            file = tree / "rnncore" / fault.file
            text = file.read_text(encoding="utf-8")
            if text.count(fault.right) != 1:
                sys.exit(f"{fault.file} holds {fault.right!r} {text.count(fault.right)} times: mend the list of faults")
            file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
            done = pytest(tree, fault.test)
        seen = done.returncode == 1 and " failed" in done.stdout
        missed += not seen
        failed = next(
            (line for line in done.stdout.splitlines() if line.startswith("FAILED")), (done.stdout + done.stderr)[-300:]
        )
        print(f"{'seen' if seen else 'MISSED'}: {fault.what}: {failed}", flush=True)
    return 1 if missed else 0


def pytest(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy on the copy, until one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "fast", "PYTHONPATH": str(tree)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


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
