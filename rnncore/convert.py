"""``convert``: the same module with rnncore's layers in place of ``torch.nn.RNN``, ``GRU`` and ``LSTM``."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore.layers import GRU, LSTM, RNN, State
from rnncore.layers.torch_names import accept_torch_names, give_torch_names
from rnncore.runtime.errors import InputError

M = TypeVar("M", bound=nn.Module)


class ConvertedLayer(nn.Module):
    """Drop-in for one ``torch.nn.RNN``, ``GRU`` or ``LSTM``: same calls, results, gradients and state dict.

    Takes and gives what the torch module does: its ``batch_first``, an unbatched 2-D input, a
    ``PackedSequence``, states as [num_layers * directions, batch, size].  The work is done by ``self.stack``.
    """

    def __init__(self, source: nn.RNN | nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.input_size = source.input_size
        self.hidden_size = source.hidden_size
        self.num_layers = source.num_layers
        self.bias = source.bias
        self.batch_first = source.batch_first
        self.dropout = source.dropout
        self.bidirectional = source.bidirectional
        self.proj_size = source.proj_size
        self.mode = source.mode
        self.stack = _stack_like(source)
        self.torch_names = {old: f"stack.{new}" for old, new in self.stack.torch_names.items()}
        self.register_load_state_dict_pre_hook(accept_torch_names)
        self.register_state_dict_post_hook(give_torch_names)
        self.load_state_dict(source.state_dict())
        mine = dict(self.named_parameters())
        for name, parameter in source.named_parameters():
            mine[self.torch_names[name]].requires_grad_(parameter.requires_grad)
        self.train(source.training)

    def flatten_parameters(self) -> None:
        """Nothing to do; here because code written for torch calls it."""

    def __getattr__(self, name: str) -> Any:
        """Torch's flat parameter names, such as ``weight_hh_l0``, still read."""
        names = self.__dict__.get("torch_names", {})
        if name in names:
            return self.get_parameter(names[name])
        return super().__getattr__(name)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """As the torch module it replaces."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        unbatched = input.dim() == 2
        if unbatched:
            x = input.unsqueeze(0)
            hx = None if hx is None else _map_state(lambda s: s.unsqueeze(1), hx)
        else:
            x = input if self.batch_first else input.transpose(0, 1)
        y, state = self.stack(x, self._unpack_state(hx))
        hx = self._pack_state(state)
        if unbatched:
            return y.squeeze(0), _map_state(lambda s: s.squeeze(1), hx)
        return (y if self.batch_first else y.transpose(0, 1)), hx

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        y, state = self.stack(x, self._unpack_state(hx), lengths.to(x.device))
        if packed.sorted_indices is not None:
            y, lengths = y.index_select(0, packed.sorted_indices), lengths[packed.sorted_indices.cpu()]
        data = pack_padded_sequence(y, lengths, batch_first=True)
        result = PackedSequence(data.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return result, self._pack_state(state)

    def _unpack_state(self, hx: Any) -> State | None:
        """[layers * directions, batch, size] -> one state for each layer."""
        if hx is None:
            return None
        parts = hx if isinstance(hx, tuple | list) else (hx,)
        cells = list(zip(*(part.unbind(0) for part in parts), strict=True))
        if not self.bidirectional:
            return tuple(cells)
        return tuple(zip(cells[::2], cells[1::2], strict=True))

    def _pack_state(self, state: State) -> Any:
        cells = [cell for layer in state for cell in layer] if self.bidirectional else list(state)
        stacked = tuple(torch.stack(parts) for parts in zip(*cells, strict=True))
        return stacked if self.mode == "LSTM" else stacked[0]

    def extra_repr(self) -> str:
        """Mode and layout, as shown in ``repr``."""
        return f"from torch.nn {self.mode}, batch_first={self.batch_first}"


def _map_state(function: Any, hx: Any) -> Any:
    return tuple(function(s) for s in hx) if isinstance(hx, tuple | list) else function(hx)


def _stack_like(source: nn.RNN | nn.GRU | nn.LSTM) -> RNN | GRU | LSTM:
    sizes = (source.input_size, source.hidden_size, source.num_layers)
    weight = source.weight_ih_l0
    shared: dict[str, Any] = {
        "bias": source.bias,
        "dropout": source.dropout,
        "bidirectional": source.bidirectional,
        "device": weight.device,
        "dtype": weight.dtype,
    }
    if isinstance(source, nn.LSTM):
        return LSTM(*sizes, proj_size=source.proj_size, **shared)
    if isinstance(source, nn.GRU):
        return GRU(*sizes, **shared)
    return RNN(*sizes, nonlinearity=source.nonlinearity, **shared)


def _converted(layer: nn.Module, path: str) -> ConvertedLayer:
    if type(layer) not in (nn.RNN, nn.GRU, nn.LSTM):
        raise InputError(
            f"'{path}' is a {type(layer).__name__}, a subclass of torch.nn.{type(layer).__mro__[1].__name__} whose own "
            "behaviour would be lost; use the torch.nn class itself (remove weight_norm and other parametrizations first)"
        )
    return ConvertedLayer(layer)  # type: ignore[arg-type]


def convert(module: M) -> M:
    """A copy of ``module`` in which every ``torch.nn.RNN``, ``GRU`` and ``LSTM`` is an rnncore layer.

    Outputs, gradients and the state dict stay the same, in every option of the torch modules (layers, bidirectional,
    batch_first, bias, dropout, proj_size, tanh and relu).  The module itself is left as it was; when it is such a
    layer, its :class:`ConvertedLayer` is returned.

    Raises:
        InputError: a recurrent layer is a subclass with behaviour of its own, or carries a parametrization.
    """
    done: dict[nn.Module, ConvertedLayer] = {}

    def swap(parent: nn.Module, path: str) -> None:
        for name, child in parent.named_children():
            child_path = f"{path}.{name}" if path else name
            if isinstance(child, nn.RNNBase):
                if child not in done:
                    done[child] = _converted(child, child_path)
                setattr(parent, name, done[child])
            else:
                swap(child, child_path)

    if isinstance(module, nn.RNNBase):
        return _converted(module, type(module).__name__)  # type: ignore[return-value]
    module = copy.deepcopy(module)
    swap(module, "")
    return module
