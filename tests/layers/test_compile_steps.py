"""Compiled steps give the values and gradients of the plain loop, whatever the cell, and say what they cannot do."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, fx, nn
from torch._inductor.exc import InductorError

import rnncore
from rnncore.layers.kernels.compiled import CompiledSteps
from rnncore.layers.kernels.compiled.steps import BACKENDS, MOST_PROGRAMS
from rnncore.layers.loop import run_loop
from rnncore.runtime.errors import InputError
from tests.cells.test_user_cell import LeakyCell
from tests.cells.variants import VARIANTS, example
from tests.compilers import needs_compiler
from tests.parity import assert_same, depth_of, gradients
from tests.strategies import Case, architectures, cases, randomize

pytestmark = pytest.mark.slow  # each is quick, but all of them trace and compile: a fifth of scripts/check


class Plain(rnncore.Cell):
    """One state of as many features as the input, and a step to be told."""

    def __init__(self, size: int, step: Callable[..., tuple[Tensor, ...]], states: int = 1) -> None:
        super().__init__(size, size, {f"s{k}": size for k in range(states)})
        self.weight = nn.Parameter(torch.empty(size, size))
        self.gain, self.shift = nn.Parameter(torch.empty(size)), nn.Parameter(torch.empty(size))
        self.register_buffer("rate", torch.linspace(0.1, 0.9, size))
        self.told = step

    def step(self, z: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return self.told(self, z, *state)


def mixed(self: Plain, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """A weight used twice, transposed and not, a buffer, a softmax, a gain, and what neither depends on."""
    s = torch.tanh(z @ self.weight + s @ self.weight.t() @ self.weight) * self.rate
    s = s + torch.softmax(s * self.gain, 1)
    return s * self.gain.sigmoid(), s


STEPS: dict[str, Callable[[], Plain]] = {
    "a weight used three times": lambda: Plain(5, mixed),
    "y is z": lambda: Plain(5, lambda self, z, s: (z, s @ self.weight + z)),
    "y is the state before": lambda: Plain(5, lambda self, z, s: (s, 0.5 * s + self.gain * z)),
    "z is not used": lambda: Plain(5, lambda self, z, s: (s * self.gain, torch.tanh(s @ self.weight))),
    "the state is not used": lambda: Plain(5, lambda self, z, s: (z @ self.weight, self.gain * z)),
    "the state never changes": lambda: Plain(5, lambda self, z, s: (z * s, s)),
    "two states become one value": lambda: Plain(
        5, lambda self, z, a, b: (a - b, *(2 * [torch.tanh(a @ self.weight + self.gain * b + z)])), 2
    ),
    "two states change places": lambda: Plain(5, lambda self, z, a, b: (a * b, b + self.gain * z, a), 2),
    "nothing learns": lambda: Plain(5, lambda self, z, s: (z + s, 0.9 * s + self.rate * z)),
    "an output without a gradient": lambda: Plain(5, lambda self, z, s: (torch.ones_like(z), s.detach() + z)),
    "a weight made of two": lambda: Plain(
        5, lambda self, z, s: (s, torch.tanh(z + s @ (self.weight @ torch.outer(self.gain, self.shift))))
    ),
    "equal gradients": lambda: Plain(5, lambda self, z, s: (s, torch.tanh(z + s + self.gain + self.shift))),
    "written in place": lambda: Plain(5, lambda self, z, s: (s, (z + s @ self.weight).mul_(self.gain).tanh_())),
    "in rows of a view": lambda: Plain(
        6, lambda self, z, s: (s, torch.cat([t.tanh() for t in (s @ self.weight + z).view(-1, 2, 3).unbind(1)], 1))
    ),
}


def layer_of(cell: rnncore.Cell, *, reverse: bool = False, backend: str = "eager") -> rnncore.Recurrent:
    """The cell in a compiled layer, random weights in float64."""
    layer = rnncore.Recurrent(randomize(cell.double(), 3), reverse=reverse)
    return rnncore.compile_steps(layer, backend=backend)  # type: ignore[arg-type]


def assert_as_plain(layer: rnncore.Recurrent, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> None:
    """Values and all gradients of ``layer`` are those of the plain loop, autograd and all."""
    plain = rnncore.Recurrent(copy.deepcopy(layer.cell), reverse=layer.reverse, fused=False)
    for parameter, own in zip(plain.parameters(), layer.parameters(), strict=True):
        parameter.requires_grad_(own.requires_grad)
    got, want = (gradients(module, x, state, lengths) for module in (layer, plain))
    assert got.keys() == want.keys()
    assert_same(got, want, x.dtype, "gradient", depth=1, x=x)


def programs(layer: rnncore.Recurrent) -> list[Any]:
    assert layer.compiled is not None
    return list(layer.compiled._programs.values())


# 17 steps: the gradient goes back in blocks of 16.
@settings(max_examples=min(40, settings.default.max_examples))  # each one traces its step anew
@given(cases(architectures(max_layers=1, feed_forward=False), times=(1, 13, 17), batches=(1, 7)))
def test_any_cell_is_the_plain_loop(case: Case) -> None:
    module, x, state, lengths = case.build()

    def run(layer: rnncore.Recurrent, steps: Callable[..., Any]) -> None:
        def forward(x: Tensor, state: Any = None, lengths: Tensor | None = None) -> Any:
            valid = None if lengths is None else (torch.arange(x.shape[1]) < lengths[:, None]).unsqueeze(2)
            x = x if valid is None else x.masked_fill(~valid, 0.0)
            start = layer.initial_state(len(x), x) if state is None else state
            y, end = steps(layer.cell, x, start, valid, reverse=layer.reverse)
            return (y if valid is None else y.masked_fill(~valid, 0.0)), end

        layer.forward = forward  # type: ignore[method-assign]  # torch's fused kernels are not what is tested here

    found = []
    for steps in (CompiledSteps("eager").run, run_loop):
        network = copy.deepcopy(module)
        for layer in network.modules():
            if isinstance(layer, rnncore.Recurrent):
                run(layer, steps)
        found.append(gradients(network, x, state, lengths))
    assert_same(*found, x.dtype, "gradient", depth=depth_of(module), x=x)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("reverse", [False, True])
def test_odd_steps_are_the_plain_loop(name: str, reverse: bool) -> None:
    layer = layer_of(STEPS[name](), reverse=reverse)
    x = torch.randn(7, 13, layer.input_size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    state = tuple(torch.linspace(-1, 1, 7 * size).double().view(7, size) for size in layer.cell.state_sizes.values())
    lengths = example()[1]
    for start in (None, state):
        for count in (None, lengths):
            assert_as_plain(layer, x, start, count)
    assert len(programs(layer)) == 2  # with padding and without


@pytest.mark.parametrize("frozen", [("read.weight", "mix.weight"), ("mix.bias",), ("initial_slow",)])
def test_a_user_cell_whose_parameters_do_not_all_learn(frozen: tuple[str, ...]) -> None:
    x, lengths = example()
    layer = layer_of(LeakyCell(5, 3))
    assert_as_plain(layer, x, None, lengths)
    for name in frozen:
        layer.cell.get_parameter(name).requires_grad_(False)
    assert_as_plain(layer, x, None, lengths)


def test_the_gradient_is_the_numerical_one() -> None:
    layer = layer_of(LeakyCell(2, 3))
    x = torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def answers(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, weights, strict=True))
        y, state = torch.func.functional_call(layer, given, (x, None, torch.tensor([4, 2])))
        return (y, *state)

    assert torch.autograd.gradcheck(answers, (x, *weights))
    assert len(programs(layer)) == 1


def test_products_are_cut_and_still_the_same() -> None:
    """Sizes from which on a product with a weight is cut in parts: 4 going forward, 2 going back."""
    layer = layer_of(rnncore.LSTMCell(3, 256, peephole="current"))
    x = torch.randn(3, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_as_plain(layer, x)
    assert [cut.parts for cut in programs(layer)[0].split.cuts] == [4, 2]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    [
        lambda: VARIANTS["lstm peephole=current coupled=True layer_norm=True"].build(5),
        lambda: LeakyCell(5, 3),
        lambda: Plain(5, mixed),
    ],
    ids=["lstm", "leaky", "mixed"],
)
def test_a_compiler_of_c_makes_the_same(cell: Callable[[], rnncore.Cell]) -> None:
    x, lengths = example()
    layer = layer_of(cell(), reverse=True, backend="inductor")
    assert_as_plain(layer, x, None, lengths)
    assert_as_plain(layer, x[:, :4], None, lengths.clamp(max=4))  # another length is no reason to compile again
    (program,) = programs(layer)
    assert set(program._compiled) == {"forward", "backward"}
    assert not any(isinstance(step, fx.GraphModule) for step in program._compiled.values())


def test_layers_with_a_fused_kernel_keep_it_and_evaluation_runs_as_before() -> None:
    model = rnncore.compile_steps(
        rnncore.Stacked([rnncore.LSTM(5, 7), rnncore.GRU(7, 3, reset="before")]), backend="eager"
    )
    x = torch.randn(2, 4, 5)
    with torch.no_grad():
        model(x)
    recurrent = [layer for layer in model.modules() if isinstance(layer, rnncore.Recurrent)]
    assert [len(programs(layer)) for layer in recurrent] == [0, 0]
    model(x)[0].sum().backward()
    assert [len(programs(layer)) for layer in recurrent] == [0, 1]


def test_under_autocast_the_plain_loop_runs() -> None:
    layer = rnncore.compile_steps(rnncore.Recurrent(LeakyCell(5, 3)), backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.randn(2, 4, 5))[0].float().sum().backward()
    assert not programs(layer) and layer.cell.mix.weight.grad is not None


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # dynamo asks for it
def test_torch_compile_leaves_compiled_steps_alone() -> None:
    x, lengths = example()
    x.requires_grad_()
    layer = layer_of(LeakyCell(5, 3))
    found = []
    for run in (layer, torch.compile(layer, backend="eager")):
        y, state = run(x, lengths=lengths)
        found.append((y, *state, *torch.autograd.grad(y.square().sum() + state[0].sum(), x)))
    torch.testing.assert_close(*found)
    assert len(programs(layer)) == 1


def test_what_a_caller_writes_into_a_result_does_not_reach_the_gradient() -> None:
    layer = layer_of(LeakyCell(5, 3))
    found = []
    for write in (False, True):
        x = example()[0].requires_grad_()
        y, state = layer(x)
        if write:
            y.detach().zero_()
            state[0].detach().zero_()
        found.append(torch.autograd.grad(y.sum() + 2 * state[0].sum(), x)[0])
    torch.testing.assert_close(*found)


def test_a_graph_that_is_kept_is_gone_back_twice_and_two_can_be_open() -> None:
    layer = layer_of(LeakyCell(5, 3))
    first, second = (example(seed=seed)[0].requires_grad_() for seed in (0, 1))
    one, other = layer(first)[0].square().sum(), layer(second)[0].square().sum()
    found = [torch.autograd.grad(one, first, retain_graph=True)[0], torch.autograd.grad(other, second)[0]]
    again = torch.autograd.grad(one, first)[0]
    torch.testing.assert_close(again, found[0], rtol=0, atol=0)
    assert_as_plain(layer, second.detach())
    with pytest.raises(RuntimeError, match="second time"):
        one.backward()


def test_second_derivatives_say_that_there_are_none() -> None:
    layer = layer_of(LeakyCell(5, 3))
    x = example()[0].requires_grad_()
    (first,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


class Rated(rnncore.Cell):
    """A step that reads a number, and drops features while it trains."""

    def __init__(self) -> None:
        super().__init__(5, 5, {"s": 5})
        self.rate, self.drop = 0.5, nn.Dropout(0.5)

    def step(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = self.rate * s + self.drop(z)
        return s, s


def test_a_changed_setting_is_seen() -> None:
    x = example()[0]
    layer = layer_of(Rated()).eval()
    assert_as_plain(layer, x)
    layer.cell.rate = 0.25
    assert_as_plain(layer, x)
    torch.manual_seed(3)
    assert (layer.train()(x)[0][:, 0] == 0).any()  # dropout, of which eval mode had none
    assert len(programs(layer)) == 3


def test_after_many_shapes_the_plain_loop_runs_and_says_so() -> None:
    layer = layer_of(LeakyCell(5, 3))
    for batch in range(1, MOST_PROGRAMS + 1):
        assert_as_plain(layer, example()[0][:1].expand(batch, -1, -1))
    with pytest.warns(RuntimeWarning, match=r"compiled for 8 shapes .* batch of 9, run uncompiled"):
        assert_as_plain(layer, example()[0][:1].expand(9, -1, -1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_as_plain(layer, example()[0][:3])


def test_copies_and_files_leave_programs_behind() -> None:
    layer = layer_of(VARIANTS["gru reset=before"].build(5))
    assert_as_plain(layer, example()[0])
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not programs(other) and len(programs(layer)) == 1
        assert_as_plain(other, example()[0])


def test_a_converted_layer_is_compiled_anew() -> None:
    layer = layer_of(LeakyCell(5, 3))
    assert_as_plain(layer, example()[0])
    y, _ = layer.float()(example(torch.float32)[0])
    assert y.dtype == torch.float32 and len(programs(layer)) == 2


def test_a_batch_of_nan_and_infinity_is_no_fault_of_the_compiler() -> None:
    layer = layer_of(LeakyCell(5, 3))
    x = example()[0]
    x[0, 0], x[1, 0] = float("nan"), float("inf")
    y, _ = layer(x)
    assert y[0].isnan().all() and y[2:].isfinite().all()


def test_narrow_numbers_train() -> None:
    layer = rnncore.compile_steps(rnncore.Recurrent(LeakyCell(5, 3).bfloat16()), backend="eager")
    layer(torch.randn(7, 13, 5, dtype=torch.bfloat16))[0].sum().backward()
    assert layer.cell.mix.weight.grad is not None and layer.cell.mix.weight.grad.dtype == torch.bfloat16


def branch(self: Plain, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    s = s + z if z.sum() > 0 else s - z
    return s, s


def write_state(self: Plain, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    s += z
    return s, s


def write_buffer(self: Plain, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    self.rate += 1.0
    return s + z, s * self.rate


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (branch, ".*data-dependent"),
        (write_state, "a leaf Variable that requires grad is being used in an in-place operation"),
        (write_buffer, "it writes into a state, a parameter or a buffer"),
    ],
)
def test_steps_that_cannot_be_compiled_say_why(step: Callable[..., tuple[Tensor, ...]], why: str) -> None:
    layer, x = layer_of(Plain(5, step)), example()[0]
    state = (torch.ones(7, 5, dtype=torch.float64),)
    with pytest.raises(InputError, match=f"(?s)Plain.step cannot be compiled: {why}.*; expected a step that"):
        layer(x, state)
    assert (state[0] == 1).all() and (layer.cell.rate < 1).all()  # nothing has been written by trying


def test_bad_arguments_say_what_was_expected() -> None:
    with pytest.raises(InputError, match=r"Linear has no recurrent layer of rnncore, .*rnncore.convert"):
        rnncore.compile_steps(nn.Linear(2, 3))
    with pytest.raises(InputError, match=r"backend is 'cudagraphs', expected one of: inductor, eager"):
        rnncore.compile_steps(rnncore.LSTM(2, 3), backend="cudagraphs")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, r"compile_steps found no C\+\+ compiler: install g\+\+"),
        (
            "[ $1 = --version ] && echo 'g++ 12.2.0' && exit; echo 'Python.h: not there' >&2; exit 1",
            "needs Python's headers",
        ),
    ],
    ids=["no compiler", "no headers"],
)
def test_a_machine_that_cannot_compile_says_what_to_install(script: str | None, message: str, tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    if script is not None:
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
    layer = layer_of(LeakyCell(5, 3), backend="inductor")
    options = {"cpp.cxx": (str(compiler),), "cpp.vec_isa_ok": True, "fx_graph_cache": False}
    with torch._inductor.config.patch(options), pytest.raises(InputError, match=message):
        layer(example()[0])


# ----------------------------------------------------------------------------------------- faults of a compiler, planted
def writes(graph: fx.GraphModule) -> bool:
    return any(node.target is torch.ops.aten.copy_.default for node in graph.graph.nodes)


def refuses_to_write(graph: fx.GraphModule, like: list[Tensor]) -> Any:
    if writes(graph):
        raise InductorError(KeyError("buf3"), None)
    return graph


def forgets_a_write(graph: fx.GraphModule, like: list[Tensor]) -> Any:
    if writes(graph):
        graph.graph.erase_node(next(n for n in graph.graph.nodes if n.target is torch.ops.aten.copy_.default))
        graph.recompile()
    return graph


def finds_it_written(graph: fx.GraphModule, like: list[Tensor]) -> Any:
    """Writes nothing, into memory that happens to hold the right numbers."""
    if not writes(graph):
        return graph
    graph(*like)
    return lambda *given: None


@pytest.mark.parametrize("backend", [refuses_to_write, forgets_a_write, finds_it_written])
def test_a_compiler_that_cannot_write_may_return(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "eager", backend)
    x, lengths = example()
    layer = layer_of(LeakyCell(5, 3))
    assert_as_plain(layer, x, None, lengths)
    assert not any(isinstance(step, fx.GraphModule) for step in programs(layer)[0]._compiled.values())


def test_a_compiler_that_computes_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: fx.GraphModule, like: list[Tensor]) -> Any:
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.sigmoid.default):
            node.target = torch.ops.aten.tanh.default
        graph.recompile()
        return graph

    monkeypatch.setitem(BACKENDS, "eager", wrong)
    with pytest.raises(RuntimeError, match="gives other numbers than the same step"):
        layer_of(LeakyCell(5, 3))(example()[0])
