"""A vocabulary of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.text.special_tokens import EOS, UNK
from rnncore.runtime.text.vocabulary import Vocabulary

# A word with inner apostrophes and hyphens (don't, well-known), a line end, or any other single character but blanks.
_TOKEN = r"\w+(?:['’-]\w+)*|\n|[^\w\s]"
# How tokens with a blank between each two of them become readable again.
_JOINTS = (
    (r" (?=[,.;:!?%)\]}’”…])", ""),  # none before these
    (r"(?<=[(\[{‘“]) ", ""),  # none after these
    (r" ?\n ?", "\n"),
)


def word_vocabulary(
    texts: Iterable[str], size: int = 10_000, *, least_count: int = 1, lowercase: bool = False
) -> Vocabulary:
    """The most frequent words and punctuation marks of ``texts``, after ``<eos>`` (id 0) and ``<unk>`` (id 1).

    Tokens are words (``don't`` and ``well-known`` are one each), single other characters and line ends; blanks are not
    tokens, so texts that differ in blanks only are equal.  Everything else is read as ``<unk>``: a model that is trained on
    texts with some of it learns how likely a word that it does not know is.  Ids fall with frequency, as adaptive softmax
    wants.  ``decode`` puts blanks where English has them.

    Args:
        texts: what to count.
        size: most tokens, ``<eos>`` and ``<unk>`` included.
        least_count: a word that occurs less often is unknown.
        lowercase: read capitals as small letters, in these texts and in every text that the exported file is asked about:
            the file holds this with its tokens.

    Raises:
        InputError: no word is left, or size is below 3.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "text", "a word vocabulary") from None
    if size < 3:
        raise InputError(f"the size of the vocabulary is {size}, expected at least 3: {EOS}, {UNK} and a word")
    splitter = pre_tokenizers.Split(Regex(_TOKEN), "removed", invert=True)
    counts: Counter[str] = Counter()
    folded = normalizers.Lowercase() if lowercase else None
    for text in texts:
        read = text if folded is None else folded.normalize_str(text)
        counts.update(word for word, _ in splitter.pre_tokenize_str(read))
    frequent = sorted((-count, word) for word, count in counts.items() if count >= least_count)
    if not frequent:
        raise InputError(f"the texts hold no word that occurs {least_count} times: a vocabulary needs at least one")
    words = [word for _, word in frequent[: size - 2]]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate([EOS, UNK, *words])}, unk_token=UNK))
    if folded is not None:
        tokenizer.normalizer = folded
    tokenizer.pre_tokenizer = splitter
    # The second character of Unicode marks nothing in any text, so this decoder only puts blanks between tokens.
    spaced = decoders.WordPiece(prefix="\x01", cleanup=False)
    joints = [decoders.Replace(Regex(pattern), content) for pattern, content in _JOINTS]
    tokenizer.decoder = decoders.Sequence([spaced, decoders.Fuse(), *joints])
    tokenizer.add_special_tokens([EOS])
    return Vocabulary(tokenizer)
