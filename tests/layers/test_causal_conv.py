"""``CausalConv1d`` is ``torch.nn.Conv1d`` padded on the left, and its state makes any chunking equal the whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import rnncore
from rnncore.runtime.errors import InputError, RnncoreError, StateError
from tests.export.modules import RunningMean
from tests.parity import assert_same, gradients, map_state, named
from tests.strategies import Inputs, chunkings, inputs, lengths_of_chunks, randomize
from tests.tolerances import fixed


@dataclass(frozen=True)
class ConvCase:
    """A convolution and inputs for it."""

    inputs: Inputs
    out: int
    kernel: int
    dilation: int
    groups: int
    bias: bool

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[rnncore.CausalConv1d, Tensor, Any, Tensor | None]:
        conv = rnncore.CausalConv1d(
            self.inputs.input_size, self.out, self.kernel, self.dilation, groups=self.groups, bias=self.bias
        )
        conv = randomize(conv, self.inputs.seed).to(dtype)
        return conv, *self.inputs.tensors(conv, dtype)


@st.composite
def conv_cases(draw: st.DrawFn, **options: Any) -> ConvCase:
    groups = draw(st.sampled_from((1, 3)))
    width = groups * draw(st.sampled_from((1, 5)))  # 3 groups of 1: depthwise
    drawn = draw(inputs(width, **options))
    out = groups * draw(st.sampled_from((1, 2)))
    return ConvCase(drawn, out, draw(st.integers(1, 5)), draw(st.sampled_from((1, 2, 7))), groups, draw(st.booleans()))


@given(conv_cases(values=("plain", "large")))
def test_equals_torchs_convolution_padded_on_the_left(case: ConvCase) -> None:
    """With a state: with those inputs in place of the zeros; a row ends where its length says."""
    ours, x, state, lengths = case.build()
    theirs = nn.Conv1d(
        x.shape[2], case.out, case.kernel, dilation=case.dilation, groups=case.groups, bias=case.bias
    ).double()
    ours.load_state_dict(randomize(theirs, 7).state_dict())
    steps = (case.kernel - 1) * case.dilation
    before = state[0].reshape(len(x), steps, x.shape[2]) if state else x.new_zeros(len(x), steps, x.shape[2])
    with torch.no_grad():
        y, end = ours(x, state, lengths)
        assert y.shape == (*x.shape[:2], case.out)
        for row in range(len(x)):
            n = x.shape[1] if lengths is None else int(lengths[row])
            seen = torch.cat((before[row], x[row, :n]))
            assert not y[row, n:].any()
            if n:
                want = {"y": theirs(seen.T[None])[0].T.numpy()}
                assert_same({"y": y[row, :n].numpy()}, want, x.dtype, "chunked", depth=1, x=x)
            if steps:
                assert torch.equal(end[0][row], seen[n : n + steps].flatten())


@given(conv_cases(), st.data())
def test_chunks_equal_the_whole(case: ConvCase, data: st.DataObject) -> None:
    conv, x, state, lengths = case.build(torch.float32)
    chunks = data.draw(chunkings(case.inputs.time))
    outputs, start, carried = [x.new_zeros(len(x), 0, case.out)], 0, state
    valid = lengths_of_chunks(None if lengths is None else lengths.numpy(), chunks)
    with torch.no_grad():
        for size, counts in zip(chunks, valid, strict=True):
            y, carried = conv(x[:, start : start + size], carried, None if counts is None else torch.tensor(counts))
            outputs.append(y)
            start += size
        got, want = (torch.cat(outputs, 1), carried if chunks else conv(x, state, lengths)[1]), conv(x, state, lengths)
    assert_same(named(*got), named(*want), x.dtype, "chunked", depth=1, x=x, what=f"chunks {chunks}")


@given(conv_cases(values=("plain",), with_lengths=True))
def test_padding_reaches_neither_values_nor_gradients(case: ConvCase) -> None:
    conv, x, state, lengths = case.build()
    assert lengths is not None
    padding = torch.arange(x.shape[1])[None, :, None] >= lengths[:, None, None]
    want = gradients(conv, x, state, lengths)
    got = gradients(conv, x.masked_fill(padding, float("nan")), state, lengths)
    assert_same(got, want, x.dtype, "gradient", depth=1, x=x)


def test_second_derivatives() -> None:
    conv = randomize(rnncore.CausalConv1d(3, 2, 2, dilation=3).double(), 1)
    x, context = torch.randn(2, 5, 3).double().requires_grad_(), torch.randn(2, 9).double().requires_grad_()

    def squares(x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        y, (end,) = conv(x, (context,), torch.tensor([5, 2]))
        return y.pow(2), end.pow(2)

    assert torch.autograd.gradgradcheck(squares, (x, context))


def test_inside_a_stack_of_other_layers() -> None:
    """conv, norm, relu, LSTM, head: the shape of a keyword spotter."""
    conv, cell = rnncore.CausalConv1d(5, 7, 3), rnncore.LSTMCell(7, 11)
    stack = rnncore.Stacked([conv, nn.LayerNorm(7), nn.ReLU(), rnncore.Recurrent(cell), nn.Linear(11, 3)])
    stack = randomize(stack, 1).eval()
    x, lengths = torch.randn(2, 13, 5), torch.tensor([13, 4])
    y, state = stack(x, None, lengths)
    assert [len(part) for part in state] == [1, 0, 0, 2, 0] and (stack.input_size, stack.output_size) == (5, 3)
    alone = functional.conv1d(functional.pad(x[1:, :4].transpose(1, 2), (2, 0)), conv.weight, conv.bias)
    middle = torch.relu(stack.layers[1](alone.transpose(1, 2)))
    want = stack.layers[4](rnncore.Recurrent(cell)(middle)[0])
    assert torch.allclose(y[1, :4], want[0], atol=fixed("float32 same steps")) and not y[1, 4:].any()
    again = stack(x[:, 6:], stack(x[:, :6])[1])[0]
    assert torch.allclose(again, stack(x)[0][:, 6:], atol=fixed("float32 same steps"))


def test_a_layer_of_ones_own_is_masked_and_carried() -> None:
    layer, x, lengths = RunningMean(5), torch.randn(3, 13, 5), torch.tensor([13, 0, 4])
    y, state = layer(x, None, lengths)
    for row, n in enumerate(lengths.tolist()):
        want = torch.stack([x[row, : t + 1].mean(0) for t in range(n)]) if n else x.new_zeros(0, 5)
        assert torch.allclose(y[row, :n], want, atol=fixed("float32 same steps")) and not y[row, n:].any()
    first = layer(x[:, :6], None, lengths.clamp(max=6))[1]
    again, end = layer(x[:, 6:], first, (lengths - 6).clamp(min=0))
    assert torch.allclose(again, y[:, 6:], atol=fixed("float32 same steps"))
    assert all(torch.allclose(a, b, atol=fixed("float32")) for a, b in zip(end, state, strict=True))


CONV = rnncore.CausalConv1d(5, 7, 3, dilation=2)
X = torch.randn(2, 9, 5)
REFUSED: dict[str, tuple[Callable[[], Any], type[RnncoreError], str]] = {
    "stride": (
        lambda: rnncore.CausalConv1d(5, 7, 3, stride=2),
        InputError,
        "stride is 2, expected 1: every input step",
    ),
    "groups": (
        lambda: rnncore.CausalConv1d(5, 7, 3, groups=2),
        InputError,
        "in_channels is 5, expected a multiple of groups, 2\n  - out_channels is 7",
    ),
    "sizes": (
        lambda: rnncore.CausalConv1d(0, 7, True),
        InputError,
        "in_channels is 0, expected an integer of at least 1\n  - kernel_size is True",
    ),
    "width": (lambda: CONV(X[..., :3]), InputError, "CausalConv1d: input has 3 features, the layer expects 5"),
    "rank": (lambda: CONV(X[0]), InputError, "expected [batch, time, 5]; add a batch axis"),
    "dtype": (lambda: CONV(X.double()), InputError, "input has dtype torch.float64, the weights have torch.float32"),
    "lengths": (lambda: CONV(X, None, torch.tensor([9, 10])), InputError, "lengths are 9 to 10, expected 0 to 9"),
    "state": (lambda: CONV(X, (torch.zeros(2, 4, 5),)), StateError, "state 'context' has shape (2, 4, 5)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_use_is_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=re.escape(message)):
        call()
    assert CONV(X)[0].shape == (2, 9, 7)


def test_repr_shows_what_was_asked_for() -> None:
    conv = rnncore.CausalConv1d(6, 4, 3, dilation=2, groups=2, bias=False)
    assert repr(conv) == "CausalConv1d(6, 4, kernel_size=3, dilation=2, groups=2, bias=False)"
    assert map_state(lambda s: s.shape[1], conv.initial_state(2, X)) == (24,)
