"""Audio: recognition, synthesis, separation, codecs."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.zoo.subject import Call, Subject, entry

_AUDIO = ((2, 320), (1, 240), (3, 400), (1, 640))  # samples


@entry("torchaudio", "DeepSpeech")
def _deep_speech() -> Subject:
    from torchaudio.models import DeepSpeech

    return Subject(DeepSpeech(20, n_hidden=24, n_class=11), lambda b, t: torch.randn(b, 1, t, 20))


@entry("torchaudio", "rnnt._Predictor")
def _predictor() -> Subject:
    from torchaudio.models.rnnt import _Predictor

    module = _Predictor(29, 16, 12, 2, 20, lstm_layer_norm=True)
    return Subject(
        module,
        lambda b, t: (torch.randint(29, (b, t)), torch.full((b,), t, dtype=torch.int32)),
        causal=True,
        options={"lengths": False},  # it hands them through; the refusal says so
    )


@entry("torchaudio", "rnnt._CustomLSTM")
def _custom_lstm() -> Subject:
    from torchaudio.models.rnnt import _CustomLSTM

    module = Call(_CustomLSTM(9, 14, layer_norm=True), lambda lstm, x: lstm(x, None)[0])
    return Subject(module, lambda b, t: torch.randn(t, b, 9), causal=True)


@entry("torchaudio", "tacotron2._Encoder")
def _tacotron_encoder() -> Subject:
    from torchaudio.models.tacotron2 import _Encoder

    return Subject(
        _Encoder(16, 2, 5),
        lambda b, t: (torch.randn(b, 16, t), torch.full((b,), t, dtype=torch.int64)),
        options={"lengths": False},  # its convolutions see the padding; the refusal says so
    )


@entry("torchaudio", "tacotron2._Decoder")
def _tacotron_decoder() -> Subject:
    from torchaudio.models.tacotron2 import _Decoder

    module = _Decoder(8, 1, 16, 24, 20, 0.0, True, 20, 12, 4, 5, 0.0, 12, 0.5)
    for part in module.modules():  # its prenet drops out when evaluated, too
        if type(part).__name__ == "_Prenet":
            part.layers = nn.Sequential(*part.layers)
            part.forward = part.layers.forward  # type: ignore[method-assign]
    return Subject(
        module, lambda b, t: (torch.randn(b, 7, 16), torch.randn(b, 8, t), torch.full((b,), 7, dtype=torch.int64))
    )


@entry("torchaudio", "WaveRNN")
def _wavernn() -> Subject:
    from torchaudio.models import WaveRNN

    module = WaveRNN([2, 2, 3], n_classes=16, hop_length=12, n_res_block=2, n_rnn=16, n_fc=16, n_freq=10, n_hidden=8)
    return Subject(module, lambda b, t: (torch.randn(b, 1, (t - 4) * 12), torch.randn(b, 1, 10, t)))


@entry("torchaudio", "hdemucs._BLSTM")
def _torchaudio_blstm() -> Subject:
    from torchaudio.models._hdemucs import _BLSTM

    return Subject(_BLSTM(12, layers=2, skip=True), lambda b, t: torch.randn(b, 12, t))


@entry("encodec", "SLSTM")
def _slstm() -> Subject:
    from encodec.modules.lstm import SLSTM

    return Subject(SLSTM(12), lambda b, t: torch.randn(b, 12, t), causal=True)


@entry("encodec", "SEANetEncoder")
def _seanet_encoder() -> Subject:
    from encodec.modules.seanet import SEANetEncoder

    module = SEANetEncoder(n_filters=4, dimension=16, ratios=[4, 2], norm="weight_norm", causal=True)
    # It pads by reflection: the first answers need samples that come after them.
    return Subject(module, lambda b, t: torch.randn(b, 1, t), sizes=_AUDIO)


@entry("encodec", "SEANetEncoder padded with zeros")
def _seanet_encoder_zeros() -> Subject:
    from encodec.modules.seanet import SEANetEncoder

    module = SEANetEncoder(
        n_filters=4, dimension=16, ratios=[4, 2], norm="weight_norm", causal=True, pad_mode="constant"
    )
    return Subject(module, lambda b, t: torch.randn(b, 1, t), causal=True, sizes=_AUDIO)


@entry("encodec", "SEANetDecoder")
def _seanet_decoder() -> Subject:
    from encodec.modules.seanet import SEANetDecoder

    module = SEANetDecoder(n_filters=4, dimension=16, ratios=[4, 2], norm="weight_norm", causal=True)
    return Subject(module, lambda b, t: torch.randn(b, 16, t))


@entry("demucs", "BLSTM")
def _blstm() -> Subject:
    from demucs.demucs import BLSTM

    return Subject(BLSTM(12, layers=2, skip=True), lambda b, t: torch.randn(b, 12, t))


@entry("demucs", "BLSTM with frames")
def _framed_blstm() -> Subject:
    from demucs.demucs import BLSTM

    return Subject(BLSTM(12, layers=1, max_steps=20, skip=True), lambda b, t: torch.randn(b, 12, t))


@entry("demucs", "Demucs")
def _demucs() -> Subject:
    from demucs.demucs import Demucs

    module = Demucs(["a", "b"], audio_channels=1, channels=8, depth=2, lstm_layers=1, dconv_mode=0, resample=False)
    return Subject(module, lambda b, t: torch.randn(b, 1, t), sizes=((2, 320), (1, 240), (3, 400), (1, 641)))


@entry("denoiser", "Demucs")
def _denoiser() -> Subject:
    from denoiser.demucs import Demucs

    module = Demucs(hidden=8, depth=2, causal=True, resample=1, normalize=False)
    return Subject(module, lambda b, t: torch.randn(b, 1, t), sizes=((2, 320), (1, 240), (3, 400), (1, 641)))


@entry("openunmix", "OpenUnmix")
def _openunmix() -> Subject:
    from openunmix.model import OpenUnmix

    module = OpenUnmix(nb_bins=33, nb_channels=1, hidden_size=16, nb_layers=2)
    return Subject(module, lambda b, t: torch.rand(b, 1, 33, t))


@entry("speechbrain", "RNN.LSTM")
def _speechbrain_lstm() -> Subject:
    from speechbrain.nnet.RNN import LSTM

    return Subject(LSTM(hidden_size=12, input_size=9, num_layers=2), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("speechbrain", "RNN.LiGRU")
def _ligru() -> Subject:
    from speechbrain.nnet.RNN import LiGRU

    module = LiGRU(hidden_size=12, input_shape=[2, 10, 9], num_layers=2)
    return Subject(module, lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("speechbrain", "RNN.LiGRU both ways")
def _ligru_both() -> Subject:
    from speechbrain.nnet.RNN import LiGRU

    module = LiGRU(hidden_size=12, input_shape=[2, 10, 9], num_layers=1, bidirectional=True)
    # Its last states mix the rows of a batch, as a reshape lays them out; few take more than the first result.
    return Subject(Call(module, lambda m, x: m(x)[0]), lambda b, t: torch.randn(b, t, 9))


@entry("speechbrain", "RNN.SLiGRU")
def _sligru() -> Subject:
    from speechbrain.nnet.RNN import SLiGRU

    module = SLiGRU(hidden_size=12, input_shape=[2, 10, 9], num_layers=1)
    return Subject(module, lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("speechbrain", "RNN.QuasiRNN")
def _quasi() -> Subject:
    from speechbrain.nnet.RNN import QuasiRNN

    module = QuasiRNN(12, input_shape=[2, 10, 9], num_layers=2, bidirectional=False)
    return Subject(Call(module, lambda m, x: m(x)[0]), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("speechbrain", "RNN.AttentionalRNNDecoder")
def _attentional() -> Subject:
    from speechbrain.nnet.RNN import AttentionalRNNDecoder

    module = AttentionalRNNDecoder(
        rnn_type="gru", attn_type="content", hidden_size=7, attn_dim=5, num_layers=1, enc_dim=20, input_size=6
    )
    return Subject(module, lambda b, t: (torch.randn(b, t, 6), torch.randn(b, 11, 20), torch.ones(b)))


@entry("speechbrain", "CRDNN")
def _crdnn() -> Subject:
    from speechbrain.lobes.models.CRDNN import CRDNN

    module = CRDNN(input_size=16, cnn_channels=[4, 6], rnn_layers=1, rnn_neurons=12, dnn_neurons=10)
    return Subject(module, lambda b, t: torch.randn(b, t, 16))


@entry("speechbrain", "RNNLM")
def _rnnlm() -> Subject:
    from speechbrain.lobes.models.RNNLM import RNNLM

    module = RNNLM(40, embedding_dim=12, rnn_neurons=16, dnn_neurons=14)
    return Subject(module, lambda b, t: torch.randint(40, (b, t)), causal=True)


@entry("speechbrain", "EnhancementGenerator")
def _enhancement() -> Subject:
    from speechbrain.lobes.models.MetricGAN import EnhancementGenerator

    # The second input is the share of the longest row that each row has.
    return Subject(EnhancementGenerator(), lambda b, t: (torch.rand(b, t, 257), torch.ones(b)))


@entry("speechbrain", "dual_path.SBRNNBlock")
def _dual_path() -> Subject:
    from speechbrain.lobes.models.dual_path import SBRNNBlock

    return Subject(SBRNNBlock(12, 10, 1, bidirectional=False), lambda b, t: torch.randn(b, t, 12), causal=True)


@entry("asteroid", "DPRNNBlock")
def _dprnn() -> Subject:
    from asteroid.masknn.recurrent import DPRNNBlock

    return Subject(DPRNNBlock(8, 10), lambda b, t: torch.randn(b, 8, 6, t))


@entry("asteroid", "DPRNN")
def _dprnn_whole() -> Subject:
    from asteroid.masknn.recurrent import DPRNN

    module = DPRNN(8, 2, bn_chan=8, hid_size=10, chunk_size=8, n_repeats=1)
    return Subject(module, lambda b, t: torch.randn(b, 8, t))


@entry("asteroid", "SingleRNN")
def _single_rnn() -> Subject:
    from asteroid.masknn.recurrent import SingleRNN

    return Subject(SingleRNN("LSTM", 9, 12, n_layers=2), lambda b, t: torch.randn(b, t, 9), causal=True)


@entry("asteroid", "StackedResidualRNN")
def _dccrn() -> Subject:
    from asteroid.masknn.recurrent import StackedResidualRNN

    return Subject(StackedResidualRNN("GRU", 12, n_layers=2), lambda b, t: torch.randn(b, t, 12), causal=True)
