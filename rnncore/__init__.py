"""Write a recurrent cell once in PyTorch, train it, ship it as one ONNX file, run it without PyTorch.

``rnncore`` holds cells, layers and training (needs torch), ``rnncore.export`` writes ONNX files (needs torch and onnx),
``rnncore.runtime`` runs them (needs numpy and onnxruntime only).  Names below load when first used, so that importing
``rnncore.runtime`` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncore.cells import Cell, GRUCell, LSTMCell, MinGRUCell, MinLSTMCell, RNNCell, Zoneout
    from rnncore.conversion import convert
    from rnncore.layers import (
        GRU,
        LSTM,
        RNN,
        Bidirectional,
        CausalConv1d,
        Recurrent,
        RecurrentLayer,
        Stacked,
        StreamingLayer,
        compile_steps,
    )
    from rnncore.models import (
        CellConfig,
        Classifier,
        Embedder,
        EncoderDecoder,
        EncoderDecoderConfig,
        Generator,
        LanguageModel,
        LanguageModelConfig,
        Pretrainer,
        Rater,
        ReaderConfig,
        Recogniser,
        Tagger,
    )
    from rnncore.runtime.errors import RnncoreError
    from rnncore.weight_layouts import repack

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "CausalConv1d",
    "Cell",
    "CellConfig",
    "Classifier",
    "Embedder",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "GRUCell",
    "Generator",
    "LSTMCell",
    "LanguageModel",
    "LanguageModelConfig",
    "MinGRUCell",
    "MinLSTMCell",
    "Pretrainer",
    "RNNCell",
    "Rater",
    "ReaderConfig",
    "Recogniser",
    "Recurrent",
    "RecurrentLayer",
    "RnncoreError",
    "Stacked",
    "StreamingLayer",
    "Tagger",
    "Zoneout",
    "compile_steps",
    "convert",
    "repack",
]

_HOME = {
    **dict.fromkeys(
        ("Cell", "GRUCell", "LSTMCell", "MinGRUCell", "MinLSTMCell", "RNNCell", "Zoneout"), "rnncore.cells"
    ),
    **dict.fromkeys(
        (
            "GRU",
            "LSTM",
            "RNN",
            "Bidirectional",
            "CausalConv1d",
            "Recurrent",
            "RecurrentLayer",
            "Stacked",
            "StreamingLayer",
            "compile_steps",
        ),
        "rnncore.layers",
    ),
    "convert": "rnncore.conversion",
    **dict.fromkeys(
        (
            "CellConfig",
            "Classifier",
            "Embedder",
            "EncoderDecoder",
            "EncoderDecoderConfig",
            "Generator",
            "LanguageModel",
            "LanguageModelConfig",
            "Pretrainer",
            "Rater",
            "ReaderConfig",
            "Recogniser",
            "Tagger",
        ),
        "rnncore.models",
    ),
    "repack": "rnncore.weight_layouts",
    "RnncoreError": "rnncore.runtime.errors",
}
_FOLDERS = ("cells", "export", "layers", "models", "runtime", "text", "training")


def __getattr__(name: str) -> Any:
    if name not in _HOME and name not in _FOLDERS:
        raise AttributeError(f"module 'rnncore' has no attribute {name!r}")
    try:
        if name in _FOLDERS:
            return importlib.import_module(f"rnncore.{name}")
        value = getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from rnncore.runtime.errors import MissingExtraError

        raise MissingExtraError("torch", "train", f"rnncore.{name}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
