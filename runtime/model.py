"""The model: an exported file, loaded, checked and ready to run whole sequences or to open streams."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rnncore.runtime.batch import Batch, read_batch, run_batch
from rnncore.runtime.checking import bind_arguments
from rnncore.runtime.errors import InputError, ModelFileError
from rnncore.runtime.layout import Layout, Slot
from rnncore.runtime.loading import LoadedFile, open_model, read_source
from rnncore.runtime.many import push_many
from rnncore.runtime.padding import split
from rnncore.runtime.signature import Signature
from rnncore.runtime.stream import Stream, one_or_all


def load(source: str | os.PathLike[str] | bytes, *, threads: int = 1, arena: bool = True) -> Model:
    """Load a model that ``rnncore.export`` wrote.

    source: path of the file, or its bytes.
    threads: threads inside one call.  1 is right for a service that runs many calls side by side; a single caller with
        a wide model gains from one for each core.  Threads never spin while they wait.
    arena: keep memory between calls.  False gives it back after each call, which costs time and saves memory where
        calls are rare or of very different sizes.

    Raises NotOnnxError (no such file, a directory, empty, truncated, not ONNX), ForeignModelError (not written by
    rnncore), FormatVersionError (written by a newer rnncore), TamperedModelError (changed after export), or their base
    ModelFileError when signature and graph disagree.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}, expected an integer of at least 1")
    name, data = read_source(source)
    try:
        return Model(name, open_model(data, threads=threads, arena=arena))
    except ModelFileError as error:
        raise type(error)(f"{name}: {error}") from error.__cause__


class Model:
    """A loaded model file.  Immutable, and safe to use from many threads; made by :func:`load`."""

    __slots__ = ("__weakref__", "_engine", "_file", "_name")

    def __init__(self, name: str, file: LoadedFile) -> None:
        self._name = name
        self._file = file
        self._engine = file.engine

    def run(self, /, *inputs: Any, lengths: Any = None, **named: Any) -> Any:
        """Run whole sequences, each from the initial state.

        inputs: for each input of the signature, by position or by name, an array such as [batch, time, features], or a
            list of arrays [time_i, features] of any lengths.  Token ids may be lists of ints.  An input without a time
            axis has one row for each sequence.  Float arrays of another width, and integers that fit, are converted.
        lengths: integers [batch], valid steps of each row of padded arrays; all of them when None.  What is in the
            padding never matters.

        Returns an array [batch, time, ...] that is zero beyond the lengths, or for lists a list of arrays
        [time_i, ...].  An output without a time axis is [batch, ...] for both.  Several outputs come as a dict by name.

        Raises InputError that lists every problem.
        """
        layout = self._engine.layout
        batch = read_batch(layout, bind_arguments(layout.inputs, inputs, named), lengths)
        outputs = run_batch(self._engine, batch)
        return one_or_all(layout, [_handed_out(slot, outputs[slot.name], batch) for slot in layout.outputs])

    def stream(self) -> Stream:
        """Open a stream at the initial state; NotStreamableError, with the reason, if the model is not causal."""
        return Stream(self._engine)

    def push_many(self, streams: Sequence[Stream], chunks: Sequence[Any]) -> list[Any]:
        """Push ``chunks[i]`` to ``streams[i]`` in one call, and return what each push would have returned.

        A chunk is what ``push`` takes: an array; with several inputs a tuple in their order, or a dict by name.
        Chunks of different lengths share a call if the file has a lengths input, otherwise there is one call for each
        length.  All or nothing: after InputError, StateError (a closed stream, or one of another model) or
        StreamBusyError no stream has moved.
        """
        return push_many(self._engine, streams, chunks)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and states of the file."""
        return self._engine.layout.signature

    @property
    def metadata(self) -> Mapping[str, str]:
        """The ``rnncore.*`` entries of the file's metadata, read-only."""
        return MappingProxyType(self._file.metadata)

    @property
    def report(self) -> dict[str, Any]:
        """What was verified at export; the caller's own copy."""
        return copy.deepcopy(self._file.report)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, graph and metadata, 64 hex digits."""
        return self._file.fingerprint

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order in which ``run`` and ``push`` take them."""
        return tuple(slot.name for slot in self._engine.layout.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(slot.name for slot in self._engine.layout.outputs)

    @property
    def causal(self) -> bool:
        """True when the model streams."""
        return self.signature.causal

    def __repr__(self) -> str:
        return f"<Model {self._name}: {_summary(self._engine.layout)}>"


def _handed_out(slot: Slot, output: Any, batch: Batch) -> Any:
    if not batch.ragged or slot.time_axis is None:
        return output
    return split(slot, output, [batch.steps] * batch.size if batch.lengths is None else batch.lengths.tolist())


def _summary(layout: Layout) -> str:
    inputs = ", ".join(str(slot) for slot in layout.inputs)
    outputs = ", ".join(str(slot) for slot in layout.outputs)
    lengths = ", lengths" if layout.lengths is not None else ""
    streams = f"streams, {len(layout.states)} states" if layout.signature.causal else "does not stream"
    return f"{inputs}{lengths} -> {outputs}; {streams}"
