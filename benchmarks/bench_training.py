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


def _products() -> Callable[[], None]:
    """The matrix products of a training step of an LSTM, by torch.mm and without anything else."""
    weight, x = torch.randn(4 * SIZE, SIZE), torch.randn(TIME * BATCH, SIZE)
    h, dz = torch.randn(BATCH, SIZE), torch.randn(TIME, BATCH, 4 * SIZE)
    transposed, flat = weight.t(), dz.flatten(0, 1)

    def step() -> None:
        z = (x @ transposed).view(TIME, BATCH, -1)
        for t in range(TIME):
            z[t].addmm_(h, transposed)
        for t in range(TIME):
            dz[t] @ weight
        flat.t() @ x, flat.t() @ x, flat @ weight

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
        steps = {key: _step(layer, x) for key, layer in ours.items()}
        steps["matrix products of an LSTM alone", "LSTM"] = _products()
        for (name, peer), own in steps.items():
            took = medians({"ours": own, "torch": _step(peers[peer], x)})
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
    note = (
        f"Forward + backward, T {TIME}, B {BATCH}, H {SIZE}, ms a step, medians of interleaved runs. "
        "nn.LSTM and nn.GRU run in oneDNN, cells of our own through torch.mm, which is another library (MKL in torch's wheels) "
        "and on some processors slower by itself: the row of products alone tells how much."
    )
    return Table("Training", note, ("layer", "peer", "threads", "rnncore", "torch", "rnncore/torch"), tuple(rows))
