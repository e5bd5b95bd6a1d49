"""What a model file says about itself: typed JSON in the ONNX ``metadata_props``, under keys in ``rnncore.``.

====================== =================================================================================
key                    value
====================== =================================================================================
rnncore.format_version integer; a reader refuses files newer than its own :data:`FORMAT_VERSION`.  1 unless the
                       signature says what only format 2 can: limits of axes, sizes that follow others, a stride, states
                       of any rank, options, picks, ids that do not begin at 0, streams of so many steps at most;
                       3 where the runs of a stream overlap, or rows of a batch are answered together
rnncore.signature      JSON of :class:`Signature`: every input and output with role, dtype and shape, and what may be left out
rnncore.form           ``loop`` or ``scan``: how the recurrence is written in the graph
rnncore.precision      dtype of the weights, such as ``float32``; ``int8`` for a quantized file
rnncore.report         JSON: what was verified at export (shapes, seeds, errors, versions)
rnncore.golden         JSON of :class:`rnncore.runtime.format.golden.Golden`: inputs and what PyTorch answered to them
rnncore.tokenizer      text models only: the JSON of a ``tokenizers`` tokenizer
rnncore.generation     generators only: JSON of :class:`rnncore.runtime.text.generation.SpecialTokens`, their special tokens
rnncore.translation    translators only: JSON of :class:`rnncore.runtime.text.translator.DecoderFeeds`; their tokenizers are
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
from rnncore.runtime.format.axes import (
    BATCH,
    TIME,
    Axis,
    Flat,
    Size,
    Steps,
    base_of,
    inner_shape,
    size_from_data,
    size_to_data,
)
from rnncore.runtime.format.options import Option

__all__ = ["BATCH", "TIME", "Axis", "Flat", "Signature", "Size", "StateSpec", "Steps", "TensorSpec"]

FORMAT_VERSION = 3
PREFIX = "rnncore."
BLANK_FINGERPRINT = "0" * 64
PICKS = "picks"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the graph.

    ``shape`` holds an integer for a fixed size and a name for a free one: ``"batch"`` and ``"time"`` are the axes that
    batching and streaming work on; other names are free too, and equal wherever they stand.  In format 2 a size of an
    output may follow the size of an input (:class:`Steps`), or be that of two axes as one (:class:`Flat`).

    ``minimum`` and ``limit`` are for integer inputs such as token ids: values must be minimum <= v < limit.  A limit without
    a minimum, as in most files, means a minimum of 0.  What is None otherwise is not checked by the runtime: the graph
    refuses what it cannot look up.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    limit: int | None = None
    minimum: int | None = None

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Smallest and largest value of an input that has limits."""
        if self.limit is None and self.minimum is None:
            return None
        ends = np.iinfo(self.dtype)
        high = ends.max if self.limit is None else min(self.limit - 1, ends.max)
        return max(self.minimum or 0, ends.min), high

    @property
    def inner(self) -> tuple[Size, ...]:
        """The shape with two axes in place of a :class:`Flat` one: what the positions of batch and time refer to."""
        return inner_shape(self.shape)

    @property
    def batch_axis(self) -> int | None:
        """Position of the batch axis in :attr:`inner`, or None."""
        return self.inner.index(BATCH) if BATCH in self.inner else None

    @property
    def time_axis(self) -> int | None:
        """Position in :attr:`inner` of the axis that is or follows time, or None (one value for the whole sequence)."""
        names = [base_of(size) for size in self.inner]
        return names.index(TIME) if TIME in names else None


@dataclass(frozen=True)
class StateSpec:
    """One recurrent state: graph input ``name``, graph output ``output``.

    ``initial`` is None for zeros, else the initial value of one sequence as base64 of little-endian raw bytes.
    ``shape`` is its shape in the graph, such as (2, "batch", 128), None for ("batch", size).  ``size`` is the number of
    values of one sequence.
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
class GatherOutput:
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
    axes: every named axis, with the sizes that it may have; empty in files of format 1, which have no limits.
    stride: a stream is run in multiples of so many steps; what is less waits for the next chunk.
    overlap: each run of a stream begins with so many steps that the run before ended with, before those that make whole
        strides; the first run has as many more.  What convolutions without padding need.
    options: those of the inputs that may be left out.
    most_steps: so many steps a stream takes in all, because a table of positions ends there; None if there is no end.
    rows_together: what a row is answered depends on the others of its batch, as the longest of them tells where all end: a call
        must not be run in parts.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lengths: TensorSpec | None = None
    states: tuple[StateSpec, ...] = field(default=())
    causal: bool = False
    not_causal_because: str = ""
    pick: GatherOutput | None = None
    axes: tuple[Axis, ...] = ()
    stride: int = 1
    overlap: int = 0
    options: tuple[Option, ...] = ()
    most_steps: int | None = None
    rows_together: bool = False

    def axis(self, name: str) -> Axis:
        """The limits of a named axis; none, if the file says none."""
        return next((axis for axis in self.axes if axis.name == name), Axis(name))

    @property
    def format_version(self) -> int:
        """The oldest format that can say all this."""
        if self.overlap or self.rows_together:
            return 3
        sizes = [size for port in (*self.inputs, *self.outputs) for size in port.shape]
        minima = [port for port in self.inputs if port.minimum is not None]
        newer = self.axes or minima or self.stride > 1 or self.options or self.pick is not None
        newer = newer or self.most_steps is not None or any(isinstance(size, Steps | Flat) for size in sizes)
        return 2 if newer or any(state.shape is not None for state in self.states) else 1

    def to_json(self) -> str:
        """JSON text, stable for equal signatures."""
        data = asdict(self)
        for own, port in zip((*self.inputs, *self.outputs), (*data["inputs"], *data["outputs"]), strict=True):
            port["shape"] = [size_to_data(size) for size in own.shape]
        for state in data["states"]:
            if state["shape"] is None:  # as in every file of format 1
                del state["shape"]
        for port in [*data["inputs"], *data["outputs"], *([data["lengths"]] if data["lengths"] else [])]:
            if port["minimum"] is None:  # as in most files, and in all that were written before there were minima
                del port["minimum"]
        if self.most_steps is None:  # as in most files, and in all that were written before there was such an end
            del data["most_steps"]
        for name in ("overlap", "rows_together"):
            if not data[name]:  # as in every file before format 3
                del data[name]
        if self.format_version == 1:
            del data["axes"], data["stride"], data["options"]
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
                pick=None if pick is None else GatherOutput(str(pick["of"]), str(pick["at"]), str(pick["picked"])),
                axes=tuple(_axis(axis) for axis in data.get("axes", ())),
                stride=int(data.get("stride", 1)),
                overlap=int(data.get("overlap", 0)),
                options=tuple(Option.from_json(option) for option in data.get("options", [])),
                most_steps=None if data.get("most_steps") is None else int(data["most_steps"]),
                rows_together=bool(data.get("rows_together", False)),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ModelFileError(
                f"rnncore.signature in the file cannot be read ({error!r}): export the model again"
            ) from None


def _state(data: dict[str, Any]) -> StateSpec:
    shape = data.get("shape")
    return StateSpec(**{**data, "shape": None if shape is None else tuple(shape)})


def _port(data: dict[str, Any]) -> TensorSpec:
    limit, minimum = (None if (found := data.get(key)) is None else int(found) for key in ("limit", "minimum"))
    shape = tuple(size_from_data(size) for size in data["shape"])
    return TensorSpec(str(data["name"]), str(data["dtype"]), shape, limit, minimum)


def _axis(data: dict[str, Any]) -> Axis:
    maximum = data["maximum"]
    return Axis(
        str(data["name"]), int(data["minimum"]), None if maximum is None else int(maximum), int(data["multiple"])
    )
