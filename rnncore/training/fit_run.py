"""One run of :func:`rnncore.training.fit`: where it is, and how it gets on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnncore.runtime.errors import InputError, TrainingError
from rnncore.training.averaging import averaged
from rnncore.training.fit_checkpoint import FitCheckpoint
from rnncore.training.fit_report import FitReport, best_of, should_stop
from rnncore.training.fit_settings import WARMUP, FitSettings
from rnncore.training.interruption import (
    Interruption,
    TrainingInterrupted,
    deferred_interruption,
    signal_flags,
    signal_of,
)
from rnncore.training.observer import EpochReport, Observer, Observers, StepReport
from rnncore.training.processes import gathered, new_accelerator, summed, to_device
from rnncore.training.run_log import RunLog
from rnncore.training.schedule import learning_rate_factor
from rnncore.training.shuffling import example_lengths, grouped_batches, shuffled_batches, sorted_batches

Collate = Callable[[list[Any]], Mapping[str, Any]]

SAVE_EVERY_S = 60.0
"""Seconds between two checkpoints within an epoch."""


class _Loss(nn.Module):
    """The loss as a forward: what ``DistributedDataParallel`` and autocast wrap is a module's forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Any) -> tuple[Tensor, int]:
        return self.model.loss(**batch)  # type: ignore[operator]  # checked by fit


@dataclass(frozen=True)
class Examples:
    """What is trained on, what is held out, and how a batch is made of some; ``length``: time steps of one, None to guess."""

    training: Sequence[Any]
    held_out: Sequence[Any]
    collate: Collate
    length: Callable[[Any], int] | None


class FitRun:
    """See :func:`rnncore.training.fit`; it has checked model and examples."""

    def __init__(
        self,
        model: nn.Module,
        examples: Examples,
        settings: FitSettings,
        *,
        checkpoint: Path | None,
        log_dir: str | Path | None,
        observer: Observer | None,
    ) -> None:
        training, held_out, length = examples.training, examples.held_out, examples.length
        self._accelerator = new_accelerator(settings.mixed_precision)
        self._model = model
        self._training, self._held_out = training, held_out
        self._collate = examples.collate
        self._settings = settings
        self._checkpoint = checkpoint
        self._lengths = example_lengths(training, length)
        label = getattr(model, "batch_label", None)
        self._labels = None if label is None else [label(training[i]) for i in range(len(training))]
        held_out_lengths = example_lengths(held_out, length)
        if label is None:
            self._held_out_batches = sorted_batches(held_out_lengths, settings.batch)
        else:
            labels = [label(held_out[i]) for i in range(len(held_out))]
            self._held_out_batches = grouped_batches(labels, held_out_lengths, settings.batch, settings.seed, 0)
        self._batches: list[np.ndarray] = []
        self._save_due = False
        first = self._batches_of(0)  # as many as in every epoch
        self._steps_an_epoch = len(first)
        self._check_shares(smallest=min(map(len, first)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self._loss, self._optimizer = self._accelerator.prepare(_Loss(model), optimizer)
        self._average = averaged(model, settings.average) if settings.average else None
        self._observer = self._observers(observer, log_dir)
        identity = settings.fixed() | {"training examples": len(training), "held-out examples": len(held_out)}
        self._state = FitCheckpoint(identity, epoch=0, step=0, loss_sum=0.0, terms=0)
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint, identity)

    def run(self) -> FitReport:
        """Train until the last epoch is done or nothing more is gained."""
        device = self._accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self._start_random_numbers()
            self._observer.started(step=self._steps_done, steps=self._steps)
            try:
                if self._checkpoint is None:
                    self._run_epochs(Interruption())
                else:
                    with deferred_interruption() as interruption:
                        self._run_epochs(interruption)
            finally:
                self._observer.finished()
        last = self._settings.keep == "last"
        kept = self._kept.state_dict() if last else self._state.best
        if kept is not None:
            self._model.load_state_dict(kept)
        self._model.eval()
        history = tuple(self._state.history)
        return FitReport(history, should_stop(history, self._settings.patience))

    @property
    def _steps(self) -> int:
        return self._settings.epochs * self._steps_an_epoch

    @property
    def _steps_done(self) -> int:
        return self._state.epoch * self._steps_an_epoch + self._state.step

    def _run_epochs(self, interruption: Interruption) -> None:
        state, settings = self._state, self._settings
        saved_at = time.monotonic()
        while state.epoch < settings.epochs and not should_stop(state.history, settings.patience):
            self._batches = self._batches_of(state.epoch)
            while state.step < len(self._batches):
                due = time.monotonic() - saved_at >= SAVE_EVERY_S
                interrupted = self._step(interruption, save_due=due)
                if interrupted is not None or self._save_due:
                    self._save()
                    saved_at = time.monotonic()
                if interrupted is not None and self._checkpoint is not None:
                    raise TrainingInterrupted(interrupted, self._checkpoint)
            self._observer.finished_epoch(self._finish_epoch())
            self._save()
            saved_at = time.monotonic()

    def _batches_of(self, epoch: int) -> list[np.ndarray]:
        batch, seed = self._settings.batch, self._settings.seed
        if self._labels is None:
            return shuffled_batches(self._lengths, batch, seed, epoch)
        return grouped_batches(self._labels, self._lengths, batch, seed, epoch)

    def _step(self, interruption: Interruption, *, save_due: bool) -> int | None:
        """One optimiser step; the number of the signal that came to any of the processes, if one did."""
        self._loss.train()
        accelerator, state = self._accelerator, self._state
        rate = self._settings.learning_rate * self._rate_factor()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss, own_terms = self._loss(**self._collated(self._training, self._batches[state.step]))
        loss_sum, terms, due, *came = summed(
            accelerator,
            [
                float(loss.detach()),
                int(own_terms),
                save_due and accelerator.is_main_process,
                *signal_flags(interruption.signal_number),
            ],
        )
        self._optimizer.zero_grad()
        # Several processes average their gradients; the mean over all terms needs the sum, divided by all terms.
        accelerator.backward(loss * (accelerator.num_processes / max(1.0, terms)))
        norm = accelerator.clip_grad_norm_(self._model.parameters(), self._settings.clip or math.inf)
        self._check_finite(loss_sum, float(norm) if norm is not None else 0.0)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        state.step += 1
        state.loss_sum += loss_sum
        state.terms += int(terms)
        self._save_due = bool(due)
        self._observer.stepped(
            StepReport(
                step=self._steps_done,
                steps=self._steps,
                epoch=state.epoch + 1,
                epochs=self._settings.epochs,
                loss=loss_sum / max(1.0, terms),
                tokens=int(terms),
                learning_rate=rate,
            )
        )
        return signal_of(came)

    def _rate_factor(self) -> float:
        factor = learning_rate_factor(self._steps_done, self._steps, WARMUP)
        rising = self._steps_done < round(self._steps * WARMUP)
        return factor if rising or self._settings.schedule == "cosine" else 1.0

    def _check_finite(self, loss: float, norm: float) -> None:
        """Before the weights change: a checkpoint never holds what such a gradient would make of them."""
        for name, value in (("loss", loss), ("gradient's norm", norm)):
            scaled = name != "loss" and self._settings.mixed_precision == "fp16"  # the scaler leaves such a step out
            if not math.isfinite(value) and not scaled:
                raise TrainingError(
                    f"the {name} is {value} at step {self._steps_done + 1}: lower the learning rate, or clip more"
                )

    def _collated(self, examples: Sequence[Any], indices: np.ndarray) -> dict[str, Any]:
        """This process's share of a batch: every n-th example, so that the shares have like lengths.

        Examples that belong together lie side by side: their batches are cut into pieces instead.
        """
        own = indices[self._accelerator.process_index :: self._accelerator.num_processes]
        if self._labels is not None:
            own = np.array_split(indices, self._accelerator.num_processes)[self._accelerator.process_index]
        return to_device(self._collate([examples[i] for i in own.tolist()]), self._accelerator.device)

    def _finish_epoch(self) -> EpochReport:
        state = self._state
        held_out, metrics = self._evaluate()
        report = EpochReport(state.epoch + 1, state.loss_sum / max(1, state.terms), held_out, metrics)
        state.history.append(report)
        if best_of(state.history) is report:
            state.best = {name: value.detach().clone() for name, value in self._kept.state_dict().items()}
        state.epoch, state.step, state.loss_sum, state.terms = state.epoch + 1, 0, 0.0, 0
        return report

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, dict[str, float]]:
        """(mean held-out loss, mean of each metric), over all processes."""
        model = self._kept.eval()
        accelerator = self._accelerator
        metrics = getattr(model, "metrics", None)
        own: dict[str, list[float]] = {"": [0.0, 0.0]}
        for indices in self._held_out_batches:
            if len(indices) <= accelerator.process_index:
                continue
            batch = self._collated(self._held_out, indices)
            with accelerator.autocast():
                loss, terms = model.loss(**batch)  # type: ignore[operator]  # checked by fit
                counted = {"": (float(loss), int(terms)), **(metrics(**batch) if callable(metrics) else {})}
            for name, (value, count) in counted.items():
                sums = own.setdefault(name, [0.0, 0.0])
                sums[0] += float(value)
                sums[1] += float(count)
        every = gathered(accelerator, own)
        names = dict.fromkeys(name for part in every for name in part)
        means = {}
        for name in names:
            parts = [part[name] for part in every if name in part]
            means[name] = sum(part[0] for part in parts) / max(1.0, sum(part[1] for part in parts))
        loss = means.pop("")
        if not math.isfinite(loss):
            raise TrainingError(
                f"the held-out loss is {loss} after epoch {self._state.epoch + 1}: look at the examples"
            )
        return loss, means

    @property
    def _kept(self) -> nn.Module:
        """What is evaluated and kept: the model, or the average of its weights."""
        return self._model if self._average is None else self._average.module

    def _check_shares(self, smallest: int) -> None:
        processes = self._accelerator.num_processes
        if smallest < processes:
            raise InputError(
                f"the smallest batch has {smallest} examples for {processes} processes: raise batch, "
                f"which is {self._settings.batch}, or start fewer processes"
            )

    def _observers(self, observer: Observer | None, log_dir: str | Path | None) -> Observer:
        if not self._accelerator.is_main_process:
            return Observer()
        if observer is None:
            from rnncore.training.progress import TrainProgress

            observer = TrainProgress(perplexity=False, unit="terms")
        return observer if log_dir is None else Observers([observer, RunLog(log_dir)])

    def _start_random_numbers(self) -> None:
        accelerator = self._accelerator
        saved = self._state.random_states
        if len(saved) != accelerator.num_processes:  # a new run, or one that goes on with other processes
            torch.manual_seed(self._settings.seed + accelerator.process_index)
            return
        cpu, *gpu = saved[accelerator.process_index]
        torch.set_rng_state(cpu)
        if gpu and accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(gpu[0], accelerator.device)

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        device = self._accelerator.device
        gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
        state = self._state
        state.random_states = gathered(self._accelerator, [torch.get_rng_state(), *gpu])
        state.model = self._model.state_dict()
        state.optimizer = self._optimizer.state_dict()
        state.average = {} if self._average is None else self._average.state_dict()
        if self._accelerator.is_main_process:
            state.save(self._checkpoint)
        self._observer.saved(self._checkpoint)

    def _restore(self, path: Path, identity: dict[str, Any]) -> None:
        saved = FitCheckpoint.load(path)
        saved.check_identity(path, identity)
        try:
            self._model.load_state_dict(saved.model)
            self._optimizer.load_state_dict(saved.optimizer)
            if self._average is not None:
                self._average.load_state_dict(saved.average)
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(f"{path} does not fit the model: {error}") from None
        self._state = saved
