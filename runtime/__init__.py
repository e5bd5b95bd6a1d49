"""Run models that ``rnncore.export`` wrote, with numpy and onnxruntime and nothing else.

::

    model = rnncore.runtime.load("tagger.onnx")
    y = model.run(x, lengths=n)             # whole sequences
    with model.stream() as stream:          # one sequence in chunks
        y = stream.push(chunk)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rnncore.runtime.errors import (
    DeadlineExceeded,
    ForeignModelError,
    FormatVersionError,
    InputError,
    MissingExtraError,
    ModelFileError,
    NotOnnxError,
    NotStreamableError,
    Overloaded,
    PoolClosedError,
    PoolError,
    RnncoreError,
    SnapshotError,
    StateError,
    StreamBusyError,
    StreamEvictedError,
    TamperedModelError,
    UnknownTokenError,
)
from rnncore.runtime.model import Model, load
from rnncore.runtime.pool import Pool
from rnncore.runtime.pool_stream import PoolStream
from rnncore.runtime.processors import share_threads, usable_processors
from rnncore.runtime.signature import FORMAT_VERSION, Pick, Port, Signature, State
from rnncore.runtime.slot import ModelSlot
from rnncore.runtime.stream import Stream

if TYPE_CHECKING:
    from rnncore.runtime.beam import Found
    from rnncore.runtime.classifier import Classifier
    from rnncore.runtime.embedder import Embedder, Neighbour, cosines, nearest
    from rnncore.runtime.generation import TextGenerator, Written
    from rnncore.runtime.generator import Generator
    from rnncore.runtime.language_model import LanguageModel, TokenScore
    from rnncore.runtime.levenshtein import edit_distance
    from rnncore.runtime.rater import Rater
    from rnncore.runtime.recogniser import Hypothesis, Recogniser, RecogniserStream
    from rnncore.runtime.reverify import CaseResult, VerifyReport, verify
    from rnncore.runtime.spans import Span, SpanCounts, count_spans, spans_of
    from rnncore.runtime.tagger import Tagger
    from rnncore.runtime.task_stream import TaskStream
    from rnncore.runtime.text_states import TextStates
    from rnncore.runtime.text_stream import TextStream
    from rnncore.runtime.translator import Translator

__all__ = [
    "FORMAT_VERSION",
    "CaseResult",
    "Classifier",
    "DeadlineExceeded",
    "Embedder",
    "ForeignModelError",
    "FormatVersionError",
    "Found",
    "Generator",
    "Hypothesis",
    "InputError",
    "LanguageModel",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "ModelSlot",
    "Neighbour",
    "NotOnnxError",
    "NotStreamableError",
    "Overloaded",
    "Pick",
    "Pool",
    "PoolClosedError",
    "PoolError",
    "PoolStream",
    "Port",
    "Rater",
    "Recogniser",
    "RecogniserStream",
    "RnncoreError",
    "Signature",
    "SnapshotError",
    "Span",
    "SpanCounts",
    "State",
    "StateError",
    "Stream",
    "StreamBusyError",
    "StreamEvictedError",
    "Tagger",
    "TamperedModelError",
    "TaskStream",
    "TextGenerator",
    "TextStates",
    "TextStream",
    "TokenScore",
    "Translator",
    "UnknownTokenError",
    "VerifyReport",
    "Written",
    "cosines",
    "count_spans",
    "edit_distance",
    "load",
    "nearest",
    "share_threads",
    "spans_of",
    "usable_processors",
    "verify",
]

# Loaded when first used: a service that runs a model does not wait for what it does not use.
_HOME = {
    **dict.fromkeys(("Found",), "beam"),
    **dict.fromkeys(("Classifier",), "classifier"),
    **dict.fromkeys(("edit_distance",), "levenshtein"),
    **dict.fromkeys(
        (
            "Embedder",
            "Neighbour",
            "cosines",
            "nearest",
        ),
        "embedder",
    ),
    **dict.fromkeys(
        (
            "TextGenerator",
            "Written",
        ),
        "generation",
    ),
    **dict.fromkeys(("Generator",), "generator"),
    **dict.fromkeys(
        (
            "LanguageModel",
            "TokenScore",
        ),
        "language_model",
    ),
    **dict.fromkeys(("Rater",), "rater"),
    **dict.fromkeys(
        (
            "Hypothesis",
            "Recogniser",
            "RecogniserStream",
        ),
        "recogniser",
    ),
    **dict.fromkeys(
        (
            "CaseResult",
            "VerifyReport",
            "verify",
        ),
        "reverify",
    ),
    **dict.fromkeys(
        (
            "Span",
            "SpanCounts",
            "count_spans",
            "spans_of",
        ),
        "spans",
    ),
    **dict.fromkeys(("Tagger",), "tagger"),
    **dict.fromkeys(("TaskStream",), "task_stream"),
    **dict.fromkeys(("TextStates",), "text_states"),
    **dict.fromkeys(("TextStream",), "text_stream"),
    **dict.fromkeys(("Translator",), "translator"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
