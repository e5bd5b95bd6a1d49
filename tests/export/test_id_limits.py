"""No id is looked up that its table does not hold: limits of inputs, and checks in the graph where these cannot tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.id_limits import limit_ids
from rnncore.export.tracing.value_ranges import ValueRanges, operator_name
from rnncore.runtime import InputError
from rnncore.runtime.format.signature import BATCH, TIME, Signature, TensorSpec
from tests.tolerances import bound

ROWS = 11
WINDOW = range(-40, 41)


class Calls(nn.Module):
    """Parts by name, and a forward."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


# ------------------------------------------------------------------------------------- what happens to ids on the way
STEPS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "add": lambda x, n: x + n,
    "add from the left": lambda x, n: n + x,
    "sub": lambda x, n: x - n,
    "from": lambda x, n: n - x,
    "mul": lambda x, n: x * n,
    "neg": lambda x, n: -x,
    "floor": lambda x, n: x // max(abs(n), 1),
    "remainder": lambda x, n: x % max(abs(n), 1),
    "abs": lambda x, n: x.abs(),
    "at least": lambda x, n: x.clamp(min=n),
    "at most": lambda x, n: x.clamp(max=n),
    "clamp": lambda x, n: x.clamp(n, n + 6),
    "maximum": lambda x, n: torch.maximum(x, torch.tensor(n)),
    "unknown": lambda x, n: torch.where(x < n, 0, x),
    "masked": lambda x, n: x.masked_fill(x == n, 1),
    "switched": lambda x, n: x * (x > n),
    "int32": lambda x, n: x.int(),
    "halved": lambda x, n: (x.float() / 2).long(),
    "first column": lambda x, n: x[:, :1],
    "turned": lambda x, n: x.mT.flip(0).unsqueeze(0),
    "joined": lambda x, n: torch.cat([torch.full_like(x, n % ROWS), x], 1),
    "bits": lambda x, n: x & 7,
}
LOOK_UPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "embedding": lambda s, x: s.e(x),
    "bag": lambda s, x: s.b(x.reshape(-1, x.shape[-1])),
    "index_select": lambda s, x: torch.index_select(s.e.weight, 0, x.reshape(-1)),
    "one_hot": lambda s, x: functional.one_hot(x.long(), ROWS).float() @ s.e.weight,
    "gather": lambda s, x: torch.gather(s.row.expand(x.reshape(-1).shape[0], -1), 1, x.reshape(-1, 1).long()),
    "scatter": lambda s, x: (
        torch.zeros(x.reshape(-1).shape[0], ROWS).scatter(1, x.reshape(-1, 1).long(), 1.0) @ s.e.weight
    ),
}


class LikeOnnxruntime(torch.fx.Interpreter):
    """A traced program in which a negative place is read from the end of its table, and one-hot is 0 where nothing fits."""

    def run_node(self, node: torch.fx.Node) -> Any:
        name = operator_name(node) if node.op == "call_function" else ""
        if name not in ("embedding", "embedding_bag", "index_select", "gather", "scatter", "one_hot"):
            return super().run_node(node)
        args = list(self.fetch_args_kwargs_from_env(node)[0])
        kwargs = self.fetch_args_kwargs_from_env(node)[1]
        if name == "one_hot":
            return (args[0].unsqueeze(-1) == torch.arange(args[1])).long()
        at = 1 if name.startswith("embedding") else 2
        size = args[0].shape[0 if at == 1 else args[1]]
        args[at] = torch.where(args[at] < 0, args[at] + size, args[at])
        return node.target(*args, **kwargs)  # type: ignore[operator]


def accepted(run: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor | None:
    try:
        return run(ids)
    except (IndexError, RuntimeError):
        return None


steps = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(-5, 12)), max_size=4)


@settings(deadline=None)
@given(steps, st.lists(st.sampled_from(sorted(LOOK_UPS)), min_size=1, max_size=2), st.data())
def test_what_pytorch_refuses_is_refused_and_what_it_answers_is_answered(
    chain: list[tuple[str, int]], looked_up: list[str], data: st.DataObject
) -> None:
    def run(parts: Any, ids: Tensor) -> Tensor:
        for name, number in chain:
            ids = STEPS[name](ids, number)
        return sum(LOOK_UPS[name](parts, ids).sum() for name in looked_up)  # type: ignore[return-value]

    module = Calls(run, e=nn.Embedding(ROWS, 3), b=nn.EmbeddingBag(ROWS + 2, 3), row=nn.Parameter(torch.randn(1, ROWS)))
    program = torch.export.export(module, (torch.zeros(2, 3, dtype=torch.int64),), strict=False)
    limits = limit_ids(program, 1)
    low, high = limits.get(0, (-(2**63), 2**63 - 1))
    flat = [*program.state_dict.values(), *program.constants.values()]
    tensors = {**program.state_dict, **program.constants}
    ordered = [tensors[spec.target] for spec in program.graph_signature.input_specs if spec.target is not None]
    assert len(flat) >= len(ordered)

    def like_onnxruntime(ids: Tensor) -> Tensor:
        return LikeOnnxruntime(program.graph_module).run(*ordered, ids)[0]  # type: ignore[no-any-return]

    for value in data.draw(st.lists(st.sampled_from(WINDOW), min_size=6, max_size=6)):
        ids = torch.full((2, 3), value)
        ids[0, 1] = data.draw(st.sampled_from(WINDOW))
        wanted = accepted(module, ids)
        inside = bool((ids >= low).all() and (ids <= high).all())
        found = accepted(like_onnxruntime, ids) if inside else None
        if wanted is None:
            assert found is None, (chain, looked_up, ids, limits)
        else:  # refused only where another order of the same operators would be
            assert found is not None, (chain, looked_up, ids, limits)
            torch.testing.assert_close(found, wanted)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(-5, 12)), max_size=5),
    st.integers(-30, 10),
    st.integers(0, 30),
)
def test_a_value_is_within_its_range(chain: list[tuple[str, int]], low: int, width: int) -> None:
    def run(_: Any, ids: Tensor) -> Tensor:
        for name, number in chain:
            ids = STEPS[name](ids, number)
        return ids.clone()

    module = Calls(run)
    ids = torch.arange(low, low + width + 1).repeat(2, 1)
    program = torch.export.export(module, (ids,), strict=False)
    nodes = list(program.graph.nodes)
    own = [node for node in nodes if node.op == "placeholder"][-1]
    constants = {
        node: program.constants[spec.target]
        for node, spec in zip(nodes, program.graph_signature.input_specs, strict=False)
        if spec.target in program.constants
    }
    least, most = ValueRanges({own: (low, low + width)}, constants).of(nodes[-1].args[0][0])
    found = module(ids)
    assert least <= int(found.min()) and int(found.max()) <= most


# ------------------------------------------------------------------------------------------------------- whole files
def exported(
    tmp_path: Path, run: Callable[..., Any], *example: Tensor, **parts: Any
) -> tuple[nn.Module, runtime.Model]:
    torch.manual_seed(1)
    parts = {"e": nn.Embedding(30, 6), "r": nn.GRU(6, 8, batch_first=True), **parts}
    module = Calls(run, **parts).eval()
    export(module, tmp_path / "m.onnx", example)
    return module, runtime.load(tmp_path / "m.onnx")


def answers(model: runtime.Model, module: nn.Module, *inputs: np.ndarray) -> None:
    with torch.no_grad():
        wanted = module(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(model.run(*inputs), wanted, atol=bound("float32", "onnx", depth=2, length=9), rtol=0)


def refused_everywhere(model: runtime.Model, good: np.ndarray, bad: np.ndarray) -> None:
    """In every way that ids come in: alone, in lists, chunk by chunk, among other streams, in pools; nobody else notices."""
    wanted = model.run(good[None])[0]
    calls: list[Callable[[], Any]] = [
        lambda: model.run(bad[None]),
        lambda: model.run(np.stack([good, bad])),
        lambda: model.run([good, bad[1:], good]),
        lambda: list(model.run_iter([good, bad])),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"(the|an) id"):
            call()
    where = int(np.flatnonzero(good != bad)[0])
    with model.stream() as stream, model.stream() as other:
        for size in (1, 3):
            for at in range(0, len(good), size):
                if at <= where < at + size:
                    with pytest.raises(InputError, match=r"(the|an) id"):
                        stream.push(bad[at : at + size])
                    for chunks in (
                        [good[at : at + size], bad[at : at + size]],
                        [bad[at : at + size], good[at : at + 1]],
                    ):
                        with pytest.raises(InputError, match=r"(the|an) id"):
                            model.push_many([stream, other], chunks)
                stream.push(good[at : at + size])
            stream.reset()
        assert other.steps == 0
        parts = [stream.push(good[at : at + 1]) for at in range(len(good))]
    np.testing.assert_allclose(
        np.concatenate(parts), wanted, atol=bound("float32", "chunked", depth=2, length=9), rtol=0
    )
    with model.pool() as pool:
        streams = [pool.open() for _ in range(3)]
        answered = [streams[0].submit(good)]
        with pytest.raises(InputError, match=r"(the|an) id"):
            streams[1].submit(bad).result(60)
        answered.append(streams[2].submit(good))
        for future in answered:
            np.testing.assert_allclose(
                future.result(60), wanted, atol=bound("float32", "chunked", depth=2, length=9), rtol=0
            )


def test_moved_ids_have_moved_limits(tmp_path: Path) -> None:
    module, model = exported(tmp_path, lambda s, ids: s.r(s.e(ids + 2))[0], torch.randint(20, (2, 9)))
    port = model.signature.inputs[0]
    assert (port.minimum, port.limit, port.bounds) == (-2, 28, (-2, 27))
    good = np.array([-2, 3, 27, 0, 4])
    answers(model, module, good[None])
    for bad in ([-2, -3, 27, 0, 4], [-2, 3, 28, 0, 4], [-2, 3, 27, 0, 2**40]):
        refused_everywhere(model, good, np.array(bad))
    with pytest.raises(InputError, match=r"holds the id -5 at \[0, 0\], the model knows -2 to 27"):
        model.run(np.array([[-5, 3, 4]]))


def test_padding_is_an_id_that_there_is(tmp_path: Path) -> None:
    """Zeros are none here: 0 - 40 is beyond both ends of the table."""
    module, model = exported(tmp_path, lambda s, ids: s.r(s.e(ids - 40))[0], torch.randint(40, 70, (2, 9)))
    assert model.signature.inputs[0].bounds == (40, 69)
    rows = [np.array([40, 50, 69]), np.array([60]), np.array([41, 42, 43, 44, 45])]
    for found, row in zip(model.run(rows), rows, strict=True):
        with torch.no_grad():
            wanted = module(torch.from_numpy(row[None]))[0].numpy()
        np.testing.assert_allclose(found, wanted, atol=bound("float32", "onnx", depth=2, length=5), rtol=0)
    with model.stream() as one, model.stream() as other:
        both = model.push_many([one, other], [rows[0], rows[2]])
        assert [len(part) for part in both] == [3, 5]
    assert model.run(np.zeros((1, 0), np.int64)).shape == (1, 0, 8)
    padded = np.array([[40, 50, 69], [60, -1, -100]])
    np.testing.assert_array_equal(model.run(padded, lengths=[3, 1])[1, 1:], 0)
    with pytest.raises(InputError, match="holds the id -1"):
        model.run(padded, lengths=[3, 2])
    with pytest.raises(InputError, match="holds the id -1"):
        model.run(padded)


def test_masked_ids_are_checked_in_the_graph(tmp_path: Path) -> None:
    """-100 is taken here, -1 is not: no limit of the input says that."""
    module, model = exported(
        tmp_path, lambda s, ids: s.r(s.e(ids.masked_fill(ids == -100, 0)))[0], torch.randint(20, (2, 9))
    )
    assert model.signature.inputs[0].bounds is None
    good = np.array([-100, 3, 29, 0, -100])
    answers(model, module, good[None])
    for bad in ([-100, -1, 29, 0, 4], [-100, 3, 30, 0, 4], [-100, 3, 29, 0, -101]):
        refused_everywhere(model, good, np.array(bad))
    with pytest.raises(InputError, match="gives an id below 0, the model's table ends at 29"):
        model.run(np.array([[-5, 3, 4]]))


def test_ids_made_of_floats_and_parts_of_inputs_are_checked_in_the_graph(tmp_path: Path) -> None:
    def run(s: Any, x: Tensor, two: Tensor) -> Tensor:
        return s.r(s.e((x[..., 0] * 10).long()) + s.e(two[..., 0]) + s.f(two[..., 1]) * two[..., 1:2])[0]  # type: ignore[no-any-return]

    example = torch.rand(4, 9, 3), torch.randint(5, (4, 9, 2))
    module, model = exported(tmp_path, run, *example, f=nn.Embedding(5, 6))
    x, two = np.random.default_rng(0).random((2, 7, 3), np.float32), np.random.default_rng(1).integers(0, 5, (2, 7, 2))
    answers(model, module, x, two)
    for value in (3.0, -0.2):
        wrong = x.copy()
        wrong[1, 2, 0] = value
        with pytest.raises(InputError, match=r"(the|an) id"):
            model.run(wrong, two)
    for column, value in ((0, -1), (0, 30), (1, 5), (1, -1)):
        odd = two.copy()
        odd[0, 3, column] = value
        with pytest.raises(InputError, match=r"(the|an) id"):
            model.run(x, odd)
    two[..., 0] += 20  # the first table holds them
    answers(model, module, x, two)


def test_the_smaller_of_two_tables_counts(tmp_path: Path) -> None:
    for sizes in ((30, 12), (12, 30)):
        tables = {"a": nn.Embedding(sizes[0], 6), "b": nn.Embedding(sizes[1], 6)}
        _, model = exported(tmp_path, lambda s, ids: s.r(s.a(ids) + s.b(ids))[0], torch.randint(9, (2, 9)), **tables)
        assert model.signature.inputs[0].limit == 12
        refused_everywhere(model, np.array([0, 11, 5]), np.array([0, 12, 5]))


def test_one_hot_of_ids_is_refused_where_pytorch_refuses(tmp_path: Path) -> None:
    def run(s: Any, ids: Tensor) -> Tensor:
        shifted = torch.where(ids == 9, 0, ids)
        return s.r(functional.one_hot(ids + 1, 11).float()[..., :6] + functional.one_hot(shifted, 8).float()[..., :6])[
            0
        ]  # type: ignore[no-any-return]

    module, model = exported(tmp_path, run, torch.randint(8, (2, 9)))
    assert model.signature.inputs[0].bounds == (-1, 9)
    good = np.array([0, 9, 7])
    answers(model, module, good[None])
    for bad in ([0, 9, -1], [0, 9, 8], [0, 10, 7]):
        refused_everywhere(model, good, np.array(bad))


def test_a_plain_look_up_stays_as_it_was(tmp_path: Path) -> None:
    """The graph of ids that are looked up as they come has no check, and its signature no new field."""
    _, model = exported(tmp_path, lambda s, ids: s.r(s.e(ids))[0], torch.randint(20, (2, 9)))
    graph = onnx.load(tmp_path / "m.onnx").graph
    used = [node.op_type for node in graph.node if model.inputs[0] in node.input]
    assert set(used) <= {"Gather", "Shape"} and used.count("Gather") == 1
    port = model.signature.inputs[0]
    assert (port.minimum, port.limit) == (None, 30)
    assert "minimum" not in model.signature.to_json()


def test_a_place_computed_from_lengths_is_not_checked(tmp_path: Path) -> None:
    """``lengths - 1`` of a row without steps points nowhere; nobody is told what it holds."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.p, self.r = nn.Embedding(30, 6), nn.Embedding(50, 6), nn.GRU(6, 8, batch_first=True)

        def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
            return self.r(self.e(ids) + self.p(lengths - 1)[:, None])[0]  # type: ignore[no-any-return]

    torch.manual_seed(1)
    module = Last().eval()
    export(module, tmp_path / "m.onnx", (torch.randint(20, (3, 9)), torch.tensor([9, 4, 7])))
    model = runtime.load(tmp_path / "m.onnx")
    ids = np.arange(14).reshape(2, 7)
    with torch.no_grad():
        wanted = module(torch.from_numpy(ids), torch.tensor([7, 3])).numpy()
    found = model.run(ids, lengths=[7, 3])
    for row, length in enumerate((7, 3)):
        size = {"depth": 2, "length": length}
        np.testing.assert_allclose(
            found[row, :length], wanted[row, :length], atol=bound("float32", "onnx", **size), rtol=0
        )
    assert model.signature.lengths is not None and model.signature.lengths.bounds is None


@given(
    st.sampled_from(["int64", "int32", "uint8", "int16"]),
    st.one_of(st.none(), st.integers(-9, 9)),
    st.one_of(st.none(), st.integers(1, 300)),
)
def test_limits_survive_the_file(dtype: str, minimum: int | None, limit: int | None) -> None:
    port = TensorSpec("ids", dtype, (BATCH, TIME), limit, minimum)
    signature = Signature((port,), (TensorSpec("y", "float32", (BATCH, TIME, 3)),))
    assert Signature.from_json(signature.to_json()) == signature
    assert (port.bounds is None) == (minimum is None and limit is None)
    old = json.loads(signature.to_json())
    for one in old["inputs"]:
        one.pop("minimum", None)
    assert Signature.from_json(json.dumps(old)).inputs[0] == replace(port, minimum=None)
