"""One class: built, exported, compared with PyTorch at sizes of its own, streamed."""

from __future__ import annotations

import re
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.zoo.subject import ENTRIES, OverTime, Subject
from rnncore.export import export
from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime import Model, errors, load
from rnncore.runtime.format.axes import BATCH
from rnncore.runtime.tensors.specs import Slot

RELATIVE = 1e-4
MEMORY = 24 << 30  # addresses, of which torch maps many that it never touches


def run(key: str) -> dict[str, Any]:
    """What becomes of one entry; made for a process of its own, which it limits."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    try:
        subject = ENTRIES[key].make()
        subject.module.eval()
        _expected(subject, subject.draw(*subject.sizes[0]))
    except Exception as error:
        return {"state": "not built", "why": portable(f"{type(error).__name__}: {error}")[:300]}
    return examine(subject)


def portable(text: str) -> str:
    """``text`` with files of installed packages named by package, not by where this machine has them."""
    return re.sub(r'[^\s"]*/(?:site|dist)-packages/', "", text)


def examine(subject: Subject) -> dict[str, Any]:
    """What becomes of ``subject``."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            report = export(subject.module, path, subject.draw(*subject.sizes[0]), **subject.options)
        except errors.RnncoreError as error:
            return {
                "state": "refused",
                "why": portable(str(error)),
                "kind": type(error).__name__,
                "causal": subject.causal,
                "seconds": time.process_time() - started,
            }
        except Exception:
            return {"state": "crashed", "why": portable(traceback.format_exc())[-1500:], "causal": subject.causal}
        found = {"seconds": time.process_time() - started, "causal": subject.causal, "streams": report.causal}
        found["options"] = sorted(subject.options)
        try:
            model = load(path)
            if subject.carried and report.causal:
                module = OverTime(subject)
                subject = replace(subject, module=module, draw=module.draw)
            worst, problems, only = _compare(subject, model)
            if only:
                return {**found, "state": "refused", "why": f"the file takes the example's sizes only: {only}"}
            if model.causal:
                problems += _stream(subject, model)
        except Exception:
            return {**found, "state": "crashed", "why": portable(traceback.format_exc())[-1500:]}
        found["error"] = worst
        found["state"] = "wrong" if problems else "works"
        why = "; ".join(problems) if problems else "" if report.causal else model.signature.not_causal_because
        found["why"] = why
        return found


def _inputs(subject: Subject, drawn: Any) -> dict[str, Tensor]:
    if isinstance(subject.module, OverTime):
        return dict(drawn)
    bound = bind(subject.module, drawn)
    return dict(pair for name, value in bound.arguments.items() for pair in named_tensors(value, name))


def _run(model: Model, inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    lengths = model.signature.lengths
    given = [inputs[name].numpy() for name in model.inputs]
    own = inputs[lengths.name].numpy() if lengths is not None and lengths.name in inputs else None
    result = model.run(*given, lengths=own)
    return result if isinstance(result, dict) else {model.outputs[0]: result}


def _expected(subject: Subject, drawn: Any) -> dict[str, np.ndarray]:
    if isinstance(subject.module, OverTime):
        with torch.no_grad():
            return {name: value.numpy() for name, value in subject.module(**drawn).items()}
    bound = bind(subject.module, drawn)
    with torch.no_grad():
        outputs = list(named_tensors(subject.module(*bound.args, **bound.kwargs), ""))
    names = [("output" if len(outputs) == 1 else f"output_{n}") if not n or n[0].isdigit() else n for n, _ in outputs]
    return {name: value.numpy() for name, (_, value) in zip(names, outputs, strict=True)}


def _far(found: np.ndarray, right: np.ndarray) -> float:
    """The largest difference, relative to the largest number; axes of 1 that ``squeeze()`` drops stay in a file."""
    if found.shape != right.shape:
        if [n for n in found.shape if n != 1] != [n for n in right.shape if n != 1] or found.ndim < right.ndim:
            return float("inf")
        right = right.reshape(found.shape)
    if not right.size:
        return 0.0
    if right.dtype.kind in "bi":
        return float(np.any(found != right))
    return float(np.abs(found - right).max() / max(1.0, np.abs(right).max()))


def _compare(subject: Subject, model: Model) -> tuple[float, list[str], str]:
    """The largest difference, what is wrong, and what the file says to sizes that it does not take."""
    worst, problems = 0.0, []
    for batch, steps in subject.sizes:
        torch.manual_seed(batch * 1000 + steps)
        drawn = subject.draw(batch, steps)
        try:
            right = _expected(subject, drawn)
        except Exception:
            if (batch, steps) == subject.sizes[0]:
                raise
            continue  # nothing to compare with: of one row PyTorch's own squeeze() may leave too little
        try:
            found = _run(model, _inputs(subject, drawn))
        except errors.InputError as error:
            return worst, problems, f"{batch} x {steps}: {error}"[:400]
        for name, value in found.items():
            same = right[name if name in right else re.sub("_out$", "", name)]
            far = _far(value, same)
            worst = max(worst, far)
            if not far <= RELATIVE:
                problems.append(f"{batch} x {steps}: {name} {list(value.shape)} differs by {far:.2g}")
    return worst, problems, ""


def _stream(subject: Subject, model: Model) -> list[str]:
    """Chunks of one row against the whole, which was compared with PyTorch."""
    problems = []
    for batch, steps in subject.sizes[1:3]:
        inputs = {name: value for name, value in _inputs(subject, subject.draw(batch, steps)).items()}
        whole = _run(model, inputs)
        axes = {spec.name: (spec.batch_axis, spec.time_axis) for spec in model.signature.inputs}
        rows = {
            n: np.take(inputs[n].numpy(), 0, b) if b is not None else inputs[n].numpy() for n, (b, _) in axes.items()
        }
        along = {n: None if t is None else t - (b is not None and b < t) for n, (b, t) in axes.items()}
        sizes = [rows[n].shape[t] for n, t in along.items() if t is not None]
        pieces = []
        with model.stream() as stream:
            for start, end in _chunks(sizes[0] if sizes else 1):
                chunk = {
                    n: row if along[n] is None else np.take(row, range(start, end), along[n]) for n, row in rows.items()
                }
                answer = stream.push(**chunk)
                pieces.append(answer if isinstance(answer, dict) else {model.outputs[0]: answer})
        for spec in model.signature.outputs:
            if BATCH not in spec.inner or (spec.time_axis is None and len(pieces) > 1):
                continue
            slot = Slot.of(spec)
            axis = slot.time_axis
            row = np.take(slot.unfolded(whole[spec.name], batch, steps), 0, slot.batch_axis)
            joined = pieces[-1][spec.name]
            if axis is not None:
                axis -= slot.batch_axis < axis
                joined = np.concatenate([piece[spec.name] for piece in pieces], axis)
                # Less than a stride may wait for more steps.
                signature, answered = model.signature, joined.shape[axis]
                total = sizes[0] if sizes else 1
                run = total - (total - signature.overlap) % signature.stride
                if answered != (slot.steps(run) if run > signature.overlap else 0):
                    problems.append(f"streamed: {spec.name} has {answered} steps, {row.shape[axis]} whole")
                    continue
                row = np.take(row, range(answered), axis)
            if not _far(joined, row) <= RELATIVE:
                problems.append(f"streamed: {spec.name} {list(joined.shape)} differs by {_far(joined, row):.2g}")
    return problems


def _chunks(steps: int) -> Iterator[tuple[int, int]]:
    start, k = 0, 0
    while start < steps:
        end = min(steps, start + max(1, steps * (1, 3, 2, 5)[k % 4] // 11))
        yield start, end
        start, k = end, k + 1
