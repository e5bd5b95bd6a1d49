"""Faults planted in layers: direction, lengths, padding, time and batch, states, order of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import rnncore
from rnncore.layers.base import valid_steps
from tests.mutants.cell_faults import Mutant


def one(reverse: bool = False) -> rnncore.Recurrent:
    return rnncore.Recurrent(rnncore.LSTMCell(5, 11, peephole="current", learn_initial_state=True), reverse=reverse)


def both() -> rnncore.Bidirectional:
    return rnncore.Bidirectional(rnncore.GRUCell(5, 11), rnncore.GRUCell(5, 11))


def deep() -> rnncore.Stacked:
    cells = [rnncore.GRUCell(5, 5), rnncore.GRUCell(5, 5), rnncore.GRUCell(5, 5)]
    return rnncore.Stacked([*map(rnncore.Recurrent, cells), nn.Linear(5, 3)], dropout=0.2).eval()


def in_layer(name: str, healthy: Any, forward: Any, **options: Any) -> Mutant:
    """A fault that overrides ``forward`` of the layer; its first argument is the healthy one."""

    def plant(layer: Any) -> None:
        base = type(layer)

        def faulty(self: Any, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> Any:
            return forward(lambda *arguments: base.forward(self, *arguments), self, x, state, lengths)

        layer.__class__ = type(f"Faulty{base.__name__}", (base,), {"forward": faulty})

    return Mutant(f"{healthy.__name__} {options or ''}: {name}".replace(" :", ":"), lambda: healthy(**options), plant)


def direction_faults() -> Iterator[Mutant]:
    def run_as(reverse: bool) -> Any:
        def forward(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
            layer.reverse = reverse
            return run(x, state, lengths)

        return forward

    yield in_layer("reversal missing", one, run_as(False), reverse=True)
    yield in_layer("reversed although it is not", one, run_as(True))

    def turned_around(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        return y.flip(1), end

    yield in_layer("outputs left in reverse order", one, turned_around, reverse=True)

    def whole_row_turned(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        if lengths is not None:
            x = x.masked_fill(~valid_steps(lengths, x.shape[1]), 0.0)
        y, end = run(x, state, None)
        return (y if lengths is None else y.masked_fill(~valid_steps(lengths, x.shape[1]), 0.0)), end

    yield in_layer("reverse starts in the padding", one, whole_row_turned, reverse=True)
    yield in_layer("state runs on through the padding", one, whole_row_turned)


def time_faults() -> Iterator[Mutant]:
    def exchanged(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x.transpose(0, 1), None, None)
        return y.transpose(0, 1), tuple(s[: x.shape[0]] for s in end)

    yield in_layer("time and batch exchanged", one, exchanged)

    def late(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1), state, lengths)

    yield in_layer("input one step late", one, late)

    def early_output(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        return torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1), end

    yield in_layer("output is that of the step before", one, early_output)

    def one_state_back(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, _ = run(x, state, lengths)
        shorter = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        return y, run(x, state, (shorter - 1).clamp(min=0))[1]

    yield in_layer("final state is that of the step before", one, one_state_back)

    def rolled(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        return y.roll(1, 0), end

    yield in_layer("rows exchanged", one, rolled)

    def first_row(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        state = None if state is None else tuple(s[:1].expand_as(s) for s in state)
        return run(x, state, lengths)

    yield in_layer("first row's state for all", one, first_row)


def length_faults() -> Iterator[Mutant]:
    def off_by(difference: int) -> Any:
        def forward(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
            wrong = None if lengths is None else (lengths + difference).clamp(0, x.shape[1])
            return run(x, state, wrong)

        return forward

    for reverse in (False, True):
        yield in_layer("lengths one too long", one, off_by(1), reverse=reverse)
        yield in_layer("lengths one too short", one, off_by(-1), reverse=reverse)

    def ignored(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, state, None)

    yield in_layer("lengths ignored", one, ignored)

    def not_zeroed(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, state, None)[0], run(x, state, lengths)[1]

    yield in_layer("padding of the output not zeroed", one, not_zeroed)

    def empty_is_one(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, state, None if lengths is None else lengths.clamp(min=1))

    yield in_layer("length 0 taken for 1", one, empty_is_one)

    def empty_is_zero(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        if lengths is not None:
            end = tuple(s.masked_fill((lengths == 0).unsqueeze(1), 0.0) for s in end)
        return y, end

    yield in_layer("length 0 gives a state of zero", one, empty_is_zero)

    def sorted_lengths(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, state, None if lengths is None else lengths.sort(descending=True).values)

    yield in_layer("lengths sorted, rows not", one, sorted_lengths)


def state_faults() -> Iterator[Mutant]:
    def ignored(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, None, lengths)

    yield in_layer("given state ignored", one, ignored)

    def from_zero(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, layer_zero(layer, x) if state is None else state, lengths)

    yield in_layer("starts at zero instead of the learned state", one, from_zero)

    def exchanged(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, None if state is None else state[::-1], lengths)

    yield in_layer("given h and c exchanged", one, exchanged)

    def given_back(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, _ = run(x, state, lengths)
        return y, layer.initial_state(x.shape[0], x) if state is None else state

    yield in_layer("final state is the initial one", one, given_back)


def layer_zero(layer: Any, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(s) for s in layer.initial_state(x.shape[0], x))


def composition_faults() -> Iterator[Mutant]:
    def outputs_exchanged(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        return y.roll(11, 2), end

    yield in_layer("directions exchanged in the output", both, outputs_exchanged)

    def ends_exchanged(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        return y, end[::-1]

    yield in_layer("directions exchanged in the final state", both, ends_exchanged)
    yield in_layer(
        "layers exchanged in the final state",
        deep,
        lambda run, layer, x, state, lengths: rotate(run(x, state, lengths)),
    )

    def starts_exchanged(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, None if state is None else state[::-1], lengths)

    yield in_layer("directions exchanged in the initial state", both, starts_exchanged)

    def layer_starts_exchanged(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        return run(x, None if state is None else (state[1], state[0], *state[2:]), lengths)

    yield in_layer("layers exchanged in the initial state", deep, layer_starts_exchanged)

    def plant_both_forward(layer: Any) -> None:
        layer.backward_layer.reverse = False

    yield Mutant("both: both directions read forward", both, plant_both_forward)

    def plant_order(layer: Any) -> None:
        layer.layers[0], layer.layers[1] = layer.layers[1], layer.layers[0]

    yield Mutant("deep: layers in the wrong order", deep, plant_order)

    def plant_missing(layer: Any) -> None:
        layer.layers[1].forward = lambda x, state, lengths: (x, layer.layers[1].initial_state(x.shape[0], x))

    yield Mutant("deep: a layer skipped", deep, plant_missing)
    yield Mutant("deep: dropout in evaluation", deep, lambda layer: layer.train() and None)

    def unmasked_head(run: Any, layer: Any, x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = run(x, state, lengths)
        if lengths is not None:
            y = torch.where(valid_steps(lengths, x.shape[1]), y, layer.layers[-1].bias)
        return y, end

    yield in_layer("head's bias in the padding", deep, unmasked_head)


def rotate(result: Any) -> Any:
    y, (first, second, *rest) = result
    return y, (second, first, *rest)


LAYER_MUTANTS = [
    *direction_faults(),
    *time_faults(),
    *length_faults(),
    *state_faults(),
    *composition_faults(),
]
