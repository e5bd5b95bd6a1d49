"""First steps of their own, node by node: made of the first steps themselves, of a constant, or of padding."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rnncore.export.lowering.context_states import ContextStates
from rnncore.export.lowering.first_steps import _comes_from, carry_first_steps
from tests.export.small_graphs import carried, model, shapes, shown, streams

LAYOUTS = ["batch,time,4", "time,batch,4", "batch,4,time", "batch,time", "time,batch", "batch,3,time,4"]
FIRST = "f[$K] = Slice(x, {0}, {2}, {$A})\n"
CUT = "c[$R] = Slice(x, {0}, {-2}, {$A})\n"
DIFFERENCE = f"a[$R] = Slice(x, {{2}}, {{9223372036854775807}}, {{$A}})\n{CUT} d[$R] = Sub(a, c)\n"
SIZES = "s:i[1] = Shape<start = $B, end = $C>(x)\n w:i[$N] = Concat<axis = 0>($W)\n"

FORMS = {
    "times zero": f"{FIRST}{CUT} z[$K] = Mul(f, #0.0)\n y = Concat<axis = $A>(z, c)",
    "first again": f"{FIRST}{CUT} y = Concat<axis = $A>(f, c)",
    "of the first twice": f"{FIRST}{CUT} g[$K] = Neg(f)\n h[$K] = Mul(g, f)\n z[$K] = Sub(h, g)\n y = Concat<axis = $M>(z, c)",
    "an input left out": f"{FIRST}{CUT} z[$K] = Clip(f, , #2.0)\n y = Concat<axis = $A>(z, c)",
    "of others than the rest": f"{CUT} m[$X] = Mul(x, #3.0)\n g[$K] = Slice(m, {{0}}, {{2}}, {{$A}}, {{1}})\n"
    " y = Concat<axis = $A>(g, c)",
    "difference": f"{FIRST}{DIFFERENCE} y = Concat<axis = $A>(f, d)",
    "difference of what was computed": f"{FIRST}{DIFFERENCE} e[$R] = Mul(d, d)\n r[$R] = Clip(e, , #9.0)\n"
    " y = Concat<axis = $A>(f, r)",
    "of its size": f"{FIRST}{DIFFERENCE} q:i[$N] = Shape(d)\n e[$R] = Expand(#2.0, q)\n r[$R] = Add(d, e)\n"
    " y = Concat<axis = $A>(f, r)",
    "padded difference": f"{DIFFERENCE} y = Pad(d, {{$P}})",
    "padded by its name": f'{DIFFERENCE} y = Pad<mode = "constant">(d, {{$P}}, #2.5)',
    "a constant before it": f"{DIFFERENCE}{SIZES} k[$K] = Expand(#1.5, w)\n y = Concat<axis = $A>(k, d)",
}


def laid(text: str, layout: str = "batch,time,4") -> str:
    """``text`` of values that lie so: $X x, $K its first two steps, $R two steps less."""
    sizes = layout.split(",")
    axis, batch = sizes.index("time"), sizes.index("batch")
    marks = {
        "$X": layout,
        "$K": layout.replace("time", "2"),
        "$R": layout.replace("time", "time-2"),
        "$A": str(axis),
        "$M": str(axis - len(sizes)),
        "$B": str(batch),
        "$C": str(batch + 1),
        "$N": str(len(sizes)),
        "$P": ", ".join("2" if place == axis else "0" for place in range(2 * len(sizes))),
        "$W": ", ".join({"batch": "s", "time": "{2}"}.get(size, f"{{{size}}}") for size in sizes),
    }
    for mark, own in marks.items():
        text = text.replace(mark, own)
    return f"x[{layout}] -> y[{layout}]\n{text}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", FORMS)
def test_first_steps_of_their_own(kind: str, layout: str) -> None:
    states = streams(laid(FORMS[kind], layout))
    wanted = tuple({"time": 2, "batch": "batch"}.get(size, size) for size in layout.split(","))
    wanted = tuple(int(size) if str(size).isdigit() else size for size in wanted)
    assert shapes(states) == {"context": wanted, "steps": ("batch", 1)} and states.one_length
    assert all(spec.initial is None for spec in states.specs) and states.specs[0].dtype == "float32"


def test_what_is_done_to_the_steps_and_what_stands_before_them_may_be_anything_plain() -> None:
    reshaped = f"""{FIRST}{DIFFERENCE} n:i[1] = Shape<start = 1, end = 2>(d)
        b:i[1] = Shape<end = 1>(x)
        w:i[4] = Concat<axis = 0>(b, n, {{2, 2}})
        v = Reshape(d, w)
        u = ReduceSum<keepdims = 1>(v, {{3}})
        t = Add(v, u)
        q:i[3] = Shape(d)
        r[$R] = Reshape(t, q)
        y = Concat<axis = 1>(f, r)"""
    sized = f"""{FIRST}{CUT} s:i[3] = Shape(f)
        e[$K] = Expand(#1.5, s)
        z[$K] = Add(e, f)
        y = Concat<axis = 1>(z, c)"""
    by_feature = f"""{DIFFERENCE}{SIZES} r[1,1,4] = Reshape({{1.0, 2.0, 3.0, 4.0}}, {{1, 1, 4}})
        k[$K] = Expand(r, w)
        y = Concat<axis = 1>(k, d)"""
    convolved = """v[48] = Expand(#1.0, {48})
        m[4,4,3] = Reshape(v, {4, 4, 3})
        d[$R] = Conv<kernel_shape = [3]>(x, m)
        f[$K] = Slice(x, {0}, {2}, {$A})
        y = Concat<axis = 2>(f, d)"""
    by_row = f"""{FIRST}{CUT} s:i[1] = Shape<end = 1>(x)
        w:i[3] = Concat<axis = 0>(s, {{1, 4}})
        e[batch,1,4] = Expand(#1.5, w)
        g[$K] = Add(f, e)
        h[$K] = Mul(g, {{1.0, 2.0, 3.0, 4.0}})
        z[$K] = Where({{1}}, h, g)
        y = Concat<axis = 1>(z, c)""".replace("{1}, h", "b, h").replace(" z[", " b:b[1,1,4] = Less(e, #0.0)\n z[")
    mixed = f"""{FIRST}{CUT} m[4,4] = Reshape({{{", ".join(f"{n}.0" for n in range(16))}}}, {{4, 4}})
        z[$K] = MatMul(f, m)
        y = Concat<axis = 1>(z, c)"""
    by_row = by_row.replace("b:b[1,1,4]", "b:b[batch,1,4]")
    for text in (
        laid(reshaped),
        laid(sized),
        laid(by_feature),
        laid(convolved, "batch,4,time"),
        laid(by_row),
        laid(mixed),
    ):
        assert set(shapes(streams(text))) == {"context", "steps"}


def test_whole_numbers_stay_whole() -> None:
    text = laid(FORMS["padded difference"]).replace("[batch", ":i[batch")
    assert [spec.dtype for spec in streams(text).specs] == ["int64", "int64"]


# ------------------------------------------------------------------------------------------------- written in place

ASSIGNED = """x[time,batch,4] -> y[time,batch,4]
    k[time] = ReduceSum<keepdims = 0>(x, {1, 2})
    n:i[] = Size(k)
    r:i[time] = Range(#0, n, #1)
    s:i[time-2] = Slice(r, {2}, {9223372036854775807}, {0}, {1})
    u:i[time-2,1] = Unsqueeze(s, {1})
    v[time-2,batch,4] = Slice(x, {0}, {-2}, {0})
    y = ScatterND(x, u, v)"""


def test_steps_that_are_written_in_place_are_put_together() -> None:
    assert shapes(streams(ASSIGNED)) == {"context": (2, "batch", 4), "steps": ("batch", 1)}
    assert shapes(streams(ASSIGNED.replace(", {0}, {1})\n", ", {0})\n"))) == shapes(streams(ASSIGNED))
    of_one = ASSIGNED.replace("time-2", "time-1").replace("{2}", "{1}").replace("{-2}", "{-1}")
    assert shapes(streams(of_one))["context"] == (1, "batch", 4)
    of_zeros = ASSIGNED.replace("y = Sc", "w:i[3] = Shape(x)\n z[time,batch,4] = Expand(#0.0, w)\n y = Sc")
    states = streams(of_zeros.replace("ScatterND(x", "ScatterND(z"))
    assert shapes(states) == {"context": (2, "batch", 4)}, "the plain way of a shift"


OTHERWISE = {
    "from the third on": ("Range(#0", "Range(#2"),
    "every second": ("{0}, {1})\n", "{0}, {2})\n"),
    "from the last ones on": ("Slice(r, {2}", "Slice(r, {-2}"),
    "from an input on": ("Slice(r, {2}", "Slice(r, g"),
    "by the places of another": ("Range(#0, n, #1)", "Abs(g)"),
    "added to what is there": ("ScatterND(x", 'ScatterND<reduction = "add">(x'),
    "of others": ("ScatterND(", "other.ScatterND("),
    "by places as they are": ("Unsqueeze(s, {1})", "Mul(s, #1)"),
    "by places that were moved": ("Slice(r, {2}, {9223372036854775807}, {0}, {1})", "Add(r, #1)"),
    "fewer": ("v[time-2,batch,4] = Slice(x, {0}, {-2}, {0})", "v[time-3,batch,4] = Slice(x, {0}, {-3}, {0})"),
    "of rows": ("time,batch", "batch,time"),
    "in something longer": ("x[time,batch,4] -> y[time,batch,4]", "x[time+1,batch,4] -> y[time+1,batch,4]"),
}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_what_is_written_in_another_way_is_left_alone(kind: str) -> None:
    old, new = OTHERWISE[kind]
    assert old in ASSIGNED
    alone(ASSIGNED.replace(old, new).replace("x[time,batch,4] ->", "x[time,batch,4], g:i[1] ->"))


def test_a_step_of_the_first_alone_is_written_from_the_first_on() -> None:
    """``y[0:] = x`` writes all."""
    alone(ASSIGNED.replace("time-2", "time").replace("Slice(r, {2}", "Slice(r, {0}").replace("{-2}", "{99}"))


def alone(text: str) -> None:
    made = model(text)
    states = ContextStates(made)
    carry_first_steps(states)
    assert shown(made) == shown(model(text)) and states.specs == [] and not states.one_length
    assert not states.builder.nodes


# --------------------------------------------------------------------------------------------------- not of this kind

NONE = {
    "of others": f"{FIRST}{CUT} y = other.Concat<axis = $A>(f, c)",
    "one step more": f"{FIRST}{CUT} q[batch,time+1,4] = Concat<axis = $A>(f, x)\n y = Slice(q, {{0}}, {{-1}}, {{$A}})",
    "longer than the sequence": f"{FIRST} q[batch,time+2,4] = Concat<axis = $A>(f, x)\n y = Slice(q, {{2}}, {{99}}, {{$A}})",
    "three parts": f"{FIRST}e[batch,1,4] = Slice(x, {{0}}, {{1}}, {{$A}})\n"
    " c[batch,time-3,4] = Slice(x, {0}, {-3}, {$A})\n"
    " y = Concat<axis = $A>(f, e, c)",
    "two of the first step": f"g[batch,1,4] = Slice(x, {{0}}, {{1}}, {{$A}})\n{CUT} f[$K] = Expand(g, {{1, 2, 1}})\n"
    " y = Concat<axis = $A>(f, c)",
    "the first step by its number": "f[batch,1,4] = Gather<axis = $A>(x, {0})\n"
    " c[batch,time-1,4] = Slice(x, {0}, {-1}, {$A})\n y = Concat<axis = $A>(f, c)",
    "of the last": f"f[$K] = Slice(x, {{-2}}, {{99}}, {{$A}})\n{CUT} y = Concat<axis = $A>(f, c)",
    "of nobody knows how many": f"f = Slice(x, {{0}}, {{2}}, {{$A}})\n{CUT} y = Concat<axis = $A>(f, c)",
    "of the first and an input": f"{FIRST}{CUT} z[$K] = Add(f, h)\n y = Concat<axis = $A>(z, c)",
    "each step its own": f"{FIRST}{CUT} w[2,1] = Reshape({{1.0, 2.0}}, {{2, 1}})\n z[$K] = Mul(f, w)\n"
    " y = Concat<axis = $A>(z, c)",
    "each step its own, by sizes": f"{FIRST}{CUT}{SIZES} e[$K] = Expand(#1.5, w)\n z[$K] = Add(e, f)\n"
    " y = Concat<axis = $A>(z, c)",
    "each step its own, where": f"{FIRST}{CUT} w[1,2,1] = Reshape({{1.0, 2.0}}, {{1, 2, 1}})\n b:b[1,2,1] = Less(w, #1.5)\n"
    " z[$K] = Where(b, f, #0.0)\n y = Concat<axis = $A>(z, c)",
    "in a shape of so many steps": f"{FIRST}{CUT}{SIZES} z[$K] = Reshape(f, w)\n y = Concat<axis = $A>(z, c)",
    "spread to so many steps": f"{FIRST}{CUT}{SIZES} z[$K] = Expand(f, w)\n y = Concat<axis = $A>(z, c)",
    "of what is not local": f"{FIRST}{DIFFERENCE} g[$K] = Neg(f)\n e[$R] = Add(d, h)\n y = Concat<axis = $A>(g, e)",
    "by a node of two results": f"{FIRST}{CUT} p[$K], q = Split<axis = 2, num_outputs = 2>(f)\n y = Concat<axis = $A>(p, c)",
    "by a node of others": f"{FIRST}{CUT} p[$K] = other.Neg(f)\n y = Concat<axis = $A>(p, c)",
    "a constant, as the plainer way has it": f"{CUT}{SIZES} k[$K] = Expand(#1.5, w)\n y = Concat<axis = $A>(k, c)",
    "padding, as the plainer way has it": f"{CUT} y = Pad(c, {{$P}})",
    "a constant for each step": f"{DIFFERENCE}{SIZES} r[1,2,1] = Reshape({{1.0, 2.0}}, {{1, 2, 1}})\n k[$K] = Expand(r, w)\n"
    " y = Concat<axis = $A>(k, d)",
    "no number": f"{DIFFERENCE}{SIZES} i = Div(#1.0, #0.0)\n k[$K] = Expand(i, w)\n y = Concat<axis = $A>(k, d)",
    "of an input": f"{FIRST}{DIFFERENCE} e[$R] = Add(d, h)\n y = Concat<axis = $A>(f, e)",
    "padded, of an input": f"{DIFFERENCE} e[$R] = Add(d, h)\n y = Pad(e, {{$P}})",
    "padded by the edge": f'{DIFFERENCE} y = Pad<mode = "edge">(d, {{$P}})',
    "padded behind too": f"{DIFFERENCE} y = Pad(d, {{0, 1, 0, 0, 1, 0}})",
    "padded by axes in order": f"{DIFFERENCE} y = Pad(d, {{$P}}, #0.0, {{0, 1, 2}})",
    "padded by axes": f"{DIFFERENCE} y = Pad(d, {{2, 0}}, #0.0, {{1}})",
    "padded by widths of an input": f"{DIFFERENCE} y = Pad(d, j)",
    "of a batch that nobody knows": f"{FIRST}{CUT} e[,time-2,4] = Neg(c)\n y = Concat<axis = $A>(f, e)",
    "cut of what nobody knows": "f[$K] = Slice(x, {0}, {2}, {$A})\n n = Neg(x)\n c[$R] = Slice(n, {0}, {-2}, {$A})\n"
    " y = Concat<axis = $A>(f, c)",
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_none_of_these_is_left_alone(kind: str) -> None:
    alone(
        laid(NONE[kind]).replace("x[batch,time,4] ->", "x[batch,time,4], h[4], j:i[6] ->").replace("[,time", "[?,time")
    )


def test_more_is_cut_off_than_stands_before() -> None:
    """Then nothing is known of the steps between; it is written, and verification asks whether it is right."""
    text = "f[batch,2,4] = Slice(x, {0}, {2}, {1})\n p[batch,time+1,4] = Pad(x, {0, 1, 0, 0, 0, 0})\n"
    made, states = carried(laid(f"{text} c[$R] = Slice(p, {{0}}, {{-3}}, {{1}})\n y = Concat<axis = 1>(f, c)"))
    assert "Where" in [node.op_type for node in made.graph] and "steps" in shapes(states)


# ------------------------------------------------------------------------------------------------------------- sources


def test_what_a_value_comes_from() -> None:
    x, c = (ir.Value(name=name, shape=ir.Shape([2])) for name in "xc")
    graph = ir.Graph([x, c], [], nodes=[])

    def op(kind: str, *inputs: ir.Value | None, outputs: int = 1, domain: str = "") -> ir.Value:
        node = ir.Node(domain, kind, inputs, num_outputs=outputs)
        graph.append(node)
        return node.outputs[0]

    def comes(value: ir.Value) -> bool:
        return _comes_from(value, lambda part: part is x)

    weight = ir.Value(name="w")
    assert comes(x) and not comes(c) and not comes(weight)
    assert comes(op("Add", x, weight)) and comes(op("Add", weight, x)) and comes(op("Clip", x, None, weight))
    assert not comes(op("Add", x, c)) and not comes(op("Add", c, x)) and not comes(op("Neg", weight))
    assert not comes(op("Neg", x, domain="other")) and not comes(op("Split", x, outputs=2))
    assert not comes(op("Add", x, op("Split", weight, outputs=2))), "which of the two is not known"
    size, of_other = op("Shape", x), op("Expand", x, op("Shape", c))
    assert not comes(size) and comes(op("Expand", x, size)) and comes(of_other), "a size is none of its entries"
    assert not comes(op("Expand", c, size)) and not comes(op("Expand", x, op("Shape", op("Split", c, outputs=2))))
    assert comes(op("Expand", op("Neg", x), op("Shape", op("Neg", c)))) and not comes(op("Add", c, op("Shape", c)))
    twice = op("Neg", x)
    assert comes(op("Add", twice, op("Mul", twice, twice)))
