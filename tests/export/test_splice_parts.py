"""Placeholders of recurrent layers as every form that there is, without the rest of an export: like the cell, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore.cells import Cell
from rnncore.cells.base import state_shape
from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.forms import FUSED_OR_SCAN, PLAIN
from rnncore.export.lowering.portable import fold_constants, spell_out
from rnncore.export.lowering.shared_weights import share_weights
from rnncore.export.lowering.splice import splice
from rnncore.export.lowering.steps import StepGraph, export_steps
from rnncore.export.tracing.recorder import Call
from rnncore.layers import Recurrent
from tests.export.small_graphs import run
from tests.export.test_log_sums_parts import Like
from tests.export.test_step_parts import HIDDEN, INPUT, Clipped, Matrix
from tests.export.test_step_parts import calls as calls_of
from tests.tolerances import fixed


class Stabilised(Cell):
    """An exponent that follows from itself, and a memory that follows from both: two loops, one after the other."""

    def __init__(self) -> None:
        super().__init__(INPUT, HIDDEN, {"e": HIDDEN, "c": HIDDEN})
        self.weight = nn.Parameter(torch.empty(3 * HIDDEN, INPUT))

    def project(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def step(self, z: Tensor, e: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        forget, take, value = z.chunk(3, 1)
        after = torch.maximum(forget + e, take)
        c = torch.exp(forget + e - after) * c + torch.exp(take - after) * value
        return torch.tanh(c), after, c


CELLS: dict[str, Cell] = {
    "gru": rnncore.GRUCell(INPUT, HIDDEN),
    "lstm": rnncore.LSTMCell(INPUT, HIDDEN),
    "clipped": Clipped(),
    "matrix": Matrix(m=(2, HIDDEN)),
    "exponents": Stabilised(),
    "sums": Like("sum"),
}
LENGTHS = [6, 0, 3]
FORMS = ["loop", "scan", "portable", *PLAIN.values(), "fused", FUSED_OR_SCAN]


@pytest.fixture(scope="module")
def steps() -> Mapping[Cell, StepGraph]:
    torch.manual_seed(3)
    for cell in CELLS.values():
        for parameter in cell.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return export_steps(calls_of(*CELLS.values()))


def call(cell: Cell, name: str = "net", *, reverse: bool = False, given: bool = False, **more: Any) -> Call:
    width = cell.project(torch.zeros(1, INPUT)).shape[-1]
    return Call(name, Recurrent(cell, reverse=reverse), int(width), given, False, **more)


def placed(own: Call, *, lengths: bool = False, start: str = "", returned: bool = False) -> ir.Model:
    """x -> y through a layer, which starts from an input, from zeros, or from nothing that is said."""
    main = ir.Graph([], [], nodes=[], opset_imports={"": 20, "rnncore": 1}, name="main")
    builder, cell = Builder("front", main), own.cell
    x = graph_value("x", ("batch", "time", INPUT))
    main.inputs.append(x)
    with torch.no_grad():
        bias = cell.project(torch.zeros(1, INPUT))
        weight = cell.project(torch.eye(INPUT)) - bias
    product = builder.op("MatMul", x, initializer(main, "front.w", ir.tensor(weight.numpy())))
    z = builder.op("Add", product, initializer(main, "front.b", ir.tensor(bias[0].numpy())))
    z.type, z.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "time", own.z_size])
    sizes = [state_shape(size) for size in cell.state_sizes.values()]
    starts: list[ir.Value] = []
    for name, size in zip(cell.state_sizes, sizes, strict=True):
        if start == "input":
            main.inputs.append(graph_value(f"{name}0", ("batch", *size)))
            starts.append(main.inputs[-1])
        else:
            rows = builder.op("Shape", x, start=0, end=1)
            shape = builder.op("Concat", rows, builder.constant(list(size)), axis=0)
            starts.append(builder.op("Expand", builder.constant(0.0 if start != "ones" else 1.0, np.float32), shape))
    given = None
    if lengths:
        given = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch"]))
        main.inputs.append(given)
    y, *ends = builder.append(
        "Recurrent", [x, z, given, *starts], [ir.AttrString("call", own.name)], 1 + len(sizes), "rnncore"
    )
    for name, end, shape in (("y", y, ("batch", "time", cell.output_size)), *zip(
        [f"{name}_last" for name in cell.state_sizes], ends, [("batch", *size) for size in sizes], strict=True
    )):  # fmt: skip
        end.name, end.type, end.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        if returned or end is y:
            main.outputs.append(end)
    main.extend(builder.nodes)
    return ir.Model(main, ir_version=10)


def graph_value(name: str, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def written(made: ir.Model, steps: Mapping[Cell, StepGraph], own: Call, form: str, **options: Any) -> list[Any]:
    states = splice(made, {own.name: own}, steps, form=form, **{"lift": False, "lean": True, **options})
    if form == "portable":
        fold_constants(made)
    spell_out(made)
    share_weights(made)
    onnx.checker.check_model(ir.to_proto(made))
    assert "rnncore" not in made.graph.opset_imports
    return states


def by_steps(own: Call, x: np.ndarray, starts: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
    """What the cell gives: [y, *last states]."""
    y, ends = np.zeros((*x.shape[:2], own.cell.output_size), np.float32), [start.copy() for start in starts]
    with torch.no_grad():
        for row, length in enumerate(lengths):
            states = [torch.from_numpy(start[row : row + 1].copy()) for start in starts]
            z = own.cell.project(torch.from_numpy(x[row, :length]))
            for t in reversed(range(length)) if own.layer.reverse else range(length):
                out, *states = own.cell.step(z[t : t + 1], *states)
                y[row, t] = out.numpy()
            for end, state in zip(ends, states, strict=True):
                end[row] = state.numpy()
    return [y, *ends]


def drawn(own: Call, rows: int, time: int, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    sizes = [state_shape(size) for size in own.cell.state_sizes.values()]
    states = [random.standard_normal((rows, *size)).astype(np.float32) for size in sizes]
    return random.standard_normal((rows, time, INPUT)).astype(np.float32), states


def fed(made: ir.Model, x: np.ndarray, states: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
    names = [str(v.name) for v in made.graph.inputs]
    values = {"x": x, "lengths": np.array(lengths, np.int64)}
    others = iter(states)
    return run(made, **{name: values[name] if name in values else next(others) for name in names})


def close(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
    for have, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(have, want, atol=fixed("float32"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("kind", "form"),
    [(kind, form) for kind in CELLS for form in FORMS if "fused" not in form or kind in ("gru", "lstm")],
)
def test_every_form_is_the_cell_step_by_step(
    steps: Mapping[Cell, StepGraph], kind: str, form: str, reverse: bool, masked: bool
) -> None:
    own = call(CELLS[kind], reverse=reverse, given=True)
    for lean in (True, False) if form in ("loop", "scan", FUSED_OR_SCAN) else (True,):
        made = placed(own, lengths=masked, start="input", returned=True)
        assert written(made, steps, own, form, lean=lean) == []
        for rows, time in ((1, 1), (1, 6), (3, 6)):
            x, states = drawn(own, rows, time)
            for lengths in [[time] * rows, *([LENGTHS] if masked and rows == 3 else [])]:
                close(fed(made, x, states, lengths), by_steps(own, x, states, lengths))
        if form == FUSED_OR_SCAN:  # of NaN in one row the other ones see nothing
            x, states = drawn(own, 3, 6)
            x[1, 2] = np.nan
            close(fed(made, x, states, [6] * 3), by_steps(own, x, states, [6] * 3))


@pytest.mark.parametrize(
    ("kind", "form"),
    [("lstm", form) for form in ("loop", "portable", "fused", PLAIN["scan"])]
    + [(kind, form) for kind in ("matrix", "exponents") for form in ("scan", "portable", PLAIN["loop"])],
)
@pytest.mark.parametrize("start", ["", "zeros", "constant"])
def test_a_layer_that_is_given_nothing_goes_on_where_it_was(
    steps: Mapping[Cell, StepGraph], kind: str, start: str, form: str
) -> None:
    cell = CELLS[kind]
    own = call(cell, given=start != "")
    sizes = [state_shape(size) for size in cell.state_sizes.values()]
    begin = [np.full((1, *size), float(start == "constant"), np.float32) for size in sizes]
    if start == "constant":
        own = replace(own, starts=tuple(one[0] for one in begin))
    made = placed(own, start="ones" if start == "constant" else "", returned=True)
    states = written(made, steps, own, form, lift=True)
    assert [(s.name, s.output, s.dtype, s.size) for s in states] == [
        (f"net.{name}", f"net.{name}.next", "float32", int(np.prod(size)))
        for name, size in zip(cell.state_sizes, sizes, strict=True)
    ]
    assert [s.shape for s in states] == [("batch", *size) if len(size) > 1 else None for size in sizes]
    assert [s.initial_value().tolist() for s in states] == [one.ravel().tolist() for one in begin]
    inputs = {str(v.name): v for v in made.graph.inputs}
    assert list(inputs) == ["x", *(s.name for s in states)]
    for state, size in zip(states, sizes, strict=True):
        assert inputs[state.name].shape == ir.Shape(["batch", *size])
        assert inputs[state.name].dtype == ir.DataType.FLOAT
    outputs = [str(v.name) for v in made.graph.outputs]
    assert outputs == ["y", *(f"{name}_last" for name in cell.state_sizes), *(s.output for s in states)]
    assert [v.shape for v in made.graph.outputs[1 + len(sizes) :]] == [ir.Shape(["batch", *size]) for size in sizes]
    x, _ = drawn(own, 2, 7)
    held, parts = [np.repeat(one, 2, 0) for one in begin], []
    for first, last in ((0, 1), (1, 2), (2, 7)):
        y, *rest = fed(made, x[:, first:last], held, [])
        parts.append(y)
        close(rest[: len(sizes)], rest[len(sizes) :])
        held = rest[len(sizes) :]
    close([np.concatenate(parts, 1), *held], by_steps(own, x, [np.repeat(one, 2, 0) for one in begin], [7, 7]))


def test_what_a_layer_is_given_stays_given(steps: Mapping[Cell, StepGraph]) -> None:
    own = call(CELLS["gru"], given=True)
    made = placed(own, start="input")
    assert written(made, steps, own, "loop", lift=True) == []
    assert [v.name for v in made.graph.inputs] == ["x", "h0"] and [v.name for v in made.graph.outputs] == ["y"]
    ones = placed(call(CELLS["gru"], given=True), start="ones")
    assert written(ones, steps, own, "loop", lift=True) == [], "ones, of which nobody has said that they never change"


@pytest.mark.parametrize("name", ["net.h", "net.h.next"])
def test_a_state_is_called_otherwise_where_its_name_is_taken(steps: Mapping[Cell, StepGraph], name: str) -> None:
    own = call(CELLS["gru"])
    made = placed(own)
    made.graph.outputs[0].name = name
    states = written(made, steps, own, "scan", lift=True)
    assert [(s.name, s.output) for s in states] == [("net.h.state", "net.h.state.next")]
    nameless = call(CELLS["gru"], "")
    assert [s.name for s in written(placed(nameless), steps, nameless, "scan", lift=True)] == ["h"]


def test_a_size_that_torch_lost_is_the_layers(steps: Mapping[Cell, StepGraph]) -> None:
    own = call(CELLS["gru"], given=True)
    made = placed(own, start="input")
    (layer,) = [node for node in made.graph if node.domain == "rnncore"]
    assert layer.inputs[1] is not None
    layer.inputs[1].shape = ir.Shape(["batch", "time", None])
    written(made, steps, own, "loop")
    x, states = drawn(own, 3, 6)
    close(fed(made, x, states, [6] * 3), by_steps(own, x, states, [6] * 3)[:1])


def test_calls_of_one_cell_share_its_weights_and_ask_for_sizes_once(steps: Mapping[Cell, StepGraph]) -> None:
    cell = CELLS["clipped"]
    first = replace(call(cell, "net@0"), layer=Recurrent(cell))
    second = replace(first, name="net@1")
    made = placed(first)
    (layer,) = [node for node in made.graph if node.domain == "rnncore"]
    again = ir.Node("rnncore", "Recurrent", layer.inputs, [ir.AttrString("call", "net@1")], num_outputs=2)
    again.outputs[0].name, again.outputs[1].name = "twice", "end"
    again.outputs[0].type, again.outputs[0].shape = layer.outputs[0].type, layer.outputs[0].shape
    made.graph.append(again)
    made.graph.outputs.append(again.outputs[0])
    states = splice(
        made,
        {"net@0": first, "net@1": second},
        steps,
        form={"net@0": "loop", "net@1": "plain scan"},
        lift=True,
        lean=True,
    )
    assert [s.name for s in states] == ["net@0.h", "net@1.h"]
    inner = [node.op_type for node in ir.traversal.RecursiveGraphIterator(made.graph)]
    top = [node.op_type for node in made.graph]
    assert "Loop" in inner and "Scan" in top and top.count("If") == 1
    weights = [name for name in made.graph.initializers if ".cell." in name]
    assert len(weights) == 2, "the weight that is made of two is made once, and the limit"
    assert top.count("Shape") == 3, "of the batch, for the start; for all layers; for a loop without branches"
    x, held = drawn(first, 2, 5)
    wanted = by_steps(first, x, held, [5, 5])
    close(fed(made, x, held * 2, []), [wanted[0], wanted[0], wanted[1], wanted[1]])


def branches_of(made: ir.Model) -> dict[str, list[str]]:
    """The operators of each branch, those of bodies of loops behind the name of theirs."""
    found: dict[str, list[str]] = {}
    for node in ir.traversal.RecursiveGraphIterator(made.graph):
        for attribute in node.attributes.values():
            if isinstance(attribute.value, ir.Graph):
                name = str(attribute.value.name).rpartition("/")[2].rpartition("_")[0]
                found[name] = [inner.op_type for inner in attribute.value]
                bodies = [inner for inner in attribute.value if inner.op_type in ("Loop", "Scan")]
                for loop in bodies:
                    found[f"{name} body"] = [inner.op_type for inner in loop.attributes["body"].as_graph()]
    return found


@pytest.mark.parametrize("form", ["loop", "scan"])
@pytest.mark.parametrize(("kind", "parts"), [("gru", {"loop": 3, "scan": 3}), ("lstm", {"loop": 2, "scan": 4})])
def test_each_way_of_calling_has_its_loop(
    steps: Mapping[Cell, StepGraph], kind: str, parts: dict[str, int], form: str
) -> None:
    """What :func:`write_recurrence` says of them; onnxruntime packs what is copied in the body itself."""
    own = call(CELLS[kind])
    made = placed(own, lengths=True)
    written(made, steps, own, form, lift=True)
    found = branches_of(made)
    loops = ("one_row", "full", "masked")
    assert set(found) == {"one_step", "steps", "rows", "body", *loops, *(f"{name} body" for name in loops)}
    assert not {"Loop", "Scan", "If"} & set(found["one_step"]) and found["steps"].count("If") == 1
    bodies = {name: found[f"{name} body"] for name in loops}
    assert ["Where" in body for body in bodies.values()] == [False, False, True], "masks cost three nodes a step"
    copies = "Flatten" if kind == "gru" else "Split"
    where_cut = [body[: body.index("Gemm")].count(copies) for body in bodies.values()]
    assert where_cut == [0, 1, 1], "weights as they are for one row"
    for name, body in bodies.items():
        looked_up = body.count("Gather")
        assert looked_up == (0 if form == "scan" else parts[form] + (name == "masked"))
    for name in ("one_row", "rows"):
        front = found[name][: found[name].index("MatMul")]
        assert front[:2] == ["Transpose", "Reshape"] and "Flatten" in front, (
            "time first, by a product whose matrix is copied"
        )
    for plain in (PLAIN[form], "portable"):
        made = placed(own, lengths=True)
        written(made, steps, own, plain, lift=True)
        assert set(branches_of(made)) == {"body"}
    batch = placed(own)
    written(batch, steps, own, form)
    assert set(branches_of(batch)) == {"body", "one_row", "one_row body", "rows", "rows body"}, "no lengths, no streams"


def test_a_state_that_follows_from_itself_alone_has_a_loop_of_its_own(steps: Mapping[Cell, StepGraph]) -> None:
    own = call(CELLS["exponents"])
    for form, lean in (("scan", True), ("loop", True), ("scan", False)):
        made = placed(own)
        written(made, steps, own, form, lean=lean)
        top = [node.op_type for node in made.graph]
        assert top.count(form.capitalize()) == 2 * lean and ("If" in top) is not lean
        assert top.count("Exp") == 2 * lean, "of all steps together"
