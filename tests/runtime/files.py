"""Small model files with explicit loops, built by hand, and the same equations in NumPy.

One architecture with switches.  From step to step, with states c [7] and h [5]:

    z_t = x_t W  (+ speaker S)          x_t is a table row when the model takes ids
    c_t = 0.5 c_{t-1} + z_t + h_{t-1} U
    h_t = tanh(c_t P)
    y_t = h_t V + b                     b makes padded steps non-zero, so leaks are seen
    last = c_T L                        one value for the whole sequence
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rnncore.runtime.format.container import stamp
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, FORMAT_VERSION, Signature, StateSpec, TensorSpec

FEATURES, IDS, SPEAKER, C, H, OUT, LAST = 13, 17, 3, 7, 5, 11, 2


@dataclass(frozen=True)
class Spec:
    """Which variant to build."""

    lengths: bool = False
    ids: bool = False
    speaker: bool = False
    last: bool = False
    learned: bool = False
    time_major: bool = False
    limit: bool = False
    open_width: bool = False

    def __str__(self) -> str:
        return "-".join(name for name, on in vars(self).items() if on) or "plain"


ALL = (
    Spec(),
    Spec(lengths=True),
    Spec(lengths=True, learned=True, last=True, speaker=True),
    Spec(ids=True, learned=True, limit=True),
    Spec(ids=True, lengths=True, last=True),
    Spec(last=True, time_major=True),
    Spec(lengths=True, time_major=True, speaker=True, open_width=True),
    Spec(learned=True, open_width=True),
)


def weights() -> dict[str, np.ndarray]:
    """The same numbers for every variant."""
    rng = np.random.default_rng(20_11)

    def matrix(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.4).astype(np.float32)

    return {
        "W": matrix(FEATURES, C),
        "E": matrix(IDS, FEATURES),
        "S": matrix(SPEAKER, C),
        "U": matrix(H, C),
        "P": matrix(C, H),
        "V": matrix(H, OUT),
        "b": matrix(OUT),
        "L": matrix(C, LAST),
        "c0": matrix(C),
        "h0": matrix(H),
    }


def initial(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    w = weights()
    return (w["c0"], w["h0"]) if spec.learned else (w["c0"] * 0, w["h0"] * 0)


def reference(spec: Spec, item: np.ndarray, speaker: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """One sequence, [time, features] or ids [time], in float64; outputs as the model names them, time first."""
    w = {name: value.astype(np.float64) for name, value in weights().items()}
    c, h = (value.astype(np.float64) for value in initial(spec))
    x = w["E"][item] if spec.ids else item
    y = np.zeros((len(x), OUT))
    for t in range(len(x)):
        z = x[t] @ w["W"] + (speaker @ w["S"] if spec.speaker else 0)
        c = 0.5 * c + z + h @ w["U"]
        h = np.tanh(c @ w["P"])
        y[t] = h @ w["V"] + w["b"]
    return {"y": y, "last": c @ w["L"]} if spec.last else {"y": y}


def signature(spec: Spec) -> Signature:
    axes: tuple[str, ...] = ("time", "batch") if spec.time_major else ("batch", "time")
    if spec.ids:
        main = TensorSpec("ids", "int64", axes, IDS if spec.limit else None)
    else:
        main = TensorSpec("x", "float32", (*axes, FEATURES))
    starts = [StateSpec.encode_initial(value) for value in initial(spec)]
    return Signature(
        inputs=(main, TensorSpec("speaker", "float32", ("batch", SPEAKER))) if spec.speaker else (main,),
        outputs=(
            TensorSpec("y", "float32", (*axes, "width" if spec.open_width else OUT)),
            *([TensorSpec("last", "float32", ("batch", LAST))] if spec.last else []),
        ),
        lengths=TensorSpec("lengths", "int64", ("batch",)) if spec.lengths else None,
        states=(StateSpec("c", "c_out", "float32", C, starts[0]), StateSpec("h", "h_out", "float32", H, starts[1])),
        causal=True,
    )


@cache
def causal_file(spec: Spec = Spec()) -> bytes:
    """Bytes of a causal model."""
    return finish(causal_graph(spec), signature(spec))


def causal_graph(spec: Spec) -> onnx.GraphProto:
    sig = signature(spec)
    node = helper.make_node
    main = sig.inputs[0].name
    nodes = [node("Gather", ["E", main], ["rows"])] if spec.ids else [node("Identity", [main], ["rows"])]
    perm = [0, 1, 2] if spec.time_major else [1, 0, 2]
    nodes += [
        node("Transpose", ["rows"], ["by_time"], perm=perm),
        node("MatMul", ["by_time", "W"], ["zx"]),
        node("MatMul", ["speaker", "S"], ["zs"]) if spec.speaker else node("Identity", ["c"], ["unused"]),
        node("Add", ["zx", "zs"], ["z"]) if spec.speaker else node("Identity", ["zx"], ["z"]),
        node("Shape", ["z"], ["steps_1"], start=0, end=1),
        node("Squeeze", ["steps_1"], ["steps"]),
        node("Loop", ["steps", "true", "c", "h"], ["c_out", "h_out", "hs"], body=_body(spec)),
        node("MatMul", ["hs", "V"], ["hv"]),
        node("Add", ["hv", "b"], ["y_by_time"]),
        node("Transpose", ["y_by_time"], ["y_full"], perm=perm),
    ]
    nodes += _open_width(main) if spec.open_width else [node("Identity", ["y_full"], ["y"])]
    if spec.last:
        nodes.append(node("MatMul", ["c_out", "L"], ["last"]))
    tensors = [numpy_helper.from_array(value, name) for name, value in weights().items() if name not in ("c0", "h0")]
    tensors += [numpy_helper.from_array(np.array(True), "true"), numpy_helper.from_array(np.float32(0.5), "half")]
    if spec.open_width:
        constants = {"nought": np.float32(0), "out_1": np.array([OUT]), "zero_1": np.array([0]), "two_1": np.array([2])}
        tensors += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [_value(port) for port in sig.inputs] + [_state_value(s.name, s.size) for s in sig.states]
    if sig.lengths is not None:
        inputs.append(_value(sig.lengths))
    outputs = [_value(port) for port in sig.outputs] + [_state_value(s.output, s.size) for s in sig.states]
    return helper.make_graph(nodes, "causal", inputs, outputs, tensors)


def _open_width(main: str) -> list[onnx.NodeProto]:
    """All of y_full, by a slice whose end comes from the input: nobody can tell the width before a run."""
    node = helper.make_node
    return [
        node("ReduceMax", [main], ["top"], keepdims=0),
        node("Mul", ["top", "nought"], ["nothing"]),
        node("Cast", ["nothing"], ["nothing_int"], to=TensorProto.INT64),
        node("Add", ["nothing_int", "out_1"], ["end"]),
        node("Slice", ["y_full", "zero_1", "end", "two_1"], ["y"]),
    ]


def _body(spec: Spec) -> onnx.GraphProto:
    node = helper.make_node
    nodes = [
        node("Gather", ["z", "t"], ["z_t"], axis=0),
        node("Mul", ["c_old", "half"], ["c_half"]),
        node("MatMul", ["h_old", "U"], ["hu"]),
        node("Add", ["c_half", "z_t"], ["cz"]),
        node("Add", ["cz", "hu"], ["c_free"]),
        node("MatMul", ["c_free", "P"], ["cp"]),
        node("Tanh", ["cp"], ["h_free"]),
        node("Identity", ["go_on"], ["go_on_out"]),
    ]
    if spec.lengths:
        nodes += [
            node("Less", ["t", "lengths"], ["valid_1"]),
            node("Unsqueeze", ["valid_1", "axis_1"], ["valid"]),
            node("Where", ["valid", "c_free", "c_old"], ["c_new"]),
            node("Where", ["valid", "h_free", "h_old"], ["h_new"]),
            node("Constant", [], ["axis_1"], value_ints=[1]),
        ]
        nodes.insert(0, nodes.pop())
    else:
        nodes += [node("Identity", ["c_free"], ["c_new"]), node("Identity", ["h_free"], ["h_new"])]
    nodes.append(node("Identity", ["h_new"], ["h_step"]))
    t = helper.make_tensor_value_info("t", TensorProto.INT64, [])
    flags = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("go_on", "go_on_out")]
    ins = [t, flags[0], _state_value("c_old", C), _state_value("h_old", H)]
    outs = [flags[1], _state_value("c_new", C), _state_value("h_new", H), _state_value("h_step", H)]
    return helper.make_graph(nodes, "step", ins, outs)


@cache
def counting_file() -> bytes:
    """Without a state; ``count`` is the lengths input itself, so that one too many or too few is seen."""
    node = helper.make_node
    x, y = TensorSpec("x", "float32", ("batch", "time", FEATURES)), TensorSpec("y", "float32", ("batch", "time", C))
    count, lengths = TensorSpec("count", "int64", ("batch", 1)), TensorSpec("lengths", "int64", ("batch",))
    nodes = [node("MatMul", ["x", "W"], ["y"]), node("Unsqueeze", ["lengths", "axis_1"], ["count"])]
    tensors = [numpy_helper.from_array(weights()["W"], "W"), numpy_helper.from_array(np.array([1]), "axis_1")]
    graph = helper.make_graph(nodes, "counting", [_value(x), _value(lengths)], [_value(y), _value(count)], tensors)
    return finish(graph, Signature((x,), (y, count), lengths, causal=True))


@cache
def not_causal_file(with_lengths: bool = False) -> bytes:
    """y = xW minus its mean over the valid time steps: every step needs the whole sequence."""
    node = helper.make_node
    x, y = TensorSpec("x", "float32", ("batch", "time", FEATURES)), TensorSpec("y", "float32", ("batch", "time", C))
    lengths = TensorSpec("lengths", "int64", ("batch",)) if with_lengths else None
    nodes = [node("MatMul", ["x", "W"], ["z"])]
    if with_lengths:
        nodes += [
            node("Shape", ["z"], ["steps_1"], start=1, end=2),
            node("Squeeze", ["steps_1"], ["steps"]),
            node("Range", ["zero", "steps", "one"], ["ts"]),
            node("Unsqueeze", ["lengths", "axis_1"], ["n"]),
            node("Less", ["ts", "n"], ["valid_2"]),
            node("Unsqueeze", ["valid_2", "axis_2"], ["valid"]),
            node("Cast", ["valid"], ["mask"], to=TensorProto.FLOAT),
            node("Mul", ["z", "mask"], ["masked"]),
            node("ReduceSum", ["masked", "axis_1"], ["total"], keepdims=1),
            node("Max", ["n", "one"], ["n_safe"]),
            node("Unsqueeze", ["n_safe", "axis_2"], ["n_3"]),
            node("Cast", ["n_3"], ["count"], to=TensorProto.FLOAT),
            node("Div", ["total", "count"], ["mean"]),
        ]
    else:
        nodes.append(node("ReduceMean", ["z", "axis_1"], ["mean"], keepdims=1))
    nodes.append(node("Sub", ["z", "mean"], ["y"]))
    constants = {"axis_1": np.array([1]), "axis_2": np.array([2]), "zero": np.array(0), "one": np.array(1)}
    tensors = [numpy_helper.from_array(value, name) for name, value in ({"W": weights()["W"]} | constants).items()]
    inputs = [_value(x)] + ([_value(lengths)] if lengths else [])
    graph = helper.make_graph(nodes, "not_causal", inputs, [_value(y)], tensors)
    reason = "layer 'encoder.rnn' reads its input backwards"
    return finish(graph, Signature((x,), (y,), lengths, not_causal_because=reason))


def not_causal_reference(item: np.ndarray) -> np.ndarray:
    z = item.astype(np.float64) @ weights()["W"].astype(np.float64)
    return z - z.mean(axis=0, keepdims=True) if len(z) else z


def finish(graph: onnx.GraphProto, sig: Signature, *, stamped: bool = True, **metadata: str | None) -> bytes:
    """A whole file: graph, metadata and fingerprint.  ``metadata`` overrides entries; None leaves one out."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entries = {
        "format_version": str(FORMAT_VERSION),
        "signature": sig.to_json(),
        "form": "loop",
        "precision": "float32",
        "report": json.dumps({"max_abs_error": 1e-7}),
        "fingerprint": BLANK_FINGERPRINT,
        **metadata,
    }
    for key, value in entries.items():
        if value is not None:
            model.metadata_props.add(key=f"rnncore.{key}", value=value)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    return stamp(data) if stamped else data


def _value(port: TensorSpec) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, kind, list(port.shape))


def _state_value(name: str, size: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
