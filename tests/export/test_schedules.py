"""An answer depends on the sequence alone: not on chunks, company, padding, order, forks, or what ran before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import rnncore
from tests.export.backends import as_named, assert_parity, by_push_many, by_runtime, by_streams, by_torch
from tests.export.exporting import FORMS, Exported, export_forms
from tests.export.modules import TAGS, Network, ids
from tests.parity import assert_same
from tests.strategies import Inputs, chunkings, inputs, randomize

forms = st.sampled_from(FORMS)


def network_of(exported: Exported) -> Network:
    assert isinstance(exported.module, Network)
    return exported.module


def float_inputs(**options: object) -> st.SearchStrategy[Inputs]:
    return inputs(5, times=(1, 13, 0, 29), batches=(1, 7, 2), with_state=False, **options)  # type: ignore[arg-type]


@given(form=forms, drawn=float_inputs(), data=st.data())
def test_chunks_and_company_change_nothing(causal: Exported, form: str, drawn: Inputs, data: st.DataObject) -> None:
    chunks = data.draw(chunkings(drawn.time, max_cuts=9))
    model = causal.models[form]
    ways = {"whole": by_runtime(model), "alone": by_streams(model, chunks), "together": by_push_many(model, chunks)}
    assert_parity(ways, network_of(causal), drawn.x, drawn.lengths_array)


@given(form=forms, drawn=float_inputs(with_lengths=True), garbage=st.sampled_from((np.nan, np.inf, 1e30, -7.0)))
def test_padding_changes_nothing(causal: Exported, form: str, drawn: Inputs, garbage: float) -> None:
    model, lengths = causal.models[form], drawn.lengths_array
    assert lengths is not None
    x = drawn.x.astype(np.float32)
    padding = (np.arange(drawn.time) >= lengths[:, None])[:, :, None]
    clean = by_runtime(model)(np.where(padding, np.float32(0), x), lengths)
    dirty = by_runtime(model)(np.where(padding, np.float32(garbage), x), lengths)
    for name in clean:
        np.testing.assert_array_equal(dirty[name], clean[name], err_msg=name)
    assert not dirty["y"][padding[:, :, 0]].any()
    assert_parity({"whole": by_runtime(model)}, network_of(causal), x, lengths)


@given(form=forms, data=st.data(), seed=st.integers(0, 999))
def test_padding_changes_nothing_backward(both_ways: Exported, form: str, data: st.DataObject, seed: int) -> None:
    """A padded row of a bidirectional model, read from its own end, is the row alone."""
    lengths = np.array(data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=5)))
    time = int(lengths.max()) + data.draw(st.integers(0, 3))
    x = ids(len(lengths), time, seed).numpy()
    answer = both_ways.models[form].run(x, lengths=lengths)
    alone = both_ways.models[form].run([row[:length] for row, length in zip(x, lengths, strict=True)])
    for row, length in enumerate(lengths):
        with torch.no_grad():  # torch.nn refuses sequences without steps
            own = torch.from_numpy(x[row : row + 1, :length])
            expected = both_ways.module(own)[0].numpy() if length else np.zeros((0, TAGS), np.float32)
        got = {"padded": answer[row, :length], "in a list": alone[row]}
        assert_same(got, dict.fromkeys(got, expected), torch.float32, "onnx", depth=3, x=expected[None])
        assert not answer[row, length:].any()


@given(form=forms, drawn=float_inputs(), data=st.data())
def test_order_of_a_batch_changes_nothing(causal: Exported, form: str, drawn: Inputs, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(drawn.batch))))
    run, x, lengths = by_runtime(causal.models[form]), drawn.x.astype(np.float32), drawn.lengths_array
    expected = {name: value[order] for name, value in run(x, lengths).items()}
    got = run(x[order], None if lengths is None else lengths[order])
    assert_same(got, expected, torch.float32, "onnx", depth=3, x=x, what="another order")


@given(form=forms, drawn=float_inputs(), other=float_inputs())
def test_running_twice_gives_the_same_bits(causal: Exported, form: str, drawn: Inputs, other: Inputs) -> None:
    run = by_runtime(causal.models[form])
    x = drawn.x.astype(np.float32)
    first = run(x, drawn.lengths_array)
    run(other.x.astype(np.float32), other.lengths_array)
    again = run(x, drawn.lengths_array)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


@given(
    form=forms, drawn=float_inputs(with_lengths=False), at=st.integers(0, 29), other=float_inputs(with_lengths=False)
)
def test_fork_goes_its_own_way(causal: Exported, form: str, drawn: Inputs, at: int, other: Inputs) -> None:
    """After a fork at any step, each twin answers as if it had been alone from the start."""
    model = causal.models[form]
    head, tail = np.split(drawn.x[0].astype(np.float32), [min(at, drawn.time)])
    elsewhere = other.x[0].astype(np.float32)
    with model.stream() as stream:
        stream.push(head)
        with stream.fork() as twin:
            theirs = as_named(model, twin.push(elsewhere))
        ours = as_named(model, stream.push(tail))
    for answer, rest in ((ours, tail), (theirs, elsewhere)):
        x = np.concatenate([head, rest])[None]
        want = {name: value[0] for name, value in by_torch(network_of(causal))(x, None).items()}
        want["y"] = want["y"][len(head) :]
        assert_same(answer, want, torch.float32, "onnx", depth=3, x=x)


class Directions(nn.Module):
    """A bidirectional layer, and its two cells each as a forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.both = rnncore.Bidirectional(rnncore.LSTMCell(5, 11, peephole="previous"), rnncore.GRUCell(5, 7))
        self.ahead = rnncore.Recurrent(self.both.forward_layer.cell)
        self.back = rnncore.Recurrent(self.both.backward_layer.cell)

    def forward(self, x: Tensor, turned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.both(x)[0], self.ahead(x)[0], self.back(turned)[0]


@pytest.mark.slow
def test_bidirectional_is_forward_and_backward_of_the_reversed(tmp_path_factory: pytest.TempPathFactory) -> None:
    module = randomize(Directions().eval(), 6)
    x = torch.randn(2, 4, 5)
    exported = export_forms(
        module, tmp_path_factory.mktemp("directions"), (x, x), output_names=("both", "ahead", "back")
    )
    for form in FORMS:
        for batch, time in ((1, 1), (7, 13), (2, 0), (1, 53)):
            x = np.random.default_rng(time).standard_normal((batch, time, 5)).astype(np.float32)
            answer = exported.models[form].run(x, np.ascontiguousarray(x[:, ::-1]))
            parts = np.concatenate([answer["ahead"], answer["back"][:, ::-1]], axis=2)
            assert_same({"y": answer["both"]}, {"y": parts}, torch.float32, "onnx", depth=1, x=x)
            assert time < 2 or np.abs(answer["back"] - answer["back"][:, ::-1]).max() > 0.01
