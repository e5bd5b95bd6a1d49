"""Places of steps, node by node: what is computed of them goes on where a sequence ended, in every row at its own place."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rnncore.export.lowering.positions import most_steps
from tests.export.small_graphs import carried, left_alone, model, same_in_chunks, shapes, streams

X = "x[batch,time,4] -> y[batch,time,4]\n n:i[1] = Shape<start = 1, end = 2>(x)\n m:i[] = Squeeze(n)\n"
RANGE = "r:i[time] = Range(#0, m, #1)\n f[time] = Cast<to = 1>(r)\n"
PLACES = f"{X}{RANGE}"
NUMBERS = ", ".join(str(float(number * number % 23 - 7)) for number in range(48))
TABLE = f"t[12,4] = Reshape({{{NUMBERS}}}, {{12, 4}})\n"
ROWS = f"{PLACES}{TABLE} e[time,4] = Gather(t, r)\n"
COLUMN = f"{PLACES} u[time,1] = Unsqueeze(f, {{1}})\n"

POSITIONS = {
    "numbers": f"{COLUMN} y = Add(x, u)",
    "numbers from the other side": f"{COLUMN} y = Sub(u, x)",
    "from another one on, in other steps": f"{X} a:i[] = Mul(m, #3)\n b:i[] = Add(a, #2)\n r:i[time] = Range(#2, b, #3)\n"
    " f[time] = Cast<to = 1>(r)\n u[time,1] = Unsqueeze(f, {1})\n y = Mul(x, u)",
    "backward": f"{X} a:i[] = Mul(m, #-2)\n r:i[time] = Range(#0, a, #-2)\n f[time] = Cast<to = 1>(r)\n"
    " u[time,1] = Unsqueeze(f, {1})\n y = Add(x, u)",
    "of floats": f"{X} g[] = Cast<to = 1>(m)\n f[time] = Range(#0.0, g, #1.0)\n u[time,1] = Unsqueeze(f, {{1}})\n"
    " y = Add(x, u)",
    "of floats, by halves": f"{X} g[] = Cast<to = 1>(m)\n h[] = Mul(g, #0.5)\n k[] = Add(h, #1.0)\n"
    " f[time] = Range(#1.0, k, #0.5)\n u[time,1] = Unsqueeze(f, {1})\n y = Add(x, u)",
    "looked up": f"{ROWS} y = Add(x, e)",
    "looked up, with a row": f"{ROWS} a[1,time,4] = Unsqueeze(e, {{0}})\n y = Mul(a, x)",
    "looked up further on": f"{PLACES}{TABLE} q:i[time] = Add(r, #2)\n e[time,4] = Gather(t, q)\n y = Add(x, e)",
    "at most": f"{PLACES}{TABLE} q:i[time] = Min(r, #5)\n e[time,4] = Gather(t, q)\n y = Add(x, e)",
    "with an input left out": f"{COLUMN} c[time,1] = Clip(u, , #3.0)\n y = Add(x, c)",
    "first rows": f"{X}{TABLE} e[time,4] = Slice(t, {{0}}, n, {{0}})\n y = Add(x, e)",
    "first rows, step by step": f"{X}{TABLE} e[time,4] = Slice(t, {{0}}, n, {{0}}, {{1}})\n y = Add(x, e)",
    "first rows of one of several axes": f"{X}{TABLE} v[1,12,4] = Unsqueeze(t, {{0}})\n"
    " e[1,time,4] = Slice(v, {0}, n, {1})\n"
    " y = Add(x, e)",
    "where": f"{COLUMN} c:b[time,1] = Less(u, #4.0)\n z[batch,time,4] = Neg(x)\n y = Where(c, x, z)",
    "spread": f"{ROWS} s:i[3] = Shape(x)\n b[batch,time,4] = Expand(e, s)\n y = Add(x, b)",
    "repeated": f"{ROWS} a[1,time,4] = Unsqueeze(e, {{0}})\n s:i[1] = Shape<end = 1>(x)\n"
    " w:i[3] = Concat<axis = 0>(s, {1, 1})\n"
    " b[batch,time,4] = Tile(a, w)\n y = Add(x, b)",
    "in another shape": f"{ROWS} w:i[3] = Concat<axis = 0>(n, {{2, 2}})\n a[time,2,2] = Reshape(e, w)\n"
    " b[time,2] = ReduceSum<keepdims = 0>(a, {2})\n c[time,4] = Concat<axis = 1>(b, b)\n y = Add(x, c)",
    "in the shape of others": f"{ROWS} w:i[2] = Shape<start = 1>(x)\n a[time,4] = Reshape(e, w)\n y = Add(x, a)",
    "in its own shape": f"{ROWS} w:i[2] = Shape(e)\n a[time,4] = Reshape(e, w)\n y = Add(x, a)",
    "by one of its sizes": f"{ROWS} w:i[2] = Shape(e)\n q:i[1] = Gather(w, {{1}})\n v:i[2] = Concat<axis = 0>({{-1}}, q)\n"
    " a[time,4] = Reshape(e, v)\n y = Add(x, a)",
    "by the last of its sizes": f"{ROWS} w:i[2] = Shape(e)\n q:i[] = Gather(w, #-1)\n p:i[1] = Unsqueeze(q, {{0}})\n"
    " v:i[2] = Concat<axis = 0>({-1}, p)\n a[time,4] = Reshape(e, v)\n y = Add(x, a)",
    "by a size of all": f"{ROWS} w:i[3] = Shape(x)\n q:i[] = Gather(w, #2)\n p:i[1] = Unsqueeze(q, {{0}})\n"
    " v:i[2] = Concat<axis = 0>({-1}, p)\n a[time,4] = Reshape(e, v)\n y = Add(x, a)",
    "by a size of all, as it is": f"{ROWS} w:i[3] = Shape(x)\n q:i[1] = Gather(w, {{2}})\n"
    " v:i[2] = Concat<axis = 0>({-1}, q)\n"
    " a[time,4] = Reshape(e, v)\n y = Add(x, a)",
    "by the number of its rows": f"{ROWS} w:i[2] = Shape(e)\n q:i[1] = Gather(w, {{0}})\n v:i[2] = Concat<axis = 0>(q, {{4}})\n"
    " a[time,4] = Reshape(e, v)\n y = Add(x, a)",
    "filled up": f"{PLACES} w:i[1] = Shape(r)\n o[time] = Expand(#2.0, w)\n a[time] = Mul(o, f)\n"
    " u[time,1] = Unsqueeze(a, {1})\n"
    " y = Add(x, u)",
    "twice": f"{COLUMN} z[batch,time,4] = Add(x, u)\n v[time,1] = Mul(u, u)\n a[batch,time,4] = Mul(z, v)\n y = Sub(a, u)",
    "read late and, changed, early": f"{COLUMN} v[time,1] = Neg(u)\n z[batch,time,4] = Mul(x, v)\n y = Add(z, u)",
    "of a weight": f"{COLUMN} k[1,4] = Reshape({{1.0, 2.0, 3.0, 4.0}}, {{1, 4}})\n a[time,4] = MatMul(u, k)\n y = Add(x, a)",
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_places_go_on(kind: str) -> None:
    states = streams(POSITIONS[kind])
    assert shapes(states) == {"steps": ("batch", 1)} and states.one_length
    assert states.specs[0].dtype == "int64" and states.specs[0].initial is None


def test_copies_are_known_as_what_they_are_copies_of() -> None:
    made, _ = carried(POSITIONS["looked up further on"])
    reader = next(node for node in made.graph if node.outputs[0].name == "y")
    laid = reader.inputs[1]
    assert laid is not None and laid.dtype == ir.DataType.FLOAT and laid.shape == ir.Shape(["batch", "time", 4])
    kinds = [node.op_type for node in made.graph]
    assert kinds.count("Mul") == 0 and kinds.count("Add") == 5, "from nought on, one by one: no more is done to places"
    copy = laid.producer().inputs[0]  # type: ignore[union-attr]
    assert copy is not None and copy.dtype == ir.DataType.FLOAT
    index = copy.producer().inputs[1]  # type: ignore[union-attr]
    assert index is not None and index.dtype == ir.DataType.INT64


@pytest.mark.parametrize(
    ("x", "places"),
    [
        ("time,batch,4", "time,1,4"),
        ("batch,4,time", "4,time"),
        ("batch,time", "time"),
        ("batch,3,time,4", "3,time,1"),
        ("batch,time,3,4", "time,1,4"),
        ("3,time,4,batch", "1,time,4,1"),
        ("4,batch,time", "4,1,time"),
    ],
)
def test_batch_and_time_lie_anywhere(x: str, places: str) -> None:
    axis = x.split(",").index("time")
    others = [int(size) for size in places.split(",") if size != "time"]
    count = 1
    for size in others:
        count *= size
    table = ", ".join(str(float(number % 17 - 5)) for number in range(12 * count))
    order = [0] * (len(others) + 1)
    at = places.split(",").index("time")
    order = [*range(1, at + 1), 0, *range(at + 1, len(others) + 1)]
    text = f"""x[{x}] -> y[{x}]
        n:i[] = Squeeze(k)
        r:i[time] = Range(#0, n, #1)
        t[{",".join(map(str, [12, *others]))}] = Reshape({{{table}}}, {{{", ".join(map(str, [12, *others]))}}})
        g[{",".join(["time", *map(str, others)])}] = Gather<axis = 0>(t, r)
        e[{places}] = Transpose<perm = {order}>(g)
        y = Add(x, e)""".replace("Squeeze(k)", "Squeeze(s)")
    text = text.replace("n:i[]", f"s:i[1] = Shape<start = {axis}, end = {axis + 1}>(x)\n n:i[]")
    assert shapes(streams(text)) == {"steps": ("batch", 1)}


UNKNOWN = {
    "of the number of steps": f"{COLUMN} g[] = Cast<to = 1>(m)\n a[time,1] = Div(u, g)\n y = Add(x, a)",
    "from the end": f"{PLACES}{TABLE} a:i[] = Sub(m, #1)\n q:i[time] = Sub(a, r)\n e[time,4] = Gather(t, q)\n y = Add(x, e)",
    "by a size that is computed": f"{ROWS} d:i[1] = Mul(n, {{2}})\n w:i[2] = Concat<axis = 0>(d, {{2}})\n v = Reshape(e, w)\n"
    " a[time,4] = Reshape(v, {-1, 4})\n y = Add(x, a)",
    "by sizes with the batch": f"{ROWS} s:i[3] = Shape(x)\n q:i[2] = Slice(s, {{1}}, {{3}}, {{0}})\n"
    " a[time,4] = Reshape(e, q)\n"
    " y = Add(x, a)",
    "by a node of others": f"{COLUMN} a[time,1] = other.Neg(u)\n y = Add(x, a)",
    "by a node of two results": f"{ROWS} a[time,2], b[time,2] = Split<axis = 1, num_outputs = 2>(e)\n"
    " c[time,4] = Concat<axis = 1>(b, a)\n y = Add(x, c)",
    "of a fixed batch": f"{ROWS} a[1,time,4] = Unsqueeze(e, {{0}})\n b[2,time,4] = Concat<axis = 0>(a, a)\n y = Add(x, b)",
    "repeated along another axis": f"{COLUMN} a[1,time,1] = Unsqueeze(u, {{0}})\n s:i[1] = Shape<end = 1>(x)\n"
    " w:i[3] = Concat<axis = 0>(s, {1, 4})\n b[batch,time,4] = Tile(a, w)\n y = Add(x, b)",
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_nobody_knows_at_other_places_stays_as_it_is(kind: str) -> None:
    made, states = carried(UNKNOWN[kind])
    assert not states.one_length
    (reader,) = [node for node in made.graph if node.outputs[0].name == "y"]
    (as_it_was,) = [node for node in model(UNKNOWN[kind]).graph if node.outputs[0].name == "y"]
    assert [v.name for v in reader.inputs if v] == [v.name for v in as_it_was.inputs if v]
    assert set(shapes(states)) <= {"steps"}


def test_what_is_known_is_carried_beside_what_is_not() -> None:
    """Both are made of the same rows, of which a copy was begun for the one that failed."""
    text = f"""{ROWS.replace("y[batch,time,4]", "y[batch,time,4], z[batch,time,4]", 1)} g[] = Cast<to = 1>(m)
        v[time,4] = Div(e, g)
        a[time,4] = Add(e, v)
        y = Add(x, a)
        z = Add(x, e)"""
    made, states = carried(text)
    assert states.one_length
    whole = model(text)
    for graph in (made.graph, whole.graph):  # y follows the number of steps
        graph.outputs.remove(next(v for v in graph.outputs if v.name == "y"))
        graph.remove([node for node in graph if node.outputs[0].name == "y"])
    same_in_chunks(whole, made, states.specs)


ALONE = {
    "of what comes in": "x[batch,time,4] -> y[batch,time,4]\n f[1] = ReduceMax<keepdims = 0>(x, {0, 1})\n"
    " v[] = ReduceMax<keepdims = 0>(x)\n r[time] = Range(#0.0, v, #1.0)\n u[time,1] = Unsqueeze(r, {1})\n y = Add(x, u)",
    "from what is computed on": f"{X} r:i[time] = Range(m, m, #1)\n f[time] = Cast<to = 1>(r)\n"
    " u[time,1] = Unsqueeze(f, {1})\n"
    " y = Add(x, u)",
    "in steps that are computed": f"{X} r:i[time] = Range(#0, m, m)\n f[time] = Cast<to = 1>(r)\n"
    " u[time,1] = Unsqueeze(f, {1})\n"
    " y = Add(x, u)",
    "of rows of the batch": "x[batch,time,4] -> y[batch,time,4]\n n:i[1] = Shape<start = 0, end = 1>(x)\n m:i[] = Squeeze(n)\n"
    " r:i[batch] = Range(#0, m, #1)\n f[batch] = Cast<to = 1>(r)\n u[batch,1,1] = Unsqueeze(f, {1, 2})\n y = Add(x, u)",
    "one more": f"{X} a:i[] = Add(m, #1)\n r:i[time+1] = Range(#0, a, #1)\n f[time+1] = Cast<to = 1>(r)\n"
    " u[time+1,1] = Unsqueeze(f, {1})\n y[batch,time+1,4] = other.Put(x, u)".replace("y[batch,time+1,4] =", "y ="),
    "rows from the second on": f"{X}{TABLE} o:i[1] = Add(n, {{1}})\n e[time,4] = Slice(t, {{1}}, o, {{0}})\n y = Add(x, e)",
    "every second row": f"{X}{TABLE} o:i[1] = Mul(n, {{2}})\n e[time,4] = Slice(t, {{0}}, o, {{0}}, {{2}})\n y = Add(x, e)",
    "rows along an axis of an input": "x[batch,time,4], a:i[1] -> y[batch,time,4]\n n:i[1] = Shape<start = 1, end = 2>(x)\n"
    f" {TABLE} e[time,4] = Slice(t, {{0}}, n, a)\n y = Add(x, e)",
    "rows of what comes in": "x[batch,time,4], t[rows,4] -> y[batch,time,4]\n n:i[1] = Shape<start = 1, end = 2>(x)\n"
    " e[time,4] = Slice(t, {0}, n, {0})\n y = Add(x, e)",
    "where nothing meets": f"{COLUMN} a[batch,time,4] = other.Put(x, u)\n y = Neg(a)",
}


@pytest.mark.parametrize("kind", ALONE)
def test_what_follows_no_places_is_left_alone(kind: str) -> None:
    left_alone(ALONE[kind])


# ------------------------------------------------------------------------------------------------------ ends of tables

LOOK = f"{PLACES}{TABLE}"
ENDS: dict[str, tuple[str, int | None]] = {
    "rows of a table": (f"{X}{TABLE} e[time,4] = Slice(t, {{0}}, n, {{0}})\n y = Add(x, e)", 12),
    "columns": (f"{X}{TABLE} v[4,12] = Transpose(t)\n e[4,time] = Slice(v, {{0}}, n, {{1}})\n d[time,4] = Transpose(e)\n"
    " y = Add(x, d)", 12),
    "looked up": (f"{LOOK} e[time,4] = Gather(t, r)\n y = Add(x, e)", 12),
    "looked up along another axis": (f"{LOOK} v[4,12] = Transpose(t)\n e[4,time] = Gather<axis = 1>(v, r)\n"
    " d[time,4] = Transpose(e)\n y = Add(x, d)", 12),
    "of a row": (f"{LOOK} q:i[1,time] = Unsqueeze(r, {{0}})\n e[1,time,4] = Gather(t, q)\n y = Add(x, e)", 12),
    "of every row": (f"{LOOK} s:i[2] = Shape<end = 2>(x)\n q:i[batch,time] = Expand(r, s)\n e[batch,time,4] = Gather(t, q)\n"
    " y = Add(x, e)", 12),
    "two further on": (f"{LOOK} q:i[time] = Add(r, #2)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", 10),
    "backward": (f"{LOOK} q:i[time] = Neg(r)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", 13),
    "at most": (f"{LOOK} q:i[time] = Min(r, #9)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", None),
    "around": (f"{LOOK} q:i[time] = Mod(r, #12)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", None),
    "from the end": (f"{LOOK} q:i[time] = Sub(m, r)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", None),
    "nowhere": (f"{LOOK} q:i[time] = Add(r, #12)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", None),
    "slowly": (f"{LOOK} q:i[time] = Div(r, #7)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", 84),
    "too slowly": (f"{LOOK} q:i[time] = Div(r, #8)\n e[time,4] = Gather(t, q)\n y = Add(x, e)", None),
    "the smaller of two": (f"{LOOK} q:i[time] = Add(r, #3)\n e[time,4] = Gather(t, q)\n a[time,4] = Gather(t, r)\n"
    " b[time,4] = Add(a, e)\n y = Add(x, b)", 9),
    "what comes in": ("x:i[batch,time] -> y[batch,time,4]\n" + TABLE + " y = Gather(t, x)", None),
    "of what comes in": ("x[batch,time,4] -> y[batch,1,4]\n y = Gather<axis = 1>(x, {0})", None),
    "by its number": (f"{LOOK} a[1,4] = Gather(t, {{3}})\n y = Add(x, a)", None),
    "of nobody knows what": (f"{PLACES}{TABLE.replace('t[12,4]', 't')} e[time,4] = Gather(t, r)\n y = Add(x, e)", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
def test_where_a_table_ends(kind: str) -> None:
    text, most = ENDS[kind]
    assert most_steps(model(text)) == most
