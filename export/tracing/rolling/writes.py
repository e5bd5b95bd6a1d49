"""Tensors that a loop fills part by part: ``out[:, t] = h`` and growing ``cat`` carry no state, they collect results.

A tensor that is written in every iteration comes, once nothing is done in place any more, as a carried value.  Where it is
only written at a place that moves, and read where it was written, it is no state: what was written is stacked at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from rnncore.export.tracing.rolling.log import Op, leaves, mapped
from rnncore.export.tracing.rolling.merging import Block, Program, Statement
from rnncore.export.tracing.rolling.relations import Carried, Fixed, ListItem, LoopItem, Number, Outside, Same

aten = torch.ops.aten
_SELECT, _SLICE = aten.select_scatter.default, aten.slice_scatter.default


@dataclass(frozen=True)
class StartPart:
    """What a tensor that is written held at first: entry ``index`` along ``dim``, to be read before it is written."""

    value: Any
    dim: int
    index: Any


@dataclass(frozen=True)
class Collected:
    """What a place leaves when the loop is over.

    source: the relation of what is written in each iteration.  start: the tensor before the loop.  dim: along which.
    index: where iteration t writes, None where it is joined on.  wide: whether ``source`` has the axis ``dim`` itself.
    in_front: joined on before what there is.
    """

    source: Any
    start: Any
    dim: int
    index: Number | None
    wide: bool
    in_front: bool = False


def find_collected(block: Block) -> dict[int, Collected]:
    """The places of ``block`` that collect; reads of what was collected become relations to what was written, in place."""
    found: dict[int, Collected] = {}
    for place, statement in enumerate(block.statements):
        collected = _written(block, place) or _joined(block, place)
        if collected is not None:
            found.update(dict.fromkeys(collected[0], collected[1]))
        del statement
    return found


def with_places(program: Program, block: Block, found: dict[int, Collected]) -> dict[int, Collected]:
    """``found`` where what is written is the result of a place: a copy in the block, of what comes from elsewhere.

    That is an entry of a list or of an earlier loop (``for t, h in enumerate(states): out[:, t] = h``), a value from outside, or
    one of the step before.
    """
    changed = {}
    for place, collected in found.items():
        statement = _origin(program, block, collected.source)
        if statement is None:
            continue
        source, part = statement
        op = Op(aten.clone.default, (None,), {}, [source.op.shapes[part]], [source.op.dtypes[part]], False)
        op = replace(op, lines=block.statements[place].op.lines, path=block.statements[place].op.path)
        block.statements.append(Statement(op, ((collected.source,), ()), [source.shapes[part]]))
        changed[place] = replace(collected, source=Same(len(block.statements) - 1, 0))
    return {**found, **changed}


def _origin(program: Program, block: Block, relation: Any) -> tuple[Statement, int] | None:
    """The statement whose result, and which of them, a relation to something else than a place of the same turn is of."""
    match relation:
        case LoopItem():
            return program.blocks[relation.loop].statements[relation.place], relation.part
        case ListItem():
            return program.statements[relation.op], 0
        case Carried():
            return block.statements[relation.place], relation.part
        case Fixed(value=Outside(part=int())):
            return program.statements[relation.value.op], relation.value.part
    return None


def _positional(block: Block, place: int) -> tuple[Any, ...]:
    return block.statements[place].arguments[0]


def _written(block: Block, last: int) -> tuple[list[int], Collected] | None:
    chain = [last]
    while len(chain) <= len(block.statements):
        place = chain[0]
        if block.statements[place].op.target not in (_SELECT, _SLICE):
            return None
        base = _positional(block, place)[0]
        if isinstance(base, Carried):
            break
        if not isinstance(base, Same):
            return None
        chain.insert(0, base.place)
    base = _positional(block, chain[0])[0]
    if not isinstance(base, Carried) or base.place != last or len(base.starts) != 1:
        return None
    where = {_target(block, place) for place in chain}
    if len(where) != 1 or None in where:
        return None
    dim, index, wide = where.pop() or (0, Number(0, 0), False)
    reads = _reads(block, chain, dim, index, wide)
    if reads is None:
        return None
    for (place, position), relation in reads.items():
        _replace(block, place, position, relation)
    return chain, Collected(_positional(block, last)[1], base.starts[0], dim, index, wide)


def _target(block: Block, place: int) -> tuple[int, Number, bool] | None:
    """Along which axis and at which index a place writes."""
    _, _, *rest = _positional(block, place)
    if block.statements[place].op.target is _SELECT:
        dim, index = rest
        return (_plain(dim), index, False) if isinstance(index, Number) else None
    given = dict(enumerate(rest))
    dim, start, end, step = given[0], given.get(1), given.get(2), given.get(3)
    if not isinstance(start, Number) or not isinstance(end, Number) or (step is not None and _plain(step) != 1):
        return None
    return (_plain(dim), start, True) if end.start(_ONE) - start.start(_ONE) == start.step == end.step else None


class _Ones(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 1


_ONE = _Ones()


def _plain(value: Any) -> int:
    return int(value.value(_ONE)) if isinstance(value, Fixed) else int(value)


def _reads(block: Block, chain: list[int], dim: int, index: Number, wide: bool) -> dict[tuple[int, int], Any] | None:
    """What to put in the place of reads of the tensor, by place; None if it is read in another way."""
    found: dict[tuple[int, int], Any] = {}
    for place, statement in enumerate(block.statements):
        for position, relation in enumerate(leaves(statement.arguments)):
            if not isinstance(relation, Same | Carried) or relation.place not in chain:
                continue
            if place in chain and position == 0:
                continue
            known = _read(block, chain, place, relation, (dim, index, wide))
            if position != 0 or known is None:
                return None
            found[place, -1] = known
    return found


def _read(block: Block, chain: list[int], place: int, relation: Any, where: tuple[int, Number, bool]) -> Any:
    dim, index, wide = where
    statement = block.statements[place]
    if statement.op.target is not aten.select.int or wide:
        return None
    _, read_dim, read_index = _positional(block, place)
    if not isinstance(read_index, Number) or _plain(read_dim) != dim or read_index.step != index.step:
        return None
    offset, rest = divmod(index.start(_ONE) - read_index.start(_ONE), index.step)
    if rest or offset < 0:
        return None
    source = _positional(block, relation.place)[1]
    if isinstance(relation, Same) and offset == 0:
        return source
    last = _positional(block, chain[-1])[1]
    if not isinstance(last, Same) or offset == 0:
        return None
    start = _positional(block, chain[0])[0].starts[0]
    starts = tuple(StartPart(start, dim, Number(read_index.start, read_index.step * k)) for k in range(offset))
    return Carried(last.place, last.part, starts)


def _replace(block: Block, place: int, _position: int, relation: Any) -> None:
    """Every use of ``place`` becomes ``relation``, and the place itself a copy of it."""
    for statement in block.statements:
        statement.arguments = mapped(statement.arguments, _moved(place, relation))


def _moved(place: int, relation: Any) -> Callable[[Any], Any]:
    def change(leaf: Any) -> Any:
        return relation if isinstance(leaf, Same) and leaf.place == place else leaf

    return change


def _joined(block: Block, place: int) -> tuple[list[int], Collected] | None:
    if block.statements[place].op.target is not aten.cat.default:
        return None
    entries, *dim = _positional(block, place)
    if len(entries) != 2:
        return None
    own = [isinstance(e, Carried) and e.place == place and len(e.starts) == 1 for e in entries]
    if own.count(True) != 1:
        return None
    uses = [
        r for s in block.statements for r in leaves(s.arguments) if isinstance(r, Same | Carried) and r.place == place
    ]
    if len(uses) != 1:
        return None
    base, source = entries if own[0] else entries[::-1]
    return [place], Collected(source, base.starts[0], _plain(dim[0]) if dim else 0, None, True, in_front=own[1])
