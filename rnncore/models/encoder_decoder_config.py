"""The size and shape of an encoder-decoder, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rnncore.models.attention import ATTENTIONS
from rnncore.models.bridge import BRIDGES
from rnncore.models.cell_config import CellConfig
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """Everything that fixes a :class:`rnncore.models.EncoderDecoder` except its weights.

    source_size, target_size: numbers of tokens.
    encoder, decoder: the stacks, bottom first.
    embedding_size: features of a token, of either side.
    bidirectional: every encoder layer reads in both directions, with two cells of the same configuration.
    attention: "dot", "general", "additive", or None: then the final states are all that the decoder is told.
    bridge: "linear" or "identity", see :class:`rnncore.models.bridge.Bridge`.
    dropout: probability of zeroing a feature, while training: of the embeddings, between the layers, before the head.
    label_smoothing: part of every target that is shared out to all tokens, while training; 0.1 is usual.
    end_id: the target token that begins and ends every target.

    Raises:
        InputError: lists every value that is out of range.
    """

    source_size: int
    target_size: int
    encoder: tuple[CellConfig, ...]
    decoder: tuple[CellConfig, ...]
    embedding_size: int = 64
    bidirectional: bool = True
    attention: str | None = "general"
    bridge: str = "linear"
    dropout: float = 0.0
    end_id: int = 0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("source_size", "target_size", "embedding_size")}
        problems = [problem for name, size in sizes.items() for problem in count_problems(name, size)]
        problems += [
            f"{name} is empty, expected at least one cell" for name in ("encoder", "decoder") if not getattr(self, name)
        ]
        if self.attention is not None and self.attention not in ATTENTIONS:
            problems.append(f"attention is {self.attention!r}, expected one of {', '.join(ATTENTIONS)}, or None")
        if self.bridge not in BRIDGES:
            problems.append(f"bridge is {self.bridge!r}, expected one of {', '.join(BRIDGES)}")
        problems += [
            f"{name} is {value}, expected at least 0 and below 1"
            for name, value in (("dropout", self.dropout), ("label_smoothing", self.label_smoothing))
            if not 0.0 <= value < 1.0
        ]
        if not 0 <= self.end_id < max(1, sizes["target_size"] if isinstance(sizes["target_size"], int) else 1):
            problems.append(f"end_id is {self.end_id}, expected 0 to {self.target_size - 1}")
        raise_all(problems)

    def to_json(self) -> str:
        """JSON text; :meth:`from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EncoderDecoderConfig:
        """Read :meth:`to_json` text; raises InputError when it is not such a text."""
        try:
            data = json.loads(text)
            encoder, decoder = (tuple(CellConfig(**cell) for cell in data.pop(name)) for name in ("encoder", "decoder"))
            return cls(encoder=encoder, decoder=decoder, **data)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"not the JSON of an encoder-decoder's configuration ({error!r})") from None
