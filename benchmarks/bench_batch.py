"""Whole sequences: the exported loop and scan against onnxruntime's fused operator and torch eager; one thread."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.contestants import exported, fused_feeds, fused_session, torch_layer
from benchmarks.measure import Table, medians, micro, ratio

TIME = 100
CASES = [
    ("lstm", 64, 1),
    ("lstm", 256, 1),
    ("lstm", 512, 1),
    ("lstm", 64, 16),
    ("lstm", 256, 16),
    ("lstm", 512, 16),
    ("gru", 64, 1),
    ("gru", 256, 1),
    ("gru", 256, 16),
    ("rnn", 256, 1),
]


def run() -> Table:
    torch.set_num_threads(1)
    rows = []
    for kind, size, batch in CASES:
        x = np.random.default_rng(1).normal(size=(batch, TIME, size)).astype(np.float32)
        layer, session, feeds = torch_layer(kind, size), fused_session(kind, size), fused_feeds(kind, x)
        loop, scan, tensor = exported(kind, size, "loop"), exported(kind, size, "scan"), torch.from_numpy(x)
        with torch.inference_mode():
            expected = layer(tensor).numpy()
            for y in (loop.run(x), scan.run(x), session.run(["y"], feeds)[0][:, 0].transpose(1, 0, 2)):
                np.testing.assert_allclose(y, expected, atol=1e-4)
            took = medians(
                {
                    "fused": lambda s=session, f=feeds: s.run(["y"], f),
                    "loop": lambda m=loop, v=x: m.run(v),
                    "scan": lambda m=scan, v=x: m.run(v),
                    "torch": lambda m=layer, v=tensor: m(v),
                }
            )
        rows.append(
            (
                f"{kind} H={size} B={batch}",
                *(micro(took[name], TIME) for name in ("fused", "loop", "scan", "torch")),
                ratio(took["loop"], took["fused"]),
                ratio(took["scan"], took["fused"]),
                ratio(took["loop"], took["torch"]),
                ratio(took["scan"], took["torch"]),
            )
        )
    header = ("layer", "fused", "loop", "scan", "torch", "loop/fused", "scan/fused", "loop/torch", "scan/torch")
    note = f"Time {TIME}, input size = hidden size, µs a step, one thread, interleaved medians; parity checked first."
    return Table("Batch inference", note, header, tuple(rows))
