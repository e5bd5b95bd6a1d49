"""The onnxruntime session of a model: how it is set up, how it is called, what its errors become."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from rnncore.runtime.contract import GraphValue
from rnncore.runtime.errors import InputError, ModelFileError
from rnncore.runtime.layout import Array, Layout

if TYPE_CHECKING:
    import onnxruntime

_FATAL_ONLY = 4
_OUT_OF_TABLE = re.compile(r"idx=(-?\d+) must be within the inclusive range \[(-?\d+),(-?\d+)\]")


def open_session(data: bytes, *, threads: int, arena: bool) -> onnxruntime.InferenceSession:
    """A CPU session over the bytes of a model; ModelFileError when onnxruntime does not accept them."""
    import onnxruntime  # takes longer than all the rest of this package: wait until a model is loaded

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = arena
    # onnxruntime keeps one memory plan for every input shape it ever saw; streams bring new chunk lengths for ever.
    options.enable_mem_pattern = False
    # Every failure comes back as an exception; a second copy on the terminal of a service helps nobody.
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelFileError(
            f"onnxruntime {onnxruntime.__version__} does not accept the model: {_readable(error)}"
        ) from error


def graph_values(session: onnxruntime.InferenceSession) -> tuple[list[GraphValue], list[GraphValue]]:
    """Inputs and outputs of the graph."""
    inputs = [GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in session.get_inputs()]
    outputs = [GraphValue(arg.name, arg.type, tuple(arg.shape)) for arg in session.get_outputs()]
    return inputs, outputs


class Engine:
    """A session with its layout.  Immutable, and safe to call from many threads at once."""

    __slots__ = ("_outputs", "layout", "session")

    def __init__(self, session: onnxruntime.InferenceSession, layout: Layout) -> None:
        self.session = session
        self.layout = layout
        self._outputs = [slot.name for slot in layout.outputs] + [state.output for state in layout.states]

    def call(
        self, arrays: dict[str, Array], states: dict[str, Array], lengths: Array | None, batch: int, steps: int
    ) -> dict[str, Array]:
        """Run the graph once; returns outputs and final states by their graph names.

        arrays: every input, whole and checked.
        states: every state by its input name, [batch, size].
        lengths: int64 [batch], or None for ``steps`` in every row; unused by a model without such an input.
        """
        feeds = {**arrays, **states}
        if self.layout.lengths is not None:
            feeds[self.layout.lengths] = np.full(batch, steps, np.int64) if lengths is None else lengths
        try:
            values = self.session.run(self._outputs, feeds)
        except Exception as error:
            raise run_error(error) from error
        return dict(zip(self._outputs, values, strict=True))

    def initial_states(self, batch: int) -> dict[str, Array]:
        """Initial value of every state, [batch, size]."""
        return {state.name: np.tile(state.initial, (batch, 1)) for state in self.layout.states}


def run_error(error: Exception) -> InputError:
    """What a failed run becomes.  Shapes and dtypes were checked before, so what is left lies in the values."""
    found = _OUT_OF_TABLE.search(str(error))
    if found:
        return InputError(
            f"an input holds the id {found[1]}, the model's table ends at {found[3]}: use ids 0 to {found[3]}"
        )
    return InputError(f"onnxruntime could not run the model on this input: {_readable(error)}")


def _readable(error: Exception) -> str:
    """Message of onnxruntime without its numeric code and the source location of its build."""
    text = str(error).strip()
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"\S*/onnxruntime\S*\.(?:cc|h):\d+ ", "", text)
    return " ".join(text.split())
