"""``convert``: the same module with rnncore's layers in place of ``torch.nn.RNN``, ``GRU`` and ``LSTM``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore.cells import Cell
from rnncore.layers import GRU, LSTM, RNN, State
from rnncore.layers.torch_names import accept_torch_names, give_torch_names
from rnncore.placeholder import active_recorder
from rnncore.runtime.errors import InputError, StateError, raise_all

M = TypeVar("M", bound=nn.Module)


class ConvertedLayer(nn.Module):
    """Drop-in for one ``torch.nn.RNN``, ``GRU`` or ``LSTM``: same calls, results, gradients and state dict.

    Takes and gives what the torch module does: its ``batch_first``, an unbatched 2-D input, a
    ``PackedSequence``, states as [num_layers * directions, batch, size].  The work is done by ``self.stack``, whose
    parameters are the very objects of ``source``, so that whatever else shares them goes on sharing them.
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
        if isinstance(source, nn.RNN):
            self.nonlinearity = source.nonlinearity
        with torch.device("meta"):  # no memory, and no random numbers drawn, for weights that are replaced at once
            self.stack = _stack_like(source)
        self.torch_names = {old: f"stack.{new}" for old, new in self.stack.torch_names.items()}
        self.register_load_state_dict_pre_hook(accept_torch_names)
        self.register_state_dict_post_hook(give_torch_names)
        for name, parameter in source._parameters.items():
            setattr(self, name, parameter)
        self.train(source.training)

    def flatten_parameters(self) -> None:
        """Nothing to do; here because code written for torch calls it."""

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """As in torch: the parameters of each layer and direction."""
        cells = [module for module in self.stack.modules() if isinstance(module, Cell)]
        return [list(cell.parameters()) for cell in cells]

    def __getattr__(self, name: str) -> Any:
        """Torch's flat parameter names, such as ``weight_hh_l0``, still read."""
        names = self.__dict__.get("torch_names", {})
        if name in names:
            return self.get_parameter(names[name])
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Torch's flat parameter names still write: a second parameter beside the one in use would do nothing."""
        path = self.__dict__.get("torch_names", {}).get(name)
        if path is None:
            super().__setattr__(name, value)
        else:
            owner, _, parameter = path.rpartition(".")
            setattr(self.get_submodule(owner), parameter, value)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """As the torch module it replaces.

        Raises:
            InputError: input of the wrong rank, width or dtype.
            StateError: hx that does not fit the layer or the batch.
        """
        if isinstance(input, PackedSequence):
            if active_recorder() is not None:
                return self._forward_padded(input, hx)
            return self._forward_packed(input, hx)
        self._check_rank(input)
        unbatched = input.dim() == 2
        if unbatched:
            x = input.unsqueeze(0)
        else:
            x = input if self.batch_first else input.transpose(0, 1)
        y, state = self.stack(x, self._unpack_state(hx, None if unbatched else x.shape[0]))
        hx = self._pack_state(state)
        if unbatched:
            return y.squeeze(0), _map_state(lambda s: s.squeeze(1), hx)
        # Contiguous, as torch's result is: code that goes on with y.view(...) relies on it.
        return (y if self.batch_first else y.transpose(0, 1).contiguous()), hx

    def _check_rank(self, x: Any) -> None:
        if not isinstance(x, Tensor):
            raise InputError(f"input is a {type(x).__name__}, expected a tensor or a PackedSequence")
        if x.dim() not in (2, 3):
            axes = f"batch, time, {self.input_size}" if self.batch_first else f"time, batch, {self.input_size}"
            raise InputError(
                f"input has shape {tuple(x.shape)}, expected [{axes}], unbatched [time, {self.input_size}], "
                "or a PackedSequence"
            )

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        y, state = self.stack(x, self._unpack_state(hx, x.shape[0]), lengths.to(x.device))
        if packed.sorted_indices is not None:
            y, lengths = y.index_select(0, packed.sorted_indices), lengths[packed.sorted_indices.cpu()]
        data = pack_padded_sequence(y, lengths, batch_first=True)
        result = PackedSequence(data.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return result, self._pack_state(state)

    def _forward_padded(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """In an export, a PackedSequence holds padded data [batch, time, features] and lengths for batch sizes."""
        x, lengths = packed.data, packed.batch_sizes
        y, state = self.stack(x, self._unpack_state(hx, x.shape[0]), lengths.to(x.device))
        return PackedSequence(y, lengths), self._pack_state(state)

    def _unpack_state(self, hx: Any, batch: int | None) -> State | None:
        """[layers * directions, batch, size], without batch where that is None -> one state for each layer."""
        if hx is None:
            return None
        parts = self._checked_parts(hx, batch)
        if batch is None:
            parts = [part.unsqueeze(1) for part in parts]
        cells = list(zip(*(part.unbind(0) for part in parts), strict=True))
        if not self.bidirectional:
            return tuple(cells)
        return tuple(zip(cells[::2], cells[1::2], strict=True))

    def _checked_parts(self, hx: Any, batch: int | None) -> list[Tensor]:
        """The tensors of ``hx``; raises StateError unless they are torch's h, or (h, c) for an LSTM."""
        is_sequence = isinstance(hx, tuple | list)
        if self.mode == "LSTM" and (not is_sequence or len(hx) != 2):
            got = f"has {len(hx)} entries" if is_sequence else f"is a {type(hx).__name__}"
            raise StateError(f"hx {got}, expected (h, c)")
        if self.mode != "LSTM" and not isinstance(hx, Tensor):
            raise StateError(f"hx is a {type(hx).__name__}, expected h, a tensor")
        rows = self.num_layers * (2 if self.bidirectional else 1)
        sizes = {"h": self.proj_size or self.hidden_size, "c": self.hidden_size}
        parts: list[Any] = list(hx) if is_sequence else [hx]
        problems = []
        for part, (name, size) in zip(parts, sizes.items(), strict=False):
            shape = (rows, size) if batch is None else (rows, batch, size)
            if not isinstance(part, Tensor):
                problems.append(f"hx: {name} is a {type(part).__name__}, expected a tensor")
            elif part.dim() != len(shape) or any(a != b for a, b in zip(part.shape, shape, strict=True)):
                axes = "(layers * directions, size)" if batch is None else "(layers * directions, batch, size)"
                problems.append(f"hx: {name} has shape {tuple(part.shape)}, expected {list(shape)} {axes}")
        raise_all(problems, StateError)
        return parts

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
    shared: dict[str, Any] = {
        "bias": source.bias,
        "dropout": source.dropout,
        "bidirectional": source.bidirectional,
    }
    if isinstance(source, nn.LSTM):
        return LSTM(*sizes, proj_size=source.proj_size, **shared)
    if isinstance(source, nn.GRU):
        return GRU(*sizes, **shared)
    return RNN(*sizes, nonlinearity=source.nonlinearity, **shared)


def _check_convertible(layer: nn.RNNBase, path: str) -> None:
    """Raise InputError where conversion would lose something that ``layer`` does."""
    if type(layer) not in (nn.RNN, nn.GRU, nn.LSTM):
        base = next((base for base in (nn.RNN, nn.GRU, nn.LSTM) if isinstance(layer, base)), nn.RNNBase)
        raise InputError(
            f"'{path}' is a {type(layer).__name__}, a subclass of torch.nn.{base.__name__} whose own "
            "behaviour would be lost; use the torch.nn class itself (remove weight_norm and other parametrizations first)"
        )
    expected = set(layer._flat_weights_names)
    present = {*layer._parameters, *layer._buffers}
    if expected != present:
        raise InputError(
            f"'{path}' has {', '.join(sorted(present - expected))} in place of {', '.join(sorted(expected - present))}; "
            "remove weight_norm, pruning and the like first, which would be lost"
        )
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)):
        raise InputError(
            f"'{path}' has hooks, which would be lost; remove them first and register them on the result of convert"
        )


def convert(module: M) -> M:
    """A copy of ``module`` in which every ``torch.nn.RNN``, ``GRU`` and ``LSTM`` is an rnncore layer.

    Outputs, gradients and the state dict stay the same, in every option of the torch modules (layers, bidirectional,
    batch_first, bias, dropout, proj_size, tanh and relu).  The module itself is left as it was; when it is such a
    layer, its :class:`ConvertedLayer` is returned.

    Raises:
        InputError: a recurrent layer is a subclass with behaviour of its own, or carries a parametrization or hooks.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module is a {type(module).__name__}, expected a torch.nn.Module")
    # Before the copy: torch cannot copy a module with weight_norm on it, and says so less clearly.
    for path, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase):
            _check_convertible(layer, path or type(layer).__name__)
    return _exchanged(copy.deepcopy(module), is_convertible=lambda layer: True)


def convert_plain_layers(module: M) -> M:
    """``module`` itself, with rnncore's layers in place of those that :func:`convert` takes; others stay as they are."""
    return _exchanged(module, is_convertible=_is_plain)


def _is_plain(layer: nn.RNNBase) -> bool:
    try:
        _check_convertible(layer, "")
    except InputError:
        return False
    return True


def _exchanged(module: M, is_convertible: Callable[[nn.RNNBase], bool]) -> M:
    if isinstance(module, nn.RNNBase) and is_convertible(module):
        return ConvertedLayer(module)  # type: ignore[return-value, arg-type]
    done: dict[nn.Module, nn.Module] = {}
    for parent in list(module.modules()):
        # Not named_children(): that leaves out the second name of a layer that has two.
        for name, child in list(parent._modules.items()):
            if isinstance(child, nn.RNNBase) and is_convertible(child):
                if child not in done:
                    done[child] = ConvertedLayer(child)  # type: ignore[arg-type]
                setattr(parent, name, done[child])
    return module
