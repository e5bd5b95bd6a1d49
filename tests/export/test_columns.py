"""Products cut by gate: the same numbers from fewer nodes, and weights that stand once in the file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import rnncore
from rnncore.export.gate_splitting.gate_split import GateSplit
from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.projection import Projection
from tests.export.exporting import FORMS, Exported, all_graphs, all_nodes, as_loaded, export_forms
from tests.strategies import randomize
from tests.tolerances import fixed

INPUT, SIZE = 3, 5
CELLS: dict[str, tuple[rnncore.Cell, int, int]] = {  # products of a step in a Scan, and in a Loop
    "lstm": (rnncore.LSTMCell(INPUT, SIZE), 4, 2),
    "lstm with hard gates": (rnncore.LSTMCell(INPUT, SIZE, gate_activation="hard_sigmoid"), 4, 2),
    "coupled lstm with peepholes": (rnncore.LSTMCell(INPUT, SIZE, peephole="previous", coupled=True), 3, 3),
    "projected lstm": (rnncore.LSTMCell(INPUT, SIZE, projection=2), 5, 3),
    "gru": (rnncore.GRUCell(INPUT, SIZE), 3, 3),
    "gru without bias": (rnncore.GRUCell(INPUT, SIZE, bias=False), 3, 3),
    "gru, reset before": (rnncore.GRUCell(INPUT, SIZE, reset="before"), 3, 3),
    "mingru": (rnncore.MinGRUCell(INPUT, SIZE), 0, 0),
}
JOINED = {"lstm", "lstm with hard gates", "projected lstm"}


WIDE = 64


class Centred(rnncore.Cell):
    """``project`` looks at all rows and steps, so it must stay as it was traced."""

    def __init__(self) -> None:
        super().__init__(INPUT, SIZE, {"s": SIZE})
        self.linear = nn.Linear(INPUT, 2 * SIZE)

    def project(self, x: Tensor) -> Tensor:
        return torch.cumsum(self.linear(x), dim=-1)  # no operator that is known to work on the last axis alone

    def step(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        keep, add = z.chunk(2, 1)
        s = torch.sigmoid(keep) * s + torch.tanh(add)
        return s, s


class Overlapping(Centred):
    """Columns that overlap, in the projection and in the step."""

    def project(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        left, right = z.split((2, 2 * SIZE - 2), -1)
        first, second = z.split((SIZE, SIZE), -1)
        return torch.cat((first + right[..., :SIZE], second * left[..., :1]), -1)

    def step(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        keep, add = z.chunk(2, 1)
        few, _ = z.split((1, 2 * SIZE - 1), 1)
        s = torch.sigmoid(keep) * s + torch.tanh(add) * few
        return s, s


class Reordered(Centred):
    """The step cuts its state too, asks for a part of z twice, and leaves a part unread."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUT, 3 * SIZE)
        self.mix = nn.Linear(SIZE, 2 * SIZE)

    def project(self, x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(self.linear(x))

    def step(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        _, a, b = z.chunk(3, 1)
        c, d = torch.relu(self.mix(s)).chunk(2, 1)
        head, tail = s.split((2, SIZE - 2), 1)
        s = torch.sigmoid(a + c) * torch.cat((tail, head), 1) + torch.tanh(b * d + a)
        return s * c, s


OTHERS: dict[str, rnncore.Cell] = {
    "wide lstm": rnncore.LSTMCell(INPUT, WIDE),
    "lstm with peepholes": rnncore.LSTMCell(INPUT, SIZE, peephole="current"),
    "normalised lstm": rnncore.LSTMCell(INPUT, SIZE, layer_norm=True),
    "centred": Centred(),
    "overlapping": Overlapping(),
    "reordered": Reordered(),
}


class Side(nn.Module):
    """All cells side by side, an output each: one trace, and one file in each form, for every test here."""

    def __init__(self) -> None:
        super().__init__()
        cells = {name: cell for name, (cell, _, _) in CELLS.items()} | OTHERS
        self.layers = nn.ModuleDict({path_of(name): rnncore.Recurrent(cell) for name, cell in cells.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: layer(x)[0] for name, layer in self.layers.items()}


def path_of(name: str) -> str:
    return name.replace(" ", "_").replace(",", "")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Verified, in chunks too."""
    return export_forms(
        randomize(Side().eval(), 5), tmp_path_factory.mktemp("columns"), torch.randn(2, 4, INPUT), streaming=True
    )


@pytest.fixture(scope="module")
def loaded(files: Exported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.GraphProto]:
    """The graphs as onnxruntime has them, by form."""
    return {form: as_loaded(files.path(form), tmp_path_factory.mktemp(form)) for form in FORMS}


def of(name: str, whole: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Branches and bodies of one cell."""
    return (graph for graph in all_graphs(whole) if graph.name.startswith(f"layers.{path_of(name)}/"))


def bodies(name: str, whole: onnx.GraphProto, branch: str = "full") -> Iterator[onnx.GraphProto]:
    """Bodies of loops in the branches of this name; by default those over rows of full length."""
    for graph in of(name, whole):
        if f"/{branch}" in graph.name:
            yield from (g for g in all_graphs(graph) if "/body" in g.name)


def count(graph: onnx.GraphProto, *op_types: str) -> int:
    return sum(node.op_type in op_types for node in all_nodes(graph))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CELLS)
def test_a_step_has_a_product_for_each_gate_or_activation(
    name: str, form: str, loaded: dict[str, onnx.GraphProto]
) -> None:
    _, in_scan, in_loop = CELLS[name]
    (body,) = bodies(name, loaded[form])
    joined = form == "loop" and name in JOINED
    assert [len(node.output) for node in body.node if node.op_type == "Split"] == ([3] if joined else [])
    assert count(body, "MatMul", "Gemm", "FusedGemm") == (in_loop if form == "loop" else in_scan)


@pytest.mark.parametrize(("form", "products", "lookups"), [("loop", 2, 2), ("scan", 4, 0)])
def test_a_loop_over_one_row_looks_up_few_parts_of_z(form: str, products: int, lookups: int, files: Exported) -> None:
    (body,) = bodies("lstm", files.proto(form).graph, "one_row")
    assert count(body, "Gemm") == products and count(body, "Gather") == lookups


def test_a_loop_over_one_row_takes_many_parts_of_z_as_a_whole(files: Exported) -> None:
    (body,) = bodies("lstm with peepholes", files.proto().graph, "one_row")
    assert count(body, "Gemm", "MatMul") == count(body, "Gather") == 1


@pytest.mark.parametrize("form", FORMS)
def test_projections_are_multiplied_with_packed_weights(form: str, loaded: dict[str, onnx.GraphProto]) -> None:
    """A product in a branch whose weight lies two graphs further out would be packed anew in every call."""
    branches = [g for g in of("lstm", loaded[form]) if g.name.split("/")[-1][:4] in ("one_", "rows")]
    for branch in branches:
        here = {tensor.name for tensor in branch.initializer}
        products = [node for node in branch.node if node.op_type in ("MatMul", "Gemm")]
        assert products
        assert "one_step" in branch.name or all(node.input[1] in here for node in products)
    assert len(branches) == 3


def test_what_is_normalised_as_a_whole_stays_whole(files: Exported) -> None:
    (body,) = bodies("normalised lstm", files.proto().graph)
    assert count(body, "Split") == count(body, "Gemm", "MatMul") == 1


@pytest.mark.parametrize("form", FORMS)
def test_weights_stand_once_in_the_file(form: str, files: Exported) -> None:
    """No other tensor here has a multiple of so many numbers."""
    layer = files.module.get_submodule("layers.wide_lstm")
    numbers = sum(p.numel() for p in layer.parameters()) - 4 * WIDE  # the two biases are one
    stored = [int(np.prod(t.dims)) for g in all_graphs(files.proto(form).graph) for t in g.initializer if t.dims]
    assert sum(size for size in stored if size % WIDE == 0) == numbers


@pytest.mark.parametrize("form", FORMS)
def test_cells_of_any_make_give_pytorchs_numbers(form: str, files: Exported) -> None:
    assert files.reports[form].max_error < fixed("float32 long")  # over hundreds of steps, through a layer norm
    x = torch.randn(3, 6, INPUT, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = files.module(x)
    got = files.models[form].run(x.numpy())
    assert len(got) == len(CELLS) + len(OTHERS)
    for name, wanted in expected.items():
        np.testing.assert_allclose(got[name], wanted, atol=fixed("float32"))


WIDTH = 12
KINDS = ("unary", "binary", "bias", "scale", "gemm", "matmul", "whole")


@pytest.mark.parametrize(("axis", "movable"), [(None, False), (0, False), (1, False), (2, True), (-1, True)])
def test_only_what_works_along_the_last_axis_is_moved(axis: int | None, movable: bool) -> None:
    """A ``Split`` that does not say its axis has 0, where softmax and its like have the last."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4, 4, 4]))
    attributes = {} if axis is None else {"axis": axis}
    halves = ir.node("Split", [x], attributes={"num_outputs": 2, **attributes}, num_outputs=2).outputs
    for half in halves:
        half.shape = ir.Shape([2 if n == (axis or 0) % 3 else 4 for n in range(3)])
    product = ir.node("Mul", list(halves)).outputs[0]
    product.shape = halves[0].shape
    assert (Projection.between(x, product) is not None) == movable


@st.composite
def cut_graphs(draw: st.DrawFn) -> tuple[ir.Graph, list[ir.Value]]:
    """A graph of products, elementwise operators and splits over z [2, WIDTH] and h [2, 4]; and values to ask for."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    z, h = (typed(ir.Value(name=name), columns) for name, columns in (("z", WIDTH), ("h", 4)))
    graph = ir.Graph([z, h], [], nodes=[], opset_imports={"": 20}, name="main")
    builder, wide = Builder("g", graph), [z]

    def constant(*shape: int) -> ir.Value:
        return builder.constant(np.round(rng.normal(size=shape), 2), np.float32)

    def node(kind: str, one: ir.Value, other: ir.Value) -> ir.Value:
        if kind == "unary":
            return builder.op(draw(st.sampled_from(["Tanh", "Sigmoid", "Identity"])), one)
        if kind == "binary":
            return builder.op(draw(st.sampled_from(["Add", "Mul"])), one, other)
        if kind == "gemm":
            return builder.op("Gemm", h, constant(WIDTH, 4), one, transB=1)
        if kind == "matmul":
            return builder.op("MatMul", h, constant(4, WIDTH))
        if kind == "whole":
            return builder.op("Softmax", one, axis=-1)
        return builder.op("Add", one, constant(WIDTH)) if kind == "bias" else builder.op("Mul", constant(1), one)

    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)):
        wide.append(typed(node(kind, draw(st.sampled_from(wide)), draw(st.sampled_from(wide))), WIDTH))
    ends = []
    for value in draw(st.lists(st.sampled_from(wide[1:]), min_size=1, max_size=3)):
        bounds = [0, *sorted(draw(st.sets(st.integers(1, WIDTH - 1), max_size=4))), WIDTH]
        sizes = [b - a for a, b in pairwise(bounds)]
        parts = builder.ops("Split", [value, builder.constant(sizes)], len(sizes), axis=draw(st.sampled_from([1, -1])))
        ops = [draw(st.sampled_from(["Exp", "Exp", "Tanh"])) for _ in sizes]
        ends += [typed(builder.op(op, typed(part, n)), n) for op, part, n in zip(ops, parts, sizes, strict=True)]
        for one, other in draw(st.lists(st.tuples(*2 * [st.sampled_from(ends)]), max_size=2)):
            if one.shape == other.shape and one is not other:  # uses an end between others, so that order matters
                ends.append(typed(builder.op("Mul", one, other), int(one.shape[1])))  # type: ignore[index,arg-type]
    graph.extend(builder.nodes)
    return graph, ends


def typed(value: ir.Value, columns: int) -> ir.Value:
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, columns])
    return value


def sliced(builder: Builder, value: ir.Value, first: int, last: int) -> ir.Value:
    return builder.op("Slice", value, builder.constant([first]), builder.constant([last]), builder.constant([1]))


@given(drawn=cut_graphs(), join=st.booleans(), seed=st.integers(0, 999))
@settings(deadline=None)
def test_a_cut_graph_computes_the_same(drawn: tuple[ir.Graph, list[ir.Value]], join: bool, seed: int) -> None:
    graph, ends = drawn
    z, h = graph.inputs
    columns = GateSplit(list(graph), [(value, ()) for value in ends], z, (), join=join)
    if not columns.clean:
        return
    constants = {v: v for v in graph.initializers.values()}
    cut = Builder("cut", graph)
    parts = [cut.op("Concat", *(sliced(cut, z, a, b) for a, b in part), axis=1) for part in columns.parts]
    known = {h: h, **constants, **({} if parts else {z: z})}
    results = columns.emit(cut, known, parts, columns.emit_pieces(cut, constants))
    graph.extend(cut.nodes)
    for value in results:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    # A result may be listed once only, and one that needed no new node is the old value itself.
    graph.outputs.extend(dict.fromkeys([*ends, *results]))
    assert all(0 <= a < b <= WIDTH for part in columns.parts for a, b in part)
    rng = np.random.default_rng(seed)
    feeds = {name: rng.normal(size=(2, w)).astype(np.float32) for name, w in (("z", WIDTH), ("h", 4))}
    names = [str(v.name) for v in graph.outputs]
    run = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=10)))
    values = dict(zip(names, run.run(None, feeds), strict=True))
    for old, new in zip(ends, results, strict=True):
        np.testing.assert_allclose(
            values[str(new.name)], values[str(old.name)], rtol=fixed("float32"), atol=fixed("float32 same steps")
        )
