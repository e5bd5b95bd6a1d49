"""The onnxruntime session of a model: how it is set up, how it is called, what its errors become."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, ModelFileError
from rnncore.runtime.interrupts import from_signal_handler
from rnncore.runtime.session.cpu_features import suit_processor
from rnncore.runtime.session.process_fork import abandon, watch
from rnncore.runtime.session.providers import CPU, Provider, check_started
from rnncore.runtime.session.row_splitting import cut, joined, row_parts
from rnncore.runtime.session.threads import check_threads, share_threads
from rnncore.runtime.tensors.fast_validation import FastReader
from rnncore.runtime.tensors.graph_contract import GraphValue
from rnncore.runtime.tensors.specs import Layout

if TYPE_CHECKING:
    import onnxruntime

_FATAL_ONLY = 4
_FOLDER = "session.model_external_initializers_file_folder_path"
_MOST_KEPT = 256  # rows of initial states that are kept for the next call, which often has as many
_OF_LIBRARY = (
    RuntimeError,
    MemoryError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
)  # as pybind11 translates them
_NO_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate memory")
_NO_SUCH_PLACE = re.compile(r"invalid ind\w+ found, ind\w+ = (-?\d+)|Out of range value in index tensor")
_BELOW = (2**63 - 1, 2**31 - 1)
_OUT_OF_TABLE = re.compile(r"idx=(-?\d+) must be within the inclusive range \[(-?\d+),(-?\d+)\]")


@dataclass(frozen=True)
class Graph:
    """What a session is made from, all of it checked.

    data: the bytes of the model.  weights: those of the files that it reads weights from, by name.  nested: the files that
    tensors in branches and loops are in.  foldable: whether onnxruntime may compute constants in advance.
    """

    data: bytes
    weights: Mapping[str, Array]
    nested: frozenset[str]
    foldable: bool


def open_session(
    graph: Graph, *, threads: int | None, arena: bool, providers: Sequence[Provider] = ((CPU, {}),)
) -> onnxruntime.InferenceSession:
    """A session over the bytes of a model, with threads of its own or, for None, those that models share.

    Raises ModelFileError when onnxruntime does not accept the model, InputError when a provider cannot start.
    """
    import onnxruntime  # takes longer than all the rest of this package: wait until a model is loaded

    options = onnxruntime.SessionOptions()
    check_threads(threads)
    if threads is None:
        share_threads()
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = arena
    # One allocation for a whole step of a loop instead of one for each node: 13 % less for a row of 64 units.  The plans
    # are kept for ever, but by the exclusive or of all sizes: some kB for each length a stream may bring, not for each shape.
    options.enable_mem_pattern = True
    # Every failure comes back as an exception; a second copy on the terminal of a service helps nobody.
    options.log_severity_level = _FATAL_ONLY
    suit_processor(options)
    # These bytes were checked as an ONNX model.  onnxruntime takes them for its own format if they happen to look like that.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    left_out = [] if graph.foldable else ["ConstantFolding"]
    try:
        with _weights(graph, options):
            session = onnxruntime.InferenceSession(
                graph.data, options, providers=list(providers), disabled_optimizers=left_out
            )
    except Exception as error:
        if not of_runtime(error):
            raise
        raise ModelFileError(
            f"onnxruntime {onnxruntime.__version__} does not accept the model: {_readable(error)}"
        ) from error
    check_started(session, providers)
    _give_back_memory()
    return session


@contextlib.contextmanager
def _weights(graph: Graph, options: onnxruntime.SessionOptions) -> Iterator[None]:
    """Give a session the weights that are not in the graph; it copies what it needs of them while it is opened.

    onnxruntime takes tensors of the outermost graph from memory.  Those of a branch or a loop it reads from a folder, by
    default the working directory: that is a private one here, and one that cannot be where nothing is to be read.
    """
    names = list(graph.weights)
    if names:
        buffers = [graph.weights[name] for name in names]
        options.add_external_initializers_from_files_in_memory(names, buffers, [buffer.nbytes for buffer in buffers])
    if not graph.nested:
        options.add_session_config_entry(_FOLDER, os.path.join(os.devnull, "none"))
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rnncore-") as folder:  # nobody else may write into it
        for name in graph.nested:
            graph.weights[name].tofile(os.path.join(folder, name))
        options.add_session_config_entry(_FOLDER, folder)
        yield


def _give_back_memory() -> None:
    """Return to the system what was needed for loading only, where the C library can: 92 MB for an LSTM of 34 MB."""
    # Only glibc has this function, and not every system finds it like this.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def graph_values(session: onnxruntime.InferenceSession) -> tuple[list[GraphValue], list[GraphValue]]:
    """Inputs and outputs of the graph; inputs with a default are inputs too."""
    arguments = [*session.get_inputs(), *session.get_overridable_initializers()]
    inputs = [GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in arguments]
    outputs = [GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in session.get_outputs()]
    return inputs, outputs


class Engine:
    """A session with its layout.  Immutable, and safe to call from many threads at once.

    reopen: makes the session anew in a forked child, which cannot use the one it inherited.
    max_batch_steps: rows times steps of one run of the graph, at most; a larger call is several runs.
    """

    __slots__ = (
        "__weakref__",
        "_full",
        "_lock",
        "_max_batch_steps",
        "_outputs",
        "_reopen",
        "_session",
        "_start",
        "_unasked",
        "fingerprint",
        "layout",
        "quick",
    )

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        layout: Layout,
        fingerprint: str,
        reopen: Callable[[], onnxruntime.InferenceSession],
        max_batch_steps: int | None = None,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._reopen = reopen
        self._max_batch_steps = max_batch_steps
        self._lock = threading.Lock()
        self.layout = layout
        self.fingerprint = fingerprint
        self.quick = FastReader(layout)
        watch(self)
        self._start: tuple[int, dict[str, Array]] = (-1, {})
        self._full: tuple[int, int, Array] = (-1, -1, np.empty(0, np.int64))
        self._unasked: Array = np.empty((0, 0, 1), np.int64)
        self._outputs = [slot.name for slot in layout.outputs] + [
            state.output for state in layout.states[: layout.graph_states]
        ]

    def check_in_one_call(self, what: str, advice: str) -> None:
        """Raise InputError if calls may be cut by rows: answers of ``what``, of as many steps as it takes, cannot be joined."""
        if self._max_batch_steps is not None:
            raise InputError(f"{what} takes all its rows at once: load the model without max_batch_steps, and {advice}")

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The session of this process."""
        session = self._session
        if session is None:
            with self._lock:
                if self._session is None:
                    self._session = self._reopen()
                session = self._session
        return session

    def after_process_fork(self) -> None:
        """Forget the session of the parent process."""
        abandon(self._session)
        self._session = None
        self._lock = threading.Lock()

    def call(
        self, arrays: dict[str, Array], states: dict[str, Array], lengths: Array | None, batch: int, steps: int
    ) -> dict[str, Array]:
        """Run the graph; returns outputs and final states by their graph names.

        arrays: every input, whole and checked; options may be missing.
        states: every state by its input name, [batch, size].
        lengths: int64 [batch], or None for ``steps`` in every row; unused by a model without such an input.
        """
        parts = row_parts(batch, steps, self._max_batch_steps)
        if len(parts) > 1:
            return joined(self.layout, [self._part(rows, arrays, states, lengths, steps) for rows in parts])
        if self.layout.adapter is not None:
            values = self.layout.adapter.call(self._run, arrays, states, batch, steps)
            return values | {
                state.output: states[state.name] for state in self.layout.states[self.layout.graph_states :]
            }
        feeds = {**arrays, **self._state_feeds(states)}
        if self.layout.lengths is not None:
            feeds[self.layout.lengths] = self._full_lengths(batch, steps) if lengths is None else lengths
        if self.layout.signature.pick is not None:
            feeds[self.layout.signature.pick.at] = self._nothing_asked(batch, steps)
        for slot in self.layout.options:
            if slot.name not in feeds:
                feeds[slot.name] = slot.left_out(batch)
        values = self._run(self._outputs, feeds)
        if self.layout.plain:
            return values
        for slot in self.layout.outputs:
            values[slot.name] = slot.unfolded(values[slot.name], batch, steps)
        for state in self.layout.states[: self.layout.graph_states]:
            values[state.output] = state.from_graph(values[state.output])
        return values | {state.output: states[state.name] for state in self.layout.states[self.layout.graph_states :]}

    def call_picked(self, arrays: dict[str, Array], states: dict[str, Array], at: Array) -> dict[str, Array]:
        """As :meth:`call` with full lengths, but of the one output only the numbers ``at`` [batch, time, picks].

        They are found under the name of that output.  A file that cannot be asked for them gives all, to be cut here.
        """
        pick = self.layout.signature.pick
        batch, steps, _ = at.shape
        parts = row_parts(batch, steps, self._max_batch_steps)
        if len(parts) > 1:
            return joined(self.layout, [self._part_picked(rows, arrays, states, at) for rows in parts])
        if pick is None:
            values = self.call(arrays, states, None, batch, steps)
            name = self.layout.outputs[0].name
            values[name] = np.take_along_axis(values[name], at, 2)
            return values
        feeds = {**arrays, **self._state_feeds(states), pick.at: at}
        if self.layout.lengths is not None:
            feeds[self.layout.lengths] = self._full_lengths(batch, steps)
        values = self._run([pick.picked, *self._outputs[1:]], feeds)
        values[pick.of] = values.pop(pick.picked)
        return values

    def _state_feeds(self, states: dict[str, Array]) -> dict[str, Array]:
        """States as the graph takes them; what the runtime keeps for itself is left out."""
        if self.layout.plain:
            return states
        graph = self.layout.states[: self.layout.graph_states]
        return {state.name: state.to_graph(states[state.name]) for state in graph}

    def _part(
        self, rows: slice, arrays: dict[str, Array], states: dict[str, Array], lengths: Array | None, steps: int
    ) -> dict[str, Array]:
        own = None if lengths is None else lengths[rows]
        return self.call(cut(self.layout, arrays, rows), _rows(states, rows), own, rows.stop - rows.start, steps)

    def _part_picked(
        self, rows: slice, arrays: dict[str, Array], states: dict[str, Array], at: Array
    ) -> dict[str, Array]:
        return self.call_picked(cut(self.layout, arrays, rows), _rows(states, rows), np.ascontiguousarray(at[rows]))

    def _run(self, names: list[str], feeds: dict[str, Array]) -> dict[str, Array]:
        session = self.session
        try:
            values = session.run(names, feeds)
        except Exception as error:
            if not of_runtime(error):
                raise
            raise run_error(error) from error
        return dict(zip(names, values, strict=True))

    def initial_states(self, batch: int) -> dict[str, Array]:
        """Initial value of every state, [batch, size], read-only."""
        for_batch, states = self._start
        if for_batch != batch:
            states = {state.name: np.tile(state.initial, (batch, 1)) for state in self.layout.states}
            for array in states.values():
                array.flags.writeable = False
            if batch <= _MOST_KEPT:
                self._start = batch, states
        return dict(states)

    def _full_lengths(self, batch: int, steps: int) -> Array:
        """``steps`` in every row, read-only."""
        for_batch, for_steps, lengths = self._full
        if (for_batch, for_steps) != (batch, steps):
            lengths = np.full(batch, steps, np.int64)
            lengths.flags.writeable = False
            if batch <= _MOST_KEPT:
                self._full = batch, steps, lengths
        return lengths

    def _nothing_asked(self, batch: int, steps: int) -> Array:
        """Zeros [batch, steps, 1], read-only: what a file with picks is fed when nobody asks for some."""
        at = self._unasked
        if at.shape[:2] != (batch, steps):
            at = np.zeros((batch, steps, 1), np.int64)
            at.flags.writeable = False
            if batch <= _MOST_KEPT:
                self._unasked = at
        return at


def of_runtime(error: Exception) -> bool:
    """True for what onnxruntime raised, or its C++ library; anything else goes its own way: a time limit, say."""
    own = type(error).__module__.partition(".")[0] == "onnxruntime"
    return own or (isinstance(error, _OF_LIBRARY) and not from_signal_handler(error))


def run_error(error: Exception) -> InputError:
    """What a failed run becomes.  Shapes and dtypes were checked before, so what is left lies in the values."""
    found = _OUT_OF_TABLE.search(str(error))
    if found:
        # A computed place below 0 is made the largest integer by the file itself, so that it is not read from the end.
        which = "gives an id below 0" if int(found[1]) in _BELOW else f"holds the id {found[1]}"
        return InputError(f"an input {which}, the model's table ends at {found[3]}: use ids 0 to {found[3]}")
    found = _NO_SUCH_PLACE.search(str(error))
    if found:
        which = f"the id {found[1]}" if found[1] and int(found[1]) not in _BELOW else "an id"
        return InputError(f"an input holds or gives {which} that the model's tables do not hold")
    if _NO_MEMORY.search(str(error)):
        return _too_large(error)
    return InputError(f"onnxruntime could not run the model on this input: {_readable(error)}")


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Arrays made within may be too large for this machine: an InputError that says what to do, and nothing has changed."""
    try:
        yield
    except MemoryError as error:
        raise _too_large(error) from error


def _too_large(error: Exception) -> InputError:
    return InputError(
        "there is not enough memory to run the model on so many steps at once: use shorter chunks or fewer rows, or load "
        f"the model with max_steps and max_batch_steps ({_readable(error)})"
    )


def _rows(states: dict[str, Array], rows: slice) -> dict[str, Array]:
    return {name: array[rows] for name, array in states.items()}


def _readable(error: Exception) -> str:
    """Message of onnxruntime without its numeric code and the source location of its build."""
    text = str(error).strip()
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"\S*/onnxruntime\S*\.(?:cc|h):\d+ ", "", text)
    return " ".join(text.split())
