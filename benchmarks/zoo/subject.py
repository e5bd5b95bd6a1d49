"""What the zoo is made of: a class of a package, how its README calls it, and what is right for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Draw = Callable[[int, int], Any]


@dataclass(frozen=True)
class Subject:
    """A module with random weights and calls of it.

    draw: the example of a batch and a number of steps, as :func:`rnncore.export.export` takes one; states are zeros in it.
    sizes: (batch, steps) of the example, then of the calls that are compared.
    causal: whether an output needs no later input: it should stream.
    options: arguments of the export beside the README's call, where one is needed.
    """

    module: nn.Module
    draw: Draw
    causal: bool = False
    sizes: tuple[tuple[int, int], ...] = ((2, 16), (1, 9), (3, 23), (2, 64))
    options: Mapping[str, Any] = field(default_factory=dict)


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


class Call(nn.Module):
    """A module called by one of its methods, or with one of its results: what a README does in a line around it."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._call = call

    def forward(self, x: Any) -> Any:
        """What the line gives."""
        return self._call(self.module, x)
