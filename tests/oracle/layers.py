"""Cells along time, in both directions and on top of each other: one row after the other, one step after the other.

``run(x [B, T, F], state, lengths) -> (y [B, T, out], state)``; states are nested as rnncore nests them, each leaf
[B, size].  A step at t >= length never happens: the state stays what it was and the output is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracle.cells import Cell
from tests.oracle.functions import Array, Function, layer_norm

State = Any


@dataclass
class Recurrent:
    cell: Cell
    reverse: bool = False

    def initial(self, batch: int) -> State:
        return tuple(np.tile(vector, (batch, 1)) for vector in self.cell.initial)

    def run(self, x: Array, state: State, lengths: Sequence[int]) -> tuple[Array, State]:
        y = np.zeros((x.shape[0], x.shape[1], self.cell.output_size))
        end = [np.array(part, dtype=np.float64) for part in state]
        for row, length in enumerate(lengths):
            now = tuple(part[row] for part in end)
            for t in reversed(range(length)) if self.reverse else range(length):
                y[row, t], now = self.cell.step(x[row, t], *now)
            for part, value in zip(end, now, strict=True):
                part[row] = value
        return y, tuple(end)


@dataclass
class Bidirectional:
    ahead: Recurrent
    back: Recurrent

    def initial(self, batch: int) -> State:
        return self.ahead.initial(batch), self.back.initial(batch)

    def run(self, x: Array, state: State, lengths: Sequence[int]) -> tuple[Array, State]:
        y_ahead, ahead = self.ahead.run(x, state[0], lengths)
        y_back, back = self.back.run(x, state[1], lengths)
        return np.concatenate([y_ahead, y_back], axis=2), (ahead, back)


@dataclass
class FeedForward:
    """The same function of every valid step, no state; zero past the length."""

    steps: list[Function]

    def initial(self, batch: int) -> State:
        return ()

    def run(self, x: Array, state: State, lengths: Sequence[int]) -> tuple[Array, State]:
        rows = [[self.one(v) for v in row] for row in x]
        y = np.array(rows).reshape(x.shape[0], x.shape[1], len(self.one(np.zeros(x.shape[2]))))
        for row, length in enumerate(lengths):
            y[row, length:] = 0.0
        return y, ()

    def one(self, v: Array) -> Array:
        for step in self.steps:
            v = step(v)
        return v


def dense(W: Array, b: Array) -> Function:
    return lambda v: W @ v + b


def normalise(gain: Array, shift: Array) -> Function:
    return lambda v: layer_norm(v, gain, shift)


@dataclass
class Stack:
    layers: list[Any]

    def initial(self, batch: int) -> State:
        return tuple(layer.initial(batch) for layer in self.layers)

    def run(self, x: Array, state: State, lengths: Sequence[int]) -> tuple[Array, State]:
        ends = []
        for layer, start in zip(self.layers, state, strict=True):
            x, end = layer.run(x, start, lengths)
            ends.append(end)
        return x, tuple(ends)
