"""What int8 costs in accuracy: the file's answers beside PyTorch's, on data that the user hands in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from rnncore.export.tracing.example import Axes, Example
from rnncore.export.verification.reference import Array, Reference
from rnncore.runtime import load
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.comparison import rms_error


@dataclass(frozen=True)
class OutputAccuracy:
    """One output of the int8 file against PyTorch in float32, over all examples.

    max_abs and mean_abs: of the difference.  rms: root mean square of the difference as a part of that of the expected
    values.  For log-probabilities [..., classes] also top1_agreement, the part of places where the likeliest class is the
    same, and, if the only input is ids of those classes, the perplexity of the next id before and after.
    """

    name: str
    max_abs: float
    mean_abs: float
    rms: float
    top1_agreement: float | None = None
    perplexity: tuple[float, float] | None = None

    def __str__(self) -> str:
        text = f"{self.name}: max error {self.max_abs:.2g}, mean {self.mean_abs:.2g}, rms {self.rms:.2%} of the values"
        if self.top1_agreement is not None:
            text += f", same likeliest class {self.top1_agreement:.2%}"
        if self.perplexity is not None:
            before, after = self.perplexity
            text += f", perplexity {before:.4g} -> {after:.4g} ({after / before - 1:+.2%})"
        return text


@dataclass(frozen=True)
class AccuracyReport:
    """``examples`` of the user's data, or the example of the export if ``own_data`` is False."""

    examples: int
    own_data: bool
    outputs: tuple[OutputAccuracy, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the file's metadata."""
        return asdict(self)

    def __str__(self) -> str:
        data = f"on {self.examples} examples" if self.own_data else "on the example only (pass accuracy_data for more)"
        return f"int8 against float32 {data}: " + "; ".join(map(str, self.outputs))


def compare(name: str, ids: Sequence[Array | None], got: Sequence[Array], expected: Sequence[Array]) -> OutputAccuracy:
    """One output over examples; ``ids`` are what a language model read, None for other models."""
    finite = [np.isfinite(e) for e in expected]
    differences = [
        np.abs(g[known].astype(np.float64) - e[known].astype(np.float64))
        for g, e, known in zip(got, expected, finite, strict=True)
    ]
    joined = np.concatenate(differences) if differences else np.zeros(0)
    same = before = after = places = predicted = 0.0
    classes = all(is_log_probabilities(e) for e in expected)
    for i, g, e in zip(ids, got, expected, strict=True):
        if not classes:
            break
        same += float((g.argmax(-1) == e.argmax(-1)).sum())
        places += g[..., 0].size
        if i is not None and i.shape == e.shape[:2] and e.ndim == 3 and i.size and i.max() < e.shape[2]:
            asked = i[:, 1:, None]
            before -= float(np.take_along_axis(e[:, :-1], asked, 2).sum(dtype=np.float64))
            after -= float(np.take_along_axis(g[:, :-1], asked, 2).sum(dtype=np.float64))
            predicted += asked.size
    perplexity = (float(np.exp(before / predicted)), float(np.exp(after / predicted))) if predicted else None
    return OutputAccuracy(
        name,
        max_abs=float(joined.max(initial=0.0)),
        mean_abs=float(joined.mean()) if joined.size else 0.0,
        rms=rms_error(list(zip(got, expected, strict=True))),
        top1_agreement=same / places if places else None,
        perplexity=perplexity,
    )


def is_log_probabilities(array: Array) -> bool:
    """Whether the last axis holds logarithms of numbers that sum to 1."""
    if array.dtype.kind != "f" or array.ndim < 2 or array.shape[-1] < 2 or not array.size or array.max() > 1e-4:
        return False
    return bool(np.allclose(np.exp(array.astype(np.float64)).sum(-1), 1.0, atol=1e-3))


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
