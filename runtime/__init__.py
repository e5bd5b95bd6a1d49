"""Run models that ``rnncore.export`` wrote, with numpy and onnxruntime and nothing else.

::

    model = rnncore.runtime.load("tagger.onnx")
    y = model.run(x, lengths=n)             # whole sequences
    with model.stream() as stream:          # one sequence in chunks
        y = stream.push(chunk)
"""

from rnncore.runtime.errors import (
    ForeignModelError,
    FormatVersionError,
    InputError,
    MissingExtraError,
    ModelFileError,
    NotOnnxError,
    NotStreamableError,
    RnncoreError,
    StateError,
    StreamBusyError,
    TamperedModelError,
    UnknownTokenError,
)
from rnncore.runtime.language_model import LanguageModel, TokenScore
from rnncore.runtime.model import Model, load
from rnncore.runtime.signature import FORMAT_VERSION, Port, Signature, State
from rnncore.runtime.stream import Stream
from rnncore.runtime.text_stream import TextStream

__all__ = [
    "FORMAT_VERSION",
    "ForeignModelError",
    "FormatVersionError",
    "InputError",
    "LanguageModel",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "NotOnnxError",
    "NotStreamableError",
    "Port",
    "RnncoreError",
    "Signature",
    "State",
    "StateError",
    "Stream",
    "StreamBusyError",
    "TamperedModelError",
    "TextStream",
    "TokenScore",
    "UnknownTokenError",
    "load",
]
