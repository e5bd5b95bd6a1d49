"""A module of which some outputs are left out: a loss, which belongs to no row, or a map of all steps to all steps."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.errors import ExportError, InputError


class ChosenOutputs(nn.Module):
    """``module`` with those of its outputs that have a name, as a dict by these names."""

    def __init__(self, module: nn.Module, names: Sequence[str | None]) -> None:
        super().__init__()
        self.module = module
        self._names = list(names)
        self._paths: list[
            str
        ] = []  # of the outputs of the first call; a list, so that it is kept where attributes are put back

    def run(self, *args: Any, **named: Any) -> dict[str, Tensor]:
        """What ``module`` answers, without what has no name; ExportError if it has more or fewer outputs than names.

        What it has at other values than those of the first call only has no name either.
        """
        answers = list(named_tensors(self.module(*args, **named), ""))
        if len(answers) == len(self._names) and not self._paths:
            self._paths[:] = [path for path, _ in answers]
        elif self._paths and {*self._paths} < {path for path, _ in answers}:
            answers = [(path, tensor) for path, tensor in answers if path in self._paths]
        found = [tensor for _, tensor in answers]
        check_count(self._names, len(found))
        return {name: value for name, value in zip(self._names, found, strict=True) if name is not None}


def with_chosen_outputs(model: nn.Module, names: Sequence[str | None] | None) -> tuple[nn.Module, Sequence[str] | None]:
    """``model`` without the outputs whose name is None, and the names of the others; both as they are if all have one.

    Raises:
        InputError: none has a name, or two have the same.
    """
    kept = [name for name in names or () if name is not None]
    if names is None or len(kept) == len(names):
        return model, names  # type: ignore[return-value]
    if not kept:
        raise InputError(
            f"output_names is {list(names)}, which leaves out all outputs: expected a name for one at least"
        )
    _check_apart(names)
    of_model = inspect.signature(model.forward)

    def forward(self: ChosenOutputs, *args: Any, **named: Any) -> Any:
        return self.run(*args, **named)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = of_model.replace(  # type: ignore[attr-defined]
        parameters=[own, *of_model.parameters.values()], return_annotation=inspect.Signature.empty
    )
    made = type(type(model).__name__, (ChosenOutputs,), {"forward": forward})
    return made(model, names).train(model.training), kept


def names_with_gaps(module: nn.Module, kept: Sequence[str]) -> list[str | None]:
    """Names of all outputs of ``module``, of which those in ``kept`` were chosen: None for each that was left out."""
    chosen = (part._names for part in module.modules() if isinstance(part, ChosenOutputs))
    return next((names for names in chosen if [n for n in names if n is not None] == list(kept)), list(kept))


def check_count(names: Sequence[str | None], count: int) -> None:
    """ExportError unless there are as many names as tensors that the module returns."""
    if len(names) != count:
        raise ExportError(f"output_names has {len(names)} names, the module returns {count} tensors")


def chosen_names(found: Sequence[str], given: Sequence[str | None] | None = None) -> list[str]:
    """Names of the tensors that a module returns: those given, else their keys, else numbers.

    Raises:
        ExportError: there are more or fewer names than tensors.
        InputError: two have one name.
    """
    if given is None:
        return [("output" if len(found) == 1 else f"output_{n}") if not n or n[0].isdigit() else n for n in found]
    check_count(given, len(found))
    _check_apart(given)
    return [str(name) for name in given]


def _check_apart(names: Sequence[str | None]) -> None:
    kept = [name for name in names if name is not None]
    if len(set(kept)) < len(kept):
        raise InputError(f"output_names is {list(names)}, expected a name of its own for each output")


def left_out_by(names: Sequence[str | None], unwanted: Collection[str]) -> str:
    """What to call :func:`rnncore.export.export` with to do without some outputs; empty if none would be left, or all.

    names: those of all outputs, None for what is left out already.
    """
    kept = [None if name in unwanted else name for name in names]
    more = kept.count(None) - list(names).count(None)
    if not any(kept) or not more:
        return ""
    return f"; output_names={kept} leaves {'it' if more == 1 else 'them'} out"
