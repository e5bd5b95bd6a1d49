"""The onnxruntime session of a model: one call of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.signature import GatherOutput
from rnncore.runtime.session.bare_calls import Run, run_of
from rnncore.runtime.session.failures import of_runtime, run_error
from rnncore.runtime.session.process_fork import abandon, watch
from rnncore.runtime.session.row_sharing import RowSharing
from rnncore.runtime.session.row_splitting import JoinedRows, cut, joined, row_parts
from rnncore.runtime.tensors.fast_validation import FastReader
from rnncore.runtime.tensors.specs import Layout

if TYPE_CHECKING:
    import onnxruntime

_MOST_KEPT = 256  # rows of initial states that are kept for the next calls, which often have as many


class Opener(Protocol):
    """Opens sessions of a model from where it came from."""

    def again(self) -> onnxruntime.InferenceSession:
        """The whole one."""

    def one_step(self, layout: Layout, whole: onnxruntime.InferenceSession) -> onnxruntime.InferenceSession | None:
        """That for one step of one sequence, which gives the bits of the whole one; None if there is none."""


class Engine:
    """A session with its layout.  Immutable, and safe to call from many threads at once.

    opener: makes the session anew in a forked child, which cannot use the one it inherited, and that for one step.
    max_batch_steps: rows times steps of one run of the graph, at most; a larger call is several runs.
    sharing: threads that rows of a large call are shared out to; None where rows are not known to be independent.
    """

    __slots__ = (
        "__weakref__",
        "_full",
        "_given",
        "_lock",
        "_max_batch_steps",
        "_one_step",
        "_opener",
        "_outputs",
        "_run_session",
        "_session",
        "_sharing",
        "_starts",
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
        opener: Opener,
        max_batch_steps: int | None = None,
        sharing: RowSharing | None = None,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._run_session: tuple[onnxruntime.InferenceSession, Run] | None = None
        self._opener = opener
        self._one_step: tuple[onnxruntime.InferenceSession | None] | None = None  # None until it is asked for
        self._max_batch_steps = max_batch_steps
        self._sharing = sharing
        self._lock = threading.Lock()
        self.layout = layout
        self.fingerprint = fingerprint
        self.quick = FastReader(layout)
        watch(self)
        self._starts: dict[int, dict[str, Array]] = {}  # never changed, so that no lock is needed
        self._given: tuple[int, dict[str, Array]] = (-1, {})
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
                    self._session = self._opener.again()
                session = self._session
        return session

    def one_step_session(self) -> onnxruntime.InferenceSession | None:
        """That for one step of one sequence, with fewer inputs, made when first asked for; None if there is none."""
        if self._one_step is None:
            whole = self.session
            with self._lock:
                if self._one_step is None:
                    self._one_step = (self._opener.one_step(self.layout, whole),)
        return self._one_step[0]

    def after_process_fork(self) -> None:
        """Forget the session of the parent process."""
        abandon(self._session)
        abandon(self._one_step)
        abandon(self._run_session)
        self._session = self._one_step = self._run_session = None
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
        if self._sharing is None:
            return self._call_whole(arrays, states, lengths, batch, steps)
        return self._call_shared(
            self._sharing,
            (batch, steps),
            lambda: self._call_whole(arrays, states, lengths, batch, steps),
            lambda rows: self._part(rows, arrays, states, lengths, steps),
        )

    def answer(self, arrays: dict[str, Array], lengths: Array | None, batch: int, steps: int) -> dict[str, Array]:
        """The outputs that :meth:`call` gives from the initial states, which are not asked for how they end."""
        if self._max_batch_steps is not None or self.layout.adapter is not None:
            return self.call(arrays, self.initial_states(batch), lengths, batch, steps)
        if self._sharing is None:
            return self._answer_whole(arrays, lengths, batch, steps)
        return self._call_shared(
            self._sharing,
            (batch, steps),
            lambda: self._answer_whole(arrays, lengths, batch, steps),
            lambda rows: self._part(rows, arrays, self.initial_states(batch), lengths, steps),
        )

    def _answer_whole(
        self, arrays: dict[str, Array], lengths: Array | None, batch: int, steps: int
    ) -> dict[str, Array]:
        """:meth:`answer`, in one run of the graph."""
        feeds = self._with_others({**self._starting_feeds(batch), **arrays}, lengths, batch, steps)
        values = self._run(self._outputs[: len(self.layout.outputs)], feeds)
        return values if self.layout.plain else self._unfolded(values, batch, steps)

    def _call_whole(
        self, arrays: dict[str, Array], states: dict[str, Array], lengths: Array | None, batch: int, steps: int
    ) -> dict[str, Array]:
        """:meth:`call`, in one run of the graph."""
        if self.layout.adapter is not None:
            values = self.layout.adapter.call(self._run, arrays, states, batch, steps)
            return values | {
                state.output: states[state.name] for state in self.layout.states[self.layout.graph_states :]
            }
        feeds = self._with_others({**arrays, **self._state_feeds(states)}, lengths, batch, steps)
        values = self._run(self._outputs, feeds)
        if self.layout.plain:
            return values
        values = self._unfolded(values, batch, steps)
        for state in self.layout.states[: self.layout.graph_states]:
            values[state.output] = state.from_graph(values[state.output])
        return values | {state.output: states[state.name] for state in self.layout.states[self.layout.graph_states :]}

    def _with_others(self, feeds: dict[str, Array], lengths: Array | None, batch: int, steps: int) -> dict[str, Array]:
        """``feeds``, with what the graph takes beside arrays and states."""
        layout = self.layout
        if layout.lengths is not None:
            feeds[layout.lengths] = self._full_lengths(batch, steps) if lengths is None else lengths
        if layout.signature.pick is not None:
            feeds[layout.signature.pick.at] = self._nothing_asked(batch, steps)
        for slot in layout.options:
            if slot.name not in feeds:
                feeds[slot.name] = slot.left_out(batch)
        return feeds

    def _unfolded(self, values: dict[str, Array], batch: int, steps: int) -> dict[str, Array]:
        for slot in self.layout.outputs:
            values[slot.name] = slot.unfolded(values[slot.name], batch, steps)
        return values

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
        if self._sharing is None:
            return self._call_picked_whole(pick, arrays, states, at)
        return self._call_shared(
            self._sharing,
            (batch, steps),
            lambda: self._call_picked_whole(pick, arrays, states, at),
            lambda rows: self._part_picked(rows, arrays, states, at),
        )

    def _call_picked_whole(
        self, pick: GatherOutput, arrays: dict[str, Array], states: dict[str, Array], at: Array
    ) -> dict[str, Array]:
        """:meth:`call_picked`, in one run of the graph, which is asked for the numbers."""
        batch, steps, _ = at.shape
        feeds = {**arrays, **self._state_feeds(states), pick.at: at}
        if self.layout.lengths is not None:
            feeds[self.layout.lengths] = self._full_lengths(batch, steps)
        values = self._run([pick.picked, *self._outputs[1:]], feeds)
        values[pick.of] = values.pop(pick.picked)
        return values

    def _call_shared(
        self,
        sharing: RowSharing,
        sizes: tuple[int, int],
        whole: Callable[[], dict[str, Array]],
        part: Callable[[slice], dict[str, Array]],
    ) -> dict[str, Array]:
        """A call of ``sizes`` (rows, steps) in parts that run side by side, if it is worth that, else whole."""
        batch, steps = sizes
        parts = sharing.parts(batch, steps)
        if len(parts) > 1:
            joining = JoinedRows(self.layout, batch)

            def run(rows: slice) -> None:
                joining.put(rows, part(rows))

            if sharing.run([partial(run, rows) for rows in parts]):
                return joining.arrays
        started = time.perf_counter()
        values = whole()
        sharing.timed(batch * steps, time.perf_counter() - started)
        return values

    def _state_feeds(self, states: dict[str, Array]) -> dict[str, Array]:
        """States as the graph takes them; what the runtime keeps for itself is left out."""
        if self.layout.plain:
            return states
        graph = self.layout.states[: self.layout.graph_states]
        return {state.name: state.to_graph(states[state.name]) for state in graph}

    def _starting_feeds(self, batch: int) -> dict[str, Array]:
        """:meth:`_state_feeds` of the initial states."""
        for_batch, feeds = self._given
        if for_batch != batch:
            feeds = self._state_feeds(self.initial_states(batch))
            if batch <= _MOST_KEPT:
                self._given = batch, feeds
        return feeds

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
        session, run = self._run_session or (None, None)
        if run is None or session is not self._session:
            session = self.session
            run = run_of(session)
            self._run_session = session, run
        try:
            values = run(names, feeds, None)
        except Exception as error:
            if not of_runtime(error):
                raise
            raise run_error(error, self.layout.signature.most_steps, feeds) from error
        return dict(zip(names, values, strict=True))

    def initial_states(self, batch: int) -> dict[str, Array]:
        """Initial value of every state, [batch, size], read-only."""
        states = self._starts.get(batch)
        if states is None:
            states = {state.name: np.tile(state.initial, (batch, 1)) for state in self.layout.states}
            for array in states.values():
                array.flags.writeable = False
            if batch <= _MOST_KEPT:
                kept = self._starts if sum(self._starts) + batch <= _MOST_KEPT else {}
                self._starts = {**kept, batch: states}
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


def _rows(states: dict[str, Array], rows: slice) -> dict[str, Array]:
    return {name: array[rows] for name, array in states.items()}
