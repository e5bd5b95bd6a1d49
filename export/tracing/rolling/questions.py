"""Questions about values that only tell the first step from the others: ``if torch.all(n == 0)`` becomes ``torch.where``.

A file cannot go one of two ways, but it can compute both and choose.  The module is recorded twice, once with every such
question answered yes and once no, and both logs are merged: what stands in one only is computed anyway, and where a later
operation reads another value in each, a choice between the two is put before it.  The choice is made for every row by itself,
as the module does for a row that is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import torch

from rnncore.export.tracing.callers import Line
from rnncore.export.tracing.rolling.log import SOURCES, Input, Log, Op, Ref, leaves, mapped
from rnncore.export.tracing.source_lines import READS_VALUE
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH

aten = torch.ops.aten
_BY_AXIS = {aten.all.default: aten.all.dim, aten.any.default: aten.any.dim}
_EQUAL = ("eq", "ne", "isnan", "isinf", "isfinite")
_PASS_FLAGS = (
    *("all", "any", "logical_not", "logical_and", "logical_or", "bitwise_not", "bitwise_and", "bitwise_or"),
    *("reshape", "select", "slice", "transpose", "t", "unsqueeze", "squeeze", "permute", "expand", "view", "clone"),
)
Answers = Mapping["Question", bool]


@dataclass(frozen=True)
class Question:
    """Where the code asks: the target of an operation without results, whose argument is what it asks about."""

    path: str
    lines: tuple[Line, ...]


_READERS = {
    "aten._local_scalar_dense.default": READS_VALUE,
    "aten.is_nonzero.default": "if",
    "aten.nonzero.default": "nonzero(), or a mask as an index",
}
"""What people write for operators that read a value."""


def refusal(what: Any, lines: Sequence[Line]) -> ExportError:
    """That a value is read in a way which no file can follow."""
    where = f":\n  {lines[-1]}" if lines else ""
    reader = _READERS.get(str(what), what)
    return ExportError(
        f"forward reads the value of a tensor ({reader}), which a file cannot know; torch.where does for an if, a mask such as "
        "torch.arange(n) < lengths[:, None] for a loop over lengths (an example of full rows makes a file of full rows)"
        f"{where}"
    )


def without_questions(logs: Sequence[Log], again: Callable[[int, Answers], Log]) -> tuple[Sequence[Log], bool]:
    """``logs`` with choices where the code asks, and whether it does.

    again: records the call behind log i once more, with these answers.

    Raises:
        ExportError: a question is about more than whether a step is the first; names the line of code.
    """
    questions = questions_of(logs)
    if not questions:
        return logs, False
    axes = {question: _batch_axis(question, logs) for question in questions}
    found = []
    for i, log in enumerate(logs):
        yes, no = (again(i, dict.fromkeys(questions, answer)) for answer in (True, False))
        found.append(_Merger(log, yes, no, axes).run())
    return found, True


def without_constant_questions(logs: Sequence[Log]) -> tuple[list[Log], bool]:
    """``logs`` without questions in which no input has a part, as solvers ask about their times, and whether there were any."""
    asked = questions_of(logs)
    constant = {q for q in asked if not any(_reads_inputs(log, op) for log in logs for op in log.ops if op.target == q)}
    if not constant:
        return list(logs), False
    return [log.keeping([i for i, op in enumerate(log.ops) if op.target not in constant]) for log in logs], True


def questions_of(logs: Sequence[Log]) -> list[Question]:
    """What the code asks in any of ``logs``, each once."""
    return list(dict.fromkeys(op.target for log in logs for op in log.ops if isinstance(op.target, Question)))


def asks_for_equality(question: Question, logs: Sequence[Log]) -> bool:
    """Whether a question is about numbers that equal others or flags of the caller, and not about which is larger.

    What equals nothing at some values of random numbers does so at nearly all; where a comparison turns is not seen by trying.
    """
    todo = [(log, op.args[0]) for log in logs for op in log.ops if op.target == question]
    while todo:
        log, value = todo.pop()
        if not isinstance(value, Ref):
            if log.dtype(value) != torch.bool:
                return False
            continue
        op = log.ops[value.op]
        if op.name not in _EQUAL:
            if op.name not in _PASS_FLAGS:
                return False
            todo += [(log, v) for v in leaves(op.everything) if isinstance(v, (Ref, *SOURCES))]
    return True


def without_asking(log: Log) -> Log:
    """``log`` without its questions, whose answers are known."""
    return log.keeping([i for i, op in enumerate(log.ops) if not isinstance(op.target, Question)])


def _batch_axis(question: Question, logs: Sequence[Log]) -> int:
    """Along which axis of the flags that it is about the rows lie."""
    shapes = []
    for log in logs:
        asked = [op for op in log.ops if op.target == question]
        answers = [op.kwargs["answer"] for op in asked]
        reduced = log.ops[asked[0].args[0].op] if asked and isinstance(asked[0].args[0], Ref) else None
        if reduced is None or reduced.target not in _BY_AXIS or answers[1:] != [not answers[0]] * (len(answers) - 1):
            raise refusal(aten._local_scalar_dense.default, question.lines)
        if len(answers) < 2 or _reads_inputs(log, reduced):
            raise refusal(aten._local_scalar_dense.default, question.lines)
        shapes.append((log.shape(reduced.args[0]), log.sizes[BATCH]))
    ranks = {len(shape) for shape, _ in shapes}
    axes = [axis for axis in range(min(ranks)) if all(shape[axis] == batch for shape, batch in shapes)]
    if len(ranks) > 1 or len(axes) != 1:
        raise refusal(aten._local_scalar_dense.default, question.lines)
    return axes[0]


def _reads_inputs(log: Log, op: Op) -> bool:
    """Whether what ``op`` gives depends on more than constants and weights."""
    todo, seen = list(leaves(op.everything)), set()
    while todo:
        value = todo.pop()
        if isinstance(value, Input):
            return True
        if isinstance(value, Ref) and value.op not in seen:
            seen.add(value.op)
            todo += leaves(log.ops[value.op].everything)
    return False


class _Merger:
    """Merges the logs in which all questions were answered with yes, and with no."""

    def __init__(self, asked: Log, yes: Log, no: Log, axes: Mapping[Question, int]) -> None:
        self._yes, self._no, self._axes = yes, no, axes
        self._log = Log(
            asked.sizes,
            [],
            [],
            {**asked.shapes, **yes.shapes, **no.shapes},
            {**asked.dtypes, **yes.dtypes, **no.dtypes},
        )
        self._from_yes: dict[int, int] = {}
        self._from_no: dict[int, int] = {}
        self._condition: tuple[Ref, Question] | None = None
        self._chosen: dict[tuple[Any, Any], Ref] = {}
        self._condition_of: dict[int, tuple[Ref, Question] | None] = {}

    def run(self) -> Log:
        """The merged log."""
        mine, other = _pieces(self._yes), _pieces(self._no)
        if [p[0] for p in mine] != [p[0] for p in other]:
            first = next((p[0] for p in (*mine, *other) if p[0] is not None), None)
            raise refusal(aten._local_scalar_dense.default, first.lines if first else ())
        for (question, a), (_, b) in zip(mine, other, strict=True):
            if question is not None:
                self._ask(question, self._yes.ops[a[0]], self._no.ops[b[0]])
                a, b = a[1:], b[1:]
            self._piece(a, b)
        for (name, a), (_, b) in zip(self._yes.outputs, self._no.outputs, strict=True):
            self._log.outputs.append(
                (name, self._one(self._moved(a, self._from_yes), self._moved(b, self._from_no), ()))
            )
        return self._log

    def _piece(self, a: Sequence[int], b: Sequence[int]) -> None:
        """What stands behind one question and before the next."""
        keys = [[_key(log.ops[i]) for i in own] for log, own in ((self._yes, a), (self._no, b))]
        matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
        for kind, a_from, a_to, b_from, b_to in matcher.get_opcodes():
            if kind == "equal":
                for i, j in zip(a[a_from:a_to], b[b_from:b_to], strict=True):
                    self._both(i, j)
                continue
            for own, log, table in (
                (a[a_from:a_to], self._yes, self._from_yes),
                (b[b_from:b_to], self._no, self._from_no),
            ):
                for i in own:
                    everything = mapped(log.ops[i].everything, partial(self._moved_by, table))
                    table[i] = self._add(log.ops[i], everything)
                    self._condition_of[table[i]] = self._condition

    def _both(self, i: int, j: int) -> None:
        mine, other = self._yes.ops[i], self._no.ops[j]
        a = mapped(mine.everything, lambda v: self._moved(v, self._from_yes))
        b = mapped(other.everything, lambda v: self._moved(v, self._from_no))
        chosen = iter([self._one(x, y, mine.lines) for x, y in zip(leaves(a), leaves(b), strict=True)])
        self._from_yes[i] = self._from_no[j] = self._add(mine, mapped(a, lambda _: next(chosen)))

    def _moved_by(self, table: Mapping[int, int], value: Any) -> Any:
        return self._moved(value, table)

    def _moved(self, value: Any, table: Mapping[int, int]) -> Any:
        return Ref(table[value.op], value.part) if isinstance(value, Ref) else value

    def _add(self, op: Op, everything: tuple[Any, ...]) -> int:
        args, named = op.with_arguments(everything)
        self._log.ops.append(replace(op, args=args, kwargs=named))
        return len(self._log.ops) - 1

    def _one(self, a: Any, b: Any, lines: Sequence[Line]) -> Any:
        """The value that is ``a`` where the answer is yes, ``b`` where it is no."""
        if a == b:
            return a
        if not all(isinstance(value, (Ref, *SOURCES)) for value in (a, b)):
            raise refusal(aten._local_scalar_dense.default, lines)
        known = [self._condition_of.get(v.op) for v in (a, b) if isinstance(v, Ref) and v.op in self._condition_of]
        condition = known[0] if known else self._condition
        shape, dtype = self._log.shape(a), self._log.dtype(a)
        if condition is None or shape != self._log.shape(b) or dtype != self._log.dtype(b) or len(set(known)) > 1:
            raise refusal(aten._local_scalar_dense.default, lines)
        flags, question = condition
        axis, rank = self._axes[question], len(self._log.shape(flags))
        if len(shape) != rank or shape[axis] != self._log.sizes[BATCH]:
            raise refusal(aten._local_scalar_dense.default, lines)
        key = (a, b)
        if key not in self._chosen:
            path = question.path
            op = Op(aten.where.self, (flags, a, b), {}, [shape], [dtype], False, question.lines, path)
            self._log.ops.append(op)
            self._chosen[key] = Ref(len(self._log.ops) - 1)
        return self._chosen[key]

    def _ask(self, question: Question, yes: Op, no: Op) -> None:
        value = self._one(
            self._moved(yes.args[0], self._from_yes), self._moved(no.args[0], self._from_no), question.lines
        )
        reduced = self._log.ops[value.op]
        flags, by_axis = reduced.args[0], _BY_AXIS.get(reduced.target)
        if by_axis is None:
            raise refusal(aten._local_scalar_dense.default, question.lines)
        shape = list(self._log.shape(flags))
        for axis in range(len(shape)):
            if axis != self._axes[question]:
                shape[axis] = 1
                op = Op(
                    by_axis, (flags, axis, True), {}, [tuple(shape)], [torch.bool], False, reduced.lines, reduced.path
                )
                self._log.ops.append(op)
                flags = Ref(len(self._log.ops) - 1)
        self._condition = (flags, question)


def _key(op: Op) -> tuple[Any, ...]:
    return (op.signature(strict=True), op.lines)


def _pieces(log: Log) -> list[tuple[Question | None, list[int]]]:
    """The operations by the question that stands before them, which comes first of its piece."""
    found: list[tuple[Question | None, list[int]]] = [(None, [])]
    for i, op in enumerate(log.ops):
        if isinstance(op.target, Question):
            found.append((op.target, []))
        found[-1][1].append(i)
    return found
