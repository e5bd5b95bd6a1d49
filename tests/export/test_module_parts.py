"""Modules in other clothes: copies, packed rows as padded ones, layers of ours; and which arguments are masks."""

from __future__ import annotations

import threading
from collections import namedtuple
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.held_sizes import with_sizes_held
from rnncore.export.tracing.masks import filling_of, masked_behind
from rnncore.export.tracing.own_layers import with_own_layers
from rnncore.export.tracing.packed_input import without_packing
from rnncore.runtime.errors import InputError
from tests.tolerances import fixed

Pair = namedtuple("Pair", "left right")
CLOSE = {"rtol": 0, "atol": fixed("float32 same steps")}
X, LENGTHS = torch.randn(3, 5, 4), torch.tensor([2, 5, 4])


def found(module: nn.Module, example: Any, lengths: Any = "auto") -> Example:
    return find_axes(module, Example.of(module, example, None, lengths), None)


# -------------------------------------------------------------------------------------------------------------- copies
class Wrapped(nn.Module):
    """Its forward is a function that reads modules, methods of them, another function and itself from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        inner, method = self.inner, self.inner.forward

        def helper(x: Tensor) -> Tensor:
            return inner(x) * 2

        def forward(x: Tensor, scale: float = 1.0, *, more: float = 0.0) -> Tensor:
            assert forward is not None
            return helper(x) * scale + method(x) + more

        def later() -> Any:
            return unset

        if self.inner is None:
            unset = 1  # never: the name stands for nothing
        forward.note = "kept"  # type: ignore[attr-defined]
        self.forward, self.later = forward, later  # type: ignore[method-assign]


def test_functions_on_a_copy_are_about_the_copy() -> None:
    module = Wrapped().eval()
    other: Any = copied(module)
    with torch.no_grad():
        other.inner.weight.zero_()
        other.inner.bias.fill_(1.0)
        assert torch.equal(other(X[0]), torch.full((5, 4), 3.0)) and not torch.equal(module(X[0]), other(X[0]))
        assert torch.equal(other(X[0], 2.0, more=0.5), torch.full((5, 4), 5.5)), "defaults are kept"
    assert other.forward.note == "kept" and other.forward.__name__ == "forward"
    assert other.later is module.later, "about no module"


def test_copies_keep_what_python_cannot_copy_and_what_was_computed() -> None:
    module: Any = nn.Linear(4, 4)
    module.lock, module.logs = threading.Lock(), {"a": [threading.Lock(), (1, 2)]}
    module.computed = module.weight * 2
    module.several = [module.weight * 3, "text"]
    other = copied(module)
    assert other.lock is module.lock and other.logs["a"][0] is module.logs["a"][0] and other.logs is not module.logs
    assert other.weight is not module.weight and torch.equal(other.computed, module.computed)
    assert other.computed.is_leaf and other.several[0].is_leaf and other.several[1] == "text"
    module.bound = MethodType(lambda self: self.weight, module)
    assert copied(module).weight is not module.weight


def test_second_names_of_a_parameter_may_be_set() -> None:
    module: Any = nn.Linear(4, 4)
    module.raw = module.weight
    other = copied(module)
    assert [name for name, _ in other.named_parameters()] == ["weight", "bias"] and other.raw is other.weight
    other.raw = nn.Parameter(torch.ones(4, 4))
    assert not isinstance(other.raw, nn.Parameter) and torch.equal(other.raw, torch.ones(4, 4))
    other.weight = nn.Parameter(torch.zeros(4, 4))
    assert isinstance(other.weight, nn.Parameter) and type(other).__name__ == "Linear"
    assert type(copied(nn.Linear(2, 2))) is nn.Linear


def test_what_a_call_sets_is_taken_back() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = dict(module.__dict__)
    with unchanged(module):
        module.seen = X
        module[0].weight = nn.Parameter(torch.zeros(4, 4))
        module[1].register_buffer("more", X)
        del module[1]
    assert module.__dict__ == before and len(module) == 2 and not hasattr(module[1], "more")
    assert bool(module[0].weight.any())


# ------------------------------------------------------------------------------------------------------- packed inputs
class TakesPacked(nn.Module):
    def __init__(self, kind: Any = tuple) -> None:
        super().__init__()
        self.gru, self.kind = nn.GRU(4, 6, batch_first=True), kind

    def forward(self, rows: Any, scale: Any = None) -> Any:
        packed, last = self.gru(rows)
        if scale is not None:
            last = last * scale
        if self.kind is dict:
            return {"y": packed, "last": last, "n": 3}
        return self.kind(packed, last) if self.kind is Pair else self.kind([packed, last])


def pack(x: Tensor = X, lengths: Tensor = LENGTHS) -> PackedSequence:
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize("kind", [tuple, list, dict, Pair])
@pytest.mark.parametrize("form", ["alone", "tuple", "dict", "with more"])
def test_packed_rows_are_taken_as_padded_ones(kind: Any, form: str) -> None:
    module = TakesPacked(kind).eval()
    given: Any = {"alone": pack(), "tuple": (pack(),), "dict": {"rows": pack()}}.get(form)
    given = {"rows": pack(), "scale": torch.tensor(2.0)} if given is None else given
    padded, example = without_packing(module, given)
    assert list(example) == ["rows", *(["scale"] if form == "with more" else []), "lengths"]
    longest = torch.where(torch.arange(5)[:, None] < LENGTHS[:, None, None], X, 0.0)
    assert torch.equal(example["rows"], longest) and example["lengths"].tolist() == [2, 5, 4]
    assert type(padded).__name__ == "TakesPacked" and not padded.training
    assert without_packing(module.train(), given)[0].training
    module.eval()
    got, own = padded(**example), module(*([pack(), torch.tensor(2.0)] if form == "with more" else [pack()]))
    names = ("y", "last") if kind is dict else (0, 1)
    assert type(got) is kind
    torch.testing.assert_close(got[names[0]], pad_packed_sequence(own[names[0]], batch_first=True)[0], **CLOSE)
    torch.testing.assert_close(got[names[1]], own[names[1]], **CLOSE)
    assert kind is not dict or got["n"] == 3


def test_what_is_not_packed_is_left_and_what_cannot_be_padded_refused() -> None:
    class Two(nn.Module):
        def forward(self, a: Any, b: Any = None, lengths: Any = None) -> Any:
            return a

    module = Two()
    assert without_packing(module, X) == (module, X) and without_packing(module, {"a": X})[0] is module
    assert without_packing(module, (X, [X, {"k": X}]))[0] is module
    cases = {
        "a packed sequence stands within 'b' of Two.forward: write a forward that has it as an argument of its own": (
            *((X, [pack()]), (X, {"k": pack()})),
            (X, {"k": (1, [pack()])}),
        ),
        "Two.forward takes packed sequences as a and b; a file has one time axis and one input for its lengths: write a "
        "forward of padded rows and lengths that packs them": ((pack(), pack()),),
        "Two.forward takes packed sequences as a and an argument named lengths; a file has one time axis and one input for "
        "its lengths: write a forward of padded rows and lengths that packs them": ({"a": pack(), "lengths": LENGTHS},),
    }
    for says, examples in cases.items():
        for example in examples:
            with pytest.raises(InputError) as caught:
                without_packing(module, example)
            assert str(caught.value) == says


# --------------------------------------------------------------------------------------------------- masks, sizes, layers
@pytest.mark.parametrize(
    ("name", "value", "filling"),
    [
        *(("mask", [[1, 1, 0], [1, 0, 0]], 1), ("pad_mask", [[0, 0, 1], [0, 1, 1]], 0), ("mask", [[0, 0, 1]], None)),
        *(
            ("mask", [[1, 0, 1]], None),
            ("mask", [[1, 2, 0]], None),
            ("mask", [[1, 1], [1, 1]], 1),
            ("mask", [[0, 0]], 0),
        ),
        *(
            ("keep", [[1, 1], [1, 1]], None),
            ("keep", [[1, 1, 1], [1, 1, 1]], 1),
            ("keep", [[1, 1, 0], [1, 0, 0]], None),
        ),
        *(
            ("My_Mask", [[True, False]], 1),
            ("mask", [[False, True]], 0),
            ("mask", [1, 0], None),
            ("mask", [[1.0, 0]], 1),
        ),
        *(
            ("keep", [[True, True, True], [True, True, True]], None),
            ("mask", [[]], None),
            ("keep", [[0, 0, 0]] * 2, None),
        ),
    ],
)
def test_masks_are_known_by_what_they_hold(name: str, value: Any, filling: int | None) -> None:
    others = {"ids": torch.tensor([[3, 4, 1], [2, 2, 2]]), "x": X, "same": torch.ones(2, 2, dtype=torch.int64)}
    assert filling_of(name, torch.tensor(value), others) == filling


def test_masks_end_where_rows_do() -> None:
    mask = torch.ones(2, 4, dtype=torch.int64)
    counts = torch.tensor([3, 1])
    assert masked_behind(mask, counts, 1, 0, 1).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert masked_behind(mask.bool(), counts, 0, 0, 1).tolist() == [[False] * 3 + [True], [False] + [True] * 3]
    assert masked_behind(mask.T, counts, 1, 1, 0).T.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert masked_behind(mask[:, None], counts, 1, 0, 2).shape == (2, 1, 4)


def test_sizes_that_are_neither_are_held() -> None:
    class Any3(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + 1

    axes = {"x": ("batch", "time", "width"), "y": ("batch", "letters")}
    example = Example.of(Any3(), (X, torch.ones(3, 7)), axes, False)
    assert with_sizes_held(example, None) == (
        {"x": ("batch", "time", None), "y": ("batch", None)},
        "x axis 2 to 4, y axis 1 to 7, as in the example",
    )
    assert with_sizes_held(example, {"x": axes["x"]}) == (
        {"x": ("batch", "time", "width"), "y": ("batch", None)},
        "y axis 1 to 7, as in the example",
    )
    assert with_sizes_held(example, axes) is None


def test_layers_are_converted_where_the_code_does_not_notice() -> None:
    class Notices(nn.Module):
        def __init__(self, answer: float) -> None:
            super().__init__()
            self.gru, self.answer = nn.GRU(4, 6, batch_first=True), answer

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x)[0] + self.answer * (type(self.gru) is nn.GRU)

    for answer, converted in ((0.0, True), (0.001, True), (5.0, False)):
        module = Notices(answer).eval()
        made = with_own_layers(module, Example.of(module, X, None, False))
        assert (type(made.gru) is not nn.GRU) is converted and made is not module, answer  # type: ignore[attr-defined]

    class Fails(Notices):
        def forward(self, x: Tensor) -> Tensor:
            assert type(self.gru) is nn.GRU
            return self.gru(x)[0]

    module = Fails(0.0).eval()
    assert type(with_own_layers(module, Example.of(module, X, None, False)).gru) is nn.GRU  # type: ignore[attr-defined]
