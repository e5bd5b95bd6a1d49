"""convert(module) computes what the module does: every option of torch.nn, every way of calling it, gradients as well."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import rnncore
from rnncore.conversion import ConvertedLayer
from tests.convert.networks import MODES, OPTIONS, Tagger, option_id, random_hx, tagger
from tests.parity import Arrays, as_array, assert_same, leaves
from tests.tolerances import fixed

EVERY = pytest.mark.parametrize("options", OPTIONS, ids=option_id)
IDS = torch.randint(0, 23, (7, 13), generator=torch.Generator().manual_seed(0))
LENGTHS = {"sorted": torch.tensor([13, 12, 9, 4, 4, 1, 1]), "unsorted": torch.tensor([3, 13, 1, 4, 12, 1, 2])}


def everything(module: Tagger, x: Any, hx: Any) -> Arrays:
    """Outputs, states, and gradients of hx and of all parameters, by the names of the state dict."""
    module.zero_grad(set_to_none=True)
    hx = None if hx is None else [h.clone().requires_grad_() for h in leaves(hx)]
    start = None if hx is None else (tuple(hx) if module.rnn.mode == "LSTM" else hx[0])
    top, y, end = module(x(module), start)
    data = y.data if isinstance(y, PackedSequence) else y
    values = [top, data, *leaves(end)]
    random = torch.Generator().manual_seed(1)
    sum((v * torch.randn(v.shape, dtype=v.dtype, generator=random)).sum() for v in values).backward()
    result = {f"output.{i}": as_array(v) for i, v in enumerate(values)}
    result |= {f"grad.hx.{i}": as_array(h.grad) for i, h in enumerate(hx or ())}
    for name, p in module.state_dict(keep_vars=True).items():
        result[f"grad.{name}"] = as_array(torch.zeros_like(p) if p.grad is None else p.grad)
    if isinstance(y, PackedSequence):
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            value = getattr(y, name)
            result[name] = as_array(torch.empty(0) if value is None else value)
    return result


def expect_equal(options: dict[str, Any], x: Any, hx_batch: int | None) -> None:
    theirs = tagger(options)
    ours = rnncore.convert(theirs)
    assert isinstance(ours.rnn, ConvertedLayer) and isinstance(theirs.rnn, nn.RNNBase)
    for hx in (None, random_hx(theirs, hx_batch)):
        got, want = everything(ours, x, hx), everything(theirs, x, hx)
        assert_same(got, want, torch.float64, "gradient", depth=options["num_layers"], x=torch.zeros(7, 13, 5))


@EVERY
def test_batch_of_sequences(options: dict[str, Any]) -> None:
    ids = IDS if options["batch_first"] else IDS.t()
    expect_equal(options, lambda module: module.embed(ids), 7)


@EVERY
def test_one_sequence_without_batch(options: dict[str, Any]) -> None:
    expect_equal(options, lambda module: module.embed(IDS[0]), None)


@pytest.mark.parametrize("order", LENGTHS)
@EVERY
def test_packed_sequences(options: dict[str, Any], order: str) -> None:
    first, lengths = options["batch_first"], LENGTHS[order]

    def pack(module: Tagger) -> PackedSequence:
        x = module.embed(IDS if first else IDS.t())
        return pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=order == "sorted")

    expect_equal(options, pack, 7)


@pytest.mark.parametrize("mode", MODES)
def test_sequences_packed_from_a_list(mode: str) -> None:
    options = {"mode": mode, "num_layers": 2, "bidirectional": True}
    expect_equal(
        options,
        lambda module: pack_sequence([module.embed(row[:n]) for row, n in zip(IDS, (13, 5, 1), strict=False)]),
        3,
    )


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_results_have_torchs_strides_where_code_relies_on_them(
    mode: str, bidirectional: bool, batch_first: bool
) -> None:
    theirs = tagger({"mode": mode, "num_layers": 2, "bidirectional": bidirectional, "batch_first": batch_first})
    x = theirs.embed(IDS if batch_first else IDS.t())
    y, end = theirs.rnn(x)
    got, got_end = rnncore.convert(theirs).rnn(x)
    for ours, original in zip(leaves((got, got_end)), leaves((y, end)), strict=True):
        if original.is_contiguous():
            ours.view(-1)  # raises where torch's does not, if the layout differs


@pytest.mark.parametrize("mode", MODES)
def test_float32(mode: str) -> None:
    theirs = tagger({"mode": mode, "num_layers": 2, "bidirectional": True, "batch_first": True}).float()
    ours = rnncore.convert(theirs)
    x = theirs.embed(IDS)
    got = {str(i): as_array(v) for i, v in enumerate(leaves(ours(x)))}
    want = {str(i): as_array(v) for i, v in enumerate(leaves(theirs(x)))}
    assert_same(got, want, torch.float32, "torch", depth=2, x=x)


@pytest.mark.parametrize("mode", MODES)
def test_a_bare_layer_converts(mode: str) -> None:
    kind, more = MODES[mode]
    theirs = kind(5, 11, 2, bidirectional=True, **more)
    ours = rnncore.convert(theirs)
    x = torch.randn(13, 7, 5)
    assert isinstance(ours, ConvertedLayer)
    assert all(
        torch.allclose(a, b, atol=fixed("float32 same steps"))
        for a, b in zip(leaves(ours(x)), leaves(theirs(x)), strict=True)
    )
    assert not {p.data_ptr() for p in ours.parameters()} & {p.data_ptr() for p in theirs.parameters()}


def test_dropout_trains_as_in_torch_and_rests_in_evaluation() -> None:
    theirs = tagger({"mode": "lstm", "num_layers": 3, "dropout": 0.5, "batch_first": True})
    ours = rnncore.convert(theirs.train())
    x = theirs.embed(IDS).detach()
    assert not torch.equal(ours(x)[1], ours(x)[1])
    assert torch.allclose(ours.eval()(x)[1], theirs.eval()(x)[1], atol=fixed("float64"))
    certain = rnncore.convert(nn.LSTM(5, 11, 2, dropout=1.0).train())
    want = nn.LSTM(5, 11, 2, dropout=1.0)
    want.load_state_dict(certain.state_dict())
    y = torch.randn(13, 7, 5)
    assert torch.allclose(certain(y)[0], want(y)[0], atol=fixed("float32 same steps")), (
        "dropout of 1 leaves nothing to chance"
    )


def test_empty_time_and_batch_are_legal_where_torch_refuses() -> None:
    ours: Tensor = rnncore.convert(nn.LSTM(5, 11, 2, bidirectional=True))
    y, (h, c) = ours(torch.zeros(0, 7, 5))
    assert (y.shape, h.shape, c.shape) == ((0, 7, 22), (4, 7, 11), (4, 7, 11))
