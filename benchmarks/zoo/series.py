"""Time series."""

from __future__ import annotations

import sys
import types

import torch

from benchmarks.zoo.subject import Call, Subject, entry

# tsai imports torchvision, and so does transformers where it is; both need no operator of it, and those of its wheels are
# compiled for other builds of torch.
_OPERATORS = "torchvision._meta_registrations"
sys.modules.setdefault(_OPERATORS, types.ModuleType(_OPERATORS))


@entry("gluonts", "DeepAR's LSTM (unroll)")
def _deepar() -> Subject:
    from gluonts.torch.model.deepar.module import DeepARModel

    module = DeepARModel("h", 12, 4, lags_seq=[1, 2, 3], num_parallel_samples=2, hidden_size=10, scaling=False)
    return Subject(Call(module.rnn, lambda m, x: m(x)[0]), lambda b, t: torch.randn(b, t, module.rnn.input_size), True)


@entry("gluonts", "DeepARModel.forward")
def _deepar_forward() -> Subject:
    from gluonts.torch.model.deepar.module import DeepARModel

    module = DeepARModel("h", 12, 4, lags_seq=[1, 2, 3], num_parallel_samples=2, hidden_size=10)
    past = module._past_length
    return Subject(
        module,
        lambda b, t: (
            torch.zeros(b, 1, dtype=torch.int64),
            torch.randn(b, 1),
            torch.randn(b, past, 1),
            torch.randn(b, past),
            torch.ones(b, past),
            torch.randn(b, 4, 1),
        ),
    )


@entry("gluonts", "WaveNet causal convolutions")
def _wavenet() -> Subject:
    from gluonts.torch.model.wavenet.module import CausalDilatedResidualLayer

    module = CausalDilatedResidualLayer(6, 7, 2, 2, True)
    return Subject(Call(module, lambda m, x: m(x)[0]), lambda b, t: torch.randn(b, 6, t), causal=True)


@entry("pytorch-tcn", "TCN")
def _tcn() -> Subject:
    from pytorch_tcn import TCN

    module = TCN(6, [8, 8], kernel_size=3, dilations=[1, 2], causal=True, use_norm="weight_norm")
    return Subject(module, lambda b, t: torch.randn(b, 6, t), causal=True)


@entry("pytorch-forecasting", "LSTM (rnn layer)")
def _forecasting_lstm() -> Subject:
    from pytorch_forecasting.models.nn.rnn import LSTM

    module = LSTM(6, 9, num_layers=2, batch_first=True)
    return Subject(module, lambda b, t: torch.randn(b, t, 6), causal=True)


@entry("tsai", "LSTM_FCN")
def _lstm_fcn() -> Subject:
    from tsai.models.RNN_FCN import LSTM_FCN

    return Subject(LSTM_FCN(4, 3, shuffle=False, hidden_size=9), lambda b, t: torch.randn(b, 4, t))


@entry("tsai", "RNNPlus")
def _rnn_plus() -> Subject:
    from tsai.models.RNN import LSTM

    return Subject(LSTM(4, 3, hidden_size=9), lambda b, t: torch.randn(b, 4, t), causal=True)


@entry("tsai", "TCN")
def _tsai_tcn() -> Subject:
    from tsai.models.TCN import TemporalConvNet

    return Subject(TemporalConvNet(4, [6, 6], ks=3), lambda b, t: torch.randn(b, 4, t), causal=True)


@entry("neuralforecast", "DilatedRNN's DRNN (LSTM)")
def _dilated() -> Subject:
    from neuralforecast.models.dilated_rnn import DRNN

    module = DRNN(4, 6, n_layers=2, dilations=[1, 2], dropout=0.0, cell_type="LSTM")
    return Subject(Call(module, lambda m, x: m(x)[0]), lambda b, t: torch.randn(t, b, 4), causal=True)


@entry("neuralforecast", "TCN")
def _nf_tcn() -> Subject:
    from neuralforecast.common._modules import TemporalConvolutionEncoder

    module = TemporalConvolutionEncoder(4, 6, 3, [1, 2, 4])
    return Subject(module, lambda b, t: torch.randn(b, t, 4), causal=True)


@entry("darts", "RNNModule (LSTM)")
def _darts() -> Subject:
    from darts.models.forecasting.block_rnn_model import _BlockRNNModule
    from darts.utils.data.torch_datasets.utils import PLModuleInput

    module = _BlockRNNModule(
        name="LSTM",
        input_size=4,
        hidden_dim=9,
        num_layers=1,
        target_size=1,
        nr_params=1,
        num_layers_out_fc=[],
        dropout=0.0,
        future_cov_dim=0,
        input_chunk_length=16,
        output_chunk_length=3,
    )
    call = Call(module, lambda m, x: m(PLModuleInput(past_target=x)).prediction)
    return Subject(call, lambda b, t: torch.randn(b, t, 4))
