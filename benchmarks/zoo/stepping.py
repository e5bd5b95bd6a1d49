"""How packages compute one step of a sequence in torch, with the state of the steps before it, where they can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[nn.Module, tuple[Tensor, ...], Any], tuple[Tensor, Any]]
"""(module of the zoo, inputs of one step, state or None at the start) -> (output, state)."""


def _cached(name: str) -> Step:
    """A language model of transformers that takes its cache as ``name``."""

    def step(module: nn.Module, inputs: tuple[Tensor, ...], state: Any) -> tuple[Tensor, Any]:
        found = module.module(input_ids=inputs[0], use_cache=True, **{name: state})
        return found.logits, getattr(found, name)

    return step


def _gemma(module: nn.Module, inputs: tuple[Tensor, ...], state: Any) -> tuple[Tensor, Any]:
    from transformers import DynamicCache

    ids, positions = inputs
    options = {"attention_mask": {"sliding_attention": None}, "use_cache": True, "cache": state}
    found = module.model(input_ids=ids, position_ids=positions, **options)
    # The cache is that of attention, of which there is none; all else is in attributes.
    return found.logits, DynamicCache() if state is None else state


def _rg_lru(module: nn.Module, inputs: tuple[Tensor, ...], state: Any) -> tuple[Tensor, Any]:
    if state is None:  # it keeps its state in an attribute
        module.module.recurrent_states = None
    return module.module(*inputs), True


def _by_step(module: nn.Module, inputs: tuple[Tensor, ...], state: Any) -> tuple[Tensor, Any]:
    return module.step(*inputs, **(state or {}))


def _by_second(module: nn.Module, inputs: tuple[Tensor, ...], state: Any) -> tuple[Tensor, Any]:
    return module(*inputs, state)


STEPS: dict[str, Step] = {
    "minGRU-pytorch.minGRU": lambda m, inputs, state: m(*inputs, state, return_next_prev_hidden=True),
    "ncps.CfC": _by_second,
    "ncps.LTC": _by_second,
    "transformers.MambaForCausalLM": _cached("cache_params"),
    "transformers.Mamba2ForCausalLM": _cached("cache_params"),
    "transformers.RwkvForCausalLM": _cached("state"),
    "transformers.RecurrentGemma RG-LRU": _rg_lru,
    "transformers.RecurrentGemmaForCausalLM": _gemma,
    "xlstm.mLSTMLayer": _by_step,
    "xlstm.sLSTMLayer": _by_step,
}
"""By key of the zoo.  The xLSTM of transformers is not among them: the cache that it makes has other sizes than it wants."""


def one_step(key: str, module: nn.Module, tensors: tuple[Tensor, ...]) -> Callable[[], Any]:
    """A call that computes the next step of the sequence ``tensors``, with its state, or without one where it cannot.

    Raises ValueError if the steps do not give what the module gives of the whole sequence.
    """
    steps = [tuple(tensor[:, t : t + 1] for tensor in tensors) for t in range(tensors[0].shape[1])]
    if key not in STEPS:
        return lambda: module(*steps[1])
    step, state, found = STEPS[key], None, []
    for inputs in steps:
        y, state = step(module, inputs, state)
        found.append(y)
    whole = module(*tensors)
    whole = whole[0] if isinstance(whole, tuple) else whole
    if not torch.allclose(torch.cat(found, 1), whole, atol=1e-4 * float(whole.abs().max())):
        raise ValueError(f"the steps of {key} in torch are not what it gives of the whole sequence")
    carried = [step(module, steps[0], None)[1]]

    def call() -> None:
        carried[0] = step(module, steps[1], carried[0])[1]

    return call
