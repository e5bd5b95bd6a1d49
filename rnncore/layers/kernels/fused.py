"""torch's fused kernels for the cells whose equations they share: an optimisation, never a second definition.

A property test holds every result and gradient here to :func:`rnncore.layers.loop.run_loop`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from rnncore.cells import Cell, GRUCell, LSTMCell, RNNCell

Kernel = Callable[..., Any]

MOST_PACKED = 64
"""Steps that are packed at once: torch's gradient of a packed sequence takes time by the square of its steps."""


def fused_kernel(cell: Cell) -> Kernel | None:
    """torch's kernel that computes exactly what ``cell`` defines, or None (a subclass may redefine anything)."""
    if type(cell) is RNNCell:
        return {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}.get(cell.activation)
    if not isinstance(cell, GRUCell | LSTMCell) or (cell.gate_activation, cell.activation) != ("sigmoid", "tanh"):
        return None
    if type(cell) is GRUCell and cell.reset == "after":
        return torch.gru
    if type(cell) is LSTMCell and not (cell.peephole or cell.coupled or cell.layer_norm):
        return torch.lstm
    return None


def run_fused(
    kernel: Kernel, cell: Cell, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None, *, reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """As :func:`rnncore.layers.loop.run_loop`, with ``lengths`` [batch] in place of a mask.

    x [batch, time, input_size] with time >= 1.  Outputs past a length are zero.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    weights = [w for w in (getattr(cell, name, None) for name in names) if w is not None]
    if x.is_cuda:
        put_in_one_chunk(kernel, cell, weights)
    options = (cell.bias, 1, 0.0, cell.training, False)
    if reverse:
        x = _reversed_in_time(x, lengths)
    hidden = tuple(s.unsqueeze(0).contiguous() for s in state)  # cuDNN takes no others, such as one start for all rows
    hx = hidden if kernel is torch.lstm else hidden[0]
    if lengths is None:
        y, *final = kernel(x, hx, weights, *options, True)
        new_state = tuple(f.squeeze(0) for f in final)
    else:
        y, new_state = _run_in_pieces(kernel, x, hidden, lengths, weights, options)
    return (_reversed_in_time(y, lengths) if reverse else y), new_state


def put_in_one_chunk(kernel: Kernel, cell: Any, weights: list[Tensor]) -> None:
    """Move a cell's weights side by side in memory, as cuDNN wants them; without that it copies them at every call, and warns.

    As :meth:`torch.nn.RNNBase.flatten_parameters`.  The parameters stay the same objects with the same numbers.  Nothing is
    done to weights that are computed, and while a program is traced or compiled.
    """
    first = weights[0]
    pointers = {weight.data_ptr() for weight in weights if isinstance(weight, nn.Parameter)}
    if len({weight.untyped_storage().data_ptr() for weight in weights}) == 1 or torch.compiler.is_compiling():
        return
    if len(pointers) < len(weights) or not torch.backends.cudnn.is_acceptable(first):
        return
    projection = getattr(cell, "projection", None) or 0
    with torch.cuda.device_of(first), torch.no_grad():
        torch._cudnn_rnn_flatten_weight(
            weights, len(weights), cell.input_size, _CUDNN[kernel], cell.hidden_size, projection, 1, True, False
        )


_CUDNN: dict[Kernel, int] = {torch.rnn_relu: 0, torch.rnn_tanh: 1, torch.lstm: 2, torch.gru: 3}
"""cuDNN's number of each kernel."""


def _run_in_pieces(
    kernel: Kernel, x: Tensor, hidden: tuple[Tensor, ...], lengths: Tensor, weights: list[Tensor], options: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """As :func:`_run_packed`, piece after piece, each beginning with the state of the one before."""
    if x.shape[1] <= MOST_PACKED:
        return _run_packed(kernel, x, hidden, lengths, weights, options)
    outputs = []
    for start in range(0, x.shape[1], MOST_PACKED):
        piece = x[:, start : start + MOST_PACKED]
        left = (lengths - start).clamp(0, piece.shape[1])
        y, state = _run_packed(kernel, piece, hidden, left, weights, options)
        hidden = tuple(one.unsqueeze(0) for one in state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def _run_packed(
    kernel: Kernel, x: Tensor, hidden: tuple[Tensor, ...], lengths: Tensor, weights: list[Tensor], options: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    # Packing refuses a length of 0: such a row takes one step on zeros whose result is then thrown away.
    packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None  # given because enforce_sorted is False
    hidden = tuple(h.index_select(1, order) for h in hidden)
    hx = hidden if kernel is torch.lstm else hidden[0]
    data, *final = kernel(packed.data, packed.batch_sizes, hx, weights, *options)
    y, _ = torch._VF._pad_packed_sequence(data, packed.batch_sizes, True, 0.0, x.shape[1])
    y = y.index_select(0, back)
    empty = (lengths == 0).unsqueeze(1)
    y = y.masked_fill(empty.unsqueeze(2), 0.0)
    new_state = tuple(
        torch.where(empty, old.squeeze(0).index_select(0, back), new.squeeze(0).index_select(0, back))
        for old, new in zip(hidden, final, strict=True)
    )
    return y, new_state


def _reversed_in_time(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row [time, ...] reversed within its length; the padding stays where it is."""
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    mirrored = lengths.unsqueeze(1) - 1 - steps
    index = torch.where(mirrored >= 0, mirrored, steps).unsqueeze(2).expand_as(x)
    return x.gather(1, index)
