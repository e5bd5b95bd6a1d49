"""What is shown while training."""

from __future__ import annotations

import io
import re

from rich.console import Console

from rnncore.training import EpochReport, StepReport
from rnncore.training.progress import TrainProgress

LINE = r"epoch 1/2  loss (\d\.\d{4})  perplexity (\d+\.\d{3})  [\d,]+ tokens/s  ETA \d+:\d\d"


def watch(progress: TrainProgress, losses: list[float], start: int = 0) -> None:
    progress.started(step=start, steps=100)
    for step, loss in enumerate(losses, start=start + 1):
        progress.stepped(StepReport(step, 100, 1, 2, loss, 1024, 0.01))
    progress.finished_epoch(EpochReport(1, 1.5, 1.25))
    progress.finished()


def test_without_a_terminal_there_are_plain_lines() -> None:
    text = io.StringIO()
    watch(TrainProgress(Console(file=text, width=200), line_every_s=0.0), [4.0, 2.0, 3.0])
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["step 1/100", "step 2/100", "step 3/100"]
    shown = [re.fullmatch(rf"step \d+/100  {LINE}", line) for line in lines[:3]]
    assert [match[1] for match in shown if match] == ["4.0000", "3.0000", "3.0000"], "a running mean from the start"
    assert lines[3] == (
        "epoch 1 done: training loss 1.5000 (perplexity 4.482), held-out loss 1.2500 (perplexity 3.490)"
    )


def test_lines_are_seconds_apart() -> None:
    text = io.StringIO()
    watch(TrainProgress(Console(file=text, width=200), line_every_s=3600.0), [4.0] * 50)
    assert text.getvalue().count("\n") == 1


def test_on_a_terminal_there_is_a_bar() -> None:
    text = io.StringIO()
    watch(TrainProgress(Console(file=text, width=150, force_terminal=True)), [4.0, 2.0], start=40)
    assert re.search(LINE, text.getvalue())
    assert "━" in text.getvalue()
    assert "epoch 1 done" in text.getvalue()
