"""``fit``: the gradient is that of the mean over all terms, the best weights stay, and what is wrong is said."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rnncore
from rnncore.runtime.errors import InputError, TrainingError
from rnncore.training import EpochReport, Observer, StepReport, fit
from rnncore.training.fit_report import FitReport, should_stop
from rnncore.training.shuffling import example_length, grouped_batches, shuffled_batches, sorted_batches
from tests.strategies import randomize
from tests.tolerances import fixed
from tests.training.tagging import FEATURES, HELD_OUT, HIDDEN, TRAINING, Tagger, collate, train


class Recorder(Observer):
    """Keeps the reports."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochReport] = []

    def stepped(self, report: StepReport) -> None:
        self.steps.append(report)

    def finished_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)


def test_it_learns_and_reports_what_the_model_then_does() -> None:
    model, recorder = Tagger(), Recorder()
    report = train(model, epochs=8, observer=recorder)
    assert report.epochs == tuple(recorder.epochs)
    assert report.best.held_out_loss < 0.7 * report.epochs[0].held_out_loss
    assert report.best.metrics["accuracy"] > report.epochs[0].metrics["accuracy"]
    assert not model.training
    with torch.no_grad():
        loss, terms = model.loss(**collate(HELD_OUT))
    assert float(loss) / terms == pytest.approx(report.best.held_out_loss, rel=fixed("float32")), (
        "the best weights are in the model"
    )
    right, count = model.metrics(**collate(HELD_OUT))["accuracy"]
    assert right / count == pytest.approx(report.best.metrics["accuracy"])
    of_first_epoch = [step for step in recorder.steps if step.epoch == 1]
    assert sum(step.tokens for step in of_first_epoch) == sum(len(x) for x, _ in TRAINING)


def test_compiled_steps_train_the_same_model() -> None:
    found = []
    for compiled in (False, True):
        model = Tagger()
        model.layer = rnncore.LSTM(FEATURES, HIDDEN, layer_norm=True)
        randomize(model, 3)
        report = train(rnncore.compile_steps(model, backend="eager") if compiled else model)
        found.append([loss for epoch in report.epochs for loss in (epoch.training_loss, epoch.held_out_loss)])
    assert found[1] == pytest.approx(found[0], rel=fixed("float32 training"))


def test_one_step_is_adamw_on_the_clipped_gradient_of_the_mean_over_terms() -> None:
    """Against the same step written out."""
    model, plain = Tagger(), Tagger()
    fit(
        model, TRAINING[:6], HELD_OUT, collate=collate, epochs=1, batch=6, learning_rate=0.1, clip=0.05,
        schedule="constant", weight_decay=0.2, observer=Observer(),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.2)
    loss, terms = plain.loss(**collate(TRAINING[:6]))
    assert terms == sum(len(x) for x, _ in TRAINING[:6])
    (loss / terms).backward()
    assert nn.utils.clip_grad_norm_(plain.parameters(), 0.05) > 0.1
    optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(
            model.state_dict()[name],
            value,
            rtol=fixed("float32 training gradient"),
            atol=fixed("float32 training gradient"),
            msg=name,
        )


def test_averaged_weights_are_evaluated_and_kept() -> None:
    """Against the average written out, of the weights after every step."""
    model, plain, after = Tagger(), Tagger(), []

    class Weights(Observer):
        def stepped(self, report: StepReport) -> None:
            after.append([value.detach().clone() for value in model.parameters()])

    def flat(model: nn.Module) -> list[torch.Tensor]:
        return [value.detach() for value in model.parameters()]

    report = train(model, epochs=1, average=0.5, observer=Weights())
    expected = after[0]
    for n, weights in enumerate(after[1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    for got, wanted in zip(flat(model), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=fixed("float32 training"), atol=fixed("float32 training"))
    loss, terms = model.loss(**collate(HELD_OUT))
    assert float(loss.detach()) / terms == pytest.approx(report.best.held_out_loss, rel=fixed("float32"))
    train(plain, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(flat(plain), after[-1], strict=True)), (
        "steps are of the weights themselves"
    )


def test_the_last_weights_are_kept_where_that_is_asked() -> None:
    """With a learning rate so high that the best epoch is not the last."""
    best, last, after = Tagger(), Tagger(), []

    class Weights(Observer):
        def stepped(self, report: StepReport) -> None:
            after.append({name: value.clone() for name, value in last.state_dict().items()})

    options = {"epochs": 6, "learning_rate": 0.8, "schedule": "constant"}
    report = train(best, **options)
    assert report.best is not report.epochs[-1], "otherwise it tells nothing"
    train(last, **options, keep="last", observer=Weights())
    assert all(torch.equal(value, after[-1][name]) for name, value in last.state_dict().items())
    assert any(not torch.equal(value, best.state_dict()[name]) for name, value in last.state_dict().items())


def test_a_model_that_cannot_be_averaged_says_so() -> None:
    model = Tagger()
    model.computed = model.head.weight * 2  # type: ignore[assignment]
    with pytest.raises(InputError, match="average needs a copy of the model, which Tagger does not allow"):
        train(model, average=0.9)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_random_numbers_alone() -> None:
    models = [Tagger(dropout=0.3) for _ in range(3)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for model, seed in zip(models, (4, 4, 6), strict=True):
        train(model, seed=seed, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    same, different = (
        [torch.equal(a, b) for a, b in zip(models[0].parameters(), other.parameters(), strict=True)]
        for other in models[1:]
    )
    assert all(same)
    assert not all(different)


def test_bf16_trains_in_bf16_and_keeps_float_weights() -> None:
    seen: list[torch.dtype] = []
    model = Tagger()
    model.head.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    report = train(model, mixed_precision="bf16", epochs=4)
    assert set(seen) == {torch.bfloat16}
    assert report.best.held_out_loss < report.epochs[0].held_out_loss
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    train(model, epochs=1)
    assert seen[-1] == torch.float32, "the next run is not bound to the precision of this one"


def test_patience_stops_and_keeps_the_best() -> None:
    model = Tagger()
    report = train(model, epochs=40, patience=2, learning_rate=0.5, schedule="constant", clip=None)
    assert report.stopped_early
    assert len(report.epochs) == report.best_epoch + 2 < 40
    with torch.no_grad():
        loss, terms = model.loss(**collate(HELD_OUT))
    assert float(loss) / terms == pytest.approx(report.best.held_out_loss, rel=fixed("float32"))


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=9), st.integers(1, 4))
def test_patience_counts_epochs_since_the_first_minimum(losses: list[float], patience: int) -> None:
    history = [EpochReport(number, 0.0, loss) for number, loss in enumerate(losses, start=1)]
    since = len(losses) - 1 - losses.index(min(losses))
    assert should_stop(history, patience) == (since >= patience)
    assert not should_stop(history, None)
    assert FitReport(tuple(history), False).best_epoch == losses.index(min(losses)) + 1


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=300),
    batch=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_batches_hold_every_example_once(lengths: list[int], batch: int, seed: int) -> None:
    array = np.array(lengths)
    for batches in (shuffled_batches(array, batch, seed, 0), sorted_batches(array, batch)):
        assert sorted(itertools.chain.from_iterable(one.tolist() for one in batches)) == list(range(len(lengths)))
        sizes = {len(one) for one in batches}
        assert max(sizes) <= batch
        assert max(sizes) - min(sizes) <= 1
        assert len(batches) == -(-len(lengths) // batch)


@settings(max_examples=50)
@given(
    labels=st.lists(st.integers(0, 30), min_size=1, max_size=300),
    batch=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_grouped_batches_hold_every_example_once_beside_one_of_its_label(
    labels: list[int], batch: int, seed: int
) -> None:
    lengths = np.random.default_rng(seed).integers(0, 40, len(labels))
    batches = grouped_batches(labels, lengths, batch, seed, 0)
    assert sorted(itertools.chain.from_iterable(one.tolist() for one in batches)) == list(range(len(labels)))
    assert len(batches) == len(grouped_batches(labels, lengths, batch, seed, 1)), "as many steps in every epoch"
    assert len(batches) <= -(-len(labels) // batch)
    assert all(len(one) for one in batches)
    for one in batches:
        for i in one:
            assert labels.count(labels[i]) == 1 or sum(labels[j] == labels[i] for j in one) > 1


def test_grouped_batches_are_of_like_size_and_length_and_new_every_epoch() -> None:
    random = np.random.default_rng(0)
    labels, lengths = random.integers(0, 700, 2000).tolist(), random.integers(1, 100, 2000)
    first, second = (grouped_batches(labels, lengths, 16, 3, epoch) for epoch in (0, 1))
    assert len(first) == 125
    assert {len(one) for one in first} <= set(range(13, 20))
    padded, plain = (
        sum(len(one) * lengths[one].max() for one in batches)
        for batches in (first, [np.arange(i, i + 16) for i in range(0, 2000, 16)])
    )
    assert padded < 0.85 * plain, "sorted by the longer of a pair"
    assert {tuple(sorted(one)) for one in first}.isdisjoint(tuple(sorted(one)) for one in second)


def test_batches_are_of_like_length_and_new_every_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    first, second = (shuffled_batches(lengths, 16, 3, epoch) for epoch in (0, 1))
    padded = sum(len(one) * lengths[one].max() for one in first)
    assert padded < 1.05 * lengths.sum(), "20 of 16 random ones would pad by 85 %"
    assert {tuple(sorted(one)) for one in first}.isdisjoint(tuple(sorted(one)) for one in second)
    assert [one.max() for one in first] != sorted(one.max() for one in first), "not the short ones first"


@pytest.mark.parametrize(
    ("example", "length"),
    [
        (torch.zeros(7, 3), 7),
        (np.zeros(()), 0),
        ("seven", 5),
        ((torch.zeros(7, 3), [1, 2], 4), 7),
        ((3, 1, 4, 1), 4),
        ({"x": [1, 2, 3], "y": 5}, 3),
        (EpochReport(1, 0.5, 0.5, {"four": 1.0}), 0),
        (17, 0),
        ((), 0),
    ],
)
def test_the_length_of_an_example_is_guessed(example: Any, length: int) -> None:
    assert example_length(example) == length


def test_every_wrong_argument_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        train(
            Tagger(),
            epochs=0,
            batch=0,
            learning_rate=float("nan"),
            patience=0,
            mixed_precision="half",
            schedule="up",
            average=1.0,
            keep="first",
        )
    for name in (
        "average is 1.0",
        "keep is 'first'",
        "epochs is 0",
        "batch is 0",
        "learning_rate is nan",
        "patience is 0",
        "'half'",
        "'up'",
    ):
        assert name in str(caught.value)
    with pytest.raises(InputError, match=r"(?s)training has no examples.*held_out has no.*Linear has no method loss"):
        fit(nn.Linear(2, 2), [], [], collate=collate, epochs=1)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    model = Tagger()
    nn.init.constant_(model.head.bias, float("nan"))
    before = {name: value.clone() for name, value in model.layer.state_dict().items()}
    with pytest.raises(TrainingError, match="the loss is nan at step 1: lower the learning rate"):
        train(model)
    assert all(torch.equal(value, before[name]) for name, value in model.layer.state_dict().items())


def test_log_files(tmp_path: Path) -> None:
    report = train(Tagger(), log_dir=tmp_path / "log")
    with (tmp_path / "log" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == [
        {"epoch": one.epoch, "training_loss": one.training_loss, "held_out_loss": one.held_out_loss, **one.metrics}
        for one in report.epochs
    ]
    with (tmp_path / "log" / "steps.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    assert [int(row["step"]) for row in steps] == list(range(1, 3 * 7 + 1))
    assert (tmp_path / "log" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    events = list((tmp_path / "log").glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert b"held_out/accuracy" in events[0].read_bytes()
