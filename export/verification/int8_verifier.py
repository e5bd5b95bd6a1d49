"""Run an int8 file against PyTorch loosely, and against itself tightly.

The graph that int8 is made from has passed the ordinary verification in float32, so gates, lengths and states are right.
What is left to check is what rounding does: how far the answers are from PyTorch's (:data:`INT8_RMS`), and that an answer
still depends on nothing but its own row and its own past (:data:`INT8_SELF`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rnncore.export.tracing.example import Axes, Example
from rnncore.export.verification.accuracy import AccuracyReport, compare
from rnncore.export.verification.bench import Question
from rnncore.export.verification.cases import Case, Verdict
from rnncore.export.verification.reference import Array, Reference, error
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime import Model, load
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.comparison import rms_error

INT8_RMS = 0.1
"""Largest root mean square of the error, as a part of that of PyTorch's answers.

A weight of 7 bits is off by max / 64 / sqrt(12), an activation of 8 bits by max / 127 / sqrt(12); where the largest number is
3 times the typical one, a product is off by 1.5 % of its size, whatever its width.  Layers and time steps add up to a few
times that (0.4 to 2.2 % was seen for layers and stacks of all cells); scales of the wrong columns, wrapped sums or a lost
scale are off by 20 % and more.
"""
INT8_SELF = 2e-3
"""Largest error of chunks against the whole and of a padded row against the row alone, as a part of the largest output.

Integer sums are the same in any order, so most such answers agree to the last bit.  What is left in float32 may differ in its
last bits and tip the rounding of an activation: 1 / 127 of one number, times a weight.
"""


class Int8Verifier(Verifier):
    """The cases of :class:`Verifier`, judged for int8."""

    def verify(self, path: Path) -> Verdict:
        """See :meth:`Verifier.verify`."""
        self._file = load(path)
        self.tolerance = INT8_RMS
        return super().verify(path)

    def judge(self, question: Question, model: Model, got: list[Array]) -> Case:
        """See :meth:`Bench.judge`."""
        if question.kind == "whole" or question.valid is not None:
            expected = self.reference(question.tensors)
            if question.valid is not None:
                got, expected = (self.valid(model, outputs, question) for outputs in (got, expected))
            far = max(rms_error([pair]) for pair in zip(got, expected, strict=True))
            passed, note = far <= INT8_RMS, f"int8, rms error {far:.1%} of the values"
        else:
            expected = self.run(self._file, question.tensors)
            far = max(error(g, e)[1] for g, e in zip(got, expected, strict=True))
            passed, note = far <= INT8_SELF, "against the int8 file run on it alone and in one piece"
        errors = [error(g, e) for g, e in zip(got, expected, strict=True)]
        worst = (max(e[0] for e in errors), max(e[1] for e in errors))
        return question.case(*worst, passed, "" if passed else note)


def measure_accuracy(
    path: Path, module: nn.Module, example: Example, data: Sequence[Sequence[Tensor]] | None
) -> AccuracyReport:
    """The int8 file at ``path`` against ``module`` on ``data``, the tensors of each call; None for the example alone."""
    model, reference = load(path), Reference(module, example)
    calls = [[i.value for i in example.inputs]] if data is None else data
    got: list[list[Array]] = []
    expected: list[list[Array]] = []
    ids: list[Array | None] = []
    timed = [i.name for i in example.inputs if i.name != example.lengths and i.name not in example.states]
    for tensors in map(example.started, calls):
        pairs = zip(example.names, tensors, strict=True)
        named = {name: t.cpu().numpy() for name, t in pairs if name not in example.states}
        own = named.pop(example.lengths, None) if example.lengths else None
        result = model.run(**named, lengths=own)
        outputs = model.signature.outputs
        got.append([result[port.name] for port in outputs] if isinstance(result, dict) else [result])
        expected.append(reference(tensors))
        first = named[timed[0]]
        ids.append(first if len(timed) == 1 and first.dtype.kind in "iu" and own is None else None)
    return AccuracyReport(
        len(calls),
        data is not None,
        tuple(
            compare(port.name, ids, [g[k] for g in got], [e[k] for e in expected])
            for k, port in enumerate(model.signature.outputs)
        ),
    )


def read_data(
    module: nn.Module, example: Example, data: Sequence[Any], axes: Axes | None, lengths: str | bool
) -> list[list[Tensor]]:
    """The tensors of each call in ``data``; errors say which one does not fit."""
    calls = []
    for number, call in enumerate(data):
        try:
            read = Example.of(module, call, axes, lengths)
        except InputError as problem:
            raise InputError(f"accuracy_data[{number}]: {problem}") from None
        if read.names != example.names:
            raise InputError(f"accuracy_data[{number}] has the inputs {read.names}, the example has {example.names}")
        calls.append([i.value for i in read.inputs])
    if not calls:
        raise InputError("accuracy_data is empty: hand in at least one call of the module, or leave it out")
    return calls
