"""What the zoo is made of: a class of a package, how its README calls it, and what is right for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.nesting import named_tensors

Draw = Callable[[int, int], Any]


@dataclass(frozen=True)
class Subject:
    """A module with random weights and calls of it.

    draw: the example of a batch and a number of steps, as :func:`rnncore.export.export` takes one; states are zeros in it.
    sizes: (batch, steps) of the example, then of the calls that are compared.
    causal: whether an output needs no later input: it should stream.
    options: arguments of the export beside the README's call, where one is needed.
    carried: of a module of one step, the states among its inputs, with the number of the output that each becomes; its file
    runs over time.
    """

    module: nn.Module
    draw: Draw
    causal: bool = False
    sizes: tuple[tuple[int, int], ...] = ((2, 16), (1, 9), (3, 23), (2, 64))
    options: Mapping[str, Any] = field(default_factory=dict)
    carried: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A line of the page: ``make`` builds the subject, in a process of its own."""

    package: str
    name: str
    make: Callable[[], Subject]

    @property
    def key(self) -> str:
        """Its name on the command line."""
        return f"{self.package}.{self.name}"


ENTRIES: dict[str, Entry] = {}


def entry(package: str, name: str) -> Callable[[Callable[[], Subject]], Callable[[], Subject]]:
    """Add what the decorated function builds to the zoo."""

    def add(make: Callable[[], Subject]) -> Callable[[], Subject]:
        found = Entry(package, name, make)
        ENTRIES[found.key] = found
        return make

    return add


class OverTime(nn.Module):
    """What the caller of a module of one step does: run it for every step, its states from where they start."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.module = subject.module
        self._subject = subject

    def forward(self, **sequences: Tensor) -> dict[str, Tensor]:
        """[batch, time, ...] each, as the file takes them."""
        carried, kept = self._subject.carried, []
        batch, steps = next(iter(sequences.values())).shape[:2]
        start = bind(self.module, self._subject.draw(batch, 1)).arguments
        states = {name: start[name] for name in carried}
        for t in range(steps):
            outputs = list(
                named_tensors(self.module(**{n: value[:, t] for n, value in sequences.items()}, **states), "")
            )
            states = {name: outputs[place][1] for name, place in carried.items()}
            others = [k for k in range(len(outputs)) if k not in carried.values()] or list(range(len(outputs)))
            kept.append([outputs[k] for k in others])
        found = {}
        for values in zip(*kept, strict=True):
            name = values[0][0]
            if not name or name[0].isdigit():
                name = "output" if len(outputs) == 1 else f"output_{name}"
            found[name] = torch.stack([value for _, value in values], 1)
        return found

    def draw(self, batch: int, steps: int) -> dict[str, Tensor]:
        """An example of ``steps``."""
        drawn = [bind(self.module, self._subject.draw(batch, 1)).arguments for _ in range(steps)]
        return {n: torch.stack([one[n] for one in drawn], 1) for n in drawn[0] if n not in self._subject.carried}


class Call(nn.Module):
    """A module called by one of its methods, or with one of its results: what a README does in a line around it."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._call = call

    def forward(self, x: Any) -> Any:
        """What the line gives."""
        return self._call(self.module, x)
