"""The encoder-decoder in PyTorch: attention against its equations, bridge, loss, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, GRUCell, LSTMCell, Recurrent
from rnncore.layers import Bidirectional
from rnncore.models.attention import ATTENTIONS, Attention
from rnncore.models.bridge import Bridge
from rnncore.runtime import InputError
from tests.generation.models import ARCHITECTURES, encoder_decoder, randomize
from tests.tolerances import fixed

PAIRS = [([1, 2, 3, 6], [4, 1]), ([5], [3, 4, 4, 1, 3]), ([6, 6], [])]


def attended(kind: str, layer: Attention, query: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The equations of Luong et al. 2015 and Bahdanau et al. 2015 for one query and one memory without padding."""
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    if kind == "dot":
        scores = np.array([query @ m for m in memory])
    elif kind == "general":
        scores = np.array([query @ weights["key.weight"] @ m for m in memory])
    else:
        ahead = [weights["query.weight"] @ query + weights["key.weight"] @ m + weights["key.bias"] for m in memory]
        scores = np.array([weights["score"] @ np.tanh(a) for a in ahead])
    alpha = np.exp(scores - scores.max())
    alpha /= alpha.sum()
    return alpha @ memory, alpha


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_is_its_equations(kind: str) -> None:
    queries, features = 7, 5 if kind != "dot" else 7
    layer = Attention(kind, queries, features).double()
    randomize(layer, 1)
    random = np.random.default_rng(2)
    query, memory, lengths = random.normal(size=(3, 2, queries)), random.normal(size=(3, 11, features)), [11, 1, 4]
    for row, length in enumerate(lengths):
        memory[row, length:] = 0
    tensors = torch.from_numpy(query), torch.from_numpy(memory)
    context, weights = layer(tensors[0], layer.keys(tensors[1]), tensors[1], torch.tensor(lengths))
    for row, length in enumerate(lengths):
        for t in range(2):
            expected, alpha = attended(kind, layer, query[row, t], memory[row, :length])
            np.testing.assert_allclose(context[row, t].detach().numpy(), expected, rtol=fixed("float64 gradient"))
            np.testing.assert_allclose(weights[row, t, :length].detach().numpy(), alpha, rtol=fixed("float64 gradient"))
            assert not weights[row, t, length:].any()


def test_an_empty_source_gives_no_context_and_no_nan() -> None:
    layer = Attention("general", 7, 5)
    memory = torch.zeros(1, 3, 5)
    context, _ = layer(torch.randn(1, 2, 7), layer.keys(memory), memory, torch.tensor([0]))
    assert context.eq(0).all()


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_padding_never_changes_the_loss(name: str) -> None:
    model = encoder_decoder(name)
    total, count = model.loss(**model.collate(PAIRS))
    parts = [model.loss(**model.collate([pair])) for pair in PAIRS]
    assert count == sum(len(target) + 1 for _, target in PAIRS) == sum(n for _, n in parts)
    assert total.item() == pytest.approx(sum(loss.item() for loss, _ in parts), rel=fixed("float32"))
    batch = model.collate(PAIRS)
    batch["source"] = torch.nn.functional.pad(batch["source"], (0, 3), value=2)
    batch["target"] = torch.nn.functional.pad(batch["target"], (0, 2), value=3)
    assert model.loss(**batch)[0].item() == pytest.approx(total.item(), rel=fixed("float32"))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_loss_is_that_of_each_token_given_those_before(name: str) -> None:
    model = encoder_decoder(name)
    end = model.config.end_id
    expected = 0.0
    for source, target in PAIRS:
        memory, state = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
        for read, wanted in zip([end, *target], [*target, end], strict=True):
            log_probs, state = model.decode(torch.tensor([[read]]), memory, torch.tensor([len(source)]), state)
            expected -= float(log_probs[0, 0, wanted].detach())
    assert model.loss(**model.collate(PAIRS))[0].item() == pytest.approx(expected, rel=fixed("float32"))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = EncoderDecoder(ARCHITECTURES[name])
    loss, _ = model.loss(**model.collate(PAIRS))
    loss.backward()
    # A bias of all scores of a query, or of a bypassed gate, would have none.
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert any(
        float(p.grad.abs().sum()) > 0 for n, p in model.named_parameters() if "encoder" in n and p.grad is not None
    )


def test_metrics_count_what_greedy_decoding_gets_right() -> None:
    model = encoder_decoder("dot")
    batch = model.collate([([a, b], []) for a in range(7) for b in range(7)])
    written = model.greedy(batch["source"], batch["source_lengths"], 15)
    # What is longer than twice the target and five more is cut off.
    right = [(source, own) for source, own in zip(batch["source"].tolist(), written, strict=True) if len(own) < 15]
    assert len(right) > 9
    counts = model.metrics(**model.collate(right))
    assert counts["exact_match"] == (len(right), len(right))
    assert counts["error_rate"][0] == 0
    assert counts["token_accuracy"][0] == counts["token_accuracy"][1] == sum(len(own) + 1 for _, own in right)
    wrong = model.metrics(**model.collate([(source, [*own, 3]) for source, own in right]))
    assert wrong["exact_match"][0] == 0
    assert wrong["error_rate"] == (len(right), sum(len(own) + 1 for _, own in right))


def test_the_identity_bridge_hands_over_both_directions_side_by_side() -> None:
    encoder = [Bidirectional(LSTMCell(3, 5), LSTMCell(3, 2))]
    bridge = Bridge("identity", encoder, [Recurrent(LSTMCell(3, 7))])
    final = tuple(tuple(torch.randn(2, n) for _ in range(2)) for n in (5, 2))
    ((h, c),) = bridge((final,))
    assert torch.equal(h, torch.cat((final[0][0], final[1][0]), 1))
    assert torch.equal(c, torch.cat((final[0][1], final[1][1]), 1))


@given(st.sampled_from(sorted(ARCHITECTURES)))
def test_the_configuration_survives_json(name: str) -> None:
    config = ARCHITECTURES[name]
    assert EncoderDecoderConfig.from_json(config.to_json()) == config
    with pytest.raises(InputError):
        EncoderDecoderConfig.from_json(json.dumps({"encoder": 3}))


def test_what_does_not_fit_is_refused() -> None:
    cell = (CellConfig.named("gru", 5),)
    with pytest.raises(InputError, match="4 problems"):
        EncoderDecoderConfig(0, 3, (), cell, attention="none", end_id=3)
    with pytest.raises(InputError, match="dot attention: the decoder gives 5 features, the memory has 10"):
        EncoderDecoder(EncoderDecoderConfig(3, 3, cell, cell, attention="dot"))
    with pytest.raises(InputError, match="identity bridge"):
        EncoderDecoder(EncoderDecoderConfig(3, 3, cell, cell, bridge="identity"))
    with pytest.raises(InputError, match="directions of the encoder"):
        Bridge("linear", [Bidirectional(LSTMCell(3, 5), GRUCell(3, 5))], [Recurrent(GRUCell(3, 5))])
    with pytest.raises(InputError, match="max_tokens is -1"):
        encoder_decoder("dot").greedy(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([1]), -1)
