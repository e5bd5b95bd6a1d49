"""A module that answers equal questions differently, or moves, is refused before anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.example import Example, bind
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.repeatable import check_repeatable, draws_random_numbers
from rnncore.runtime.errors import ExportError
from tests.proof.modules import FEATURES, Counter, Noise, Remembers

X = torch.randn(2, 6, FEATURES, generator=torch.Generator().manual_seed(1))


def check(module: nn.Module) -> None:
    check_repeatable(module.eval(), bind(module, X))


@pytest.mark.parametrize("options", [{}, {"lengths": False}, {"verify": False}])
def test_random_modules_are_refused_before_they_are_traced(options: dict[str, bool], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="forward is random \\(called twice, it answers differently\\)"):
        export(Noise("always"), tmp_path / "m.onnx", X, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_moved_buffers_are_refused_by_name() -> None:
    with pytest.raises(ExportError, match="forward moves buffer 'calls': a second call would start"):
        check(Counter(buffer=True))


def test_moved_attributes_that_answers_depend_on_are_refused_by_name() -> None:
    with pytest.raises(ExportError, match="forward moves attribute 'calls': called twice on equal inputs"):
        check(Counter(buffer=False))


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
