"""What a model file says about itself: typed JSON in the ONNX ``metadata_props``, under keys in ``rnncore.``.

====================== =================================================================================
key                    value
====================== =================================================================================
rnncore.format_version integer; a reader refuses files newer than its own :data:`FORMAT_VERSION`
rnncore.signature      JSON of :class:`Signature`: every input and output with role, dtype and shape, and what may be left out
rnncore.form           ``loop`` or ``scan``: how the recurrence is written in the graph
rnncore.precision      dtype of the weights, such as ``float32``; ``int8`` for a quantized file
rnncore.report         JSON: what was verified at export (shapes, seeds, errors, versions)
rnncore.golden         JSON of :class:`rnncore.runtime.files.golden.Golden`: inputs and what PyTorch answered to them
rnncore.tokenizer      text models only: the JSON of a ``tokenizers`` tokenizer
rnncore.generation     generators only: JSON of :class:`rnncore.runtime.text.generation.Rules`, their special tokens
rnncore.translation    translators only: JSON of :class:`rnncore.runtime.text.translator.Wiring`; their tokenizers are
                       ``rnncore.source_tokenizer`` and ``rnncore.target_tokenizer``
rnncore.fingerprint    SHA-256, 64 hex digits, of the file with this very value replaced by 64 zeros
====================== =================================================================================
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.files.options import Option

FORMAT_VERSION = 2
PREFIX = "rnncore."
BLANK_FINGERPRINT = "0" * 64
BATCH = "batch"
TIME = "time"
PICKS = "picks"


@dataclass(frozen=True)
class Port:
    """One input or output of the graph.

    ``shape`` holds an integer for a fixed size and a name for a free one: ``"batch"`` and ``"time"`` are the axes that
    batching and streaming work on; any other name is free but has no meaning to the runtime.

    ``limit`` is for integer inputs such as token ids: values must be 0 <= v < limit.  None means that the runtime does
    not check; onnxruntime then refuses ids beyond a table, but reads negative ones from its end.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    limit: int | None = None

    @property
    def batch_axis(self) -> int | None:
        """Position of the batch axis, or None."""
        return self.shape.index(BATCH) if BATCH in self.shape else None

    @property
    def time_axis(self) -> int | None:
        """Position of the time axis, or None (one value for the whole sequence)."""
        return self.shape.index(TIME) if TIME in self.shape else None


@dataclass(frozen=True)
class State:
    """One recurrent state, ``[batch, size]``: graph input ``name``, graph output ``output``.

    ``initial`` is None for zeros, else the learned initial value of one sequence as base64 of little-endian raw bytes.
    ``shape`` is None in files of rnncore; in others it is the state's shape in the graph, such as [2, "batch", 128].
    """

    name: str
    output: str
    dtype: str
    size: int
    initial: str | None = None
    shape: tuple[int | str, ...] | None = None

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of the state of one sequence as callers see it."""
        if self.shape is None:
            return (self.size,)
        return tuple(size for size in self.shape if isinstance(size, int))

    def initial_value(self) -> np.ndarray:
        """Initial value of one sequence, shape [size]."""
        if self.initial is None:
            return np.zeros(self.size, self.dtype)
        raw = base64.b64decode(self.initial, validate=True)
        return np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<")).astype(self.dtype)

    @staticmethod
    def encode_initial(value: np.ndarray) -> str | None:
        """The ``initial`` field for an initial value of shape [size]; None when it is all zeros."""
        if not value.any():
            return None
        return base64.b64encode(value.astype(value.dtype.newbyteorder("<")).tobytes()).decode("ascii")


@dataclass(frozen=True)
class Pick:
    """A way to ask for some numbers of an output instead of all, such as the log-probability of one token.

    The graph input ``at``, int64 [batch, time, picks], holds indices of the last axis of the output ``of``; the graph
    output ``picked`` [batch, time, picks] has the numbers found there.  Who does not ask feeds zeros [batch, time, 1].
    """

    of: str
    at: str
    picked: str


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs of a model file.

    inputs: what the caller hands in, without lengths and states.
    outputs: what the caller gets, without states.
    lengths: the int64 [batch] input of valid steps per sequence, or None when the model takes none.
    states: empty unless the model streams.
    causal: True when chunk by chunk equals the whole (checked at export).
    not_causal_because: why a model does not stream, naming the layer; empty when causal.
    pick: how to ask for some numbers of an output, or None when the file cannot be asked.
    options: those of the inputs that may be left out.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    lengths: Port | None = None
    states: tuple[State, ...] = field(default=())
    causal: bool = False
    not_causal_because: str = ""
    pick: Pick | None = None
    options: tuple[Option, ...] = ()

    def to_json(self) -> str:
        """JSON text, stable for equal signatures."""
        data = asdict(self)
        for state in data["states"]:
            if state["shape"] is None:  # as in every file that rnncore writes
                del state["shape"]
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """Read :meth:`to_json` text; raises ModelFileError when it is not such a text."""
        try:
            data = json.loads(text)
            lengths = data["lengths"]
            pick = data.get("pick")  # files written before there were picks have none
            return cls(
                inputs=tuple(_port(p) for p in data["inputs"]),
                outputs=tuple(_port(p) for p in data["outputs"]),
                lengths=None if lengths is None else _port(lengths),
                states=tuple(_state(s) for s in data["states"]),
                causal=bool(data["causal"]),
                not_causal_because=str(data["not_causal_because"]),
                pick=None if pick is None else Pick(str(pick["of"]), str(pick["at"]), str(pick["picked"])),
                options=tuple(Option.from_json(option) for option in data.get("options", [])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"rnncore.signature in the file cannot be read ({error!r}): export the model again"
            ) from None


def _state(data: dict[str, Any]) -> State:
    shape = data.get("shape")
    return State(**{**data, "shape": None if shape is None else tuple(shape)})


def _port(data: dict[str, Any]) -> Port:
    limit = data.get("limit")
    shape = tuple(int(d) if isinstance(d, int) else str(d) for d in data["shape"])
    return Port(str(data["name"]), str(data["dtype"]), shape, None if limit is None else int(limit))
