"""What forward computes from weights alone with operators that ONNX does not have: computed now, once.

Inverses, decompositions and exponentials of matrices, as orthogonal weights and models of control have them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg

_NAMES = ("linalg_", "_linalg_", "inverse", "cholesky", "matrix_exp", "geqrf", "ormqr", "triangular_solve", "lu_")
"""How operators of linear algebra begin, of which ONNX has the determinant only."""


def settle_weights(program: ExportedProgram) -> None:
    """Replace what such operators give in ``program`` by constants, where nothing but weights stands before them."""
    graph = program.graph_module.graph
    if not any(_is_algebra(node) for node in graph.nodes):
        return
    values = _weights(program)
    known: set[Node] = set(values)
    for node in list(graph.nodes):
        if node.op != "call_function" or not known.issuperset(node.all_input_nodes) or _draws(node):
            continue
        known.add(node)
        if _is_algebra(node):
            found = _value(node, values)
            for number, (user, part) in enumerate(_parts(node, found)):
                made = _replace(program, user, part, f"{node.name}_settled_{number}")
                values[made] = part
                known.add(made)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _is_algebra(node: Node) -> bool:
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and name.startswith(_NAMES) and not name.startswith("linalg_vector_norm")


def _draws(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _weights(program: ExportedProgram) -> dict[Node, Any]:
    held = {**program.state_dict, **program.constants}
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    return {
        node: held[targets[node.name]]
        for node in program.graph_module.graph.nodes
        if node.op == "placeholder" and isinstance(held.get(targets.get(node.name)), Tensor)
    }


def _value(node: Node, values: dict[Node, Any]) -> Any:
    """What ``node`` gives, and all before it."""
    if node not in values:
        args: Any = map_arg(node.args, lambda part: _value(part, values))
        kwargs: Any = map_arg(node.kwargs, lambda part: _value(part, values))
        with torch.no_grad():
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values[node]


def _parts(node: Node, value: Any) -> Sequence[tuple[Node, Tensor]]:
    if isinstance(value, Tensor):
        return [(node, value)]
    picked = [user for user in node.users if user.target is operator.getitem]
    return [(user, value[user.args[1]]) for user in picked]


def _replace(program: ExportedProgram, node: Node, value: Tensor, name: str) -> Node:
    """Make ``value`` a constant of ``program`` that stands in the place of ``node``."""
    graph, signature = program.graph_module.graph, program.graph_signature
    first = next(iter(graph.nodes))
    with graph.inserting_before(first):
        made = graph.placeholder(name)
    made.meta = {"val": node.meta["val"]}
    made.name = name
    node.replace_all_uses_with(made)
    signature.replace_all_uses(node.name, made.name)
    spec = InputSpec(kind=InputKind.CONSTANT_TENSOR, arg=TensorArgument(name=made.name), target=name)
    signature.input_specs.insert(0, spec)
    program.constants[name] = value.detach().clone().contiguous()
    return made
