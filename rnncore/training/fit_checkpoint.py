"""A run of :func:`rnncore.training.fit` as one file of plain tensors, numbers and strings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import TrainingError
from rnncore.runtime.format.atomic import replacing
from rnncore.training.observer import EpochReport

FORMAT = "rnncore.fit 1"


@dataclass
class FitCheckpoint:
    """Everything that the rest of a run depends on; going on from it on a CPU gives the same bits as never stopping.

    identity: what a run that goes on must have in common: settings and number of examples; plain values.
    epoch, step: what comes next, from 0; loss_sum and terms are those of the epoch so far.
    history: one report for each finished epoch.
    model, optimizer: their state dicts.
    best: the model's weights after its best epoch; None before the first is done.
    average: state dict of the averaged weights; empty if none are averaged.
    random_states: of the CPU's generator, and of the GPU's where there is one, for each process.
    """

    identity: dict[str, Any]
    epoch: int
    step: int
    loss_sum: float
    terms: int
    history: list[EpochReport] = field(default_factory=list)
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] | None = None
    random_states: list[list[Tensor]] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the file, or leave the one that was there; raises OSError."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["history"] = [asdict(report) for report in self.history]
        with replacing(path) as temporary:
            torch.save({"format": FORMAT, **data}, temporary)

    @classmethod
    def load(cls, path: Path) -> FitCheckpoint:
        """Read a file of :meth:`save`; nothing in it is executed.

        Raises:
            TrainingError: not such a file, truncated, or of another format.
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            try:
                data = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # zip, pickle and torch each have their own
                pass_on_interruption(error)
                first_line = str(error).partition("\n")[0]
                raise TrainingError(f"{path} is not a checkpoint, or is truncated ({first_line})") from None
        found = data.pop("format", None) if isinstance(data, dict) else None
        if found != FORMAT:
            raise TrainingError(f"{path} has checkpoint format {found!r}, expected {FORMAT!r}: choose another file")
        try:
            data["history"] = [EpochReport(**report) for report in data["history"]]
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise TrainingError(f"{path} is not a checkpoint of rnncore's training ({error})") from None

    def check_identity(self, path: Path, expected: dict[str, Any]) -> None:
        """Raise TrainingError that lists each setting or size in which this run differs from ``expected``."""
        different = [
            f"{name} was {self.identity.get(name)!r}, is now {value!r}"
            for name, value in expected.items()
            if self.identity.get(name) != value
        ]
        if different:
            raise TrainingError(
                f"{path} is the checkpoint of another training ({'; '.join(different)}): "
                "train with the same settings and data, or remove the file to start anew"
            )
