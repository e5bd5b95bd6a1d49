"""``pack_padded_sequence`` and ``pad_packed_sequence`` in a user's forward, which torch cannot trace.

How many rows have a step t, which is what a PackedSequence is about, depends on values.  Padded data beside lengths says
the same and can be traced.  So while a module is exported, a ``PackedSequence`` holds

* ``data``: the padded sequences [batch, time, ...], batch first, in the order of the caller, and
* ``batch_sizes``: their lengths, int64 [batch];

torch's two functions make and read such objects, and :class:`rnncore.conversion.ConvertedLayer` computes on them.  What
user code does to ``packed.data`` step by step (a linear layer, dropout) means the same.  Layers of torch.nn that are not
converted, such as subclasses, get through their own ``forward`` with such an object as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType, FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import PackedSequence

from rnncore.export.tracing.counted_sizes import listed
from rnncore.export.tracing.longest_rows import mark_packed, mark_unpacked
from rnncore.layers.base import valid_steps
from rnncore.runtime.errors import ExportError

REWRITE = """pass padded sequences and their lengths, and pack inside:
    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])"""


class Packer(Protocol):
    """What stands in for torch's two functions."""

    def pack(self, input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
        """Stand in for ``pack_padded_sequence``."""
        ...

    def pad(
        self, sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: Any
    ) -> tuple[Tensor, Tensor]:
        """Stand in for ``pad_packed_sequence``."""
        ...

    def forward(self, layer: nn.RNNBase, sequence: PackedSequence, hx: Any) -> tuple[PackedSequence, Any] | None:
        """Stand in for the ``forward`` of a layer of torch.nn; None: let it run."""
        ...


_active: ContextVar[Packer | None] = ContextVar("rnncore_packer", default=None)


def _same(function: Any) -> Callable[..., Any]:
    """A copy of ``function`` that keeps its present code."""
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_PACK, _PAD = _same(rnn.pack_padded_sequence), _same(rnn.pad_packed_sequence)
_FORWARDS = {kind: _same(kind.forward) for kind in (nn.RNN, nn.GRU, nn.LSTM)}


def packed(input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
    """What ``pack_padded_sequence`` gives in this thread."""
    packer = _active.get()
    return (_PACK if packer is None else packer.pack)(input, lengths, batch_first, enforce_sorted)


def padded(
    sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: Any
) -> tuple[Tensor, Tensor]:
    """What ``pad_packed_sequence`` gives in this thread."""
    packer = _active.get()
    return (_PAD if packer is None else packer.pad)(sequence, batch_first, padding_value, total_length)


def forwarded(layer: nn.RNNBase, input: Any, hx: Any) -> Any:
    """What the ``forward`` of ``torch.nn.RNN``, ``GRU`` and ``LSTM`` gives in this thread."""
    packer = _active.get()
    if packer is not None and isinstance(input, PackedSequence):
        found = packer.forward(layer, input, hx)
        if found is not None:
            return found
    return next(forward for kind, forward in _FORWARDS.items() if isinstance(layer, kind))(layer, input, hx)


# Their code runs in the place of torch's, with the globals of torch's module: hence the imports inside.
def _pack(input, lengths, batch_first=False, enforce_sorted=True):  # type: ignore[no-untyped-def]
    from rnncore.export.tracing.packing import packed

    return packed(input, lengths, batch_first, enforce_sorted)


def _pad(sequence, batch_first=False, padding_value=0.0, total_length=None):  # type: ignore[no-untyped-def]
    from rnncore.export.tracing.packing import padded

    return padded(sequence, batch_first, padding_value, total_length)


def _forward(self, input, hx=None):  # type: ignore[no-untyped-def]
    from rnncore.export.tracing.packing import forwarded

    return forwarded(self, input, hx)


_lock = threading.Lock()
_users = 0


@contextmanager
def packing_by(packer: Packer) -> Iterator[None]:
    """Let ``packer`` stand in for torch's functions in this thread.

    User code holds the functions under names of its own (``from torch.nn.utils.rnn import ...``), so the functions stay
    and their code is exchanged; other threads see no difference.
    """
    token = _active.set(packer)
    _exchange(+1, _pack.__code__, _pad.__code__, {kind: _forward.__code__ for kind in _FORWARDS})
    try:
        yield
    finally:
        _exchange(-1, _PACK.__code__, _PAD.__code__, {kind: same.__code__ for kind, same in _FORWARDS.items()})
        _active.reset(token)


@contextmanager
def packing_by_torch() -> Iterator[None]:
    """Let torch's own functions work inside the block, whoever stands in for them around it."""
    token = _active.set(None)
    try:
        yield
    finally:
        _active.reset(token)


def _exchange(change: int, pack: CodeType, pad: CodeType, forwards: Mapping[type[nn.RNNBase], CodeType]) -> None:
    """Count who is inside; the first who enters and the last who leaves put the given code in place."""
    global _users
    with _lock:
        before, _users = _users, _users + change
        if 0 in (before, _users):
            rnn.pack_padded_sequence.__code__, rnn.pad_packed_sequence.__code__ = pack, pad
            for kind, code in forwards.items():
                kind.forward.__code__ = code


class PackObserver:
    """Lets torch's functions work, and remembers which lengths were packed with, and whether they had to be sorted."""

    def __init__(self) -> None:
        self.lengths: list[Any] = []
        self.sorted = False

    def pack(self, input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
        """As torch does."""
        self.lengths.append(lengths)
        self.sorted = self.sorted or enforce_sorted
        return _PACK(input, lengths, batch_first, enforce_sorted)

    def pad(
        self, sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: Any
    ) -> tuple[Tensor, Tensor]:
        """As torch does."""
        return _PAD(sequence, batch_first, padding_value, total_length)

    def forward(self, layer: nn.RNNBase, sequence: PackedSequence, hx: Any) -> None:
        """As torch does."""

    def packed_with(self, tensor: Tensor) -> bool:
        """Whether ``tensor``, an input of the module, or a copy of it gave the lengths."""
        for lengths in self.lengths:
            if lengths is tensor:
                return True
            lengths = torch.as_tensor(lengths)
            if tensor.dim() == 1 and not tensor.is_floating_point() and lengths.shape == tensor.shape:
                return bool(torch.equal(lengths.cpu().long(), tensor.cpu().long()))
        return False


class PaddedPacker:
    """Makes and reads PackedSequences of padded data; see the top of this file.

    listed: lengths may be plain lists, as nothing is kept of this run.  mark: say where rows are packed and unpacked.
    """

    def __init__(self, *, listed: bool = False, mark: bool = False) -> None:
        self._listed = listed
        self._mark = mark

    def pack(self, input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
        """Padded data and lengths, in the order of the caller, sorted or not; ExportError where a trace would freeze these."""
        lengths = listed(lengths)
        if self._listed and isinstance(lengths, list | tuple) and all(isinstance(n, Tensor) for n in lengths):
            lengths = torch.stack(list(lengths))
        elif self._listed:
            lengths = torch.as_tensor(lengths)
        if not isinstance(lengths, Tensor):
            raise ExportError(
                f"pack_padded_sequence got its lengths as a {type(lengths).__name__}, which would be frozen; hand over "
                "the tensor that came into forward, pack_padded_sequence(x, lengths.cpu(), ...)"
            )
        data, lengths = input if batch_first else input.transpose(0, 1), lengths.to("cpu", torch.int64)
        return PackedSequence(mark_packed(data, lengths) if self._mark else data, lengths)

    def pad(
        self, sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: Any
    ) -> tuple[Tensor, Tensor]:
        """Data with ``padding_value`` past each length: ``total_length`` steps, else as many as were packed.

        The longest row may be shorter than these; see :mod:`rnncore.export.tracing.longest_rows`.
        """
        data, lengths = sequence.data, sequence.batch_sizes
        time = data.shape[1]
        padding = ~valid_steps(lengths.to(data.device), time)
        y = data.masked_fill(padding.reshape(*padding.shape[:2], *[1] * (data.dim() - 2)), padding_value)
        if total_length is None and self._mark:
            y = mark_unpacked(y, lengths)
        elif total_length is not None and str(total_length) != str(time):
            more = (y.shape[0], total_length - time, *y.shape[2:])
            y = torch.cat([y, y.new_full(more, padding_value)], 1)
        return (y if batch_first else y.transpose(0, 1).contiguous()), lengths

    def forward(self, layer: nn.RNNBase, sequence: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """The layer's function of torch with padded data, where torch has packed data, and lengths, where it has sizes."""
        layer._update_flat_weights()
        data, lengths = sequence.data, sequence.batch_sizes
        if hx is None:
            rows = layer.num_layers * (2 if layer.bidirectional else 1)
            h = data.new_zeros(rows, data.shape[0], layer.proj_size or layer.hidden_size)
            hx = (h, data.new_zeros(rows, data.shape[0], layer.hidden_size)) if layer.mode == "LSTM" else h
        options = (layer.bias, layer.num_layers, layer.dropout, layer.training, layer.bidirectional)
        function = getattr(torch, layer.mode.lower())
        y, *final = function(data, lengths, hx, layer._flat_weights, *options)
        return PackedSequence(y, lengths), tuple(final) if layer.mode == "LSTM" else final[0]
