"""One name for each value of a graph, those of inputs and outputs first: they are the caller's, all others are ours.

Nodes have names of their own, which onnxruntime wants to differ, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count

import onnx_ir as ir

from rnncore.runtime.errors import ExportError


def make_names_unique(graph: ir.Graph) -> None:
    """Rename, in place, every inner value that is called like an input, an output, or another value, and nodes as well.

    A module may call its outputs as it likes (``relu``, ``embedding``), while torch names values inside after operators
    and weights after their paths.  Inner graphs count: a name must not hide one of a graph around it.

    Raises:
        ExportError: two inputs or outputs have one name.
    """
    public = dict.fromkeys([*graph.inputs, *graph.outputs])
    twice = [name for name, number in Counter(str(value.name) for value in public).items() if number > 1]
    if twice:
        raise ExportError(
            f"two inputs or outputs of the file are called {min(twice)!r}: give outputs other names with output_names"
        )
    taken = {str(value.name) for value in public}
    others = [value for value in dict.fromkeys(_values(graph)) if value not in public]
    _rename(others, taken)
    _rename([node for node in ir.traversal.RecursiveGraphIterator(graph) if node.name], set())


def _rename(named: Sequence[ir.Value | ir.Node], taken: set[str]) -> None:
    known = taken | {str(one.name) for one in named}
    for one in named:
        name = str(one.name)
        if name in taken:
            one.name = name = next(new for i in count(1) if (new := f"{name}_{i}") not in known)
            known.add(name)
        taken.add(name)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.initializers.values()
    yield from graph.inputs
    for node in graph:
        yield from (value for value in node.outputs if value.name)
        for attribute in node.attributes.values():
            if isinstance(attribute.value, ir.Graph):
                yield from _values(attribute.value)
