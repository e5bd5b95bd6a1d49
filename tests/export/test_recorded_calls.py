"""What stands in for recurrent layers while a module is traced, which layer answers which call, and names and axes of a trace."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from rnncore import CausalConv1d, Recurrent
from rnncore.cells import GRUCell
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import Operators, find_operators
from rnncore.export.tracing.passing_states import PassingStates
from rnncore.export.tracing.recorder import PlaceholderRecorder, _check_advance
from rnncore.export.tracing.states import constant_starts, constant_value, depends, evaluated, find_states, states_of
from rnncore.export.tracing.trace import LIFTED_LENGTHS, Trace, trace
from rnncore.layers import GRU
from rnncore.placeholder import recording
from rnncore.runtime.errors import ExportError, InputError, StateError
from tests.tolerances import fixed

X = torch.randn(2, 6, 4)
CLOSE = {"rtol": 0, "atol": fixed("float32 same steps")}


# ----------------------------------------------------------------------------------------------------------- operators
class Loose(nn.Module):
    """Calls torch's functions itself: with weights of its own, from a layer with a hook, twice, with other options."""

    def __init__(self, *, bias: bool, bidirectional: bool, batch_first: bool) -> None:
        super().__init__()
        options: Any = {"bias": bias, "bidirectional": bidirectional, "batch_first": batch_first, "num_layers": 2}
        self.lstm, self.gru, self.rnn = (
            nn.LSTM(4, 5, proj_size=3, **options),
            nn.GRU(4, 5, **options),
            nn.RNN(4, 5, **options),
        )
        self.options = (bias, 2, 0.0, False, bidirectional, batch_first)
        for layer in (self.lstm, self.gru):
            layer.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = x.shape[0 if self.options[-1] else 1]
        h = x.new_ones(4 if self.options[-2] else 2, rows, 5)
        own = torch.gru(x, h, self.gru._flat_weights, *self.options)
        relu = torch.rnn_relu(x, h, self.rnn._flat_weights, *self.options[:-1], batch_first=self.options[-1])
        return self.lstm(x)[0], self.lstm(x + 1)[1][1], self.gru(x)[0], own[1], relu[0]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("bias", "bidirectional"), [(True, False), (False, True)])
def test_calls_of_torchs_functions_are_answered_by_our_layers(
    bias: bool, bidirectional: bool, batch_first: bool
) -> None:
    module = Loose(bias=bias, bidirectional=bidirectional, batch_first=batch_first).eval()
    found = find_operators(module, Example.of(module, X, None, False), 0)
    assert list(found.layers) == ["gru", "rnn_relu", "lstm", "gru2"]
    with torch.no_grad():
        wanted = module(X)
        with found.answering(), recording(_Runs()):
            got = module(X)
    for own, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(own, other, **CLOSE)
    assert found.layers["lstm"].stack is not None and not any(
        p.requires_grad is None for p in found.layers["gru"].parameters()
    )


class _Runs(PassingStates):
    """Runs layers as they are."""

    def record(self, layer: Recurrent, x: Tensor, state: Any, lengths: Any) -> Any:
        with recording(None):  # type: ignore[arg-type]
            return layer(x, state, lengths)


def test_weights_that_depend_on_inputs_and_calls_that_do_are_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            weights = [w * x.mean() for w in self.gru._flat_weights]
            return torch.gru(x, x.new_zeros(1, x.shape[0], 5), weights, True, 1, 0.0, False, False, True)[0]

    with pytest.raises(ExportError) as caught:
        find_operators(Scaled().eval(), Example.of(Scaled(), X, None, False), 0)
    assert str(caught.value) == (
        "Scaled calls torch.gru with weights that depend on the inputs; a file holds weights that are the same in every call: "
        "write the step as a rnncore.Cell that takes them as input"
    )
    gru, says = (
        nn.GRU(4, 5, batch_first=True).eval(),
        "torch.gru is called more often while the module is traced than for its",
    )
    with pytest.raises(ExportError, match=says), Operators([]).answering():
        gru(X)
    linear = nn.Linear(4, 5)
    assert Operators([]).layers == find_operators(linear, Example.of(linear, X, None, False), 0).layers == {}


# ----------------------------------------------------------------------------------------------------------- recording
class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.inner = GRU(4, 5), nn.Sequential(Recurrent(GRUCell(5, 3)), CausalConv1d(4, 5, 3))


def test_calls_are_named_by_the_path_of_their_layer() -> None:
    module = Named().eval()
    recorder = PlaceholderRecorder(module, {})
    layer, conv = module.inner
    recorder.start(torch.tensor([6, 2]), {"batch": {"2"}, "time": {"6"}})
    x = torch.randn(2, 6, 5)
    y, (h,) = recorder.record(layer, x, None, None)
    assert y.shape == (2, 6, 3) and h.shape == (2, 3) and list(recorder.calls) == ["inner.0"]
    call = recorder.calls["inner.0"]
    assert (call.name, call.layer, call.z_size, call.given_state, call.lengths) == ("inner.0", layer, 9, False, True)
    assert call.owner == "inner.0.cell" and call.cell is layer.cell and call.starts is None
    recorder.record(layer, torch.randn(2, 5, 5), (torch.zeros(2, 3),), None)
    second = recorder.calls["inner.0@1"]
    assert second.given_state and not second.lengths and second.owner == "inner.0.cell", "of other steps: no lengths"
    recorder.record(layer, torch.randn(2, 5, 5), None, torch.tensor([5, 1]))
    assert recorder.calls["inner.0@2"].lengths
    name, (context,), lengths = recorder.carry(conv, X, None, None)
    assert name == "inner.1" and context.shape == (2, 8) and lengths is recorder.lifted_lengths
    assert recorder.carried[name].lengths and not recorder.carried[name].given_state
    y, (context,) = recorder.release(name, torch.zeros(2, 6, 5), (context,))
    assert y.shape == (2, 6, 5) and context.shape == (2, 8)
    assert recorder.carry(conv, X, (context,), None)[0] == "inner.1@1" and recorder.carried["inner.1@1"].given_state
    one = CausalConv1d(4, 5, 1)
    assert recorder.carry(one, X, None, None)[:2] == ("CausalConv1d", ())
    assert recorder.release("CausalConv1d", torch.zeros(2, 6, 5), ())[1] == ()
    stray = Recurrent(GRUCell(4, 5))
    recorder.record(stray, X, None, None)
    assert "GRUCell" in recorder.calls
    with pytest.raises(StateError, match=r"^inner\.0: state 'h' has shape"):
        recorder.record(layer, x, (torch.zeros(2, 7),), None)
    recorder.start(None, {})
    assert not recorder.calls and not recorder.carried and recorder.lifted_lengths is None


def test_what_advance_gives_is_checked() -> None:
    conv, y, state = CausalConv1d(4, 5, 3), torch.zeros(2, 6, 5), (torch.zeros(2, 8),)
    _check_advance(conv, y, state)
    for wrong in ([torch.zeros(2, 8)], (), (torch.zeros(2, 8),) * 2):
        with pytest.raises(ExportError) as caught:
            _check_advance(conv, y, wrong)  # type: ignore[arg-type]
        assert str(caught.value) == "CausalConv1d.advance must return (y, (context)), y and a tuple of states"
    says = {
        "CausalConv1d.advance gives y of shape (2, 6, 4), expected [batch, time, 5]": (torch.zeros(2, 6, 4), state),
        "CausalConv1d.advance gives y of shape (2, 5), expected [batch, time, 5]": (torch.zeros(2, 5), state),
        "CausalConv1d.advance gives context of shape (2, 7), expected [batch, 8]": (y, (torch.zeros(2, 7),)),
        "CausalConv1d.advance gives context of shape (2, 1, 8), expected [batch, 8]": (y, (torch.zeros(2, 1, 8),)),
    }
    for line, (value, own) in says.items():
        with pytest.raises(ExportError) as caught:
            _check_advance(conv, value, own)
        assert str(caught.value) == line


def test_layers_without_a_loop_may_pass_their_states_on() -> None:
    conv, passing = CausalConv1d(4, 5, 3), PassingStates()
    name, (context,), lengths = passing.carry(conv, X, None, torch.tensor([3, 1]))
    assert name == "" and context.shape == (2, 8) and not context.any() and lengths is not None
    assert passing.carry(conv, X, (context + 1,), None)[1][0].all() and passing.release("", X, (context,)) == (
        X,
        (context,),
    )


# ------------------------------------------------------------------------------------------------------------- a trace
class Several(nn.Module):
    """States in and out, an input that comes back, one output twice, keys that are digits."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = GRU(4, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor, h: Tensor) -> dict[str, Any]:
        y, ((last,),) = self.gru(x, ((h,),))
        y = self.head(y)
        return {"x": y, "h": last, "0": y, "same": x}


def traced(module: nn.Module, example: Any, **options: Any) -> Trace:
    module.eval()
    found = find_axes(module, Example.of(module, example, None, "auto"), None)
    settings: dict[str, Any] = {"lift_lengths": False, "output_names": None, "seed": 0, **options}
    return trace(module, found, find_operators(module, found, 0), **settings)


def test_a_trace_has_names_and_axes() -> None:
    found = traced(Several(), {"x": X, "h": torch.zeros(2, 5)}, lift_lengths=True)
    graph = found.model.graph

    def shown(values: Any) -> list[str]:
        return [f"{v.name} {' '.join(str(d if isinstance(d, int) else d.value) for d in v.shape)}" for v in values]

    assert shown(graph.inputs) == ["x batch time 4", "h batch 5", "lengths batch"]
    assert shown(graph.outputs) == ["x_out batch time 4", "h_out batch 5", "output_0 batch time 4", "same batch time 4"]
    assert found.lengths == LIFTED_LENGTHS and found.lengths_lifted and found.sizes == {"batch": 19, "time": 31}
    assert "head.bias" in graph.initializers and list(found.calls) == ["gru.layers.0"]
    assert found.calls["gru.layers.0"].lengths and found.time_operators == [] and found.ids == {}
    names = [value.name for node in graph for value in node.outputs]
    assert len(set(names)) == len(names)
    assert find_states(graph, None, "lengths") == {"h": "h_out"} and find_states(graph, {}, None) == {}
    (state,) = states_of(graph, {"h": "h_out"}, {})
    assert (state.name, state.output, state.dtype, state.size, state.shape) == ("h", "h_out", "float32", 5, None)
    cases = {
        "states={'z': 'h_out'} pairs an input with an output; the inputs are ['x', 'h'], the outputs ['x_out', 'h_out', "
        "'output_0', 'same']": {"z": "h_out"},
        "states={'x': 'h_out'}: 'x' is ['batch', 'time', 4], 'h_out' is ['batch', 5], expected equal shapes with a batch and "
        "without a time axis": {"x": "h_out"},
        "states={'x': 'x_out'}: 'x' is ['batch', 'time', 4], 'x_out' is ['batch', 'time', 4], expected equal shapes with a "
        "batch and without a time axis": {"x": "x_out"},
    }
    for says, pairs in cases.items():
        with pytest.raises(InputError) as caught:
            find_states(graph, pairs, "lengths")
        assert str(caught.value) == says
    assert find_states(graph, {"h": "h_out"}, "lengths") == {"h": "h_out"}


def test_traces_that_cannot_be_are_refused() -> None:
    example = {"x": X, "h": torch.zeros(2, 5)}
    with pytest.raises(ExportError, match=r"^output_names has 1 names, the module returns 4 tensors$"):
        traced(Several(), example, output_names=["y"])
    with pytest.raises(
        InputError, match=r"output_names is \['a', 'a', 'b', 'c'\], expected a name of its own for each output"
    ):
        traced(Several(), example, output_names=["a", "a", "b", "c"])

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x)

    with pytest.raises(ExportError) as caught:
        traced(Plain(), X)
    assert str(caught.value) == (
        "Plain calls no recurrent layer (torch.nn.RNN/GRU/LSTM or rnncore's), and nothing in it looks along time: "
        "torch.onnx.export alone is enough for it"
    )

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 3, padding=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).amax(2)

    with pytest.raises(ExportError) as caught:
        traced(Pooled(), torch.randn(2, 3, 9))
    assert "no axis is taken for time; conv: Conv1d with kernel 3 looks along " in str(caught.value)
    assert str(caught.value).endswith("if that is time, say axes={'x': ('batch', None, 'time')}")

    class Taken(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return x.cumsum(1) * lengths.mean()

    module = Taken()
    held = Example.of(module, (X, torch.ones(2)), None, False)
    with pytest.raises(ExportError, match=r"an input is called 'lengths' already; say lengths='lengths' or False"):
        trace(module, held, Operators([]), lift_lengths=True, output_names=None, seed=0)


# -------------------------------------------------------------------------------------------------------------- states
def graph_of(text: str) -> ir.Model:
    import onnx.parser

    return ir.from_proto(
        onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 20, "rnncore" : 1]>
            g (float[batch, time, 4] x, float[batch, 5] h, float[2, batch, 5] s)
            => (float[batch, 5] last, float[2, batch, 5] ends)
            {text}"""
        )
    )


LAYERS = """{
    i0 = Constant<value = int64 {0}>() i1 = Constant<value = int64 {1}>()
    s0 = Gather<axis = 0>(s, i0) s1 = Gather<axis = 0>(s, i1)
    y0, h0 = rnncore.Recurrent<call = "a">(x, x, , s0)
    y1, h1 = rnncore.Recurrent<call = "b">(y0, y0, , s1)
    axes = Constant<value_ints = [0]>()
    u0 = Unsqueeze(h0, axes) u1 = Unsqueeze(h1, axes)
    ends = Concat<axis = 0>(u0, u1)
    OWN
}"""


def test_states_are_what_calls_start_from_and_end_with() -> None:
    own = 'y2, h2 = rnncore.Recurrent<call = "c">(x, x, , h) last = Identity(h2)'
    graph = graph_of(LAYERS.replace("OWN", own)).graph
    assert find_states(graph, None, None) == {"h": "last", "s": "ends"}
    assert [state.shape for state in states_of(graph, {"h": "last", "s": "ends"}, {})] == [None, (2, "batch", 5)]
    for other in (
        'y2, h2 = rnncore.Recurrent<call = "c">(x, x, , h) last = Tanh(h2)',
        't = Tanh(h) y2, h2 = rnncore.Recurrent<call = "c">(x, x, , t) last = Identity(h2)',
        'y2, h2 = rnncore.Recurrent<call = "c">(x, x, , h) m = Tanh(h) last = Identity(h2)',
        "last = Identity(h)",
    ):
        assert find_states(graph_of(LAYERS.replace("OWN", other)).graph, None, None) == {"s": "ends"}, other


def test_starts_that_no_input_changes_are_known() -> None:
    text = """{
        shape = Shape<start = 0, end = 1>(x) five = Constant<value_ints = [5]>() size = Concat<axis = 0>(shape, five)
        z = ConstantOfShape<value = float[1] {2.5}>(size)
        n = Constant<value = float[5] {1, 2, 3, 4, 5}>() e = Expand(n, size)
        y0, h0 = rnncore.Recurrent<call = "a">(x, x, , z)
        y1, h1 = rnncore.Recurrent<call = "b">(x, x, , e)
        y2, h2 = rnncore.Recurrent<call = "c">(x, x, , h)
        r = RandomNormalLike(z) last = Add(h1, r) ends = Identity(s)
    }"""
    model = graph_of(text)
    starts = constant_starts(model)
    assert {name: [row.tolist() for row in rows] for name, rows in starts.items()} == {
        "a": [[2.5] * 5],
        "b": [[1, 2, 3, 4, 5]],
    }
    values = {value.name: value for node in model.graph for value in node.outputs}
    h = next(value for value in model.graph.inputs if value.name == "h")
    assert constant_value(model, values["e"], 0).tolist() == [1, 2, 3, 4, 5]  # type: ignore[union-attr]
    assert constant_value(model, values["e"], 1) is None and constant_value(model, h, 0) is None
    assert constant_value(model, None, 0) is None and constant_value(model, values["n"], 0) is None
    assert (
        depends(h)
        and depends(values["r"])
        and depends(values["h0"])
        and not depends(values["size"])
        and not depends(None)
    )
    assert [value.shape for value in evaluated(model, [values["z"], values["size"]])] == [(2, 5), (2,)]
