"""quantize="int8": close to PyTorch, and as strict as float32 about streams, padding and neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.int8.nodes import WEIGHT_LEVELS
from rnncore.export.verification.judging import INT8_RMS
from rnncore.runtime.format.comparison import rms_error
from tests.export.exporting import FORMS, Exported, all_nodes, export_forms, one_trace
from tests.export.int8_models import FEATURES, TAGS, VOCABULARY, BothWays, Product, deep, text_model
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Eight layers of eight kinds of cells."""
    return export_forms(deep(), tmp_path_factory.mktemp("int8"), torch.randn(2, 5, FEATURES), quantize="int8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[runtime.Model, runtime.Model, str]]:
    """A language model in float32 and in int8, and what the report says."""
    folder, module = tmp_path_factory.mktemp("int8_text"), text_model()
    data = [ids(1, n, seed=n) for n in (29, 37)]
    with one_trace():
        whole = export(module, folder / "whole.onnx", ids(2, 6), streaming=True)
        small = export(module, folder / "small.onnx", ids(2, 6), streaming=True, quantize="int8", accuracy_data=data)
    yield runtime.load(whole.path), runtime.load(small.path), str(small)


def ids(batch: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


def rows(batch: int, time: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, time, FEATURES), np.float32)


def expected_of(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (5, 31), (3, 1)])
def test_every_cell_is_close_to_pytorch(stack: Exported, form: str, batch: int, time: int) -> None:
    x = rows(batch, time)
    expected = expected_of(stack.module, x)
    assert 0 < rms_error([(stack.models[form].run(x), expected)]) < INT8_RMS


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, runtime.Model]:
    module = randomize(BothWays().eval(), 5)
    path = tmp_path_factory.mktemp("int8_both_ways") / "model.onnx"
    export(module, path, torch.randn(2, 5, FEATURES), quantize="int8")
    return module, runtime.load(path)


def test_ragged_rows_are_close_to_pytorch(both_ways: tuple[nn.Module, runtime.Model]) -> None:
    module, model = both_ways
    x, lengths = rows(4, 9), [9, 1, 0, 6]
    got = model.run(x, lengths=np.array(lengths))
    for row, length in enumerate(lengths):
        assert not got[row, length:].any()
        if length:
            assert rms_error([(got[row : row + 1, :length], expected_of(module, x[row : row + 1, :length]))]) < INT8_RMS


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_that_is_no_number_stays_seen(both_ways: tuple[nn.Module, runtime.Model], bad: float) -> None:
    x = rows(2, 5)
    x[1, 2, 4] = bad
    y = both_ways[1].run(x)
    assert np.isnan(y[1, 2]).all() and np.isfinite(y[0]).all()


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15)
@given(sizes=st.lists(st.integers(0, 5), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_chunks_give_the_bits_of_the_whole(stack: Exported, form: str, sizes: list[int], seed: int) -> None:
    model = stack.models[form]
    x = rows(1, sum(sizes) + 1, seed)
    whole = model.run(x)[0]
    with model.stream() as stream:
        bounds = [0, *accumulate(sizes), len(whole)]
        got = [stream.push(x[0, start:end]) for start, end in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(got), whole)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15)
@given(loudness=st.sampled_from([1e-4, 1.0, 1e4, np.inf, np.nan]), steps=st.integers(1, 7), seed=st.integers(0, 99))
def test_a_neighbour_changes_no_bit(stack: Exported, form: str, loudness: float, steps: int, seed: int) -> None:
    """Neither in a batch nor among streams that move together; nor does padding."""
    model = stack.models[form]
    x = rows(3, 7, seed)
    x[0] *= loudness
    alone = [model.run(x[row : row + 1])[0] for row in (1, 2)]
    np.testing.assert_array_equal(model.run(x)[1:], alone)
    ragged = model.run(x, lengths=np.array([7, steps, 7]))
    np.testing.assert_array_equal(ragged[1, :steps], alone[0][:steps])
    np.testing.assert_array_equal(ragged[2], alone[1])
    streams = [model.stream() for _ in x]
    together = model.push_many(streams, [x[0], x[1, :steps], x[2]])
    np.testing.assert_array_equal(together[1], alone[0][:steps])
    np.testing.assert_array_equal(together[2], alone[1])


@pytest.mark.parametrize("form", FORMS)
def test_integer_products_inside_and_outside_of_loops(stack: Exported, form: str) -> None:
    proto = stack.proto(form)
    assert {o.domain for o in proto.opset_import} == {""}, "standard operators only"
    operators = [node.op_type for node in all_nodes(proto.graph)]
    assert operators.count("MatMulInteger") > 17 and "DynamicQuantizeLinear" not in operators
    for value in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(value)
        assert array.dtype != np.float32 or array.size < 1024, f"{value.name} is still float32"
        # Two products of 255 and 64 fit into 16 bits, where AVX2 adds them; with a weight of 127 they do not.
        assert array.dtype != np.int8 or np.abs(array.astype(int)).max() == WEIGHT_LEVELS
    assert stack.models[form].metadata["rnncore.precision"] == "int8"


def test_bounded_states_get_a_fixed_scale(stack: Exported) -> None:
    """GRU, LSTM and tanh RNN prove that |h| <= 1; what is projected, or the user's own, is looked at in every step."""
    searched = {
        node.name.split("/")[0]
        for node in all_nodes(stack.proto().graph)
        if "ReduceMax" in node.op_type and "/" in node.name
    }
    layers = {name for name in searched if name.startswith("stack.layers.")}
    assert layers == {"stack.layers.2", "stack.layers.4"}


def test_extreme_weights_and_inputs_do_not_wrap(tmp_path: Path) -> None:
    """All weights and all inputs at their largest, in every combination of signs: what overflows 16 bits on AVX2."""
    signs = torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1], [1, 1, -1, -1], [1, -1, 1, -1], [-1, 1, 1, -1]])
    weight = 3.0 * signs.repeat(8, 16)  # [40, 64]
    report = export(
        Product(weight).eval(), tmp_path / "model.onnx", torch.randn(2, 5, 64), quantize="int8", verify=False
    )
    x = 7.0 * signs.repeat(1, 16)[None]
    got, _ = runtime.load(report.path).run(x.numpy()).values()
    np.testing.assert_allclose(got, x @ weight.T, rtol=fixed("float32"), atol=fixed("int8 product"))


def test_tied_weights_are_stored_once_and_a_quarter_of_the_size(
    text: tuple[runtime.Model, runtime.Model, str], tmp_path: Path
) -> None:
    _, small, _ = text
    big = nn.Sequential(nn.Embedding(997, 256), Last(nn.LSTM(256, 256, batch_first=True)), nn.Linear(256, 997))
    big[2].weight = big[0].weight
    example = torch.tensor([[0, 996]])
    with one_trace():
        sizes = [export(big, tmp_path / "x.onnx", example, quantize=q, verify=False).size_bytes for q in (None, "int8")]
    assert sizes[1] < 0.3 * sizes[0], sizes
    assert small.signature.inputs[0].limit == VOCABULARY


class Last(nn.Module):
    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


def test_the_report_tells_perplexity_and_agreement(text: tuple[runtime.Model, runtime.Model, str]) -> None:
    whole, small, report = text
    surprise = {
        name: [
            -np.take_along_axis(m.run(x)[:, :-1], x[:, 1:, None], 2).ravel()
            for x in (ids(1, n, n).numpy() for n in (29, 37))
        ]
        for name, m in (("whole", whole), ("small", small))
    }
    before, after = (np.exp(np.concatenate(surprise[name]).mean()) for name in ("whole", "small"))
    assert f"perplexity {before:.4g} -> {after:.4g}" in report and "on 2 examples" in report
    assert abs(after / before - 1) < fixed("int8 perplexity")
    assert "same likeliest class" in report and small.report["int8"]["outputs"][0]["top1_agreement"] > 0.8


def test_without_data_the_report_says_so(stack: Exported) -> None:
    assert "on the example only (pass accuracy_data for more)" in str(stack.reports["loop"])
    assert stack.loop.report["float32"]["max_abs"] < fixed("float32 long") < stack.loop.report["cases"][0]["max_abs"]
    assert stack.loop.run(rows(2, 3)).shape == (2, 3, TAGS)
