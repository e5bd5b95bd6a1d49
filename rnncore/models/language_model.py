"""``LanguageModel``: what comes next, given what came before."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers import Recurrent, Stacked, State
from rnncore.models.language_model_config import LanguageModelConfig
from rnncore.models.language_model_head import log_probs_of, summed_loss
from rnncore.models.pretrained import Pretrained
from rnncore.runtime.errors import InputError

IGNORED = -1
"""Target of a step that is padding."""


class LanguageModel(Pretrained):
    r"""Embedding, recurrent layers, linear head.

    .. math:: x_t = E_{w_t}, \quad y_t = \mathrm{Stacked}(x)_t, \quad
        \log P(w_{t+1} \mid w_1 \dots w_t) = \log \mathrm{softmax}(W y_t + b)

    The first token of every text is read as "end of text", so that P(w_1) is defined as well.

    Parameters: ``embedding.weight`` [V, E]; ``stack.layers.<i>.cell.*``; ``head.weight`` [V, features of the top
    layer], the same tensor as the embedding's when tied; ``head.bias`` [V].  With ``cutoffs``, ``head`` is torch's
    ``AdaptiveLogSoftmaxWithLoss`` instead, and its parameters are named there.

    Raises:
        InputError: a cell's options are wrong, or ``tied`` and the top layer does not give embedding_size features.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        layers = []
        width = config.embedding_size
        for cell_config in config.cells:
            layer = Recurrent(cell_config.build(width))
            width = layer.output_size
            layers.append(layer)
        self.stack = Stacked(layers, dropout=config.dropout)
        self.head = _new_head(width, config)
        # As wide as other inputs of a cell: with 1 / sqrt(embedding_size), training stood still for a whole epoch.
        nn.init.normal_(self.embedding.weight)
        if isinstance(self.head, nn.Linear):
            nn.init.zeros_(self.head.bias)
        if config.tied:
            if width != config.embedding_size:
                raise InputError(
                    f"tied weights: the top layer gives {width} features, the embedding has {config.embedding_size}; "
                    "make them equal, or leave the weights untied"
                )
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Natural-log probabilities of the next token, [batch, time, vocabulary], for token ids [batch, time]."""
        logits, _ = self.forward_with_state(ids)
        return functional.log_softmax(logits, 2)

    def forward_with_state(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """As :meth:`forward`, for training by pieces.

        Args:
            ids: int64 [batch, time].
            state: what the piece before returned; None at the beginning.

        Returns:
            (unnormalised log-probabilities [batch, time, vocabulary], state after the last step).
        """
        y, state = self._features(ids, state)
        return log_probs_of(self.head, y), state

    def loss_with_state(self, ids: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(negative log-probability of ``targets``, summed; state after the last step), for training by pieces.

        Args:
            ids: int64 [batch, time].
            targets: the token after each, int64 [batch, time]; :data:`IGNORED` where a row is padded.
            state: as for :meth:`forward_with_state`.
        """
        y, state = self._features(ids, state)
        return summed_loss(self.head, y, targets, IGNORED), state

    def loss(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """(:meth:`loss_with_state` of whole texts, number of targets), for :func:`rnncore.training.fit`."""
        return self.loss_with_state(ids, targets)[0], int((targets != IGNORED).sum())

    def _features(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        dropout = self.config.dropout
        x = functional.dropout(self.embedding(ids), dropout, self.training)
        y, state = self.stack(x, state)
        return functional.dropout(y, dropout, self.training), state


def _new_head(width: int, config: LanguageModelConfig) -> nn.Linear | nn.AdaptiveLogSoftmaxWithLoss:
    if not config.cutoffs:
        return nn.Linear(width, config.vocabulary_size)
    # A tail has width / factor^n features, the n-th one at least one; exactly the root would round to none for some widths.
    factor = min(4.0, width ** (1.0 / len(config.cutoffs)) * (1.0 - 1e-9))
    return nn.AdaptiveLogSoftmaxWithLoss(width, config.vocabulary_size, list(config.cutoffs), factor)
