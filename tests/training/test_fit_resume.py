"""``fit`` stopped and started again, and in several processes: the same training."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rnncore.runtime.errors import TrainingError
from rnncore.training import EpochReport, Observer, StepReport, TrainingInterrupted
from rnncore.training.fit_checkpoint import FitCheckpoint
from rnncore.training.interruption import signal_flags, signal_of
from tests.tolerances import fixed
from tests.training import tagging
from tests.training.tagging import Tagger, train

STEPS = 21


class SignalAt(Observer):
    """Sends a signal to this process after some steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, report: StepReport) -> None:
        if report.step == self.step:
            signal.raise_signal(signal.SIGINT)


def straight(path: Path) -> FitCheckpoint:
    train(Tagger(dropout=0.3), checkpoint=path)
    return FitCheckpoint.load(path)


def assert_same_bits(got: FitCheckpoint, expected: FitCheckpoint) -> None:
    assert got.history == expected.history
    assert got.model.keys() == expected.model.keys()
    assert expected.best is not None
    assert got.best is not None
    for name, value in expected.model.items():
        assert torch.equal(got.model[name], value), name
        assert torch.equal(got.best[name], expected.best[name]), name
    for number, moments in expected.optimizer["state"].items():
        for name, value in moments.items():
            assert torch.equal(got.optimizer["state"][number][name], value), (number, name)
    assert torch.equal(got.random_states[0][0], expected.random_states[0][0])


def test_ctrl_c_and_going_on_change_no_bit(tmp_path: Path) -> None:
    expected = straight(tmp_path / "straight.pt")
    path = tmp_path / "stopped.pt"
    for step in (1, 7, 11, 20):  # the first, the last of an epoch, one within, the last but one
        with pytest.raises(TrainingInterrupted) as caught:
            train(Tagger(dropout=0.3, seed=99), checkpoint=path, observer=SignalAt(step)) if step > 1 else train(
                Tagger(dropout=0.3), checkpoint=path, observer=SignalAt(step)
            )
        assert caught.value.checkpoint == path
        torch.manual_seed(step)  # whatever the caller draws in between
    model = Tagger(dropout=0.3, seed=98)
    report = train(model, checkpoint=path)
    assert_same_bits(FitCheckpoint.load(path), expected)
    assert report.epochs == tuple(expected.history)
    assert expected.best is not None
    assert all(torch.equal(value, expected.best[name]) for name, value in model.state_dict().items())


def test_the_average_of_the_weights_goes_on_too(tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight.pt", tmp_path / "stopped.pt"
    train(Tagger(), checkpoint=straight, average=0.9)
    with pytest.raises(TrainingInterrupted):
        train(Tagger(), checkpoint=stopped, average=0.9, observer=SignalAt(10))
    train(Tagger(seed=5), checkpoint=stopped, average=0.9)
    got, expected = FitCheckpoint.load(stopped), FitCheckpoint.load(straight)
    assert_same_bits(got, expected)
    assert all(torch.equal(got.average[name], value) for name, value in expected.average.items())
    with pytest.raises(TrainingError, match=r"average was 0.9, is now 0.5"):
        train(Tagger(), checkpoint=stopped, average=0.5)


def test_a_finished_training_is_only_read_or_goes_on_to_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    expected = straight(path)
    before = path.read_bytes()
    assert train(Tagger(dropout=0.3, seed=9), checkpoint=path).epochs == tuple(expected.history)
    assert path.read_bytes() == before
    longer = train(Tagger(dropout=0.3, seed=9), checkpoint=path, epochs=4).epochs
    assert longer[:3] == tuple(expected.history)
    assert len(longer) == 4


def test_the_log_of_a_resumed_run_is_whole(tmp_path: Path) -> None:
    path, log = tmp_path / "model.pt", tmp_path / "log"
    with pytest.raises(TrainingInterrupted):
        train(Tagger(), checkpoint=path, log_dir=log, observer=SignalAt(10))
    train(Tagger(), checkpoint=path, log_dir=log)
    whole = tmp_path / "whole"
    train(Tagger(), log_dir=whole)
    for name in ("metrics.csv", "steps.csv"):
        assert (log / name).read_text() == (whole / name).read_text()


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    straight(path)
    with pytest.raises(TrainingError, match=r"batch was 8, is now 9; seed was 0, is now 5"):
        train(Tagger(dropout=0.3), checkpoint=path, batch=9, seed=5)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="is not a checkpoint, or is truncated"):
        train(Tagger(dropout=0.3), checkpoint=path)
    torch.save({"format": "rnncore.fit 7"}, path)
    with pytest.raises(TrainingError, match=r"has checkpoint format 'rnncore.fit 7', expected"):
        train(Tagger(dropout=0.3), checkpoint=path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_came_to_several_processes_is_that_signal(number: int) -> None:
    both = [mine + other for mine, other in zip(signal_flags(number), signal_flags(number), strict=True)]
    one = [mine + other for mine, other in zip(signal_flags(None), signal_flags(number), strict=True)]
    assert signal_of(both) == signal_of(one) == number
    assert signal_of(signal_flags(None)) is None


@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(tmp_path: Path) -> None:
    """torchrun on CPUs (gloo); ``accelerate launch`` is torchrun with other words."""
    alone = tmp_path / "alone.pt"
    train(Tagger(), checkpoint=alone)
    together, log = tmp_path / "together.pt", tmp_path / "log"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tagging.__file__).parents[2])}
    result = subprocess.run(
        [*torchrun, "--module", "tests.training.tagging", str(together), str(log)],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    one, two = FitCheckpoint.load(alone), FitCheckpoint.load(together)
    assert len(two.random_states) == 2, "there were two processes, and they knew of each other"
    assert two.history == [
        EpochReport(
            report.epoch,
            pytest.approx(report.training_loss, rel=fixed("float32")),
            pytest.approx(report.held_out_loss, rel=fixed("float32")),
            {"accuracy": pytest.approx(report.metrics["accuracy"])},
        )
        for report in one.history
    ]
    for name, value in one.model.items():
        torch.testing.assert_close(
            two.model[name], value, rtol=fixed("float32 training gradient"), atol=fixed("float32"), msg=name
        )
    assert shutil.which("accelerate", path=str(Path(sys.executable).parent))
    assert (log / "metrics.csv").read_text().count("\n") == 4
