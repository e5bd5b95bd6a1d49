"""``Pooling``: from the features of every step to those of the whole sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncore.layers.base import check_lengths, valid_steps
from rnncore.runtime.errors import InputError

POOLINGS = ("last", "mean", "max", "attention", "statistics")

_LEAST_VARIANCE = 1e-6
"""Where features hardly vary the gradient of their deviation would be without bounds."""


class Pooling(nn.Module):
    r"""One vector for each sequence; steps beyond its length have no part in it, a sequence without steps gives zeros.

    * ``last``: the forward direction's features of the last valid step, the backward direction's of the first one: what
      each direction says after it has read everything.
    * ``mean``, ``max``: over the valid steps.
    * ``attention``: a learned weighted mean, :math:`\sum_t \alpha_t y_t` with
      :math:`\alpha = \mathrm{softmax}_t(v^\top \tanh(W y_t + b))` over the valid steps (Yang et al. 2016,
      "Hierarchical attention networks for document classification").  Parameters: ``hidden.weight`` [size, size],
      ``hidden.bias`` [size], ``score.weight`` [1, size].

    Args:
        kind: one of these names.
        size: features of a step.
        forward_size: how many of them, the first ones, come from the forward direction.

    Attributes:
        output_size: features of the whole sequence.
    """

    def __init__(self, kind: str, size: int, forward_size: int | None = None) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise InputError(f"unknown pooling {kind!r}; known: {', '.join(POOLINGS)}")
        self.kind = kind
        self.forward_size = size if forward_size is None else forward_size
        self.output_size = 2 * size if kind == "statistics" else size
        if kind == "attention":
            self.hidden = nn.Linear(size, size)
            self.score = nn.Linear(size, 1, bias=False)

    def forward(self, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[batch, output_size] for y [batch, time, size], zero beyond ``lengths`` [batch] (None: all steps are valid)."""
        traced = torch.compiler.is_exporting()
        if lengths is None:
            lengths = torch.full((y.shape[0],), y.shape[1], dtype=torch.int64, device=y.device)
        lengths = check_lengths(lengths, y, traced=traced)
        if not traced and y.shape[1] == 0:
            return y.new_zeros(y.shape[0], self.output_size)
        if self.kind == "last":
            return self._last(y, lengths)
        if self.kind == "mean":
            return y.sum(1) / lengths.clamp(min=1).unsqueeze(1)
        valid = valid_steps(lengths, y.shape[1])
        if self.kind == "statistics":
            return self._statistics(y, lengths, valid)
        if self.kind == "max":
            empty = (lengths == 0).unsqueeze(1)
            return y.masked_fill(~valid, -torch.inf).amax(1).masked_fill(empty, 0.0)
        scores = self.score(torch.tanh(self.hidden(y)))
        # The smallest finite number, not -inf: a sequence without steps would get NaN weights for its zeros.
        weights = torch.softmax(scores.masked_fill(~valid, torch.finfo(scores.dtype).min), 1)
        return (weights * y).sum(1)

    def _last(self, y: Tensor, lengths: Tensor) -> Tensor:
        ahead = y[:, :, : self.forward_size]
        index = (lengths - 1).clamp(min=0).reshape(-1, 1, 1).expand(-1, 1, self.forward_size)
        last = ahead.gather(1, index).squeeze(1)
        if self.forward_size == y.shape[2]:
            return last
        return torch.cat((last, y[:, 0, self.forward_size :]), 1)

    def _statistics(self, y: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        count = lengths.clamp(min=1).unsqueeze(1)
        mean = y.sum(1) / count
        distance = (y - mean.unsqueeze(1)).masked_fill(~valid, 0.0)
        deviation = ((distance * distance).sum(1) / count).clamp(min=_LEAST_VARIANCE).sqrt()
        return torch.cat((mean, deviation.masked_fill((lengths == 0).unsqueeze(1), 0.0)), 1)

    def extra_repr(self) -> str:
        """The kind, as shown in ``repr``."""
        return repr(self.kind)
