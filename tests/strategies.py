"""Hypothesis strategies: whole architectures, inputs that fit them, and ways of cutting an input into chunks.

    @given(cases())
    def test_something(case):
        model = case.architecture.build(case.seed)              # rnncore.Stacked, random weights, eval mode, float64
        x, lengths, state = case.inputs.tensors(model)          # torch;  case.inputs.x etc. are NumPy

    @given(cases(causal=True).flatmap(lambda c: tuples(just(c), chunkings(c.inputs.time))))

Nothing here is symmetric: sizes of features, batch and time come from disjoint sets of primes (time and batch also 0 and
1), weights, biases, peepholes, gains and initial states are random, inputs vary in time.  What is drawn is small and
readable (sizes, names, seeds); the numbers come from the seeds, so a failing example prints as a few lines and shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import rnncore
from rnncore.activations import ACTIVATIONS
from tests.parity import leaves, map_state

FEATURES = (3, 5, 2, 11, 17, 23, 29, 31, 37, 41, 43, 47)
BATCHES = (1, 7, 0, 19)
TIMES = (1, 13, 0, 53)
SHORT_TIMES = TIMES[:3]

CellKind = Literal["rnn", "gru", "lstm", "min_gru", "min_lstm"]
CELLS: dict[str, type[rnncore.Cell]] = {
    "rnn": rnncore.RNNCell,
    "gru": rnncore.GRUCell,
    "lstm": rnncore.LSTMCell,
    "min_gru": rnncore.MinGRUCell,
    "min_lstm": rnncore.MinLSTMCell,
}

# What keeps errors from growing faster than values do: gates in [0, 1], or everything in [-1, 1] and no layer norm (which
# blows small differences up).  Outside of that a recurrence is chaotic: after a few steps no two ways of rounding agree.
SIGMOIDS = ("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2")
BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "hard_sigmoid_keras2", "softsign", "hard_tanh")
GATES = SIGMOIDS + tuple(name for name in BOUNDED if name not in SIGMOIDS)
UNBOUNDED = ("relu", *sorted(ACTIVATIONS.keys() - {*BOUNDED, "relu"}))


# ------------------------------------------------------------------------------------------------------- architectures
@dataclass(frozen=True)
class CellSpec:
    """One cell: its kind, hidden size and keyword options of its constructor."""

    kind: CellKind
    hidden_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output_size(self) -> int:
        return self.options.get("projection") or self.hidden_size

    def build(self, input_size: int) -> rnncore.Cell:
        return CELLS[self.kind](input_size, self.hidden_size, **self.options)


@dataclass(frozen=True)
class RecurrentSpec:
    """One recurrent layer: forward, reverse, or both directions (then ``backward`` is the second cell)."""

    cell: CellSpec
    direction: Literal["forward", "reverse", "both"] = "forward"
    backward: CellSpec | None = None

    @property
    def output_size(self) -> int:
        return self.cell.output_size + (self.backward.output_size if self.backward else 0)

    def build(self, input_size: int) -> rnncore.RecurrentLayer:
        if self.backward is not None:
            return rnncore.Bidirectional(self.cell.build(input_size), self.backward.build(input_size))
        return rnncore.Recurrent(self.cell.build(input_size), reverse=self.direction == "reverse")


@dataclass(frozen=True)
class FeedForwardSpec:
    """A feed-forward module of ``output_size`` features, the same at every step."""

    kind: Literal["linear", "mlp", "norm"]
    output_size: int

    def build(self, input_size: int) -> nn.Module:
        linear = nn.Linear(input_size, self.output_size)
        if self.kind == "linear":
            return linear
        if self.kind == "mlp":
            return nn.Sequential(nn.Linear(input_size, 13), nn.Tanh(), nn.Linear(13, self.output_size), nn.ReLU())
        return nn.Sequential(linear, nn.LayerNorm(self.output_size))


@dataclass(frozen=True)
class Architecture:
    """A whole network: what :class:`rnncore.Stacked` is built from."""

    input_size: int
    layers: tuple[RecurrentSpec | FeedForwardSpec, ...]
    dropout: float = 0.0

    @property
    def causal(self) -> bool:
        """Whether every output depends on the past only, so that the network can be streamed."""
        return all(layer.direction == "forward" for layer in self.layers if isinstance(layer, RecurrentSpec))

    @property
    def output_size(self) -> int:
        return self.layers[-1].output_size

    def build(self, seed: int, dtype: torch.dtype = torch.float64) -> rnncore.Stacked:
        """The network in eval mode; the same seed gives the same weights in every dtype, up to rounding."""
        width, layers = self.input_size, []
        for spec in self.layers:
            layers.append(spec.build(width))
            width = spec.output_size
        return randomize(rnncore.Stacked(layers, dropout=self.dropout).eval().to(dtype), seed)


def randomize(module: nn.Module, seed: int) -> Any:
    """Give every parameter of ``module`` random numbers, none of them a default; returns it.

    Matrices are scaled so that a recurrence neither dies nor explodes.  Vectors (biases, peepholes, initial states)
    are around 0, gains around 1.
    """
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                values = random.uniform(-1.0, 1.0, tuple(parameter.shape))
                if parameter.dim() > 1:
                    values = values / np.sqrt(parameter.shape[1])
                elif isinstance(owner, nn.LayerNorm) and name == "weight":
                    values = 1.0 + values / 2
                parameter.copy_(torch.from_numpy(values))
    return module


class Sizes:
    """Hands out feature sizes, all different as long as there are some left."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.left = list(FEATURES)

    def next(self, below: int | None = None) -> int:
        pool = [size for size in self.left if below is None or size < below]
        if not pool:
            pool = [size for size in FEATURES if below is None or size < below]
        size = self.draw(st.sampled_from(pool))
        if size in self.left:
            self.left.remove(size)
        return size


def _draw_cell(draw: st.DrawFn, sizes: Sizes, kinds: Sequence[CellKind], learned: bool, bounded: bool) -> CellSpec:
    kind = draw(st.sampled_from(kinds))
    hidden_size = sizes.next()
    options: dict[str, Any] = {"bias": draw(st.booleans())}
    if learned:
        options["learn_initial_state"] = draw(st.booleans())
    if kind in ("rnn", "gru", "lstm"):
        options["activation"] = draw(st.sampled_from(BOUNDED if bounded else BOUNDED + UNBOUNDED))
    if kind == "lstm":
        options["layer_norm"] = not bounded and draw(st.booleans())
    if kind in ("gru", "lstm"):
        tame = not bounded and options["activation"] in BOUNDED and not options.get("layer_norm")
        options["gate_activation"] = draw(st.sampled_from(GATES if tame else SIGMOIDS))
    if kind == "gru":
        options["reset"] = draw(st.sampled_from(("after", "before", None)))
    if kind == "lstm":
        options["peephole"] = draw(st.sampled_from((None, "current", "previous")))
        options["coupled"] = draw(st.booleans())
        if hidden_size > min(FEATURES) and draw(st.booleans()):
            options["projection"] = sizes.next(below=hidden_size)
    return CellSpec(kind, hidden_size, options)


@st.composite
def architectures(
    draw: st.DrawFn,
    *,
    causal: bool = False,
    max_layers: int = 3,
    feed_forward: bool = True,
    kinds: Sequence[CellKind] = tuple(CELLS),
    learned: bool = True,
    dropout: bool = False,
    bounded: bool = False,
) -> Architecture:
    """Networks of 1 to ``max_layers`` recurrent layers of mixed cells, variants and directions.

    Args:
        causal: forward layers only, so that the network can be streamed.
        max_layers: most recurrent layers.
        feed_forward: feed-forward modules between recurrent layers and on top as well.
        kinds: cells to draw from, keys of :data:`CELLS`.
        learned: learned initial states as well.
        dropout: dropout between layers as well (networks are built in eval mode).
        bounded: bounded activations, gates in [0, 1] and no layer norm: for long inputs, on which the rest is chaotic.
    """
    sizes = Sizes(draw)
    input_size = sizes.next()
    layers: list[RecurrentSpec | FeedForwardSpec] = []
    for _ in range(draw(st.integers(1, max_layers))):
        direction = "forward" if causal else draw(st.sampled_from(("forward", "reverse", "both")))
        cell = _draw_cell(draw, sizes, kinds, learned, bounded)
        backward = _draw_cell(draw, sizes, kinds, learned, bounded) if direction == "both" else None
        layers.append(RecurrentSpec(cell, direction, backward))
        if feed_forward and draw(st.booleans()):
            layers.append(FeedForwardSpec(draw(st.sampled_from(("linear", "mlp", "norm"))), sizes.next()))
    return Architecture(input_size, tuple(layers), draw(st.sampled_from((0.0, 0.3))) if dropout else 0.0)


# -------------------------------------------------------------------------------------------------------------- inputs
Values = Literal["plain", "large", "denormal", "mixed"]


@dataclass(frozen=True)
class Inputs:
    """A batch for a network: what was drawn.  Arrays are made from the seed on demand, in float64."""

    batch: int
    time: int
    input_size: int
    lengths: tuple[int, ...] | None = None
    values: Values = "plain"
    given_state: bool = False
    seed: int = 0

    @property
    def x(self) -> np.ndarray:
        """[batch, time, input_size]; "large" has numbers of 1e4 in it, "denormal" ones that are so in float32 or 64."""
        random = np.random.default_rng(self.seed)
        x = random.standard_normal((self.batch, self.time, self.input_size))
        spots = random.integers(0, 6, x.shape)  # about a sixth of the entries for each kind of extreme value
        if self.values in ("large", "mixed"):
            x = np.where(spots == 1, 1e4 * np.sign(x), x)
        if self.values in ("denormal", "mixed"):
            x = np.where(spots == 2, 1e-40 * x, np.where(spots == 3, 5e-324, np.where(spots == 4, 0.0, x)))
        return x

    @property
    def lengths_array(self) -> np.ndarray | None:
        """int64 [batch], or None."""
        return None if self.lengths is None else np.array(self.lengths, dtype=np.int64).reshape(self.batch)

    def state(self, module: rnncore.RecurrentLayer) -> Any:
        """A random state nested as that of ``module``, leaves float64 [batch, size]; None unless ``given_state``."""
        if not self.given_state:
            return None
        random = np.random.default_rng(self.seed + 1)
        shape_of = module.initial_state(self.batch, torch.zeros(()))
        return map_state(lambda leaf: random.uniform(-1.0, 1.0, tuple(leaf.shape)), shape_of)

    def tensors(
        self, module: rnncore.RecurrentLayer, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Any, Tensor | None]:
        """(x, state, lengths), the arguments of ``module``."""
        state = self.state(module)
        if state is not None:
            state = map_state(lambda leaf: torch.from_numpy(leaf).to(dtype), state)
        lengths = None if self.lengths_array is None else torch.from_numpy(self.lengths_array)
        return torch.from_numpy(self.x).to(dtype), state, lengths


@st.composite
def inputs(
    draw: st.DrawFn,
    input_size: int,
    *,
    times: Sequence[int] = SHORT_TIMES,
    batches: Sequence[int] = BATCHES[:3],
    with_lengths: bool | None = None,
    with_state: bool | None = None,
    values: Sequence[Values] = ("plain", "large", "denormal", "mixed"),
) -> Inputs:
    """Batches of ``input_size`` features; None for ``with_lengths`` and ``with_state`` means either."""
    batch, time = draw(st.sampled_from(batches)), draw(st.sampled_from(times))
    lengths = None
    if with_lengths or (with_lengths is None and draw(st.booleans())):
        # Zeros, ones and full rows more often than their share.
        one = st.sampled_from((0, min(1, time), time)) | st.integers(0, time)
        lengths = tuple(draw(st.lists(one, min_size=batch, max_size=batch)))
    given = draw(st.booleans()) if with_state is None else with_state
    return Inputs(batch, time, input_size, lengths, draw(st.sampled_from(values)), given, draw(SEEDS))


SEEDS = st.integers(0, 2**16)


@dataclass(frozen=True)
class Case:
    """An architecture, the seed of its weights, and inputs that fit it."""

    architecture: Architecture
    seed: int
    inputs: Inputs

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[rnncore.Stacked, Tensor, Any, Tensor | None]:
        """(network, x, state, lengths)."""
        module = self.architecture.build(self.seed, dtype)
        return module, *self.inputs.tensors(module, dtype)


@st.composite
def cases(draw: st.DrawFn, architecture: st.SearchStrategy[Architecture] | None = None, **options: Any) -> Case:
    """Architectures with inputs; keyword options are those of :func:`inputs`."""
    drawn = draw(architectures() if architecture is None else architecture)
    return Case(drawn, draw(SEEDS), draw(inputs(drawn.input_size, **options)))


# ----------------------------------------------------------------------------------------------------------- schedules
@st.composite
def chunkings(draw: st.DrawFn, total: int, *, max_cuts: int = 5) -> list[int]:
    """Chunk lengths that sum to ``total``; chunks of 0 steps are among them."""
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=max_cuts)))
    return [int(n) for n in np.diff([0, *cuts, total])]


def lengths_of_chunks(lengths: np.ndarray | None, chunks: Sequence[int]) -> list[np.ndarray | None]:
    """What ``lengths`` of the whole means for each chunk: how many of the chunk's steps are valid."""
    starts = np.cumsum([0, *chunks[:-1]])
    if lengths is None:
        return [None] * len(chunks)
    return [np.clip(lengths - start, 0, size) for start, size in zip(starts, chunks, strict=True)]


def pieces(x: np.ndarray, chunks: Sequence[int]) -> list[np.ndarray]:
    """``x`` [batch, time, ...] cut along time."""
    return np.split(x, np.cumsum(chunks)[:-1], axis=1) if len(chunks) else []


__all__ = [
    "Architecture",
    "Case",
    "CellSpec",
    "FeedForwardSpec",
    "Inputs",
    "RecurrentSpec",
    "architectures",
    "cases",
    "chunkings",
    "inputs",
    "leaves",
    "lengths_of_chunks",
    "pieces",
    "randomize",
]
