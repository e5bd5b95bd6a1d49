"""The signature of a finished graph, and its other metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir
from torch import Tensor, nn

from rnncore.export.tracing.chosen_outputs import left_out_by
from rnncore.export.tracing.example import Extent
from rnncore.export.tracing.trace import Trace
from rnncore.runtime.errors import ExportError, raise_all
from rnncore.runtime.format.axes import BATCH, TIME, Flat, Size, Steps, base_of
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, PREFIX, Signature, StateSpec, TensorSpec
from rnncore.runtime.tensors.specs import shape_text

REPORT_KEY = PREFIX + "report"
_NO_END = 2**62
"""A largest id that far is none."""


def signature_of(
    graph: ir.Graph, states: Sequence[StateSpec], traced: Trace, *, causal: bool, not_causal_because: str
) -> Signature:
    """Describe every input and output of ``graph``, which was made of what ``traced`` tells more about.

    That is: which input holds the lengths, which ids inputs take, which sizes named axes take, and those of outputs, where
    probing has shown them.

    Raises:
        ExportError: an input or output has no batch axis, so the runtime could not batch it.
    """
    extents, lengths = traced.example.extents, traced.lengths
    state_names = {s.name for s in states} | {s.output for s in states}
    followers = {i.name: i.axes for i in traced.example.inputs if any(isinstance(axis, Steps) for axis in i.axes)}
    inputs = [
        _port(v, followers=followers.get(str(v.name), ()), ids=traced.ids.get(str(v.name)))
        for v in graph.inputs
        if v.name not in state_names
    ]
    known = dict(zip(graph.outputs, traced.example.output_shapes or (), strict=False))  # states come after them
    outputs = [_port(v, known.get(v)) for v in graph.outputs if v.name not in state_names]
    names = [name for port in inputs for name in port.shape if isinstance(name, str) and not isinstance(name, Steps)]
    wrong = {
        port.name: f"{what} '{port.name}' of shape {shape_text(port.shape)} has {count} {axis} axes, expected {expected}"
        for what, ports in (("input", inputs), ("output", outputs))
        for port in ports
        for axis, expected, most in ((BATCH, "exactly one", 1), (TIME, "at most one", None))
        for count in [[base_of(size) for size in port.inner].count(axis)]
        if count > 1 or (most is not None and count != most)
    }
    wrong = {**{port.name: text for port in outputs if (text := _rows_of_several(port))}, **wrong}
    way_out = left_out_by([str(value.name) for value in traced.model.graph.outputs], wrong)
    problems = list(wrong.values())
    problems[-1:] = [problem + way_out for problem in problems[-1:]]
    raise_all(problems, ExportError)
    axes = tuple(extents.get(name, Extent(name)).axis for name in dict.fromkeys(names))
    stated = [size for port in (*inputs, *outputs) for size in port.shape if isinstance(size, Steps | Flat)]
    says_more = bool(stated) or any(axis.bounded for axis in axes) or set(names) - {BATCH, TIME}
    return Signature(
        inputs=tuple(p for p in inputs if p.name != lengths),
        outputs=tuple(outputs),
        lengths=next((p for p in inputs if p.name == lengths), None),
        states=tuple(states),
        causal=causal,
        not_causal_because=not_causal_because,
        axes=axes if says_more else (),
    )


def _rows_of_several(output: TensorSpec) -> str:
    """What is wrong with an output that has several rows for each of the batch; empty if it has one."""
    size = next((size for size in output.shape if isinstance(size, Steps) and size.of == BATCH), None)
    if size is None or size.times == 1 or size.plus or size.over > 1:
        return ""
    return (
        f"output '{output.name}' of shape {shape_text(output.shape)} has {size.times} rows for each of the batch, and a file "
        f"answers row by row, expected one: return y.chunk({size.times}) if the rows of all come one after the other "
        f"(torch.cat([...], 0)), y.unflatten(0, (-1, {size.times})) if those of each do"
    )


def _port(
    value: ir.Value,
    shape: Sequence[Size] | None = None,
    *,
    followers: Sequence[str | None] = (),
    ids: tuple[int, int] | None = None,
) -> TensorSpec:
    if value.shape is None or value.dtype is None:
        raise ExportError(f"'{value.name}' has no known shape or dtype")
    found: tuple[Size, ...] = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    found = (
        tuple(a if isinstance(a, Steps) else d for a, d in zip(followers, found, strict=True)) if followers else found
    )
    low, high = (None, None) if ids is None else ids
    limit = None if high is None or high >= _NO_END else high + 1
    minimum = None if low is None or (low == 0 and limit is not None) else low
    own = found if shape is None else tuple(shape)
    return TensorSpec(str(value.name), str(value.dtype.numpy()), own, limit, minimum)


def write_metadata(model: ir.Model, signature: Signature, form: str, precision: str, extra: Mapping[str, str]) -> None:
    """Put everything the runtime needs into ``model``; the fingerprint is filled in when the file is written."""
    model.metadata_props.clear()
    model.metadata_props.update(
        {
            **extra,
            PREFIX + "format_version": str(signature.format_version),
            PREFIX + "signature": signature.to_json(),
            PREFIX + "form": form,
            PREFIX + "precision": precision,
            REPORT_KEY: "{}",
            PREFIX + "fingerprint": BLANK_FINGERPRINT,
        }
    )


def precision_of(module: nn.Module, inputs: Iterable[Tensor] = ()) -> str:
    """dtype of most weights of a module, such as "float32"; of most of the floats among its ``inputs`` if it has none."""
    sizes: dict[str, int] = {}
    floats: list[Tensor] = list(module.parameters())
    for tensor in floats or [value for value in inputs if value.is_floating_point()]:
        name = str(tensor.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + tensor.numel()
    return max(sizes, key=lambda name: sizes[name], default="float32")
