"""What an export tells: what was written, in which form, and how it was checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnncore.export.targets import Choice, describe
from rnncore.export.verification.accuracy import AccuracyReport
from rnncore.runtime.format.signature import Signature
from rnncore.runtime.notebook import shown


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was checked.

    path: the file.  size_bytes: its size, with that of ``weights_path``.  signature: its inputs, outputs and states.
    form: how the recurrence is written, such as "loop" or "fused+loop".  verification: the plain data stored in the file
    (seed, tolerance, versions, cases); empty if not verified.  accuracy: what int8 costs, None in full precision.
    form_choices: the form of each recurrent layer, and why.  weights_path: the second file, if the weights are in one.
    advice: what another form would gain, measured where the export ran on a terminal; empty if it is little.
    branches: whether a layer may stand there once for each way of calling; if not, it is one loop.
    """

    path: Path
    size_bytes: int
    signature: Signature
    form: str
    verification: dict[str, Any] = field(default_factory=dict)
    accuracy: AccuracyReport | None = None
    form_choices: dict[str, Choice] = field(default_factory=dict)
    weights_path: Path | None = None
    advice: str = ""
    branches: bool = True

    @property
    def causal(self) -> bool:
        """Whether the file streams."""
        return self.signature.causal

    @property
    def max_error(self) -> float:
        """Largest absolute difference from PyTorch over all cases; 0 if not verified."""
        return max((case["max_abs"] for case in self.verification.get("cases", [])), default=0.0)

    def _form_text(self) -> str:
        return f"form {self.form}" if self.branches else f"form {self.form} without branches"

    def to_json(self) -> str:
        """The report as JSON."""
        data = {"path": str(self.path), "size_bytes": self.size_bytes, "form": self.form, "causal": self.causal}
        data["branches"] = self.branches
        return json.dumps({**data, "verification": self.verification})

    def _repr_html_(self) -> str:
        """What was written and how it was checked, and the signature, as tables in a notebook."""
        head, *others = str(self).splitlines()
        facts = {"": head.removeprefix(f"{self.path}: ")} | {f"({i})": line.strip() for i, line in enumerate(others, 1)}
        return shown(str(self.path), facts, self.signature)

    def __str__(self) -> str:
        cases = self.verification.get("cases", [])
        checked = f"{len(cases)} cases verified, max error {self.max_error:.2g}" if cases else "not verified"
        streams = "streams" if self.causal else f"batch only ({self.signature.not_causal_because})"
        line = f"{self.path}: {self.size_bytes / 1e6:.2f} MB, {self._form_text()}, {streams}; {checked}"
        line += f"\n  weights in {self.weights_path}" if self.weights_path else ""
        line += "".join(f"\n  {text}" for text in describe(self.form_choices))
        line += f"\n  {self.advice}" if self.advice else ""
        line += "".join(f"\n  {remark}" for remark in self.verification.get("remarks", ()))
        return line if self.accuracy is None else f"{line}\n{self.accuracy}"
