"""Run models that ``rnncore.export`` wrote, with numpy and onnxruntime and nothing else.

::

    model = rnncore.runtime.load("tagger.onnx")
    y = model.run(x, lengths=n)             # whole sequences
    with model.stream() as stream:          # one sequence in chunks
        y = stream.push(chunk)
"""

from __future__ import annotations

import importlib
import warnings
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
    SignatureError,
    SnapshotError,
    StateError,
    StreamBusyError,
    StreamEvictedError,
    TamperedModelError,
    UnknownTokenError,
)
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.options import Option
from rnncore.runtime.format.signature import FORMAT_VERSION, GatherOutput, Signature, StateSpec, TensorSpec
from rnncore.runtime.model import Model, load
from rnncore.runtime.model_slot import ModelSlot
from rnncore.runtime.pool.pool import Pool
from rnncore.runtime.pool.stream import PoolStream
from rnncore.runtime.session.threads import share_threads, usable_processors
from rnncore.runtime.signing import sign
from rnncore.runtime.streaming.stream import Stream

if TYPE_CHECKING:
    from rnncore.runtime.audio.log_mel import LogMel, LogMelStream
    from rnncore.runtime.opening import open
    from rnncore.runtime.tasks.beam_decoding import BeamDecoder, BeamOptions, Hypothesis, LabelTime, TimedText
    from rnncore.runtime.tasks.calibration import Threshold, calibrate
    from rnncore.runtime.tasks.classifier import Classifier
    from rnncore.runtime.tasks.embedder import Embedder
    from rnncore.runtime.tasks.endpointing import Endpointing
    from rnncore.runtime.tasks.generator import Generator
    from rnncore.runtime.tasks.levenshtein import edit_distance
    from rnncore.runtime.tasks.rater import Rater
    from rnncore.runtime.tasks.recogniser import BeamStream, Recogniser, RecogniserStream
    from rnncore.runtime.tasks.spans import Span, SpanCounts, count_spans, spans_of
    from rnncore.runtime.tasks.tagger import Tagger
    from rnncore.runtime.tasks.task_stream import TaskStream
    from rnncore.runtime.tasks.vectors import Neighbour, cosines, nearest
    from rnncore.runtime.text.affixes import Affixes
    from rnncore.runtime.text.beam import Found
    from rnncore.runtime.text.generation import TextGenerator, Written
    from rnncore.runtime.text.language_model import LanguageModel, TokenScore
    from rnncore.runtime.text.states import TextStates
    from rnncore.runtime.text.stream import TextStream
    from rnncore.runtime.text.translator import Translator
    from rnncore.runtime.verification import Case, VerifyReport, verify

__all__ = [
    "FORMAT_VERSION",
    "Affixes",
    "BeamDecoder",
    "BeamOptions",
    "BeamStream",
    "Case",
    "Classifier",
    "DeadlineExceeded",
    "Embedder",
    "Endpointing",
    "ForeignModelError",
    "FormatVersionError",
    "Found",
    "GatherOutput",
    "Generator",
    "Hypothesis",
    "InputError",
    "LabelTime",
    "LanguageModel",
    "Limits",
    "LogMel",
    "LogMelStream",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "ModelSlot",
    "Neighbour",
    "NotOnnxError",
    "NotStreamableError",
    "Option",
    "Overloaded",
    "Pool",
    "PoolClosedError",
    "PoolError",
    "PoolStream",
    "Rater",
    "Recogniser",
    "RecogniserStream",
    "RnncoreError",
    "Signature",
    "SignatureError",
    "SnapshotError",
    "Span",
    "SpanCounts",
    "StateError",
    "StateSpec",
    "Stream",
    "StreamBusyError",
    "StreamEvictedError",
    "Tagger",
    "TamperedModelError",
    "TaskStream",
    "TensorSpec",
    "TextGenerator",
    "TextStates",
    "TextStream",
    "Threshold",
    "TimedText",
    "TokenScore",
    "Translator",
    "UnknownTokenError",
    "VerifyReport",
    "Written",
    "calibrate",
    "cosines",
    "count_spans",
    "edit_distance",
    "load",
    "nearest",
    "open",
    "share_threads",
    "sign",
    "spans_of",
    "usable_processors",
    "verify",
]

# Loaded when first used: a service that runs a model does not wait for what it does not use.
_MODULES = {
    "audio.log_mel": ("LogMel", "LogMelStream"),
    "verification": ("Case", "VerifyReport", "verify"),
    "opening": ("open",),
    "tasks.classifier": ("Classifier",),
    "tasks.embedder": ("Embedder",),
    "tasks.calibration": ("Threshold", "calibrate"),
    "tasks.vectors": ("Neighbour", "cosines", "nearest"),
    "tasks.generator": ("Generator",),
    "tasks.levenshtein": ("edit_distance",),
    "tasks.rater": ("Rater",),
    "tasks.endpointing": ("Endpointing",),
    "tasks.beam_decoding": ("BeamDecoder", "BeamOptions", "Hypothesis", "LabelTime", "TimedText"),
    "tasks.recogniser": ("BeamStream", "Recogniser", "RecogniserStream"),
    "tasks.spans": ("Span", "SpanCounts", "count_spans", "spans_of"),
    "tasks.tagger": ("Tagger",),
    "tasks.task_stream": ("TaskStream",),
    "text.affixes": ("Affixes",),
    "text.beam": ("Found",),
    "text.generation": ("TextGenerator", "Written"),
    "text.language_model": ("LanguageModel", "TokenScore"),
    "text.states": ("TextStates",),
    "text.stream": ("TextStream",),
    "text.translator": ("Translator",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

_RENAMED = {"CaseResult": "Case", "Pick": "GatherOutput", "Port": "TensorSpec", "State": "StateSpec"}
"""Old names and what they are called now; the old ones go on working, with a warning."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"rnncore.runtime.{name} is now called {new}", DeprecationWarning, stacklevel=2)
        return globals().get(new) or __getattr__(new)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
