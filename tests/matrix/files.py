"""Files of every kind with random weights, written by the pinned set: ``python -m tests.matrix.files FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import rnncore
from rnncore.export import export
from tests.task_models import MODELS, model_file


class Plain(nn.Module):
    """A layer and a head."""

    def __init__(self, layer: nn.Module, size: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0])


def write(folder: Path) -> None:
    """Every task's file, and plain modules in every form."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        (folder / f"{name.replace(', ', '-').replace(' ', '-')}.onnx").write_bytes(model_file(name))
    torch.manual_seed(0)
    example = torch.randn(2, 5, 6)
    for form in ("loop", "scan", "fused", "portable", "auto"):
        export(Plain(nn.LSTM(6, 7, batch_first=True), 7).eval(), folder / f"lstm-{form}.onnx", example, form=form)
    export(Plain(nn.GRU(6, 7, batch_first=True, bidirectional=True), 14).eval(), folder / "gru-both-ways.onnx", example)
    export(Plain(rnncore.GRU(6, 32), 32).eval(), folder / "gru-int8.onnx", example, quantize="int8")
    export(Plain(rnncore.LSTM(6, 32), 32).eval(), folder / "lstm-two-files.onnx", example, external_data=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
