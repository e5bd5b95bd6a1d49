"""All iterations of a loop at once: what they pick along time, and what comes before and after the recurrent call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.rolling.evaluation import Evaluation, execute, given, listed, take
from rnncore.export.tracing.rolling.log import leaves, mapped
from rnncore.export.tracing.rolling.places import Key, Places
from rnncore.export.tracing.rolling.questions import refusal
from rnncore.export.tracing.rolling.relations import Fixed, ListItem, LoopItem, Number, Same
from rnncore.export.tracing.rolling.spread import PLACED, over_all, placed_over_all
from rnncore.runtime.errors import ExportError

aten = torch.ops.aten
_LISTS = (aten.cat.default, aten.stack.default)
_RANGES = (aten.arange.start, aten.arange.start_step)
_BY_VALUE = (aten.index.Tensor, aten.masked_select.default, aten.nonzero.default)  # the first by a mask
_BY_ROWS = (
    "convolution",
    "native_batch_norm",
    "native_batch_norm_legit_no_training",
    "max_pool2d_with_indices",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "pixel_shuffle",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "reflection_pad2d",
    "replication_pad2d",
)
"""Layers of images, row by row: under vmap torch takes the numbers of rows and of iterations of some of them for constants."""


class AllAtOnce:
    """Places of a loop in one evaluation, for its ``turns`` iterations together.

    reverse: the last iteration stands first along the axis in front.  fixed: what is the same in every iteration.
    along: what changes, [turns, ...] each.
    """

    def __init__(
        self, places: Places, evaluation: Evaluation, turns: Any, fixed: Mapping[Key, Any], *, reverse: bool
    ) -> None:
        self._places, self._evaluation, self._turns = places, evaluation, turns
        self._fixed, self._reverse = fixed, reverse
        self.along: dict[Key, Tensor] = {}
        self._read_items()

    def _read_items(self) -> None:
        along, evaluation = self.along, self._evaluation
        for place in self._places.plan.before:
            if self._places.is_item(place):
                along[place, 0] = self._item(place)
        for relation in self._places.moving(
            [*self._places.plan.before, *self._places.plan.core, *self._places.plan.after]
        ):
            index = Number(relation.start, relation.step)
            if isinstance(relation, LoopItem):
                values, backward = evaluation.loop(relation.loop, relation.place, relation.part)
                if backward:
                    end = self._places.program.blocks[relation.loop].count(evaluation.sizes) - 1
                    index = Number(given(end - relation.start(evaluation.sizes)), -relation.step)
                along[relation] = take(values, 0, index, self._turns, evaluation.sizes, ordered=True)
                if self._reverse:
                    along[relation] = along[relation].flip(0)
            else:
                along[relation] = self._list_item(relation, index)

    def _item(self, place: int) -> Tensor:
        statement = self._places.statement(place)
        dim, index = self._places.index(place)
        base = self._places.lookup(self._evaluation, self._fixed)(statement.arguments[0][0])
        dim = dim % base.dim()
        if statement.op.target is aten.select.int:
            return self._take(base, dim, index)
        width = statement.op.shapes[0][dim]
        picked = [
            self._take(base, dim, Number(given(index.start(self._evaluation.sizes) + k), index.step))
            for k in range(width)
        ]
        return picked[0].unsqueeze(dim + 1) if width == 1 else torch.stack(picked, dim + 1)

    def _take(self, value: Tensor, dim: int, index: Number) -> Tensor:
        return take(value, dim, index, self._turns, self._evaluation.sizes, ordered=not self._reverse)

    def _list_item(self, relation: ListItem, index: Number) -> Tensor:
        statement = self._places.program.statements[relation.op]
        args: list[Any] = [self._evaluation.value(v) for v in statement.arguments[0]]
        if statement.op.target is aten.unbind.int:
            dim = (args[1] if len(args) > 1 else 0) % args[0].dim()
            return self._take(args[0], dim, index)
        if statement.op.target is aten.split.Tensor and isinstance(args[1], int):
            dim = (args[2] if len(args) > 2 else 0) % args[0].dim()
            pieces = args[0].unflatten(dim, (-1, args[1])) if args[1] > 1 else args[0].unsqueeze(dim + 1)
            return self._take(pieces, dim, index)
        raise ExportError(f"a loop over time cannot be rolled: it goes through the results of {statement.op.target}")

    def run(self, places: Sequence[int]) -> None:
        """Run ``places`` for all iterations: what they give is put in :attr:`along`."""
        for n, place in enumerate(places):
            # Under vmap torch takes the sizes of these for constants.
            target, rows = self._places.statement(place).op.target, self._rows_along(place, places[:n])
            moves = target in _RANGES and self._moves_along(place)
            if target in _LISTS or target in PLACED or moves or rows is not None:
                self.run(places[:n])
                if target in _LISTS:
                    self.along[place, 0] = self._joined_at_once(place)
                elif moves:
                    self.along[place, 0] = self._range_at_once(place)
                elif target in PLACED:
                    self.along[place, 0] = self._placed_at_once(place)
                else:
                    self._rows_at_once(place, rows)
                places = places[n + 1 :]
                self.run(places)
                return
        if not places:
            return
        along, own = self.along, set(places)
        keys = self._places.keys_read(places, {p[0] for p in along if isinstance(p, tuple)} - own)
        for key in keys:
            if isinstance(key, Number):
                along[key] = self.numbers(key)
        wanted = [
            (p, part)
            for p in places
            for part in range(len(self._places.statement(p).op.shapes))
            if self._places.is_read((p, part), own)
        ]

        def step(*values: Tensor) -> tuple[Tensor, ...]:
            known = {**self._fixed, **dict(zip(keys, values, strict=True))}
            self._places.interpret(places, self._evaluation, known)
            return tuple(known[key] for key in wanted)

        spread = self._spread(places, {**self._fixed, **{key: along[key] for key in keys}}, set(keys))
        if all(key in spread for key in wanted):
            along.update((key, spread[key]) for key in wanted)
        else:
            try:
                answers = torch.vmap(step)(*(along[key] for key in keys))
            except RuntimeError as error:
                ops = [self._places.statement(place).op for place in places]
                reads = next((op for op in ops if op.target in _BY_VALUE), None)
                if "dynamic shape" not in str(error) or reads is None:
                    raise
                raise refusal(aten.nonzero.default, reads.lines) from error
            along.update(zip(wanted, answers, strict=True))

    def _spread(self, places: Sequence[int], known: dict[Key, Any], moving: set[Key]) -> dict[Key, Tensor]:
        """What ``places`` give in all iterations, as far as :func:`over_all` knows; ``moving``: what of ``known`` does."""

        def moves(relation: Any) -> bool:
            return ((relation.place, relation.part) if isinstance(relation, Same) else relation) in moving

        found: dict[Key, Tensor] = {}
        for place in places:
            statement = self._places.statement(place)
            args, named = listed(mapped(statement.arguments, self._places.lookup(self._evaluation, known)))
            flags = [any(moves(relation) for relation in leaves(argument)) for argument in statement.arguments[0]]
            if any(moves(relation) for relation in leaves(statement.arguments[1])):
                return {}
            args, named = statement.op.with_arguments((args, named))
            result = over_all(statement.op.target, args, named, flags)
            if not isinstance(result, Tensor) or statement.op.several or result.dtype != statement.op.dtypes[0]:
                return {}
            known[place, 0] = found[place, 0] = result
            moving.add((place, 0))
        return found

    def _joined_at_once(self, place: int) -> Tensor:
        """``cat`` or ``stack`` of one iteration for all of them."""
        statement = self._places.statement(place)
        entries, *rest = statement.arguments[0]
        dim = int(self._evaluation.value(rest[0].value)) if rest else 0
        found = []
        for relation in entries:
            key = (relation.place, relation.part) if isinstance(relation, Same) else relation
            if key in self.along:
                found.append(self.along[key])
            else:
                value = self._places.lookup(self._evaluation, self._fixed)(relation)
                found.append(value.unsqueeze(0).expand(self._turns, *value.shape))
        return statement.op.target(found, dim + 1 if dim >= 0 else dim)

    def _moves_along(self, place: int) -> bool:
        """Whether a range of numbers is that of the step before, moved on: ``torch.arange(t, t + n)``."""
        start, end, *step = self._places.statement(place).arguments[0]
        ends = isinstance(start, Number) and isinstance(end, Number) and start.step == end.step
        return ends and isinstance(start.step, int) and all(isinstance(r, Fixed) and r.value == 1 for r in step)

    def _range_at_once(self, place: int) -> Tensor:
        statement = self._places.statement(place)
        start, end, *_ = statement.arguments[0]
        length = end.start(self._evaluation.sizes) - start.start(self._evaluation.sizes)
        first = self.numbers(start).to(statement.op.dtypes[0])
        return first.unsqueeze(1) + torch.arange(length, dtype=statement.op.dtypes[0])

    def _placed_at_once(self, place: int) -> Tensor:
        """``scatter`` or ``gather`` of one iteration for all of them."""
        statement = self._places.statement(place)
        lookup = self._places.lookup(self._evaluation, {**self._fixed, **self.along})
        args, named = listed(mapped(statement.arguments, lookup))
        args, _ = statement.op.with_arguments((args, named))
        keys = [(r.place, r.part) if isinstance(r, Same) else r for r in statement.arguments[0]]
        return placed_over_all(statement.op.target, args, [key in self.along for key in keys], self._turns)

    def _rows_along(self, place: int, before: Sequence[int]) -> Key | None:
        """What a layer of images, or a layer norm, reads, if that is its only argument that differs between iterations."""
        op = self._places.statement(place).op
        over_last = op.target is aten.native_layer_norm.default
        if op.name.lstrip("_") not in _BY_ROWS and not over_last:
            return None
        own = {(r.place, r.part) if isinstance(r, Same) else r for r in self._places.plan.relations(place)}
        differ = [k for k in own if k in self.along or (isinstance(k, tuple) and k[0] in before)]
        first = self._places.statement(place).arguments[0][0]
        key = (first.place, first.part) if isinstance(first, Same) else first
        return key if differ == [key] and (len(op.shapes[0]) > 2 or over_last) else None

    def _rows_at_once(self, place: int, key: Key) -> None:
        """A layer of images on all iterations, as more rows; a layer norm on all of them."""
        images = self.along[key]
        if self._places.statement(place).op.target is aten.native_layer_norm.default:  # it looks at the last axes only
            lookup = self._places.lookup(self._evaluation, {**self._fixed, key: images})
            self.along.update({(place, i): v for i, v in enumerate(execute(self._places.statement(place), lookup))})
            return
        lookup = self._places.lookup(self._evaluation, {**self._fixed, key: images.flatten(0, 1)})
        for part, value in enumerate(execute(self._places.statement(place), lookup)):
            if isinstance(value, Tensor) and value.dim() > 2:  # not the statistics that a normalisation gives beside
                self.along[place, part] = value.unflatten(0, images.shape[:2])

    def numbers(self, number: Number) -> Tensor:
        """A number of every iteration."""
        steps = torch.arange(self._turns)
        if self._reverse:
            steps = steps.flip(0)
        return steps * number.step + number.start(self._evaluation.sizes)
