"""Run models that ``rnncore.export`` wrote, with numpy and onnxruntime and nothing else.

::

    model = rnncore.runtime.load("tagger.onnx")
    y = model.run(x, lengths=n)             # whole sequences
    with model.stream() as stream:          # one sequence in chunks
        y = stream.push(chunk)
"""

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
from rnncore.runtime.language_model import LanguageModel, TokenScore
from rnncore.runtime.model import Model, load
from rnncore.runtime.pool import Pool
from rnncore.runtime.pool_stream import PoolStream
from rnncore.runtime.processors import share_threads, usable_processors
from rnncore.runtime.signature import FORMAT_VERSION, Pick, Port, Signature, State
from rnncore.runtime.slot import ModelSlot
from rnncore.runtime.stream import Stream
from rnncore.runtime.text_states import TextStates
from rnncore.runtime.text_stream import TextStream

__all__ = [
    "FORMAT_VERSION",
    "DeadlineExceeded",
    "ForeignModelError",
    "FormatVersionError",
    "InputError",
    "LanguageModel",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "ModelSlot",
    "NotOnnxError",
    "NotStreamableError",
    "Overloaded",
    "Pick",
    "Pool",
    "PoolClosedError",
    "PoolError",
    "PoolStream",
    "Port",
    "RnncoreError",
    "Signature",
    "SnapshotError",
    "State",
    "StateError",
    "Stream",
    "StreamBusyError",
    "StreamEvictedError",
    "TamperedModelError",
    "TextStates",
    "TextStream",
    "TokenScore",
    "UnknownTokenError",
    "load",
    "share_threads",
    "usable_processors",
]
