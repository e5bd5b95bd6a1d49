"""One step at a time with carried state: ``Stream.push`` against torch and against a bare ``InferenceSession.run``."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.contestants import FOLDER, exported, fused_feeds, fused_session, torch_layer
from benchmarks.measure import Table, Timing, micro, percent, ratio, timings

SIZES = (64, 256, 512)
STREAMS = 16


def run() -> Table:
    torch.set_num_threads(1)
    rows = []
    for size in SIZES:
        x = np.random.default_rng(2).normal(size=(1, 1, size)).astype(np.float32)
        layer, model = torch_layer("lstm", size).rnn, exported("lstm", size, "loop")
        frame, chunk = torch.from_numpy(x), x[0]
        cell = nn.LSTMCell(size, size)
        cell.load_state_dict({name.removesuffix("_l0"): p for name, p in layer.state_dict().items()})
        stream, fused, feeds = model.stream(), fused_session("lstm", size), fused_feeds("lstm", x)
        bare, bare_feeds = _bare_session(size)
        bare_feeds["x"] = x
        many = [model.stream() for _ in range(STREAMS)]
        with torch.inference_mode():
            hidden = layer(frame)[1]
            pair = (hidden[0][0], hidden[1][0])
            took = timings(
                {
                    "push": lambda s=stream, c=chunk: s.push(c),
                    "bare": lambda b=bare, f=bare_feeds: b.run(None, f),
                    "fused": lambda b=fused, f=feeds: b.run(None, f),
                    "nn.LSTM": lambda m=layer, v=frame, h=hidden: m(v, h),
                    "nn.LSTMCell": lambda m=cell, v=frame[0], h=pair: m(v, h),
                    "push_many": lambda m=model, s=many, c=[chunk] * STREAMS: m.push_many(s, c),
                }
            )
        rows += [_row(f"H={size}, {kind}", took, kind) for kind in ("warm", "cold")]
    names = ("push", "bare run", "fused run", "nn.LSTM", "nn.LSTMCell", f"push_many of {STREAMS}")
    ratios = ("nn.LSTM/push", "LSTMCell/push", "bare/push", "push/push_many", "largest spread")
    note = (
        "One stream, one step (T = 1), µs a step and stream, one thread, medians of interleaved runs, equally many calls of "
        "each. Cold: the caches were swept before every call, as by the other work of a service. "
        '"bare run" is `InferenceSession.run` of the same file, "fused run" of onnxruntime\'s LSTM operator.'
    )
    return Table("Streaming", note, ("LSTM", *names, *ratios), tuple(rows))


def _row(name: str, took: dict[str, Timing], kind: str) -> tuple[str, ...]:
    seconds = {contestant: float(getattr(timing, kind)) for contestant, timing in took.items()}
    seconds["push_many"] /= STREAMS
    return (
        name,
        *(micro(seconds[n]) for n in ("push", "bare", "fused", "nn.LSTM", "nn.LSTMCell", "push_many")),
        ratio(seconds["nn.LSTM"], seconds["push"]),
        ratio(seconds["nn.LSTMCell"], seconds["push"]),
        ratio(seconds["bare"], seconds["push"]),
        ratio(seconds["push"], seconds["push_many"]),
        percent(max(timing.spread for timing in took.values())) if kind == "warm" else "",
    )


def _bare_session(size: int) -> tuple[onnxruntime.InferenceSession, dict[str, np.ndarray]]:
    """The exported file in a plain session, and zeros for everything it takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = str(FOLDER / f"lstm-{size}-loop.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {
        i.name: np.ones(1, np.int64) if i.type == "tensor(int64)" else np.zeros((1, size), np.float32)
        for i in session.get_inputs()
    }
    return session, feeds
