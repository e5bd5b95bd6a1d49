"""Training: truncated back-propagation through time, checkpoints, evaluation."""

from rnncore.runtime.errors import MissingExtraError

try:
    from rnncore.training.batches import ContiguousBatches, token_stream
    from rnncore.training.checkpoint import Checkpoint, Position
    from rnncore.training.device import choose_device
    from rnncore.training.evaluate import Evaluation, evaluate
    from rnncore.training.fit import fit
    from rnncore.training.fit_report import FitReport
    from rnncore.training.gradients import gradient_norms
    from rnncore.training.hard_negatives import hard_negatives
    from rnncore.training.interpolation import interpolate
    from rnncore.training.interruption import TrainingInterrupted
    from rnncore.training.observer import EpochReport, Observer, Observers, StepReport
    from rnncore.training.run_log import RunLog
    from rnncore.training.settings import TrainingSettings
    from rnncore.training.trainer import Trainer, new_model
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "train", "rnncore.training") from None

__all__ = [
    "Checkpoint",
    "ContiguousBatches",
    "EpochReport",
    "Evaluation",
    "FitReport",
    "Observer",
    "Observers",
    "Position",
    "RunLog",
    "StepReport",
    "Trainer",
    "TrainingInterrupted",
    "TrainingSettings",
    "choose_device",
    "evaluate",
    "fit",
    "gradient_norms",
    "hard_negatives",
    "interpolate",
    "new_model",
    "token_stream",
]
