"""Recurrent cells: one step each, defined once."""

from rnncore.runtime.errors import MissingExtraError

try:
    from rnncore.cells.base import Cell, GatedCell
    from rnncore.cells.gru import GRUCell
    from rnncore.cells.lstm import LSTMCell
    from rnncore.cells.minimal import MinGRUCell, MinLSTMCell
    from rnncore.cells.rnn import RNNCell
    from rnncore.cells.zoneout import Zoneout
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "train", "rnncore.cells") from None

__all__ = ["Cell", "GRUCell", "GatedCell", "LSTMCell", "MinGRUCell", "MinLSTMCell", "RNNCell", "Zoneout"]
