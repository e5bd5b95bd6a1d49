"""Recurrences of the last years: state spaces, linear attention, minimal and continuous-time cells."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.zoo.subject import Call, Subject, entry


def _language(module: torch.nn.Module, vocabulary: int = 40) -> Subject:
    call = Call(module, lambda m, ids: m(input_ids=ids, use_cache=False).logits)
    return Subject(call, lambda b, t: torch.randint(vocabulary, (b, t)), causal=True)


@entry("transformers", "MambaForCausalLM")
def _mamba() -> Subject:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=2, time_step_rank=3)
    return _language(MambaForCausalLM(config))


@entry("transformers", "Mamba2ForCausalLM")
def _mamba2() -> Subject:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(
        vocab_size=40,
        hidden_size=16,
        state_size=8,
        num_hidden_layers=2,
        num_heads=4,
        head_dim=8,
        n_groups=1,
        chunk_size=8,
    )
    return _language(Mamba2ForCausalLM(config))


@entry("transformers", "FalconMambaForCausalLM")
def _falcon() -> Subject:
    from transformers import FalconMambaConfig, FalconMambaForCausalLM

    config = FalconMambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=1, time_step_rank=3)
    return _language(FalconMambaForCausalLM(config))


@entry("transformers", "RwkvForCausalLM")
def _rwkv() -> Subject:
    from transformers import RwkvConfig, RwkvForCausalLM

    config = RwkvConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, context_length=128
    )
    return _language(RwkvForCausalLM(config))


@entry("transformers", "RecurrentGemma RG-LRU")
def _rg_lru() -> Subject:
    from transformers import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    config = RecurrentGemmaConfig(hidden_size=16, lru_width=16, num_attention_heads=2)
    module = RecurrentGemmaRglru(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)

    class Fresh(torch.nn.Module):
        """It keeps the last state in an attribute: here, as in its own model without a cache, each call begins anew."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
            self.module.recurrent_states = None
            return self.module(x, position_ids)

    return Subject(Fresh(), lambda b, t: (torch.randn(b, t, 16), torch.arange(t).expand(b, t).clone()), causal=True)


@entry("transformers", "RecurrentGemmaForCausalLM")
def _recurrent_gemma() -> Subject:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    config = RecurrentGemmaConfig(
        vocab_size=40,
        hidden_size=16,
        lru_width=16,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        block_types=["recurrent"],
    )

    class Positions(torch.nn.Module):
        """Positions are an input, or a stream would begin anew with each chunk; without attention there is no mask to make."""

        def __init__(self) -> None:
            super().__init__()
            self.model = RecurrentGemmaForCausalLM(config)

        def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            mask = {"sliding_attention": None}
            return self.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).logits

    module = Positions().float()  # the package keeps one number in bfloat16
    return Subject(module, lambda b, t: (torch.randint(40, (b, t)), torch.arange(t).expand(b, t).clone()), causal=True)


@entry("transformers", "xLSTMForCausalLM")
def _xlstm_language() -> Subject:
    import transformers.utils

    transformers.utils.is_xlstm_available = lambda: False  # type: ignore[assignment]  # else it wants kernels for GPUs
    from transformers import xLSTMConfig, xLSTMForCausalLM

    config = xLSTMConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_heads=2, autocast_kernel_dtype="float32"
    )
    return _language(xLSTMForCausalLM(config))


@entry("transformers", "EncodecModel encoder")
def _encodec() -> Subject:
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(num_filters=4, hidden_size=16, upsampling_ratios=[4, 2], num_lstm_layers=1)
    module = EncodecModel(config).encoder
    sizes = ((2, 320), (1, 240), (3, 400), (1, 640))  # it pads by reflection, which looks ahead at the start
    return Subject(module, lambda b, t: torch.randn(b, 1, t), sizes=sizes)


@entry("mambapy", "Mamba (parallel scan)")
def _mambapy_scan() -> Subject:
    from mambapy.mamba import Mamba, MambaConfig

    return Subject(
        Mamba(MambaConfig(d_model=12, n_layers=2, d_state=4)), lambda b, t: torch.randn(b, t, 12), causal=True
    )


@entry("mambapy", "Mamba (sequential)")
def _mambapy() -> Subject:
    from mambapy.mamba import Mamba, MambaConfig

    module = Mamba(MambaConfig(d_model=12, n_layers=2, d_state=4, pscan=False))
    return Subject(module, lambda b, t: torch.randn(b, t, 12), causal=True)


@entry("mambapy", "MambaBlock.step")
def _mambapy_step() -> Subject:
    from mambapy.mamba import MambaBlock, MambaConfig

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = MambaBlock(MambaConfig(d_model=12, n_layers=1, d_state=4))

        def forward(self, x: torch.Tensor, h: torch.Tensor, inputs: torch.Tensor) -> Any:
            y, (h, inputs) = self.block.step(x, (h, inputs))
            return y, h, inputs

    return Subject(
        Step(),
        lambda b, t: (torch.randn(b, 12), torch.zeros(b, 24, 4), torch.zeros(b, 24, 3)),
        causal=True,
        carried={"h": 1, "inputs": 2},
    )


@entry("mambapy", "Jamba")
def _jamba() -> Subject:
    from mambapy.jamba import JambaLM, JambaLMConfig

    config = JambaLMConfig(
        d_model=16,
        n_layers=2,
        mlp_size=16,
        d_state=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=1,
        num_experts_per_tok=1,
        vocab_size=40,
        pscan=False,
    )
    return Subject(JambaLM(config), lambda b, t: torch.randint(40, (b, t)))


@entry("minGRU-pytorch", "minGRU")
def _min_gru() -> Subject:
    from minGRU_pytorch import minGRU

    return Subject(minGRU(12), lambda b, t: torch.randn(b, t, 12), causal=True)


@entry("ncps", "CfC")
def _cfc() -> Subject:
    from ncps.torch import CfC

    return Subject(CfC(9, 14), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("ncps", "CfC with mixed memory")
def _cfc_mixed() -> Subject:
    from ncps.torch import CfC

    return Subject(CfC(9, 14, mixed_memory=True), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("ncps", "CfC with AutoNCP wiring")
def _cfc_wired() -> Subject:
    from ncps.torch import CfC
    from ncps.wirings import AutoNCP

    return Subject(CfC(9, AutoNCP(16, 4)), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("ncps", "LTC")
def _ltc() -> Subject:
    from ncps.torch import LTC

    return Subject(LTC(9, 8), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("ncps", "LTC with AutoNCP wiring")
def _ltc_wired() -> Subject:
    from ncps.torch import LTC
    from ncps.wirings import AutoNCP

    return Subject(LTC(9, AutoNCP(12, 3)), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("xlstm", "mLSTMLayer")
def _mlstm() -> Subject:
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    module = mLSTMLayer(mLSTMLayerConfig(embedding_dim=16, context_length=128, num_heads=2))
    return Subject(module, lambda b, t: torch.randn(b, t, 16), causal=True)


@entry("xlstm", "sLSTMLayer")
def _slstm() -> Subject:
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    config = sLSTMLayerConfig(embedding_dim=16, num_heads=2, backend="vanilla")
    module = sLSTMLayer(config)
    module.reset_parameters()
    return Subject(module, lambda b, t: torch.randn(b, t, 16), causal=True)


@entry("xlstm", "xLSTMBlockStack")
def _xlstm() -> Subject:
    from xlstm import (
        FeedForwardConfig,
        mLSTMBlockConfig,
        mLSTMLayerConfig,
        sLSTMBlockConfig,
        sLSTMLayerConfig,
        xLSTMBlockStack,
        xLSTMBlockStackConfig,
    )

    config = xLSTMBlockStackConfig(
        mlstm_block=mLSTMBlockConfig(mlstm=mLSTMLayerConfig(num_heads=2)),
        slstm_block=sLSTMBlockConfig(
            slstm=sLSTMLayerConfig(backend="vanilla", num_heads=2), feedforward=FeedForwardConfig(proj_factor=1.3)
        ),
        context_length=64,
        num_blocks=2,
        embedding_dim=16,
        slstm_at=[1],
    )
    return Subject(xLSTMBlockStack(config), lambda b, t: torch.randn(b, t, 16), causal=True)
