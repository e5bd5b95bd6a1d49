"""Questions about values that need not be asked: ``if torch.all(mask == 1): mask = None`` is quicker, and changes nothing.

A file goes one way.  Which one is right at all values is seen by trying: the module runs on values of many kinds, once as it
is and once with the question answered always the same.  An answer counts if that gives the module's own numbers each time,
and both answers have been its own at some time; or if the module fails with any other, as in a check of its inputs.  Outputs
that the example has not, as ``mask if mask.any() else None`` gives them at other values, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rnncore.export.tracing.callers import Callers, user_lines
from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.rolling.log import Log
from rnncore.export.tracing.rolling.questions import Answers, Question, asks_for_equality, questions_of
from rnncore.runtime.error_boundary import pass_on_interruption

_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)
_KINDS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    lambda value, generator: torch.zeros_like(value),
    lambda value, generator: torch.ones_like(value),
    lambda value, generator: torch.randint(2, value.shape, generator=generator).to(value.dtype),
    lambda value, generator: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value,
)
_MOST_QUESTIONS = 4


class _Asked(TorchDispatchMode):
    """Answers questions as told, others as they answer themselves, and notes what the latter are."""

    def __init__(self, callers: Callers, answers: Answers) -> None:
        super().__init__()
        self._callers, self._answers = callers, answers
        self.own: dict[Question, set[bool]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _READS or args[0].dtype != torch.bool:
            return result
        question = Question(self._callers.path(1), user_lines(1))
        self.own.setdefault(question, set()).add(bool(result))
        return self._answers.get(question, result)


class _Runs:
    """Runs a module on many values; what it gives is None where it fails."""

    def __init__(self, module: nn.Module, example: Example, tensors: Sequence[Tensor], seed: int) -> None:
        self._module, self._example = module, example
        self._values = list(_of_many_kinds(example, tensors, seed))
        self.own: dict[Question, set[bool]] = {}
        self._right = [self._run(values, {}) for values in self._values]
        self.names = list(self._right[0] or {})
        self.more = list(dict.fromkeys(n for own in self._right for n in own or {} if n not in self.names))

    def _run(self, values: Sequence[Tensor], answers: Answers) -> dict[str, Tensor] | None:
        asked = _Asked(Callers(self._module), answers)
        with unchanged(self._module), torch.no_grad():
            try:
                with asked:
                    outputs = self._example.call(self._module, [value.clone() for value in values])
            except Exception as failure:  # whatever it is: with these answers the module fails
                pass_on_interruption(failure)
                return None
        if not answers:
            for question, found in asked.own.items():
                self.own.setdefault(question, set()).update(found)
        return dict(named_tensors(outputs, ""))

    def _same(self, got: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
        """Whether two answers have the same outputs, or the first those of the example, and their numbers are the same."""
        if got.keys() != right.keys() and (list(got) != self.names or not got.keys() <= right.keys()):
            return False
        return agree(list(got.values()), [right[name] for name in got])

    def compared(self, answers: Answers) -> list[bool | None]:
        """For each of the values whether the answers change nothing; None if the module fails with them, and only then."""
        found: list[bool | None] = []
        for values, right in zip(self._values, self._right, strict=True):
            if right is not None:
                got = self._run(values, answers)
                found.append(None if got is None else self._same(got, right))
        return found


def find_settled(
    module: nn.Module, example: Example, logs: Sequence[Log], tensors: Sequence[Tensor], seed: int
) -> tuple[dict[Question, bool], list[str]]:
    """For each question in ``logs`` of ``module`` the answer that is always right, and outputs that are left out so.

    tensors: inputs of the module.  No answers at all if one question has none.
    """
    questions = questions_of(logs)
    if len(questions) > _MOST_QUESTIONS:
        return {}, []
    runs = _Runs(module, example, tensors, seed)
    answers = {question: _answer(question, runs, may_turn=asks_for_equality(question, logs)) for question in questions}
    settled = {question: answer for question, answer in answers.items() if answer is not None}
    if len(settled) < len(questions) or not all(runs.compared(settled)):
        return {}, []
    return settled, runs.more


def _answer(question: Question, runs: _Runs, *, may_turn: bool) -> bool | None:
    """The answer that is always right; ``may_turn``: also where the module itself answers now this, now that."""
    compared = {answer: runs.compared({question: answer}) for answer in (False, True)}
    right = [answer for answer, found in compared.items() if found and all(found)]
    own = runs.own.get(question, set())
    if len(own) == 2:
        return right[0] if right and may_turn else None
    fails = [answer for answer, found in compared.items() if found and all(one is None for one in found)]
    return next(iter(own)) if own and fails == [not next(iter(own))] else None


def _of_many_kinds(example: Example, tensors: Sequence[Tensor], seed: int) -> Iterator[list[Tensor]]:
    """``tensors``, and the same with each input in turn of another kind."""
    generator = torch.Generator().manual_seed(seed)
    yield list(tensors)
    for i, (own, value) in enumerate(zip(example.inputs, tensors, strict=True)):
        if own.name != example.lengths:
            for kind in _KINDS:
                yield [*tensors[:i], kind(value, generator), *tensors[i + 1 :]]


def agree(got: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Whether two answers of a module are the same but for rounding."""
    try:
        for a, b in zip(got, right, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)
    except (AssertionError, ValueError):
        return False
    return True
