"""Operations on all iterations at once give what ``torch.vmap`` gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rnncore.export.tracing.rolling.spread import over_all, placed_over_all

aten = torch.ops.aten
TURNS = 4


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


ALONG = {"row": drawn(TURNS, 3), "rows": drawn(TURNS, 2, 3), "matrices": drawn(TURNS, 2, 3, 5)}
FIXED = {"bias": drawn(3), "weight": drawn(3, 6), "batch": drawn(2, 5, 3), "long": drawn(6), "batch rows": drawn(2, 1)}
CASES: list[tuple[Any, list[Any]]] = [
    (aten.mul.Tensor, ["row", "rows"]),
    (aten.add.Tensor, ["rows", "bias"]),
    (aten.sub.Tensor, ["bias", "row"]),
    (aten.where.self, ["mask", "rows", "row"]),
    (aten.div.Tensor, ["rows", "batch rows"]),
    (aten.tanh.default, ["matrices"]),
    (aten.mm.default, ["rows", "weight"]),
    (aten.addmm.default, ["long", "rows", "weight"]),
    (aten.bmm.default, ["batch", "matrices"]),
    (aten.bmm.default, ["matrices", "batch"]),
    *[(target, ["matrices", dim]) for target in (aten.unsqueeze.default, aten.squeeze.dim) for dim in (0, -1, 2)],
    *[(aten.select.int, ["matrices", dim, 1]) for dim in (0, -2)],
    (aten.slice.Tensor, ["matrices", 1, 0, 2]),
    (aten._softmax.default, ["rows", -1, False]),
    (aten._softmax.default, ["rows", 0, False]),
    (aten.sum.dim_IntList, ["matrices", [0, -1], True]),
    (aten.mean.dim, ["matrices", [1]]),
    (aten.transpose.int, ["matrices", 0, -1]),
    (aten.t.default, ["rows"]),
    (aten.permute.default, ["matrices", [2, 0, -2]]),
    (aten.expand.default, ["row", [7, 2, -1]]),
    (aten.view.default, ["matrices", [6, 5]]),
    (aten.reshape.default, ["matrices", [2, 15]]),
    (aten.clone.default, ["rows"]),
]


@pytest.mark.parametrize(("target", "names"), CASES, ids=lambda value: str(value))
def test_plain_operations_are_those_of_vmap(target: Any, names: list[Any]) -> None:
    values = {**ALONG, **FIXED, "mask": ALONG["rows"] > 0}
    args = [values[name] if isinstance(name, str) else name for name in names]
    moves = [isinstance(name, str) and name not in FIXED for name in names]
    got = over_all(target, args, {}, moves)
    assert got is not None
    axes = tuple(0 if own else None for own in moves)
    tensors = [value for value in args if isinstance(value, Tensor)]

    def one(*own: Tensor) -> Tensor:
        at = iter(own)
        return target(*(next(at) if isinstance(value, Tensor) else value for value in args))

    wanted = torch.vmap(one, in_dims=axes[: len(tensors)])(*tensors)
    torch.testing.assert_close(got, wanted)
    assert got.dtype == wanted.dtype


PLACES = torch.tensor([[[0], [2]], [[1], [0]], [[2], [2]], [[0], [1]]])  # [turns, 2, 1]


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (aten.scatter.value, [torch.zeros(2, 3), 1, PLACES, 1.0]),
        (aten.scatter.value, [ALONG["rows"], -1, PLACES[0], 7.0]),
        (aten.scatter.src, [torch.zeros(2, 3), -1, PLACES, ALONG["rows"]]),
        (aten.gather.default, [ALONG["rows"], 1, PLACES]),
        (aten.gather.default, [drawn(2, 3), -1, PLACES]),
    ],
)
def test_operations_at_places_are_those_of_vmap(target: Any, args: list[Any]) -> None:
    moves = [isinstance(value, Tensor) and value.dim() == 3 for value in args]
    got = placed_over_all(target, args, moves, TURNS)
    wanted = [target(*(v[t] if own else v for v, own in zip(args, moves, strict=True))) for t in range(TURNS)]
    torch.testing.assert_close(got, torch.stack(wanted), rtol=0, atol=0)


def test_what_is_not_known_is_left_to_vmap() -> None:
    rows, numbers = ALONG["rows"], drawn(TURNS)
    assert over_all(aten.cumsum.default, [rows, 0], {}, [True, False]) is None
    assert over_all(aten.add.Tensor, [rows, numbers], {}, [True, True]) is None
    assert over_all(aten.view.default, [rows, [-1]], {}, [True, False]) is None
    assert over_all(aten.mm.default, [FIXED["weight"], FIXED["weight"]], {}, [False, False]) is None
