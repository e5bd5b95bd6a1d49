"""Record golden cases: questions that the exported file can be asked again where there is no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnncore.export.int8.verification import INT8_RMS
from rnncore.export.proof.reference import Array, first_line
from rnncore.export.proof.verification import Verifier
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.files.golden import Golden, GoldenCase, Kept
from rnncore.runtime.files.layout import Slot
from rnncore.runtime.files.reverify import answer_of, compare
from rnncore.runtime.files.signature import BATCH, TIME
from rnncore.runtime.model import Model, load

RAW_BYTES = 45_000  # of all arrays together: 60 kB as base64
_SIZES = {"whole": (1, 1), "batch": (2, 5), "ragged": (2, 5), "stream": (1, 6)}  # (batch, time)
_LENGTHS = (5, 3)  # longest first, as some modules want them
_CHUNKS = (1, 0, 3, 2)
_INPUT_SHARE = 0.75  # of the bytes of a case; the rest must hold enough of the outputs to tell right from wrong


class GoldenRecorder(Verifier):
    """Asks the module what the file shall answer: whole, ragged if it takes lengths, in chunks if it is causal."""

    def record(self, path: Path, *, int8: bool = False) -> Golden:
        """Golden cases of the file at ``path``.

        A case whose inputs are too large to keep, or on which the module amplifies its own rounding beyond the tolerance,
        is left out, and the reason recorded.

        int8: the file rounds its weights; it is judged by the root mean square of the error.

        Raises:
            VerificationError: the file answers a case differently.
        """
        model = load(path)
        self._generator = torch.Generator().manual_seed(self.seed)
        kinds = ["whole", "ragged" if model.signature.lengths is not None else "batch", *["stream"] * model.causal]
        measure, tolerance = ("rms", INT8_RMS) if int8 else ("max", self.tolerance)
        budget_bytes = RAW_BYTES // len(kinds)
        kept: list[GoldenCase] = []
        left_out: list[str] = []
        for kind in kinds:
            try:
                tensors, outputs, question = self._ask(model, kind)
            except RuntimeError as failure:  # too few steps for a convolution, say
                left_out.append(f"{kind}: PyTorch itself fails at this size: {first_line(failure)}")
                continue
            case = _slim(question, outputs, budget_bytes)
            if case is None:
                left_out.append(f"{kind}: its inputs are larger than {_INPUT_SHARE * budget_bytes:.0f} bytes")
                continue
            golden = Golden(tolerance, (case,), measure=measure)
            report = compare(golden, answer_of(model), str(path), "rnncore.runtime")
            if report.passed:
                kept.append(case)
            elif int8 or self._excused(model, kind, tensors, outputs, question):
                left_out.append(f"{kind}: the model amplifies rounding beyond the tolerance")
            else:
                raise VerificationError(f"the file answers its golden cases differently:\n{report}")
        return Golden(tolerance, tuple(kept), tuple(left_out), measure)

    def _ask(self, model: Model, kind: str) -> tuple[list[Tensor], dict[str, Array], GoldenCase]:
        """Inputs as the module takes them, its answer by output, and the case without that answer."""
        sizes = self._sizes(*_SIZES[kind])
        batch, time = sizes[BATCH], sizes[TIME]
        tensors = self.example.draw(sizes, self._generator)
        inputs = {name: t.cpu().numpy() for name, t in self._named(tensors)}
        outputs = self._ragged_answer(model, tensors) if kind == "ragged" else self.reference(tensors)
        chunks = None
        if kind == "stream":
            timed = all(port.time_axis is not None for port in model.signature.outputs)
            chunks = tuple(size for size in _CHUNKS if size or timed)
        lengths = self._lengths() if kind == "ragged" else None
        case = GoldenCase("whole" if kind == "batch" else kind, batch, time, inputs, {}, lengths, chunks)
        return tensors, dict(zip(model.outputs, outputs, strict=True)), case

    def _ragged_answer(self, model: Model, tensors: list[Tensor]) -> list[Array]:
        """What the module says about a padded batch; about each row alone if it does not know lengths."""
        if self.example.lengths is not None:
            answer = self.reference(self._with_lengths(tensors, torch.tensor(self._lengths())))
            return self._valid(model, answer, np.array(self._lengths()), max(self._lengths()))
        slots = [Slot.of(port) for port in model.signature.outputs]
        rows = []
        for row, length in enumerate(self._lengths()):
            alone = self.reference([self._cut(t, i, row, length) for i, t in enumerate(tensors)])
            pairs = zip(alone, slots, strict=True)
            own = [(slot.unfolded(value, 1, length), slot) for value, slot in pairs]
            rows.append([_padded(value, slot.time_axis, slot.steps(max(self._lengths()))) for value, slot in own])
        pairs = zip(zip(*rows, strict=True), slots, strict=True)
        return [slot.folded(np.concatenate(parts, slot.batch_axis)) for parts, slot in pairs]

    def _lengths(self) -> tuple[int, ...]:
        return tuple(self._sizes(1, length)[TIME] for length in _LENGTHS)

    def _excused(
        self, model: Model, kind: str, tensors: list[Tensor], outputs: Mapping[str, Array], question: GoldenCase
    ) -> bool:
        """Whether PyTorch's own rounding explains the difference, see :meth:`Reference.excuses`."""
        if kind == "ragged":
            return False
        got = answer_of(model)(question)
        return self.reference.excuses(tensors, [got[name] for name in outputs], list(outputs.values()))


def _padded(value: Array, axis: int | None, time: int) -> Array:
    if axis is None:
        return value
    return np.pad(value, [(0, time - n if i == axis else 0) for i, n in enumerate(value.shape)])


def _slim(case: GoldenCase, outputs: Mapping[str, Array], budget_bytes: int) -> GoldenCase | None:
    """The case with as much of the outputs as the budget leaves room for; None when the inputs take too much of it."""
    used = sum(array.nbytes for array in case.inputs.values())
    if used > _INPUT_SHARE * budget_bytes:
        return None
    each = (budget_bytes - used) // len(outputs)
    return replace(case, outputs={name: Kept.of(array, each) for name, array in outputs.items()})
