"""The same program over several sizes: which operations stand outside of loops, where loops are, how often they turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rnncore.export.tracing.rolling.fitting import Formula, fit
from rnncore.export.tracing.rolling.log import Log, Op, Ref, leaves
from rnncore.export.tracing.rolling.optional_resizes import resized_everywhere
from rnncore.export.tracing.rolling.relations import Carried, Inside, Outside, relate
from rnncore.runtime.errors import ExportError

_FEWEST = 3  # iterations at the smallest size, for a loop to be believed
_MOST_WASTED = 300_000
"""Relations of arguments that are looked at for blocks that are no loops, some ten seconds; then there is none."""
_FEWEST_FIXED = 8  # iterations of a loop whose number does not follow a size
_SCATTERS = ("aten.select_scatter.default", "aten.slice_scatter.default")
_VIEWS = (
    *("aten.select.int", "aten.slice.Tensor", "aten.transpose.int", "aten.permute.default", "aten.unsqueeze.default"),
    *("aten.squeeze.dim", "aten.t.default", "aten.view.default", "aten.reshape.default"),
)


@dataclass
class Loop:
    """A loop over a block of operations.

    starts: where it begins in each log.  turns: its number of iterations in each; ``count`` says so at any size.
    ops: those of its first iteration in each log.  relations: of every argument, in the order of ``leaves``, in each log.
    """

    period: int
    starts: list[int]
    turns: list[int]
    count: Formula
    ops: list[list[Op]]
    relations: list[list[list[Any]]]

    @property
    def carried(self) -> set[tuple[int, int]]:
        """Places and parts that are carried."""
        return {(r.place, r.part) for row in self.relations[0] for r in row if isinstance(r, Carried)}


@dataclass
class Aligned:
    """Several logs of one program.

    order: operations outside, as ("op", number), and loops, as ("loop", number), in their order.  outside: the operation
    of each log under each number.
    """

    logs: Sequence[Log]
    outside: list[list[Op]] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    addresses: list[dict[int, tuple[str, int, int, int]]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)

    def address(self, log: int, ref: Ref) -> Inside | Outside:
        """Where a value of a log stands."""
        if ref.op not in self.addresses[log]:  # it follows what has been taken so far, and is no part of a loop
            return Outside(len(self.outside) + ref.op - self.taken[log], ref.part)
        kind, number, place, turn = self.addresses[log][ref.op]
        return Outside(number, ref.part) if kind == "op" else Inside(number, place, turn, ref.part)


def without_unused_views(log: Log) -> Log:
    """The log without views that nothing reads, of tensors that are written in parts or made anew: they are no code of the user.

    A view of what is changed in place (``sums += y``) is made anew where it is read; the first one is left over.
    """
    used: set[int] = {value.op for _, value in log.outputs if isinstance(value, Ref)}
    written: set[int] = set()
    for i, op in enumerate(log.ops):
        if str(op.target) in _SCATTERS:
            written.update([i, *(a.op for a in op.args[:1] if isinstance(a, Ref))])
        elif str(op.target) in _VIEWS and isinstance(op.args[0], Ref) and op.args[0].op in written:
            written.add(i)
    kept = []
    anew: set[tuple[Any, ...]] = set()
    for i in range(len(log.ops) - 1, -1, -1):
        op = log.ops[i]
        is_view = str(op.target) in _VIEWS
        same = (op.target, str(op.args), str(op.kwargs)) if is_view else ()
        if i in used or not (is_view and (same in anew or _root(log, i) & written)):
            kept.append(i)
            used.update(value.op for value in leaves(op.everything) if isinstance(value, Ref))
            anew |= {same} if is_view else set()
    return log.keeping(kept[::-1])


def _root(log: Log, i: int) -> set[int]:
    """The operations that a view is a view of."""
    found = {i}
    while str(log.ops[i].target) in _VIEWS and isinstance(log.ops[i].args[0], Ref):
        i = log.ops[i].args[0].op
        found.add(i)
    return found


class Aligner:
    """Walks through all logs at once.  The first log has the smallest sizes; ``grown`` is one with more time steps."""

    def __init__(self, logs: Sequence[Log], grown: int) -> None:
        self.logs = logs
        self.grown = grown
        self.result = Aligned(logs, addresses=[{} for _ in logs])
        self._related = self._wasted = 0
        self._table: dict[Any, int] = {}
        self._strict = self._kinds()

    def _kinds(self) -> list[torch.Tensor]:
        """A number for each operation, the same for those of one kind."""
        table = self._table
        return [
            torch.tensor([table.setdefault(op.signature(strict=True), len(table)) for op in log.ops])
            for log in self.logs
        ]

    def _with_resizes(self, at: Sequence[int]) -> bool:
        """Put what some logs pad or cut here into all of them; whether there is such a thing."""
        numbers = [{place: i for i, place in addresses.items()} for addresses in self.result.addresses]

        def same(s: int, value: Any, other: int) -> Any:
            if not isinstance(value, Ref):
                return value
            found = numbers[other].get(self.result.addresses[s].get(value.op, ("", 0, 0, 0)))
            return None if found is None else Ref(found, value.part)

        logs = resized_everywhere(self.logs, at, same)
        if logs is None:
            return False
        self.logs = self.result.logs = logs
        self._strict = self._kinds()
        return True

    def run(self) -> Aligned:
        """Align.

        Raises:
            ExportError: the logs differ in more than the numbers of iterations; names the line of code.
        """
        at = [0] * len(self.logs)
        while any(p < len(log.ops) for p, log in zip(at, self.logs, strict=True)):
            self.result.taken = at
            loop = self._find(at)
            if loop is not None:
                at = self._take_loop(loop)
                continue
            ops = [log.ops[p] if p < len(log.ops) else None for p, log in zip(at, self.logs, strict=True)]
            if any(op is None for op in ops) or len({op.signature(strict=False) for op in ops if op is not None}) > 1:
                if self._with_resizes(at):
                    continue
                raise ExportError(self._differ([op for op in ops if op is not None]))
            self._take_outside(at)
            at = [p + 1 for p in at]
        return self.result

    def _take_outside(self, at: Sequence[int]) -> None:
        number = len(self.result.outside)
        self.result.outside.append([log.ops[p] for log, p in zip(self.logs, at, strict=True)])
        self.result.order.append(("op", number))
        for addresses, p in zip(self.result.addresses, at, strict=True):
            addresses[p] = ("op", number, 0, 0)

    def _differ(self, ops: Sequence[Op]) -> str:
        lines = list(dict.fromkeys(str(op.lines[-1]) for op in ops if op.lines))
        what = "a loop over time whose iterations differ in more than their place, or code that depends on the number of steps"
        return (
            f"{what}, cannot be rolled into one loop; of `if t % 3 == 0:`, compute it in every step and choose: "
            "torch.where(torch.tensor(t) % 3 == 0, new, old):\n  " + "\n  ".join(lines[:2])
        )

    def _take_loop(self, loop: Loop) -> list[int]:
        number = len(self.result.loops)
        self.result.loops.append(loop)
        self.result.order.append(("loop", number))
        for addresses, start, turns in zip(self.result.addresses, loop.starts, loop.turns, strict=True):
            for i in range(loop.period * turns):
                addresses[start + i] = ("loop", number, i % loop.period, i // loop.period)
        return [start + loop.period * turns for start, turns in zip(loop.starts, loop.turns, strict=True)]

    def _find(self, at: Sequence[int]) -> Loop | None:
        """The loop with the shortest block that begins here."""
        if any(p >= len(log.ops) for p, log in zip(at, self.logs, strict=True)):
            return None
        ids, p = self._strict[0], at[0]
        same = (ids[p:] == ids[p]).nonzero().flatten().tolist()[1:]
        for period in same:
            if p + _FEWEST * period > len(ids):
                break
            if not all(
                bool((ids[p : p + period] == ids[p + k * period : p + (k + 1) * period]).all())
                for k in range(1, _FEWEST)
            ):
                continue
            before = self._related
            loop = self._loop(at, period)
            if loop is not None:
                return self._at_its_boundary(loop)
            self._wasted += self._related - before
            if self._wasted > _MOST_WASTED:
                raise ExportError(self._differ([log.ops[p] for log, p in zip(self.logs, at, strict=True)]))
        return None

    def _loop(self, at: Sequence[int], period: int) -> Loop | None:
        turns, relations = [], []
        for s, p in enumerate(at):
            found = self._relations(s, p, period)
            if found is None:
                return None
            turns.append(found[0])
            relations.append(found[1])
        count = fit(turns, [log.sizes for log in self.logs])
        if count is None or turns[0] < _FEWEST:
            return None
        if count.constant and turns[0] < _FEWEST_FIXED:
            return None
        if len({str([[type(r) for r in row] for row in rows]) for rows in relations}) > 1:
            return None
        ops = [log.ops[p : p + period] for log, p in zip(self.logs, at, strict=True)]
        return Loop(period, list(at), turns, count, ops, relations)

    def _relations(self, s: int, p: int, period: int) -> tuple[int, list[list[Any]]] | None:
        """How often the block turns in a log, and the relations of its arguments."""
        ids, ops = self._strict[s], self.logs[s].ops
        if p + 2 * period > len(ids):
            return None
        most = 1
        while p + (most + 1) * period <= len(ids) and bool(
            (ids[p : p + period] == ids[p + most * period : p + (most + 1) * period]).all()
        ):
            most += 1
        if most < 2:
            return None
        rows = []
        for place in range(period):
            columns = zip(*(tuple(leaves(ops[p + k * period + place].everything)) for k in range(most)), strict=False)
            row = []
            for column in columns:
                self._related += most
                relation, n = relate(column, p, period, lambda ref: self.result.address(s, ref))
                most = min(most, n)
                if relation is None or most < 2:
                    return None
                row.append(relation)
            rows.append(row)
        return most, rows

    def _at_its_boundary(self, loop: Loop) -> Loop:
        """The same loop, begun where its code begins: a block may be cut anywhere, as it goes round."""
        s, start = 0, loop.starts[0] + loop.period  # the second iteration: the first may come out of other code
        keys = [tuple(line.offset for line in op.lines) for op in self.logs[s].ops[start : start + loop.period]]

        def jump(r: int) -> tuple[int, int]:
            """How far out, and how far back, the code jumps before place r."""
            before, now = keys[r - 1], keys[r]
            if before and not now:  # back in the loop that the export itself puts around one step
                return (-1, 0)
            for depth, (a, b) in enumerate(zip(before, now, strict=False)):
                if a != b:
                    return (depth, b - a) if b < a else (99, 0)
            return (98, 0) if len(now) < len(before) else (99, 0)

        best, best_key = loop, (jump(0), len(loop.carried))
        for r in range(1, loop.period):
            if jump(r)[0] > best_key[0][0]:
                continue
            other = self._loop([p + r for p in loop.starts], loop.period)
            if other is None or any(b < a - 1 for a, b in zip(loop.turns, other.turns, strict=True)):
                continue
            key = (jump(r), len(other.carried))
            if key < best_key:
                best, best_key = other, key
        for i in range(best.starts[0] - loop.starts[0]):  # what stands before the boundary is no part of the loop
            self._take_outside([p + i for p in loop.starts])
        return best
