"""Run an exported file against the module it came from, at sizes the export never saw."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncore.export.capture.example import Example
from rnncore.export.proof.reference import TOLERANCE, Array, Reference, error, first_line
from rnncore.runtime import Model, ModelFileError, load
from rnncore.runtime.calls.instructions import has_avx512, supposing
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.files.layout import Slot
from rnncore.runtime.files.signature import BATCH, TIME

WHOLE_SIZES = ((1, 1), (1, 9), (2, 7), (5, 2), (3, 64))  # (batch, time); none is the traced (3, 31)
OTHER_SIZE = {BATCH: 1, TIME: 9}
OTHER_DETAIL = f"as if the processor had {'no ' if has_avx512() else ''}AVX-512"
RAGGED_SIZES = ((4, 11),)
PICK_SIZES = ((1, 1, 1), (2, 7, 3))  # (batch, time, picks)
STREAM_STEPS = 13
TOGETHER = ((2, 9, 2), (4, 1, 8))  # chunks of streams that move in one call: the longer one is now one, now the other
TOGETHER_DETAIL = "moved together"
CHUNKINGS = ((1,) * STREAM_STEPS, (4, 0, 1, 8), (STREAM_STEPS - 1, 1))


@dataclass
class Case:
    """One comparison of the file with the module.

    kind: "whole", "ragged" or "stream".  max_abs is the largest difference, max_rel the same as a part of the largest
    expected value (at least 1).
    """

    kind: str
    batch: int
    time: int
    detail: str
    max_abs: float
    max_rel: float
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} (batch {self.batch}, time {self.time}{', ' + self.detail if self.detail else ''})"
        return f"{what}: max error {self.max_abs:.2g}" + (f", {self.note}" if self.note else "")


@dataclass
class Verdict:
    """All comparisons made on one file."""

    seed: int
    tolerance: float
    cases: list[Case] = field(default_factory=list)

    def failures(self, *kinds: str) -> list[Case]:
        """Cases of the given kinds that did not pass."""
        return [case for case in self.cases if not case.passed and case.kind in kinds]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the file's metadata."""
        import onnx
        import onnxruntime

        versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        }
        return {
            "seed": self.seed,
            "tolerance": self.tolerance,
            "versions": versions,
            "cases": [asdict(case) for case in self.cases],
        }


class Verifier:
    """Compares a file with a reference; every input comes from ``seed``."""

    def __init__(self, reference: Reference, example: Example, precision: str, seed: int) -> None:
        self.reference = reference
        self.example = example
        self.precision = precision
        self.seed = seed
        self.tolerance = TOLERANCE.get(precision, TOLERANCE["float32"])

    def verify(self, path: Path) -> Verdict:
        """Whole batches, ragged batches if the file takes lengths, streams if it is causal."""
        model = _load(path)
        self._generator = torch.Generator().manual_seed(self.seed)
        verdict = Verdict(self.seed, self.tolerance)
        verdict.cases.extend(self._whole(model))
        with supposing(avx512=not has_avx512()):
            verdict.cases.append(self._other_processor(_load(path)))
        if model.signature.pick is not None:
            verdict.cases.extend(self._picks(model))
        if model.signature.lengths is not None:
            verdict.cases.extend(self._ragged(model))
        if model.signature.causal:
            try:
                verdict.cases.extend([*self._streams(model), *self._streams_together(model)])
            except InputError as failure:  # what onnxruntime refuses: too few steps for a convolution, say
                note = f"a chunk is refused: {first_line(failure)}"
                verdict.cases.append(Case("stream", 1, STREAM_STEPS, "", math.inf, math.inf, False, note))
        return verdict

    def _whole(self, model: Model) -> Iterator[Case]:
        all_sizes = [self._sizes(b, t, k) for k, (b, t) in enumerate(WHOLE_SIZES)]
        drawn = [self.example.draw(sizes, self._generator) for sizes in all_sizes]
        failures = [self.reference.failure(tensors) for tensors in drawn]
        if all(failures):
            raise ExportError(f"PyTorch itself fails at every size that was tried, such as: {failures[-1]}")
        for sizes, why in zip(all_sizes, failures, strict=True):
            if why:
                yield Case(
                    "whole", sizes[BATCH], sizes[TIME], "", 0.0, 0.0, True, f"left out, PyTorch itself fails: {why}"
                )
        possible = [i for i, why in enumerate(failures) if not why]
        tried, drawn = [all_sizes[i] for i in possible], [drawn[i] for i in possible]
        first = [self._run(model, tensors) for tensors in drawn]
        # A second, interleaved round: an answer must not depend on what ran before (onnxruntime issue 18672).
        second = [self._run(model, tensors) for tensors in drawn]
        for sizes, tensors, got, again in zip(tried, drawn, first, second, strict=True):
            case = self._judge("whole", sizes[BATCH], sizes[TIME], _others(sizes), tensors, got)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, again, strict=True)):
                case.passed, case.note = False, "a second run gave other bits"
            yield case

    def _other_processor(self, model: Model) -> Case:
        """One row, opened as on a processor of the other kind, where it takes another branch of the file."""
        sizes = self._sizes(*OTHER_SIZE.values())
        tensors = self.example.draw(sizes, self._generator)
        why = self.reference.failure(tensors)
        batch, time = sizes[BATCH], sizes[TIME]
        if why:
            return Case("whole", batch, time, "", 0.0, 0.0, True, f"left out, PyTorch itself fails: {why}")
        return self._judge("whole", batch, time, OTHER_DETAIL, tensors, self._run(model, tensors))

    def _sizes(self, batch: int, time: int, seed: int = 0) -> dict[str, int]:
        """Sizes of all axes that the module takes, near these; of a module without time, one step."""
        return {TIME: 1, **self.example.fit({BATCH: batch, TIME: time}, seed)}

    def _picks(self, model: Model) -> Iterator[Case]:
        """What is asked for by index is what the whole output has there, and that is what the module gives."""
        (port,) = model.signature.outputs
        for batch, time, picks in PICK_SIZES:
            tensors = self.example.draw({BATCH: batch, TIME: time}, self._generator)
            at = torch.randint(int(port.shape[2]), (batch, time, picks), generator=self._generator).numpy()
            whole = self._run(model, tensors)
            picked = model.run_picked(at=at, **{name: t.cpu().numpy() for name, t in self._named(tensors)})
            case = self._judge("whole", batch, time, f"{picks} picked a step", tensors, whole)
            if not np.array_equal(picked, np.take_along_axis(whole[0], at, 2), equal_nan=True):
                case.passed, case.note = False, f"the picks are not what output '{port.name}' has there"
            yield case

    def _ragged(self, model: Model) -> Iterator[Case]:
        for batch, steps in RAGGED_SIZES:
            time = self._sizes(batch, steps)[TIME]
            tensors = self.example.draw(self._sizes(batch, steps), self._generator)
            drawn = torch.randint(1, steps + 1, (batch,), generator=self._generator)
            lengths = torch.tensor([self._sizes(1, n)[TIME] for n in drawn.tolist()])
            lengths[-1] = time
            if self.example.sorted_lengths:
                lengths = lengths.sort(descending=True).values
            detail = f"lengths {lengths.tolist()}"
            got = self._run(model, tensors, lengths)
            if self.example.lengths is not None:
                tensors = self._with_lengths(tensors, lengths)
                valid = lengths.numpy()
                got = self._valid(model, got, valid, time)
                yield self._judge("ragged", batch, time, detail, tensors, got, valid, model)
            else:
                # The module knows no lengths: each row alone, cut to its length, is what the padded batch must equal.
                pairs = list(zip(model.signature.outputs, got, strict=True))
                got = [Slot.of(port).unfolded(value, batch, time) for port, value in pairs]
                for row, length in enumerate(lengths.tolist()):
                    alone = [self._cut(t, i, row, length) for i, t in enumerate(tensors)]
                    rows = [self._row(model, o, g, row, length) for o, g in enumerate(got)]
                    yield self._judge("ragged", batch, length, f"row {row} of a batch padded to {time}", alone, rows)

    def _streams(self, model: Model) -> Iterator[Case]:
        tensors = self.example.draw({BATCH: 1, TIME: STREAM_STEPS}, self._generator)
        # A push of no steps has no answer where an output is one value for the whole chunk.
        timed = all(port.time_axis is not None for port in model.signature.outputs)
        for chunks in [tuple(c for c in chunks if c or timed) for chunks in CHUNKINGS]:
            parts: list[list[Array]] = []
            with model.stream() as stream:
                start = 0
                for size in chunks:
                    chunk = {n: self._chunk(t, i, start, size) for i, (n, t) in enumerate(self._named(tensors))}
                    parts.append(_outputs(model, stream.push(**chunk)))
                    start += size
            got = [self._join(model, o, [part[o] for part in parts]) for o in range(len(model.signature.outputs))]
            yield self._judge("stream", 1, STREAM_STEPS, f"chunks {_short(chunks)}", tensors, got)

    def _streams_together(self, model: Model) -> Iterator[Case]:
        """Streams that move in one call keep apart: a model that mixes or reorders the rows of its batch does not."""
        tensors = self.example.draw({BATCH: len(TOGETHER), TIME: STREAM_STEPS}, self._generator)
        rows = [[self._cut(t, i, row, STREAM_STEPS) for i, t in enumerate(tensors)] for row in range(len(TOGETHER))]
        parts: list[list[list[Array]]] = [[] for _ in TOGETHER]
        streams = [model.stream() for _ in TOGETHER]
        starts = [0] * len(TOGETHER)
        for sizes in zip(*TOGETHER, strict=True):
            chunks = [
                {n: self._chunk(t, i, start, size) for i, (n, t) in enumerate(self._named(row))}
                for row, start, size in zip(rows, starts, sizes, strict=True)
            ]
            for answers, result in zip(parts, model.push_many(streams, chunks), strict=True):
                answers.append(_outputs(model, result))
            starts = [start + size for start, size in zip(starts, sizes, strict=True)]
        for row, answers in enumerate(parts):
            got = [self._join(model, o, [part[o] for part in answers]) for o in range(len(model.signature.outputs))]
            detail = f"{TOGETHER_DETAIL}, row {row} of {len(TOGETHER)}, chunks {list(TOGETHER[row])}"
            yield self._judge("stream", 1, STREAM_STEPS, detail, rows[row], got)

    def _judge(
        self,
        kind: str,
        batch: int,
        time: int,
        detail: str,
        tensors: list[Tensor],
        got: list[Array],
        lengths: Array | None = None,
        model: Model | None = None,
    ) -> Case:
        try:
            expected = self.reference(tensors)
        except Exception as failure:
            note = f"PyTorch itself fails: {first_line(failure)}"
            return Case(kind, batch, time, detail, math.inf, math.inf, False, note)
        if lengths is not None and model is not None:
            expected = self._valid(model, expected, lengths, time)
        errors = [error(g, e) for g, e in zip(got, expected, strict=True)]
        max_abs, max_rel = max(e[0] for e in errors), max(e[1] for e in errors)
        case = Case(kind, batch, time, detail, max_abs, max_rel, max_rel <= self.tolerance)
        if not case.passed:
            shapes = [(g.shape, e.shape) for g, e in zip(got, expected, strict=True) if g.shape != e.shape]
            case.note = f"shape {shapes[0][0]} instead of {shapes[0][1]}" if shapes else ""
            if np.isfinite(max_rel) and lengths is None and self.reference.excuses(tensors, got, expected):
                case.passed, case.note = True, "the model amplifies rounding; float64 confirms the file"
        return case

    def _run(self, model: Model, tensors: Sequence[Tensor], lengths: Tensor | None = None) -> list[Array]:
        arrays = {name: t.cpu().numpy() for name, t in self._named(tensors)}
        return _outputs(model, model.run(**arrays, lengths=None if lengths is None else lengths.numpy()))

    def _named(self, tensors: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
        pairs = zip(self.example.names, tensors, strict=True)
        return [(name, t) for name, t in pairs if name != self.example.lengths]

    def _with_lengths(self, tensors: Sequence[Tensor], lengths: Tensor) -> list[Tensor]:
        named = zip(self.example.inputs, tensors, strict=True)
        return [lengths.to(i.value.dtype) if i.name == self.example.lengths else t for i, t in named]

    def _cut(self, tensor: Tensor, index: int, row: int, length: int) -> Tensor:
        """One row of an input, cut to ``length`` along time."""
        for axis, role in enumerate(self.example.inputs[index].axes):
            if role == BATCH:
                tensor = tensor.narrow(axis, row, 1)
            elif role == TIME:
                tensor = tensor.narrow(axis, 0, length)
        return tensor

    def _chunk(self, tensor: Tensor, index: int, start: int, size: int) -> Array:
        """What a stream takes: no batch axis, ``size`` steps from ``start``."""
        axes = self.example.inputs[index].axes
        if TIME in axes:
            tensor = tensor.narrow(axes.index(TIME), start, size)
        return tensor.select(axes.index(BATCH), 0).cpu().numpy()

    def _row(self, model: Model, output: int, value: Array, row: int, length: int) -> Array:
        slot = Slot.of(model.signature.outputs[output])
        value = np.take(value, [row], axis=slot.batch_axis)
        if slot.time_axis is not None:
            value = np.take(value, range(slot.steps(length)), axis=slot.time_axis)
        return slot.folded(value)

    def _valid(self, model: Model, outputs: list[Array], lengths: Array, time: int) -> list[Array]:
        """Outputs of ``time`` steps with everything past each row's length set to zero."""
        results = []
        for port, value in zip(model.signature.outputs, outputs, strict=True):
            slot = Slot.of(port)
            if slot.time_axis is not None:
                value = slot.unfolded(value.copy(), len(lengths), time)
                for row, length in zip(slot.rows(value), lengths, strict=True):
                    row[slot.steps(int(length)) :] = 0
                value = slot.folded(value)
            results.append(value)
        return results

    def _join(self, model: Model, output: int, parts: list[Array]) -> Array:
        """The parts of a stream as one output with a batch axis; without a time axis the last part is the answer."""
        slot = Slot.of(model.signature.outputs[output])
        whole = parts[-1] if slot.item_time_axis is None else np.concatenate(parts, slot.item_time_axis)
        return slot.folded(np.expand_dims(whole, slot.batch_axis))


def _load(path: Path) -> Model:
    """The file in onnxruntime, which lacks some operators in some dtypes (float64 ``Erf``, for one)."""
    try:
        return load(path)
    except ModelFileError as error:
        raise ExportError(f"the file would not load: {str(error).removeprefix(f'{path}: ')}") from error


def _outputs(model: Model, result: Any) -> list[Array]:
    if isinstance(result, Mapping):
        return [result[port.name] for port in model.signature.outputs]
    return [result]


def _others(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items() if name not in (BATCH, TIME))


def _short(chunks: Sequence[int]) -> str:
    return f"{len(chunks)} of 1" if set(chunks) == {1} else str(list(chunks))
