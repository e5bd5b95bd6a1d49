"""Operators of a traced program that draw random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from rnncore.export.tracing.source_lines import line_of_node
from rnncore.runtime.errors import ExportError

_SWITCHES = ("train", "training")
_CHANCES = ("p", "dropout", "dropout_p")


def refuse_random(program: ExportedProgram) -> None:
    """Raise ExportError if an operator of ``program`` draws random numbers, whatever its size and however rarely it shows."""
    for node in program.graph.nodes:
        if node.op == "call_function" and node.users and _draws(node):
            where = line_of_node(node)
            raise ExportError(
                f"forward is random (called twice, it answers differently): {node.target}{f' at {where}' if where else ''}; "
                "leave it out, or hand the random numbers in as an argument"
            )


def _draws(node: Node) -> bool:
    target: Any = node.target
    if torch.Tag.nondeterministic_seeded not in getattr(target, "tags", ()):
        return False
    given = {}
    for i, argument in enumerate(target._schema.arguments):
        given[argument.name] = (
            node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        )
    off = any(given.get(name) is False for name in _SWITCHES)
    never = any(given.get(name) == 0 for name in _CHANCES)
    return not (off or never)
