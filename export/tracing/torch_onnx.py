"""torch's exporter, called quietly, with its failures turned into errors a user can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset20 as op
from torch import nn
from torch.export import ExportedProgram

from rnncore.export.tracing.array_reads import ArrayReads
from rnncore.export.tracing.counted_numbers import CountedNumbers
from rnncore.export.tracing.counted_sizes import EachRow, one_by_one
from rnncore.export.tracing.data_reads import DataReads
from rnncore.export.tracing.dense_products import DenseProducts
from rnncore.export.tracing.fixed_sizes import FixedSizes
from rnncore.export.tracing.free_parts import slice_free_parts
from rnncore.export.tracing.id_limits import limit_ids
from rnncore.export.tracing.plain_types import plain_types
from rnncore.export.tracing.pooling import PoolsAnySize
from rnncore.export.tracing.regions import inline_regions
from rnncore.export.tracing.settled_weights import settle_weights
from rnncore.export.tracing.silence import silent
from rnncore.export.tracing.small_algebra import SMALL_ALGEBRA, like, refuse_large
from rnncore.export.tracing.source_lines import READS_VALUE, line_in_text, line_of_exception
from rnncore.export.tracing.squeezed_sizes import drop_settled_axes
from rnncore.export.tracing.torch_versions import drop_guards
from rnncore.export.tracing.translations import operators_read_once, spare_decompositions
from rnncore.export.tracing.whole_numbers import sizes_stay_sizes
from rnncore.export.tracing.whole_quotients import add_in_pairs, whole_quotients
from rnncore.export.tracing.wide_numbers import keep_wide, numbers_of
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, RnncoreError

OPSET = 20
_BECAME_A_NUMBER = re.compile(
    r"\[(\d+|'\w+')\]\.size\(\)\[(\d+)\] as dynamic but your code specialized it to be a constant \((\d+)\)"
)
WRITES_NOT = "torch.onnx cannot write"
FIXES_AXIS = "The code fixes an axis that must stay free"


def _log_sigmoid(x: Any) -> Any:
    """min(x, 0) + log(sigmoid(|x|)): torch writes log(sigmoid(x)), -inf below -104 and NaN once two are subtracted."""
    return op.Sub(op.Log(op.Sigmoid(op.Abs(x))), op.Relu(op.Neg(x)))


def _squeeze(x: Any, dims: int | Sequence[int]) -> Any:
    """Without those of ``dims`` that have one entry; torch lets the others be, where ONNX refuses them."""
    given = (dims,) if isinstance(dims, int) else dims
    axes = [axis for axis in given if x.shape is None or (len(x.shape) and x.shape[axis] == 1)]
    picked: Any = op.Constant(value_ints=axes)
    return op.Squeeze(x, picked) if axes else op.Identity(x)


def _added_product(x: Any, a: Any, b: Any, beta: float = 1.0, alpha: float = 1.0) -> Any:
    """beta * x + alpha * (a @ b), of matrices that were sparse."""
    product: Any = op.MatMul(a, b)
    by, times = (like(product, number) for number in (alpha, beta))
    return op.Add(op.Mul(product, by), op.Mul(x, times)) if beta else op.Mul(product, by)


def _lerp(start: Any, end: Any, weight: Any) -> Any:
    """(1 - weight) * start + weight * end: torch chooses between two forms that are exact at one of the ends, this is at both."""
    return op.Add(op.Mul(op.Sub(like(start, 1.0), weight), start), op.Mul(weight, end))


def _lerp_by_number(start: Any, end: Any, weight: float) -> Any:
    return op.Add(op.Mul(start, like(start, 1.0 - weight)), op.Mul(end, like(start, weight)))


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten._sparse_mm.default: lambda a, b: op.MatMul(a, b),
    torch.ops.aten._sparse_addmm.default: _added_product,
    torch.ops.aten.lerp.Scalar: _lerp_by_number,
    torch.ops.aten.lerp.Tensor: _lerp,
    torch.ops.aten.log_sigmoid.default: _log_sigmoid,
    torch.ops.aten.squeeze.dim: _squeeze,
    torch.ops.aten.squeeze.dims: _squeeze,
    torch.ops.prims.view_of.default: lambda x: op.Identity(x),  # what torch may write such a squeeze as
    **SMALL_ALGEBRA,
}
"""Operators that torch translates into something else than it computes."""


def to_onnx(module: nn.Module, arguments: tuple[Any, ...], dynamic_shapes: Any, *, what: str) -> ir.Model:
    """``module`` as an ONNX model in memory: :func:`to_program`, ids checked, then :func:`to_model`."""
    program = to_program(module, arguments, dynamic_shapes, what=what)
    limit_ids(program, 0)
    return to_model(program, what=what)


def to_program(module: nn.Module, arguments: tuple[Any, ...], dynamic_shapes: Any, *, what: str) -> ExportedProgram:
    """``module`` as torch traces it.

    Args:
        module: in eval mode.
        arguments: example call; dynamic sizes must not be 0 or 1.
        dynamic_shapes: as for ``torch.export.export``.
        what: how to call the module in an error.

    Raises:
        ExportError: torch cannot trace it; the message carries torch's own first lines and what to try.
    """
    fixed = FixedSizes()
    with (
        silent(),
        whole_quotients(),
        sizes_stay_sizes(module),
        plain_types(module),
        CountedNumbers(),
        PoolsAnySize(),
        DenseProducts(),
        DataReads(),
        ArrayReads(),
        fixed,
        torch.no_grad(),
    ):
        try:
            program = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes, strict=False)
            inline_regions(program)
            settle_weights(program)
            return program
        except RnncoreError:
            raise
        except Exception as error:
            pass_on_interruption(error)
            if EachRow.__name__ in str(error):  # torch's own functions were handed it as a number
                raise one_by_one(line_of_exception(error)) from error
            raise ExportError(_explain(error, what, fixed.lines)) from error


def to_model(program: ExportedProgram, *, what: str) -> ir.Model:
    """What torch has traced, as an ONNX model in memory of opset 20; ``program`` is used up.

    Raises:
        ExportError: torch cannot write it; the message carries torch's own first lines.
    """
    refuse_large(program)
    with silent(), torch.no_grad(), operators_read_once():
        try:
            numbers = numbers_of(program)
            drop_guards(program)
            add_in_pairs(program)
            slice_free_parts(program)
            drop_settled_axes(program)
            spare_decompositions(program, OPSET)
            result = torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=OPSET, custom_translation_table=TRANSLATIONS
            )
        except Exception as error:
            pass_on_interruption(error)
            raise ExportError(f"{WRITES_NOT} {what}: {_first_lines(error)}") from error
    assert result is not None
    keep_wide(result.model, {**numbers_of(result.exported_program), **numbers} if result.exported_program else numbers)
    return result.model


def _explain(error: Exception, what: str, fixed: Mapping[int, str]) -> str:
    where = line_of_exception(error)
    found = _BECAME_A_NUMBER.search(str(error))
    reason = _first_lines(error)
    if found is not None:
        place, axis, size = found.groups()
        line = fixed.get(int(size), "")
        reason = (
            f"forward computes with the size of axis {axis} of input {place} as a Python number, and the trace would hold for "
            f"{size} only (range(), math.log2(), int() and numpy ask for one, as a parallel scan does, or code that goes on in "
            "blocks)"
            f"{line and f':{chr(10)}  {line}'}"
        )
    elif "data-dependent" in str(error):
        reason = (
            f"forward reads the value of a tensor ({READS_VALUE}), which a file cannot know; torch.where does for an if, and a "
            "mask such as torch.arange(n) < lengths[:, None] for lengths that are read as numbers"
        )
    message = f"torch.export cannot trace {what}{f' at {where}' if where else ''}: {reason}"
    if any(word in str(error) for word in ("Constraints violated", "specialized", "marked")):
        message += (
            f"\n  {FIXES_AXIS} (a size read as a Python number, as numpy or range() read it, a loop over time, a reshape "
            "with literal sizes). Use tensor operations, the sequential form if the package has one, or wrap a "
            "loop over time in rnncore.Recurrent with a Cell."
        )
    return message


def _first_lines(error: Exception, lines: int = 6) -> str:
    inner = error.__cause__
    if (
        isinstance(inner, Exception) and type(error).__name__ == "ConversionError"
    ):  # it says how to report that to torch
        where = line_in_text(str(inner))
        return f"{_first_lines(inner, lines - 1)}{where and f'{chr(10)}  at {where}'}"
    return "\n  ".join(line for line in str(error).strip().splitlines()[:lines] if line.strip()) or type(error).__name__
