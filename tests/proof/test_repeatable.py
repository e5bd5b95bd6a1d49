"""A module that answers equal questions differently, or moves, is refused before anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.example import Example
from rnncore.export.verification.random_numbers import draws_random_numbers
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.repeatable import Snapshot, check_carried, check_repeatable, same_answers
from rnncore.runtime.errors import ExportError
from tests.proof.modules import FEATURES, Counter, Noise, Remembers
from tests.tolerances import fixed

X = torch.randn(2, 6, FEATURES, generator=torch.Generator().manual_seed(1))


def check(module: nn.Module) -> None:
    check_repeatable(module.eval(), bind(module, X))


@pytest.mark.parametrize("options", [{}, {"lengths": False}, {"verify": False}])
def test_random_modules_are_refused_before_they_are_traced(options: dict[str, bool], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="forward is random \\(called twice, it answers differently\\)"):
        export(Noise("always"), tmp_path / "m.onnx", X, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("draw", "line"),
    [
        (torch.rand_like, True),
        (lambda x: random.random(), True),
        (nn.Dropout(0.5).train(), True),
        (lambda x: torch.from_numpy(np.random.rand(1)), False),
    ],
    ids=["torch", "python", "a layer of torch", "numpy"],
)
def test_what_draws_is_named_by_its_line(draw: Callable[[Tensor], Any], line: bool) -> None:
    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + draw(x)

    where = r" at test_repeatable\.py:\d+, in \S+" if line else ""
    with pytest.raises(ExportError, match=f"numbers{where}, or hand"):
        check(Draws())


def test_no_line_of_the_caller_is_taken_for_one_that_draws() -> None:
    noisy = nn.Sequential(nn.Dropout(0.5))
    noisy.eval = lambda: noisy.train()  # type: ignore[method-assign]
    with pytest.raises(ExportError, match="random numbers, or hand them in"):
        check(noisy)


def test_moved_buffers_are_refused_by_name() -> None:
    with pytest.raises(ExportError, match="forward moves buffer 'calls': a second call would start"):
        check(Counter(buffer=True))


def test_moved_attributes_that_answers_depend_on_are_refused_by_name() -> None:
    with pytest.raises(ExportError, match="forward moves attribute 'calls': called twice on equal inputs"):
        check(Counter(buffer=False))


def test_buffers_that_each_call_begins_anew_are_no_states() -> None:
    class Neurons(nn.Module):
        """Membranes are a buffer, as libraries of spiking neurons keep them, and a call begins with new ones."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("membrane", torch.zeros(0))

        def forward(self, x: Tensor, new: bool = True) -> Tensor:
            if new or self.membrane.shape != x[:, 0].shape:
                self.membrane = torch.zeros_like(x[:, 0])
            for t in range(x.shape[1]):
                self.membrane = 0.9 * self.membrane + x[:, t]
            return self.membrane

    check(Neurons())
    with pytest.raises(ExportError, match="forward moves buffer 'membrane'"):
        check_repeatable(Neurons().eval(), bind(Neurons(), {"x": X, "new": False}))


class Follows(nn.Module):
    """Equal questions in a row get equal answers; the one after another question does not."""

    def __init__(self) -> None:
        super().__init__()
        self.last = 0.0

    def forward(self, x: Tensor) -> Tensor:
        before, self.last = self.last, float(x[0, 0, 0])
        return x if before in (0.0, self.last) else x + before


def test_a_module_that_follows_its_last_question_is_refused() -> None:
    with pytest.raises(ExportError, match="forward moves attribute 'last'"):
        check(Follows())


class Goes(nn.Module):
    """Goes on where the last call ended, as language models trained by truncated backpropagation do."""

    def __init__(self, *, both: bool = False, start: float | None = 0.0) -> None:
        super().__init__()
        self.gru, self.rows = nn.GRU(FEATURES, 4, batch_first=True, bidirectional=both), 1
        self.hidden = None if start is None else [torch.full((1 + both, 1, 4), start)]

    def forward(self, x: Tensor) -> Tensor:
        if self.hidden is not None and self.rows < x.shape[0]:
            more = self.hidden[0].new_zeros(self.hidden[0].shape[0], x.shape[0] - self.rows, 4)
            self.hidden = [torch.cat([self.hidden[0], more], 1)]
        self.rows = x.shape[0]
        y, h = self.gru(x, None if self.hidden is None else self.hidden[0])
        self.hidden = [h.detach()]
        return y


@pytest.mark.parametrize("start", [0.0, None])
def test_an_attribute_that_starts_from_nothing_and_goes_on_is_a_state(start: float | None) -> None:
    module = Goes(start=start).eval()
    kept = check_repeatable(module, bind(module, X))
    assert "hidden" in kept and module.rows == 1
    check_carried(module, Example.of(module, X, None, "auto").in_parts(module), kept)


def test_an_attribute_is_no_state_of_what_reads_backward_or_has_begun() -> None:
    module = Goes(both=True).eval()
    kept = check_repeatable(module, bind(module, X))
    with pytest.raises(ExportError, match="forward moves attribute"):
        check_carried(module, Example.of(module, X, None, "auto").in_parts(module), kept)
    with pytest.raises(
        ExportError, match="'hidden' holds other numbers than zeros: if it is the end of an earlier call"
    ):
        check(Goes(start=0.5))


def test_a_state_in_an_attribute_is_one_of_the_file(tmp_path: Path) -> None:
    module = Goes().eval()
    report = export(module, tmp_path / "m.onnx", X)
    assert report.causal and module.rows == 1
    model, x = runtime.load(report.path), torch.randn(1, 9, FEATURES)
    stream = model.stream()
    with torch.no_grad():
        for part in x.split([1, 5, 3], 1):  # call after call, as training does
            np.testing.assert_allclose(stream.push(part[0].numpy()), module(part)[0], atol=fixed("float32"))


@pytest.mark.parametrize("module", [Remembers(), Noise("training"), nn.GRU(FEATURES, 5, 2, dropout=0.5)])
def test_what_only_remembers_or_is_random_in_training_is_no_matter(module: nn.Module) -> None:
    check(module)


def test_chance_that_hardly_ever_shows_is_seen_in_the_program(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"forward is random .*aten\.rand_like.* at modules\.py:\d+, in "):
        export(Noise("rarely").eval(), tmp_path / "m.onnx", X)


def test_chance_at_other_sizes_only_is_seen_by_the_reference() -> None:
    module = Noise("long", most=40).eval()
    example = Example.of(module, X, None, "auto")
    reference = Reference(module, example)
    reference([X])
    with pytest.raises(ExportError, match=r"forward is random .*draws random numbers at inputs of \[1, 41, 3\]"):
        reference([torch.randn(1, 41, FEATURES)])


def test_noise_that_no_answer_depends_on_is_none(tmp_path: Path) -> None:
    """Drawn in every call, for training only.  What Python draws a program does not show: there the most unusual draws decide."""

    class Idle(nn.Module):
        def __init__(self, draw: Callable[[], Any]) -> None:
            super().__init__()
            self.gru, self._draw = nn.GRU(FEATURES, 4, batch_first=True), draw

        def forward(self, x: Tensor) -> Tensor:
            noise = self._draw()
            y: Tensor = self.gru(x)[0]
            return y + noise if self.training else y

    class Heeded(Idle):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 if self._draw() > 1e-9 else 2)

    assert export(Idle(lambda: torch.randn(1)).eval(), tmp_path / "m.onnx", X).causal
    assert export(Idle(random.random).eval(), tmp_path / "m.onnx", X).causal
    with pytest.raises(ExportError, match="forward is random"):
        export(Heeded(random.random).eval(), tmp_path / "m.onnx", X)


def test_chance_from_elsewhere_is_seen_when_asked_again() -> None:
    """No generator of torch, numpy or Python moves."""
    generator = torch.Generator().manual_seed(0)

    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + (torch.rand(1, generator=generator) if x.shape[1] > 40 else 0)

    module = Own()
    example = Example.of(module, X, None, "auto")
    with pytest.raises(ExportError, match="forward is random"):
        Reference(module, example).check_again([torch.randn(1, 41, FEATURES)])


def test_other_threads_may_draw_now_and_then() -> None:
    drawn = iter([True, False])
    assert not draws_random_numbers(lambda: torch.rand(1) if next(drawn) else None)
    assert draws_random_numbers(lambda: torch.rand(1))


@pytest.mark.parametrize("kind", ["random", "other code", "honest"])
def test_float64_excuses_rounding_only(kind: str) -> None:
    """A model that amplifies rounding is excused; one whose float64 is random, or does something else, is not."""

    class Amplifies(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if kind == "random" and x.dtype == torch.float64:
                x = x + 1e-2 * torch.randn_like(x)
            if kind == "other code" and x.dtype == torch.float64:
                return x * 1.5
            if kind == "other code":
                return x
            return torch.sin(x * 1e6)

    module = Amplifies()
    reference = Reference(module, Example.of(module, X, None, "auto"))
    expected = reference([X])
    got = [Reference(module, Example.of(module, X, None, "auto"))([X * (1 + 1e-7)])[0]]
    if kind == "other code":
        got = [expected[0] * 0.9]
    assert reference.excuses([X], got, expected) is (kind == "honest")


def test_code_of_float32_only_is_not_excused() -> None:
    """Whatever the module raises in float64, as torch's layers raise ValueError for inputs of another kind than their weights."""

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(FEATURES, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x.float())[0]

    module = Single().eval()
    reference = Reference(module, Example.of(module, X, None, "auto"))
    expected = reference([X])
    assert not reference.excuses([X], [expected[0] + 1], expected)


@pytest.mark.parametrize(("times", "excused"), [(15, True), (25, False), (-15, True), (-25, False)])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_file_may_be_so_much_further_from_float64_than_pytorch(times: float, excused: bool, scale: float) -> None:
    class Amplifies(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scale * torch.sin(x[:1, :1, :1] * 1e6)

    module = Amplifies()
    reference = Reference(module, Example.of(module, X, None, "auto"))
    expected, exact = reference([X])[0], module(X.double()).numpy()
    got = exact + times * (expected - exact)
    assert reference.excuses([X], [got], [expected]) is excused
    assert not reference.excuses([X], [exact], [exact + 1000 * (expected - exact)]), "more than rounding moves it"


# ------------------------------------------------------------------------------------------------- equal, and unmoved
EPS = torch.finfo(torch.float32).eps
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([1.0, 8.0], [1.0, 8.0], True),
        ([1.0, 8.0], [1.0 + 63 * 8 * EPS, 8.0], True),  # rounding of the largest
        ([1.0, 8.0], [1.0 + 66 * 8 * EPS, 8.0], False),
        ([0.0, 0.1], [60 * EPS, 0.1], True),  # which is never less than 1
        ([0.0, 0.1], [68 * EPS, 0.1], False),
        ([NAN, INF, -INF], [NAN, INF, -INF], True),
        ([NAN, 1.0], [NAN, 1.0 + EPS], True),
        ([NAN, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [1.0, NAN], False),
        ([INF, 1.0], [-INF, 1.0], False),
        ([1.0], [1.0, 1.0], False),
    ],
)
def test_answers_are_the_same_but_for_rounding(first: list[float], second: list[float], same: bool) -> None:
    a, b = torch.tensor(first), torch.tensor(second)
    assert same_answers([a, a], [a, b]) is same and same_answers([b], [a]) is same
    assert not same_answers([a], [a, a]) and not same_answers([a], [a.double()])
    assert same_answers([], [])


def test_whole_numbers_are_the_same_or_not() -> None:
    a = torch.tensor([1 << 40, 2])
    assert same_answers([a], [a.clone()]) and not same_answers([a], [a + 1])
    assert not same_answers([a.bool()], [~a.bool()])


def test_half_precision_rounds_more() -> None:
    a = torch.ones(3, dtype=torch.float16)
    assert same_answers([a], [a + 0.05]) and not same_answers([a], [a + 0.1])


class Holds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("odd", torch.tensor([NAN]))
        self.number: object = 1
        self.text, self.pair, self.names, self.seen = "a", (1, [2.0]), {"a": 1}, torch.zeros(2)
        self.anything, self._own = object(), 1


MOVES: dict[str, tuple[Callable[[Any], object], list[str], list[str]]] = {
    "nothing": (lambda m: None, [], []),
    "a buffer": (lambda m: m.mean.add_(1), ["mean"], []),
    "a buffer that is gone": (lambda m: delattr(m, "mean"), ["mean"], []),
    "a number": (lambda m: setattr(m, "number", 2), [], ["number"]),
    "its type": (lambda m: setattr(m, "number", True), [], ["number"]),
    "a text": (lambda m: setattr(m, "text", "b"), [], ["text"]),
    "in a list": (lambda m: m.pair[1].append(1), [], ["pair"]),
    "in a dict": (lambda m: m.names.update(b=2), [], ["names"]),
    "a tensor": (lambda m: m.seen.add_(1), [], ["seen"]),
    "its dtype": (lambda m: setattr(m, "seen", m.seen.double()), [], ["seen"]),
    "a new one": (lambda m: setattr(m, "more", 1), [], ["more"]),
    "of a part": (lambda m: setattr(m.part, "count", 1), [], ["part.count"]),
    "one's own": (lambda m: setattr(m, "_own", 2), [], ["_own"]),
    "torch's own": (lambda m: setattr(m, "_is_full_backward_hook", True), [], []),
    "no plain data": (lambda m: setattr(m, "anything", object()), [], []),
}


@pytest.mark.parametrize("what", MOVES)
def test_what_moved_is_named(what: str) -> None:
    move, buffers, attributes = MOVES[what]
    module = Holds()
    before = Snapshot.of(module)
    move(module)
    assert before.moved_buffers(module) == buffers and before.moved_attributes(module) == attributes


def test_more_than_one_moved_buffer_is_counted() -> None:
    class Two(Counter):
        def before(self, x: Tensor) -> Tensor:
            self.other = self.other + 1
            return super().before(x)

    module = Two(buffer=True)
    module.register_buffer("other", torch.zeros(1))
    with pytest.raises(ExportError, match=r"^forward moves buffer 'calls' and 1 more: a second call would start"):
        check(module)


class CountsAndDraws(nn.Module):
    """Counts its calls, in a buffer or in an attribute; what makes its answers differ is chance."""

    def __init__(self, *, in_buffer: bool) -> None:
        super().__init__()
        self.layer, self.calls = nn.GRU(FEATURES, 4, batch_first=True), 0
        self.register_buffer("step", torch.zeros(1))
        self.in_buffer = in_buffer

    def forward(self, x: Tensor) -> Tensor:
        if self.in_buffer:
            self.step += 1
        else:
            self.calls += 1
        return self.layer(nn.functional.dropout(x, 0.5, training=True))[0]


@pytest.mark.parametrize("in_buffer", [True, False])
def test_chance_is_named_where_something_moves_as_well(in_buffer: bool) -> None:
    with pytest.raises(ExportError, match=r"forward is random.* draws random numbers at test_repeatable\.py"):
        check(CountsAndDraws(in_buffer=in_buffer))
