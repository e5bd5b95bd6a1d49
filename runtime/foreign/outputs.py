"""The outputs of a foreign graph, learnt by running it twice on blanks of different sizes.

What grows with the batch is the batch axis, what grows with the steps is time, what stays is a fixed size.  The run also
shows whether the states that come out can go in again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rnncore.runtime.errors import InputError
from rnncore.runtime.foreign.axes import Inputs
from rnncore.runtime.foreign.description import Foreign
from rnncore.runtime.foreign.states import DTYPES, read_dims
from rnncore.runtime.format.axes import BATCH, TIME, Steps
from rnncore.runtime.format.step_fitting import Unfitting, fit_steps
from rnncore.runtime.tensors.graph_adapter import Array, GraphAdapter, GraphPort, Run
from rnncore.runtime.tensors.graph_contract import GraphValue
from rnncore.runtime.tensors.specs import shape_text

_BATCHES = (2, 3)
# Some graphs, with convolutions in front, need so many steps at least.
_STEPS = ((5, 7), (61, 67), (1009, 1013))


@dataclass(frozen=True)
class Sample:
    """Sizes of one trial and the shapes that came out of it."""

    batch: int
    steps: int
    shapes: dict[str, tuple[int, ...]]


def read_outputs(
    foreign: Foreign, inputs: Inputs, outputs: Mapping[str, GraphValue], run: Run, problems: list[str]
) -> tuple[GraphAdapter, dict[str, tuple[int | str, ...]]]:
    """The border of a model, and the shape of each output inside the runtime: [batch, time, ...].

    ``problems`` grows by what is wrong; the rest is then meaningless.
    """
    adapter = GraphAdapter(
        inputs=inputs.ports,
        outputs=(),
        states=inputs.states,
        contexts=inputs.contexts,
        constants=inputs.constants,
        timed=inputs.timed,
        chunks=inputs.chunks,
        chunked=inputs.chunked,
        alone=inputs.alone,
    )
    names = [name for name in outputs if name not in foreign.states.values()]
    for name in names:
        if outputs[name].type not in DTYPES:
            problems.append(f"output {name!r} is a {outputs[name].type}, which the runtime cannot handle")
        read_dims(foreign, outputs[name], problems)
    if not names:
        problems.append("every output is a state: there is nothing to return")
    if problems:
        return adapter, {}
    samples = _sample(adapter, inputs, names, run, problems)
    if problems:
        return adapter, {}
    problems += _state_problems(inputs, samples)
    ports = []
    shapes = {}
    asked = _Asked(inputs, run, names, samples)
    for name in names:
        port = _read_output(foreign, name, inputs, asked, problems)
        ports.append(port)
        shapes[name] = _shape(port, inputs.chunked)
    return replace(adapter, outputs=tuple(ports)), shapes


def blanks(inputs: Inputs, batch: int, steps: int) -> dict[str, Array]:
    """Zeros for one call of the graph itself: inputs, states and constants."""
    feeds = dict(inputs.constants)
    for port in (*inputs.ports, *(state.port for state in inputs.states)):
        sizes = {BATCH: batch, TIME: steps}
        shape = [d if isinstance(d, int) else sizes.get(d, 1) for d in port.dims]
        feeds[port.name] = np.zeros(shape, inputs.dtypes[port.name])
    return feeds


class _Asked:
    """What the graph makes of other numbers of steps; each is tried once."""

    def __init__(self, inputs: Inputs, run: Run, names: Sequence[str], samples: Sequence[Sample]) -> None:
        self._inputs, self._run, self._names = inputs, run, list(names)
        self.samples = samples
        self._shapes: dict[int, Mapping[str, tuple[int, ...]]] = {s.steps: s.shapes for s in samples}

    def size(self, name: str, axis: int, steps: int) -> int | None:
        """Size of an axis of an output after so many steps; None if the graph does not take them."""
        if steps not in self._shapes:
            try:
                values = self._run(self._names, blanks(self._inputs, self.samples[0].batch, steps))
            except InputError:
                return None
            self._shapes[steps] = {output: np.shape(value) for output, value in values.items()}
        return self._shapes[steps][name][axis]

    def followed(self, name: str, axis: int) -> str | None:
        """How the axis follows time, None if it does not."""
        low, high = sorted(sample.steps for sample in self.samples)
        points = {n: self.size(name, axis, n) for n in (low, low + 1, low + 2, high, 2 * high, 3 * high, 20 * high + 1)}
        known = {n: size for n, size in points.items() if size is not None}
        if len(set(known.values())) == 1:
            return None
        try:
            return fit_steps(TIME, known, lambda n: self.size(name, axis, n))
        except Unfitting:
            return None


def _sample(adapter: GraphAdapter, inputs: Inputs, names: Sequence[str], run: Run, problems: list[str]) -> list[Sample]:
    """Two trials of different sizes; a problem, with what was tried, if the graph takes none."""
    asked = [*names, *(state.output for state in adapter.states)]
    tried = ""
    for pair in [(1, 1)] if inputs.chunked else _STEPS:
        samples = []
        try:
            for batch, steps in zip((1, 1) if inputs.alone else _BATCHES, pair, strict=True):
                feeds = blanks(inputs, batch, steps)
                tried = ", ".join(f"{name} {shape_text(value.shape)}" for name, value in feeds.items())
                values = run(asked, feeds)
                samples.append(Sample(batch, steps, {name: np.shape(value) for name, value in values.items()}))
            return samples
        except InputError as error:
            told = error
    problems.append(f"{told} (zeros: {tried})")
    return []


def _state_problems(inputs: Inputs, samples: Sequence[Sample]) -> list[str]:
    problems = []
    for state in inputs.states:
        for sample in samples:
            sizes = {BATCH: sample.batch}
            expected = tuple(d if isinstance(d, int) else sizes[d] for d in state.port.dims)
            found = sample.shapes[state.output]
            if found != expected:
                problems.append(
                    f"state {state.port.name!r} goes in as {shape_text(expected)}, {state.output!r} comes out as "
                    f"{shape_text(found)}: pair other names, or say which axis is the batch with axes="
                )
                break
    return problems


def _read_output(foreign: Foreign, name: str, inputs: Inputs, asked: _Asked, problems: list[str]) -> GraphPort:
    """The port of an output, from what the caller says and from what the trials show."""
    samples = asked.samples
    one, two = (sample.shapes[name] for sample in samples)
    if len(one) != len(two):
        problems.append(f"output {name!r} changes its rank: {shape_text(one)}, then {shape_text(two)}")
        return GraphPort(name, (), None)
    words = foreign.axes.get(name)
    if words is not None and len(words) != len(one):
        problems.append(f"axes[{name!r}] names {len(words)} axes, the graph made {shape_text(one)}")
        return GraphPort(name, (), None)
    batch = _batch_axis(name, words, inputs, samples, problems)
    one_row = inputs.alone and words is None
    follows = _other_functions(name, words, None if one_row else batch, inputs, asked)
    time = next(iter(follows), None)
    if time is None:
        time = _time_axis(name, words, batch, inputs, samples, problems)
    elif one_row:  # behind time, where that comes first
        rows = [axis for axis in (0, 1) if axis != time and one[axis : axis + 1] == two[axis : axis + 1] == (1,)]
        batch = rows[0] if rows and len(one) > 2 else None
    dims: list[int | str] = []
    for axis, (size, other) in enumerate(zip(one, two, strict=True)):
        if axis == batch:
            dims.append(1 if inputs.alone else BATCH)
        elif axis == time and not inputs.chunked:
            dims.append(follows.get(axis, TIME))
        else:
            dims.append(size if size == other else words[axis] if words else f"size{axis}")
    return GraphPort(name, tuple(dims), batch, time)


def _other_functions(
    name: str, words: Sequence[str] | None, batch: int | None, inputs: Inputs, asked: _Asked
) -> dict[int, str]:
    """Axes of an output that follow time without being as long, by what they are; those that the caller calls time."""
    one, two = (sample.shapes[name] for sample in asked.samples)
    steps = [sample.steps for sample in asked.samples]
    if inputs.chunked or any(
        [a, b] == steps for axis, (a, b) in enumerate(zip(one, two, strict=True)) if axis != batch
    ):
        return {}
    far = 20 * max(steps) + 1  # beyond the stride of most: a size that stays at first may follow all the same
    axes = [
        axis
        for axis, (a, b) in enumerate(zip(one, two, strict=True))
        if axis != batch and (a != b or asked.size(name, axis, far) not in (a, None))
    ]
    if words is not None:
        axes = [axis for axis in axes if words[axis] == TIME]
    found = {axis: asked.followed(name, axis) for axis in axes}
    return {axis: size for axis, size in found.items() if size is not None}


def _batch_axis(
    name: str, words: Sequence[str] | None, inputs: Inputs, samples: Sequence[Sample], problems: list[str]
) -> int | None:
    one, two = samples
    sizes = list(zip(one.shapes[name], two.shapes[name], strict=True))
    follows = [axis for axis, pair in enumerate(sizes) if pair == (one.batch, two.batch)]
    if words is not None:
        axis = words.index(BATCH) if BATCH in words else None
        if axis is None and not inputs.alone:
            problems.append(f"axes[{name!r}] has no batch, but the model takes batches")
        elif axis is not None and axis not in follows:
            problems.append(f"axes[{name!r}] calls axis {axis} the batch, but it has {sizes[axis][0]} of {one.batch}")
        return axis
    if inputs.alone:
        return 0 if 0 in follows else None
    if not follows:
        problems.append(
            f"output {name!r} has no batch axis: {shape_text(one.shapes[name])} from a batch of {one.batch}"
        )
        return None
    return follows[0]


def _time_axis(
    name: str,
    words: Sequence[str] | None,
    batch: int | None,
    inputs: Inputs,
    samples: Sequence[Sample],
    problems: list[str],
) -> int | None:
    """The axis of time; in a chunked model only an axis of size 1, which the runtime drops."""
    one, two = samples
    sizes = list(zip(one.shapes[name], two.shapes[name], strict=True))
    follows = [axis for axis, pair in enumerate(sizes) if axis != batch and pair == (one.steps, two.steps)]
    if words is not None:
        axis = words.index(TIME) if TIME in words else None
        if axis is None or axis in follows:
            return axis
        if inputs.chunked:
            return None  # several samples for each chunk: an axis like any other
        problems.append(f"axes[{name!r}] calls axis {axis} time, but it has {sizes[axis][0]} of {one.steps} steps")
        return axis
    if not inputs.chunked:
        return follows[0] if follows else None
    single = [port.time for port in inputs.ports if port.time is not None and port.name not in inputs.chunks]
    return single[0] if single and single[0] in follows else None


def _shape(port: GraphPort, chunked: bool) -> tuple[int | str, ...]:
    rest = tuple(size for axis, size in enumerate(port.dims) if axis not in (port.batch, port.time))
    if port.time is not None and isinstance(port.dims[port.time], Steps):
        return (BATCH, port.dims[port.time], *rest)
    return (BATCH, TIME, *rest) if chunked or port.time is not None else (BATCH, *rest)
