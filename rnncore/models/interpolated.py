"""``InterpolatedLanguageModel``: a recurrent model and counted n-grams, mixed token by token, as one model of one file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rnncore.models.language_model import LanguageModel
from rnncore.models.language_model_config import LanguageModelConfig
from rnncore.models.ngrams import Ngrams, NgramSizes
from rnncore.models.pretrained import Pretrained
from rnncore.runtime.errors import InputError


class InterpolatedLanguageModel(Pretrained):
    r"""A :class:`LanguageModel` and :class:`Ngrams` of the same tokens.

    .. math:: P(w_{t+1}) = \lambda_k P_\mathrm{recurrent}(w_{t+1}) + (1 - \lambda_k) P_\mathrm{ngrams}(w_{t+1})

    where k is how many tokens the longest known context has: where the n-grams have seen more, they are trusted more.  Made by
    :func:`rnncore.training.interpolate`, which learns the :math:`\lambda` from held-out text.

    Parameters: ``recurrent.*``; buffers ``ngrams.*`` and ``share`` [longest context + 1], the :math:`\lambda`.

    Raises:
        InputError: the two have not the same number of tokens.
    """

    share: Tensor

    def __init__(self, config: LanguageModelConfig, sizes: NgramSizes) -> None:
        super().__init__()
        if config.vocabulary_size != sizes.vocabulary:
            raise InputError(
                f"the recurrent model has {config.vocabulary_size} tokens, the n-grams have {sizes.vocabulary}: "
                "count them with the same vocabulary"
            )
        self.config = config
        self.recurrent = LanguageModel(config)
        self.ngrams = Ngrams(sizes)
        self.register_buffer("share", torch.full((sizes.reach + 1,), 0.5))

    def forward(self, ids: Tensor) -> Tensor:
        """Natural-log probabilities of the next token, [batch, time, vocabulary], for token ids [batch, time]."""
        recurrent, counted, longest = self.parts(ids)
        share = self.share[longest].unsqueeze(-1)
        return torch.log(share * recurrent.exp() + (1.0 - share) * counted)

    def parts(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the recurrent model, probabilities of the n-grams, and length of the longest known context."""
        recurrent = functional.log_softmax(self.recurrent.forward_with_state(ids)[0], 2)
        return recurrent, *self.ngrams(ids)
