"""A training run as one file of plain tensors, numbers and strings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnncore.models import LanguageModelConfig
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import InputError, TrainingError
from rnncore.runtime.format.atomic import replacing
from rnncore.training.fit_report import should_stop
from rnncore.training.observer import EpochReport
from rnncore.training.settings import TrainingSettings

FORMAT = 2


@dataclass
class Position:
    """How far a run has come.

    epoch, step: what comes next, both counted from 0; the step counts within the epoch.
    loss_sum, tokens: of the epoch so far.
    history: one report for each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    tokens: int = 0
    history: list[EpochReport] = field(default_factory=list)


@dataclass
class Checkpoint:
    """Everything that a run depends on; going on from it gives the same bits as never having stopped.

    vocabulary: JSON of the tokenizer.
    corpus_digest: of the corpus that the run reads.
    source: where the corpus came from and how it was cut, for whoever resumes; plain values.
    model, optimizer: their state dicts.
    carried: the recurrent state between two steps of an epoch, flattened; None between epochs.
    best: the model's weights after its best epoch; None before the first is done, and without patience.
    random_state: of the CPU's generator; cuda_random_state of the GPU's, if one is used.
    """

    model_config: LanguageModelConfig
    settings: TrainingSettings
    vocabulary: str
    corpus_digest: str
    source: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    position: Position
    carried: list[Tensor] | None
    random_state: Tensor
    cuda_random_state: Tensor | None = None
    best: dict[str, Tensor] | None = None

    @property
    def is_finished(self) -> bool:
        """True when every epoch is done, or nothing more was gained."""
        stopped = should_stop(self.position.history, self.settings.patience)
        return stopped or self.position.epoch >= self.settings.epochs

    def save(self, path: str | Path) -> None:
        """Write the file, or leave the one that was there; raises OSError."""
        position = self.position
        data = {
            "format": FORMAT,
            "model_config": self.model_config.to_json(),
            "settings": self.settings.to_dict(),
            "vocabulary": self.vocabulary,
            "corpus_digest": self.corpus_digest,
            "source": self.source,
            "model": self.model,
            "optimizer": self.optimizer,
            "position": {
                **{name: getattr(position, name) for name in ("epoch", "step", "loss_sum", "tokens")},
                "history": [(report.epoch, report.training_loss, report.held_out_loss) for report in position.history],
            },
            "carried": self.carried,
            "random_state": self.random_state,
            "cuda_random_state": self.cuda_random_state,
            "best": self.best,
        }
        with replacing(path) as temporary:
            torch.save(data, temporary)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file of :meth:`save`; nothing in it is executed.

        Raises:
            TrainingError: not such a file, truncated, or of another format.
            OSError: the file cannot be read.
        """
        with Path(path).open("rb") as file:
            try:
                data = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # zip, pickle and torch each have their own
                pass_on_interruption(error)
                first_line = str(error).partition("\n")[0]
                raise TrainingError(f"{path} is not a checkpoint, or is truncated ({first_line})") from None
        try:
            if data["format"] != FORMAT:
                raise TrainingError(f"{path} has checkpoint format {data['format']}, this rnncore reads {FORMAT}")
            position = data["position"]
            return cls(
                model_config=LanguageModelConfig.from_json(data["model_config"]),
                settings=TrainingSettings.from_dict(data["settings"]),
                position=Position(**{**position, "history": [EpochReport(*values) for values in position["history"]]}),
                **{name: data[name] for name in _AS_THEY_ARE},
            )
        except (KeyError, TypeError, InputError) as error:
            raise TrainingError(f"{path} is not a checkpoint of rnncore's training ({error})") from None


_AS_THEY_ARE = (
    "vocabulary",
    "corpus_digest",
    "source",
    "model",
    "optimizer",
    "carried",
    "random_state",
    "cuda_random_state",
    "best",
)
