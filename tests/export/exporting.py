"""Exports for tests: both forms from one trace, and a look inside the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import onnxruntime
from torch import nn

from rnncore import runtime
from rnncore.export import ExportReport, export, stages

FORMS = ("loop", "scan")


@dataclass(frozen=True)
class Exported:
    """One module as files: reports, paths and loaded models by form."""

    module: nn.Module
    reports: Mapping[str, ExportReport]
    models: Mapping[str, runtime.Model]

    @property
    def loop(self) -> runtime.Model:
        return self.models["loop"]

    def __repr__(self) -> str:
        return f"<{type(self.module).__name__} exported>"

    def path(self, form: str = "loop") -> Path:
        return self.reports[form].path

    def proto(self, form: str = "loop") -> onnx.ModelProto:
        return onnx.load(self.path(form))


@contextmanager
def one_trace() -> Iterator[None]:
    """Exports of one module inside the block share what torch's exporter gave for the first.

    Torch takes most of the time of an export, and what it does has nothing to do with the form.
    """
    traces: dict[bool, Any] = {}
    steps: list[tuple[list[Any], Any]] = []
    trace, export_steps = stages.trace, stages.export_steps

    def trace_once(module: nn.Module, *args: Any, lift_lengths: bool, **options: Any) -> Any:
        if lift_lengths not in traces:
            traces[lift_lengths] = trace(module, *args, lift_lengths=lift_lengths, **options)
        return traces[lift_lengths]

    def steps_once(calls: list[Any]) -> Any:
        for known, found in steps:
            if known == calls:
                return found
        steps.append((calls, export_steps(calls)))
        return steps[-1][1]

    with mock.patch.object(stages, "trace", trace_once), mock.patch.object(stages, "export_steps", steps_once):
        yield


def export_forms(module: nn.Module, folder: Path, example: Any, **options: Any) -> Exported:
    """``module`` in every form; options are those of :func:`rnncore.export.export`."""
    with one_trace():
        reports = {form: export(module, folder / f"{form}.onnx", example, form=form, **options) for form in FORMS}
    return Exported(module, reports, {form: runtime.load(report.path) for form, report in reports.items()})


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph nested in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_graphs(attribute.g)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, of nested graphs as well."""
    for part in all_graphs(graph):
        yield from part.node


def as_loaded(path: Path, folder: Path) -> onnx.GraphProto:
    """The graph of a file as onnxruntime has it once constants are folded; standard operators stay what they are."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph
