"""Forward and backward of one layer, against torch.nn of the same kind; T 64, B 32, H 256."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import rnncore
from benchmarks.measure import Table, ratio, timings

TIME, BATCH, SIZE = 64, 32, 256


class OwnLSTM(rnncore.Cell):
    """What somebody writes who wants an LSTM and finds none."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__(input_size, size, {"h": size, "c": size})
        self.of_x, self.of_h = nn.Linear(input_size, 4 * size), nn.Linear(size, 4 * size)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return self.of_x(x)

    def step(self, z: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        i, f, g, o = (z + self.of_h(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, h, c


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
        cells = {
            ("LSTM, peephole", "LSTM"): lambda: rnncore.LSTMCell(SIZE, SIZE, peephole="current"),
            ("LSTM, layer norm", "LSTM"): lambda: rnncore.LSTMCell(SIZE, SIZE, layer_norm=True),
            ("LSTM, layer norm and peephole", "LSTM"): lambda: rnncore.LSTMCell(
                SIZE, SIZE, layer_norm=True, peephole="current"
            ),
            ("LSTM, coupled", "LSTM"): lambda: rnncore.LSTMCell(SIZE, SIZE, coupled=True),
            ("LSTM, a user's own cell", "LSTM"): lambda: OwnLSTM(SIZE, SIZE),
            ("GRU, reset before", "GRU"): lambda: rnncore.GRUCell(SIZE, SIZE, reset="before"),
        }
        ours: dict[tuple[str, str], nn.Module] = {
            ("rnncore.LSTM", "LSTM"): rnncore.LSTM(SIZE, SIZE),
            ("rnncore.GRU", "GRU"): rnncore.GRU(SIZE, SIZE),
            ("rnncore.RNN", "RNN"): rnncore.RNN(SIZE, SIZE),
            ("minGRU", "GRU"): rnncore.Recurrent(rnncore.MinGRUCell(SIZE, SIZE)),
        }
        for (name, peer), make in cells.items():
            ours[name, peer] = rnncore.Recurrent(make())
            ours[f"{name}, compiled", peer] = rnncore.compile_steps(rnncore.Recurrent(make()))
        steps = {key: _step(layer, x) for key, layer in ours.items()}
        steps["matrix products of an LSTM alone", "LSTM"] = _products()
        for (name, peer), own in steps.items():
            took = timings({"ours": own, "torch": _step(peers[peer], x)}, cold=False)
            rows.append(
                (
                    name,
                    f"nn.{peer}",
                    str(threads),
                    f"{took['ours'].warm * 1e3:.1f}",
                    f"{took['torch'].warm * 1e3:.1f}",
                    ratio(took["ours"].warm, took["torch"].warm),
                )
            )
    note = (
        f"Forward + backward, T {TIME}, B {BATCH}, H {SIZE}, ms a step, medians of interleaved runs. "
        "nn.LSTM and nn.GRU run in oneDNN, cells of our own through torch.mm, which is another library (MKL in torch's wheels) "
        "and on some processors slower by itself: the row of products alone tells how much.  Compiled: by "
        "rnncore.compile_steps, which takes a few seconds once."
    )
    return Table("Training", note, ("layer", "peer", "threads", "rnncore", "torch", "rnncore/torch"), tuple(rows))
