"""``EncoderDecoder``: from one sequence to another of any length (many-to-many of different lengths)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers import Bidirectional, Recurrent, Stacked, State
from rnncore.layers.base import valid_steps
from rnncore.models.attention import Attention
from rnncore.models.bridge import Bridge
from rnncore.models.encoder_decoder_config import EncoderDecoderConfig
from rnncore.models.label_smoothing import smoothed_nll
from rnncore.models.pretrained import Pretrained
from rnncore.models.task_model import Metrics, pad_sequences
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.levenshtein import edit_distance

Pair = tuple[Sequence[int], Sequence[int]]
"""One example: source ids and target ids, without "end"."""


class EncoderDecoder(Pretrained):
    r"""An encoder reads the source; a decoder, which begins with what the encoder ends with, writes the target.

    .. math:: m = \mathrm{Encoder}(E^s_x), \quad y_t = \mathrm{Decoder}(E^t_{w_{t-1}})_t, \quad
        a_t = \tanh(W_a [y_t, c_t]), \quad \log P(w_t \mid w_1 \dots w_{t-1}, x) = \log \mathrm{softmax}(W a_t + b)

    The context c_t is the attention of y_t over the memory m (Luong's placement, for every kind of score); without
    attention a_t = y_t.  The token "end" is read before the first target token and ends every target.

    Parameters: ``source_embedding.weight`` [source_size, E], ``target_embedding.weight`` [target_size, E],
    ``encoder.layers.<i>.*``, ``decoder.layers.<i>.cell.*``, ``bridge.*``, ``attention.*``, ``combine.*``, ``head.*``.

    Raises:
        InputError: a cell's options are wrong, or sizes do not fit one another.
    """

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.source_embedding = nn.Embedding(config.source_size, config.embedding_size)
        self.target_embedding = nn.Embedding(config.target_size, config.embedding_size)
        encoder: list[Recurrent | Bidirectional] = []
        width = config.embedding_size
        for cell in config.encoder:
            first = cell.build(width)
            encoder.append(Bidirectional(first, cell.build(width)) if config.bidirectional else Recurrent(first))
            width = encoder[-1].output_size
        self.memory_size = width
        decoder: list[Recurrent] = []
        width = config.embedding_size
        for cell in config.decoder:
            decoder.append(Recurrent(cell.build(width)))
            width = decoder[-1].output_size
        self.encoder = Stacked(encoder, dropout=config.dropout)
        self.decoder = Stacked(decoder, dropout=config.dropout)
        self.bridge = Bridge(config.bridge, encoder, decoder)
        self.attention = None if config.attention is None else Attention(config.attention, width, self.memory_size)
        self.combine = None if self.attention is None else nn.Linear(width + self.memory_size, width)
        self.head = nn.Linear(width, config.target_size)
        nn.init.zeros_(self.head.bias)

    @property
    def decoder_layers(self) -> list[Recurrent]:
        """The recurrent layers of the decoder, bottom first."""
        return [cast(Recurrent, layer) for layer in self.decoder.layers]

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """(memory [batch, positions, memory_size], the decoder's initial state) for ids [batch, positions]."""
        x = functional.dropout(self.source_embedding(source), self.config.dropout, self.training)
        memory, finals = self.encoder(x, None, lengths)
        return memory, self.bridge(finals)

    def decode(self, read: Tensor, memory: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        """Go on from ``state``.

        Args:
            read: ids [batch, time]: "end", then target tokens.
            memory, lengths: of the source.
            state: of the decoder.

        Returns:
            (natural-log probabilities of the token after each one read [batch, time, target_size], state after the
            last).
        """
        dropout = self.config.dropout
        x = functional.dropout(self.target_embedding(read), dropout, self.training)
        y, state = self.decoder(x, state)
        if self.attention is not None and self.combine is not None:
            context, _ = self.attention(y, self.attention.keys(memory), memory, lengths)
            y = torch.tanh(self.combine(torch.cat((y, context), 2)))
        return functional.log_softmax(self.head(functional.dropout(y, dropout, self.training)), 2), state

    def forward(self, source: Tensor, source_lengths: Tensor, read: Tensor) -> Tensor:
        """Natural-log probabilities [batch, time, target_size] of the token after each one ``read`` (teacher forcing).

        Args:
            source: int64 [batch, positions], with source_lengths [batch].
            read: int64 [batch, time]: "end", then target tokens.
        """
        memory, state = self.encode(source, source_lengths)
        return self.decode(read, memory, source_lengths, state)[0]

    @staticmethod
    def collate(pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """The keyword arguments of :meth:`loss` and :meth:`metrics` for pairs of source and target ids."""
        source, source_lengths = pad_sequences([pair[0] for pair in pairs])
        target, target_lengths = pad_sequences([pair[1] for pair in pairs])
        return {
            "source": source.long(),
            "source_lengths": source_lengths,
            "target": target.long(),
            "target_lengths": target_lengths,
        }

    def loss(
        self, source: Tensor, source_lengths: Tensor, target: Tensor, target_lengths: Tensor
    ) -> tuple[Tensor, int]:
        """(cross-entropy in nats, summed over all target tokens and their ends, number of these); smoothed while training.

        Args:
            source, target: int64 [batch, longest], padded.
            source_lengths, target_lengths: int64 [batch].
        """
        log_probs, wanted, valid = self._forced(source, source_lengths, target, target_lengths)
        costs = smoothed_nll(log_probs, wanted, self.config.label_smoothing, self.training)
        return costs.masked_fill(~valid, 0.0).sum(), int(valid.sum())

    def metrics(self, source: Tensor, source_lengths: Tensor, target: Tensor, target_lengths: Tensor) -> Metrics:
        """Sums and counts; arguments as for :meth:`loss`.

        token_accuracy: likeliest tokens that are right, given the right ones before.  exact_match: targets that greedy
        decoding gets right as a whole.  error_rate: edits from what it writes to the target, by tokens of the target.
        """
        log_probs, wanted, valid = self._forced(source, source_lengths, target, target_lengths)
        right = int(((log_probs.argmax(2) == wanted) & valid).sum())
        longest = int(target_lengths.max()) if len(target_lengths) else 0
        written = self.greedy(source, source_lengths, 2 * longest + 5)
        wants = [row[:n] for row, n in zip(target.tolist(), target_lengths.tolist(), strict=True)]
        return {
            "token_accuracy": (right, int(valid.sum())),
            "exact_match": (sum(a == b for a, b in zip(written, wants, strict=True)), len(wants)),
            "error_rate": (sum(map(edit_distance, written, wants)), sum(map(len, wants))),
        }

    @torch.no_grad()
    def greedy(self, source: Tensor, source_lengths: Tensor, max_tokens: int) -> list[list[int]]:
        """Always the likeliest token, until "end" or ``max_tokens``: the target ids of each row, without "end"."""
        if max_tokens < 0:
            raise InputError(f"max_tokens is {max_tokens}, expected 0 or more")
        memory, state = self.encode(source, source_lengths)
        token = torch.full((len(source), 1), self.config.end_id, dtype=torch.int64, device=source.device)
        finished = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        columns = []
        for _ in range(max_tokens):
            log_probs, state = self.decode(token, memory, source_lengths, state)
            token = log_probs.argmax(2).masked_fill(finished.unsqueeze(1), self.config.end_id)
            finished |= token.squeeze(1) == self.config.end_id
            columns.append(token)
            if bool(finished.all()):
                break
        rows = torch.cat(columns, 1).tolist() if columns else [[] for _ in range(len(source))]
        return [row[: row.index(self.config.end_id)] if self.config.end_id in row else row for row in rows]

    def _forced(
        self, source: Tensor, source_lengths: Tensor, target: Tensor, target_lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probabilities, wanted ids, which of them count), each with one step more than ``target``: its end."""
        end = self.config.end_id
        inside = valid_steps(target_lengths, target.shape[1]).squeeze(2)
        target = target.masked_fill(~inside, end)
        column = torch.full_like(target_lengths, end).unsqueeze(1)
        log_probs = self(source, source_lengths, torch.cat((column, target), 1))
        wanted = torch.cat((target, column), 1)
        return log_probs, wanted, valid_steps(target_lengths + 1, wanted.shape[1]).squeeze(2)
