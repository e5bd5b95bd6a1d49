"""Whole sequences: the exported loop, scan and form="auto" against onnxruntime's fused operator and torch eager; one thread."""

from __future__ import annotations

import tempfile

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.contestants import exported, exported_path, fused_feeds, fused_session, torch_layer
from benchmarks.measure import Table, micro, percent, ratio, timings

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


def nodes_a_step(kind: str, size: int, form: str) -> int:
    """Nodes that onnxruntime runs in the body of the loop or scan over rows of full length."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f"{folder}/loaded.onnx"
        options.log_severity_level = 3
        onnxruntime.InferenceSession(exported_path(kind, size, form), options, providers=["CPUExecutionProvider"])
        todo = [onnx.load(f"{folder}/loaded.onnx").graph]
    while todo:
        graph = todo.pop()
        for node in graph.node:
            inner = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
            if node.op_type == form.capitalize() and "/full" in graph.name:
                return len(inner[0].node)
            todo += inner
    raise ValueError(f"there is no {form} in the file")


def run() -> Table:
    torch.set_num_threads(1)
    rows = []
    for kind, size, batch in CASES:
        x = np.random.default_rng(1).normal(size=(batch, TIME, size)).astype(np.float32)
        layer, session, feeds = torch_layer(kind, size), fused_session(kind, size), fused_feeds(kind, x)
        files = {form: exported(kind, size, form) for form in ("loop", "scan", "auto")}
        tensor = torch.from_numpy(x)
        with torch.inference_mode():
            expected = layer(tensor).numpy()
            answers = [file.run(x) for file in files.values()]
            for y in (*answers, session.run(["y"], feeds)[0][:, 0].transpose(1, 0, 2)):
                np.testing.assert_allclose(y, expected, atol=1e-4)
            took = timings(
                {
                    "fused": lambda s=session, f=feeds: s.run(["y"], f),
                    **{form: lambda m=file, v=x: m.run(v) for form, file in files.items()},
                    "torch": lambda m=layer, v=tensor: m(v),
                }
            )
        rows.append(
            (
                f"{kind} H={size} B={batch}",
                *(micro(took[name].warm, TIME) for name in ("fused", "loop", "scan", "auto", "torch")),
                ratio(took["loop"].warm, took["fused"].warm),
                ratio(took["scan"].warm, took["fused"].warm),
                ratio(took["loop"].warm, took["torch"].warm),
                ratio(took["auto"].warm, took["torch"].warm),
                ratio(took["loop"].cold or 0.0, took["torch"].cold or 1.0),
                percent(max(timing.spread for timing in took.values())),
                f"{nodes_a_step(kind, size, 'loop')}, {nodes_a_step(kind, size, 'scan')}",
            )
        )
    header = (
        *("layer", "fused", "loop", "scan", "auto", "torch"),
        *("loop/fused", "scan/fused", "loop/torch", "auto/torch", "loop/torch cold", "largest spread"),
        "nodes a step: loop, scan",
    )
    note = (
        f"Time {TIME}, input size = hidden size, µs a step, one thread, interleaved medians of equally many "
        "calls; parity checked first. Cold: the caches were swept before every call. "
        '"auto" is form="auto" for onnxruntime, through our runtime. Nodes are those that onnxruntime runs '
        "for a step of rows of full length, once it has joined activations with the products before them."
    )
    return Table("Batch inference", note, header, tuple(rows))
