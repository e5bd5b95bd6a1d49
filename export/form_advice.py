"""Whether another form of the file would be much faster: a line for the report of whoever has not asked for the fastest."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rnncore.export.file import write_model
from rnncore.export.lowering.forms import FUSED_OR_SCAN
from rnncore.export.options import Options
from rnncore.export.stages import Built, Captured
from rnncore.export.targets import choose_forms
from rnncore.export.verification.bench import Bench, open_file
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.reference import Reference
from rnncore.runtime.errors import RnncoreError

_STEPS = 64
_TURNS = 7
_WORTH_A_LINE = 1.2


def advice(captured: Captured, options: Options, built: Built, path: Path) -> str:
    """What form="auto" gains over the file at ``path``, measured in a tenth of a second; empty where that is little."""
    if options.form not in ("loop", "scan") or options.int8 or not options.branches:
        return ""
    traced = built.planned.traced
    choices = choose_forms(list(traced.trace.calls.values()), "auto", "onnxruntime", int8=False)
    if FUSED_OR_SCAN not in {choice.form for choice in choices.values()}:
        return ""
    try:
        fastest = Built.of(captured, options, replace(built.planned, traced=replace(traced, choices=choices)))
        gain = _gain(captured, options, built, fastest, path)
    except RnncoreError:  # no reason for an export to fail
        return ""
    return f"form='auto' runs this model {gain:.1f}x faster here (measured)" if gain >= _WORTH_A_LINE else ""


def _gain(captured: Captured, options: Options, built: Built, fastest: Built, path: Path) -> float:
    """How many times faster ``fastest`` answers one row than the file of ``built`` at ``path``."""
    judge = Judge.of(captured.precision)
    bench = Bench(Reference(captured.reference, built.example), built.example, judge, options.seed)
    inputs = bench.draw(*bench.near(1, _STEPS))
    with TemporaryDirectory() as folder:
        other = Path(folder, "fastest.onnx")
        write_model(fastest.model.clone(), other)
        models = open_file(path), open_file(other)
        best = [float("inf"), float("inf")]
        for turn in range(_TURNS + 1):
            for i, model in enumerate(models):
                start = time.perf_counter()
                bench.run(model, inputs)
                if turn:  # the first call allocates
                    best[i] = min(best[i], time.perf_counter() - start)
    return best[0] / best[1]
