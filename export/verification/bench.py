"""A file and its module side by side: ask both, cut their answers alike, and compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncore.export.tracing.example import Example
from rnncore.export.verification.cases import ONLY, Case, why_refused
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.reference import Array, Reference, error, first_line
from rnncore.runtime import Model, ModelFileError, load
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.format.axes import base_of, known_size
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.tensors.specs import Slot


@dataclass(frozen=True)
class Question:
    """What a comparison is about; see :class:`rnncore.export.verification.cases.Case`.

    tensors: inputs of the module, lengths included if it has its own.  valid: steps of each row that count; None for all.
    may_be_shorter: where the module's answer ends, that of the file may go on with zeros.
    """

    kind: str
    batch: int
    time: int
    tensors: list[Tensor]
    detail: str = ""
    valid: Array | None = None
    may_be_shorter: bool = False

    def case(self, max_abs: float, max_rel: float, passed: bool, note: str = "") -> Case:
        """What came out of it."""
        return Case(self.kind, self.batch, self.time, self.detail, max_abs, max_rel, passed, note)

    def failed(self, note: str) -> Case:
        """There is no answer to compare."""
        return self.case(math.inf, math.inf, False, note)


class Bench:
    """Compares files with a reference; every input comes from ``seed``."""

    def __init__(self, reference: Reference, example: Example, judge: Judge, seed: int) -> None:
        self.reference = reference
        self.example = example
        self.judge_by = judge
        self.seed = seed
        self.tolerance = judge.tolerance
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, batch: int, time: int) -> list[Tensor]:
        """Inputs of the given sizes, all lengths full."""
        return self.example.draw({BATCH: batch, TIME: time}, self.generator)

    def near(self, batch: int, time: int) -> tuple[int, int]:
        """The sizes that the module takes, in place of these: those themselves, if it takes any."""
        sizes = self.example.fit({BATCH: batch, TIME: time})
        return sizes[BATCH], sizes[TIME]

    def takes(self, batch: int, time: int) -> bool:
        """Whether batches of exactly this size are within the limits of the module."""
        extents = self.example.extents
        return all(extents[name].takes(n) for name, n in ((BATCH, batch), (TIME, time)) if name in extents)

    def asked(self, model: Model, question: Question, lengths: Tensor | None = None) -> Case:
        """Ask the file for whole sequences, and judge what it answers."""
        try:
            got = self.run(model, question.tensors, lengths)
        except InputError as refusal:
            return question.failed(why_refused(refusal))
        return self.judge(question, model, got)

    def judge(self, question: Question, model: Model, got: list[Array]) -> Case:
        """Compare an answer of the file with what is right."""
        to_file = self.judge_by.asks_file(question.kind, padded=question.valid is not None)
        try:
            expected = self.run(model, question.tensors) if to_file else self.reference(question.tensors)
        except ExportError:
            raise
        except Exception as failure:
            pass_on_interruption(failure)
            return question.failed(f"{'the file' if to_file else 'PyTorch'} itself fails: {first_line(failure)}")
        if question.valid is not None:
            got, expected = (self.valid(model, outputs, question) for outputs in (got, expected))
        if question.may_be_shorter:
            expected = [_as_long(e, g) for g, e in zip(got, expected, strict=True)]
        pairs = list(zip(got, expected, strict=True))
        errors = [error(g, e) for g, e in pairs]
        max_abs, max_rel = max(e[0] for e in errors), max(e[1] for e in errors)
        objection = self.judge_by.objection(pairs, to_file=to_file)
        if objection is None:
            return question.case(max_abs, max_rel, True)
        rounding = self.judge_by.lenient and question.valid is None and np.isfinite(max_rel)
        if rounding and self.reference.excuses(question.tensors, got, expected):
            return question.case(max_abs, max_rel, True, "the model amplifies rounding; float64 confirms the file")
        wrong = [
            name for name, one in zip(model.outputs, errors, strict=False) if not one[1] <= self.judge_by.tolerance
        ]
        if question.kind == "rows" and 0 < len(wrong) < len(errors) == len(model.outputs):
            objection = f"{ONLY}{', '.join(map(repr, wrong))}" + (f", {objection}" if objection else "")
        return question.case(max_abs, max_rel, False, objection)

    def run(self, model: Model, tensors: Sequence[Tensor], lengths: Tensor | None = None) -> list[Array]:
        """All outputs of the file."""
        arrays = {name: t.cpu().numpy() for name, t in self.named(tensors)}
        own = None if lengths is None else lengths.cpu().numpy()
        if "lengths" in arrays:  # an input like others, where the caller of export says so
            return outputs_of(model, model.run(*(arrays[name] for name in model.inputs), lengths=own))
        return outputs_of(model, model.run(**arrays, lengths=own))

    def named(self, tensors: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
        """Inputs with their names, without lengths and states."""
        pairs = zip(self.example.names, tensors, strict=True)
        return [(name, t) for name, t in pairs if name != self.example.lengths and name not in self.example.states]

    def with_lengths(self, tensors: Sequence[Tensor], lengths: Tensor) -> list[Tensor]:
        """The same inputs with other lengths, if the module has its own."""
        named = zip(self.example.inputs, tensors, strict=True)
        return [lengths.to(i.value.dtype) if i.name == self.example.lengths else t for i, t in named]

    def cut(self, tensors: Sequence[Tensor], row: int, length: int) -> list[Tensor]:
        """One row of each input, cut to ``length`` along time."""
        results = []
        for known, tensor in zip(self.example.inputs, tensors, strict=True):
            for axis, role in enumerate(known.axes):
                if role == BATCH:
                    tensor = tensor.narrow(axis, row, 1)
                elif role is not None and base_of(role) == TIME:
                    tensor = tensor.narrow(axis, 0, known_size(role, {TIME: length}))
            results.append(torch.full_like(tensor, length) if known.name == self.example.lengths else tensor)
        return results

    def chunk(self, tensors: Sequence[Tensor], start: int, size: int) -> dict[str, Array]:
        """What a stream takes: no batch axis, ``size`` steps from ``start``."""
        axes = {i.name: i.axes for i in self.example.inputs}
        results = {}
        for name, tensor in self.named(tensors):
            if TIME in axes[name]:
                tensor = tensor.narrow(axes[name].index(TIME), start, size)
            results[name] = tensor.select(axes[name].index(BATCH), 0).cpu().numpy()
        return results

    def row(self, model: Model, outputs: Sequence[Array], row: int, length: int, sizes: tuple[int, int]) -> list[Array]:
        """One row of each output, cut to what ``length`` steps give; ``sizes`` are the batch and the steps of all."""
        results = []
        for port, value in zip(model.signature.outputs, outputs, strict=True):
            slot = Slot.of(port)
            value = np.take(slot.unfolded(value, *sizes), [row], axis=slot.batch_axis)
            if slot.time_axis is not None:
                value = np.take(value, range(slot.steps(length)), axis=slot.time_axis)
            results.append(slot.folded(value))
        return results

    def valid(self, model: Model, outputs: Sequence[Array], question: Question) -> list[Array]:
        """Outputs as long as the inputs, with everything past each row's length set to zero."""
        assert question.valid is not None
        results = []
        for port, value in zip(model.signature.outputs, outputs, strict=True):
            slot = Slot.of(port)
            if slot.time_axis is not None:
                # A module that gives back what it packed gives as many steps as the longest row has.
                longest = int(question.valid.max(initial=0))
                time = next((t for t in (question.time, longest) if slot.holds(value, question.batch, t)), None)
                if time is None:  # of another shape, which is judged as it is
                    results.append(value)
                    continue
                value = slot.unfolded(value.copy(), question.batch, time)
                value = padded(value, slot.time_axis, slot.steps(question.time))
                for row, length in zip(slot.rows(value), question.valid, strict=True):
                    row[slot.steps(int(length)) :] = 0
                value = slot.folded(value)
            results.append(value)
        return results

    def join(self, model: Model, parts: Sequence[Sequence[Array]]) -> list[Array]:
        """Answers to the chunks of a stream as one, with a batch axis; without a time axis the last part is the answer."""
        results = []
        for port, values in zip(model.signature.outputs, zip(*parts, strict=True), strict=True):
            slot = Slot.of(port)
            joined = values[-1] if slot.item_time_axis is None else np.concatenate(values, slot.item_time_axis)
            results.append(slot.folded(np.expand_dims(joined, slot.batch_axis)))
        return results


def open_file(path: Path) -> Model:
    """The file in onnxruntime, which lacks some operators in some dtypes (float64 ``Erf``, for one)."""
    try:
        return load(path)
    except ModelFileError as failure:
        raise ExportError(f"the file would not load: {str(failure).removeprefix(f'{path}: ')}") from failure


def outputs_of(model: Model, result: Any) -> list[Array]:
    """What a model answered, in the order of its signature."""
    if isinstance(result, Mapping):
        return [result[port.name] for port in model.signature.outputs]
    return [result]


def _as_long(value: Array, other: Array) -> Array:
    """``value`` with zeros wherever ``other`` is longer."""
    if value.ndim != other.ndim:
        return value
    return np.pad(value, [(0, max(0, most - size)) for size, most in zip(value.shape, other.shape, strict=True)])


def padded(value: Array, axis: int | None, time: int) -> Array:
    """``value`` with zeros up to ``time`` steps along ``axis``."""
    if axis is None:
        return value
    return np.pad(value, [(0, max(0, time - n) if i == axis else 0) for i, n in enumerate(value.shape)])
