"""Files that write whole sequences take int8, every form and a target, and are held to what these may cost."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, LanguageModel, LanguageModelConfig, runtime
from rnncore.export import export_generator, export_model, export_translator
from rnncore.export.decoding import translator
from rnncore.export.int8 import rewriting
from rnncore.export.progress import Progress
from rnncore.runtime.errors import ExportError, InputError, VerificationError
from tests.generation.models import WORDS, encoder_decoder, halves, randomize, streaming_file, vocabulary

UNITS = 37
GOLDEN = "recording golden cases"


@cache
def writer() -> LanguageModel:
    """Large enough for int8 to take its matrices."""
    model = LanguageModel(LanguageModelConfig(len(WORDS), 29, (CellConfig.named("gru", UNITS),))).eval()
    randomize(model, 3, spread=0.4)
    return model


@cache
def speller() -> EncoderDecoder:
    cells = (CellConfig.named("gru", UNITS),), (CellConfig.named("peephole-lstm", UNITS),)
    model = EncoderDecoder(EncoderDecoderConfig(7, 5, *cells, 3, attention="general")).eval()
    randomize(model, 8, spread=0.4)
    return model


def test_a_generator_in_int8_writes_what_its_int8_model_writes(tmp_path: Path) -> None:
    streaming = export_model(writer(), tmp_path / "whole.onnx", vocabulary=vocabulary())
    report = export_generator(streaming.path, tmp_path / "of_file.onnx", quantize="int8")
    assert "in int8; " in str(report) and "<table>" in report._repr_html_()
    assert report.verification["tokens"] > 100
    model = runtime.load(report.path)
    assert model.metadata["rnncore.precision"] == "int8" and runtime.verify(model).passed
    export_generator(writer(), tmp_path / "of_module.onnx", vocabulary=vocabulary(), quantize="int8", form="auto")
    plain = export_generator(streaming.path, tmp_path / "plain.onnx")
    for made in ("of_file", "of_module"):
        assert (tmp_path / f"{made}.onnx").stat().st_size < plain.size_bytes
        ours = runtime.TextGenerator.load(tmp_path / f"{made}.onnx")
        uniforms = np.random.default_rng(1).random((3, 9))
        prefixes = [[2, 3], [], [4, 5, 6]]
        right = runtime.TextGenerator.load(plain.path).generate_ids(prefixes, max_tokens=9, uniforms=uniforms)
        found = ours.generate_ids(prefixes, max_tokens=9, uniforms=uniforms)
        first = [
            (a.log_probs[0], b.log_probs[0])
            for a, b in zip(found, right, strict=True)
            if a.ids[:1].tolist() == b.ids[:1].tolist()
        ]
        assert len(first) >= 2
        assert all(abs(a - b) < 0.1 * max(1.0, abs(b)) for a, b in first), "int8 of this model, not of another"


def test_a_translator_in_int8_is_held_to_pytorch_and_to_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    monkeypatch.setattr(Progress, "now", lambda _, stage: stages.append(stage))
    plain = export_translator(speller(), tmp_path / "plain.onnx", form="auto", target="onnxruntime")
    assert "fused" in runtime.load(plain.path).metadata["rnncore.form"]
    report = export_translator(speller(), tmp_path / "int8.onnx", quantize="int8", form="auto")
    assert stages[-4:] == [
        "writing loops",
        *(f"comparing {what} with PyTorch" for what in ("the file", "int8")),
        GOLDEN,
    ]
    stored = report.verification
    assert "weights in int8" in str(report) and "<table>" in report._repr_html_()
    assert 0 < stored["int8"]["worst_rms"] < 0.1 and stored["float32"]["tokens"] > 100 and stored["searches"] > 0
    model = runtime.load(report.path)
    assert model.metadata["rnncore.precision"] == "int8" and runtime.verify(model).passed
    assert report.size_bytes < plain.size_bytes
    source = [[1, 5, 2], [6]]
    both = [runtime.Translator.load(path).translate_ids(source, max_tokens=4) for path in (plain.path, report.path)]
    for (right, *_), (found, *_) in zip(*both, strict=True):
        assert abs(found.log_prob - right.log_prob) < 0.2 * max(1.0, abs(right.log_prob))


def test_int8_that_loses_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = rewriting.round_columns

    def without_their_scale(array: Any, *levels: Any) -> Any:
        q, scale = plain(array, *levels)
        return q, np.full_like(scale, scale.mean() * 3)

    monkeypatch.setattr(translator, "trace_encoder_and_decoder", lambda *_: halves("general"))
    monkeypatch.setattr(rewriting, "SMALLEST", 30)
    monkeypatch.setattr(rewriting, "round_columns", without_their_scale)
    with pytest.raises(VerificationError, match=r"in int8 its log-probabilities are \d+\.\d% rms off"):
        export_translator(encoder_decoder("general"), tmp_path / "t.onnx", quantize="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"form": "quick"}, "form is 'quick', expected one of: 'loop'"),
        ({"form": "auto", "target": "openvino"}, "proved for onnxruntime only"),
        ({"form": "auto", "target": "cpu"}, "target is 'cpu', expected 'onnxruntime'"),
        ({"target": "onnxruntime"}, "leave target out, or take 'auto'"),
        ({"quantize": "int4"}, "quantize is 'int4', expected 'int8' or None"),
        ({"quantize": "int8", "form": "fused"}, "form='fused' has no int8 operator"),
    ],
)
def test_what_cannot_be_chosen_is_said_before_the_work(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    for write, model in ((export_generator, writer()), (export_translator, speller())):
        with pytest.raises(InputError, match=says):
            write(model, tmp_path / "never.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_what_int8_cannot_start_from_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translator, "trace_encoder_and_decoder", lambda *_: halves("dot"))
    with pytest.raises(ExportError, match="nothing to gain"):
        export_generator(streaming_file(), tmp_path / "g.onnx", quantize="int8")
    with pytest.raises(ExportError, match="nothing to gain"):
        export_translator(encoder_decoder("dot"), tmp_path / "t.onnx", quantize="int8")
    double: nn.Module = EncoderDecoder(speller().config).double().eval()
    with pytest.raises(ExportError, match=r"weights of float64: call \.float\(\)"):
        export_translator(double, tmp_path / "t.onnx", quantize="int8")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
