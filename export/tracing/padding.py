"""What stands behind the last step of a row, where a module counts the steps itself, ``(ids != 0).sum(1)``, and packs so many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.observing import Observed, packed_by

_USUAL = (0, 1)
"""Of most tokenizers."""

Call = Callable[[Sequence[Tensor]], Any]


def padding_of(
    seen: Observed, module: nn.Module, named: Mapping[str, Tensor], may: Sequence[str], call: Call
) -> dict[str, float]:
    """Those of the inputs ``may`` whose steps ``module`` counts, with the number that says that there is none.

    ``seen`` tells what was packed, ``call`` takes all inputs.  Found by trial: with that number at the end of a row, and nowhere
    else, this row alone is packed shorter.
    """
    packed = _of_rows(seen.packed)
    found: dict[str, float] = {}
    for name in may if packed else ():
        value = named[name]
        if value.dim() < 2 or value.is_complex():
            continue
        numbers = dict.fromkeys(number for lengths in packed for number in _candidates(module, value, lengths))
        number = next((number for number in numbers if _ends_rows(number, name, module, named, call)), None)
        if number is not None:
            found[name] = number
    return found


def padded_behind(value: Tensor, lengths: Sequence[int], number: float, batch_axis: int, steps_axis: int) -> Tensor:
    """``value`` with ``number`` behind so many steps of each row."""
    value = value.clone()
    by_row = value.movedim((batch_axis, steps_axis), (0, 1))
    for row, length in zip(by_row, lengths, strict=True):
        row[length:] = number
    return value


def elsewhere(value: Tensor, number: float, low: int, high: int) -> Tensor:
    """Whole numbers ``value``, drawn from ``low`` to ``high``, without ``number``: another one of them stands in its place."""
    if value.dtype == torch.bool:
        return torch.full_like(value, not number)
    other = high if high != number else low if low != number else high + 1
    return torch.where(value == number, other, value)


def _candidates(module: nn.Module, value: Tensor, lengths: Tensor) -> Iterator[float]:
    for batch_axis, steps_axis in _layouts(value, len(lengths)):
        rows = value.movedim((batch_axis, steps_axis), (0, 1))
        for row, length in zip(rows, lengths.tolist(), strict=True):
            behind = row[length:].flatten()
            if len(behind) and bool((behind == behind[0]).all()):
                yield behind[0].item()
                return
    if value.is_floating_point() or value.dtype == torch.bool:
        yield 0.0
        return
    tables = [one for one in module.modules() if isinstance(one, nn.Embedding)]
    least = min((one.num_embeddings for one in tables), default=None)
    for number in [*(one.padding_idx for one in tables if one.padding_idx is not None), *_USUAL]:
        if least is None or number < least:
            yield number


def _ends_rows(number: float, name: str, module: nn.Module, named: Mapping[str, Tensor], call: Call) -> bool:
    value = named[name]
    if value.is_floating_point():
        full = torch.where(value == number, value + 1, value)
    else:
        full = elsewhere(value, number, int(value.min()), int(value.max()))
    before = _lengths(module, {**named, name: full}, call)
    for place, lengths in enumerate(before):
        for batch_axis, steps_axis in _layouts(value, len(lengths)):
            steps = value.shape[steps_axis]
            if steps > 1 and bool((lengths == steps).all()):
                # The last row, as some take rows in decreasing order only.
                wanted = [steps] * (len(lengths) - 1) + [steps // 2]
                short = padded_behind(full, wanted, number, batch_axis, steps_axis)
                after = _lengths(module, {**named, name: short}, call)
                if len(after) == len(before) and after[place].tolist() == wanted:
                    return True
    return False


def _layouts(value: Tensor, rows: int) -> list[tuple[int, int]]:
    return [(axis, 1 - axis) for axis in (0, 1) if value.shape[axis] == rows]


def _lengths(module: nn.Module, named: Mapping[str, Tensor], call: Call) -> list[Tensor]:
    return _of_rows(packed_by(module, lambda: call(list(named.values()))))


def _of_rows(packed: Sequence[Tensor]) -> list[Tensor]:
    return [lengths for lengths in packed if lengths.dim() == 1]
