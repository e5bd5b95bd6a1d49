"""What verification finds: comparisons, and what they amount to."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from rnncore.runtime.verification import Case as Case  # one comparison, at export as wherever a file is proved again

TOGETHER_DETAIL = "moved together"
ONLY = "only in "
"""Before the names of the outputs that are wrong, where others are right."""
EXAMPLE_DETAIL = "the example itself"
_FAILED_AT = re.compile(r"running (\w+) node\. Name:'([^']*)'")
_NAMES = re.compile(r"'([^']+)'")
_OUTSIDE = re.compile(r"\b(holds|gives) (the|an) id\b")


def why_refused(refusal: Exception) -> str:
    """Why a file does not run on an input, in one line: of what onnxruntime says the operator that failed, and of which layer."""
    text = str(refusal).strip().partition("\n")[0]
    found = _FAILED_AT.findall(text)
    if _OUTSIDE.search(text):  # ids are drawn from those that the module takes
        return "the file fails on it: a place that it computes lies outside of a tensor"
    if not found:
        return f"the file refuses it: {text}"
    operator, name = found[-1]
    layer = name.removeprefix("fused ").rpartition("/")[0]
    while layer.startswith("module."):
        layer = layer.removeprefix("module.")
    return f"the file fails on it, at the {operator} of {f'layer {layer!r}' if layer else repr(name)}"


def wrong_outputs(cases: Sequence[Case]) -> set[str]:
    """Names of the outputs that are wrong in some of ``cases``, where each says that others are right; empty if not."""
    found = [_NAMES.findall(case.note.removeprefix(ONLY)) if case.note.startswith(ONLY) else [] for case in cases]
    return {name for names in found for name in names} if all(found) else set()


@dataclass
class Verdict:
    """All comparisons made on one file.  ``remarks``: what a user should know and what is no failure, one line each."""

    seed: int
    tolerance: float
    cases: list[Case] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def failures(self, *kinds: str) -> list[Case]:
        """Cases of the given kinds that did not pass."""
        return [case for case in self.cases if not case.passed and case.kind in kinds]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the file's metadata."""
        import onnx
        import onnxruntime

        versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        }
        return {
            "seed": self.seed,
            "tolerance": self.tolerance,
            "versions": versions,
            "cases": [asdict(case) for case in self.cases],
            "remarks": self.remarks,
        }
