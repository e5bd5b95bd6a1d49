"""int8 files against float32 in the same forms and onnxruntime's fused operator; one thread.  Trains a small language model."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.contestants import FOLDER, exported, fused_feeds, fused_session, torch_layer
from benchmarks.measure import Table, micro, ratio, timings
from rnncore.export import export
from rnncore.export.verification.judging import INT8_RMS
from rnncore.models import CellConfig, LanguageModelConfig
from rnncore.runtime import Model, load
from rnncore.runtime.format.comparison import rms_error
from rnncore.text import character_vocabulary, python_corpus
from rnncore.training import Trainer, TrainingSettings, new_model

TIME = 100
CASES = [
    ("lstm", 128, 1),
    ("lstm", 256, 1),
    ("lstm", 512, 1),
    ("lstm", 1024, 1),
    ("lstm", 512, 16),
    ("gru", 512, 1),
]
HELD_OUT_CHARACTERS = 20_000


def run() -> Table:
    torch.set_num_threads(1)
    rows = [_row(*case) for case in CASES]
    header = (
        "layer",
        "fused",
        "loop",
        "int8 loop",
        "int8 scan",
        "fused/loop",
        "fused/int8 loop",
        "fused/int8 scan",
        "fused/int8 loop cold",
    )
    note = (
        f"Time {TIME}, input size = hidden size, µs a step, one thread, interleaved medians; larger ratios are better. Parity "
        f'is checked first: the rms error of int8 is below {INT8_RMS:.0%} of the answers. "fused" is onnxruntime\'s float32 '
        f"operator with the same weights. {_language_model()}"
    )
    return Table("int8", note, (*header, "rms error", "int8 size/float32 size"), tuple(rows))


def _row(kind: str, size: int, batch: int) -> tuple[str, ...]:
    x = np.random.default_rng(1).normal(size=(batch, TIME, size)).astype(np.float32)
    session, feeds = fused_session(kind, size), fused_feeds(kind, x)
    models = {"loop": exported(kind, size, "loop")} | {f"int8 {f}": _quantized(kind, size, f) for f in ("loop", "scan")}
    with torch.inference_mode():
        expected = torch_layer(kind, size)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(models["loop"].run(x), expected, atol=1e-4)
    errors = [rms_error([(models[name].run(x), expected)]) for name in ("int8 loop", "int8 scan")]
    assert max(errors) <= INT8_RMS, errors
    took = timings(
        {"fused": lambda: session.run(["y"], feeds)} | {name: lambda m=m: m.run(x) for name, m in models.items()}
    )
    names = ("fused", "loop", "int8 loop", "int8 scan")
    sizes = [(FOLDER / f"{kind}-{size}-{form}.onnx").stat().st_size for form in ("loop-int8", "loop")]
    return (
        f"{kind} H={size} B={batch}",
        *(micro(took[name].warm, TIME) for name in names),
        *(ratio(took["fused"].warm, took[name].warm) for name in names[1:]),
        ratio(took["fused"].cold or 0.0, took["int8 loop"].cold or 1.0),
        f"{max(errors):.1%}",
        ratio(*sizes),
    )


@cache
def _quantized(kind: str, size: int, form: str) -> Model:
    path = FOLDER / f"{kind}-{size}-{form}-int8.onnx"
    example = torch.randn(2, 5, size)
    export(torch_layer(kind, size), path, example, form=form, streaming=True, quantize="int8")  # type: ignore[arg-type]
    return load(path)


def _language_model() -> str:
    """What int8 costs a character language model that read Python's own text once."""
    corpus = python_corpus()
    vocabulary = character_vocabulary(corpus.texts)
    config = LanguageModelConfig(len(vocabulary), 64, (CellConfig.named("lstm", 256),) * 2, dropout=0.05)
    settings = TrainingSettings(epochs=1)
    trainer = Trainer(new_model(config, settings.seed), vocabulary, corpus, settings, held_out=0.05, device="cpu")
    trainer.run()
    model = trainer.model.eval()
    data, read = [], 0
    for text in trainer.held_out_texts:
        ids = torch.from_numpy(vocabulary.encode(text))[None]
        if ids.shape[1] > 1 and read < HELD_OUT_CHARACTERS:
            data.append(ids)
            read += ids.shape[1]
    example = torch.tensor([[0, 1, len(vocabulary) - 1], [1, 0, 1]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        whole = export(model, path, example, streaming=True).size_bytes
        report = export(model, path, example, streaming=True, quantize="int8", accuracy_data=data)
    assert report.accuracy is not None and report.accuracy.outputs[0].perplexity is not None
    before, after = report.accuracy.outputs[0].perplexity
    assert after < 1.01 * before, (before, after)
    return (
        f"A character language model (two LSTMs of 256, one epoch of Python's own text) has perplexity {before:.3f} on "
        f"{read} held-out characters in float32 and {after:.3f} in int8 ({after / before - 1:+.2%}); its file shrinks from "
        f"{whole / 1e6:.2f} to {report.size_bytes / 1e6:.2f} MB."
    )
