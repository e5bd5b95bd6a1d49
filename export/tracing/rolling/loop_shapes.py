"""Sizes of what a loop reads, carries and gives, and how they lie side by side in its one input, output and states."""

from __future__ import annotations

from typing import Any

import torch

from rnncore.export.tracing.rolling.cell import Packing
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Log
from rnncore.export.tracing.rolling.places import Key, Places
from rnncore.export.tracing.rolling.relations import Inside, ListItem, LoopItem, Number, Outside
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import BATCH, TIME

_PLAIN_ROWS = Formula(((1, (BATCH,)),))


class LoopShapes:
    """rows: how many the loop has: one for each of the batch, or several, such as both directions of a sequence."""

    def __init__(self, places: Places, log: Log) -> None:
        self._places, self._log = places, log
        self.rows = self._row_count()

    def shape(self, value: Any) -> tuple[tuple[int, ...], tuple[Any, ...], torch.dtype]:
        """Shape in the log, shape as formulas, dtype of a value or a place."""
        if isinstance(value, tuple):
            statement, part = self._places.statement(value[0]), value[1]
        elif isinstance(value, Outside):
            # All entries of a list that a formula picks from have one shape.
            statement, part = (
                self._places.program.statements[value.op],
                value.part if isinstance(value.part, int) else 0,
            )
        elif isinstance(value, Inside):
            statement, part = self._places.program.blocks[value.loop].statements[value.place], value.part
        else:
            shape = self._log.shapes[value]
            return shape, self._places.program.input_shapes.get(value, shape), self._log.dtypes[value]
        return statement.op.shapes[part], statement.shapes[part], statement.op.dtypes[part]

    def _row_count(self) -> Formula:
        formulas = [
            f for place, part, _ in self._places.plan.states for f in self.shape((place, part))[1] if f is not None
        ]
        found = [f for f in formulas if BATCH in f.axes and len(f.terms) == 1 and TIME not in f.axes and f.divisor == 1]
        return _PLAIN_ROWS if _PLAIN_ROWS in found or not found else found[0]

    def packing(self, key: Key, what: str, *, may_be_free: bool = False) -> Packing:
        """How the numbers of ``key`` lie in a row; ``what`` it is, for the error where they do not."""
        if isinstance(key, Number):
            return Packing((), None, torch.int64 if isinstance(key.step, int) else torch.float32)
        if isinstance(key, ListItem):
            statement = self._places.program.statements[key.op]
            formulas, dtype = statement.shapes[0], statement.op.dtypes[0]
        elif isinstance(key, LoopItem):
            statement = self._places.program.blocks[key.loop].statements[key.place]
            formulas, dtype = statement.shapes[key.part], statement.op.dtypes[key.part]
        else:
            _, formulas, dtype = self.shape(key)
        batch = [axis for axis, f in enumerate(formulas) if f is not None and f.terms == self.rows.terms]
        folded = 0
        if not batch:
            batch = [axis for axis, f in enumerate(formulas) if f is not None and self._times_rows(f)]
            folded = self._times_rows(formulas[batch[0]]) if batch else 0  # type: ignore[arg-type]
        others = [f for axis, f in enumerate(formulas) if axis not in batch[:1]]
        if folded:
            others.insert(batch[0], Formula(((folded, ()),)))
        free = tuple((axis, f) for axis, f in enumerate(others) if f is not None and not f.constant)
        if None in others or (free and not may_be_free) or any(BATCH in f.axes for _, f in free):
            raise ExportError(
                f"a loop over time cannot be rolled: {what} has a size that is not the same in every step, or follows an "
                f"axis of the inputs{self._line(key)}"
            )
        shape = tuple(f(self._log.sizes) for f in others if f is not None)
        return Packing(shape, batch[0] if batch else None, dtype, free, folded)

    def _times_rows(self, size: Formula) -> int:
        """How many entries an axis of this ``size`` has for each row, as heads folded into the batch; 0 if it is no multiple."""
        (one, axes), *more = self.rows.terms
        if more or len(size.terms) != 1 or (size.divisor, size.shift) != (self.rows.divisor, self.rows.shift):
            return 0
        factor, own = size.terms[0]
        return int(factor // one) if own == axes and factor > one and factor % one == 0 else 0

    def _line(self, key: Key) -> str:
        """The user's line behind a place, on a line of its own."""
        lines = self._places.statement(key[0]).op.lines[-1:] if isinstance(key, tuple) else ()
        return "".join(f"\n  {line}" for line in lines)
