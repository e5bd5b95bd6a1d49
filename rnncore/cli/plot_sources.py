"""Checkpoints as ``rnncore plot`` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rnncore.models import LanguageModel
from rnncore.runtime.errors import TrainingError
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.training import Checkpoint, EpochReport, new_model
from rnncore.training.fit_checkpoint import FitCheckpoint


def load_language_model(path: Path) -> tuple[LanguageModel, Vocabulary]:
    """The model of a checkpoint of ``rnncore train``, with its best weights where there are some, and its vocabulary."""
    saved = Checkpoint.load(path)
    model = new_model(saved.model_config, saved.settings.seed)
    try:
        model.load_state_dict(saved.best or saved.model)
    except RuntimeError as error:
        raise TrainingError(f"{path} does not fit its own model: {error}") from None
    return model.eval(), Vocabulary.from_json(saved.vocabulary)


def load_history(path: Path) -> list[Mapping[str, float]]:
    """The epochs of a checkpoint of ``rnncore train`` or of ``rnncore.training.fit``, as rows of numbers.

    Raises:
        TrainingError: it is neither.
    """
    try:
        reports = FitCheckpoint.load(path).history
    except TrainingError:
        reports = Checkpoint.load(path).position.history
    return [_row(report) for report in reports]


def _row(report: EpochReport) -> Mapping[str, float]:
    return {
        "epoch": report.epoch,
        "training_loss": report.training_loss,
        "held_out_loss": report.held_out_loss,
        **report.metrics,
    }
