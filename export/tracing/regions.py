"""Parts of forward under ``no_grad``, ``enable_grad`` or a switched-off ``autocast``: torch traces each as a graph of its own."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg


def inline_regions(program: ExportedProgram) -> None:
    """Put these parts in place, where whatever reads ``program`` sees them.  Those under an ``autocast`` that casts stay."""
    graph = program.graph_module.graph
    while True:
        found = [node for node in graph.nodes if _changes_nothing(node)]
        if not found:
            break
        for node in found:
            _inline(program, node)
    graph.lint()
    program.graph_module.recompile()


def _changes_nothing(node: Node) -> bool:
    """Whether ``node`` calls a part that computes the same outside its region: no file knows gradients."""
    name = getattr(node.target, "__name__", "")
    if name == "wrap_with_autocast":
        device, _, enabled, *_ = node.args
        return not enabled or device != "cpu"
    return name == "wrap_with_set_grad_enabled"


def _inline(program: ExportedProgram, node: Node) -> None:
    module, graph = program.graph_module, program.graph_module.graph
    place, holder = next((i, value) for i, value in enumerate(node.args) if isinstance(value, Node))
    part = module.get_submodule(str(holder.target))
    assert isinstance(part, torch.fx.GraphModule)
    given, results = iter(node.args[place + 1 :]), list[Any]()
    copies: dict[Node, Any] = {}
    with graph.inserting_before(node):
        for own in part.graph.nodes:
            if own.op == "placeholder":
                copies[own] = next(given)
            elif own.op == "output":
                results = list(map_arg(own.args[0], copies.__getitem__))
            else:
                copies[own] = graph.node_copy(own, copies.__getitem__)
                if own.op == "get_attr":  # a region within the region
                    copies[own].target = _placed(module, part.get_submodule(str(own.target)))
    for user in list(node.users):
        assert user.target is operator.getitem
        value = results[int(user.args[1])]  # type: ignore[arg-type]
        user.replace_all_uses_with(value)
        program.graph_signature.replace_all_uses(user.name, value.name)
        graph.erase_node(user)
    graph.erase_node(node)
    if not holder.users:
        graph.erase_node(holder)


def _placed(module: torch.fx.GraphModule, part: torch.nn.Module) -> str:
    """The name under which ``module`` holds ``part`` from now on."""
    name = next(
        name for n in range(len(dict(module.named_children())) + 1) if not hasattr(module, name := f"region_{n}")
    )
    module.add_submodule(name, part)
    return name
