"""Parameter names of ``torch.nn.RNN/GRU/LSTM`` and of rnncore's stacks, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def torch_to_stack(num_layers: int, bidirectional: bool) -> dict[str, str]:
    """Torch's flat name -> path inside a stack, such as ``weight_ih_l1_reverse -> layers.1.backward_layer.cell.weight_ih``.

    Lists every name that can exist; a layer without bias or projection simply lacks those.
    """
    directions = {"": "forward_layer.", "_reverse": "backward_layer."} if bidirectional else {"": ""}
    return {
        f"{parameter}_l{layer}{suffix}": f"layers.{layer}.{direction}cell.{parameter}"
        for layer in range(num_layers)
        for suffix, direction in directions.items()
        for parameter in PARAMETERS
    }


def rename_keys(state_dict: dict[str, Any], prefix: str, names: Mapping[str, str]) -> None:
    """Rename ``prefix + old`` to ``prefix + new`` in place for every key present, keeping the order of the rest."""
    for old, new in names.items():
        if prefix + old in state_dict:
            state_dict[prefix + new] = state_dict.pop(prefix + old)


def accept_torch_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load hook of a module with ``torch_names``: state dicts of ``torch.nn.RNN/GRU/LSTM`` load as they are."""
    rename_keys(state_dict, prefix, module.torch_names)  # type: ignore[arg-type]


def give_torch_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Save hook of a module with ``torch_names``: its state dict is one of ``torch.nn.RNN/GRU/LSTM``."""
    rename_keys(state_dict, prefix, {new: old for old, new in module.torch_names.items()})  # type: ignore[union-attr, operator]
