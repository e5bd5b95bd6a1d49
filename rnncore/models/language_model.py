"""``LanguageModel``: what comes next, given what came before."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers import Recurrent, Stacked, State
from rnncore.models.language_model_config import LanguageModelConfig
from rnncore.runtime.errors import InputError


class LanguageModel(nn.Module):
    r"""Embedding, recurrent layers, linear head.

    .. math:: x_t = E_{w_t}, \quad y_t = \mathrm{Stacked}(x)_t, \quad
        \log P(w_{t+1} \mid w_1 \dots w_t) = \log \mathrm{softmax}(W y_t + b)

    The first token of every text is read as "end of text", so that P(w_1) is defined as well.

    Parameters: ``embedding.weight`` [V, E]; ``stack.layers.<i>.cell.*``; ``head.weight`` [V, features of the top
    layer], the same tensor as the embedding's when tied; ``head.bias`` [V].

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
        self.head = nn.Linear(width, config.vocabulary_size)
        # As wide as other inputs of a cell: with 1 / sqrt(embedding_size), training stood still for a whole epoch.
        nn.init.normal_(self.embedding.weight)
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
        dropout = self.config.dropout
        x = functional.dropout(self.embedding(ids), dropout, self.training)
        y, state = self.stack(x, state)
        return self.head(functional.dropout(y, dropout, self.training)), state
