"""How a module that was refused may be read otherwise, so that its file takes less and is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn

from rnncore.export.options import Options
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.full_rows import lengths_of, of_full_rows
from rnncore.export.tracing.held_sizes import with_sizes_held
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, VerificationError

Reading = tuple[nn.Module, Any, Options]


def other_readings(why: ExportError, model: nn.Module, example: Any, options: Options) -> Iterator[Reading]:
    """Modules, examples and options to try after ``why``: with full lengths inside, or with axes held as in the example."""
    pass_on_interruption(why)  # a time limit is no reason to try more
    if options.accuracy_data is not None:
        return
    module = copied(model).eval()
    try:
        with unchanged(module):
            call = Example.of(module, example, options.axes, options.lengths)
        with unchanged(module):
            call = find_axes(module, call, options.axes, options.seed)
    except ExportError:
        return
    held = {} if isinstance(why, VerificationError) or options.lengths != "auto" else lengths_of(call)
    if held:
        with suppress(ExportError):
            rows, drawn = of_full_rows(module, call, held)
            own = {name: axes for name, axes in (options.axes or {}).items() if name in drawn}
            what = f"forward reads {', '.join(held)} as numbers: the file takes full rows, and no lengths"
            yield rows, drawn, replace(options, axes=own or None, remarks=(what,))
    fewer = with_sizes_held(call, options.axes)
    if fewer is not None:
        axes, what = fewer
        yield (
            model,
            example,
            replace(options, axes=axes, remarks=(f"forward goes other ways at other sizes; held: {what}",)),
        )
