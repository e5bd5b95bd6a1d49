"""First steps that all others read, starts that forward computes, and counts that come back, node by node."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
import torch

import rnncore
from rnncore.cells import Cell
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.replace import put_in_place
from rnncore.export.lowering.context import carry_context
from rnncore.export.lowering.context_states import ContextStates
from rnncore.export.lowering.first_frames import _is_known_at_first
from rnncore.export.tracing.recorder import Call
from rnncore.export.tracing.rolling.cell import Packing, RolledCell, StepLayout
from rnncore.layers import Recurrent
from tests.export.small_graphs import carried, left_alone, model, same_in_chunks, shapes, streams
from tests.export.test_step_parts import Matrix

X = "x[batch,time,4] -> y[batch,time,4]\n"

# ------------------------------------------------------------------------------------------------------- first frames

FRAMES: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "cut": (f"{X} f[batch,1,4] = Slice(x, {{0}}, {{1}}, {{1}})\n y = Sub(x, f)", ("batch", 1, 4)),
    "taken": (f"{X} g[batch,4] = Gather<axis = 1>(x, #0)\n u[batch,1,4] = Unsqueeze(g, {{1}})\n y = Sub(x, u)", ("batch", 4)),
    "taken, its axis kept": (f"{X} f[batch,1,4] = Gather<axis = 1>(x, {{0}})\n y = Sub(x, f)", ("batch", 1, 4)),
    "time first": ("x[time,batch,4] -> y[time,batch,4]\n f[1,batch,4] = Slice(x, {0}, {1}, {0})\n y = Mul(x, f)",
                   (1, "batch", 4)),
    "time first, taken": ("x[time,batch,4] -> y[time,batch,4]\n f[batch,4] = Gather(x, #0)\n y = Mul(x, f)", ("batch", 4)),
    "channels first": ("x[batch,4,time] -> y[batch,4,time]\n f[batch,4] = Gather<axis = 2>(x, #0)\n"
                       " u[batch,4,1] = Unsqueeze(f, {2})\n y = Mul(x, u)", ("batch", 4)),
    "images": ("x[batch,3,time,4] -> y[batch,3,time,4]\n f[batch,3,1,4] = Slice(x, {0}, {1}, {2})\n y = Mul(x, f)",
               ("batch", 3, 1, 4)),
    "one number a step": ("x[batch,time] -> y[batch,time]\n f[batch] = Gather<axis = 1>(x, #0)\n"
    " u[batch,1] = Unsqueeze(f, {1})\n"
                          " y = Mul(x, u)", ("batch",)),
    "read twice, and its size": (f"{X} f[batch,1,4] = Slice(x, {{0}}, {{1}}, {{1}})\n s:i[3] = Shape(f)\n"
    " e[batch,1,4] = Expand(f, s)\n"
                                 " a[batch,time,4] = Sub(x, e)\n y = Mul(a, f)", ("batch", 1, 4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FRAMES)
def test_the_first_step_is_kept(kind: str) -> None:
    text, shape = FRAMES[kind]
    states = streams(text)
    assert shapes(states) == {"first": shape, "steps": ("batch", 1)}
    assert not states.one_length, "rows may end where they like"
    assert states.specs[0].initial is None and states.specs[0].dtype == "float32"
    assert (states.specs[0].shape is None) == (shape == ("batch", 4))


def test_first_steps_of_whole_numbers_and_of_two_values() -> None:
    text = FRAMES["cut"][0].replace("[batch", ":i[batch")
    assert {spec.name: spec.dtype for spec in streams(text).specs} == {"first": "int64", "steps": "int64"}
    two = f"""{X} m[batch,time,4] = Mul(x, x)
        f[batch,1,4] = Slice(x, {{0}}, {{1}}, {{1}})
        g[batch,4] = Gather<axis = 1>(m, #0)
        u[batch,1,4] = Unsqueeze(g, {{1}})
        a[batch,1,4] = Sub(f, u)
        y = Add(x, a)"""
    assert shapes(streams(two)) == {"first": ("batch", 1, 4), "steps": ("batch", 1), "first.1": ("batch", 4)}
    made = model(FRAMES["cut"][0])
    next(iter(made.graph)).metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'module.norm', 'slice']"
    assert "norm.first" in shapes(carry_context(made, {}))


@pytest.mark.parametrize(
    "text",
    [
        f"{X} f[batch,2,4] = Slice(x, {{0}}, {{2}}, {{1}})\n m[batch,1,4] = ReduceMax(f, {{1}})\n y = Sub(x, m)",
        f"{X} f[batch,1,4] = Slice(x, {{-1}}, {{99}}, {{1}})\n y = Sub(x, f)",
        f"{X} f[batch,1,4] = other.Slice(x, {{0}}, {{1}}, {{1}})\n y = Sub(x, f)",
        f"{X} f[batch,1,4] = Slice(x, {{0}}, {{1}}, {{1}})\n s:i[3] = Shape(f)\n z[batch,1,4] = Expand(#1.0, s)\n"
        " y = Sub(x, z)",
        "x[batch,time,4] -> y[batch,time,4], f[batch,1,4]\n f = Slice(x, {0}, {1}, {1})\n y = Sub(x, f)",
        "x[batch,time,4] -> f[batch,1,4]\n f = Slice(x, {0}, {1}, {1})",
    ],
)
def test_what_is_no_first_step_that_others_read(text: str) -> None:
    left_alone(text)


# ------------------------------------------------------------------------------------------------------------- starts

HIDDEN = 5
Z = f"x[batch,time,{HIDDEN}], c[batch,3] -> y[batch,time,{HIDDEN}]\n m[3,{HIDDEN}] = Reshape({{1.0, 2.0, -1.0, 0.0, 3.0, 2.0, "
Z += f"1.0, 4.0, -2.0, 1.0, 0.0, 3.0, 1.0, -3.0, 2.0}}, {{3, {HIDDEN}}})\n"
GIVEN = f"w[batch,{HIDDEN}] = MatMul(c, m)\n"
STEP = f"g[batch,{HIDDEN}] = Gather<axis = 1>(x, #0)\n"
RUN = f'y, e[batch,{HIDDEN}] = rnncore.Recurrent<call = "net">(x, x, , h)'

STARTS = {
    "first step": f"{Z}{STEP} h[batch,5] = Neg(g)\n {RUN}",
    "without time": f"{Z}{GIVEN} h[batch,5] = Neg(w)\n {RUN}",
    "both": f"{Z}{STEP}{GIVEN} h[batch,5] = Add(g, w)\n {RUN}",
    "and its size": f"{Z}{GIVEN} s:i[1] = Shape<end = 1>(x)\n q:i[2] = Concat<axis = 0>(s, {{5}})\n"
    " v[batch,5] = Expand(#2.0, q)\n"
    f" h[batch,5] = Mul(w, v)\n {RUN}",
}


def call(name: str = "net", cell: Cell | None = None, given: bool = True) -> dict[str, Call]:
    return {name: Call(name, Recurrent(cell or rnncore.GRUCell(3, HIDDEN)), HIDDEN, given, False)}


def stood_in(made: ir.Model) -> ir.Model:
    """With sums over time, which start from the states and end in them, in the place of recurrent layers."""
    graph, number = made.graph, 0
    for node in [node for node in graph if node.domain == "rnncore"]:
        builder, number = Builder(f"sum{number}", graph), number + 1
        _, z, _, *starts = node.inputs
        one = builder.constant([1])
        sums, whole = builder.op("CumSum", z, builder.constant(1)), builder.op("ReduceSum", z, one, keepdims=0)
        y, ends = builder.constant(0, "float32"), []
        for place, start in enumerate(starts):
            final = node.outputs[1 + place]
            assert start is not None and final.shape is not None
            more, rows = whole, 1
            if len(final.shape) == 3:  # a matrix for each row: the sum is added to each of its own
                more, rows = builder.op("Unsqueeze", whole, one), int(final.shape[1])  # type: ignore[arg-type]
            ends.append(builder.op("Add", start, more))
            told = builder.op("ReduceSum", start, one, keepdims=0) if rows > 1 else start
            told = builder.op(
                "Add", builder.op("Unsqueeze", told, one), builder.op("Mul", sums, builder.constant(rows, "float32"))
            )
            y = builder.op("Add", y, builder.op("Mul", told, builder.constant(place + 1, "float32")))
        graph.insert_before(node, list(builder.nodes))
        for old, new in zip(node.outputs, (y, *ends), strict=True):
            put_in_place(old, new)
        graph.remove(node, safe=True)
    return made


def started(text: str, calls: dict[str, Call], **options: Any) -> ContextStates:
    """As ``streams``, with layers."""
    made, states = carried(text, calls=calls, **options)
    same_in_chunks(stood_in(model(text)), stood_in(made), states.specs)
    return states


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_is_taken_in_the_first_chunk_only(kind: str) -> None:
    states = started(STARTS[kind], call())
    found = shapes(states)
    first = {"first": ("batch", 5)} if kind in ("first step", "both") else {}
    assert found == {**first, "net.h": ("batch", 5), "steps": ("batch", 1)} and not states.one_length
    assert started(STARTS[kind], call(), rows_end=True).specs


def test_a_layer_without_a_name_and_a_last_state_that_the_module_returns() -> None:
    text = STARTS["both"].replace('"net"', '""').replace("y[batch,time,5]\n", "y[batch,time,5], e[batch,5]\n", 1)
    text = (
        text.replace(", e[batch,5] = rnn", ", e = rnn")
        .replace("h[batch,5] = ", "a[batch,5] = ")
        .replace(", h)", ", a)")
    )
    assert set(shapes(started(text, call("")))) == {"first", "h", "steps"}


def test_starts_of_several_states_and_of_matrices() -> None:
    text = f"{Z}{STEP}{GIVEN} u[batch,1,5] = Unsqueeze(w, {{1}})\n v[batch,2,5] = Concat<axis = 1>(u, u)\n"
    text += ' y, e[batch,5], d[batch,2,5] = rnncore.Recurrent<call = "net">(x, x, , g, v)'
    cell = Matrix(m=(2, HIDDEN))
    states = started(text, call(cell=cell))
    assert shapes(states) == {
        "first": ("batch", 5),
        "net.h": ("batch", 5),
        "net.m": ("batch", 2, 5),
        "steps": ("batch", 1),
    }
    assert [spec.size for spec in states.specs if spec.name == "net.m"] == [10]


def test_a_start_in_double_precision() -> None:
    text = "x:d[batch,time,5], c:d[batch,5] -> y:d[batch,time,5]\n h:d[batch,5] = Neg(c)\n"
    text += ' y, e:d[batch,5] = rnncore.Recurrent<call = "net">(x, x, , h)'
    _, states = carried(text, calls=call())
    assert {spec.name: spec.dtype for spec in states.specs} == {"steps": "int64", "net.h": "float64"}
    untyped = text.replace(":d", "").replace(" y, e", " b, e") + "\n y = Identity(b)"
    assert {s.name: s.dtype for s in carried(untyped, calls=call())[1].specs}["net.h"] == "float32"


def free_cell() -> RolledCell:
    packing = Packing((HIDDEN,), 0, torch.float32, ((0, lambda sizes: HIDDEN),))  # type: ignore[arg-type]
    layout = StepLayout([Packing((HIDDEN,), 0, torch.float32)], [packing], {"h": packing}, torch.float32)
    return RolledCell(lambda *_: ([], []), layout, [], None, [])


CONSTANT = "s:i[1] = Shape<end = 1>(x)\n q:i[2] = Concat<axis = 0>(s, {5})\n k[batch,5] = Expand(#%s, q)\n"


@pytest.mark.parametrize(
    ("before", "start", "other"),
    [
        (CONSTANT % "1.5", "k", call("other")),
        (CONSTANT % "0.0", "k", call("other")),
        ("", "w", call("other", given=False)),
        ("", "w", call("other", free_cell())),
        ("a[batch,5] = ReduceMax<keepdims = 0>(x, {1})\n", "a", call("other")),
        (f"{CONSTANT % '1.5'} o, z[batch,5] = rnncore.Recurrent<call = \"own\">(x, x, , k)\n"
        "", "z", call("other") | call("own")),
    ],
)  # fmt: skip
def test_one_layer_is_left_alone_and_the_next_one_is_not(before: str, start: str, other: dict[str, Call]) -> None:
    text = f'{Z}{GIVEN}{before} b[batch,time,5], d[batch,5] = rnncore.Recurrent<call = "other">(x, x, , {start})\n'
    text += ' y, e[batch,5] = rnncore.Recurrent<call = "net">(b, b, , w)'
    made, states = carried(text, calls=call() | other)
    assert shapes(states) == {"steps": ("batch", 1), "net.h": ("batch", 5)}
    first = next(node for node in made.graph if node.domain == "rnncore" and node.outputs[0].name == "b")
    assert str(first.inputs[3] and first.inputs[3].name) == start


def test_an_input_that_is_or_may_be_a_state_starts_nothing() -> None:
    text = f"x[batch,time,5], c[batch,5] -> y[batch,time,5]\n h[batch,5] = Neg(c)\n {RUN}"
    assert "net.h" in shapes(started(text, call()))
    left_alone(text, calls=call(), paired=("c",))
    back = text.replace("-> y[batch,time,5]", "-> y[batch,time,5], o[batch,5]") + "\n o = Neg(e)"
    left_alone(back, calls=call())
    for other in (back.replace("o[batch,5]", "o[batch,1,5]").replace("Neg(e)", "Unsqueeze(e, {1})"),
                  back.replace("o[batch,5]", "o:i[batch,5]").replace("Neg(e)", "Cast<to = 7>(e)")):  # fmt: skip
        assert "net.h" in shapes(carried(other, calls=call())[1])
    over_time = text.replace("c[batch,5]", "c[batch,time,5,1]").replace("Neg(c)", "ReduceMax<keepdims = 0>(c, {1, 3})")
    left_alone(over_time, calls=call())


def test_what_a_start_is_made_of() -> None:
    made = model("""x[batch,time,5], c[batch,5], p[batch,5], own[batch,5] -> y[batch,time,5]
        a[batch,5] = Neg(c)
        s:i[3] = Shape(x)
        t[batch,time,5] = Expand(#1.0, s)
        u[batch,5] = ReduceMax<keepdims = 0>(t, {1})
        o[batch,5] = Neg(own)
        l[batch,5] = Add(p, own)
        f[batch,5] = Gather<axis = 1>(x, #0)
        k[batch,5] = Where(b, f, own)
        b:b[] = Equal(v, v)
        v:i[1] = Shape<end = 1>(c)
        w[batch,5] = Where(b, f, c)
        q[batch,5] = Add(a, p)
        m[batch,5] = Clip(a, , #1.0)
        r[batch,5] = Add(a, f)
        z, e[batch,5] = rnncore.Recurrent<call = "net">(x, x, , c)
        n[batch,5] = Add(a, e)
        y = Neg(x)""")
    states = ContextStates(made)
    states.specs.append(rnncore.runtime.format.signature.StateSpec("own", "own.next", "float32", 5))
    by_name = {str(v.name): v for node in made.graph for v in node.outputs} | {
        str(v.name): v for v in made.graph.inputs
    }
    known = {name for name, value in by_name.items() if _is_known_at_first(states, value, ("p",))}
    assert known >= {"c", "a", "s", "own", "o", "k", "v", "m"}
    assert not known & {"x", "p", "l", "t", "u", "f", "w", "q", "r", "z", "e", "n"}
    assert _is_known_at_first(states, None, ())


# ------------------------------------------------------------------------------------------------------------- counts

COUNTED = "x[batch,time,4], lengths:i[batch] -> y[batch,time,4], n:i[batch]\n y = Neg(x)\n"
COUNTS = {
    "as they are": f"{COUNTED} n = Identity(lengths)",
    "as floats": f"{COUNTED} n = Cast<to = 1>(lengths)".replace("n:i[", "n["),
    "as floats, and again": f"{COUNTED} f[batch] = Cast<to = 1>(lengths)\n n = Identity(f)".replace("n:i[", "n["),
    "through floats": f"{COUNTED} f[batch] = Cast<to = 1>(lengths)\n n = Cast<to = 7>(f)",
}


@pytest.mark.parametrize("kind", COUNTS)
def test_lengths_that_come_back_count_on(kind: str) -> None:
    states = streams(COUNTS[kind], lengths="lengths")
    assert shapes(states) == {"steps": ("batch", 1)} and not states.one_length
    left_alone(COUNTS[kind])


def test_what_is_no_count_is_left_alone() -> None:
    for wrong in (
        f"{COUNTED} n = Add(lengths, {{1}})",
        f"{COUNTED} s:i[1] = Shape<end = 1>(x)\n o:i[batch] = Expand(#1, s)\n n = Identity(o)",
        COUNTED.replace("lengths:i[batch] ->", "lengths:i[batch], k:i[batch] ->") + "n = Identity(k)",
    ):
        left_alone(wrong, lengths="lengths")
    both = COUNTED.replace("n:i[batch]", "o:i[batch], n:i[batch]") + "o = Neg(lengths)\n n = Identity(lengths)"
    made, states = carried(both, lengths="lengths")
    assert shapes(states) == {"steps": ("batch", 1)}, "the second one counts"
    assert [v.name for v in made.graph.outputs] == ["y", "o", "n", "steps.next"]
