"""Any chunking with carried state equals the whole, in values and in gradients."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.parity import assert_same, depth_of, gradients, named
from tests.strategies import Case, architectures, cases, chunkings, lengths_of_chunks

CAUSAL = architectures(causal=True)


def run_in_chunks(module: Any, x: Tensor, state: Any, lengths: Tensor | None, chunks: list[int]) -> tuple[Tensor, Any]:
    outputs, start = [x.new_zeros(x.shape[0], 0, module.output_size)], 0
    valid = lengths_of_chunks(None if lengths is None else lengths.numpy(), chunks)
    for size, counts in zip(chunks, valid, strict=True):
        here = None if counts is None else torch.from_numpy(counts)
        y, state = module(x[:, start : start + size], state, here)
        outputs.append(y)
        start += size
    return torch.cat(outputs, 1), state


@given(cases(CAUSAL), st.data())
def test_chunks_equal_the_whole(case: Case, data: st.DataObject) -> None:
    module, x, state, lengths = case.build()
    chunks = data.draw(chunkings(case.inputs.time))
    with torch.no_grad():
        want = named(*module(x, state, lengths))
        got = named(*run_in_chunks(module, x, state, lengths, chunks))
    assert_same(got, want, x.dtype, "chunked", depth=depth_of(module), x=x, what=f"chunks {chunks}")


@given(cases(CAUSAL), st.data())
def test_chunks_equal_the_whole_in_float32(case: Case, data: st.DataObject) -> None:
    module, x, state, lengths = case.build(torch.float32)
    chunks = data.draw(chunkings(case.inputs.time))
    with torch.no_grad():
        want = named(*module(x, state, lengths))
        got = named(*run_in_chunks(module, x, state, lengths, chunks))
    assert_same(got, want, x.dtype, "chunked", depth=depth_of(module), x=x, what=f"chunks {chunks}")


@given(cases(architectures(causal=True, max_layers=2), values=("plain",)), st.data())
def test_gradients_through_carried_states_equal_the_whole(case: Case, data: st.DataObject) -> None:
    module, x, state, lengths = case.build()
    chunks = data.draw(chunkings(case.inputs.time, max_cuts=2))
    want = gradients(module, x, state, lengths)
    got = gradients(module, x, state, lengths, run=lambda x, s, n: run_in_chunks(module, x, s, n, chunks))
    assert_same(got, want, x.dtype, "gradient", depth=depth_of(module), x=x, what=f"chunks {chunks}")
