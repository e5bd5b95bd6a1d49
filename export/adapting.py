"""``adapt``: files that others wrote, or touched, become files of rnncore, proved against what they were."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from rnncore.export.file import in_one_file, saving
from rnncore.export.graph.zero_values import always_zero
from rnncore.export.ort_format import onnx_of
from rnncore.export.verification.judging import INT8_RMS, Int8Judge
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, InputError, ModelFileError, VerificationError
from rnncore.runtime.foreign.description import read_foreign
from rnncore.runtime.foreign.graph import read_graph
from rnncore.runtime.format.atomic import target_of
from rnncore.runtime.format.axes import BATCH, TIME, known_size, overlap_of, stride_of
from rnncore.runtime.format.container import FINGERPRINT_KEY, is_ort_format, metadata_of, replace_metadata, stamp
from rnncore.runtime.format.golden import GOLDEN_KEY, Golden, GoldenCase, StoredArray
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, PREFIX, Signature, StateSpec, TensorSpec
from rnncore.runtime.format.structure import Structure
from rnncore.runtime.model import Model, load
from rnncore.runtime.session.opening import Graph, open_session
from rnncore.runtime.verification import answer_of, compare, verify

STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "RNN": ("h",)}
"""States of ONNX's recurrent operators: inputs from the sixth on, outputs from the second on."""

TOLERANCE = 1e-4
_FIRST_STATE = 5
_SIZES = ((1, 5), (2, 17), (3, 64), (2, 1009))  # (batch, time); graphs with a long kernel in front take the last only
_GOLDEN_BYTES = 15_000
Array = np.ndarray


@dataclass(frozen=True)
class AdaptReport:
    """What :func:`adapt` wrote and how it was proved.

    lifted: the states that the file did not show before.  max_error: the largest difference from the file as it was.
    """

    path: Path
    signature: Signature
    lifted: tuple[str, ...]
    max_error: float

    def __str__(self) -> str:
        streams = "streams" if self.signature.causal else f"batch only ({self.signature.not_causal_because})"
        lifted = f"; states {', '.join(self.lifted)} are carried now" if self.lifted else ""
        return f"{self.path}: {streams}{lifted}; max error {self.max_error:.2g} from the file as it was"


def adapt(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    axes: Mapping[str, str] | None = None,
    quantized: bool = False,
) -> AdaptReport:
    """Write a file of rnncore from any ONNX file whose ``LSTM``, ``GRU`` and ``RNN`` nodes keep their states to themselves.

    Each such node starts from zeros at every call.  Its state becomes an input and an output of the file, and the answers to
    chunks are compared with those of the file as it was to the whole.  A file of rnncore that another tool has touched
    is asked its golden cases and, if it answers them, gets a new fingerprint: onnxruntime's optimiser, onnx's version
    converter and the like change nothing that can be measured.  Weights in other files come into the one that is written, and
    a file in onnxruntime's own format (``.ort``) becomes ONNX again.

    Args:
        source: the ONNX file.
        path: the file to write.  Nothing is written unless everything succeeds.
        axes: names of axes, as for :func:`rnncore.runtime.load`.
        quantized: the file of rnncore went through a quantiser, so that answers may be as far from the golden ones as those of
            ``export(quantize="int8")``, and are held to that from now on.

    Raises:
        ModelFileError: no ONNX file, or one that cannot be read as it is said.
        ExportError: there is no state to lift, or a node reads backward.
        VerificationError: chunks are not answered as the whole is, or golden cases not as they were.
    """
    file = Path(source)
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    data = file.read_bytes()
    if is_ort_format(data):  # whose weights are all inside
        data = onnx_of(data)
        metadata = metadata_of(data)
    else:
        metadata = metadata_of(data)
        data = in_one_file(file, data)
    with saving(target_of(path)) as temporary:  # which removes the second file of a model that was there before
        if any(key.startswith(PREFIX) for key in metadata):
            report = _stamped_again(data, metadata, temporary, quantized)
        elif quantized:
            raise InputError("quantized= is for files of rnncore: this one has no golden answers to be held to")
        else:
            report = _lifted(data, temporary, axes)
    return replace(report, path=Path(path))


def _stamped_again(data: bytes, metadata: Mapping[str, str], path: Path, quantized: bool) -> AdaptReport:
    entries = {FINGERPRINT_KEY: BLANK_FINGERPRINT}
    if quantized and GOLDEN_KEY in metadata:
        golden = Golden.from_json(metadata[GOLDEN_KEY])
        held = replace(golden, measure=Int8Judge.measure, tolerance=max(golden.tolerance, INT8_RMS))
        entries |= {GOLDEN_KEY: held.to_json(), PREFIX + "precision": "int8"}
    path.write_bytes(stamp(replace_metadata(data, entries)))
    model = load(path)
    report = verify(model)
    if not report.passed:
        raise VerificationError(f"the file was changed, and does not answer as at export any more:\n{report}")
    return AdaptReport(path, model.signature, (), report.max_error)


def _lifted(data: bytes, path: Path, axes: Mapping[str, str] | None) -> AdaptReport:
    model = ir.from_proto(_with_shapes(onnx.load_from_string(data)))
    states = {name: f"{name}.next" for name in _lift(model.graph)}
    lifted = ir.to_proto(model).SerializeToString()
    foreign = read_foreign(states, axes, None, None, None, 0)
    assert foreign is not None
    session = _session(lifted)
    signature = _own_signature(*read_graph(session, foreign))
    entries = {
        "format_version": str(signature.format_version),
        "signature": signature.to_json(),
        "form": "fused",
        "precision": "float32",
        "report": "{}",
        "fingerprint": BLANK_FINGERPRINT,
    }
    stamped = replace_metadata(lifted, {PREFIX + key: value for key, value in entries.items()})
    path.write_bytes(stamp(stamped))
    golden, worst = _proved(data, load(path), path)
    path.write_bytes(stamp(replace_metadata(stamped, {GOLDEN_KEY: golden.to_json()})))
    return AdaptReport(path, load(path).signature, tuple(states), worst)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with the names of axes inside, as far as they can be inferred: they tell which axis of x is the batch."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception as failure:  # an operator of somebody's own, say
        pass_on_interruption(failure)
        return model


def _batch_of(node: ir.Node) -> str:
    """The graph's name for the rows of a recurrent node, whose x is [time, batch, size]."""
    x = node.inputs[0]
    rows = None if x is None or x.shape is None or len(x.shape) != 3 else x.shape[1]
    name = getattr(rows, "value", None)
    return str(name) if name else BATCH


def _lift(graph: ir.Graph) -> list[str]:
    """Show the states of all recurrent nodes as inputs ``name`` and outputs ``name.next`` of the graph; returns the names."""
    names: list[str] = []
    for node in [n for n in graph if n.op_type in STATES and n.domain in ("", "ai.onnx")]:
        title = node.name or node.op_type.lower()
        direction = node.attributes["direction"].as_string() if "direction" in node.attributes else "forward"
        if direction != "forward":
            raise ExportError(f"node '{title}' reads {direction}: no state goes from one chunk to the next")
        if "layout" in node.attributes and node.attributes["layout"].as_int() != 0:
            raise ExportError(f"node '{title}' has layout=1, which onnxruntime does not run")
        size = node.attributes["hidden_size"].as_int()
        dtype = node.inputs[0].dtype if node.inputs[0] is not None and node.inputs[0].dtype else ir.DataType.FLOAT
        kinds = STATES[node.op_type]
        inputs = [*node.inputs, *[None] * (_FIRST_STATE + len(kinds) - len(node.inputs))]
        if any(
            value is not None and not always_zero(value) for value in inputs[_FIRST_STATE : _FIRST_STATE + len(kinds)]
        ):
            continue  # its state is the caller's, or starts from something
        if len(node.outputs) < 1 + len(kinds):
            node.resize_outputs(1 + len(kinds))
        if len(node.inputs) < len(inputs):
            node.resize_inputs(len(inputs))
        for k, kind in enumerate(kinds):
            name = _fresh(graph, f"{title}.{kind}", names)
            value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([1, _batch_of(node), size]))
            graph.inputs.append(value)
            node.replace_input_with(_FIRST_STATE + k, value)
            _expose(graph, node, node.outputs[1 + k], f"{name}.next", dtype, size)
            names.append(name)
    if not names:
        raise ExportError("no LSTM, GRU or RNN node of this file keeps a state to itself: load it with states= instead")
    return names


def _expose(graph: ir.Graph, node: ir.Node, final: ir.Value, name: str, dtype: ir.DataType, size: int) -> None:
    if final.is_graph_output():  # it has a name that callers know
        copy = ir.Node("", "Identity", [final], num_outputs=1)
        graph.insert_after(node, copy)
        final = copy.outputs[0]
    final.name, final.type, final.shape = name, ir.TensorType(dtype), ir.Shape([1, BATCH, size])
    graph.outputs.append(final)


def _fresh(graph: ir.Graph, name: str, taken: Sequence[str]) -> str:
    known = {str(value.name) for value in (*graph.inputs, *graph.outputs)} | set(taken)
    number, found = 0, name
    while found in known:
        number += 1
        found = f"{name}.{number}"
    return found


def _session(data: bytes) -> Any:
    """A session over a file that holds all its weights."""
    structure = Structure.of(data, Limits())
    if structure.outside:
        raise ExportError("the file reads weights from other files: write it as one file first, then adapt that")
    return open_session(Graph(data, {}, frozenset(), structure.foldable), threads=1, arena=True)


def _own_signature(signature: Signature, adapter: Any) -> Signature:
    """What the runtime learnt of the graph, in the order of the graph's own axes."""
    ports = {port.name: port for port in (*adapter.inputs, *adapter.outputs)}
    if adapter.alone:
        raise ExportError("the graph takes one sequence a call: load it as it is, with states=")
    if adapter.chunked:
        raise ExportError("the graph takes chunks of one size: load it as it is, with states= and chunk=")

    def own(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(replace(spec, shape=tuple(ports[spec.name].dims)) for spec in specs)

    states = tuple(
        StateSpec(state.name, state.output, state.dtype, prod(state.item_shape), None, state.shape)
        for state in signature.states
    )
    outputs = own(signature.outputs)
    shapes = [spec.shape for spec in outputs]
    found = replace(signature, inputs=own(signature.inputs), outputs=outputs, states=states, stride=stride_of(shapes))
    timed = all(spec.time_axis is not None for spec in outputs)
    return replace(found, overlap=overlap_of(shapes) or 0 if timed else 0)


def _proved(before: bytes, model: Model, path: Path) -> tuple[Golden, float]:
    """Golden cases of the file as it was, which ``model`` answers whole and in chunks, and its largest error."""
    session = _session(before)
    cases: list[GoldenCase] = []
    for number, (batch, steps) in enumerate(_SIZES):
        time = model.signature.overlap + -(-steps // model.signature.stride) * model.signature.stride
        chunks = tuple(n for n in (1, time // 2, time - 1 - time // 2) if n)
        for kind, rows in (("whole", batch), ("stream", 1)):
            inputs = _drawn(model.signature, rows, time, number)
            try:
                answers = session.run(list(model.outputs), inputs)
            except Exception as failure:
                pass_on_interruption(failure)
                continue  # too few steps for a convolution, say
            outputs = {
                name: StoredArray.of(value, value.nbytes + 1)
                for name, value in zip(model.outputs, answers, strict=True)
            }
            cases.append(GoldenCase(kind, rows, time, inputs, outputs, None, chunks if kind == "stream" else None))
    if not cases:
        raise ModelFileError(f"the file runs at none of the sizes {_SIZES} (batch, time) that were tried")
    golden = Golden(TOLERANCE, tuple(cases))
    report = compare(golden, answer_of(model), str(path), "rnncore.runtime")
    if not report.passed:
        raise VerificationError(f"whole or in chunks it does not answer as the file did:\n{report}")
    small = tuple(case for case in cases if _size_bytes(case) <= _GOLDEN_BYTES)
    return replace(golden, cases=small), report.max_error


def _drawn(signature: Signature, batch: int, time: int, seed: int) -> dict[str, Array]:
    """Random inputs in the order of the graph's axes; integers may be ids of any table, however small."""
    random = np.random.default_rng(seed)
    inputs = {}
    for spec in signature.inputs:
        shape = [known_size(size, {BATCH: batch, TIME: time}, 3) for size in spec.shape]
        dtype = np.dtype(spec.dtype)
        drawn = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        inputs[spec.name] = drawn.astype(dtype)
    return inputs


def _size_bytes(case: GoldenCase) -> int:
    arrays = [*case.inputs.values(), *(kept.values for kept in case.outputs.values())]
    return sum(array.nbytes for array in arrays)
