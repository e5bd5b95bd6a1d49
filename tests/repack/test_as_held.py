"""Weights as people hold them: names of frameworks' files, directions, arrays of single gates, layouts of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnncore
from rnncore.runtime.errors import InputError
from rnncore.weight_layouts import LAYOUTS, OWN_GATES, WeightLayout
from tests.repack.test_repack import HIDDEN, INPUT, arrays_of, sigmoid
from tests.strategies import randomize
from tests.tolerances import fixed

Arrays = dict[str, np.ndarray]


def weights(kind: str, seed: int = 3, **options: Any) -> Arrays:
    make: Any = {"rnn": rnncore.RNNCell, "gru": rnncore.GRUCell, "lstm": rnncore.LSTMCell}[kind]
    return arrays_of(randomize(make(INPUT, HIDDEN, **options), seed))


def assert_equal(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("kind", OWN_GATES)
@pytest.mark.parametrize("pattern", ["{}_l0", "rnn.{}_l0", "encoder.rnn.{}_l1_reverse", "model/{}:0"])
def test_names_of_torch_and_paddle_files(kind: str, pattern: str) -> None:
    own = weights(kind)
    assert_equal(rnncore.repack({pattern.format(name): a for name, a in own.items()}, kind, "torch"), own)


def test_the_state_dict_of_a_torch_layer_goes_in() -> None:
    layer = torch.nn.LSTM(INPUT, HIDDEN, 2, proj_size=2)
    first = {name: a.numpy() for name, a in layer.state_dict().items() if name.endswith("_l0")}
    cell = rnncore.LSTMCell(INPUT, HIDDEN, projection=2)
    cell.load_state_dict({n: torch.from_numpy(a) for n, a in rnncore.repack(first, "lstm", "torch").items()})
    with pytest.raises(InputError, match="the weights are of l0, l1: hand in those of one layer and one direction"):
        rnncore.repack({name: a.numpy() for name, a in layer.state_dict().items()}, "lstm", "torch")


@pytest.mark.parametrize("kind", OWN_GATES)
@pytest.mark.parametrize("pattern", ["{}:0", "gru/gru_cell/{}:0", "layers/gru/cell/{}", "a/b.{}"])
def test_names_of_keras_files(kind: str, pattern: str) -> None:
    stored = rnncore.repack(weights(kind), kind, "torch", "keras")
    named = {pattern.format(name): array for name, array in stored.items()}
    assert_equal(rnncore.repack(named, kind, "keras", "keras"), stored)
    numbered = {f"layers/gru/cell/vars/{i}": stored[name] for i, name in enumerate(stored)}
    assert_equal(rnncore.repack(numbered, kind, "keras", "keras"), stored)


@pytest.mark.parametrize("kind", OWN_GATES)
def test_onnxs_axis_of_directions(kind: str) -> None:
    cell: Any = {"peephole": "current"} if kind == "lstm" else {}
    stored = rnncore.repack(weights(kind, learn_initial_state=True, **cell), kind, "torch", "onnx")
    with_axis = {name: array[None] for name, array in stored.items()}
    with_axis["initial_h"] = with_axis["initial_h"][None]  # [directions, batch, hidden]
    assert_equal(rnncore.repack(with_axis, kind, "onnx", "onnx"), stored)
    both = {**with_axis, "W": np.concatenate([with_axis["W"]] * 2)}
    with pytest.raises(InputError, match=r"^'W' holds 2 directions: hand in W\[0\] for the forward layer and W\[1\]"):
        rnncore.repack(both, kind, "onnx")


@pytest.mark.parametrize("kind", OWN_GATES)
@pytest.mark.parametrize("target", ["torch", "onnx", "paddle", "notes", "keras"])
def test_learned_states_go_along(kind: str, target: str) -> None:
    own = weights(kind, learn_initial_state=True)
    starts = {name: array for name, array in own.items() if name.startswith("initial_")}
    assert starts and {name: a.shape for name, a in starts.items()} == dict.fromkeys(starts, (HIDDEN,))
    there = rnncore.repack(own, kind, "torch", target)
    back = rnncore.repack(there, kind, target)
    assert_equal({name: back[name] for name in starts}, starts)
    assert_equal({name: there[name] for name in starts}, starts)


@pytest.mark.parametrize("kind", OWN_GATES)
def test_one_bias_of_two(kind: str) -> None:
    own = weights(kind)
    for left in ("bias_ih", "bias_hh"):
        wanted = {**own, left: np.zeros_like(own[left])}
        assert_equal(rnncore.repack({n: a for n, a in own.items() if n != left}, kind, "torch"), wanted)
    single = {"weight_ih": own["weight_ih"], "weight_hh": own["weight_hh"], "bias": own["bias_ih"]}
    if kind == "gru":
        with pytest.raises(
            InputError, match="name it 'bias_ih', beside the input, or 'bias_hh', inside the reset gate"
        ):
            rnncore.repack(single, kind, "torch")
    else:
        assert_equal(rnncore.repack(single, kind, "torch"), {**own, "bias_hh": np.zeros_like(own["bias_hh"])})
    assert "bias_ih" not in rnncore.repack({n: a for n, a in own.items() if "bias" not in n}, kind, "torch")


def test_keras_1_kept_an_array_for_each_gate() -> None:
    """The equations of keras.layers.LSTM of version 1.2: ``z_i = dot(x, W_i) + b_i``, and so on."""
    random = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {"W": (INPUT, HIDDEN), "U": (HIDDEN, HIDDEN), "b": (HIDDEN,)}
    stored = {f"{part}_{gate}": random.normal(size=shape) for part, shape in shapes.items() for gate in "ifco"}
    x, h, c = random.normal(size=(2, INPUT)), random.normal(size=(2, HIDDEN)), random.normal(size=(2, HIDDEN))
    i, f, g, o = (x @ stored[f"W_{gate}"] + h @ stored[f"U_{gate}"] + stored[f"b_{gate}"] for gate in "ifco")
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    cell = rnncore.LSTMCell(INPUT, HIDDEN).double()
    own = rnncore.repack(
        {f"lstm_1_{name}:0".replace("lstm_1_", "lstm_1/"): a for name, a in stored.items()}, "lstm", "keras1"
    )
    cell.load_state_dict({name: torch.from_numpy(array) for name, array in own.items()})
    with torch.no_grad():
        got = cell.step(cell.project(torch.from_numpy(x)), torch.from_numpy(h), torch.from_numpy(c))[0]
    np.testing.assert_allclose(got.numpy(), sigmoid(o) * np.tanh(new_c), atol=fixed("float64"))
    del stored["U_f"], stored["U_o"]
    with pytest.raises(InputError, match="'U_f', 'U_o' missing beside the other gates"):
        rnncore.repack(stored, "lstm", "keras1")


@pytest.mark.parametrize("origin_mode", [False, True])
def test_paddles_old_operator(origin_mode: bool) -> None:
    """fluid.layers.dynamic_gru, with its recurrent weights as its kernels read them: two matrices in one buffer."""
    random = np.random.default_rng(5)
    buffer = random.normal(size=3 * HIDDEN * HIDDEN)
    gates = buffer[: 2 * HIDDEN * HIDDEN].reshape(HIDDEN, 2 * HIDDEN)
    candidate = buffer[2 * HIDDEN * HIDDEN :].reshape(HIDDEN, HIDDEN)
    w, bias = random.normal(size=(INPUT, 3 * HIDDEN)), random.normal(size=(1, 3 * HIDDEN))
    x, h = random.normal(size=(2, INPUT)), random.normal(size=(2, HIDDEN))
    x_u, x_r, x_c = np.split(x @ w + bias, 3, axis=1)
    h_u, h_r = np.split(h @ gates, 2, axis=1)
    u, r = sigmoid(x_u + h_u), sigmoid(x_r + h_r)
    c = np.tanh(x_c + (r * h) @ candidate)
    expected = u * h + (1 - u) * c if origin_mode else (1 - u) * h + u * c
    layout = LAYOUTS["paddle_fluid"]
    if origin_mode:
        layout = WeightLayout(**{**vars(layout), "inverted_update": False})
    held = {"weight_ih": w, "weight_hh": buffer.reshape(HIDDEN, 3 * HIDDEN), "bias": bias}
    own = rnncore.repack(held, "gru", layout if origin_mode else "paddle_fluid")
    cell = rnncore.GRUCell(INPUT, HIDDEN, reset="before").double()
    cell.load_state_dict({name: torch.from_numpy(array) for name, array in own.items()})
    with torch.no_grad():
        got = cell.step(cell.project(torch.from_numpy(x)), torch.from_numpy(h))[0]
    np.testing.assert_allclose(got.numpy(), expected, atol=fixed("float64"))


@given(
    st.permutations("rzn"), st.booleans(), st.sampled_from(["two", "joined", "rows"]), st.booleans(), st.integers(0, 9)
)
def test_layouts_of_ones_own(gates: list[str], transposed: bool, bias: Any, apart: bool, seed: int) -> None:
    names = ("in_{}", "rec_{}", "b_{}", "c_{}" if bias == "two" else None) if apart else ("in", "rec", "b", "c")
    if bias != "two":
        names = (*names[:2], "b", None)
    layout = WeightLayout(
        {"gru": "".join(gates)},
        names,  # type: ignore[arg-type]
        transposed=transposed,
        bias=bias,
        gate_names={"gru": {"z": "update", "r": "reset", "n": "new"}},
        peephole=("no peephole", "ifo"),
    )
    own = weights("gru", seed)
    there = rnncore.repack(own, "gru", "torch", layout)
    assert ("in_update" in there) == apart and there["in_new" if apart else "in"].shape == (
        (INPUT, HIDDEN * (1 if apart else 3))[:: 1 if transposed else -1]
    )
    assert_equal(rnncore.repack(there, "gru", layout), own)


@pytest.mark.parametrize("layout", ["torch", "onnx", "keras", "paddle", "notes"])
@pytest.mark.parametrize("kind", OWN_GATES)
def test_every_array_has_the_shape_that_the_others_ask_for(layout: str, kind: str) -> None:
    """One row or column more or less in any of them is refused by its name."""
    stored = rnncore.repack(weights(kind), kind, "torch", layout)
    for name, array in stored.items():
        if array is stored[LAYOUTS[layout].names[0]]:
            continue
        for wrong in (
            np.concatenate([array, array[-1:]]),
            array[:-1],
            np.stack([array, array, array]),
            array[..., :-1],
        ):
            with pytest.raises(InputError, match=f"'{name}'"):
                rnncore.repack({**stored, name: wrong}, kind, layout)
    w, r, *_ = LAYOUTS[layout].names
    with pytest.raises(InputError):
        rnncore.repack({**stored, w: stored[r][..., None]}, kind, layout)


REFUSED: list[tuple[Arrays, str, Any, Any, str]] = [
    (
        {"a/kernel": np.ones((2, 9)), "b/kernel": np.ones((2, 9))},
        "gru",
        "keras",
        "torch",
        "both 'a/kernel' and 'b/kernel'",
    ),
    ({"3": np.ones(2)}, "gru", "keras", "torch", "unknown name '3'"),
    ({}, "gru", 7, "torch", "source is 7, expected a WeightLayout or one of 'torch'"),
    ({}, "lstm", "paddle_fluid", "torch", "source has no gates for a layer of kind 'lstm'"),
    ({}, "gru", WeightLayout({"gru": "zr"}, ("a", "b", "c", "d")), "torch", "source has the gates 'zr'"),
    ({}, "gru", "torch", "paddle_fluid", "paddle_fluid can be read, not written"),
    (
        {"weight_ih": np.float32(1), "weight_hh": np.ones((9, 3))},
        "gru",
        "torch",
        "torch",
        "'weight_ih' is a single number",
    ),
    (
        {"weight_ih": np.ones((9, 2)), "weight_hh": np.ones((9, 4))},
        "gru",
        "torch",
        "torch",
        "'weight_hh' has shape [9, 4], expected [9, 3]",
    ),
    (
        {"kernel": np.ones((2, 9)), "recurrent_kernel": np.ones((4, 9))},
        "gru",
        "keras",
        "torch",
        "'recurrent_kernel' has shape [4, 9], expected [3, 9]",
    ),
    (
        {"weight_ih": np.ones((9, 2)), "weight_hh": np.ones((9, 3)), "weight_hr": np.ones((3, 3))},
        "gru",
        "torch",
        "torch",
        "'weight_hr' belongs to an LSTM, the kind is 'gru'",
    ),
    (
        {"weight_ih": np.ones((4, 2)), "weight_hh": np.ones((4, 1)), "initial_h": np.ones((5, 1))},
        "lstm",
        "torch",
        "torch",
        "'initial_h' has shape [5, 1], expected [1]",
    ),
]


@pytest.mark.parametrize(
    ("held", "kind", "source", "target", "message"), REFUSED, ids=[case[-1][:30] for case in REFUSED]
)
def test_refusals(held: Arrays, kind: Any, source: Any, target: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        rnncore.repack(held, kind, source, target)
    assert message in str(caught.value)
