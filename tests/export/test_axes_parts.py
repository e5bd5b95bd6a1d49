"""Which axis is which, of modules that are nothing but a rule for sizes, and of some that compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.runtime.errors import ExportError
from tests.export.ruled import Rule, Ruled

R = torch.randn
ANY = (1, None, 1, 1)
HOW = "axes={'x': ('batch', 'time', None)} says which axes are free, None for a fixed one"

FOUND: dict[str, tuple[Rule, list[Tensor], list[str], list[str], dict[str, Any]]] = {
    "free": (lambda x: [x], [R(3, 5, 4)], ["batch time x_2"], ["batch time x_2"], {}),
    "ids": (lambda x: [x], [torch.randint(5, (3, 5))], ["batch time"], ["batch time"], {}),
    "a vector": (lambda x: [x] if x[1] == 5 else None, [R(3, 5)], ["batch None"], ["batch 5"], {}),
    "features": (lambda x: [x] if x[2] == 4 else None, [R(3, 5, 4)], ["batch time None"], ["batch time 4"], {}),
    "no time": (lambda x: [(x[0], 2)] if x[1:] == (5, 4) else None, [R(3, 5, 4)], ["batch None None"], ["batch 2"], {}),
    "the last axis": (
        lambda x: [(x[0], 6, x[2])] if x[1] == 4 else None,
        [R(2, 4, 9)],
        ["batch None time"],
        ["batch 6 time"],
        {},
    ),
    "there is no single row": (
        lambda x: [x] if x[0] > 1 and x[2] == 4 else None,
        [R(3, 5, 4)],
        ["time batch None"],
        ["time batch 4"],
        {"time": (2, None, 1, 1)},
    ),
    "an axis goes at one row": (
        lambda x: [x[1:]] if x[0] == 1 else [x] if x[2] == 4 else None,
        [R(3, 5, 4)],
        ["time batch None"],
        ["time batch 4"],
        {"time": (2, None, 1, 1)},
    ),
    "steps that are counted out": (
        lambda x: [(x[1], 5)] if x[0] >= 12 and x[2] == 4 else None,
        [R(12, 2, 4)],
        ["time batch None"],
        ["batch 5"],
        {"time": (12, None, 1, 1)},
    ),
    "two towers": (
        lambda x, y: [x, y] if (x[2], y[2]) == (4, 3) else None,
        [R(2, 7, 4), R(2, 7, 3)],
        ["batch time None"] * 2,
        ["batch time 4", "batch time 3"],
        {},
    ),
    "towers of other lengths": (
        lambda x, y: [x, y] if (x[2], y[2]) == (4, 3) else None,
        [R(2, 7, 4), R(2, 6, 3)],
        ["batch time None", "batch y None"],
        ["batch time 4", "batch y 3"],
        {},
    ),
    "tied rows": (
        lambda x, y: [(x[0], x[1], 4)] if x[0] == y[0] and (x[2], y[2]) == (4, 3) else None,
        [R(2, 7, 4), R(2, 6, 3)],
        ["batch time None", "batch y None"],
        ["batch time 4"],
        {},
    ),
    "a mask": (
        lambda x, y: [x] if x[:2] == y and x[2] == 4 else None,
        [R(2, 7, 4), torch.ones(2, 7, dtype=torch.bool)],
        ["batch time None", "batch time"],
        ["batch time 4"],
        {},
    ),
    "one layer of which nobody reads more": (
        lambda x, s: [x] if x[2] == 4 else None,
        [R(2, 7, 4), R(1, 2, 5)],
        ["batch time None", "None y y_2"],
        ["batch time 4"],
        {},
    ),
    "twice as much by accident": (
        lambda x: [x] if x[1] in (5, 10) and x[2] == 4 else None,
        [R(2, 5, 4)],
        ["batch None None"],
        ["batch 5 4"],
        {},
    ),
    "an image": (
        lambda x: [(x[0], x[3])] if x[1] == 1 and 8 <= x[2] < 11 else None,
        [R(2, 1, 8, 20)],
        ["batch None None time"],
        ["batch time"],
        {},
    ),
    "frames of samples": (
        lambda x: [(x[0], (x[1] - 241) // 10)] if x[1] > 250 else None,
        [R(2, 700)],
        ["batch time"],
        ["batch (time-241)//10"],
        {"time": (251, None, 1, 10)},
    ),
    "a sum": (lambda x: [(x[0] + x[1],)] if x[2] == 4 else None, [R(2, 7, 4)], ["batch None None"], ["batch+7"], {}),
}


def found(rule: Rule, *tensors: Tensor, given: Any = None) -> Example:
    module = Ruled(rule)
    return find_axes(module, Example.of(module, tensors, given, False), given)


@pytest.mark.parametrize("name", FOUND)
def test_axes_get_their_names(name: str) -> None:
    rule, tensors, axes, shapes, limits = FOUND[name]
    known = found(rule, *tensors)
    assert [" ".join(map(str, own.axes)) for own in known.inputs] == axes
    assert [" ".join(map(str, shape)) for shape in known.output_shapes or ()] == shapes
    extents = {k: (e.minimum, e.maximum, e.multiple, e.stride) for k, e in known.extents.items()}
    assert extents == {**dict.fromkeys(extents, ANY), **limits} and known.counts == {}


def test_axes_that_somebody_names_are_taken_as_said() -> None:
    known = found(lambda x: [x], R(3, 5, 4), given={"x": ("batch", None, "width")})
    assert known.inputs[0].axes == ("batch", None, "width") and known.extents.keys() == {"batch", "width"}


def test_modules_without_an_axis_for_rows_are_refused() -> None:
    def refused(rule: Rule, *tensors: Tensor, given: Any = None) -> str:
        with pytest.raises(ExportError) as caught:
            found(rule, *tensors, given=given)
        return str(caught.value)

    says = "Ruled takes no other size along any axis that could be the batch: inputs 'x' [3, 5, 4]; a file needs one.  "
    says += f"If forward takes one sequence, add an axis for several; {HOW}"
    why = "\n  with 4 in place of 3 along axis 0 it fails: ValueError: not of these sizes\n  ruled.py:"
    assert refused(lambda x: [x] if x == (3, 5, 4) else None, R(3, 5, 4)).startswith(says + why)
    assert refused(lambda x: [x] if x[::2] == (3, 4) else None, R(3, 5, 4)).startswith(says + why)
    assert refused(lambda x: [x], R(3, 5, 4), given={"x": (None, None, "time")}) == says
    two = refused(lambda x, y: [x] if (x, y) == ((3, 5), (2,)) else None, R(3, 5), R(2))
    assert "inputs 'x' [3, 5], 'y' [2]; a file needs one." in two and "axes={'x': ('batch', 'time')} says" in two
    one = refused(lambda x: [x] if x[0] > 1 and x[2] == 4 else None, R(3, 5, 4), given={"x": ("batch", "time", None)})
    says = "Ruled fails for a batch of 1, and a file takes any number of rows (ValueError: not of these sizes):\n  ruled.py"
    assert one.startswith(says)
    odd = refused(lambda x: [(x[0] * x[0], 3)], R(3, 5, 4), given={"x": ("batch", "time", None)})
    assert odd.startswith("Ruled: ") and odd.endswith(f"; {HOW}")


def test_a_module_that_fails_on_other_numbers_is_left_as_it_is() -> None:
    example = Example.of(Ruled(lambda x: [x]), R(3, 5, 4), None, False)
    assert find_axes(Ruled(lambda x: None), example, None) is example


class Layered(nn.Module):
    """``layer`` along the axis behind the rows; ``counts`` say how many letters of the memory count."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=batch_first)

    def forward(self, x: Tensor, memory: Tensor, counts: Tensor) -> Tensor:
        places = torch.arange(int(counts.max()))
        kept = memory * (places < counts[:, None])
        return self.layer(x)[0].sum() + kept


@pytest.mark.parametrize("batch_first", [True, False])
def test_layers_say_which_axis_is_time_and_counts_along_which_they_count(batch_first: bool) -> None:
    module = Layered(batch_first=batch_first).eval()
    x = R(3, 5, 4) if batch_first else R(5, 3, 4)
    example = Example.of(module, (x, R(3, 7), torch.full((3,), 7)), None, False)
    known = find_axes(module, example, None)
    assert known.inputs[0].axes == (("batch", "time", None) if batch_first else ("time", "batch", None))
    assert known.inputs[1].axes == ("batch", "memory_1") and known.inputs[2].axes == ("batch",)
    assert known.counts == {"counts": "memory_1"}


class Sums(nn.Module):
    """Sums along an axis, of at least three entries along the first."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 2
        return x.cumsum(self.axis)


def test_rows_are_what_may_stand_in_any_order() -> None:
    x = R(7, 5) * 0.01
    known = find_axes(Sums(0), Example.of(Sums(0), x[..., None], None, False), None)
    assert known.inputs[0].axes == ("time", "batch", "x_2"), "steps are counted out, and columns stand apart"
    with pytest.raises(ExportError, match="fails for a batch of 1, and a file takes any number of rows"):
        find_axes(Sums(1), Example.of(Sums(1), x[..., None], None, False), None)


class Towers(nn.Module):
    """Two layers along one sequence, and one along another: what most follow is time."""

    def __init__(self, layers: tuple[int, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(nn.GRU(4, 3, batch_first=True) for _ in range(n)) for n in layers)

    def forward(self, *given: Tensor) -> list[Tensor]:
        return [layer(x)[0] for x, layers in zip(given, self.layers, strict=True) for layer in layers]


@pytest.mark.parametrize("layers", [(2, 1), (1, 2)])
def test_time_is_what_most_layers_follow(layers: tuple[int, int]) -> None:
    module = Towers(layers).eval()
    known = find_axes(module, Example.of(module, (R(3, 5, 4), R(3, 7, 4)), None, False), None)
    assert [own.axes[0] for own in known.inputs] == ["batch", "batch"]
    assert [own.axes[1] == "time" for own in known.inputs] == [count == 2 for count in layers]
