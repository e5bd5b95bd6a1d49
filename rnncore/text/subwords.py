"""A vocabulary of pieces of words."""

from __future__ import annotations

from collections.abc import Iterable

from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.text.special_tokens import EOS
from rnncore.runtime.text.vocabulary import Vocabulary

_BYTES = 256


def subword_vocabulary(texts: Iterable[str], size: int = 2_000, *, lowercase: bool = False) -> Vocabulary:
    """Byte-pair encoding (Sennrich, Haddow and Birch, 2016) over bytes: no text is unknown, and decoding gives it back.

    Starts from the 256 bytes and ``<eos>`` (id 0), and merges the most frequent pair of neighbours within words until there
    are ``size`` tokens, or nothing occurs twice.  Among the library's printable spellings of bytes, ``Ġ`` is a blank.

    Args:
        texts: what to count.
        size: most tokens.
        lowercase: read capitals as small letters, in these texts and in every text that the exported file is asked about:
            the file holds this with its tokens.  Decoding then gives small letters.

    Raises:
        InputError: size is below 257, or no text.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError:
        raise MissingExtraError("tokenizers", "text", "a subword vocabulary") from None
    if size < _BYTES + 1:
        raise InputError(f"the size of the vocabulary is {size}, expected at least {_BYTES + 1}: {EOS} and all bytes")
    texts = list(texts)
    if not any(texts):
        raise InputError("the texts hold no character: a vocabulary needs some to count")
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Vocabulary(tokenizer)
