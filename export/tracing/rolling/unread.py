"""What forward computes and no answer is made of, such as a loss that was left out of the outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rnncore.export.tracing.rolling.log import Log, Op, Ref, leaves


def without_unread(logs: Sequence[Log]) -> list[Log]:
    """The logs of one module without operations that nothing is made of in any turn of any loop, at any size.

    One that is unread in the last turn only stays: without it that turn would be unlike the others.
    """
    alive = {_code(log.ops[i]) for log in logs for i in log.read()}
    if all(_code(op) in alive for log in logs for op in log.ops):
        return list(logs)
    makers: dict[Any, set[Any]] = defaultdict(set)  # the code whose results some code reads
    for log in logs:
        for op in log.ops:
            read_by = (_code(log.ops[value.op]) for value in leaves(op.everything) if isinstance(value, Ref))
            makers[_code(op)].update(read_by)
    todo = list(alive)
    while todo:
        more = makers[todo.pop()] - alive
        alive |= more
        todo += more
    return [log.keeping([i for i, op in enumerate(log.ops) if _code(op) in alive]) for log in logs]


def _code(op: Op) -> Any:
    """What operations of several turns have in common: the operator, and the lines of code that lead to it."""
    return str(op.target), op.lines
