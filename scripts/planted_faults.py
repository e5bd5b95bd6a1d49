"""Faults that no test once saw, planted again, each with the test that sees it now: ``scripts/mutation --planted``."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mutation import copy_tree, pytest


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


if __name__ == "__main__":
    sys.exit(main())
