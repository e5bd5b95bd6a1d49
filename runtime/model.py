"""The model: an exported file, loaded, checked and ready to run whole sequences or to open streams."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rnncore.runtime.arrays import Array
from rnncore.runtime.batching.buckets import BATCH_SIZE, PADDING_BUDGET
from rnncore.runtime.batching.gather_output import run_picked
from rnncore.runtime.batching.padded import read_batch, run_batch
from rnncore.runtime.batching.ragged import read_ragged, run_ragged
from rnncore.runtime.batching.windows import Progress, check_windows, read_windows, run_windows
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import InputError, ModelFileError, SnapshotError
from rnncore.runtime.foreign.description import read_foreign
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.signature import Signature
from rnncore.runtime.loading import LoadedFile, open_model, open_source
from rnncore.runtime.notebook import shown
from rnncore.runtime.origin import Origin, Threads, logger, origin_of, read_options, readable
from rnncore.runtime.pool.eviction import OnEvict
from rnncore.runtime.pool.pool import OnOverload, Pool
from rnncore.runtime.reopening import read_again
from rnncore.runtime.session.providers import Providers
from rnncore.runtime.signing import Key, read_key
from rnncore.runtime.streaming.push_many import push_many
from rnncore.runtime.streaming.snapshot import decode, read_file
from rnncore.runtime.streaming.state_rows import StateBlocks
from rnncore.runtime.streaming.stream import Stream
from rnncore.runtime.tensors.outputs import one_or_all
from rnncore.runtime.tensors.specs import Layout
from rnncore.runtime.tensors.validation import bind_arguments


@only_own_errors(ModelFileError, "loading the file")
def load(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    *,
    threads: Threads = 1,
    arena: bool = True,
    max_steps: int | None = None,
    max_batch_steps: int | None = None,
    providers: Providers | None = None,
    states: Mapping[str, str] | None = None,
    axes: Mapping[str, str] | None = None,
    initial: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    chunk: int | None = None,
    context: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    public_key: Key | None = None,
    signature: bytes | None = None,
) -> Model:
    """Load a model that ``rnncore.export`` wrote, or, given its ``states``, any other ONNX model.

    source: path of the file, or its bytes.
    threads: processors that one call may use.  1 is right for a service that runs many calls side by side; a single caller
        gains from one for each core: ``"auto"`` or None for as many as the cpuset and the cgroup of this process allow.
        Rows of a large batch (``run``, lists, ``push_many``) are shared out to so many threads, 4 rows to each at least, if
        the export saw that rows do not depend on each other; the answers have the bits of the whole call.  Within small
        calls, and for other files, onnxruntime shares out each large operation.  Threads never spin while they wait.
        ``"shared"``: one pool of threads for all models of the process, see :func:`rnncore.runtime.share_threads`;
        onnxruntime lets these spin for a moment after a call, and rows are not shared out.
    arena: keep memory between calls.  False gives it back after each call, which costs time and saves memory where
        calls are rare or of very different sizes.
    max_steps: longest sequence or chunk that is accepted; a longer one is an InputError before any memory is taken.
        None for ``max_batch_steps``.
    max_batch_steps: sequences times steps of one run of the graph, padding included, at most.  What is more, of whatever
        method, is several runs: this bounds the memory of what is between input and output.  None for no limit.
    providers: what computes the model, onnxruntime's execution providers in order of preference: ``"cuda"``,
        ``["CoreMLExecutionProvider"]``, ``[("cuda", {"device_id": 1})]``.  The CPU takes what they leave, and everything for
        None.  One that this onnxruntime lacks, or that cannot start here, is an InputError.  Others than the CPU round
        otherwise: ``verify(model)`` says whether the golden answers still hold.
    limits: what the file may ask of this process while it is loaded, see :class:`rnncore.runtime.Limits`.
    public_key: an Ed25519 key in PEM, or the path of one: the file, with its weights, must have been signed with its private
        key (:func:`rnncore.runtime.sign`), else SignatureError.  Nothing of the file is read before.  Without it nobody
        knows who made a file: its fingerprint is a checksum.
    signature: the content of the signature; None for that of the file beside the model, of the same name with ".sig".

    Weights that are in a second file are read into memory and checked there, so whatever becomes of the two files later
    changes no answer: it takes the size of that file in memory until the model is loaded, and for tables that are looked up
    (embeddings) also afterwards.

    For a file that rnncore did not write, of which the runtime believes what it is told here and what a trial run on
    zeros shows (:mod:`rnncore.runtime.foreign.graph`):

    states: for each input of the graph that is a recurrent state the output that it becomes, ``{"h": "hn", "c": "cn"}``;
        ``{}`` for a model without, which runs whole sequences but does not stream.
    axes: names for the axes of inputs, outputs and states, as a text for each: ``{"x": "time batch features", "h":
        "2 batch 128"}``.  ``batch`` and ``time`` matter, and numbers where the graph leaves a size open; any other word
        is just a name.  Without it the batch is the one free axis of a state, and of an input the axis of that name, or
        the first; time is the first other free axis, or the first other one at all in a graph that takes chunks of
        fixed size; axes of outputs are seen in the trial run.
    initial: values that states start from, without the batch axis; zeros for the others.
    constants: inputs that are always the same, such as a sample rate.
    chunk: the graph takes so many samples a call, no more and no less, though it does not say so.  A step of the model
        is then one chunk: ``push`` takes [steps, chunk, ...], or [steps * chunk, ...], and returns [steps, ...].
    context: the graph wants to see so many samples again before each chunk; the runtime keeps them as a state.

    Whatever the order of the graph's axes, ``run`` takes and returns [batch, time, ...] and ``push`` [time, ...].

    Raises NotOnnxError (no such file, a directory, empty, truncated, not ONNX), ForeignModelError (not written by
    rnncore, or not as its ``states`` say), FormatVersionError (written by a newer rnncore), TamperedModelError (changed
    after export), or their base ModelFileError when signature and graph disagree; InputError for other arguments.
    """
    source = readable(source)
    if not isinstance(limits, Limits):
        raise InputError(f"limits is a {type(limits).__name__}, expected rnncore.runtime.Limits")
    key = None if public_key is None else read_key(public_key)
    if signature is not None and key is None:
        raise InputError("a signature without public_key: say whose it must be")
    foreign = read_foreign(states, axes, initial, constants, chunk, context)
    options = read_options(threads, arena, max_steps, max_batch_steps, providers)
    origin = origin_of(source, replace(options, foreign=foreign, limits=limits, public_key=key, signature=signature))
    model = Model(*open_source(source, origin))
    logger.info("loaded %r", model)
    return model


class Model:
    """A loaded model file.  Immutable, and safe to use from many threads; made by :func:`load`.

    A forked child opens the file again when it first uses the model, and so does a process that unpickles one
    (``multiprocessing``, Ray); both refuse a file that has changed since.
    """

    __slots__ = ("__weakref__", "_file", "_name", "_state_blocks", "engine")

    def __init__(self, name: str, file: LoadedFile) -> None:
        self._name = name
        self._file = file
        self.engine = file.engine
        """The session and the layout of its arrays: what the classes for texts and tasks are built on, no public interface."""
        self._state_blocks = StateBlocks(file.engine.layout)

    def run(self, /, *inputs: Any, lengths: Any = None, **named: Any) -> Any:
        """Run whole sequences, each from the initial state.

        inputs: for each input of the signature, by position, by name or in one dict, an array such as
            [batch, time, features], or a list of arrays [time_i, features] of any lengths.  Token ids may be lists of
            ints.  An input without a time axis has one row for each sequence.  Float arrays of another width, and
            integers that fit, are converted.
        lengths: integers [batch], valid steps of each row of padded arrays; all of them when None.  What is in the
            padding never matters.

        Returns an array [batch, time, ...] that is zero beyond the lengths, or for lists a list of arrays
        [time_i, ...].  An output without a time axis is [batch, ...] for both.  Several outputs come as a dict by name.

        Raises InputError that lists every problem.
        """
        layout = self.engine.layout
        quick = self.engine.quick.read_batch(inputs) if lengths is None and not named else None
        if quick is not None:
            arrays, rows, steps = quick
            outputs = self.engine.answer(arrays, None, rows, steps)
        else:
            given = bind_arguments(layout.inputs, inputs, named)
            ragged = read_ragged(layout, given, self.engine.quick)
            if ragged is not None:
                if lengths is not None:
                    raise InputError("lengths do not go with a list of sequences: each item brings its own length")
                return one_or_all(layout, run_ragged(self.engine, ragged))
            outputs = run_batch(self.engine, read_batch(layout, given, lengths))
        return one_or_all(layout, [slot.folded(outputs[slot.name]) for slot in layout.outputs])

    def run_picked(self, /, *inputs: Any, at: Any, **named: Any) -> Array:
        """Run whole padded sequences, and return only some numbers of the one output [batch, time, size].

        inputs: arrays as for :meth:`run`.
        at: integers [batch, time, picks], indices of the output's last axis, of each step.

        Returns [batch, time, picks].  A file exported with ``pick=True`` copies no others out.  Raises InputError.
        """
        return run_picked(self.engine, bind_arguments(self.engine.layout.inputs, inputs, named), at)

    def run_iter(
        self,
        sequences: Iterable[Any],
        *,
        batch_size: int = BATCH_SIZE,
        window: int = 1024,
        padding_budget: float = PADDING_BUDGET,
        progress: Progress | None = None,
        read_ahead: bool = False,
    ) -> Iterator[Any]:
        """Run any number of sequences, and yield the answer to each, in order: for what does not fit in memory.

        sequences: each one what ``Stream.push`` takes, whole: an array [time, ...]; with several inputs a tuple in their
            order, or a dict by name.
        batch_size: most sequences of one call.
        window: so many sequences are read ahead, to find those of similar length.  Memory is that of one window.
        padding_budget: padded steps of a call as a share of its real ones, at most.
        progress: called after each window with the number of sequences and of steps run so far.
        read_ahead: the next window is read, by a thread that iterates over ``sequences``, while this one is run and answered.
            Memory is then that of two windows.  For sequences that take time to read or make, and that need no particular
            thread; whoever stops early leaves the thread to finish the window it reads.

        Raises InputError, which names the sequence, when it comes to one that is wrong; the windows before it were
        answered.
        """
        check_windows(sequences, batch_size, window, padding_budget, progress)
        return run_windows(
            self.engine,
            read_windows(self.engine.layout, sequences, window, ahead=read_ahead),
            batch_size=batch_size,
            padding_budget=padding_budget,
            progress=progress,
        )

    def stream(self) -> Stream:
        """Open a stream at the initial state; NotStreamableError, with the reason, if the model is not causal."""
        return Stream(self.engine, self._state_blocks)

    def restore(self, blob: bytes) -> Stream:
        """Open a stream where ``Stream.save`` left one.

        Raises SnapshotError for bytes that are foreign, cut short, altered, of a newer format or of another model.
        """
        return Stream(self.engine, self._state_blocks, decode(blob, self.fingerprint, self.engine.layout))

    def restore_file(self, path: str | os.PathLike[str]) -> Stream:
        """Open a stream where ``Stream.save_file`` left one; SnapshotError names the path."""
        try:
            return self.restore(read_file(path, self.engine.layout))
        except SnapshotError as error:
            raise SnapshotError(f"{path}: {error}") from error.__cause__

    def push_many(self, streams: Sequence[Stream], chunks: Sequence[Any]) -> list[Any]:
        """Push ``chunks[i]`` to ``streams[i]`` in one call, and return what each push would have returned.

        A chunk is what ``push`` takes: an array; with several inputs a tuple in their order, or a dict by name.
        Chunks of different lengths share a call if the file has a lengths input, otherwise there is one call for each
        length.  All or nothing: after InputError, StateError (a closed stream, or one of another model) or
        StreamBusyError no stream has moved.
        """
        return push_many(self.engine, streams, chunks)

    def pool(
        self,
        *,
        max_batch: int = 64,
        max_wait_ms: float = 2.0,
        max_pending: int = 1024,
        on_overload: OnOverload = "error",
        slice_steps: int = 32,
        max_streams: int | None = None,
        max_idle_s: float | None = None,
        on_evict: OnEvict | None = None,
        workers: int = 1,
    ) -> Pool:
        """Open a pool, which batches the pushes of many streams; use it in ``with``, or close it.

        max_batch: most rows of one call.  From 32 open streams on, half of them make a batch, so that the answers of one
            half are handed out and pushed on while the other half runs.
        max_wait_ms: how long a push may wait for others to fill its batch.  Nobody waits when all streams are there.
        max_pending: how many pushes may be unanswered at the same time.
        on_overload: what happens to a push beyond that: ``"error"`` raises Overloaded; ``"wait"`` lets whoever pushes wait
            for a place, first come, first served, and copies the chunk only then.  Timeouts count from the start; closing
            the pool sends those who wait away (PoolClosedError).
        slice_steps: most time steps that run before other pushes get their turn.  Longer chunks take several turns.
        max_streams: how many streams may have their state in the batch arrays; opening one more evicts the one that
            has been idle longest, or raises Overloaded.
        max_idle_s: evict streams that have not pushed for so long.
        on_evict: called with key and saved state of an evicted stream, which is then at its end (StreamEvictedError);
            ``pool.restore`` goes on.  Without it an evicted stream is only parked, and comes back with its next push.
        workers: threads that run batches side by side, at most one for each processor (and ``max_streams``).  Streams belong
            to none of them: each batch is of those that are ready, and a long one holds up no other.  Worth it where the
            model takes longer than handing the answers out, which is Python's one thread: chunks of several steps, or more
            than 256 units.  Single steps of smaller models are slower with it; benchmarks/results says how much.

        Raises NotStreamableError if the model is not causal, InputError for an option out of range.
        """
        return Pool(
            self.engine,
            max_batch=max_batch,
            max_wait_ms=max_wait_ms,
            max_pending=max_pending,
            on_overload=on_overload,
            slice_steps=slice_steps,
            max_streams=max_streams,
            max_idle_s=max_idle_s,
            on_evict=on_evict,
            workers=workers,
        )

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and states of the file."""
        return self.engine.layout.signature

    @property
    def metadata(self) -> Mapping[str, str]:
        """The ``rnncore.*`` entries of the file's metadata, read-only."""
        return MappingProxyType(self._file.metadata)

    @property
    def report(self) -> dict[str, Any]:
        """What was verified at export; the caller's own copy."""
        return copy.deepcopy(self._file.report)

    @property
    def limits(self) -> Limits:
        """What the file was allowed to ask for."""
        return self._file.origin.options.limits

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, graph and metadata, 64 hex digits; of a foreign file also of how it was said to be read."""
        return self._file.fingerprint

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order in which ``run`` and ``push`` take them."""
        return tuple(slot.name for slot in self.engine.layout.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(slot.name for slot in self.engine.layout.outputs)

    @property
    def causal(self) -> bool:
        """True when the model streams."""
        return self.signature.causal

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._name, self._file.origin, self._file.file_fingerprint)

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self

    def __repr__(self) -> str:
        return f"<Model {self._name}: {_summary(self.engine.layout)}>"

    def _repr_html_(self) -> str:
        """The signature as a table, in a notebook."""
        streams = "yes" if self.causal else f"no: {self.signature.not_causal_because}"
        facts = {"streams": streams, "fingerprint": self.fingerprint}
        return shown(f"Model {self._name}", facts, self.signature)


def _opened(name: str, data: bytes, origin: Origin) -> Model:
    try:
        return Model(name, open_model(data, origin))
    except ModelFileError as error:
        raise type(error)(f"{name}: {error}") from error.__cause__


def _unpickled(name: str, origin: Origin, fingerprint: str) -> Model:
    return _opened(name, read_again(origin, fingerprint), origin)


def _summary(layout: Layout) -> str:
    inputs = ", ".join(str(slot) for slot in layout.inputs)
    outputs = ", ".join(str(slot) for slot in layout.outputs)
    lengths = ", lengths" if layout.lengths is not None else ""
    streams = f"streams, {len(layout.states)} states" if layout.signature.causal else "does not stream"
    return f"{inputs}{lengths} -> {outputs}; {streams}"
