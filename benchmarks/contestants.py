"""What is compared: our exported files, torch, and onnxruntime's bare fused operator with the same weights."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import rnncore
from rnncore.export import export
from rnncore.runtime import Model, load

FOLDER = Path(tempfile.mkdtemp(prefix="rnncore-bench-"))


class Layer(nn.Module):
    """One recurrent layer whose only output is y."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.rnn = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0]


@cache
def torch_layer(kind: str, size: int) -> nn.Module:
    """torch.nn's LSTM, GRU or RNN with as many features as units, in eval mode."""
    torch.manual_seed(size)
    return Layer(getattr(nn, kind.upper())(size, size, batch_first=True)).eval()


def exported_path(kind: str, size: int, form: str) -> Path:
    """Where :func:`exported` has its file."""
    return FOLDER / f"{kind}-{size}-{form}.onnx"


@cache
def exported(kind: str, size: int, form: str) -> Model:
    """The same layer exported by rnncore and loaded by its runtime (one thread)."""
    path = exported_path(kind, size, form)
    export(torch_layer(kind, size), path, torch.randn(2, 5, size), form=form, streaming=True)
    return load(path)


@cache
def fused_session(kind: str, size: int) -> onnxruntime.InferenceSession:
    """onnxruntime's own LSTM, GRU or RNN operator on time-first input, same weights, states in and out; one thread."""
    layer = torch_layer(kind, size).rnn
    own = {name.removesuffix("_l0"): p.detach().numpy() for name, p in layer.named_parameters()}
    weights = rnncore.repack(own, kind, "torch", "onnx")  # type: ignore[arg-type]
    states = ["h", "c"] if kind == "lstm" else ["h"]
    node = helper.make_node(
        kind.upper(),
        ["x", "W", "R", "B", "", *states],
        ["y", *(f"{s}.next" for s in states)],
        hidden_size=size,
        **({"linear_before_reset": 1} if kind == "gru" else {}),
    )
    info = helper.make_tensor_value_info
    state_shape = [1, "batch", size]
    graph = helper.make_graph(
        [node],
        kind,
        [
            info("x", TensorProto.FLOAT, ["time", "batch", size]),
            *(info(s, TensorProto.FLOAT, state_shape) for s in states),
        ],
        [
            info("y", TensorProto.FLOAT, ["time", 1, "batch", size]),
            *(info(f"{s}.next", TensorProto.FLOAT, state_shape) for s in states),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(a[None]), name) for name, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def fused_feeds(kind: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs of :func:`fused_session` for x [batch, time, size]."""
    batch, _, size = x.shape
    states = ["h", "c"] if kind == "lstm" else ["h"]
    zeros = np.zeros((1, batch, size), np.float32)
    return {"x": np.ascontiguousarray(x.transpose(1, 0, 2)), **dict.fromkeys(states, zeros)}
