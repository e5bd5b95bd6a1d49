"""What a caller of ``export`` asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnncore.export.lowering.forms import FORMS
from rnncore.export.targets import TARGETS
from rnncore.export.tracing.example import Axes
from rnncore.export.tracing.own_steps.search import FoundStep
from rnncore.runtime.errors import raise_all


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of :func:`rnncore.export.export`, where they are explained.

    Raises:
        InputError: ``form``, ``target`` or ``branches`` is unknown, or a target given for a form that does not look at it.
    """

    form: str
    streaming: bool | str
    lengths: str | bool
    verify: bool
    axes: Axes | None
    output_names: Sequence[str | None] | None
    metadata: Mapping[str, str] | None
    pick: bool
    seed: int
    quantize: str | None
    accuracy_data: Sequence[Any] | None
    target: str | None
    external_data: bool | None
    states: Mapping[str, str] | None
    branches: bool
    remarks: tuple[str, ...] = ()
    """What the report shall say of how the module was read; no argument of ``export``."""
    own_steps: tuple[FoundStep, ...] = ()
    """Parts to be computed by steps of their own in place of their ``forward``; no argument of ``export``."""
    written_out: bool = False
    """Write what was recorded even where torch's own trace would do: it has two real numbers for a complex one; no argument of
    ``export``."""
    step_note: str = ""
    """What is to be said of such steps where the file does not stream; no argument of ``export``."""

    def __post_init__(self) -> None:
        forms = (*FORMS, "portable", "auto")
        problems = []
        if self.form not in forms:
            problems.append(f"form is {self.form!r}, expected one of {', '.join(map(repr, forms))}")
        if self.target is not None and self.target not in TARGETS:
            problems.append(f"target is {self.target!r}, expected one of {', '.join(map(repr, TARGETS))}")
        elif self.target is not None and self.form != "auto":
            problems.append(f"target is {self.target!r}, but only form='auto' chooses by target; form is {self.form!r}")
        if not isinstance(self.branches, bool):
            problems.append(f"branches is {self.branches!r}, expected True or False")
        raise_all(problems)

    @property
    def int8(self) -> bool:
        """Whether weights shall be of 8 bits."""
        return self.quantize is not None
