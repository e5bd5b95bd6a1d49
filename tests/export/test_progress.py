"""A long export shows on a terminal what it does; logs and pipes stay clean."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from rnncore.export import export, exporter
from rnncore.export.progress import Progress
from rnncore.runtime.errors import InputError


class Terminal(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return not self.closed or bool(super().isatty())

    def flush(self) -> None:
        self.written.set()


def test_the_stages_are_shown_and_the_line_is_gone_at_the_end(tmp_path: Path) -> None:
    terminal = Terminal()
    stages: list[str] = []

    class Slow(Progress):
        def __init__(self, what: str) -> None:
            super().__init__(what, terminal, after_s=0.0)

        def now(self, stage: str) -> None:
            stages.append(stage)
            super().now(stage)
            terminal.written.clear()
            assert terminal.written.wait(60)  # a line comes, whatever else the thread of the export does

    with mock.patch.object(exporter, "Progress", Slow):
        export(nn.GRU(3, 4, batch_first=True), tmp_path / "m.onnx", torch.randn(1, 5, 3))
    text = terminal.getvalue()
    shown = re.findall(r"\r\x1b\[Kexport of m\.onnx: ([^(]+) \(\d+ s\)", text)
    assert set(shown) >= set(stages) >= {"tracing", "writing loops", "comparing the file with PyTorch"}
    assert text.endswith("\r\x1b[K")
    assert not [thread for thread in threading.enumerate() if thread.name == "rnncore-export-progress"]


def test_nothing_but_a_terminal_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, closed = io.StringIO(), Terminal()
    closed.close()
    for stream in (pipe, closed, None, object()):
        monkeypatch.setattr("sys.stderr", stream)
        with Progress("it", after_s=0.0) as progress:
            progress.now("tracing")
    assert pipe.getvalue() == ""


def test_a_terminal_that_is_gone_and_a_failing_export_end_it() -> None:
    terminal = Terminal()
    with pytest.raises(InputError), Progress("it", terminal, after_s=0.0):
        assert terminal.written.wait(60)
        terminal.close()
        raise InputError("no")


def test_a_short_export_shows_nothing() -> None:
    terminal = Terminal()
    with Progress("it", terminal, after_s=1000.0):
        pass
    assert terminal.getvalue() == ""
