"""Watch a module run its example: which input holds the lengths it packs with, which are states in torch's layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.packing import PackObserver, packing_by
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError


@dataclass
class Observed:
    """What was seen: packs, and the states handed to torch's recurrent layers."""

    packs: PackObserver = field(default_factory=PackObserver)
    states: list[Tensor] = field(default_factory=list)

    @property
    def packed(self) -> list[Tensor]:
        """Lengths of every pack, int64."""
        return [torch.as_tensor(lengths).cpu().long() for lengths in self.packs.lengths]

    def lengths_among(self, named: Sequence[tuple[str, Tensor]]) -> str | None:
        """Name of the input that the module packs with.

        Raises:
            ExportError: there are several.
        """
        found = [name for name, tensor in named if self.packs.packed_with(tensor)]
        if len(found) > 1:
            raise ExportError(
                f"the module packs with the lengths of {' and '.join(found)}; a file has one time axis and one input for "
                "its lengths: export the parts that read each of them as modules of their own"
            )
        return found[0] if found else None

    def is_state(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` was handed to a layer as [layers * directions, batch, size]."""
        return tensor.dim() == 3 and any(tensor is state for state in self.states)


@contextmanager
def observing(module: nn.Module) -> Iterator[Observed]:
    """Watch ``module`` inside the block."""
    observed = Observed()

    def take(layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        observed.states.extend(t for _, t in named_tensors([*arguments[1:2], options.get("hx")], ""))

    hooks = [m.register_forward_pre_hook(take, with_kwargs=True) for m in module.modules() if isinstance(m, nn.RNNBase)]
    try:
        with packing_by(observed.packs):
            yield observed
    finally:
        for hook in hooks:
            hook.remove()


def packed_by(module: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """Lengths of every pack while ``run`` calls ``module``, none if it fails."""
    with observing(module) as seen, torch.no_grad():
        try:
            run()
        except Exception as failure:
            pass_on_interruption(failure)
            return []
    return seen.packed
