"""repack: ONNX layouts against onnxruntime's own operators, Keras's against Keras's equations, the rest as round trips."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import rnncore
from rnncore.runtime.errors import InputError
from rnncore.weight_layouts import LAYOUTS, OWN_GATES
from tests.strategies import randomize
from tests.tolerances import fixed

INPUT, HIDDEN, BATCH, TIME = 3, 5, 2, 7
FLOAT = TensorProto.FLOAT

CELLS = {
    "rnn": lambda: rnncore.RNNCell(INPUT, HIDDEN),
    "gru": lambda: rnncore.GRUCell(INPUT, HIDDEN),
    "gru_before": lambda: rnncore.GRUCell(INPUT, HIDDEN, reset="before"),
    "lstm": lambda: rnncore.LSTMCell(INPUT, HIDDEN),
    "lstm_peephole": lambda: rnncore.LSTMCell(INPUT, HIDDEN, peephole="current"),
}


def kind_of(name: str) -> str:
    return name.partition("_")[0]


def arrays_of(cell: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}


def run_operator(kind: str, weights: dict[str, np.ndarray], x: np.ndarray, states: list[np.ndarray], **attributes):
    """onnxruntime's fused RNN, GRU or LSTM on x [time, batch, input]."""
    names = ["x", "W", "R", "B", "", "h", "c", "P"]
    values = {name: a[None] for name, a in weights.items()}
    values |= {"x": x, "h": states[0][None]} | ({"c": states[1][None]} if len(states) > 1 else {})
    inputs = [name if name in values else "" for name in names][: 8 if "P" in values else 5 + len(states)]
    node = helper.make_node(kind.upper(), inputs, ["y"], hidden_size=HIDDEN, **attributes)
    graph = helper.make_graph(
        [node],
        "operator",
        [helper.make_tensor_value_info(name, FLOAT, a.shape) for name, a in values.items()],
        [helper.make_tensor_value_info("y", FLOAT, (TIME, 1, BATCH, HIDDEN))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, values)[0][:, 0]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_onnx_layout_drives_onnxruntimes_operators(name: str, reverse: bool) -> None:
    cell = randomize(CELLS[name](), seed=3)
    random = np.random.default_rng(5)
    x = random.normal(size=(BATCH, TIME, INPUT)).astype(np.float32)
    states = [random.normal(size=(BATCH, size)).astype(np.float32) for size in cell.state_sizes.values()]
    attributes = {"direction": "reverse"} if reverse else {}
    if name == "gru":
        attributes["linear_before_reset"] = 1
    weights = rnncore.repack(arrays_of(cell), kind_of(name), "torch", "onnx")
    got = run_operator(kind_of(name), weights, x.transpose(1, 0, 2), states, **attributes)
    layer = rnncore.Recurrent(cell, reverse=reverse)
    with torch.no_grad():
        expected, _ = layer(torch.from_numpy(x), tuple(torch.from_numpy(s) for s in states))
    np.testing.assert_allclose(got.transpose(1, 0, 2), expected.numpy(), atol=fixed("float32 same steps"))


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def test_keras_lstm_kernels_give_keras_equations() -> None:
    random = np.random.default_rng(7)
    kernel, recurrent = random.normal(size=(INPUT, 4 * HIDDEN)), random.normal(size=(HIDDEN, 4 * HIDDEN))
    bias, x = random.normal(size=4 * HIDDEN), random.normal(size=(BATCH, INPUT))
    h, c = random.normal(size=(BATCH, HIDDEN)), random.normal(size=(BATCH, HIDDEN))
    i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)  # Keras: "i, f, c, o"
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    expected = sigmoid(o) * np.tanh(new_c)
    cell = rnncore.LSTMCell(INPUT, HIDDEN).double()
    own = rnncore.repack({"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}, "lstm", "keras")
    cell.load_state_dict({n: torch.from_numpy(a) for n, a in own.items()})
    with torch.no_grad():
        got, _, got_c = cell.step(cell.project(torch.from_numpy(x)), torch.from_numpy(h), torch.from_numpy(c))
    np.testing.assert_allclose(got.numpy(), expected, atol=fixed("float64"))
    np.testing.assert_allclose(got_c.numpy(), new_c, atol=fixed("float64"))


def test_keras_gru_with_reset_after_gives_keras_equations() -> None:
    random = np.random.default_rng(11)
    kernel, recurrent = random.normal(size=(INPUT, 3 * HIDDEN)), random.normal(size=(HIDDEN, 3 * HIDDEN))
    bias, x, h = (
        random.normal(size=(2, 3 * HIDDEN)),
        random.normal(size=(BATCH, INPUT)),
        random.normal(size=(BATCH, HIDDEN)),
    )
    xz, xr, xh = np.split(x @ kernel + bias[0], 3, axis=1)  # Keras: "z, r, h"
    hz, hr, hh = np.split(h @ recurrent + bias[1], 3, axis=1)
    z = sigmoid(xz + hz)
    expected = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh)
    cell = rnncore.GRUCell(INPUT, HIDDEN).double()
    own = rnncore.repack({"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}, "gru", "keras")
    cell.load_state_dict({n: torch.from_numpy(a) for n, a in own.items()})
    with torch.no_grad():
        got = cell.step(cell.project(torch.from_numpy(x)), torch.from_numpy(h))[0]
    np.testing.assert_allclose(got.numpy(), expected, atol=fixed("float64"))


def test_notes_update_gate_weighs_the_new_value() -> None:
    cell = randomize(rnncore.GRUCell(INPUT, HIDDEN, reset="before").double(), seed=13)
    notes = rnncore.repack(arrays_of(cell), "gru", "torch", "notes")
    random = np.random.default_rng(17)
    x, c = random.normal(size=(BATCH, INPUT)), random.normal(size=(BATCH, HIDDEN))
    w_r, w_u, w_c = np.split(notes["weight_ih"], 3)
    v_r, v_u, v_c = np.split(notes["weight_hh"], 3)
    b_r, b_u, b_c = np.split(notes["bias_ih"] + notes["bias_hh"], 3)
    gate_u = sigmoid(x @ w_u.T + c @ v_u.T + b_u)
    gate_r = sigmoid(x @ w_r.T + c @ v_r.T + b_r)
    candidate = np.tanh(x @ w_c.T + (gate_r * c) @ v_c.T + b_c)
    with torch.no_grad():
        got = cell.step(cell.project(torch.from_numpy(x)), torch.from_numpy(c))[0]
    np.testing.assert_allclose(got.numpy(), gate_u * candidate + (1 - gate_u) * c, atol=fixed("float64"))


@given(
    st.sampled_from(["torch", "onnx", "paddle", "notes", "keras", "keras1"]),
    st.sampled_from(list(CELLS)),
    st.integers(0, 99),
)
def test_there_and_back_changes_nothing(target: str, name: str, seed: int) -> None:
    own = arrays_of(randomize(CELLS[name](), seed))
    kind = kind_of(name)
    if target == "keras1" and kind == "gru":  # one bias a gate
        with pytest.raises(InputError, match="a bias of a GRU beside its state has no place in this layout"):
            rnncore.repack(own, kind, "torch", target)
        own = {**own, "bias_hh": np.zeros_like(own["bias_hh"])}
    back = rnncore.repack(rnncore.repack(own, kind, "torch", target), kind, target)
    if target in ("keras", "keras1") and kind != "gru":  # Keras keeps the sum of both biases
        own = {**own, "bias_ih": own["bias_ih"] + own["bias_hh"], "bias_hh": np.zeros_like(own["bias_hh"])}
    assert back.keys() == own.keys()
    for key, value in own.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_cudnn_storage_holds_the_transposed_kernels_of_each_gate() -> None:
    random = np.random.default_rng(19)
    plain = {
        "kernel": random.normal(size=(INPUT, 3 * HIDDEN)),
        "recurrent_kernel": random.normal(size=(HIDDEN, 3 * HIDDEN)),
    }
    stored = {
        "kernel": np.hstack([k.reshape(k.T.shape, order="F").T for k in np.hsplit(plain["kernel"], 3)]),
        "recurrent_kernel": np.hstack([k.T for k in np.hsplit(plain["recurrent_kernel"], 3)]),
        "bias": random.normal(size=6 * HIDDEN),
    }
    plain["bias"] = stored["bias"].reshape(2, -1)
    expected, got = rnncore.repack(plain, "gru", "keras"), rnncore.repack(stored, "gru", "keras_cudnn")
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_cudnn_storage_is_what_cudnn_reads(kind: str) -> None:
    """Keras hands cuDNN each gate's part of the kernel as a flat buffer, which cuDNN reads as [units, inputs]."""
    random, gates = np.random.default_rng(29), len(OWN_GATES[kind])
    stored = {
        "kernel": random.normal(size=(INPUT, gates * HIDDEN)),
        "recurrent_kernel": random.normal(size=(HIDDEN, gates * HIDDEN)),
        "bias": random.normal(size=2 * gates * HIDDEN),
    }
    x, h, c = random.normal(size=INPUT), random.normal(size=HIDDEN), random.normal(size=HIDDEN)
    w = [part.ravel().reshape(HIDDEN, INPUT) @ x for part in np.hsplit(stored["kernel"], gates)]
    r = [part.ravel().reshape(HIDDEN, HIDDEN) @ h for part in np.hsplit(stored["recurrent_kernel"], gates)]
    b, b2 = (np.split(part, gates) for part in np.split(stored["bias"], 2))
    if kind == "lstm":
        i, f, g, o = (w[k] + r[k] + b[k] + b2[k] for k in range(4))
        expected = sigmoid(o) * np.tanh(sigmoid(f) * c + sigmoid(i) * np.tanh(g))
        cell, state = rnncore.LSTMCell(INPUT, HIDDEN).double(), (h, c)
    else:
        z, reset = (sigmoid(w[k] + r[k] + b[k] + b2[k]) for k in range(2))
        expected = z * h + (1 - z) * np.tanh(w[2] + b[2] + reset * (r[2] + b2[2]))
        cell, state = rnncore.GRUCell(INPUT, HIDDEN).double(), (h,)
    own = rnncore.repack(stored, kind, "keras_cudnn")
    cell.load_state_dict({name: torch.from_numpy(array) for name, array in own.items()})
    with torch.no_grad():
        z_t = cell.project(torch.from_numpy(x[None]))
        got = cell.step(z_t, *(torch.from_numpy(value[None]) for value in state))[0]
    np.testing.assert_allclose(got.numpy()[0], expected, atol=fixed("float64"))


@pytest.mark.parametrize(
    ("weights", "kind", "source", "target", "message"),
    [
        ({}, "lsmt", "torch", "torch", "kind is 'lsmt', expected one of 'rnn', 'gru', 'lstm'"),
        ({}, "lstm", "tensorflow", "torch", "source is 'tensorflow'"),
        ({"W": np.ones((8, 2))}, "lstm", "onnx", "torch", "'R' is missing from the onnx weights"),
        ({"W": np.ones((8, 2)), "R": np.ones((8, 2)), "Q": np.ones(2)}, "lstm", "onnx", "torch", "unknown name 'Q'"),
        (
            {"W": np.ones((7, 2)), "R": np.ones((8, 2))},
            "lstm",
            "onnx",
            "torch",
            "'W' has 7 rows, expected a multiple of 4",
        ),
        ({}, "lstm", "torch", "keras_cudnn", "can be read, not written"),
    ],
)
def test_refusals_say_what_was_expected(weights, kind, source, target, message) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        rnncore.repack(weights, kind, source, target)


def test_every_layout_names_every_gate_once() -> None:
    for layout in LAYOUTS.values():
        for kind, letters in layout.gates.items():
            assert sorted(letters) == sorted(OWN_GATES[kind])
