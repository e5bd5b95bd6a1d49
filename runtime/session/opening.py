"""How a session of onnxruntime is set up, and what it says about its graph."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.session.cpu_features import suit_processor
from rnncore.runtime.session.failures import of_runtime, readable
from rnncore.runtime.session.providers import CPU, Provider, check_started, on_cpu_only
from rnncore.runtime.session.threads import check_threads, share_threads
from rnncore.runtime.tensors.graph_contract import GraphValue

if TYPE_CHECKING:
    import onnxruntime

_FATAL_ONLY = 4
_FOLDER = "session.model_external_initializers_file_folder_path"


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
    graph: Graph,
    *,
    threads: int | None,
    arena: bool,
    providers: Sequence[Provider] = ((CPU, {}),),
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> onnxruntime.InferenceSession:
    """A session over the bytes of a model, with threads of its own or, for None, those that models share.

    sizes: of named axes, for which alone the session is.

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
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
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
            f"onnxruntime {onnxruntime.__version__} does not accept the model: {readable(error)}"
        ) from error
    check_started(session, providers)
    if on_cpu_only(providers):
        _forget_bytes(session)
    _give_back_memory()
    return session


def _forget_bytes(session: onnxruntime.InferenceSession) -> None:
    """Let go of the bytes of the model, which onnxruntime's class keeps to open them anew where a provider fails at a run.

    The CPU does not fail like that, and a model would take its size a second time.
    """
    session.disable_fallback()
    if "_model_bytes" in vars(session):
        vars(session)["_model_bytes"] = b""


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
