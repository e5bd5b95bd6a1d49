"""Forward and backward of one layer, against torch.nn of the same kind; T 64, B 32, H 256."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import rnncore
from benchmarks.measure import Table, medians, ratio

TIME, BATCH, SIZE = 64, 32, 256


def _step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        layer.zero_grad(set_to_none=True)
        layer(x)[0].square().mean().backward()

    return step


def run() -> Table:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(3)
        x = torch.randn(BATCH, TIME, SIZE, requires_grad=True)
        peers = {kind: getattr(nn, kind)(SIZE, SIZE, batch_first=True) for kind in ("LSTM", "GRU", "RNN")}
        ours = {
            ("rnncore.LSTM", "LSTM"): rnncore.LSTM(SIZE, SIZE),
            ("rnncore.GRU", "GRU"): rnncore.GRU(SIZE, SIZE),
            ("rnncore.RNN", "RNN"): rnncore.RNN(SIZE, SIZE),
            ("LSTM, peephole", "LSTM"): rnncore.LSTM(SIZE, SIZE, peephole="current"),
            ("LSTM, layer norm", "LSTM"): rnncore.LSTM(SIZE, SIZE, layer_norm=True),
            ("GRU, reset before", "GRU"): rnncore.GRU(SIZE, SIZE, reset="before"),
            ("minGRU", "GRU"): rnncore.Recurrent(rnncore.MinGRUCell(SIZE, SIZE)),
        }
        for (name, peer), layer in ours.items():
            took = medians({"ours": _step(layer, x), "torch": _step(peers[peer], x)})
            rows.append(
                (
                    name,
                    f"nn.{peer}",
                    str(threads),
                    f"{took['ours'] * 1e3:.1f}",
                    f"{took['torch'] * 1e3:.1f}",
                    ratio(took["ours"], took["torch"]),
                )
            )
    note = f"Forward + backward, T {TIME}, B {BATCH}, H {SIZE}, ms a step, medians of interleaved runs."
    return Table("Training", note, ("layer", "peer", "threads", "rnncore", "torch", "rnncore/torch"), tuple(rows))
