"""Record golden cases: questions that the exported file can be asked again where there is no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnncore.export.tracing.example import Input
from rnncore.export.verification.bench import Question, padded
from rnncore.export.verification.reference import Array, first_line
from rnncore.export.verification.sizes import chunkings
from rnncore.export.verification.streams import longest_stream, whole_chunks
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, VerificationError
from rnncore.runtime.format.drawn import Drawn
from rnncore.runtime.format.golden import Golden, GoldenCase, StoredArray
from rnncore.runtime.model import Model, load
from rnncore.runtime.tensors.specs import Slot
from rnncore.runtime.verification import answer_of, compare

RAW_BYTES = 45_000  # of all arrays together: 60 kB as base64
_SIZES = {"whole": (1, 1), "batch": (2, 5), "ragged": (2, 5)}  # (batch, time)
_LENGTHS = (5, 3)  # longest first, as some modules want them
_CHUNKS = (4, 0, 1, 8)
_INPUT_SHARE = 0.5  # of the bytes of a case; inputs that need more are drawn from a seed


class GoldenRecorder(Verifier):
    """Asks the module what the file shall answer: whole, ragged if it takes lengths, in chunks if it is causal."""

    def record(self, path: Path) -> Golden:
        """Golden cases of the file at ``path``.

        The stream is as long as the longest that was verified.  A case on which the module amplifies its own rounding
        beyond the tolerance, or which the module does not take, is left out, and the reason recorded.

        Raises:
            VerificationError: the file answers a case differently.
        """
        model = load(path)
        kinds = ["whole", "ragged" if model.signature.lengths is not None else "batch", *["stream"] * model.causal]
        measure, tolerance = self.judge_by.measure, self.tolerance
        kept: list[GoldenCase] = []
        left_out: list[str] = []
        for number, kind in enumerate(kinds):
            try:
                tensors, outputs, question = self._ask(model, kind, self.seed + number, RAW_BYTES // len(kinds))
            except ExportError:
                raise
            except Exception as failure:  # too few steps for a convolution, say
                pass_on_interruption(failure)
                left_out.append(f"{kind}: PyTorch itself fails at this size: {first_line(failure)}")
                continue
            report = compare(
                Golden(tolerance, (question,), measure=measure), answer_of(model), str(path), "rnncore.runtime"
            )
            if report.passed:
                kept.append(question)
            elif not self.judge_by.lenient or self._excused(model, kind, tensors, outputs, question):
                left_out.append(f"{kind}: the model amplifies rounding beyond the tolerance")
            else:
                raise VerificationError(f"the file answers its golden cases differently:\n{report}")
        return Golden(tolerance, tuple(kept), tuple(left_out), measure)

    def _ask(
        self, model: Model, kind: str, seed: int, budget_bytes: int
    ) -> tuple[list[Tensor], dict[str, Array], GoldenCase]:
        """Inputs as the module takes them, its answer by output, and the case with what is kept of both."""
        batch, time = self.near(*_SIZES[kind]) if kind in _SIZES else (1, sum(self._chunks(model)))
        tensors = self.draw(batch, time)
        inputs = {name: t.cpu().numpy() for name, t in self.named(tensors)}
        drawn: dict[str, Drawn] = {}
        if kind == "stream" or sum(array.nbytes for array in inputs.values()) > _INPUT_SHARE * budget_bytes:
            known = {i.name: i for i in self.example.inputs}
            drawn = {
                name: self._drawn(known[name], array, 100 * seed + i)
                for i, (name, array) in enumerate(inputs.items())
                if name not in self.example.counts and known[name].filling is None
            }
            inputs = {name: drawn[name].array() if name in drawn else array for name, array in inputs.items()}
            tensors = [
                torch.from_numpy(inputs[i.name]).to(i.value.device, i.value.dtype) if i.name in inputs else t
                for i, t in zip(self.example.inputs, tensors, strict=True)
            ]
        answers = self._ragged_answer(model, tensors) if kind == "ragged" else self.reference(tensors)
        outputs = dict(zip(model.outputs, answers, strict=True))
        stored = sum(array.nbytes for name, array in inputs.items() if name not in drawn)
        each = int(budget_bytes - stored) // len(outputs)
        case = GoldenCase(
            "whole" if kind == "batch" else kind,
            batch,
            time,
            inputs,
            {name: StoredArray.of(array, each) for name, array in outputs.items()},
            self._lengths() if kind == "ragged" else None,
            self._chunks(model) if kind == "stream" else None,
            drawn,
        )
        return tensors, outputs, case

    def _chunks(self, model: Model) -> tuple[int, ...]:
        long = chunkings(longest_stream(self, self.sizes, model.signature.overlap))
        chunks = whole_chunks(model, long[0] if long else _CHUNKS)
        timed = all(port.time_axis is not None for port in model.signature.outputs)
        return tuple(size for size in chunks if size or timed)

    def _drawn(self, known: Input, array: Array, seed: int) -> Drawn:
        """Numbers between the extremes of the example, as far as it tells."""
        low, high = (float(known.value.detach().double().min()), float(known.value.detach().double().max()))
        if low == high and known.value.is_floating_point():
            low, high = low - 1.0, high + 1.0
        elif low == high:
            high = max(high, self.example.vocabulary - 1.0)
        return Drawn(seed, array.dtype.name, array.shape, low, high)

    def _ragged_answer(self, model: Model, tensors: list[Tensor]) -> list[Array]:
        """What the module says about a padded batch; about each row alone if it does not know lengths."""
        lengths = torch.tensor(self._lengths())
        longest = int(lengths.max())
        if self.example.lengths is not None:
            own = self.with_lengths(tensors, lengths)
            return self.valid(
                model, self.reference(own), Question("ragged", len(lengths), longest, own, "", lengths.numpy())
            )
        slots = [Slot.of(port) for port in model.signature.outputs]
        rows = []
        for row, length in enumerate(lengths.tolist()):
            alone = self.reference(self.cut(tensors, row, length))
            own_rows = [slot.unfolded(value, 1, length) for value, slot in zip(alone, slots, strict=True)]
            pairs = zip(own_rows, slots, strict=True)
            rows.append([padded(value, slot.time_axis, slot.steps(longest)) for value, slot in pairs])
        columns = zip(zip(*rows, strict=True), slots, strict=True)
        return [slot.folded(np.concatenate(parts, slot.batch_axis)) for parts, slot in columns]

    def _lengths(self) -> tuple[int, ...]:
        return tuple(self.near(1, length)[1] for length in _LENGTHS)

    def _excused(
        self, model: Model, kind: str, tensors: list[Tensor], outputs: Mapping[str, Array], question: GoldenCase
    ) -> bool:
        """Whether PyTorch's own rounding explains the difference, see :meth:`Reference.excuses`."""
        if kind == "ragged":
            return False
        got = answer_of(model)(question)
        return self.reference.excuses(tensors, [got[name] for name in outputs], list(outputs.values()))
