"""Limits of ids that are changed on their way to a table: those that tell exactly which ids the table has places for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rnncore.export.tracing.id_limits import limit_ids
from tests.export.fake_graphs import FakeGraph

aten = torch.ops.aten
ROWS = 11
NEAR = range(-60, 60)
Change = Callable[[FakeGraph], Any]


def scalar(name: str, *args: Any, **named: Any) -> Change:
    packet, _, overload = name.partition(".")
    return lambda g: g.add(getattr(getattr(aten, packet), overload), g.ids, *args, **named)


def tensor(name: str, number: int, *, second: bool = False) -> Change:
    """With a tensor of one number everywhere, as the second argument or the first."""

    def change(g: FakeGraph) -> Any:
        other = g.add(aten.full_like.default, g.ids, number)
        packet = getattr(aten, name)
        return g.add(
            packet.Tensor if hasattr(packet, "Tensor") else packet.default,
            *((other, g.ids) if second else (g.ids, other)),
        )

    return change


CHANGES: dict[str, tuple[Change, Callable[[int], int]]] = {
    "as they are": (lambda g: g.ids, lambda i: i),
    "moved up": (scalar("add.Scalar", 3), lambda i: i + 3),
    "moved down": (scalar("sub.Scalar", 3), lambda i: i - 3),
    "from a number": (scalar("rsub.Scalar", 3), lambda i: 3 - i),
    "negative": (scalar("neg.default"), lambda i: -i),
    "twice": (scalar("mul.Scalar", 2), lambda i: 2 * i),
    "minus thrice": (scalar("mul.Scalar", -3), lambda i: -3 * i),
    "tensor": (tensor("add", 4), lambda i: i + 4),
    "a tensor and they": (tensor("add", 4, second=True), lambda i: i + 4),
    "tensor less": (tensor("sub", 4), lambda i: i - 4),
    "a tensor less they": (tensor("sub", 4, second=True), lambda i: 4 - i),
    "a tensor times they": (tensor("mul", 2, second=True), lambda i: 2 * i),
    "halved": (scalar("floor_divide.default", 2), lambda i: i // 2),
    "at least": (scalar("clamp_min.default", 4), lambda i: max(i, 4)),
    "at most": (scalar("clamp_max.default", 4), lambda i: min(i, 4)),
    "larger": (tensor("maximum", 4), lambda i: max(i, 4)),
    "smaller": (tensor("minimum", 4), lambda i: min(i, 4)),
    "least": (scalar("clamp_min.default", 0), lambda i: max(i, 0)),
    "most": (scalar("clamp_max.default", 10), lambda i: min(i, 10)),
    "clamped below": (scalar("clamp.default", 2), lambda i: max(i, 2)),
    "clamped above": (scalar("clamp.default", None, 7), lambda i: min(i, 7)),
    "clamped far above": (scalar("clamp.default", None, 70), lambda i: min(i, 70)),
    "clamped far below": (scalar("clamp.default", -9), lambda i: max(i, -9)),
    "clamped": (scalar("clamp.default", -5, 20), lambda i: min(max(i, -5), 20)),
    "reshaped": (lambda g: g.add(aten.transpose.int, g.add(aten.unsqueeze.default, g.ids, 1), 1, 2), lambda i: i),
    "converted": (scalar("_to_copy.default", dtype=torch.int32), lambda i: i),
    "padded": (scalar("constant_pad_nd.default", [1, 0], 2), lambda i: i),
    "joined": (
        lambda g: g.add(aten.cat.default, [g.ids, g.add(aten.add.Scalar, g.ids, 2)], 1),
        lambda i: i + 2 if i >= 0 else -1,
    ),
    "moved and twice": (lambda g: g.add(aten.mul.Scalar, g.add(aten.add.Scalar, g.ids, 1), 2), lambda i: 2 * (i + 1)),
}


def limits_of(change: Change, rows: int = ROWS) -> tuple[int, int] | None:
    g = FakeGraph()
    table = g.add(aten.new_zeros.default, g.x, [rows, 5])
    g.add(aten.embedding.default, table, change(g))
    found = limit_ids(g.program, 2)
    assert set(found) <= {1}
    return found.get(1)


@pytest.mark.parametrize("name", CHANGES)
def test_limits_are_those_of_the_table(name: str) -> None:
    change, compute = CHANGES[name]
    low, high = limits_of(change) or (-(2**63), 2**63 - 1)
    for i in NEAR:
        assert (low <= i <= high) is (0 <= compute(i) < ROWS), i


OTHERS: tuple[Change, ...] = (
    *(scalar("add.Scalar", 3, alpha=2), scalar("remainder.Scalar", 7), scalar("abs.default"), scalar("mul.Scalar", 0)),
    *(scalar("constant_pad_nd.default", [-1, 0], 2), scalar("clamp_min.default", 40), scalar("clamp.default", 12)),
    *(scalar("clamp.default", 0, 10), scalar("floor_divide.default", -2), lambda g: g.add(aten.argmax.default, g.x, 2)),
)


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_other_changes_tell_no_limits(number: int) -> None:
    assert limits_of(OTHERS[number]) is None


def test_every_look_up_has_its_say() -> None:
    def found(*looks: Callable[[FakeGraph], Any], lengths: int | None = None) -> Any:
        g = FakeGraph()
        for look in looks:
            look(g)
        return limit_ids(g.program, 2, lengths)

    def rows(n: int) -> Callable[[FakeGraph], Any]:
        return lambda g: g.add(aten.embedding.default, g.add(aten.new_zeros.default, g.x, [n, 5]), g.ids)

    assert found(rows(11), rows(7)) == {1: (0, 6)} and found(rows(7), rows(11)) == {1: (0, 6)} and found() == {}
    assert found(rows(11), lengths=1) == {}, "lengths are checked to be lengths"
    flat: Change = lambda g: g.add(aten.reshape.default, g.ids, [-1])  # noqa: E731
    assert found(
        lambda g: g.add(aten.index_select.default, g.add(aten.new_zeros.default, g.x, [9, 4]), 0, flat(g))
    ) == {1: (0, 8)}
    assert found(lambda g: g.add(aten.one_hot.default, g.ids, 6)) == {1: (0, 5)}
    assert (
        found(
            lambda g: g.add(
                aten.gather.default,
                g.add(aten.new_zeros.default, g.x, [3, 5]),
                1,
                g.add(aten.slice.Tensor, g.ids, 0, 0, 3),
            )
        )
        == {}
    )


@pytest.mark.parametrize(("target", "checked"), [("index.Tensor", False), ("embedding.default", True)])
def test_what_counts_from_the_end_as_torch_does_needs_no_check(target: str, checked: bool) -> None:
    g = FakeGraph()
    table, ids = (
        g.add(aten.new_zeros.default, g.x, [9, 4]),
        g.add(aten.sub.Tensor, g.ids, g.add(aten.mul.Tensor, g.ids, g.ids)),
    )
    packet, _, overload = target.partition(".")
    look = getattr(getattr(aten, packet), overload)
    g.add(look, *((g.limits, [ids]) if packet == "index" else (table, ids)))
    before = len(g.program.graph.nodes)
    limit_ids(g.program, 2)
    assert (len(g.program.graph.nodes) > before) is checked
