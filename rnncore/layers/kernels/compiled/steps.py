"""The compiled steps of one layer."""

from __future__ import annotations

import warnings
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
import torch._inductor
from torch import Tensor, fx
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

from rnncore.cells import Cell
from rnncore.layers.kernels.compiled.program import Backend, StepProgram, own_tensors
from rnncore.layers.kernels.gate_gradients import batch_first, time_first
from rnncore.runtime.errors import InputError

MOST_PROGRAMS = 8
"""Shapes and settings that a layer compiles its step for; the next ones run as if there were no compiler."""


def _run_as_it_is(graph: fx.GraphModule, _: list[Tensor]) -> fx.GraphModule:
    return graph


def _compile(graph: fx.GraphModule, like: list[Tensor]) -> Any:
    try:
        return torch._inductor.compile(graph, [*like])
    except InductorError as error:
        if isinstance(error.inner_exception, InvalidCxxCompiler):
            problem = "found no C++ compiler: install g++ or clang, or name one in the environment variable CXX"
        elif isinstance(error.inner_exception, CppCompileError):
            problem = "met a C++ compiler that fails, as shown above: it needs Python's headers (python3-dev) as well"
        else:
            raise
        raise InputError(f"compile_steps {problem}; backend='eager' does without") from error


BACKENDS: dict[str, Backend] = {"inductor": _compile, "eager": _run_as_it_is}


class CompiledSteps:
    """Runs a cell along time as :func:`rnncore.layers.loop.run_loop` does, each step compiled; first derivatives only.

    A program is made for each batch size, dtype and device, for sequences with and without padding, for each choice of
    parameters that learn and for each of the cell's settings.  A copy has none of the programs of its original.
    """

    def __init__(self, backend: str) -> None:
        if backend not in BACKENDS:
            raise InputError(f"backend is {backend!r}, expected one of: {', '.join(BACKENDS)}")
        self.backend = backend
        self._programs: dict[Any, StepProgram] = {}

    def __reduce__(self) -> tuple[type[CompiledSteps], tuple[str]]:
        return CompiledSteps, (self.backend,)

    @torch.compiler.disable  # torch.compile leaves alone what is compiled already
    def run(
        self, cell: Cell, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """As :func:`rnncore.layers.loop.run_loop`; None when there are too many programs already.

        Raises:
            InputError: the step of ``cell`` cannot be compiled, or there is no C++ compiler.
        """
        tensors = own_tensors(cell)
        kinds = tuple((t.shape, t.stride(), t.dtype, t.requires_grad) for t in tensors.values())
        key = (x.shape[0], x.shape[2], x.dtype, x.device, valid is None, kinds, _settings(cell))
        program = self._programs.get(key)
        if program is None and len(self._programs) == MOST_PROGRAMS:
            warnings.warn(
                f"{type(cell).__name__} is compiled for {MOST_PROGRAMS} shapes and settings already; others, such as "
                f"this batch of {x.shape[0]}, run uncompiled (batches of one size would all be fast)",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        z, keep = time_first(cell, x, valid, reverse=reverse)
        keep = None if keep is None else keep.contiguous()  # strides that do not depend on the time
        if program is None:
            program = self._programs[key] = StepProgram(cell, tensors, z, state, keep, BACKENDS[self.backend])
        y, last = program.run(tensors, z, state, keep)
        return batch_first(y, reverse=reverse), last


def _settings(cell: Cell) -> tuple[Any, ...]:
    """Classes, numbers, strings and functions that a step may use, such as a rate or whether dropout is on."""
    return tuple(
        value
        for module in cell.modules()
        for value in (type(module), *vars(module).values())
        if value is None or isinstance(value, (bool, int, float, str, type, FunctionType, BuiltinFunctionType))
    )
