"""``fit``: one trainer for every model that can say its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from rnncore.runtime.errors import raise_all
from rnncore.training.fit_report import FitReport
from rnncore.training.fit_run import Examples, FitRun
from rnncore.training.fit_settings import FitSettings
from rnncore.training.observer import Observer

Example = TypeVar("Example")


def fit(
    model: nn.Module,
    training: Sequence[Example],
    held_out: Sequence[Example],
    *,
    collate: Callable[[list[Example]], Mapping[str, Any]],
    epochs: int,
    batch: int = 32,
    learning_rate: float = 1e-3,
    clip: float | None = 1.0,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    mixed_precision: str = "no",
    observer: Observer | None = None,
    length: Callable[[Example], int] | None = None,
    schedule: str = "cosine",
    weight_decay: float = 0.01,
    average: float = 0.0,
    keep: str = "best",
) -> FitReport:
    """Train ``model`` with AdamW; afterwards it holds the weights of its best epoch, see ``keep``.

    The model says what is to be made small::

        def loss(self, **batch) -> tuple[Tensor, int]       # summed over the valid terms of the batch, and their number
        def metrics(self, **batch) -> dict[str, tuple[float, int]]      # optional: sums and counts, on held-out batches
        def batch_label(self, example) -> Hashable      # optional: examples of equal labels meet in batches, in pairs

    ``batch`` being what ``collate`` makes of a list of examples, moved to the device.  A step minimises the mean over
    all terms of all examples of the batch, however long each of them is.

    Started as several processes (``torchrun --nproc-per-node 2 train.py``, or ``accelerate launch --multi_gpu
    --num_processes 2 train.py``; both work on CPUs too), every process takes its share of each batch, and the gradient is
    that of the mean over the terms of all processes: the run is the same as in one process, up to rounding and dropout.

    Args:
        model: trained in place, on the device that accelerate chooses.
        training, held_out: examples; each has at least one.
        collate: makes the keyword arguments of ``loss`` of some examples, padding them to one length.
        epochs: passes over ``training``.
        batch: examples a step, of all processes together; the batches of an epoch differ by one at most.
        learning_rate: of AdamW; see ``schedule``.
        clip: largest L2 norm of the gradient of the mean loss; None for any.
        patience: stop when the held-out loss has not fallen for so many epochs; None for never.
        seed: of the order of examples, and of dropout.  The weights are those that ``model`` comes with.
        checkpoint: file to save to after every epoch, every minute, and on Ctrl-C.  When it exists already, training
            goes on from it: on a CPU as if it had never stopped, bit for bit.  A finished one is only read, unless
            ``epochs`` has grown.
        log_dir: folder for ``metrics.csv``, ``steps.csv``, a learning curve and TensorBoard events; see ``RunLog``.
        mixed_precision: "no", "bf16" or "fp16".
        observer: told of every step and epoch; by default they are shown on standard error (``Observer()`` is silent).
        length: time steps of an example, to batch examples of like length; guessed unless given.
        schedule: "cosine": the learning rate rises over the first 5 % of all steps, then falls along a half cosine to a
            hundredth; "constant": it stays after rising.
        weight_decay: of AdamW.
        average: decay of the exponential moving average of the weights, a step, such as 0.999; what is evaluated, chosen
            from and kept is then the average.  It begins with a shorter memory, min(average, (1 + step) / (10 + step)).
            0: the weights themselves.
        keep: "best": the weights of the epoch with the lowest held-out loss; "last": those after the last epoch, for what is
            measured otherwise than by the loss (F1 of a tagger may rise long after its loss does).

    Raises:
        InputError: lists every argument that is out of range; the model has no ``loss``.
        TrainingError: the loss is not finite; the checkpoint is that of another training.
        TrainingInterrupted: on Ctrl-C (or SIGTERM), after saving the checkpoint.  Without one, Ctrl-C is an ordinary
            KeyboardInterrupt.
    """
    settings = FitSettings(
        epochs, batch, learning_rate, clip, patience, seed, mixed_precision, schedule, weight_decay, average, keep
    )
    _check(model, training, held_out)
    path = None if checkpoint is None else Path(checkpoint)
    examples = Examples(training, held_out, collate, length)
    return FitRun(model, examples, settings, checkpoint=path, log_dir=log_dir, observer=observer).run()


def _check(model: nn.Module, training: Sequence[Any], held_out: Sequence[Any]) -> None:
    problems = [
        f"{name} has no examples, expected at least one"
        for name, examples in (("training", training), ("held_out", held_out))
        if not len(examples)
    ]
    if not callable(getattr(model, "loss", None)):
        problems.append(
            f"{type(model).__name__} has no method loss(**batch), expected one that returns (summed loss, number of terms)"
        )
    elif not any(parameter.requires_grad for parameter in model.parameters()):
        problems.append(f"{type(model).__name__} has no parameter that can be trained")
    raise_all(problems)
