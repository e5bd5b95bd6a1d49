"""A training that was stopped and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncore.runtime.errors import TrainingError
from rnncore.text import Corpus
from rnncore.training import Checkpoint, Observer, StepReport, Trainer, TrainingInterrupted
from tests.training.small import CORPUS, assert_same_bits, resumed, steps_of, trainer

STEPS = steps_of()


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """A process that a shell started in the background ignores SIGINT, and pytest with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@cache
def straight() -> Checkpoint:
    """Train without a stop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        trainer(checkpoint=path).run()
        return Checkpoint.load(path)


class SignalAt(Observer):
    """Sends a signal to this process after some steps."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def stepped(self, report: StepReport) -> None:
        if report.step == self.step:
            signal.raise_signal(self.number)


class CopyAt(Observer):
    """Keeps the checkpoint as it was after some steps: what a killed process leaves behind."""

    def __init__(self, step: int, copy: Path) -> None:
        self.step, self.copy, self.done = step, copy, 0

    def stepped(self, report: StepReport) -> None:
        self.done = report.step

    def saved(self, path: Path) -> None:
        if self.done == self.step and not self.copy.exists():
            shutil.copy(path, self.copy)


def test_the_small_training_has_steps_before_within_and_after_an_epoch() -> None:
    assert STEPS > 20
    assert STEPS % 2 == 0
    assert straight().is_finished


@settings(max_examples=8)  # each one trains; over all runs every step comes up
@given(st.lists(st.integers(1, STEPS - 1), min_size=1, max_size=3, unique=True).map(sorted))
def test_ctrl_c_and_resume_at_any_steps_change_no_bit(stops: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        subject = trainer(checkpoint=path, observer=SignalAt(stops[0]))
        for later in [*stops[1:], 0]:
            with pytest.raises(TrainingInterrupted) as caught:
                subject.run()
            assert caught.value.checkpoint == path
            assert caught.value.signal_number == signal.SIGINT
            assert not Checkpoint.load(path).is_finished
            subject = resumed(path, observer=SignalAt(later))
        torch.manual_seed(99)  # whatever the caller draws in between
        assert subject.run() == straight().position.history
        assert_same_bits(Checkpoint.load(path), straight())
        assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("step", [1, STEPS // 2, STEPS // 2 + 3])
def test_a_killed_training_goes_on_from_its_last_checkpoint(step: int, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    trainer(checkpoint=tmp_path / "model.pt", save_every_s=0, observer=CopyAt(step, copy)).run()
    subject = resumed(copy)
    assert subject._steps_done == step
    subject.run()
    assert_same_bits(Checkpoint.load(copy), straight())


def test_sigterm_saves_too(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(TrainingInterrupted) as caught:
        trainer(checkpoint=path, observer=SignalAt(2, signal.SIGTERM)).run()
    assert caught.value.signal_number == signal.SIGTERM
    assert Checkpoint.load(path).position.step == 2


def test_a_second_ctrl_c_acts_at_once(tmp_path: Path) -> None:
    class Twice(Observer):
        def stepped(self, report: StepReport) -> None:
            if report.step == 2:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer(checkpoint=tmp_path / "model.pt", observer=Twice()).run()
    assert not isinstance(caught.value, TrainingInterrupted)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_checkpoint_ctrl_c_is_as_usual() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer(observer=SignalAt(2)).run()
    assert not isinstance(caught.value, TrainingInterrupted)


def test_training_works_in_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    thread = threading.Thread(target=trainer(checkpoint=path).run)
    thread.start()
    thread.join()
    assert_same_bits(Checkpoint.load(path), straight())


def test_a_finished_training_resumes_to_nothing_or_to_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    trainer(checkpoint=path).run()
    assert resumed(path).run() == straight().position.history
    history = resumed(path, epochs=3).run()
    assert history[:2] == straight().position.history
    assert len(history) == 3
    assert Checkpoint.load(path).settings.epochs == 3


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    trainer(checkpoint=path).run()
    other = Corpus("other cats", (*CORPUS.texts[1:], CORPUS.texts[0]))
    with pytest.raises(TrainingError, match="other cats is not the corpus that this training started with"):
        Trainer.resume(Checkpoint.load(path), other)
