"""Truncated back-propagation through time."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.layers import State
from rnncore.models import LanguageModel, LanguageModelConfig
from rnncore.models.language_model import IGNORED
from rnncore.runtime.errors import InputError, TrainingError
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.text import Corpus
from rnncore.training.batches import ContiguousBatches, token_stream
from rnncore.training.checkpoint import Checkpoint, Position
from rnncore.training.device import choose_device
from rnncore.training.evaluate import evaluate
from rnncore.training.fit_report import best_of, should_stop
from rnncore.training.interruption import Interruption, TrainingInterrupted, deferred_interruption
from rnncore.training.observer import EpochReport, Observer, Observers, StepReport
from rnncore.training.run_log import RunLog
from rnncore.training.schedule import learning_rate_factor
from rnncore.training.settings import TrainingSettings
from rnncore.training.states import chosen, detached, flattened, unflattened


def new_model(config: LanguageModelConfig, seed: int) -> LanguageModel:
    """A model with weights drawn from ``seed``; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(config)


class Trainer:
    """Trains a language model on contiguous batches, carrying the recurrent state from piece to piece.

    Each step reads ``settings.bptt`` time steps of every row, starting from the state the step before ended with, cut
    from its history, or from the initial state where a new text begins (:class:`ContiguousBatches`).  The loss is the
    sum over time steps of the mean over rows; reported is the mean per token.

    Args:
        model: trained in place, on ``device``.
        vocabulary: of the model's tokens.
        corpus: its texts are split into training and held-out ones.
        settings: of the optimisation.
        held_out: fraction of the corpus that is only scored, after every epoch.
        checkpoint: file to save to after each epoch, every ``save_every_s`` seconds, and on Ctrl-C; None for never.
        source: plain values stored in the checkpoint for whoever resumes.
        device: "auto", "cpu" or "cuda".
        observer: told of every step and epoch.
        log_dir: folder for ``metrics.csv``, ``steps.csv``, a learning curve and TensorBoard events; see ``RunLog``.

    Attributes:
        position: how far training has come.
        training_texts: what the model learns from.
        held_out_texts: what the model never sees.
        source: as handed in.

    Raises:
        InputError: the corpus is too small, or does not fit the model's vocabulary.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        corpus: Corpus,
        settings: TrainingSettings | None = None,
        *,
        held_out: float = 0.05,
        checkpoint: str | Path | None = None,
        save_every_s: float = 60.0,
        source: dict[str, Any] | None = None,
        device: str = "auto",
        observer: Observer | None = None,
        log_dir: str | Path | None = None,
    ) -> None:
        if len(vocabulary) != model.config.vocabulary_size:
            raise InputError(
                f"the vocabulary has {len(vocabulary)} tokens, the model was made for {model.config.vocabulary_size}"
            )
        self.model = model
        self.vocabulary = vocabulary
        self.settings = settings or TrainingSettings()
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.position = Position()
        self._device = choose_device(device)
        self._observer = observer or Observer()
        if log_dir is not None:
            self._observer = Observers([self._observer, RunLog(log_dir)])
        self._save_every_s = save_every_s
        self.source = source or {}
        self._digest = corpus.digest()
        self._corpus_name = corpus.name
        split = corpus.split(held_out)
        self.training_texts = split.training
        self.held_out_texts = split.held_out
        self._held_out = [vocabulary.encode(text) for text in split.held_out]
        stream = token_stream(split.training, vocabulary)
        self._batches = ContiguousBatches(stream, vocabulary.eos_id, self.settings.batch, self.settings.bptt)
        self._steps = self.settings.epochs * len(self._batches)
        self._state: State | None = None
        self._best: dict[str, Tensor] | None = None
        self._random_state: Tensor | None = None
        self._cuda_random_state: Tensor | None = None
        model.to(self._device)
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )

    @classmethod
    def resume(
        cls,
        saved: Checkpoint,
        corpus: Corpus,
        *,
        epochs: int | None = None,
        held_out: float = 0.05,
        checkpoint: str | Path | None = None,
        save_every_s: float = 60.0,
        device: str = "auto",
        observer: Observer | None = None,
        log_dir: str | Path | None = None,
    ) -> Trainer:
        """A trainer that goes on where ``saved`` stopped; on a CPU, as if it had never stopped, bit for bit.

        Args:
            saved: what to go on from.
            corpus: the same as then.
            epochs: a new total; the learning rate then follows the new total from here on.
            held_out: the same as then.
            checkpoint: as for :class:`Trainer`, and so are the rest.

        Raises:
            TrainingError: the corpus is another one, or ``saved`` does not fit its own model.
        """
        if corpus.digest() != saved.corpus_digest:
            raise TrainingError(
                f"{corpus.name} is not the corpus that this training started with: resume with that one, or start anew"
            )
        trainer = cls(
            new_model(saved.model_config, saved.settings.seed),
            Vocabulary.from_json(saved.vocabulary),
            corpus,
            saved.settings if epochs is None else replace(saved.settings, epochs=epochs),
            held_out=held_out,
            checkpoint=checkpoint,
            save_every_s=save_every_s,
            source=saved.source,
            device=device,
            observer=observer,
            log_dir=log_dir,
        )
        trainer._restore(saved)
        return trainer

    def run(self) -> list[EpochReport]:
        """Train until the last epoch is done, or nothing more is gained; returns one report for each epoch.

        Raises:
            TrainingInterrupted: on Ctrl-C (or SIGTERM), at a step boundary, after saving the checkpoint.  Without a
                checkpoint to save to, Ctrl-C is an ordinary KeyboardInterrupt.
            TrainingError: the loss is no longer finite; the checkpoint stays at the last good step saved.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        self._observer.started(step=self._steps_done, steps=self._steps)
        with torch.random.fork_rng(devices=devices):
            self._start_random_numbers()
            try:
                if self.checkpoint is None:
                    self._run_epochs(Interruption())
                else:
                    with deferred_interruption() as interruption:
                        self._run_epochs(interruption)
            finally:
                self._observer.finished()
        if self._best is not None:
            self.model.load_state_dict(self._best)
        return list(self.position.history)

    def describe(self) -> str:
        """What is trained on what, in a few lines for people to read."""
        config = self.model.config
        cells = ", ".join(
            f"{cell.kind} {cell.hidden_size}" + (f" {dict(cell.options)}" if cell.options else "")
            for cell in config.cells
        )
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"corpus: {self._corpus_name}; {self._batches.tokens} tokens to train on, "
            f"{sum(map(len, self._held_out)) + len(self._held_out)} held out, {len(self.vocabulary)} different\n"
            f"model: embedding {config.embedding_size}; {cells}; {weights} weights, on {self._device}"
        )

    @property
    def training_tokens(self) -> int:
        """Tokens that one epoch predicts."""
        return self._batches.tokens

    @property
    def _steps_done(self) -> int:
        return self.position.epoch * len(self._batches) + self.position.step

    @property
    def _is_stopped(self) -> bool:
        return self.position.step == 0 and should_stop(self.position.history, self.settings.patience)

    def _run_epochs(self, interruption: Interruption) -> None:
        saved_at = time.monotonic()
        while self.position.epoch < self.settings.epochs and not self._is_stopped:
            if self.position.step < len(self._batches):
                self._observer.stepped(self._step())
            else:
                self._observer.finished_epoch(self._finish_epoch())
            between_epochs = self.position.step == 0
            if (
                between_epochs
                or interruption.signal_number is not None
                or time.monotonic() - saved_at >= self._save_every_s
            ):
                self._save()
                saved_at = time.monotonic()
            if interruption.signal_number is not None and self.checkpoint is not None:
                raise TrainingInterrupted(interruption.signal_number, self.checkpoint)

    def _step(self) -> StepReport:
        self.model.train()
        position = self.position
        rate = self.settings.learning_rate * learning_rate_factor(self._steps_done, self._steps, self.settings.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        inputs, targets, fresh = (part.to(self._device) for part in self._batches[position.step])
        initial = self.model.stack.initial_state(len(inputs), self.model.embedding.weight)
        state = initial if self._state is None else chosen(fresh, initial, self._state)
        loss, state = self.model.loss_with_state(inputs, targets, state)
        tokens = int((targets != IGNORED).sum())
        self._optimizer.zero_grad()
        (loss / len(inputs)).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip).item()
        loss_sum = loss.item()
        # Before the weights change: a checkpoint never holds what such a gradient would make of them.
        for name, value in (("loss", loss_sum), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name} is {value} at step {self._steps_done + 1}: lower the learning rate, or clip more"
                )
        self._optimizer.step()
        self._state = detached(state)
        position.step += 1
        position.loss_sum += loss_sum
        position.tokens += tokens
        return StepReport(
            step=self._steps_done,
            steps=self._steps,
            epoch=position.epoch + 1,
            epochs=self.settings.epochs,
            loss=loss_sum / tokens,
            tokens=tokens,
            learning_rate=rate,
        )

    def _finish_epoch(self) -> EpochReport:
        position = self.position
        held_out = evaluate(self.model, self._held_out, self.vocabulary.eos_id)
        report = EpochReport(
            position.epoch + 1, position.loss_sum / position.tokens, -held_out.log_prob / held_out.tokens
        )
        self.position = Position(epoch=position.epoch + 1, history=[*position.history, report])
        self._state = None
        if self.settings.patience is not None and best_of(self.position.history) is report:
            self._best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return report

    def _start_random_numbers(self) -> None:
        if self._random_state is None:
            torch.manual_seed(self.settings.seed)
            return
        torch.set_rng_state(self._random_state)
        if self._cuda_random_state is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(self._cuda_random_state, self._device)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        Checkpoint(
            model_config=self.model.config,
            settings=self.settings,
            vocabulary=self.vocabulary.to_json(),
            corpus_digest=self._digest,
            source=self.source,
            model=self.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            position=self.position,
            carried=None if self._state is None else flattened(self._state),
            random_state=torch.get_rng_state(),
            cuda_random_state=torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
            best=self._best,
        ).save(self.checkpoint)
        self._observer.saved(self.checkpoint)

    def _restore(self, saved: Checkpoint) -> None:
        try:
            self.model.load_state_dict(saved.model)
            self._optimizer.load_state_dict(saved.optimizer)
            if saved.carried is not None:
                like = self.model.stack.initial_state(self.settings.batch, self.model.embedding.weight)
                self._state = unflattened([tensor.to(self._device) for tensor in saved.carried], like)
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(f"the checkpoint does not fit its own model: {error}") from None
        self.position = replace(saved.position, history=list(saved.position.history))
        self._best = saved.best
        self._random_state = saved.random_state
        self._cuda_random_state = saved.cuda_random_state
