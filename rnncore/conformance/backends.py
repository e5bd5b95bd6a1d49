"""Programs that run ONNX files, behind one call: arrays by name in, arrays by name out.

================== ============================== ==========================================================
backend            package                        what is special here
================== ============================== ==========================================================
``onnxruntime``    onnxruntime                    one thread, no graph options: as another program would run it
``openvino``       openvino                       CPU, inference in float32 (its default may round to bfloat16)
``onnx-reference`` onnx                           its evaluator in Python as it comes, unmended
``tract``          tract                          symbolic shapes as they are in the file
================== ============================== ==========================================================
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import InputError, MissingExtraError, RnncoreError

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""All inputs of the graph by name -> all outputs by name."""

_LONGEST = 300  # characters of a backend's error message that are shown


class BackendError(RnncoreError):
    """A backend cannot load or run a file; the message is its own, shortened."""


def open_backend(name: str, path: Path) -> Run:
    """The file at ``path`` in a backend.

    Raises:
        InputError: there is no such backend.
        MissingExtraError: its package is not installed.
        BackendError: it does not accept the file.
    """
    check_backend(name)
    with _own_errors():
        run = BACKENDS[name][1](path)

    def guarded(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with _own_errors():
            return run(feeds)

    return guarded


def check_backend(name: str) -> None:
    """Raise InputError if there is no such backend, MissingExtraError if its package is not installed."""
    if name not in BACKENDS:
        raise InputError(f"there is no backend {name!r}: choose one of {', '.join(BACKENDS)}")
    try:
        importlib.import_module(BACKENDS[name][0])
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise MissingExtraError(missing, "conformance", f"the backend {name!r}") from None


def version_of(name: str) -> str:
    """The installed version of a backend's package."""
    from importlib.metadata import version

    return version(BACKENDS[name][0].partition(".")[0])


@contextmanager
def _own_errors() -> Iterator[None]:
    """Whatever a backend raises becomes a BackendError with the part of its message that says why."""
    try:
        yield
    except Exception as error:
        pass_on_interruption(error)
        raise BackendError(shortened(str(error) or type(error).__name__)) from error


def shortened(message: str) -> str:
    """A backend's message without source locations, stack traces and blank lines."""
    message = message.split("Stack backtrace")[0]
    message = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)
    lines = [line.strip() for line in message.splitlines()]
    dull = re.compile(r"^$|^Exception from |^Check '.*' failed at |^(Caused by|Summary|Additional information):?$|^--")
    lines = [re.sub(r"^\d+: ", "", line) for line in lines if not dull.match(line)]
    text = re.sub(r"\S*/\S*\.(?:cc|cpp|h|hpp|rs)(?::\d+)+:?", "", " | ".join(lines))
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _openvino(path: Path) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        result = compiled(dict(feeds))
        return {name: np.array(value) for port, value in result.items() for name in port.names}

    return run


def _onnx_reference(path: Path) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(all="ignore"):  # its Sigmoid computes both sides of a where, one of which overflows
            return dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))

    return run


def _tract(path: Path) -> Run:
    import tract

    model = tract.onnx().load(str(path))
    inputs = [model.input_name(i) for i in range(model.input_count())]
    outputs = _graph_outputs(path)
    runnable = model.into_model().into_runnable()

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        results = runnable.run([np.ascontiguousarray(feeds[name]) for name in inputs])
        return dict(zip(outputs, (result.to_numpy() for result in results), strict=True))

    return run


def _graph_outputs(path: Path) -> list[str]:
    """Names of the outputs in order; tract calls them after the nodes they come from."""
    import onnx

    return [value.name for value in onnx.load(str(path), load_external_data=False).graph.output]


BACKENDS: dict[str, tuple[str, Callable[[Path], Run]]] = {
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
    "onnx-reference": ("onnx.reference", _onnx_reference),
    "tract": ("tract", _tract),
}
"""Package and opener of each backend."""
