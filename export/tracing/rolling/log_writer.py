"""A log written anew: operations are copied, or found by running them on tensors that stand for the values of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.callers import Callers
from rnncore.export.tracing.rolling.log import SOURCES, Log, Op, Ref, mapped
from rnncore.export.tracing.rolling.recording import Logger


class LogWriter:
    """Writes ``log``, of the sizes, inputs and weights of ``old``."""

    def __init__(self, old: Log) -> None:
        self.log = Log(old.sizes, [], [], dict(old.shapes), dict(old.dtypes))
        self.logger = Logger(self.log, Callers(nn.Identity()), {}, (), None)
        self._tensors: dict[Any, Tensor] = {}

    def copied(self, op: Op, everything: Any, change: Callable[[Any], Any]) -> list[Ref]:
        """The results of ``op`` with other arguments."""
        args, named = op.with_arguments(mapped(everything, change))
        self.log.ops.append(replace(op, args=args, kwargs=named))
        return [Ref(len(self.log.ops) - 1, part) for part in range(len(op.shapes))]

    @contextmanager
    def of(self, op: Op) -> Iterator[None]:
        """Operations that are written inside belong to the line of ``op``."""
        before = len(self.log.ops)
        yield
        for i in range(before, len(self.log.ops)):
            self.log.ops[i] = replace(self.log.ops[i], lines=op.lines, path=op.path)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """What ``function`` gives; the operations that it runs are written."""
        with torch.no_grad(), self.logger:
            return function(*args)

    def plain(self, value: Any) -> Any:
        """A value as a tensor, anything else as it is."""
        return self.tensor(value) if isinstance(value, (Ref, *SOURCES)) else value

    def tensor(self, value: Any) -> Tensor:
        """A tensor that stands for a value of the new log."""
        if value not in self._tensors:
            tensor = torch.zeros(self.log.shape(value), dtype=self.log.dtype(value))
            self.logger.name(tensor, value)
            self._tensors[value] = tensor
        return self._tensors[value]
