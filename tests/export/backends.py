"""One question, many backends: each takes (x [batch, time, features], lengths or None) and gives named arrays.

==================  ==================================================================================================
backend             what it cannot do
==================  ==================================================================================================
oracle              nothing; NumPy in float64, row by row
torch               nothing; the module itself in the dtype of the file
runtime loop, scan  an empty batch, which is an error
streams             models that are not causal
push_many           the same
onnx.reference      scan: the axes and directions used here; loop: no steps (nothing to join), and out of the box it
                    joins what each step puts out along the first axis where ONNX says a new one (mended here)
==================  ==================================================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_loop

from rnncore import runtime
from tests.export.modules import Network
from tests.oracle.adapt import oracle_of
from tests.parity import Arrays, assert_same, depth_of, named
from tests.strategies import lengths_of_chunks

Lengths = np.ndarray | None
Backend = Callable[[np.ndarray, Lengths], Arrays]


def dtype_of(network: Network) -> torch.dtype:
    return next(network.parameters()).dtype


def by_torch(network: Network, dtype: torch.dtype = torch.float64) -> Backend:
    """The module with the same weights in ``dtype``; in float64 it is the reference."""
    module = copy.deepcopy(network).to(dtype)

    def run(x: np.ndarray, lengths: Lengths) -> Arrays:
        with torch.no_grad():
            answer = module(torch.from_numpy(x).to(dtype), None if lengths is None else torch.from_numpy(lengths))
        return {name: value.detach().double().numpy() for name, value in answer.items()}

    return run


def by_oracle(network: Network) -> Backend:
    """The equations of the notes in NumPy."""
    reference = oracle_of(network.stack)

    def run(x: np.ndarray, lengths: Lengths) -> Arrays:
        steps = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        answer = named(*reference.run(x.astype(np.float64), reference.initial(len(x)), steps))
        return answer if network.with_states else {"y": answer["y"]}

    return run


def by_runtime(model: runtime.Model) -> Backend:
    """Whole sequences in one call."""

    def run(x: np.ndarray, lengths: Lengths) -> Arrays:
        return as_named(model, model.run(x, lengths=lengths))

    return run


def by_streams(model: runtime.Model, chunks: Sequence[int]) -> Backend:
    """Each row as a stream of its own, cut into ``chunks``."""

    def run(x: np.ndarray, lengths: Lengths) -> Arrays:
        answers = []
        for row, parts in zip(x, _cut(x, lengths, chunks), strict=True):
            with model.stream() as stream:
                answers.append(_joined(model, [stream.push(row[a:b]) for a, b in parts]))
        return _batched(answers, x.shape[1])

    return run


def by_push_many(model: runtime.Model, chunks: Sequence[int]) -> Backend:
    """All rows as streams that move together."""

    def run(x: np.ndarray, lengths: Lengths) -> Arrays:
        streams = [model.stream() for _ in x]
        cuts = _cut(x, lengths, chunks)
        rounds = [
            model.push_many(streams, [row[slice(*cut[i])] for row, cut in zip(x, cuts, strict=True)])
            for i in range(len(cuts[0]))
        ]
        for stream in streams:
            stream.close()
        return _batched([_joined(model, list(parts)) for parts in zip(*rounds, strict=True)], x.shape[1])

    return run


class Loop(op_loop.Loop):
    """onnx.reference's Loop, but what each step puts out is stacked along a new axis, as ONNX defines it."""

    op_domain = ""

    def __init__(self, node: Any, run_params: Any) -> None:
        super().__init__(node, run_params)
        plain = self._run_body

        def run_body(*args: Any, **options: Any) -> list[Any]:
            outputs = list(plain(*args, **options))
            kept = len(outputs) - self.K
            return [*outputs[:kept], *(output[None] for output in outputs[kept:])]

        self._run_body = run_body


def by_onnx_reference(model: runtime.Model, proto: onnx.ModelProto, *, mended: bool = True) -> Backend:
    """onnx's own evaluator in Python; see the table above."""
    evaluator = ReferenceEvaluator(proto, new_ops=[Loop] if mended else [])

    def run(x: np.ndarray, lengths: Lengths) -> Arrays:
        feeds = {model.inputs[0]: x}
        if model.signature.lengths is not None:
            full = np.full(len(x), x.shape[1], np.int64)
            feeds[model.signature.lengths.name] = full if lengths is None else lengths
        elif lengths is not None:
            raise ValueError("this file takes no lengths")
        feeds |= {state.name: np.tile(state.initial_value(), (len(x), 1)) for state in model.signature.states}
        with np.errstate(all="ignore"):  # its Sigmoid computes both sides of a where, one of which overflows
            answer = dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))
        result = {name: answer[name] for name in model.outputs}
        if lengths is not None:  # as the runtime does: what a head says about padding is cut off
            valid = (np.arange(x.shape[1]) < lengths[:, None])[:, :, None]
            result = {name: np.where(valid, value, 0) if value.ndim == 3 else value for name, value in result.items()}
        return result

    return run


def as_named(model: runtime.Model, answer: Any) -> Arrays:
    """What ``run`` or ``push`` returned, by name however many outputs there are."""
    return dict(answer) if isinstance(answer, dict) else {model.outputs[0]: answer}


def assert_parity(
    backends: dict[str, Backend], network: Network, x: np.ndarray, lengths: Lengths = None, *, depth: int | None = None
) -> None:
    """Hold every backend to the module in float64; the tolerance is that of the dtype of the file."""
    dtype = dtype_of(network)
    x = torch.from_numpy(x).to(dtype).numpy()
    expected = by_torch(network)(x, lengths)
    layers = depth_of(network.stack) if depth is None else depth
    for name, backend in backends.items():
        what = f"{name} on x {list(x.shape)}, lengths {None if lengths is None else lengths.tolist()}"
        exact = name == "oracle"
        kind, precision = ("oracle", torch.float64) if exact else ("onnx", dtype)
        assert_same(backend(x, lengths), expected, precision, kind, depth=layers, x=x, what=what)


def _cut(x: np.ndarray, lengths: Lengths, chunks: Sequence[int]) -> list[list[tuple[int, int]]]:
    """(start, end) of each chunk of each row; chunks past the length of a row are empty."""
    full = np.full(len(x), x.shape[1], np.int64) if lengths is None else lengths
    sizes = lengths_of_chunks(full, list(chunks) or [0])
    ends = np.cumsum(np.array(sizes), axis=0)
    return [[(int(e - s[row]), int(e)) for s, e in zip(sizes, ends[:, row], strict=True)] for row in range(len(x))]


def _joined(model: runtime.Model, parts: list[Any]) -> Arrays:
    """The answers of one stream as one: joined along time, or the last one for an output without time."""
    answers = [as_named(model, part) for part in parts]
    return {
        port.name: np.concatenate([answer[port.name] for answer in answers])
        if port.time_axis is not None
        else answers[-1][port.name]
        for port in model.signature.outputs
    }


def _batched(answers: list[Arrays], time: int) -> Arrays:
    """Rows of any length as one batch, zero past each one's end."""
    result = {}
    for name in answers[0]:
        values = [answer[name] for answer in answers]
        if values[0].ndim == 2:
            values = [np.concatenate([v, np.zeros((time - len(v), *v.shape[1:]), v.dtype)]) for v in values]
        result[name] = np.stack(values)
    return result
