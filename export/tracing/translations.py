"""What torch's exporter does at every call and need not: its table of translations, and rewriting what it can translate."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch.export import ExportedProgram

from rnncore.export.tracing.plain_spelling import clamp_by_floats, drop_notes, spell_plainly

_SAME_NUMBERS = (torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default)
"""A second trace writes them as others because they may share memory, which a file knows nothing of."""
_REGISTRATION = "torch.onnx._internal.exporter._registration"


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Inside it torch takes the translations of its operators from a table that this process made once.

    torch parses the Python source of five hundred functions at every export, which takes it half a second.  A torch that
    makes its table in another way is left alone.
    """
    try:
        registry: Any = import_module(_REGISTRATION).ONNXRegistry
        original = registry.__dict__["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        yield
        return
    if not isinstance(original, classmethod):  # an export inside an export, or in another thread
        yield
        return
    registry.from_torchlib = staticmethod(functools.partial(_kept, original.__get__(None, registry)))
    try:
        yield
    finally:
        registry.from_torchlib = original


def _kept(make: Any, *args: Any, **options: Any) -> Any:
    """A table of the caller's own: it may add to its lists."""
    made = _made(make, args, tuple(options.items()), _loaded())
    own = copy.copy(made)
    own.functions = {target: list(found) for target, found in made.functions.items()}
    return own


def _loaded() -> bool:
    """Whether torch's quantisation is imported, whose operators have translations only then."""
    return hasattr(torch.ops.quantized_decomposed, "quantize_per_tensor")


@functools.cache
def _made(make: Any, args: tuple[Any, ...], options: tuple[tuple[str, Any], ...], loaded: bool) -> Any:
    with _sources_unread():
        return make(*args, **dict(options))


@contextmanager
def _sources_unread() -> Iterator[None]:
    """Inside it a translation is asked for nothing but its domain, for which onnxscript would parse its source."""
    try:
        traced: Any = import_module("onnxscript._internal.values").TracedOnnxFunction
        original = traced.__dict__["function_ir"]
    except (ImportError, AttributeError, KeyError):
        yield
        return
    if not isinstance(original, property):
        yield
        return
    traced.function_ir = property(_domain_alone)
    try:
        yield
    finally:
        traced.function_ir = original


def _domain_alone(translation: Any) -> Any:
    return SimpleNamespace(domain=translation._opset.domain)


def spare_decompositions(program: ExportedProgram, opset: int) -> None:
    """Let torch.onnx take ``program`` as it was traced if tracing it a second time would change nothing.

    torch traces every program again to write operators as simpler ones: half of the time of a small export, and for nothing
    where each has a translation and none is written as others first, writes in place or holds control flow.
    """
    drop_notes(program)
    clamp_by_floats(program)
    decompose = program.run_decompositions

    def run_decompositions(*args: Any, **options: Any) -> ExportedProgram:
        undo = spell_plainly(program)
        if _is_simple(program, opset):
            return program
        undo()
        return decompose(*args, **options)

    program.run_decompositions = run_decompositions


def _is_simple(program: ExportedProgram, opset: int) -> bool:
    registry: Any = import_module(_REGISTRATION).ONNXRegistry
    known = registry.from_torchlib(opset_version=opset).functions
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            return False
        for node in module.graph.nodes:
            if node.op == "call_function":
                target: Any = node.target
                name = target.name() if isinstance(target, torch._ops.OpOverload) else target
                if name not in known or not (_is_kept(target) or _is_idle_dropout(node)):
                    return False
            elif node.op not in ("placeholder", "output", "get_attr"):
                return False
    return True


def _is_kept(target: Any) -> bool:
    """Whether a second trace leaves calls of ``target`` as they are, if they have a translation."""
    if not isinstance(target, torch._ops.OpOverload) or target in _SAME_NUMBERS:
        return True
    if (
        target._schema.is_mutable or target is torch.ops.aten.native_batch_norm.default
    ):  # whose schema hides that it writes
        return False
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    may_alias = any(argument.alias_info is not None for argument in target._schema.arguments)
    return not composite or not (may_alias or torch.Tag.maybe_aliasing_or_mutating in target.tags)


def _is_idle_dropout(node: torch.fx.Node) -> bool:
    """A dropout of a module in eval mode, which is its input."""
    return node.target is torch.ops.aten.dropout.default and node.args[2] is False
