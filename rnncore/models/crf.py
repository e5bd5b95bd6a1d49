"""``LinearChain``: a conditional random field over the tags of a sequence, whose Viterbi search is two recurrences.

Both are cells like any other, so that a file holds them as explicit loops and any host decodes by an argmax over the last
axis of its output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.layers import Recurrent
from rnncore.layers.base import valid_steps

FORBIDDEN = -1e4
"""Score of a step that must not be taken: finite, so that sums and gradients are."""

LOWEST, MARGIN = -50.0, 1e-6
"""Bounds of the score of a tag that is not taken; e^-50 is nothing.  The margin tells it from the tag that is taken."""


class ChainWeights(nn.Module):
    """Scores of beginning with a tag, of one tag after another, and of ending.

    Parameters: ``start`` [tags], ``transitions`` [tags, tags] from row to column, ``end`` [tags].

    Args:
        labels: the tags.
        bio: forbid ``I-x`` at the beginning, and after anything but ``B-x`` and ``I-x``.
    """

    not_first: Tensor
    not_after: Tensor

    def __init__(self, labels: Sequence[str], *, bio: bool) -> None:
        super().__init__()
        size = len(labels)
        self.start = nn.Parameter(torch.zeros(size))
        self.transitions = nn.Parameter(torch.zeros(size, size))
        self.end = nn.Parameter(torch.zeros(size))
        inside = [label.startswith("I-") and bio for label in labels]
        follows = [[not i or _continues(a, b) for b, i in zip(labels, inside, strict=True)] for a in labels]
        self.register_buffer("not_first", FORBIDDEN * torch.tensor(inside, dtype=torch.float32))
        self.register_buffer("not_after", FORBIDDEN * (~torch.tensor(follows).reshape(size, size)).to(torch.float32))

    def first(self) -> Tensor:
        """[tags], of beginning with a tag."""
        return self.start + self.not_first

    def between(self) -> Tensor:
        """[tags, tags], of a column's tag after a row's."""
        return self.transitions + self.not_after


def _continues(tag: str, inside: str) -> bool:
    return tag[:2] in ("B-", "I-") and tag[2:] == inside[2:]


class ViterbiCell(Cell):
    r"""Score of the best tags up to each step that end with each tag, the best of all being 0.

    .. math:: \delta_t(j) = e_t(j) + \max_i (\delta_{t-1}(i) + A_{ij}) - \max_k (\ldots)

    Without that difference, which changes no choice, scores would grow with time and lose their digits.
    State: ``arriving`` [tags], the maximum over i for the next step.
    """

    def __init__(self, weights: ChainWeights) -> None:
        size = len(weights.start)
        super().__init__(size, size, {"arriving": size})
        self.weights = weights

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """The scores of beginning."""
        return (self.weights.first().to(like.dtype).unsqueeze(0).expand(batch, -1),)

    def step(self, z: Tensor, arriving: Tensor) -> tuple[Tensor, Tensor]:
        """z: scores of the tags at this step by themselves."""
        ending = arriving + z
        ending = ending - ending.amax(1, keepdim=True)
        return ending, (ending.unsqueeze(2) + self.weights.between()).amax(1)


class ViterbiBackwardCell(Cell):
    """From the last step to the first: the tag that the best tagging takes, and how much worse any other tag is.

    Input: what :class:`ViterbiCell` gives, and the scores of the tags by themselves.  Output [tags]: 0 for the tag taken,
    and for any other the score of the best tagging that has it there, less that of the best of all; so the taken tag is
    the argmax, and the output is continuous in the weights where the choice is not.

    States: ``leaving`` [tags], the best that can follow each tag; ``chosen`` [tags], what leads to the tag taken next.
    """

    tags: Tensor

    def __init__(self, weights: ChainWeights) -> None:
        size = len(weights.start)
        super().__init__(2 * size, size, {"leaving": size, "chosen": size})
        self.weights = weights
        self.register_buffer("tags", torch.arange(size), persistent=False)

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """The scores of ending."""
        end = self.weights.end.to(like.dtype).unsqueeze(0).expand(batch, -1)
        return end, end

    def step(self, z: Tensor, leaving: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z: [ending, emissions], each [batch, tags]."""
        ending, emissions = z.chunk(2, 1)
        taken = torch.eq(self.tags, (ending + chosen).argmax(1, keepdim=True))
        through = ending + leaving
        through = (through - through.amax(1, keepdim=True)).clamp(LOWEST, -MARGIN)
        between = self.weights.between()
        leaving = (between + (emissions + leaving).unsqueeze(1)).amax(2)
        leaving = leaving - leaving.amax(1, keepdim=True)
        # The column of the tag taken, by a maximum: a product with it would be rounded in int8.
        others = torch.zeros_like(emissions).masked_fill(~taken, 1e4 * FORBIDDEN)
        return through.masked_fill(taken, 0.0), leaving, (between + others.unsqueeze(1)).amax(2)


class LinearChain(nn.Module):
    """A linear-chain conditional random field (Lafferty, McCallum & Pereira 2001) on top of scores of single steps.

    Args: as of :class:`ChainWeights`.
    """

    def __init__(self, labels: Sequence[str], *, bio: bool) -> None:
        super().__init__()
        self.weights = ChainWeights(labels, bio=bio)
        self.viterbi = Recurrent(ViterbiCell(self.weights))
        self.viterbi_backward = Recurrent(ViterbiBackwardCell(self.weights), reverse=True)

    def forward(self, emissions: Tensor, lengths: Tensor | None) -> Tensor:
        """Scores [batch, time, tags] whose argmax is the likeliest tagging, see :class:`ViterbiBackwardCell`.

        emissions: [batch, time, tags].  Zero beyond the lengths.
        """
        ending, _ = self.viterbi(emissions, None, lengths)
        scores, _ = self.viterbi_backward(torch.cat((ending, emissions), 2), None, lengths)
        return scores

    def log_likelihood(self, emissions: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        """log P of ``tags``, int64 [batch, time], for each row, [batch]; 0 for a row without steps."""
        if not emissions.shape[1]:
            return emissions.sum((1, 2))
        between, valid = self.weights.between(), valid_steps(lengths, emissions.shape[1]).squeeze(2)
        total = self.weights.first() + emissions[:, 0]
        for t in range(1, emissions.shape[1]):
            after = torch.logsumexp(total.unsqueeze(2) + between, 1) + emissions[:, t]
            total = torch.where(valid[:, t].unsqueeze(1), after, total)
        last = tags.gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        own = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)
        own = (
            torch.cat((own[:, :1], own[:, 1:] + between[tags[:, :-1], tags[:, 1:]]), 1).masked_fill(~valid, 0.0).sum(1)
        )
        own = own + self.weights.first()[tags[:, 0]] + self.weights.end[last]
        return (own - torch.logsumexp(total + self.weights.end, 1)).masked_fill(lengths == 0, 0.0)
