"""``Attention``: which steps of a memory each step of a decoder looks at."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rnncore.layers.base import valid_steps
from rnncore.runtime.errors import InputError

ATTENTIONS = ("dot", "general", "additive")


class Attention(nn.Module):
    r"""A weighted mean of the memory for each query, weights by how well its steps fit the query.

    .. math:: \alpha_{ts} = \mathrm{softmax}_s\, \mathrm{score}(q_t, m_s), \quad c_t = \sum_s \alpha_{ts} m_s

    ========== ================================== ==========================================================
    kind       score                              source
    ========== ================================== ==========================================================
    "dot"      q · m                              Luong, Pham, Manning 2015; memory_size = query_size
    "general"  q · (W_k m)                        the same
    "additive" v · tanh(W_q q + W_k m)            Bahdanau, Cho, Bengio 2015
    ========== ================================== ==========================================================

    Parameters: ``key.weight`` [query_size, memory_size] but for "dot"; "additive" only: ``key.bias`` [query_size],
    ``query.weight`` [query_size, query_size], ``score`` [query_size].

    Raises:
        InputError: an unknown kind, or "dot" between sizes that differ.
    """

    def __init__(self, kind: str, query_size: int, memory_size: int) -> None:
        super().__init__()
        if kind not in ATTENTIONS:
            raise InputError(f"unknown attention {kind!r}; known: {', '.join(ATTENTIONS)}")
        if kind == "dot" and query_size != memory_size:
            raise InputError(
                f"dot attention: the decoder gives {query_size} features, the memory has {memory_size}; make them equal, "
                "or use 'general'"
            )
        self.kind = kind
        self.key = nn.Linear(memory_size, query_size, bias=kind == "additive") if kind != "dot" else None
        if kind == "additive":
            self.query = nn.Linear(query_size, query_size, bias=False)
            self.score = nn.Parameter(torch.empty(query_size).uniform_(-1.0, 1.0) / math.sqrt(query_size))

    def keys(self, memory: Tensor) -> Tensor:
        """What queries are compared with, [batch, positions, query_size]; the same for every query."""
        return memory if self.key is None else self.key(memory)

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(context, weights).

        Args:
            query: [batch, time, query_size].
            keys: of :meth:`keys`.
            memory: [batch, positions, memory_size], zero beyond its lengths.
            lengths: int64 [batch]; positions beyond get no weight.  A memory of length 0 gives a context of zeros.

        Returns:
            context [batch, time, memory_size], weights [batch, time, positions] that sum to 1.
        """
        if self.kind == "additive":
            scores = torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1)) @ self.score
        else:
            scores = query @ keys.transpose(1, 2)
        valid = valid_steps(lengths, memory.shape[1]).transpose(1, 2)
        # Not -inf: a softmax over nothing but -inf is NaN.
        weights = torch.softmax(scores.masked_fill(~valid, torch.finfo(scores.dtype).min), 2)
        return weights @ memory, weights

    def extra_repr(self) -> str:
        """The kind, as shown in ``repr``."""
        return repr(self.kind)
