"""What is done to recordings before loops are looked for: constants of sizes, resizes at some sizes only, questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncore.export.tracing.callers import Line
from rnncore.export.tracing.rolling.constants_of_sizes import with_sizes_in_constants
from rnncore.export.tracing.rolling.log import Constant, Input, Log, Op, Ref
from rnncore.export.tracing.rolling.optional_resizes import resized_everywhere
from rnncore.export.tracing.rolling.questions import (
    Question,
    asks_for_equality,
    questions_of,
    without_asking,
    without_constant_questions,
    without_questions,
)
from rnncore.export.tracing.source_lines import READS_VALUE
from rnncore.runtime.errors import ExportError

aten = torch.ops.aten
SIZES = ((3, 6), (3, 7), (4, 6), (5, 12))
LINE = Line("model.py", 7, "forward", 12)


def made(op: Op, values: Sequence[Any]) -> Any:
    """What an operation of a log gives."""

    def shown(value: Any) -> Any:
        if isinstance(value, tuple):
            return [shown(part) for part in value]
        if isinstance(value, Ref):
            return values[value.op]
        return value.tensor() if isinstance(value, Constant) else value

    return op.target(*map(shown, op.args), **op.kwargs)


# ----------------------------------------------------------------------------------------------------------- constants
def logs_of(constant: Callable[[int, int], Tensor], *, also: Any = None) -> list[Log]:
    found = []
    for b, t in SIZES:
        value = Constant.of(constant(b, t))
        args = (Input(0), value, *(() if also is None else (Constant.of(also),)))
        ops = [
            Op(aten.add.Tensor, args, {}, [value.shape], [value.dtype], False, (LINE,)),
            Op(aten.mul.Tensor, (Ref(0), value), {"alpha": Ref(0)}, [value.shape], [value.dtype], False),
        ]
        shapes, dtypes = {value: value.shape}, {value: value.dtype}
        found.append(Log({"batch": b, "time": t}, ops, [("y", Ref(1)), ("z", value)], shapes, dtypes))
    return found


WRITTEN: dict[str, tuple[Callable[[int, int], Tensor], list[Any]]] = {
    "one number": (lambda b, t: torch.full((b,), 7), [aten.full.default]),
    "a truth": (lambda b, t: torch.ones(b, t, dtype=torch.bool), [aten.full.default]),
    "floats": (lambda b, t: torch.full((1, t), 0.25, dtype=torch.float64), [aten.full.default]),
    "the same in each row": (lambda b, t: torch.tensor([[1, 5, 2]]).expand(b, 3), [aten.expand.default]),
    "along two axes": (lambda b, t: torch.tensor([1.5, 2])[None, :, None].expand(b, 2, t), [aten.expand.default]),
    "counted": (lambda b, t: torch.arange(t), [aten.arange.start_step, aten.reshape.default, aten.add.Tensor]),
    "backwards": (
        lambda b, t: 4 - 3 * torch.arange(t),
        [aten.arange.start_step, aten.reshape.default, aten.add.Tensor],
    ),
    "in floats": (
        lambda b, t: (torch.arange(t) * 2 + 1).float()[:, None],
        [aten.arange.start_step, aten.reshape.default, aten.add.Tensor],
    ),
    "from two starts": (
        lambda b, t: torch.tensor([[4], [9]]) + torch.arange(t),
        [aten.arange.start_step, aten.reshape.default, aten.add.Tensor],
    ),
    "in each row": (
        lambda b, t: torch.arange(3, 3 + t).expand(b, t),
        [aten.arange.start_step, aten.reshape.default, aten.add.Tensor, aten.expand.default],
    ),
    "rows": (
        lambda b, t: torch.arange(b)[:, None].expand(b, t) * 5,
        [aten.arange.start_step, aten.reshape.default, aten.add.Tensor, aten.expand.default],
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_constants_of_sizes_are_computed(name: str) -> None:
    constant, targets = WRITTEN[name]
    logs, follows = with_sizes_in_constants(logs_of(constant, also=torch.tensor([3, 4, 5])))
    assert follows and len({str([op.signature(strict=True) for op in log.ops]) for log in logs}) == 1
    for (b, t), log in zip(SIZES, logs, strict=True):
        more = len(targets)
        assert [op.target for op in log.ops] == [*targets, aten.add.Tensor, aten.mul.Tensor]
        assert all(op.lines == (LINE,) for op in log.ops[:more]) and log.outputs == [
            ("y", Ref(more + 1)),
            ("z", Ref(more - 1)),
        ]
        values: list[Any] = []
        for op in log.ops[:more]:
            values.append(made(op, values))
            assert tuple(values[-1].shape) == op.shapes[0] and values[-1].dtype == op.dtypes[0]
        wanted = constant(b, t)
        assert torch.equal(values[-1], wanted) and values[-1].dtype == wanted.dtype
        assert log.ops[more].args == (Input(0), Ref(more - 1), Constant.of(torch.tensor([3, 4, 5])))
        assert log.ops[more + 1].args == (Ref(more), Ref(more - 1)) and log.ops[more + 1].kwargs == {"alpha": Ref(more)}
        held = [value for op in log.ops for value in op.args if isinstance(value, Constant)]
        assert all(value in log.shapes for value in held if value.shape != (3,) or value.numbers != (3, 4, 5))


def test_constants_that_follow_no_rule_are_left() -> None:
    for constant in (
        lambda b, t: torch.tensor([t, 2 * t, b]),
        lambda b, t: torch.arange(t) ** 2,
        lambda b, t: torch.arange(t) * 0.5,
        lambda b, t: torch.arange(t) + b,
        lambda b, t: torch.arange(t) % 2 == 0,
    ):
        logs, follows = with_sizes_in_constants(logs_of(constant))
        assert follows and [op.target for log in logs for op in log.ops] == [aten.add.Tensor, aten.mul.Tensor] * 4
    same = logs_of(lambda b, t: torch.arange(5))
    assert with_sizes_in_constants(same) == (same, False)
    fewer = [*logs_of(lambda b, t: torch.arange(t))[:3], Log({"batch": 5, "time": 12})]
    assert with_sizes_in_constants(fewer) == (fewer, False)


# -------------------------------------------------------------------------------------------------------------- resizes
def resizing(time: int, *resize: Op, size: int | None = None) -> Log:
    """Some operations on x [3, time], which a tanh reads, and the output is that of two more."""
    size = time if size is None else size
    last: Any = Ref(len(resize) - 1) if resize else Input(0)
    n = len(resize)
    ops = [
        *resize,
        Op(aten.tanh.default, (last,), {}, [(3, size)], [torch.float32], False, (LINE,)),
        Op(aten.reshape.default, (Ref(n), (-1, 3)), {}, [(size, 3)], [torch.float32], False),
        Op(aten.exp.default, (Ref(n + 1),), {}, [(size, 3)], [torch.float32], False),
    ]
    return Log({"batch": 3, "time": time}, ops, [("y", Ref(n + 2))], {Input(0): (3, time)}, {Input(0): torch.float32})


def cut(time: int, size: int, *args: Any) -> Op:
    return Op(aten.slice.Tensor, (Input(0), 1, 0, size, *args), {}, [(3, size)], [torch.float32], False, (LINE,))


def pad(time: int, size: int, *more: Any) -> Op:
    args = (Input(0), (0, size - time), *more)
    return Op(aten.constant_pad_nd.default, args, {}, [(3, size)], [torch.float32], False)


def run(log: Log, x: Tensor) -> Tensor:
    values: list[Any] = []
    for op in log.ops:
        shown = [x if value == Input(0) else value for value in op.args]
        values.append(made(Op(op.target, tuple(shown), op.kwargs, op.shapes, op.dtypes, op.several), values))
        assert tuple(values[-1].shape) == op.shapes[0]
    return values[log.outputs[0][1].op]


def same(log: int, value: Any, other: int) -> Any:
    return value


def test_what_is_cut_at_some_sizes_is_cut_at_all() -> None:
    logs = [resizing(time, *([cut(time, time - 1)] if time % 2 else []), size=time // 2 * 2) for time in (6, 7, 8, 9)]
    found = resized_everywhere(logs, [0] * 4, same)
    assert found is not None
    assert len({str([op.signature(strict=True) for op in log.ops]) for log in found}) == 1
    for log, time in zip(found, (6, 7, 8, 9), strict=True):
        assert [op.name for op in log.ops] == ["slice", "tanh", "reshape", "exp"]
        assert log.ops[0].args == (Input(0), 1, 0, time // 2 * 2) and log.ops[0].lines == (LINE,)
        assert log.ops[2].args == (Ref(1), (time // 2 * 2, 3)) and log.outputs == [("y", Ref(3))]
        x = torch.randn(3, time)
        assert torch.equal(run(log, x), torch.exp(torch.tanh(x[:, : time // 2 * 2]).reshape(-1, 3)))


@pytest.mark.parametrize("filled", [0.0, 2.5])
@pytest.mark.parametrize("by_cat", [False, True])
def test_what_is_padded_at_some_sizes_is_padded_at_all(filled: float, by_cat: bool) -> None:
    def padded(time: int, size: int) -> list[Op]:
        if not by_cat:
            return [pad(time, size, *([filled] if filled else []))]
        more = (3, size - time)
        full = Op(aten.full.default, (more, filled), {}, [more], [torch.float32], False)
        return [full, Op(aten.cat.default, ((Input(0), Ref(0)), 1), {}, [(3, size)], [torch.float32], False)]

    sizes = {6: 6, 7: 9, 8: 9, 9: 9}
    logs = [resizing(t, *(padded(t, size) if size > t else []), size=size) for t, size in sizes.items()]
    found = resized_everywhere(logs, [0] * 4, same)
    assert found is not None
    for log, (time, size) in zip(found, sizes.items(), strict=True):
        assert [op.name for op in log.ops] == ["constant_pad_nd", "slice", "tanh", "reshape", "exp"]
        assert log.ops[0].args == (Input(0), (0, 9), filled), "as much as the shortest that there is could need"
        x = torch.randn(3, time)
        wanted = torch.nn.functional.pad(x, (0, size - time), value=filled)
        assert torch.equal(run(log, x), torch.exp(torch.tanh(wanted).reshape(-1, 3)))


def test_other_differences_are_no_resizes() -> None:
    def none(*logs: Log, at: Sequence[int] = (0, 0), known: Any = same) -> bool:
        return resized_everywhere(logs, at, known) is None

    plain = resizing(6)
    assert none(plain, resizing(8)) and none(plain, resizing(7, cut(7, 6, 2), size=6)), "every second one"
    from_one = Op(aten.slice.Tensor, (Input(0), 1, 1, 7), {}, [(3, 6)], [torch.float32], False)
    assert none(plain, resizing(7, from_one, size=6))
    in_front = Op(aten.constant_pad_nd.default, (Input(0), (2, 0)), {}, [(3, 9)], [torch.float32], False)
    assert none(plain, resizing(7, in_front, size=9)) and not none(plain, resizing(7, pad(7, 9), size=9))
    read_later = resizing(7, cut(7, 6), size=6)
    read_later.ops.append(Op(aten.add.Tensor, (Ref(3), Input(0)), {}, [(3, 6)], [torch.float32], False))
    assert none(plain, read_later)
    as_output = resizing(7, cut(7, 6), size=6)
    as_output.outputs.append(("x", Input(0)))
    assert none(plain, as_output)
    other = resizing(7, Op(aten.neg.default, (Input(0),), {}, [(3, 7)], [torch.float32], False))
    assert none(plain, other) and none(plain, resizing(7, cut(7, 6), size=6), known=lambda *_: None)
    turned = Op(aten.slice.Tensor, (Input(0), 1, 0, 6), {}, [(2, 6)], [torch.float32], False)
    assert none(plain, resizing(7, turned, size=6)), "another axis has changed as well"


# ------------------------------------------------------------------------------------------------------------ questions
ASKED = Question("cell", (LINE,))


def asking(batch: int, answers: Sequence[bool], natural: Sequence[bool] = (True, False, False)) -> Log:
    """``h = a`` at first and ``h = b`` later, where ``all(h == 0)`` is asked in each of three steps; x is [batch, 4]."""
    ops: list[Op] = []

    def add(
        target: Any, *args: Any, shape: tuple[int, ...] = (batch, 4), dtype: Any = torch.float32, **named: Any
    ) -> Ref:
        shapes, dtypes = ([shape], [dtype]) if not isinstance(target, Question) else ([], [])
        ops.append(Op(target, args, named, shapes, dtypes, False, (LINE,), "cell"))
        return Ref(len(ops) - 1)

    h = add(aten.full.default, (batch, 4), 0.0)
    for k in range(3):
        zero = add(aten.eq.Scalar, h, 0, dtype=torch.bool)
        every = add(aten.all.default, zero, shape=(), dtype=torch.bool)
        add(ASKED, every, answer=natural[k])
        h = add(aten.neg.default, Input(0)) if answers[k] else add(aten.add.Tensor, h, Input(0))
        h = add(aten.tanh.default, h)
    return Log({"batch": batch, "time": 3}, ops, [("y", h)], {Input(0): (batch, 4)}, {Input(0): torch.float32})


def test_questions_that_tell_the_first_step_become_choices() -> None:
    logs = [asking(batch, (True, False, False)) for batch in (3, 5)]
    assert questions_of(logs) == [ASKED] and asks_for_equality(ASKED, logs)

    def again(i: int, answers: Any) -> Log:
        return asking((3, 5)[i], [answers[ASKED]] * 3, [answers[ASKED]] * 3)

    # The second question depends on the input, so that only the first is one about the step.
    found, asks = without_questions(logs, again)
    assert asks
    for log, batch in zip(found, (3, 5), strict=True):
        x = torch.randn(batch, 4)
        h = torch.zeros(batch, 4)
        for k in range(3):
            h = torch.tanh(-x if k == 0 else h + x)
        assert torch.equal(run_log(log, x), h) and not questions_of([log])
        assert "where" in [op.name for op in log.ops]


def run_log(log: Log, x: Tensor) -> Tensor:
    values: list[Any] = []
    for op in log.ops:
        shown = tuple(x if value == Input(0) else value for value in op.args)
        if op.target is aten.full.default:
            shown = (list(op.args[0]), op.args[1])
        values.append(made(Op(op.target, shown, op.kwargs, op.shapes, op.dtypes, op.several), values))
    return values[log.outputs[0][1].op]


def test_questions_about_more_are_refused() -> None:
    says = f"forward reads the value of a tensor ({READS_VALUE}), which a file cannot know; torch.where does "
    says += (
        "for an if, a mask such as torch.arange(n) < lengths[:, None] for a loop over lengths (an example of full rows "
    )
    says += 'makes a file of full rows):\n  File "model.py", line 7, in forward'
    for natural in ((True, True, False), (True, False, True), (True,)):
        logs = [asking(3, (True, False, False), (*natural, False, False)[:3])]
        if len(natural) == 1:
            logs = [Log(logs[0].sizes, logs[0].ops[:4], [], logs[0].shapes, logs[0].dtypes)]
        with pytest.raises(ExportError) as caught:
            without_questions(logs, lambda i, answers, logs=logs: logs[i])  # type: ignore[misc]
        assert str(caught.value) == says
    square = [asking(4, (True, False, False))]
    with pytest.raises(ExportError):  # which axis is that of the rows?
        without_questions(square, lambda i, answers: square[i])
    assert without_questions([], lambda i, answers: square[0]) == ([], False)


def test_questions_without_inputs_are_answered_once_and_for_all() -> None:
    flag = Constant.of(torch.tensor([True]))

    def log(of: Any) -> Log:
        ops = [
            Op(aten.any.default, (of,), {}, [()], [torch.bool], False),
            Op(ASKED, (Ref(0),), {"answer": True}, [], [], False),
            Op(aten.neg.default, (Input(0),), {}, [(3,)], [torch.float32], False),
        ]
        dtypes = {flag: torch.bool, Input(0): torch.float32, Input(1): torch.bool}
        return Log({"batch": 3}, ops, [("y", Ref(2))], {}, dtypes)

    found, constant = without_constant_questions([log(flag), log(flag)])
    assert constant and [op.name for op in found[0].ops] == ["any", "neg"] and found[0].outputs == [("y", Ref(1))]
    assert without_constant_questions([log(flag), log(Input(1))])[1] is False
    assert [op.name for op in without_asking(log(Input(1))).ops] == ["any", "neg"]
    assert asks_for_equality(ASKED, [log(Input(1))]) and not asks_for_equality(ASKED, [log(Input(0))])
    other = log(Input(1))
    other.ops[0] = Op(aten.gt.Scalar, (Input(1), 0), {}, [()], [torch.bool], False)
    assert not asks_for_equality(ASKED, [other]), "which is larger"
    other.ops[0] = Op(aten.eq.Scalar, (Input(0), 0), {}, [()], [torch.bool], False)
    assert asks_for_equality(ASKED, [other])
