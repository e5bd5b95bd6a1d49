"""Recurrent cells: one step each, defined once."""

from rnncore.cells.base import Cell, GatedCell
from rnncore.cells.gru import GRUCell
from rnncore.cells.lstm import LSTMCell
from rnncore.cells.minimal import MinGRUCell, MinLSTMCell
from rnncore.cells.rnn import RNNCell
from rnncore.cells.zoneout import Zoneout

__all__ = ["Cell", "GRUCell", "GatedCell", "LSTMCell", "MinGRUCell", "MinLSTMCell", "RNNCell", "Zoneout"]
