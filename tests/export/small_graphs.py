"""Graphs of a few lines, made to remember what they look back at, and then run in chunks and as a whole.

A graph is written as ``x[batch,time,4] -> y[batch,time,4]`` and one node a line, such as
``c[batch,time-2,4] = Slice(x, {0}, {-2}, {1})``.  A shape behind a name says what the value is (``x:i[batch]`` are integers,
``b`` booleans, ``d`` doubles; all else is float); it may be left out, as in real graphs.  ``{1, 2}`` is a vector and ``#1`` a
number that never changes, of integers, or of floats with a point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.export.lowering.context import carry_context
from rnncore.export.lowering.context_states import ContextStates
from rnncore.export.tracing.recorder import Call
from rnncore.runtime.format.signature import StateSpec

_TYPES = {"": "float", "i": "int64", "b": "bool", "d": "double"}
_NAMED = r"(\w+)(?::([ibd]))?\[([^\]]*)\]"
ROWS = (6, 9, 7)
"""Steps of each row."""


def model(text: str) -> ir.Model:
    """The graph that ``text`` describes."""
    head, *lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    constants: dict[str, str] = {}

    def constant(found: re.Match[str]) -> str:
        numbers = [part.strip() for part in (found[1] or found[2]).split(",") if part.strip()]
        name = "k" + re.sub(r"\W", "_", found[0].replace("-", "m"))
        kind = "float" if any("." in part or "n" in part for part in numbers) else "int64"
        size = "" if found[1] is None else f"[{len(numbers)}]"
        constants[name] = f"{kind}{size} {name} = {{{', '.join(numbers)}}}"
        return name

    def typed(text: str) -> list[str]:
        found = re.findall(_NAMED, text)
        return [f"{_TYPES[kind]}{f'[{_plain(dims)}]' * bool(dims)} {name}" for name, kind, dims in found]

    inputs, outputs = (typed(part) for part in head.split("->"))
    values, nodes = [], []
    for line in lines:
        left, right = line.split(" = ", 1)
        names = re.findall(_NAMED, left)
        values += [one for one in typed(left) if one not in outputs]
        left = re.sub(_NAMED, r"\1", left) if names else left
        nodes.append(f"{left} = " + re.sub(r"\{([^}]*)\}|#(-?[\d.]+)", constant, right))
    known = ", ".join([*constants.values(), *values])
    written = (
        f'<ir_version: 10, opset_import: ["": 20, "rnncore": 1, "other": 1]> main ({", ".join(inputs)}) => '
        f"({', '.join(outputs)}) <{known}> {{ {' '.join(nodes)} }}"
    )
    made = ir.from_proto(onnx.parser.parse_model(written))
    for value in (*made.graph.inputs, *(own for node in made.graph for own in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_named(d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape.dims])
    return made


def _plain(dims: str) -> str:
    return re.sub(r"(\w+) ?([+-]) ?(\d+)", lambda m: f"{m[1]}_{'p' if m[2] == '+' else 'm'}_{m[3]}", dims)


def _named(dim: ir.SymbolicDim) -> str | None:
    return None if dim.value is None else dim.value.replace("_p_", " + ").replace("_m_", " - ")


def carried(text: str, *, calls: Mapping[str, Call] | None = None, **options: Any) -> tuple[ir.Model, ContextStates]:
    """The graph as it is rewritten, which the checker of ONNX accepts, and the states that were made."""
    made = model(text)
    states = carry_context(made, calls or {}, **options)
    onnx.checker.check_model(ir.to_proto(made))
    assert not states.builder.nodes, "all that was written is in the graph"
    return made, states


def streams(text: str, **options: Any) -> ContextStates:
    """Whether the rows of a call, each at its own place of its sequence, get what the graph as it was gives as a whole."""
    made, states = carried(text, **options)
    same_in_chunks(model(text), made, states.specs)
    return states


def same_in_chunks(as_it_was: ir.Model, made: ir.Model, states: Sequence[StateSpec], more: int = 2) -> None:
    """As :func:`streams`; each row comes in chunks of its own, then all of them together with ``more`` steps."""
    random = np.random.default_rng(0)
    rows = [{str(v.name): _drawn(v, steps, random) for v in as_it_was.graph.inputs} for steps in ROWS]
    axes = {str(v.name): _time_of(v) for v in as_it_was.graph.inputs}
    outputs = [str(v.name) for v in as_it_was.graph.outputs]
    places = [_time_of(v) for v in as_it_was.graph.outputs]
    batches = [_sizes(v).index("batch") for v in as_it_was.graph.outputs]
    whole, piece = _session(as_it_was), _session(made)
    kept = [str(spec.output) for spec in states]
    told = [str(v.name) for v in made.graph.outputs]
    assert told[: len(outputs)] == outputs and sorted(told[len(outputs) :]) == sorted(kept)
    assert len(set(told)) == len(told)
    assert [i.name for i in piece.get_inputs()] == [*axes, *(spec.name for spec in states)]

    got: list[list[list[np.ndarray]]] = [[[] for _ in outputs] for _ in rows]
    ends: list[list[np.ndarray]] = []
    for row, (steps, fed) in enumerate(zip(ROWS, rows, strict=True)):
        held = [_first(spec) for spec in states]
        first = [1, 2, steps - 3 - more][row:] + [1, 2, steps - 3 - more][:row]
        start = 0
        for size in first:
            found = piece.run(
                [*outputs, *kept],
                {
                    **{name: _cut(value, axes[name], start, size) for name, value in fed.items()},
                    **dict(zip((s.name for s in states), held, strict=True)),
                },
            )
            for own, answer in zip(got[row], found, strict=False):
                own.append(answer)
            held, start = found[len(outputs) :], start + size
        ends.append(held)
    together = piece.run(
        outputs,
        {
            **{
                name: np.concatenate(
                    [_cut(fed[name], axes[name], steps - more, more) for steps, fed in zip(ROWS, rows, strict=True)],
                    _sizes(_of(as_it_was.graph.inputs, name)).index("batch"),
                )
                for name in axes
            },
            **{spec.name: np.concatenate([held[i] for held in ends], _batch_of(spec)) for i, spec in enumerate(states)},
        },
    )
    for row, fed in enumerate(rows):
        for i, wanted in enumerate(whole.run(outputs, fed)):
            parts = [*got[row][i], np.take(together[i], [row], batches[i])]
            place = places[i]
            have = parts[-1] if place is None else np.concatenate(parts, place)
            np.testing.assert_array_equal(have, wanted, err_msg=f"{outputs[i]} of row {row}")


def left_alone(text: str, **options: Any) -> None:
    """Whether nothing is made of the graph."""
    made, states = carried(text, **options)
    assert states.specs == [] and not states.one_length
    as_it_was = model(text)
    RemoveUnusedNodesPass()(as_it_was)
    assert shown(made) == shown(as_it_was)


def shown(made: ir.Model) -> list[str]:
    """The nodes, and what goes in and out, in words."""
    ends = [str(v.name) for v in (*made.graph.inputs, *made.graph.outputs)]
    return [
        *ends,
        *(f"{n.op_type} {[v and v.name for v in n.inputs]} {[v.name for v in n.outputs]}" for n in made.graph),
    ]


def run(made: ir.Model, **given: np.ndarray) -> list[np.ndarray]:
    """All outputs."""
    found: list[np.ndarray] = _session(made).run(None, given)
    return found


def shapes(states: ContextStates) -> dict[str, tuple[int | str, ...]]:
    """Of the states in the graph, by name."""
    return {spec.name: spec.shape or ("batch", spec.size) for spec in states.specs}


def _session(made: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # shapes of streams are longer than those that a graph names
    data = ir.to_proto(made).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _sizes(value: ir.Value) -> list[int | str]:
    assert value.shape is not None
    return [d if isinstance(d, int) else str(d.value) for d in value.shape.dims]


def _of(values: Sequence[ir.Value], name: str) -> ir.Value:
    return next(value for value in values if value.name == name)


def _time_of(value: ir.Value) -> int | None:
    return next((axis for axis, size in enumerate(_sizes(value)) if "time" in str(size)), None)


def _drawn(value: ir.Value, steps: int, random: np.random.Generator) -> np.ndarray:
    """Small whole numbers, of which sums and products are exact; lengths are the number of steps."""
    assert value.dtype is not None
    kind = value.dtype.numpy()
    if value.name == "lengths":
        return np.array([steps], kind)
    shape = [{"batch": 1, "time": steps}.get(size, size) for size in _sizes(value)]  # type: ignore[arg-type]
    return random.integers(-5, 6, shape).astype(kind)  # type: ignore[arg-type]


def _cut(value: np.ndarray, axis: int | None, start: int, size: int) -> np.ndarray:
    if axis is None:
        return np.array([size], value.dtype) if value.shape == (1,) else value
    return np.take(value, range(start, start + size), axis)


def _first(spec: StateSpec) -> np.ndarray:
    shape = [1 if size == "batch" else size for size in spec.shape or ("batch", spec.size)]
    found: np.ndarray = spec.initial_value().reshape(shape)
    return found


def _batch_of(spec: StateSpec) -> int:
    place: int = 0 if spec.shape is None else spec.shape.index("batch")
    return place
