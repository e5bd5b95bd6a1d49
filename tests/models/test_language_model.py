"""The language model in PyTorch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import rnncore
from rnncore import CellConfig, LanguageModel, LanguageModelConfig
from rnncore.models import CELLS
from rnncore.runtime import InputError
from rnncore.training.states import detached, flattened, unflattened
from tests.tolerances import bound

CONFIG = LanguageModelConfig(
    13, 5, (CellConfig("lstm", 11, {"peephole": "current", "projection": 7}), CellConfig.named("gru-before", 17)), 0.25
)


def make(config: LanguageModelConfig = CONFIG, seed: int = 3) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(config).double().eval()


@pytest.mark.parametrize("name", CELLS)
def test_every_named_cell_gives_distributions(name: str) -> None:
    model = make(LanguageModelConfig(13, 5, (CellConfig.named(name, 7),) * 2))
    log_probs = model(torch.randint(13, (3, 11)))
    assert log_probs.shape == (3, 11, 13)
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(3, 11, dtype=torch.float64))


def test_named_cells_are_the_variants_they_are_called_after() -> None:
    cells = {name: CellConfig.named(name, 7).build(5) for name in CELLS}
    assert {name: type(cell) for name, cell in cells.items() if "lstm" in name and name != "minlstm"} == dict.fromkeys(
        ("lstm", "peephole-lstm", "peephole-lstm-previous", "coupled-lstm", "layernorm-lstm"), rnncore.LSTMCell
    )
    assert cells["peephole-lstm"].peephole == "current"
    assert cells["peephole-lstm-previous"].peephole == "previous"
    assert (cells["gru"].reset, cells["gru-before"].reset, cells["gru-simple"].reset) == ("after", "before", None)
    assert cells["rnn-relu"].activation == "relu"
    assert cells["coupled-lstm"].coupled
    assert cells["layernorm-lstm"].layer_norm
    assert (type(cells["mingru"]), type(cells["minlstm"])) == (rnncore.MinGRUCell, rnncore.MinLSTMCell)


@given(st.lists(st.integers(0, 19), max_size=4).map(sorted), st.integers(0, 99))
def test_pieces_with_carried_state_equal_the_whole(cuts: list[int], seed: int) -> None:
    model = make(seed=seed)
    ids = torch.randint(13, (3, 19))
    whole, final = model.forward_with_state(ids)
    state, parts = None, []
    for start, end in pairwise([0, *cuts, 19]):
        part, state = model.forward_with_state(ids[:, start:end], state)
        parts.append(part)
    allowed = bound("float64", "chunked", depth=4, length=19)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=allowed)
    assert state is not None
    for got, expected in zip(flattened(state), flattened(final), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=allowed)


def test_forward_is_the_log_softmax_of_the_logits() -> None:
    model = make()
    ids = torch.randint(13, (2, 7))
    torch.testing.assert_close(model(ids), functional.log_softmax(model.forward_with_state(ids)[0], 2))


def test_detached_states_end_back_propagation() -> None:
    model = make()
    ids = torch.randint(13, (2, 7))
    _, state = model.forward_with_state(ids[:, :4])
    assert all(tensor.requires_grad for tensor in flattened(state))
    cut = detached(state)
    assert not any(tensor.requires_grad for tensor in flattened(cut))
    again = unflattened(flattened(cut), state)
    for part, other in zip(flattened(again), flattened(state), strict=True):
        assert torch.equal(part, other)
    assert [len(layer) for layer in again] == [2, 1]
    with pytest.raises(ValueError, match="2 tensors, expected 3"):
        unflattened(flattened(cut)[:2], state)


def test_dropout_acts_in_training_only() -> None:
    model = make()
    ids = torch.randint(13, (2, 7))
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_tied_weights_are_one_tensor() -> None:
    model = make(LanguageModelConfig(13, 7, (CellConfig("lstm", 11, {"projection": 7}),), tied=True))
    assert model.head.weight is model.embedding.weight
    assert len([name for name, _ in model.named_parameters() if "weight" in name and "cell" not in name]) == 1
    with pytest.raises(InputError, match="top layer gives 11 features, the embedding has 7"):
        LanguageModel(LanguageModelConfig(13, 7, (CellConfig("lstm", 11),), tied=True))


def test_config_round_trip() -> None:
    assert LanguageModelConfig.from_json(CONFIG.to_json()) == CONFIG
    model = LanguageModel(LanguageModelConfig.from_json(CONFIG.to_json()))
    model.load_state_dict(make().state_dict())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{}]}', '{"cells": [], "vocabulary": 3}'])
def test_json_that_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the JSON of a language model"):
        LanguageModelConfig.from_json(text)


def test_every_wrong_value_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        LanguageModelConfig(0, True, (), 1.0)
    for name in ("vocabulary_size", "embedding_size", "cells", "dropout"):
        assert name in str(caught.value)


def test_wrong_cells_are_refused() -> None:
    with pytest.raises(InputError, match="unknown cell 'lstn'; known: rnn, rnn-relu"):
        CellConfig.named("lstn", 7)
    with pytest.raises(InputError, match="unknown cell kind"):
        CellConfig("lstn", 7).build(3)
    with pytest.raises(InputError, match=r"does not take these options.*reset"):
        CellConfig("lstm", 7, {"reset": "before"}).build(3)
