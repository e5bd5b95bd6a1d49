"""What one export enters: calls between two files go one way, so that each can be read without the other."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from rnncore.export import export

ROOT = Path(__file__).parents[2]


class Trip:
    """Calls between files of the project while a block runs, in all threads: (calling file, called file) -> functions."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._names: dict[str, str | None] = {}

    def __enter__(self) -> Trip:
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        back = frame.f_back
        if event != "call" or back is None or frame.f_code.co_name == "<module>":
            return
        here, there = self._name(back.f_code.co_filename), self._name(frame.f_code.co_filename)
        if here is not None and there is not None and here != there:
            self.calls[here, there].add(frame.f_code.co_name)

    def _name(self, file: str) -> str | None:
        if file not in self._names:
            path = Path(file).resolve()
            ours = any(path.is_relative_to(ROOT / folder) for folder in ("rnncore", "export", "runtime"))
            self._names[file] = str(path.relative_to(ROOT)) if ours else None
        return self._names[file]

    def both_ways(self) -> list[str]:
        """Pairs of files that call each other, with what they call."""
        pairs = sorted((a, b) for a, b in self.calls if a < b and (b, a) in self.calls)
        return [f"{a} -> {sorted(self.calls[a, b])}, back -> {sorted(self.calls[b, a])} of {b}" for a, b in pairs]


def test_no_two_files_call_each_other_while_an_lstm_is_exported(tmp_path: Path) -> None:
    with Trip() as trip:
        export(nn.LSTM(3, 5, batch_first=True), tmp_path / "model.onnx", torch.randn(2, 7, 3))
    assert ("export/exporter.py", "export/stages.py") in trip.calls
    assert trip.both_ways() == []


def test_a_call_back_is_seen() -> None:
    trip = Trip()
    trip.calls |= {("a.py", "b.py"): {"f"}, ("b.py", "a.py"): {"g"}, ("b.py", "c.py"): {"h"}}
    assert trip.both_ways() == ["a.py -> ['f'], back -> ['g'] of b.py"]


def test_an_export_is_read_in_one_file_of_250_lines() -> None:
    assert len((ROOT / "export" / "exporter.py").read_text(encoding="utf-8").splitlines()) <= 250
