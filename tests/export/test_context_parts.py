"""What looks back without a loop, node by node: what is kept of it, and what is left alone."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx_ir as ir
import pytest

from rnncore.export.lowering.context import _reaches
from rnncore.export.lowering.context_states import ContextStates, name_of, path_of
from tests.export.small_graphs import carried, left_alone, model, run, shapes, streams

X = "x[batch,time,4] -> y[batch,time,4]\n"
CUT = "\ny = Slice(p, {0}, {-2}, {1})"

PADS = {
    "before": f"{X} p[batch,time+2,4] = Pad(x, {{0, 2, 0, 0, 0, 0}}) {CUT}",
    "by its name": f'{X} p[batch,time+2,4] = Pad<mode = "constant">(x, {{0, 2, 0, 0, 0, 0}}) {CUT}',
    "with a number": f"{X} p[batch,time+2,4] = Pad(x, {{0, 2, 0, 0, 0, 0}}, #3.5) {CUT}",
    "with no axes": f"{X} p[batch,time+2,4] = Pad(x, {{0, 2, 0, 0, 0, 0}}, #3.5, ) {CUT}",
    "of what was cut": f"{X} c[batch,time-2,4] = Slice(x, {{0}}, {{-2}}, {{1}})\n y = Pad(c, {{0, 2, 0, 0, 0, 0}})",
    "cut by it": f"{X} y = Pad(x, {{0, 2, 0, 0, -2, 0}})",
    "cut by it, with a number": f"{X} y = Pad(x, {{0, 2, 0, 0, -2, 0}}, #1.5)",
    "after it too": f"{X} q[batch,time+3,4] = Pad(x, {{0, 2, 0, 0, 1, 0}}, #2.0)\n y = Slice(q, {{0}}, {{-3}}, {{1}})",
    "only a little more is cut": f"{X} c[batch,time-1,4] = Slice(x, {{0}}, {{-1}}, {{1}})\n"
    f" p[batch,time+1,4] = Pad(c, {{0, 2, 0, 0, 0, 0}})\n y = Slice(p, {{0}}, {{-1}}, {{1}})",
}


@pytest.mark.parametrize("kind", PADS)
def test_padding_before_the_first_step_is_the_last_steps_of_the_chunk_before(kind: str) -> None:
    states = streams(PADS[kind])
    assert shapes(states) == {"context": ("batch", 2, 4)} and states.one_length
    (spec,) = states.specs
    numbers = {"with a number": 3.5, "with no axes": 3.5, "cut by it, with a number": 1.5, "after it too": 2.0}
    assert spec.initial_value().tolist() == [numbers.get(kind, 0.0)] * 8 and spec.dtype == "float32"


@pytest.mark.parametrize(
    ("x", "pads", "shape"),
    [
        ("time,batch,4", "2, 0, 0, 0, 0, 0", (2, "batch", 4)),
        ("batch,4,time", "0, 0, 2, 0, 0, 0", ("batch", 4, 2)),
        ("batch,time", "0, 2, 0, 0", ("batch", 2)),
        ("batch,3,time,4", "0, 0, 2, 0, 0, 0, 0, 0", ("batch", 3, 2, 4)),
    ],
)
def test_time_is_where_it_is(x: str, pads: str, shape: tuple[int | str, ...]) -> None:
    sizes, axis = x.split(","), x.split(",").index("time")
    more = ",".join("time+2" if size == "time" else size for size in sizes)
    text = f"x[{x}] -> y[{x}]\n p[{more}] = Pad(x, {{{pads}}})\n y = Slice(p, {{0}}, {{-2}}, {{{axis}}})"
    states = streams(text)
    assert shapes(states) == {"context": shape}
    assert (states.specs[0].shape is None) == (shape == ("batch", 2)), "a plain state has no shape of its own"
    assert states.specs[0].size == np.prod([size for size in shape if size != "batch"])


def test_a_width_after_the_last_step_may_be_computed() -> None:
    text = f"""{X}
        n:i[1] = Shape<start = 1, end = 2>(x)
        m:i[1] = Min(n, {{1}})
        w:i[6] = Concat<axis = 0>({{0}}, {{2}}, {{0}}, {{0}}, m, {{0}})
        p[batch,time+3,4] = Pad(x, w, #2.0)
        y = Slice(p, {{0}}, {{-3}}, {{1}})"""
    assert shapes(streams(text)) == {"context": ("batch", 2, 4)}
    for wrong in (
        text.replace("{0}, {2}, {0}, {0}, m, {0}", "{0}, m, {0}, {0}, {0}, {0}"),  # what comes before is computed
        text.replace("{0}, {2}, {0}, {0}, m, {0}", "{0}, {2}, m, {0}, {0}, {0}"),  # another axis
        text.replace("{0}, {2}, {0}, {0}, m, {0}", "{0, 2, 0}, {0}, m, {0}"),  # not one by one
        text.replace("m:i[1] =", "m =").replace("n:i[1] =", "n ="),  # nobody knows how many
        text.replace("Concat<axis = 0>({0}, {2}, {0}, {0}, m, {0})", "Mul({0, 2, 0, 0, 1, 0}, m)"),
    ):
        assert wrong != text
        left_alone(wrong)


ZEROS = "s:i[1] = Shape<start = 0, end = 1>(x)\n w:i[3] = Concat<axis = 0>(s, {1, 1})\n z[batch,1,1] = Expand({0.0}, w)"
LEFT_ALONE = {
    "nothing before": f"{X} p[batch,time+2,4] = Pad(x, {{0, 0, 0, 0, 2, 0}}) {CUT}",
    "less before": "x[batch,time,4] -> y[batch,time-2,4]\n y = Pad(x, {0, -2, 0, 0, 0, 0})",
    "another axis too": "x[batch,time,4] -> y[batch,time,5]\n p[batch,time+2,5] = Pad(x, {0, 2, 1, 0, 0, 0})" + CUT,
    "behind another axis": "x[batch,time,4] -> y[batch,time,5]\n p[batch,time+2,5] = Pad(x, {0, 2, 0, 0, 0, 1})" + CUT,
    "another axis alone": "x[batch,time,4] -> y[batch,time,5]\n y = Pad(x, {0, 0, 1, 0, 0, 0})",
    "mirrored": f'{X} p[batch,time+2,4] = Pad<mode = "reflect">(x, {{0, 2, 0, 0, 0, 0}}) {CUT}',
    "of axes": f"{X} p[batch,time+2,4] = Pad(x, {{2, 0}}, #0.0, {{1}}) {CUT}",
    "of all axes": f"{X} p[batch,time+2,4] = Pad(x, {{0, 2, 0, 0, 0, 0}}, #0.0, {{0, 1, 2}}) {CUT}",
    "with a number of inputs": "x[batch,time,4], f[] -> y[batch,time,4]\n"
    " p[batch,time+2,4] = Pad(x, {0, 2, 0, 0, 0, 0}, f)" + CUT,
    "by widths of inputs": f"x[batch,time,4], w:i[6] -> y[batch,time,4]\n p[batch,time+2,4] = Pad(x, w) {CUT}",
    "of another axis that is free": "x[batch,time,width] -> y[batch,time,width]\n"
    " p[batch,time+2,width] = Pad(x, {0, 2, 0, 0, 0, 0})" + CUT,
    "of others": f"{X} p[batch,time+2,4] = other.Pad(x, {{0, 2, 0, 0, 0, 0}}) {CUT}",
    "the edge, and after it": f'{X} p[batch,time+3,4] = Pad<mode = "edge">(x, {{0, 2, 0, 0, 1, 0}})\n'
    " y = Slice(p, {0}, {-3}, {1})",
    "the edge, and less": 'x[batch,time,4] -> y[batch,time-1,4]\n y = Pad<mode = "edge">(x, {0, -1, 0, 0, 0, 0})',
    "the edge of nothing": f'{X} y = Pad<mode = "edge">(x, {{0, 0, 0, 0, 0, 0}})',
    "sums from the end": f"{X} y = CumSum<reverse = 1>(x, #1)",
    "sums without their own": f"{X} y = CumSum<exclusive = 1>(x, #1)",
    "sums of another axis": f"{X} y = CumSum(x, #2)",
    "sums of rows": f"{X} y = CumSum(x, #0)",
    "sums of an axis of an input": "x[batch,time,4], a:i[] -> y[batch,time,4]\n y = CumSum(x, a)",
    "sums of what is free": "x[batch,time,width] -> y[batch,time,width]\n y = CumSum(x, #1)",
    "three parts": f"x[batch,time,1] -> y[batch,time,1]\n {ZEROS}\n q[batch,time+2,1] = Concat<axis = 1>(z, z, x)\n"
    " y = Slice(q, {0}, {-2}, {1})",
    "joined along another axis": "x[batch,time,4] -> y[batch,time,8]\n y = Concat<axis = 2>(x, x)",
    "put behind": f"x[batch,time,1] -> y[batch,time+1,1]\n {ZEROS}\n y = Concat<axis = 1>(x, z)",
}


@pytest.mark.parametrize("kind", LEFT_ALONE)
def test_all_else_is_left_alone(kind: str) -> None:
    left_alone(LEFT_ALONE[kind])


def test_what_is_cut_of_what_nobody_knows_is_kept_as_it_is() -> None:
    text = f"{X} n = Neg(x)\n c[batch,time-2,4] = Slice(n, {{0}}, {{-2}}, {{1}})\n y = Pad(c, {{0, 2, 0, 0, 0, 0}})"
    made, states = carried(text)
    assert shapes(states) == {"context": ("batch", 2, 4)}
    joined = next(node for node in made.graph if node.op_type == "Concat")
    assert [v.name for v in joined.inputs if v] == ["context", "c"] and joined.outputs[0].name == "y"


def test_no_context_is_made_where_rows_end() -> None:
    left_alone(PADS["before"], rows_end=True)


# ------------------------------------------------------------------------------------------------ the first step again

AGAIN = {
    "padded": f'{X} p[batch,time+2,4] = Pad<mode = "edge">(x, {{0, 2, 0, 0, 0, 0}}) {CUT}',
    "joined": f"{X} f[batch,1,4] = Slice(x, {{0}}, {{1}}, {{1}})\n"
    " p[batch,time+1,4] = Concat<axis = 1>(f, x)\n y = Slice(p, {0}, {-1}, {1})",
    "joined, by an axis from the end": f"{X} f[batch,1,4] = Gather<axis = 1>(x, {{0}})\n"
    " p[batch,time+1,4] = Concat<axis = -2>(f, x)\n y = Slice(p, {0}, {-1}, {1})",
    "channels first": "x[batch,4,time] -> y[batch,4,time]\n"
    ' p[batch,4,time+1] = Pad<mode = "edge">(x, {0, 0, 1, 0, 0, 0})\n y = Slice(p, {0}, {-1}, {2})',
    "time first": "x[time,batch,4] -> y[time,batch,4]\n"
    ' p[time+2,batch,4] = Pad<mode = "edge">(x, {2, 0, 0, 0, 0, 0})\n y = Slice(p, {0}, {-2}, {0})',
}


@pytest.mark.parametrize("kind", AGAIN)
def test_the_first_step_again(kind: str) -> None:
    states = streams(AGAIN[kind])
    wanted = {"channels first": ("batch", 4, 1), "time first": (2, "batch", 4), "padded": ("batch", 2, 4)}
    assert shapes(states) == {"context": wanted.get(kind, ("batch", 1, 4)), "steps": ("batch", 1)}
    assert states.one_length


def test_two_first_steps_before_all_are_no_single_one() -> None:
    """Joined they are first steps of their own: each row of the sequence has as many."""
    made, states = carried(
        "x[batch,time,4] -> y[batch,time+2,4]\n f[batch,2,4] = Slice(x, {0}, {2}, {1})\n y = Concat<axis = 1>(f, x)"
    )
    assert states.specs == [] and [node.op_type for node in made.graph] == ["Slice", "Concat"]


# ------------------------------------------------------------------------------------------------------- constants

SIZE = " s:i[1] = Shape<start = 0, end = 1>(x)\n w:i[3] = Concat<axis = 0>(s, {2, 4})\n"
CONSTANT = {
    "before": f"{X}{SIZE} k[batch,2,4] = Expand(#1.5, w)\n p[batch,time+2,4] = Concat<axis = 1>(k, x) {CUT}",
    "each step its own": f"{X}{SIZE} r[1,2,1] = Reshape({{1.0, 2.0}}, {{1, 2, 1}})\n k[batch,2,4] = Expand(r, w)\n"
    f" p[batch,time+2,4] = Concat<axis = -2>(k, x) {CUT}",
    "of what was cut": f"{X}{SIZE} k[batch,2,4] = Expand(#1.5, w)\n c[batch,time-2,4] = Slice(x, {{0}}, {{-2}}, {{1}})\n"
    " y = Concat<axis = 1>(k, c)",
}


@pytest.mark.parametrize("kind", CONSTANT)
def test_a_constant_before_the_first_step(kind: str) -> None:
    states = streams(CONSTANT[kind])
    assert shapes(states) == {"context": ("batch", 2, 4)} and states.one_length
    first = [1.0] * 4 + [2.0] * 4 if kind == "each step its own" else [1.5] * 8
    assert states.specs[0].initial_value().tolist() == first


def test_what_is_no_constant_before_the_first_step_is_left_alone() -> None:
    before = CONSTANT["before"]
    for wrong in (
        before.replace("#1.5", "f").replace("x[batch,time,4] ->", "x[batch,time,4], f[] ->"),
        before.replace("Expand(#1.5, w)", "Expand(i, w)\n").replace(SIZE, SIZE + " i = Div(#1.0, #0.0)\n"),
    ):
        assert wrong != before
        left_alone(wrong)


# ------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("x", ["batch,time,4", "time,batch,4", "batch,4,time", "batch,time"])
@pytest.mark.parametrize("from_end", [False, True])
def test_sums_go_on(x: str, from_end: bool) -> None:
    sizes = x.split(",")
    axis = sizes.index("time") - len(sizes) * from_end
    states = streams(f"x[{x}] -> y[{x}]\n y = CumSum<exclusive = 0, reverse = 0>(x, #{axis})")
    shape = tuple(1 if size == "time" else int(size) if size == "4" else size for size in sizes)
    assert shapes(states) == {"sum": shape} and states.one_length


# ------------------------------------------------------------------------------------------------------ convolutions

WEIGHT = "x[batch,4,time] -> y[batch,4,time]\n v[48] = Expand(#1.0, {48})\n m[4,4,3] = Reshape(v, {4, 4, 3})\n"
CONVOLUTIONS = {
    "padded before": (f"{WEIGHT} y = Conv<pads = [2, 0], kernel_shape = [3]>(x, m)", 2),
    "dilated": (f"{WEIGHT} y = Conv<pads = [4, 0], dilations = [2], kernel_shape = [3]>(x, m)", 4),
    "cut after it": (
        f"{WEIGHT} c[batch,4,time+2] = Conv<pads = [2, 2], kernel_shape = [3]>(x, m)\n y = Slice(c, {{0}}, {{-2}}, {{2}})",
        2,
    ),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_that_look_back(kind: str) -> None:
    text, steps = CONVOLUTIONS[kind]
    states = streams(text)
    assert shapes(states) == {"context": ("batch", 4, steps)} and states.one_length
    assert states.specs[0].initial is None


@pytest.mark.parametrize(
    ("pads", "shape"), [("[2, 0, 0, 0]", ("batch", 1, 2, 5)), ("[2, 1, 0, 1]", ("batch", 1, 2, 5))]
)
def test_images_over_time(pads: str, shape: tuple[int | str, ...]) -> None:
    width = 5 if "1" in pads else 3
    text = f"""x[batch,1,time,5] -> y[batch,1,time,{width}]
        m[1,1,3,3] = Reshape({{1.0, 2.0, 3.0, 0.0, 1.0, 0.0, 2.0, -1.0, 4.0}}, {{1, 1, 3, 3}})
        y = Conv<pads = {pads}, kernel_shape = [3, 3]>(x, m)"""
    assert shapes(streams(text)) == {"context": shape}
    turned = text.replace("batch,1,time,5", "batch,1,5,time").replace(f"batch,1,time,{width}", f"batch,1,{width},time")
    turned = turned.replace(pads, "[0, 2, 0, 0]" if width == 3 else "[1, 2, 1, 0]")
    assert shapes(streams(turned)) == {"context": ("batch", 1, 5, 2)}


ALONE = {
    "looks ahead": f"{WEIGHT} y = Conv<pads = [1, 1], kernel_shape = [3]>(x, m)",
    "one step too many after it": f"{WEIGHT} y = Conv<pads = [2, 1], dilations = [1], kernel_shape = [3]>(x, m)",
    "no padding before": "x[batch,4,time] -> y[batch,4,time-2]\n v[48] = Expand(#1.0, {48})\n"
    " m[4,4,3] = Reshape(v, {4, 4, 3})\n y = Conv<pads = [0, 0], kernel_shape = [3]>(x, m)",
    "by name": f'{WEIGHT} y = Conv<auto_pad = "SAME_LOWER", kernel_shape = [3]>(x, m)',
    "cut for one reader only": "x[batch,4,time] -> y[batch,4,time], z[batch,4,time+2]\n v[48] = Expand(#1.0, {48})\n"
    " m[4,4,3] = Reshape(v, {4, 4, 3})\n c[batch,4,time+2] = Conv<pads = [2, 2], kernel_shape = [3]>(x, m)\n"
    " y = Slice(c, {0}, {-2}, {2})\n z = Neg(c)",
    "read by nobody": "x[batch,4,time] -> y[batch,4,time+2]\n v[48] = Expand(#1.0, {48})\n"
    " m[4,4,3] = Reshape(v, {4, 4, 3})\n y = Conv<pads = [2, 2], kernel_shape = [3]>(x, m)",
    "over channels": "x[batch,time,4] -> y[batch,time,4]\n m[3,3,1] = Reshape({1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0}, "
    "{3, 3, 1})\n y = Conv<pads = [2, 0], kernel_shape = [1]>(x, m)",
}


@pytest.mark.parametrize("kind", ALONE)
def test_convolutions_that_are_left_alone(kind: str) -> None:
    left_alone(ALONE[kind])


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_whether_a_convolution_reaches_the_padding_after_it(stride: int) -> None:
    for width, dilation, before, after in product(range(1, 5), range(1, 4), range(1, 8), range(7)):
        sizes = {"kernel_shape": [9, width], "strides": [9, stride], "dilations": [9, dilation]}
        node = ir.Node("", "Conv", [], [ir.AttrInt64s(name, own) for name, own in sizes.items()])
        own = before + 60 - (width - 1) * dilation - 1  # 60 steps: whole strides of all
        assert _reaches(node, 1, before, after) == ((own + after) // stride != own // stride)
    for width in (2, 3):
        bare = ir.Node("", "Conv", [], [ir.AttrInt64s("kernel_shape", [width])])
        assert not _reaches(bare, 0, width - 1, 0) and _reaches(bare, 0, width - 1, 1)


# ------------------------------------------------------------------------------------------------------------ names


def test_states_have_names_of_their_own() -> None:
    text = """x[batch,time,4], context[batch,4] -> y[batch,time,4], b[batch,4]
        p[batch,time+2,4] = Pad(x, {0, 2, 0, 0, 0, 0})
        q[batch,time,4] = Slice(p, {0}, {-2}, {1})
        r[batch,time+1,4] = Pad(q, {0, 1, 0, 0, 0, 0})
        y = Slice(r, {0}, {-1}, {1})
        b = Neg(context)"""
    made, states = carried(text)
    assert [(s.name, s.output) for s in states.specs] == [
        ("context.1", "context.1.next"),
        ("context.2", "context.2.next"),
    ]
    assert [v.name for v in made.graph.inputs] == ["x", "context", "context.1", "context.2"]
    taken = (
        text.replace("context[batch,4]", "c[batch,4]").replace("Neg(context)", "Neg(c)").replace("b[", "context_next[")
    )
    taken_model = model(taken.replace("b = Neg", "context_next = Neg"))
    taken_model.graph.outputs[1].name = "context.next"
    second = ContextStates(taken_model)
    assert second.state("context", ("batch", 2), ir.DataType.FLOAT, np.zeros(2))[1].name == "context.1"


def test_a_state_is_named_by_the_part_of_the_module_that_made_it() -> None:
    node = ir.Node("", "Pad", [])
    assert path_of(node) == "" and name_of(node, "context") == "context"
    node.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'module.net.front', 'pad', 'pad_1']"
    assert path_of(node) == "net.front" and name_of(node, "context") == "net.front.context"
    node.metadata_props["pkg.torch.onnx.name_scopes"] = "['module', 'module.net', 'module.last']"
    assert path_of(node) == "net", "the last one is the operation"
    node.metadata_props["pkg.torch.onnx.name_scopes"] = "['module', 'pad']"
    assert path_of(node) == ""


def test_what_a_state_becomes_has_one_name() -> None:
    """An input or an output of the graph itself goes out under a name of its own as well."""
    made = model("x[batch,3] -> y[batch,3]\n y = Neg(x)")
    states = ContextStates(made)
    x, y = made.graph.inputs[0], made.graph.outputs[0]
    for kept in (x, y, y):
        value, spec = states.state("kept", ("batch", 3), ir.DataType.FLOAT, np.array([1, 0, 2]))
        states.end(spec, kept, ir.DataType.FLOAT, ("batch", 3))
        assert value.dtype == ir.DataType.FLOAT and value.shape == ir.Shape(("batch", 3))
    made.graph.extend(states.builder.nodes)
    assert all(str(node.name).startswith("context/") for node in states.builder.nodes)
    assert [v.name for v in made.graph.outputs] == ["y", "kept.next", "kept.1.next", "kept.2.next"]
    given = {f"kept{end}": np.zeros((1, 3), np.float32) for end in ("", ".1", ".2")}
    found = run(made, x=np.array([[1, 2, 3]], np.float32), **given)
    assert [one.tolist() for one in found] == [[[-1, -2, -3]], [[1, 2, 3]], [[-1, -2, -3]], [[-1, -2, -3]]]
    assert states.specs[0].initial_value().tolist() == [1, 0, 2] and states.specs[0].shape is None
    for shape in ((2, "batch"), ("batch", 2, 3)):
        own = ContextStates(model("x[batch,3] -> y[batch,3]\n y = Neg(x)"))
        assert own.state("s", shape, ir.DataType.INT64, np.zeros(2))[1].shape == shape
        assert own.specs[0].dtype == "int64"
