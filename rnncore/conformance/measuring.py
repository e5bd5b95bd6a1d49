"""Write every variant in every form, run it on every backend, and compare with PyTorch."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.conformance.backends import BACKENDS, BackendError, open_backend
from rnncore.conformance.variants import CELLS, DIRECTIONS, INPUT, Variants
from rnncore.conversion import convert
from rnncore.export.graph.cleanup import clean_up
from rnncore.export.lowering.fused import why_not_fused
from rnncore.export.lowering.portable import fold_constants, spell_out
from rnncore.export.lowering.splice import splice
from rnncore.export.lowering.steps import export_steps
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.trace import trace
from rnncore.runtime.arrays import Array
from rnncore.runtime.format.comparison import error

TABLE_FORMS = ("loop", "scan", "fused", "portable")
LENGTHS = ("none", "ragged")
TOLERANCE = 1e-4
_SIZES = ((3, 7), (1, 4), (1, 1))  # (batch, time); files have branches for one row and for one step
_RAGGED = {3: (7, 0, 4), 1: (1,)}  # lengths by batch; a row of no steps included
_SEED = 5


@dataclass(frozen=True)
class Row:
    """What one file did: for each backend the largest error relative to PyTorch, or the reason why there is none."""

    cell: str
    direction: str
    form: str
    lengths: str
    results: dict[str, float | str]


def measure(
    *,
    cells: Sequence[str] = tuple(CELLS),
    directions: Sequence[str] = DIRECTIONS,
    forms: Sequence[str] = TABLE_FORMS,
    lengths: Sequence[str] = LENGTHS,
    backends: Sequence[str] = tuple(BACKENDS),
) -> Iterator[Row]:
    """The rows of the table, one for each file.  Each backend must be installed (MissingExtraError)."""
    for direction in directions:
        for kind in lengths:
            module = Variants(direction, tuple(cells), _SEED).eval()
            for form, written in _written(module, direction, kind, forms):
                for name in cells:
                    if name in written:
                        results = {backend: _result(module, written[name], name, kind, backend) for backend in backends}
                        yield Row(name, direction, form, kind, results)


def _written(
    module: Variants, direction: str, kind: str, forms: Sequence[str]
) -> Iterator[tuple[str, dict[str, onnx.ModelProto]]]:
    """Each form with the file of every cell it can write: one trace for all, cut apart by output.

    States become inputs of the forward layers, as in a file that streams.
    """
    converted = convert(copy.deepcopy(module))
    traced = trace(
        converted,
        Example.of(module, torch.randn(2, 3, INPUT), None, False),
        Operators([]),
        lift_lengths=kind == "ragged",
        output_names=None,
        seed=_SEED,
    )
    steps = export_steps(list(traced.calls.values()))
    for form in forms:
        model = traced.model.clone()
        legal = {
            call.name: form if form != "fused" or not why_not_fused(call.cell) else "loop"
            for call in traced.calls.values()
        }
        splice(model, traced.calls, steps, form=legal, lift=direction == "forward", lean=True)
        if form == "portable":
            fold_constants(model)
        spell_out(model)
        clean_up(model, converted)
        written = {}
        for name, output in module.outputs.items():
            if all(found == form for call, found in legal.items() if call.split(".")[1] == output):
                written[name] = _cut(model, output)
        yield form, written


def _cut(model: ir.Model, output: str) -> onnx.ModelProto:
    """The part of ``model`` that computes one output, and the states of its layer."""
    part = model.clone()
    kept = [value for value in part.graph.outputs if value.name == output or f".{output}." in str(value.name)]
    part.graph.outputs[:] = kept
    RemoveUnusedNodesPass()(part)
    part.graph.inputs[:] = [v for v in part.graph.inputs if v.name in ("x", "lengths") or f".{output}." in str(v.name)]
    proto = ir.to_proto(part)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _result(module: Variants, proto: onnx.ModelProto, name: str, kind: str, backend: str) -> float | str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        try:
            run = open_backend(backend, path)
            worst = 0.0
            for batch, time in _SIZES:
                feeds, expected = _question(module, proto, name, kind, batch, time)
                for _ in range(
                    2
                ):  # some programs compile for a shape at the first call, and go another way at the second
                    answer = run(feeds)
                    worst = max(worst, *(error(answer[key], value)[1] for key, value in expected.items()))
        except BackendError as refusal:
            return str(refusal)
    return worst if worst <= TOLERANCE else f"wrong numbers (error {worst:.2g})"


def _question(
    module: Variants, proto: onnx.ModelProto, name: str, kind: str, batch: int, time: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Feeds by name, random initial states among them, and what PyTorch answers."""
    generator = torch.Generator().manual_seed(_SEED)
    x = torch.randn(batch, time, INPUT, generator=generator)
    lengths = torch.tensor(_RAGGED[batch]) if kind == "ragged" else None
    output = module.outputs[name]
    feeds = {"x": x.numpy(), **({} if lengths is None else {"lengths": lengths.numpy()})}
    given = [value.name for value in proto.graph.input if value.name not in ("x", "lengths")]
    sizes = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value for value in proto.graph.input if value.name in given
    }
    states = [torch.randn(batch, sizes[state], generator=generator) for state in given]
    with torch.no_grad():
        y, finals = module.run(output, x, tuple(states) if given else None, lengths)
    feeds |= {state: value.numpy() for state, value in zip(given, states, strict=True)}
    expected = {output: y.numpy()}
    if given:
        expected |= {f"{state}.next": value.numpy() for state, value in zip(given, finals, strict=True)}
    return {key: np.ascontiguousarray(value) for key, value in feeds.items()}, expected
