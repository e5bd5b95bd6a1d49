"""Recurrent layers: cells along time, in both directions, and on top of each other."""

from rnncore.runtime.errors import MissingExtraError

try:
    from rnncore.layers.base import RecurrentLayer, State
    from rnncore.layers.bidirectional import Bidirectional
    from rnncore.layers.causal_conv import CausalConv1d
    from rnncore.layers.compile_steps import compile_steps
    from rnncore.layers.recurrent import Recurrent
    from rnncore.layers.stacked import Stacked
    from rnncore.layers.streaming import StreamingLayer
    from rnncore.layers.torch_like import GRU, LSTM, RNN
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "train", "rnncore.layers") from None

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "CausalConv1d",
    "Recurrent",
    "RecurrentLayer",
    "Stacked",
    "State",
    "StreamingLayer",
    "compile_steps",
]
