"""Recognition, tagging, floods and play: packages that were tried after the first list was done."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.zoo.subject import Call, Subject, entry


def _full(features: int) -> Any:
    return lambda b, t: (torch.randn(b, t, features), torch.full((b,), t))


@entry("espnet", "rnn.encoders.RNN")
def _espnet_rnn() -> Subject:
    from espnet.nets.pytorch_backend.rnn.encoders import RNN

    return Subject(RNN(4, 2, 6, 5, 0.0, "blstm"), _full(4))


@entry("espnet", "rnn.encoders.RNNP")
def _espnet_pyramid() -> Subject:
    import numpy as np
    from espnet.nets.pytorch_backend.rnn.encoders import RNNP

    return Subject(RNNP(4, 2, 6, 5, np.array([1, 2, 1]), 0.0, "blstm"), _full(4))


@entry("espnet", "espnet2 RNNEncoder")
def _espnet2_encoder() -> Subject:
    from espnet2.asr.encoder.rnn_encoder import RNNEncoder

    return Subject(RNNEncoder(4, num_layers=2, hidden_size=6, output_size=5, subsample=(1, 2)), _full(4))


@entry("espnet", "espnet2 VGGRNNEncoder")
def _espnet2_vgg() -> Subject:
    from espnet2.asr.encoder.vgg_rnn_encoder import VGGRNNEncoder

    return Subject(VGGRNNEncoder(8, num_layers=1, hidden_size=6, output_size=5), _full(8))


@entry("espnet", "espnet2 SequentialRNNLM")
def _espnet2_lm() -> Subject:
    from espnet2.lm.seq_rnn_lm import SequentialRNNLM

    return Subject(SequentialRNNLM(20, 8, 8, 2), lambda b, t: (torch.randint(1, 20, (b, t)), None), causal=True)


@entry("espnet", "espnet2 DPRNN")
def _espnet2_dprnn() -> Subject:
    from espnet2.enh.layers.dprnn import DPRNN

    return Subject(DPRNN("LSTM", 4, 6, 5), lambda b, t: torch.randn(b, 4, t, 6))


@entry("pytorch-crf", "CRF")
def _crf() -> Subject:
    from torchcrf import CRF

    def draw(b: int, t: int) -> tuple[Any, ...]:
        return torch.randn(b, t, 5), torch.randint(0, 5, (b, t)), torch.ones(b, t).bool(), "none"

    return Subject(CRF(5, batch_first=True), draw)


@entry("flood-forecast", "VanillaGRU")
def _flood() -> Subject:
    from flood_forecast.basic.gru_vanilla import VanillaGRU

    return Subject(VanillaGRU(4, 8, 2, 1, 0.0), lambda b, t: torch.randn(b, t, 4))


@entry("flood-forecast", "DARNN")
def _darnn() -> Subject:
    from flood_forecast.da_rnn.model import DARNN

    sizes = ((2, 15), (1, 15), (3, 15))
    return Subject(DARNN(4, 6, 16, 5), lambda b, t: torch.randn(b, 15, 4), sizes=sizes)


@entry("rl-games", "GRUWithDones")
def _games() -> Subject:
    from rl_games.common.layers.recurrent import GRUWithDones

    call = Call(GRUWithDones(4, 6), lambda m, x: m(x, torch.zeros(1, x.shape[1], 6))[0])
    return Subject(call, lambda b, t: torch.randn(t, b, 4), causal=True)
