"""Sentences and the mean rating that twenty people gave them, -4 to 4: polarity, rank correlation, and "not bad"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us, without_duplicates
from benchmarks.applications.record import Measured
from rnncore import CellConfig, Rater, ReaderConfig, runtime
from rnncore.text import Vocabulary, word_vocabulary
from rnncore.training import fit

FLOORS = {"sentiment, sentences": 0.79}
NEUTRAL = 0.5
"""Sentences that people rate nearer to 0 are of no polarity."""

NOT_BAD = ("this is not bad", "this film is not bad at all", "not a bad movie")
NEGATED = ("not {}", "this is not {}", "not a {} one", "it is not {} at all", "it isn't {}")
NEGATION = -0.74
"""What "not" makes of a rating, as people rated it for VADER (Hutto and Gilbert 2014)."""

Row = tuple[str, float]


def data() -> Split:
    from datasets import ratings

    rows = [(" ".join(text.lower().split()), rating) for text, rating in ratings()]
    return split(without_duplicates(rows, key=lambda row: row[0]))


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    extra = phrases(parts)
    model, vocabulary = trained([*parts.train, *extra], parts.valid)
    train_s = watch.seconds
    files = files_of(model, vocabulary=vocabulary)
    texts = [text for text, _ in parts.test]
    rater = runtime.Rater.load(files.fp32)
    found = np.array(rater.rate_many(texts))
    more = {
        "Spearman with people": spearman(found, parts.test),
        **{f'"{text}"': float(rater.rate(text)) for text in NOT_BAD},
        **{f"Spearman of {name}": value for name, value in baselines(parts, [], rank=True).items()},
        **{f"Spearman of {name}": value for name, value in baselines(parts, extra, rank=True).items()},
    }

    def int8() -> float | None:
        if files.int8 is None:
            return None
        return polarity(np.array(runtime.Rater.load(files.int8).rate_many(texts)), parts.test)

    return [
        Measured(
            "sentiment, sentences",
            "the four tables of vaderSentiment 3.3.2 (MIT), equal sentences merged; polarity of those rated beyond ±0.5",
            parts.sizes,
            "polarity accuracy",
            polarity(found, parts.test),
            int8(),
            {**baselines(parts, []), **baselines(parts, extra)},
            files.sizes,
            train_s,
            step_us(rater.rate, texts[:200], sum(len(vocabulary.encode(text)) for text in texts[:200])),
            "word",
            more=more,
            note=f"{len(extra):,} phrases are trained with as well: the words of VADER's lexicon, and each after a 'not' that "
            f"turns its rating, but for 'bad'. {files.why}".strip(),
        )
    ]


def polarity(found: np.ndarray, rows: Sequence[Row]) -> float:
    wanted = np.array([rating for _, rating in rows])
    clear = np.abs(wanted) > NEUTRAL
    return float(((found > 0) == (wanted > 0))[clear].mean())


def spearman(found: np.ndarray, rows: Sequence[Row]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(found, [rating for _, rating in rows]).statistic)


def phrases(parts: Split) -> list[Row]:
    """Words that people rated, and each after a "not"; but not "bad", so that what is said of it is not learnt by heart."""
    from datasets import rated_words

    seen = {text for part in parts for text, _ in part}
    words = {word.lower(): rating for word, rating in rated_words() if word.lower() not in seen}
    negated = [
        (NEGATED[i % len(NEGATED)].format(word), NEGATION * rating)
        for i, (word, rating) in enumerate(words.items())
        if word != "bad"
    ]
    return [*words.items(), *(row for row in negated if row[0] not in seen)]


def trained(train: Sequence[Row], valid: Sequence[Row], *, epochs: int = 4) -> tuple[Rater, Vocabulary]:
    vocabulary = word_vocabulary((text for text, _ in train), least_count=2, lowercase=True)
    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 64),)
    config = ReaderConfig(cells, len(vocabulary), embedding_size=64, bidirectional=True, dropout=0.5, variational=True)
    model = Rater(config, -4, 4, pooling="attention")
    with torch.no_grad():  # what is rare should say little unless it is learnt
        model.reader.embedding.weight.mul_(0.1)

    def encoded(rows: Sequence[Row]) -> list[tuple[object, float]]:
        return [(vocabulary.encode(text), rating) for text, rating in rows]

    fit(
        model,
        encoded(train),
        encoded(valid),
        collate=model.collate,
        epochs=epochs,
        batch=64,
        learning_rate=5e-3,
        average=0.998,
    )
    return model, vocabulary


def baselines(parts: Split, extra: Sequence[Row], *, rank: bool = False) -> dict[str, float]:
    """Always positive or negative; TF-IDF of words and pairs with logistic regression, or with ridge regression to rank.

    extra: trained with as well.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    rows = [*parts.train, *extra]
    wanted = np.array([rating for _, rating in rows])
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"[\w']+|[^\w\s]")
    train = vectors.fit_transform([text for text, _ in rows])
    test = vectors.transform([text for text, _ in parts.test])
    if rank:
        return {
            "TF-IDF + ridge" + ", the same phrases" * bool(extra): spearman(
                Ridge(alpha=1.0).fit(train, wanted).predict(test), parts.test
            )
        }
    clear = np.flatnonzero(np.abs(wanted) > NEUTRAL)
    logistic = LogisticRegression(C=3.0, max_iter=2000).fit(train[clear], wanted[clear] > 0)
    scores = logistic.predict_proba(test)[:, 1] - 0.5
    constant = np.full(len(parts.test), (wanted[clear] > 0).mean() - 0.5)
    if extra:
        return {"the same with the same phrases": polarity(scores, parts.test)}
    return {
        "always the commonest": polarity(constant, parts.test),
        "TF-IDF + logistic regression": polarity(scores, parts.test),
    }
