"""A module recorded at sizes that tell what follows which of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.full_rows import FullRows
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.rolling.alignment import without_unused_views
from rnncore.export.tracing.rolling.frames import frame_rules
from rnncore.export.tracing.rolling.lists_once import with_lists_once
from rnncore.export.tracing.rolling.log import Log
from rnncore.export.tracing.rolling.own_way import own_steps
from rnncore.export.tracing.rolling.questions import (
    Answers,
    without_asking,
    without_constant_questions,
    without_questions,
)
from rnncore.export.tracing.rolling.recording import record
from rnncore.export.tracing.rolling.settled import find_settled
from rnncore.export.tracing.rolling.unread import without_unread
from rnncore.layers import Recurrent
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH, TIME

_LONG_HOP = 16
"""Windows are looked for in sequences of more steps than that."""


def recorded(
    module: nn.Module, example: Example, operators: Operators, seed: int, least: int
) -> tuple[Sequence[Log], dict[str, Recurrent], bool, list[str]]:
    """The logs of ``module`` at sizes of at least so many steps, its layers by name, and whether its code asks for values.

    Last come outputs that are there at other values than the example's only.

    Raises:
        ExportError: it asks what no file can know.  Whatever the module itself raises at such sizes.
    """
    extent = example.extents.get(TIME)
    step = extent.multiple if extent is not None else 1
    low = max(least, extent.minimum if extent is not None else 0)
    low = -(-low // step) * step
    generator = torch.Generator().manual_seed(seed)
    base = example.fit({BATCH: 3, TIME: low})
    layers: dict[str, Recurrent] = {}

    def hop_at(low: int) -> int:
        """The longest stride of windows, of so many steps; 0 if none is long."""
        try:
            log, _ = record(
                module, example, operators, example.draw({**base, TIME: low}, generator), {**base, TIME: low}, {}
            )
        except Exception as error:  # which is said elsewhere
            pass_on_interruption(error)
            return 0
        return max((step for step, _ in frame_rules([log])), default=0)

    hop = hop_at(low) if own_steps(example) > _LONG_HOP and low > _LONG_HOP else 0
    low += 2 * hop
    others = [name for name in base if name not in (BATCH, TIME)]
    sizes = [
        (3, low),
        (3, low + step),
        (3, low + 2 * step),
        (3, low + 3 * step),
        (4, low),
        (4, low + step),
        (5, low + 6 * step),
    ]
    for more in (11,) if least <= 24 else (11, 23, 38, 54):  # tell divisors from each other
        if extent is None or extent.takes(low + more * step):
            sizes.append((3, low + more * step))
    sizes += [
        (3, low + n)
        for n in ((hop, 2 * hop + 1, 5 * hop - 1) if hop else ())
        if extent is None or extent.takes(low + n)
    ]
    points: list[dict[str, int]] = [{**base, BATCH: b, TIME: t} for b, t in sizes]
    for name in others:
        multiple = example.extents[name].multiple if name in example.extents else 1
        # Alone, with time, with batch.
        points += [{**points[k], name: base[name] + (k + 1) * multiple} for k in (0, 1, 4)]
    if len(others) > 1:  # all at once, to tell sums of sizes from products
        points.append({**points[5], **{name: max(point[name] for point in points) for name in others}})
    drawn = [example.draw(point, generator) for point in points]

    def log_of(i: int, answers: Answers) -> Log:
        log, own = record(module, example, operators, drawn[i], points[i], answers)
        layers.update(own)
        return log.used() if isinstance(module, FullRows) else log  # numbers that were read are nobody's any more

    own, constant = without_constant_questions([log_of(i, {}) for i in range(len(points))])
    extra: list[str] = []
    try:
        logs, asks = without_questions(own, log_of)
    except ExportError:
        settled, extra = find_settled(module, example, own, drawn[0], seed)
        if not settled:
            raise
        logs, asks = [without_asking(log_of(i, settled)) for i in range(len(points))], True
    logs = [without_unused_views(with_lists_once(log)) for log in logs]
    read = without_unread(logs)
    loops_left = (
        len({len(log.ops) for log in read}) > 1
    )  # else torch would have to trace a loop that nothing is made of
    return read if loops_left else logs, layers, asks or constant, extra
