"""One step of a cell and its gradient as one graph of torch's own operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from rnncore.cells import Cell
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import InputError

aten = torch.ops.aten

_EXPECTED = (
    "; expected a step that depends on the shapes of what it is given but not on the values, and that makes new tensors "
    "(s = s + z, not s += z); leave out compile_steps for this cell"
)


@dataclass
class StepGraph:
    """A traced step with its gradient.

    Inputs of the graph: z, states, keep (none or one), tensors (parameters and buffers of the cell), then d_outputs, the
    gradient that comes in for each output.  Its results: ``outputs``, which are y and the new states, and the gradients
    ``d_z``, ``d_states`` and ``d_tensors`` that go on, None where there is none.
    """

    module: fx.GraphModule
    z: fx.Node
    states: list[fx.Node]
    keep: list[fx.Node]
    tensors: list[fx.Node]
    d_outputs: list[fx.Node]

    @property
    def graph(self) -> fx.Graph:
        """The graph of ``module``."""
        return self.module.graph

    @property
    def outputs(self) -> list[fx.Node]:
        """y and the new states."""
        return self._results[: len(self.d_outputs)]  # type: ignore[return-value]

    @property
    def d_z(self) -> fx.Node | None:
        """The gradient of z."""
        return self._results[len(self.d_outputs)]

    @property
    def d_states(self) -> list[fx.Node | None]:
        """The gradients of the states before the step."""
        return self._results[len(self.d_outputs) + 1 : len(self.d_outputs) + 1 + len(self.states)]

    @property
    def d_tensors(self) -> list[fx.Node | None]:
        """What this step adds to the gradients of the tensors."""
        return self._results[-len(self.tensors) :] if self.tensors else []

    def set_output(self, index: int, node: fx.Node) -> None:
        """Make ``node`` the output of that number."""
        results = self._results
        results[index] = node
        (end,) = self.graph.find_nodes(op="output")
        end.args = (tuple(results),)

    @property
    def _results(self) -> list[fx.Node | None]:
        (end,) = self.graph.find_nodes(op="output")
        return list(end.args[0])


class _Step(nn.Module):
    """A step as the forward of a module, which is what torch can call with other parameters."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, z: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """``cell.step``."""
        return self.cell.step(z, *state)


def trace_step(
    cell: Cell, z: Tensor, states: Sequence[Tensor], keep: Tensor | None, tensors: Mapping[str, Tensor]
) -> StepGraph:
    """Trace ``cell.step`` and its gradient for inputs like these.

    Args:
        cell: what to trace; nothing of it is changed.
        z, states: inputs of one step, [batch, size] each.
        keep: boolean [batch, 1], where False the state is held; None for a step that holds nothing.
        tensors: parameters and buffers of ``cell`` by name; the gradient is of those that require one.

    Raises:
        InputError: the step depends on values in a way that no graph can show, or writes into its inputs.
    """
    step, masks = _Step(cell), [] if keep is None else [keep]
    inputs = [z, *states, *masks, *tensors.values()]
    first_mask, first_tensor = 1 + len(states), 1 + len(states) + len(masks)
    learning = [*range(first_mask), *(first_tensor + k for k, t in enumerate(tensors.values()) if t.requires_grad)]

    def joint(*given: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            leaves = [value.detach() for value in given[: len(inputs)]]
            for k in learning:
                leaves[k].requires_grad_()
            before, own = leaves[1:first_mask], dict(zip(tensors, leaves[first_tensor:], strict=True))
            y, *after = functional_call(step, _of_step(own), (leaves[0], *before))
            for mask in leaves[first_mask:first_tensor]:
                after = [torch.where(mask, new, old) for new, old in zip(after, before, strict=True)]
            outputs = [y, *after]
            pairs = [(out, d) for out, d in zip(outputs, given[len(inputs) :], strict=True) if out.requires_grad]
            gradients: dict[int, Tensor | None] = {}
            if pairs:
                ends, d_ends = zip(*pairs, strict=True)
                found = torch.autograd.grad(ends, [leaves[k] for k in learning], d_ends, allow_unused=True)
                gradients = dict(zip(learning, found, strict=True))
        return (*outputs, *(gradients.get(k) for k in range(len(inputs)) if not first_mask <= k < first_tensor))

    with torch.no_grad():  # on copies, in case the step writes into what it is given
        own = _of_step({name: value.clone() for name, value in tensors.items()})
        like = functional_call(step, own, (z.clone(), *(state.clone() for state in states)))
    examples = [*(value.detach() for value in inputs), *(torch.zeros_like(value) for value in like)]
    try:
        module = make_fx(joint, tracing_mode="fake")(*examples)
        if _writes(module.graph):
            module = make_fx(functionalize(module), tracing_mode="fake")(*examples)
    except Exception as error:
        pass_on_interruption(error)
        raise InputError(f"{type(cell).__name__}.step cannot be compiled: {error}{_EXPECTED}") from error
    if _writes(module.graph):
        raise InputError(
            f"{type(cell).__name__}.step cannot be compiled: it writes into a state, a parameter or a buffer{_EXPECTED}"
        )
    _simplify(module.graph)
    nodes = iter(module.graph.find_nodes(op="placeholder"))
    (z_node,), *others = (list(islice(nodes, count)) for count in (1, len(states), len(masks), len(tensors), None))
    return StepGraph(module, z_node, *others)


def _of_step(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as :class:`_Step` has them."""
    return {f"cell.{name}": value for name, value in tensors.items()}


def _simplify(graph: fx.Graph) -> None:
    """Within one graph a detached value is the value, as is one times a value; what nobody uses goes as well."""
    for target in (aten.detach.default, aten.alias.default, aten.mul.Scalar):
        for node in graph.find_nodes(op="call_function", target=target):
            if target is not aten.mul.Scalar or (node.args[1] == 1 and _dtype(node) == _dtype(node.args[0])):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
    graph.eliminate_dead_code()


def _dtype(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def _writes(graph: fx.Graph) -> bool:
    """Whether something is written in place."""
    return any(
        isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable for node in graph.nodes
    )
