"""The example call, taken apart: names, axes, lengths, inputs of other sizes; and which module a caller means."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing import trace
from rnncore.export.tracing.affine_ties import Follower, _likely, _one_each
from rnncore.export.tracing.call_counter import CallCounter
from rnncore.export.tracing.example import (
    Example,
    Extent,
    Input,
    are_shares,
    bind,
    check_dtypes,
    check_runs,
    default_axes,
)
from rnncore.export.tracing.model_arguments import module_of, take_apart
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.export.tracing.size_expressions import computed
from rnncore.export.tracing.source_lines import is_users, line_in_text
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.format.axes import Axis, Steps

X = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))
Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Sides:
    left: Any
    right: Any


class Takes(nn.Module):
    def forward(self, x: Tensor, other: Any = None, *, flag: bool = False) -> Tensor:
        return x + 1


def refused(call: Callable[[], Any], kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------ nested arguments
def test_tensors_are_named_by_their_places_and_put_back() -> None:
    value = {"a": [X, (X + 1,)], "b": Pair(X + 2, 5), "c": "text", "d": Sides(None, [X + 3])}
    found = dict(named_tensors(value, "v"))
    assert list(found) == ["v_a_0", "v_a_1_0", "v_b_left", "v_d_right_0"] and found["v_b_left"] is value["b"].left
    assert list(dict(named_tensors(value, ""))) == ["a_0", "a_1_0", "b_left", "d_right_0"]
    again = with_tensors(value, iter([1, 2, 3, 4]))
    assert again == {"a": [1, (2,)], "b": Pair(3, 5), "c": "text", "d": Sides(None, [4])} and type(again["b"]) is Pair
    assert list(named_tensors(Sides, "v")) == [] and with_tensors(Sides, iter([])) is Sides


@pytest.mark.parametrize(
    ("value", "axes"),
    [
        (torch.ones(()), ()),
        (torch.ones(2), ("batch",)),
        (torch.ones(2, 3), ("batch", None)),
        (torch.ones(2, 3, dtype=torch.int64), ("batch", "time")),
        (torch.ones(2, 3, dtype=torch.bool), ("batch", "time")),
        (torch.ones(2, 3, 4), ("batch", "time", None)),
        (torch.ones(2, 3, 4, 5), ("batch", "time", None, None)),
    ],
)
def test_axes_by_default(value: Tensor, axes: tuple[str | None, ...]) -> None:
    assert default_axes(value) == axes


# -------------------------------------------------------------------------------------------------------- what does not fit
def test_examples_that_do_not_fit_say_what_came_and_what_to_do() -> None:
    def of(example: Any, axes: Any = None, lengths: Any = "auto") -> Callable[[], Any]:
        return lambda: Example.of(Takes(), example, axes, lengths)

    assert refused(of((X, X, X))).startswith("the example does not fit Takes.forward(x: ")
    assert refused(of((X, X, X))).endswith(
        "pass a tensor, a tuple of positional arguments, or a dict of keyword arguments"
    )
    assert refused(of(X, {"z": ("batch",)})) == "axes names 'z', the inputs are ['x']"
    assert refused(of(X, {"x": ("batch", "time")})) == "axes of 'x' has 2 entries, the tensor has 3 axes"
    assert refused(of(X[:, :0])) == "example input 'x' has shape (2, 0, 3): it needs at least one entry"
    assert refused(of(X, None, "size")) == "lengths='size' is no input; the inputs are ['x']"
    assert refused(of(3.0)) == "the example holds no tensor, only float: use torch.tensor"
    assert refused(of(X.numpy())) == "the example holds no tensor, only ndarray: use torch.from_numpy"
    assert refused(of("text")) == "the example holds no tensor, only str"

    class Two(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor, seq_lens: Tensor) -> Tensor:
            return x

    both = (X, torch.tensor([6, 2]), torch.tensor([6, 2]))
    assert refused(lambda: Example.of(Two(), both, None, "auto")) == (
        "inputs ['lengths', 'seq_lens'] all look like lengths; say which with lengths='name'"
    )
    assert Example.of(Two(), both, None, "seq_lens").lengths == "seq_lens"
    assert Example.of(Two(), both, None, False).lengths is None


def test_arguments_are_those_of_forward() -> None:
    with_gradient = X.clone().requires_grad_()
    assert not bind(Takes(), with_gradient).arguments["x"].requires_grad
    assert list(bind(Takes(), {"x": X, "flag": True}).arguments) == ["x", "flag"]
    assert list(bind(Takes(), [X, X]).arguments) == ["x", "other"], "a list is a tuple of arguments"

    class Listed(nn.Module):
        def forward(self, parts: Any) -> Tensor:
            return torch.cat(parts if isinstance(parts, list) else list(parts.values()))

    assert len(bind(Listed(), [X, X]).arguments["parts"]) == 2
    assert list(bind(Listed(), {"a": X, "b": X}).arguments["parts"]) == ["a", "b"], "one argument that is a dict"


def test_failures_of_the_module_itself_and_dtypes_without_kernels_are_named() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("five channels")

    example = Example.of(Fails(), X, None, False)
    assert (
        refused(lambda: check_runs(example, Fails()), ExportError) == "Fails fails on the example itself: five channels"
    )
    fine = Example.of(Takes(), X, None, False)
    assert torch.equal(check_runs(fine, Takes()), X + 1)
    check_dtypes(nn.Linear(2, 2), fine)
    assert refused(lambda: check_dtypes(nn.Linear(2, 2).bfloat16(), fine), ExportError).startswith(
        "weight is bfloat16 (and 1 more), for which onnxruntime has no CPU kernels; export a copy in float32"
    )


# --------------------------------------------------------------------------------------------------- inputs of other sizes
def test_inputs_are_drawn_in_the_range_of_the_example() -> None:
    sizes = {"batch": 5, "time": 7}
    ids = torch.tensor([[3, 9], [4, 4]])
    found = Input("i", ids, ("batch", "time")).resized(sizes, drawn(), 20)
    assert found.shape == (5, 7) and found.min() >= 3 and found.max() <= 9 and found.dtype == torch.int64
    constant = Input("i", torch.full((2, 2), 4), ("batch", "time")).resized({"batch": 20, "time": 20}, drawn(), 7)
    assert constant.min() == 4 and constant.max() == 6, "below the vocabulary"
    assert Input("i", torch.full((2, 2), 4), ("batch", "time")).resized(sizes, drawn(), 0).unique().tolist() == [4]
    shares = Input("s", torch.tensor([0.5, 1.0]), ("batch",)).resized(sizes, drawn(), 0)
    assert shares.tolist() == [1.0] * 5
    mask = Input("m", torch.ones(2, 6, dtype=torch.bool), ("batch", "time"), 1).resized(sizes, drawn(), 0)
    assert mask.shape == (5, 7) and mask.all()
    truth = Input("t", torch.ones(2, 6, dtype=torch.bool), ("batch", "time")).resized(
        {"batch": 9, "time": 9}, drawn(), 0
    )
    assert truth.any() and not truth.all()
    floats = Input("x", X * 100, ("batch", "time", None)).resized(sizes, drawn(), 0)
    assert floats.shape == (5, 7, 3) and 50 < floats.std() < 300
    still = Input("x", torch.zeros(2, 2, 1), ("batch", "time", None)).resized(sizes, drawn(), 0)
    assert 0.5 < still.std() < 2, "where the example has no spread it is 1"
    half = Input("h", torch.ones(2, 3, 1), ("batch", Steps("time", 1, 1, 2), None)).resized(sizes, drawn(), 0)
    assert half.shape == (5, 4, 1)
    own = Input("x", X, ("batch", "time", None))
    assert torch.equal(own.resized(sizes, drawn(3), 0), own.resized(sizes, drawn(3), 0))


def test_shares_are_numbers_up_to_one() -> None:
    assert are_shares(torch.tensor([0.2, 1.0]))
    for other in ([0.2, 0.9], [0.0, 1.0], [1.0, 2.0], [], [[1.0]], [1]):
        assert not are_shares(torch.tensor(other)), other


def test_extents_count_the_sizes_that_an_axis_takes() -> None:
    extent = Extent("time", 10, 40, 4, 8)
    assert [extent.near(n) for n in (1, 2, 3, 99)] == [12, 20, 28, 40]
    assert [extent.takes(n) for n in (8, 12, 13, 40, 44)] == [False, True, False, True, False]
    assert extent.axis == Axis("time", 10, 40, 4) and Extent("time").axis == Axis("time", 0)
    assert Extent("time", 1, None, 2).axis == Axis("time", 1, None, 2)
    assert Extent("time").near(5) == 5 and Extent("time").takes(1) and not Extent("time").takes(0)
    assert Extent("time", 1, 41, 4).near(99) == 40


def test_other_axes_have_sizes_of_their_own_and_lengths_are_full() -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
            return x

    example = Example.of(
        Three(), (X, torch.tensor([6, 2]), torch.tensor([3.0, 1.0])), {"x": ("batch", "time", "width")}, "auto"
    )
    assert example.names == ["x", "lengths", "counts"] and example.axis_names == ["batch", "time", "width"]
    assert example.fit({}) == {"batch": 3, "time": 5, "width": 2} and example.fit({}, 1)["batch"] == 5
    assert example.fit({"batch": 4, "time": 9}) == {"width": 3, "batch": 4, "time": 9}
    counted = replace(example, counts={"counts": "width"}, extents={"width": Extent("width", 4)}, states={"x": 0})
    x, lengths, counts = counted.draw({"batch": 4, "time": 9}, drawn())
    assert x.shape[:2] == (4, 9) and not x.any() and lengths.tolist() == [9] * 4 and lengths.dtype == torch.int64
    assert counts.tolist() == [float(x.shape[2])] * 4 and counts.dtype == torch.float32
    assert [bool(tensor.any()) for tensor in counted.started([X, lengths, counts])] == [False, True, True]
    same = counted.like_itself(drawn())
    assert same[0].shape == X.shape and same[1] is example.inputs[1].value and same[2] is example.inputs[2].value
    first, second = (part() for part in example.in_parts(Three())[1:])
    assert torch.equal(torch.cat([first, second], 1), X) and first.shape[1] == 3


# ------------------------------------------------------------------------------------------------------ the module meant
def test_the_module_inside_is_meant_and_what_is_none_is_refused() -> None:
    inner = nn.Linear(2, 2)
    assert module_of(inner) is inner and module_of(nn.DataParallel(inner)) is inner
    averaged = torch.optim.swa_utils.AveragedModel(inner)
    assert module_of(averaged) is averaged.module
    assert refused(lambda: module_of(5)) == "model is a int, expected a torch.nn.Module"
    assert (
        refused(lambda: module_of(nn.Linear))
        == "model is the class Linear and no module of it, expected a torch.nn.Module"
    )
    assert refused(lambda: module_of(nn.LazyLinear(2))) == (
        "'weight' has no values yet: run the module on its example once before you export it"
    )
    assert refused(lambda: module_of(nn.Linear(2, 2, device="meta"))) == (
        "'weight' is on the device 'meta', which holds no values: module.to_empty(device='cpu'), then load the weights"
    )
    outer = nn.Sequential(nn.DataParallel(inner), nn.ReLU())
    take_apart(outer)
    assert outer[0] is inner


def test_what_is_called_once_a_step_is_named_with_a_way_out() -> None:
    class Loops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.GRUCell(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, cells: bool) -> None:
            h = torch.zeros(x.shape[0], 4)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h) if cells else h
                self.out(h)

    module = Loops()
    counter = CallCounter(module)
    for cells in (True, False):
        with counter.counting():
            module(X, cells)
        assert counter.has_cells is cells
        says = counter.explain_loop(7)
        what = "'cell' (GRUCell)" if cells else "'out' (Linear)"
        assert says.startswith(
            f"forward calls {what} 6 times, once for each time step: exporting such a loop would fix its length.\n  "
        )
        assert ("rnncore.Recurrent(self.cell)" in says) is cells
    assert counter.explain_loop(9) == ""
    with counter.counting():
        pass
    assert not counter.has_cells and counter.explain_loop(6) == ""


# -------------------------------------------------------------------------------------------------------------- the rest
def test_followers_and_the_ratios_that_are_tried() -> None:
    assert Follower((0, 1), 160, 5).at(3) == 485
    assert _likely(12, 4) == [3] and _likely(13, 4) == [] and _likely(5, 4) == [1] and _likely(4, 4) == []
    assert _likely(6, 4) == [1] and _likely(7, 4) == [] and _likely(3, 4) == [1] and _likely(2, 1) == [2, 1]
    a, b, c = (0, 1), (1, 1), (0, 2)
    assert _one_each(None, [a, b]) == [(a,), (b,), (a, b)]  # type: ignore[arg-type]
    assert _one_each(None, [a, c]) == [(a,), (c,)] and _one_each(None, [a]) == [(a,)]  # type: ignore[arg-type]


def test_lines_of_users_are_told_from_those_of_libraries() -> None:
    assert is_users("/home/me/model.py") and is_users("model.py") and is_users("/x/site-packages/mine/model.py")
    for other in (
        "",
        "<string>",
        "torch/nn/modules/rnn.py",
        "/x/site-packages/torch/nn/a.py",
        "/y/dist-packages/onnx.py",
    ):
        assert not is_users(other), other
    assert not is_users("/x/site-packages/rnncore/layers/a.py") and not is_users(torch.__file__)
    text = 'File "/home/me/a.py", line 3, in f\nFile "/x/site-packages/torch/b.py", line 4, in g'
    assert line_in_text(text) == "a.py:3, in f" and line_in_text("nothing") == ""


def test_conditions_on_sizes_are_whole_numbers_and_truths() -> None:
    import sympy

    n = sympy.Symbol("n", integer=True, positive=True)
    for expression, wanted in ((2 * n + 1, 15), (sympy.Max(n, 9), 9), (sympy.Ne(n, 7), False), (n > 6, True)):
        found = computed(expression)({n: 7})
        assert found == wanted and type(found) is type(wanted)


def test_sizes_of_a_trace_are_told_apart() -> None:
    sizes = [*trace.TRACE_SIZES.values(), *trace._OTHER_SIZES]
    assert len(set(sizes)) == len(sizes) and min(sizes) > 2


def test_lengths_come_as_the_module_takes_them_and_only_where_they_are_asked_for() -> None:
    seen: list[torch.dtype] = []

    class Packs(nn.Module):
        def forward(self, x: Tensor, n: Tensor) -> Tensor:
            seen.append(n.dtype)
            return nn.utils.rnn.pack_padded_sequence(x, n.cpu(), batch_first=True, enforce_sorted=True).data

    given = (X, torch.tensor([6, 2], dtype=torch.int32))
    example = Example.of(Packs(), given, None, "auto")
    assert example.lengths == "n" and example.sorted_lengths and Example.of(Packs(), given, None, False).lengths is None
    example.call(Packs(), [X.double(), torch.tensor([6, 3])])
    assert seen[-1] == torch.int32
    assert not Example.of(Takes(), X, None, "auto").sorted_lengths

    class Text(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return ["text"] if x.dim() == 3 else None

    assert refused(lambda: check_runs(Example.of(Text(), X, None, False), Text()), ExportError) == (
        "Text returns a list without a tensor: let forward return a tensor, or a tuple, list, dict or dataclass of tensors"
    )


def test_states_of_torchs_layers_lie_as_torch_has_them() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    start = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    example = Example.of(lstm, (X, start), None, "auto")
    assert [own.axes for own in example.inputs] == [
        ("batch", "time", None),
        (None, "batch", None),
        (None, "batch", None),
    ]
    said = Example.of(lstm, (X, start), {"hx_0": ("batch", None, None)}, "auto")
    assert [own.axes for own in said.inputs][1:] == [("batch", None, None), (None, "batch", None)]
    assert [part().shape for part in Example.of(Takes(), X[:, :1], None, False).in_parts(Takes())] == [(2, 1, 3)] * 3
    assert [part().shape for part in Example.of(Takes(), X[:, :5], None, False).in_parts(Takes())] == [
        *((2, 5, 3), (2, 2, 3), (2, 3, 3))
    ]
