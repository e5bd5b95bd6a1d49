"""Run an exported file against the module it came from, at sizes the export never saw.

What a file is verified for: the user's own example; whole batches at sizes on both sides of every number in the program
(:mod:`rnncore.export.verification.sizes`); every row of a batch, padded or not, against the row alone
(:mod:`rnncore.export.verification.rows`); NaN (:mod:`rnncore.export.verification.not_finite`); chunks, if it streams
(:mod:`rnncore.export.verification.streams`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.size_limits import SizeLimits
from rnncore.export.tracing.starting_states import remarks_on
from rnncore.export.verification.bench import Bench, Question, open_file
from rnncore.export.verification.cases import EXAMPLE_DETAIL, Case, Verdict, why_refused
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.not_finite import not_finite_cases
from rnncore.export.verification.padding import padded_cases
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.rows import counted_cases, masked_cases, ragged_cases, row_cases
from rnncore.export.verification.sizes import Sizes
from rnncore.export.verification.streams import stream_cases
from rnncore.runtime import Model
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.session.cpu_features import has_avx512, supposing

WHOLE_SIZES = ((1, 1), (1, 9), (2, 7), (5, 2), (3, 64))  # (batch, time); none is the traced (3, 31)
OTHER_SIZE = (1, 9)
OTHER_DETAIL = f"as if the processor had {'no ' if has_avx512() else ''}AVX-512"
PICK_SIZES = ((1, 1, 1), (2, 7, 3))  # (batch, time, picks)


class Verifier(Bench):
    """Compares a file with a reference; every input comes from ``seed``."""

    def __init__(
        self,
        reference: Reference,
        example: Example,
        judge: Judge,
        seed: int,
        limits: SizeLimits | None = None,
    ) -> None:
        super().__init__(reference, example, judge, seed)
        self.sizes = sizes_of(example, limits or SizeLimits())

    def verify(self, path: Path) -> Verdict:
        """The example, whole batches, rows alone, ragged batches if the file takes lengths, streams if it is causal."""
        model = open_file(path)
        self.generator = torch.Generator().manual_seed(self.seed)
        verdict = Verdict(self.seed, self.tolerance)
        verdict.remarks.extend(remarks_on([i for i in self.example.inputs if i.name in self.example.states]))
        verdict.cases.append(self._example_itself(model))
        verdict.cases.extend(self._whole(model))
        verdict.cases.extend(self._both_sides(model))
        verdict.cases.extend(counted_cases(self, model))
        verdict.cases.extend(masked_cases(self, model))
        verdict.cases.extend(padded_cases(self, model))
        with supposing(avx512=not has_avx512()):
            verdict.cases.append(self._other_processor(open_file(path)))
        if verdict.failures("whole"):
            return verdict  # there is no such file: what else is wrong with it does not matter
        verdict.cases.extend(row_cases(self, model))
        if not verdict.failures("rows"):
            verdict.cases.extend(not_finite_cases(self, model, verdict.remarks))
        if model.signature.pick is not None:
            verdict.cases.extend(self._picks(model))
        if model.signature.lengths is not None:
            verdict.cases.extend(ragged_cases(self, model))
        if model.signature.causal:
            verdict.cases.extend(stream_cases(self, model, self.sizes))
        return verdict

    def _example_itself(self, model: Model) -> Case:
        tensors = self.example.started([i.value for i in self.example.inputs])
        own = next((i.value for i in self.example.inputs if i.name == self.example.lengths), None)
        lengths = None if own is None else own.detach().cpu().to(torch.int64)
        batch, time = (size_of(self.example, axis) for axis in (BATCH, TIME))
        ragged = lengths is not None and bool((lengths < time).any())
        valid = None if lengths is None else lengths.numpy()
        question = Question("ragged" if ragged else "whole", batch, time, tensors, EXAMPLE_DETAIL, valid)
        return self.asked(model, question, lengths)

    def _whole(self, model: Model) -> Iterator[Case]:
        all_sizes = list(dict.fromkeys(self.near(b, t) for b, t in WHOLE_SIZES))
        drawn = [self.draw(b, t) for b, t in all_sizes]
        failures = [self.reference.failure(tensors) for tensors in drawn]
        if all(failures):
            raise ExportError(f"PyTorch itself fails at every size that was tried, such as: {failures[-1]}")
        for (batch, time), why in zip(all_sizes, failures, strict=True):
            if why:
                yield _left_out(batch, time, why)
        possible = [i for i, why in enumerate(failures) if not why]
        questions, first = [], []
        for question in [Question("whole", *all_sizes[i], drawn[i]) for i in possible]:
            try:
                first.append(self.run(model, question.tensors))
            except InputError as refusal:
                yield question.failed(why_refused(refusal))
            else:
                questions.append(question)
        # A second, interleaved round: an answer must not depend on what ran before (onnxruntime issue 18672).
        second = [self.run(model, question.tensors) for question in questions]
        for question, got, again in zip(questions, first, second, strict=True):
            case = self.judge(question, model, got)
            self.reference.check_again(question.tensors)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, again, strict=True)):
                case = replace(case, passed=False, note="a second run gave other bits")
            yield case

    def _both_sides(self, model: Model) -> Iterator[Case]:
        """Sizes at which the answer may change, because a number in the program says so."""
        for batch, time in self.sizes.whole:
            if not self.takes(batch, time):
                continue  # no file takes it either
            yield self._unless_left_out(model, batch, time)

    def _other_processor(self, model: Model) -> Case:
        """One row, opened as on a processor of the other kind, where it takes another branch of the file."""
        return self._unless_left_out(model, *self.near(*OTHER_SIZE), OTHER_DETAIL)

    def _unless_left_out(self, model: Model, batch: int, time: int, detail: str = "") -> Case:
        tensors = self.draw(batch, time)
        why = self.reference.failure(tensors)
        return (
            _left_out(batch, time, why) if why else self.asked(model, Question("whole", batch, time, tensors, detail))
        )

    def _picks(self, model: Model) -> Iterator[Case]:
        """What is asked for by index is what the whole output has there, and that is what the module gives."""
        (port,) = model.signature.outputs
        for rows, steps, picks in PICK_SIZES:
            batch, time = self.near(rows, steps)
            tensors = self.draw(batch, time)
            at = torch.randint(int(port.shape[2]), (batch, time, picks), generator=self.generator).numpy()
            whole = self.run(model, tensors)
            picked = model.run_picked(at=at, **{name: t.cpu().numpy() for name, t in self.named(tensors)})
            case = self.judge(Question("whole", batch, time, tensors, f"{picks} picked a step"), model, whole)
            if not np.array_equal(picked, np.take_along_axis(whole[0], at, 2), equal_nan=True):
                case = replace(case, passed=False, note=f"the picks are not what output '{port.name}' has there")
            yield case


def sizes_of(example: Example, limits: SizeLimits) -> Sizes:
    """The sizes of verification for a module with these limits and this example."""
    axes = {axis for i in example.inputs for axis in i.axes if axis}
    least = {name: extent.minimum for name, extent in example.extents.items()}
    most = {name: extent.maximum for name, extent in example.extents.items() if extent.maximum is not None}
    return Sizes.of(limits, size_of(example, TIME), axes, least, most)


def size_of(example: Example, axis: str) -> int:
    """Size of the user's example along ``axis``; 1 if no input has it."""
    return max((i.value.shape[i.axes.index(axis)] for i in example.inputs if axis in i.axes), default=1)


def _left_out(batch: int, time: int, why: str) -> Case:
    return Case("whole", batch, time, "", 0.0, 0.0, True, f"left out, PyTorch itself fails: {why}")
