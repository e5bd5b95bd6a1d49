"""What is measured of one application, as data: a JSON file for each in benchmarks/results/applications."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "applications"


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Every number is of the test set, which nothing was chosen by: epochs and settings are chosen by the validation set.

    name: of the row, the key of its floor.  data: where it comes from.  sizes: examples to train, to validate, to test.
    metric: its name; lower: whether less is better.  fp32: the file's, run without PyTorch; int8: the same of the 8-bit file,
    None if there is none.  baselines: the metric of others on the same split, the trivial one first.  bytes: of both
    files.  train_s: seconds of training, on one thread of a shared machine; None if nobody looked at the clock.  step_us:
    microseconds of the processor a step, one sequence at a time without PyTorch.  step: what a step is.  reach: what was
    hoped for.  more: other metrics of the same answers.  note: what a reader must know.
    """

    name: str
    data: str
    sizes: tuple[int, int, int]
    metric: str
    fp32: float
    int8: float | None
    baselines: dict[str, float]
    bytes: tuple[int, int | None]
    train_s: float | None
    step_us: float
    step: str
    reach: float | None = None
    lower: bool = False
    more: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def meets(self, bound: float) -> bool:
        """Whether the float32 metric is as good as ``bound``."""
        return self.fp32 <= bound if self.lower else self.fp32 >= bound

    def beats_baselines(self) -> bool:
        """Whether it is better than every baseline."""
        return all(self.fp32 < b if self.lower else self.fp32 > b for b in self.baselines.values())


def save(application: str, rows: list[Measured], machine: str) -> None:
    """Keep what was measured."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{application}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def saved(application: str) -> tuple[list[Measured], str]:
    """What was measured, and on which machine; FileNotFoundError if nothing was."""
    document: dict[str, Any] = json.loads((RESULTS / f"{application}.json").read_text("utf-8"))
    rows = [Measured(**{**row, "sizes": tuple(row["sizes"]), "bytes": tuple(row["bytes"])}) for row in document["rows"]]
    return rows, document["machine"]
