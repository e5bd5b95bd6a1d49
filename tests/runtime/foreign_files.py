"""Small ONNX files as other tools write them: one GRU, its arrays lying in the graph in any order of axes.

Inside every graph is ONNX's own GRU operator on [time, batch, features]; around it are transpositions.  The oracle is the
GRU of the ONNX specification in NumPy, for one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, H, LAYERS, CHUNK = 5, 6, 2, 7

# Onnx dtypes and sizes; None is a free axis without a name.
Sizes = dict[str, int | str | None]


@dataclass(frozen=True)
class Variant:
    """How the arrays lie.

    x, h, y: words for the axes, in the order of the graph.  ``layers hidden`` of the state is [2, 3]; without ``layers``
        it is [6].  An axis that is left out does not exist in the graph.
    batch, time: size in the graph, None or a name for a free one.  ``time`` may be a number.
    scale: there is a scalar input that multiplies the answers.
    dtype: of everything outside.
    """

    x: str = "batch time features"
    h: str = "layers batch hidden"
    y: str = "batch time hidden"
    batch: int | str | None = None
    time: int | str | None = None
    scale: bool = False
    dtype: str = "float32"


@cache
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(23)
    shapes = {"W": (1, 3 * H, FEATURES), "R": (1, 3 * H, H), "B": (1, 6 * H)}
    return {name: (rng.standard_normal(shape) * 0.5).astype(np.float32) for name, shape in shapes.items()}


def reference(x: np.ndarray, h: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [time, H] and last state [H] of one sequence [time, FEATURES], in float64."""
    w, r, b = (weights()[name][0].astype(np.float64) for name in "WRB")
    h = np.zeros(H) if h is None else h.astype(np.float64)
    y = np.zeros((len(x), H))
    for t, row in enumerate(x):
        (wz, wr, wh), (rz, rr, rh) = np.split(w @ row + b[: 3 * H], 3), np.split(r, 3)
        bz, br, bh = np.split(b[3 * H :], 3)
        z, reset = 1 / (1 + np.exp(-(wz + rz @ h + bz))), 1 / (1 + np.exp(-(wr + rr @ h + br)))
        h = (1 - z) * np.tanh(wh + reset * (rh @ h + bh)) + z * h
        y[t] = h
    return y, h


@cache
def foreign_file(variant: Variant = Variant()) -> bytes:
    """Bytes of a file without a word about rnncore."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(variant.dtype))
    sizes: Sizes = {"batch": variant.batch, "time": variant.time, "features": FEATURES, "layers": LAYERS}
    node = helper.make_node
    width = H // LAYERS if "layers" in variant.h else H
    constants = {"state_shape": np.array([1, -1, H]), "out_shape": np.array([-1, LAYERS, width]), "one": np.array([1])}
    nodes = [node("Cast", ["x"], ["x32"], to=TensorProto.FLOAT), node("Cast", ["h"], ["h32"], to=TensorProto.FLOAT)]
    nodes += _moved("x32", "x_in", variant.x, "time batch features")
    nodes += _moved("h32", "h_in", variant.h, "batch layers hidden" if "layers" in variant.h else "batch hidden")
    nodes += [
        node("Reshape", ["h_in", "state_shape"], ["h0"]),
        node("GRU", ["x_in", "W", "R", "B", "", "h0"], ["y4", "hn3"], hidden_size=H, linear_before_reset=1),
        node("Squeeze", ["y4", "one"], ["y3"]),
        node("Squeeze", ["hn3", "zero"], ["hn2"]),
        node("Reshape", ["hn2", "out_shape"], ["hn_split"])
        if "layers" in variant.h
        else node("Identity", ["hn2"], ["hn_split"]),
    ]
    nodes += _moved("hn_split", "hn32", "batch layers hidden" if "layers" in variant.h else "batch hidden", variant.h)
    nodes += _moved("y3", "y32", "time batch hidden", variant.y)
    nodes += [node("Cast", ["y32"], ["y_cast"], to=kind), node("Cast", ["hn32"], ["hn"], to=kind)]
    nodes.append(node("Mul", ["y_cast", "scale"], ["y"]) if variant.scale else node("Identity", ["y_cast"], ["y"]))
    state_shape = [(sizes | {"hidden": width})[word] for word in variant.h.split()]
    inputs = [
        helper.make_tensor_value_info("x", kind, [sizes[word] for word in variant.x.split()]),
        helper.make_tensor_value_info("h", kind, state_shape),
    ]
    if variant.scale:
        inputs.append(helper.make_tensor_value_info("scale", kind, []))
    out_shape = [(sizes | {"hidden": H})[word] for word in variant.y.split()]
    outputs = [
        helper.make_tensor_value_info("y", kind, out_shape),
        helper.make_tensor_value_info("hn", kind, state_shape),
    ]
    tensors = [
        numpy_helper.from_array(value, name)
        for name, value in (weights() | constants | {"zero": np.array([0])}).items()
    ]
    return serialized(helper.make_graph(nodes, "somebody", inputs, outputs, tensors))


@cache
def window_file(context: int) -> bytes:
    """[batch, CHUNK + context] samples -> y [batch, 1], the sum of the window weighted by position and of all before."""
    node = helper.make_node
    size = CHUNK + context
    nodes = [
        node("MatMul", ["samples", "weights"], ["now"]),
        node("Add", ["now", "total"], ["total_out"]),
        node("Mul", ["total_out", "factor"], ["y"]),
    ]
    values = {"weights": np.arange(1, size + 1, dtype=np.float32)[:, None] / size, "factor": np.float32(0.5)}
    info = helper.make_tensor_value_info
    inputs = [info("samples", TensorProto.FLOAT, [None, None]), info("total", TensorProto.FLOAT, [None, 1])]
    outputs = [info("y", TensorProto.FLOAT, [None, None]), info("total_out", TensorProto.FLOAT, [None, None])]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    return serialized(helper.make_graph(nodes, "window", inputs, outputs, tensors))


def window_reference(samples: np.ndarray, context: int) -> np.ndarray:
    """[steps * CHUNK] -> [steps, 1]."""
    padded = np.concatenate([np.zeros(context), samples.astype(np.float64)])
    size = CHUNK + context
    windows = [padded[at : at + size] for at in range(0, len(samples), CHUNK)]
    return 0.5 * np.cumsum([window @ np.arange(1, size + 1) / size for window in windows])[:, None]


def vad_file() -> bytes:
    """As silero-vad's: only at 16 kHz, in an If, [batch, 576] samples and a state [2, batch, 128]."""
    random, node, info = np.random.default_rng(1), helper.make_node, helper.make_tensor_value_info
    tensors = {
        "W": random.normal(0, 0.2, (576, 128)).astype(np.float32),
        "V": random.normal(0, 0.2, (128, 1)).astype(np.float32),
        "half": np.float32(0.5),
        "rate": np.array(16_000),
        "ends": np.array([0]),
    }
    right = helper.make_graph(
        [
            node("MatMul", ["input", "W"], ["x"]),
            node("Mul", ["state", "half"], ["kept"]),
            node("Add", ["x", "kept"], ["both"]),
            node("Tanh", ["both"], ["right_state"]),
        ],
        "right",
        [],
        [info("right_state", TensorProto.FLOAT, None)],
    )
    wrong = helper.make_graph([node("Neg", ["state"], ["no"])], "wrong", [], [info("no", TensorProto.FLOAT, None)])
    nodes = [
        node("Equal", ["sr", "rate"], ["known"]),
        node("If", ["known"], ["stateN"], then_branch=right, else_branch=wrong),
        node("ReduceMean", ["stateN", "ends"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "V"], ["logit"]),
        node("Sigmoid", ["logit"], ["output"]),
    ]
    inputs = [
        info("input", TensorProto.FLOAT, [None, None]),
        info("state", TensorProto.FLOAT, [2, None, 128]),
        info("sr", TensorProto.INT64, []),
    ]
    outputs = [info("output", TensorProto.FLOAT, [None, 1]), info("stateN", TensorProto.FLOAT, [None, None, None])]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    return serialized(helper.make_graph(nodes, "vad", inputs, outputs, initializers))


def serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _moved(source: str, target: str, words: str, wanted: str) -> list[onnx.NodeProto]:
    """From axes ``words`` to ``wanted``; axes that only one of them has are of size 1."""
    have, want = words.split(), wanted.split()
    missing = [word for word in want if word not in have]
    extra = [word for word in have if word not in want]
    all_words = [*have, *missing]
    order = [word for word in want] + extra
    nodes = []
    if missing:
        axes = numpy_helper.from_array(np.arange(len(have), len(all_words)), f"{target}_new")
        nodes.append(helper.make_node("Constant", [], [f"{target}_new"], value=axes))
        nodes.append(helper.make_node("Unsqueeze", [source, f"{target}_new"], [f"{target}_wide"]))
        source = f"{target}_wide"
    permutation = [all_words.index(word) for word in order]
    nodes.append(helper.make_node("Transpose", [source], [f"{target}_moved"], perm=permutation))
    if extra:
        axes = numpy_helper.from_array(np.arange(len(want), len(order)), f"{target}_old")
        nodes.append(helper.make_node("Constant", [], [f"{target}_old"], value=axes))
        nodes.append(helper.make_node("Squeeze", [f"{target}_moved", f"{target}_old"], [target]))
    else:
        nodes.append(helper.make_node("Identity", [f"{target}_moved"], [target]))
    return nodes
