"""Truncated back-propagation through time does what it says."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rnncore.runtime import InputError
from rnncore.runtime.errors import TrainingError
from rnncore.text import character_vocabulary
from rnncore.training import (
    Checkpoint,
    ContiguousBatches,
    EpochReport,
    Observer,
    StepReport,
    Trainer,
    TrainingSettings,
    evaluate,
    new_model,
    token_stream,
)
from rnncore.training.schedule import learning_rate_factor
from tests.tolerances import fixed
from tests.training.small import CONFIG, CORPUS, SETTINGS, VOCABULARY, resumed, trainer


class Recorder(Observer):
    """Keeps all reports."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochReport] = []
        self.begin: list[tuple[int, int]] = []

    def started(self, *, step: int, steps: int) -> None:
        self.begin.append((step, steps))

    def stepped(self, report: StepReport) -> None:
        self.steps.append(report)

    def finished_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)


def test_steps_equal_a_transcription_of_the_method() -> None:
    """Carried state, loss summed over steps and averaged over rows, clipping, AdamW: written out, the same numbers."""
    settings = replace(SETTINGS, epochs=1, clip=0.5)
    config = replace(CONFIG, dropout=0.0)
    subject = Trainer(new_model(config, 1), VOCABULARY, CORPUS, settings, device="cpu")
    reports = Recorder()
    subject._observer = reports
    subject.run()

    model = new_model(config, 1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay)
    batches = ContiguousBatches(token_stream(CORPUS.split(0.05).training, VOCABULARY), 0, 3, 29)
    state, losses = None, []
    for step in range(len(batches)):
        inputs, targets, fresh = batches[step]
        if state is not None:
            for row in fresh.nonzero().flatten():
                for layer in state:
                    for tensor in layer:
                        tensor[row] = 0.0
        logits, state = model.forward_with_state(inputs, state)
        state = tuple(tuple(s.detach().clone() for s in layer) for layer in state)
        log_probs = logits.log_softmax(2).gather(2, targets.clamp(min=0).unsqueeze(2)).squeeze(2)
        per_step = -(log_probs * (targets >= 0)).mean(0)
        optimizer.zero_grad()
        per_step.sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = 0.02 * learning_rate_factor(step, len(batches), settings.warmup)
        optimizer.step()
        losses.append(float(per_step.detach().sum()) * 3 / int((targets >= 0).sum()))
    np.testing.assert_allclose([r.loss for r in reports.steps], losses, rtol=fixed("float32 training gradient"))
    for (name, got), expected in zip(subject.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(
            got, expected, rtol=fixed("float32 training"), atol=fixed("float32 training gradient"), msg=name
        )


def test_it_learns_and_reports() -> None:
    reports = Recorder()
    history = trainer(replace(SETTINGS, epochs=4), observer=reports).run()
    assert history == reports.epochs
    assert [report.epoch for report in history] == [1, 2, 3, 4]
    assert history[-1].held_out_perplexity < 0.7 * history[0].held_out_perplexity
    assert history[-1].training_perplexity == math.exp(history[-1].training_loss)
    total = len(reports.steps)
    assert reports.begin == [(0, total)]
    assert [report.step for report in reports.steps] == list(range(1, total + 1))
    assert {report.steps for report in reports.steps} == {total}
    first = [report for report in reports.steps if report.epoch == 1]
    mean = sum(r.loss * r.tokens for r in first) / sum(r.tokens for r in first)
    assert history[0].training_loss == pytest.approx(mean)


def test_the_seed_decides_everything_and_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two = trainer(), trainer()
    assert one.run() == two.run()
    assert trainer(replace(SETTINGS, seed=8)).run() != one.position.history
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_or_gradient_that_is_not_finite_stops_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"

    class Poison(Observer):
        def stepped(self, report: StepReport) -> None:
            if report.step == 3:
                subject.model.head.bias.register_hook(lambda gradient: gradient * math.nan)

    subject = trainer(checkpoint=path, save_every_s=0, observer=Poison())
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingError, match="norm is nan at step 4: lower the learning rate"):
        subject.run()
    assert signal.getsignal(signal.SIGINT) is handler
    checkpoint = Checkpoint.load(path)
    assert checkpoint.position.step == 3
    assert all(bool(weight.isfinite().all()) for weight in checkpoint.model.values())

    subject = trainer()
    with torch.no_grad():
        subject.model.head.bias[2] = math.inf
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        subject.run()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="vocabulary has 3 tokens, the model was made for"):
        Trainer(new_model(CONFIG, 1), character_vocabulary(["ab"]), CORPUS)
    with pytest.raises(InputError, match="too few for a batch of 9999"):
        trainer(replace(SETTINGS, batch=9999))
    with pytest.raises(InputError, match="expected one of: auto, cpu, cuda"):
        Trainer(new_model(CONFIG, 1), VOCABULARY, CORPUS, device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said_at_once() -> None:
    with pytest.raises(InputError, match="finds no CUDA GPU"):
        Trainer(new_model(CONFIG, 1), VOCABULARY, CORPUS, device="cuda")


def test_every_wrong_setting_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        TrainingSettings(0, 0, 0, 0.0, 1.0, -1.0, float("nan"), -1, 0)
    for name in TrainingSettings.__dataclass_fields__:
        assert name in str(caught.value)
    assert TrainingSettings.from_dict(SETTINGS.to_dict()) == SETTINGS
    with pytest.raises(InputError, match="training settings have the names"):
        TrainingSettings.from_dict({"epochs": 3})


def test_patience_keeps_the_best_weights_and_survives_a_resume(tmp_path: Path) -> None:
    """A learning rate at which the held-out loss soon rises."""
    path = tmp_path / "model.pt"
    settings = replace(SETTINGS, epochs=30, learning_rate=0.3, patience=2)
    subject = trainer(settings, checkpoint=path, log_dir=tmp_path / "log")
    history = subject.run()
    losses = [report.held_out_loss for report in history]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30
    again = evaluate(subject.model, [VOCABULARY.encode(text) for text in subject.held_out_texts], VOCABULARY.eos_id)
    assert -again.log_prob / again.tokens == pytest.approx(min(losses), rel=fixed("float32 same steps"))
    saved = Checkpoint.load(path)
    assert saved.is_finished
    resumed_trainer = resumed(path)
    assert resumed_trainer.run() == history
    assert saved.best is not None
    assert all(torch.equal(value, saved.best[name]) for name, value in resumed_trainer.model.state_dict().items())
    assert (tmp_path / "log" / "metrics.csv").read_text().count("\n") == len(losses) + 1
