"""The module with rnncore's layers in place of torch's plain ones, where its code does not notice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnncore.conversion import convert_plain_layers
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.error_boundary import pass_on_interruption

_NEAR = 1e-2  # of the largest number: another way through the code is far from that, rounding is not


def with_own_layers(module: nn.Module, example: Example) -> nn.Module:
    """A copy of ``module`` with plain layers converted; as it is where code asks what kind of layer it calls.

    Torch's own layers are captured as well, by the functions that they call.
    """
    plain = convert_plain_layers(copied(module))
    wanted, got = _answer(module, example), _answer(plain, example)
    if got is None or (wanted is not None and not _alike(got, wanted)):
        return copied(module)
    return plain


def _answer(module: nn.Module, example: Example) -> list[Tensor] | None:
    with unchanged(module), torch.no_grad():
        try:
            outputs = example.call(module, [own.value for own in example.inputs])
        except Exception as failure:
            pass_on_interruption(failure)
            return None
    return [value for _, value in named_tensors(outputs, "")]


def _alike(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    if [value.shape for value in got] != [value.shape for value in wanted]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(got, wanted, strict=True) if b.is_floating_point()]
    return all(
        torch.allclose(a, b, rtol=0, atol=_NEAR * max(1.0, float(b.nan_to_num(0, 0, 0).abs().max())), equal_nan=True)
        for a, b in pairs
        if b.numel()
    )
