"""Stacks: dropout between recurrent layers, feed-forward layers among and above them, copies and state dicts."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from torch import nn

import rnncore
from tests.parity import leaves
from tests.strategies import Architecture, Case, architectures, cases, randomize


def outputs_of_layers(
    stack: rnncore.Stacked, x: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """(what each layer was given, what each layer gave, what the stack gave)."""
    given, gave = [], []

    def remember(layer: nn.Module, arguments: tuple[torch.Tensor, ...], result: object) -> None:
        given.append(arguments[0].detach())
        gave.append((result[0] if isinstance(result, tuple) else result).detach())  # type: ignore[union-attr]

    hooks = [layer.register_forward_hook(remember) for layer in stack.layers]
    y, _ = stack(x)
    for hook in hooks:
        hook.remove()
    return given, gave, y.detach()


def deep(dropout: float = 0.5) -> rnncore.Stacked:
    cells = [rnncore.GRUCell(5, 31), rnncore.LSTMCell(31, 29), rnncore.RNNCell(17, 23)]
    layers = [*map(rnncore.Recurrent, cells[:2]), nn.Linear(29, 17), rnncore.Recurrent(cells[2]), nn.Linear(23, 3)]
    return randomize(rnncore.Stacked(layers, dropout=dropout), 3)


def test_dropout_acts_on_outputs_of_recurrent_layers_but_the_last() -> None:
    torch.manual_seed(0)
    given, gave, y = outputs_of_layers(deep(dropout=0.25).train(), torch.randn(7, 13, 5))
    for below, above in ((0, 1), (1, 2)):
        dropped = (given[above] == 0).double().mean().item()
        assert 0.2 < dropped < 0.3, f"between {below} and {above}: {dropped}"
        kept = given[above] != 0
        assert torch.allclose(given[above][kept], gave[below][kept] / 0.75)
    assert torch.equal(given[3], gave[2]), "no dropout after a feed-forward layer"
    assert torch.equal(given[4], gave[3]), "no dropout after the last recurrent layer"
    assert torch.equal(y, gave[4])


def test_no_dropout_in_evaluation() -> None:
    x = torch.randn(7, 13, 5)
    assert torch.equal(deep(dropout=0.25).eval()(x)[0], deep(dropout=0.0).train()(x)[0])


def test_dropout_differs_from_run_to_run_in_training() -> None:
    stack, x = deep().train(), torch.randn(7, 13, 5)
    assert not torch.equal(stack(x)[0], stack(x)[0])


def test_single_recurrent_layer_has_nothing_to_drop() -> None:
    stack, x = rnncore.LSTM(5, 11, dropout=0.9).train(), torch.randn(7, 13, 5)
    assert torch.equal(stack(x)[0], stack.eval()(x)[0])


def test_certain_dropout_is_legal_as_in_torch() -> None:
    given, _, _ = outputs_of_layers(deep(dropout=1.0).train(), torch.randn(7, 13, 5))
    assert not given[1].any()


def test_feed_forward_layers_hold_no_state_and_give_zero_past_the_length() -> None:
    stack = deep().eval()
    x, lengths = torch.randn(3, 13, 5), torch.tensor([13, 0, 4])
    y, state = stack(x, None, lengths)
    assert [len(layer) for layer in state] == [1, 2, 0, 1, 0]
    assert y.shape == (3, 13, 3) and not y[1].any() and not y[2, 4:].any() and y[2, :4].abs().min() > 0


@given(architectures())
def test_state_dict_round_trip(architecture: Architecture) -> None:
    source, target = architecture.build(1), architecture.build(2)
    target.load_state_dict(source.state_dict())
    x = torch.randn(2, 3, architecture.input_size, dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(leaves(source(x)), leaves(target(x)), strict=True))


@given(cases(architectures(dropout=True), batches=(7,), times=(13,)))
def test_copies_compute_the_same_and_share_nothing(case: Case) -> None:
    module, x, state, lengths = case.build()
    with torch.no_grad():
        want = leaves(module(x, state, lengths))
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert all(torch.equal(a, b) for a, b in zip(leaves(twin(x, state, lengths)), want, strict=True))
            assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in module.parameters()}
            for parameter in twin.parameters():
                parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(leaves(module(x, state, lengths)), want, strict=True))


@pytest.mark.parametrize("layer", [rnncore.RNN, rnncore.GRU, rnncore.LSTM])
def test_copies_of_torch_like_layers_still_load_torchs_names(layer: type[rnncore.Stacked]) -> None:
    theirs = randomize(getattr(nn, layer.__name__)(5, 11, 2, bidirectional=True), 1)
    for twin in (
        copy.deepcopy(layer(5, 11, 2, bidirectional=True)),
        pickle.loads(pickle.dumps(layer(5, 11, 2, bidirectional=True))),
    ):
        twin.load_state_dict(theirs.state_dict())
        assert torch.equal(twin.layers[1].backward_layer.cell.weight_hh, theirs.weight_hh_l1_reverse)


@given(cases(batches=(7,), times=(13,)))
def test_running_twice_gives_the_same_bits(case: Case) -> None:
    module, x, state, lengths = case.build(torch.float32)
    with torch.no_grad():
        first, second = leaves(module(x, state, lengths)), leaves(module(x, state, lengths))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@given(cases(batches=(7,), times=(13,)))
def test_arguments_are_not_changed(case: Case) -> None:
    module, x, state, lengths = case.build()
    before = copy.deepcopy((x, state, lengths))
    module(x, state, lengths)
    for now, then in zip(leaves((x, state, lengths)), leaves(before), strict=True):
        assert now is then or torch.equal(now, then)
