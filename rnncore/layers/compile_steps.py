"""``compile_steps``: train cells of your own at nearly the speed of torch.nn's."""

from __future__ import annotations

from typing import Literal, TypeVar

from torch import nn

from rnncore.layers.recurrent import Recurrent
from rnncore.runtime.errors import InputError

M = TypeVar("M", bound=nn.Module)


def compile_steps(module: M, *, backend: Literal["inductor", "eager"] = "inductor") -> M:
    """Compile the step of every cell in ``module``, and its gradient, for training on this machine.

    ``torch.compile`` unrolls a loop over time and compiles every step of it, for each length anew: minutes.  Here one step
    is compiled, in seconds, when it is first needed, and runs for sequences of any length; weight gradients leave the loop
    as one product.  Cells that torch has a fused kernel for keep it, and without gradients everything runs as before.

    A step is traced for each batch size, dtype and device, and again when a number, a string or a function among the
    attributes of the cell or of a module in it has changed.  Otherwise it must depend on its arguments, parameters and
    buffers alone: what it reads elsewhere is read once.  First derivatives only; not under autocast.

    Args:
        module: changed in place; a model, or a single :class:`rnncore.Recurrent`.
        backend: "inductor" needs a C++ compiler such as g++; "eager" runs torch's own operators one by one, no faster than
            without, to tell a fault of tracing from one of compiling.

    Returns:
        ``module``.

    Raises:
        InputError: no recurrent layer in ``module``, or an unknown backend.  The first call raises it for a step that
            cannot be traced (a branch on values of a tensor, a write into one), or when there is no compiler.

    Example::

        model = compile_steps(Recurrent(MyCell(80, 256)))
    """
    # Compiling is a large part of torch, loaded when somebody asks for it.
    from rnncore.layers.kernels.compiled import CompiledSteps

    layers = [layer for layer in module.modules() if isinstance(layer, Recurrent)]
    if not layers:
        raise InputError(
            f"{type(module).__name__} has no recurrent layer of rnncore, expected rnncore.Recurrent or a model with one "
            "(rnncore.convert makes one of torch.nn's layers)"
        )
    for layer in layers:
        layer.compiled = CompiledSteps(backend)
    return module
