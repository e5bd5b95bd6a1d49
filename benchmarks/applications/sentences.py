"""Titles of packages of sections that no training has seen, found by the titles of others of the same section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.applications.common import Stopwatch, files_of, step_us
from benchmarks.applications.record import Measured
from benchmarks.applications.speakers import average_precision
from rnncore import CellConfig, Embedder, ReaderConfig, runtime
from rnncore.text import Vocabulary, word_vocabulary
from rnncore.training import fit

FLOORS = {"embeddings, titles of sections never seen": 0.45}
NEW = ("electronics", "games", "mail", "math", "sound", "vcs")
CHOOSING = ("comm", "editors", "hamradio", "science", "video", "web")
WORDS = 30
"""Of a description, that are read."""

Row = tuple[str, str, str]
"""Title, description, section."""


class Parts(NamedTuple):
    """Rows split by their sections."""

    train: list[Row]
    valid: list[Row]
    test: list[Row]


def data() -> Parts:
    """The sections of ``NEW`` test, those of ``CHOOSING`` validate, all others are learnt from."""
    from datasets import descriptions

    parts = Parts([], [], [])
    for title, text, section in descriptions():
        where = parts.test if section in NEW else parts.valid if section in CHOOSING else parts.train
        where.append((title, " ".join(text.split()[:WORDS]), section))
    return parts


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model, vocabulary = trained(parts)
    train_s = watch.seconds
    files = files_of(model, vocabulary=vocabulary)
    titles, sections = [title for title, *_ in parts.test], [section for *_, section in parts.test]
    embedder = runtime.Embedder.load(files.fp32)
    watch = Stopwatch()
    vectors = embedder.embed_many(titles)
    seconds = watch.seconds
    found = {"fp32": vectors, **baselines(parts)}
    scores = {name: average_precision(one, sections) for name, one in found.items()}
    nearest = {name: nearest_alike(one, sections) for name, one in found.items()}
    return [
        Measured(
            "embeddings, titles of sections never seen",
            "titles and descriptions of Debian's packages (apt's lists), one of each source package; the sections "
            f"{', '.join(NEW)} test, {', '.join(CHOOSING)} validate",
            (len(parts.train), len(parts.valid), len(parts.test)),
            "mean average precision",
            scores.pop("fp32"),
            None
            if files.int8 is None
            else average_precision(runtime.Embedder.load(files.int8).embed_many(titles), sections),
            scores,
            files.sizes,
            train_s,
            step_us(embedder.embed, titles[:100], sum(len(vocabulary.encode(title)) for title in titles[:100])),
            "word",
            more={
                "the nearest is of the same section": nearest.pop("fp32"),
                **{f"that of {name}": value for name, value in nearest.items()},
                "vectors a second": len(titles) / seconds,
            },
            note="Learnt from titles and their own descriptions, by the ranking loss, from word vectors of TF-IDF's SVD on; of "
            "sections it is told nothing. With the validation sections, random word vectors and a temperature of 0.05 had 0.458 "
            "(TF-IDF 0.458), hardly more by learning the sections of other titles afterwards (0.459), less by whitening (0.443); "
            "after two epochs from those word vectors a temperature of 0.1 had 0.576, of 0.2 0.585. "
            f"What all titles have in common counts as well: at random there would be {chance(sections):.3f}. "
            f"{files.why}".strip(),
        )
    ]


def new_model(parts: Parts) -> tuple[Embedder, Vocabulary]:
    """An embedder that has learnt nothing but what words mean: latent semantic analysis of what is learnt from."""
    texts = [text for title, more, _ in parts.train for text in (title, more)]
    vocabulary = word_vocabulary(texts, 12_000, least_count=3, lowercase=True)
    torch.manual_seed(0)
    config = ReaderConfig(
        (CellConfig.named("gru", 64),), len(vocabulary), embedding_size=96, bidirectional=True, dropout=0.2
    )
    model = Embedder(config, 96, pooling="mean", loss="ranking", temperature=0.2)
    analysis = Analysis.of(parts, config.embedding_size)
    vectors = (analysis.dimensions.components_ * analysis.words.idf_).T
    embedding = model.reader.embedding
    assert embedding is not None
    with torch.no_grad():
        for word, row in analysis.words.vocabulary_.items():
            if word in vocabulary:
                embedding.weight[vocabulary.token_id(word)] = torch.from_numpy(vectors[row] / vectors.std()).float()
    return model, vocabulary


def trained(parts: Parts, *, epochs: int = 3) -> tuple[Embedder, Vocabulary]:
    """An embedder for which a title is nearer to its description than to those of the other packages of a batch."""
    model, vocabulary = new_model(parts)

    def encoded(rows: Sequence[Row]) -> list[tuple[object, object]]:
        return [(vocabulary.encode(title), vocabulary.encode(more)) for title, more, _ in rows if title and more]

    fit(
        model,
        encoded(parts.train),
        encoded(parts.valid),
        collate=model.collate,
        epochs=epochs,
        batch=128,
        learning_rate=4e-3,
        average=0.99,
    )
    return model, vocabulary


class Analysis(NamedTuple):
    """Latent semantic analysis: words by TF-IDF, and the dimensions in which those of like texts are alike."""

    words: Any
    dimensions: Any

    @classmethod
    def of(cls, parts: Parts, size: int) -> Analysis:
        """Learnt from the titles and descriptions that the network has."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        known = [f"{title} {more}" for title, more, _ in parts.train]
        words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit(known)
        return cls(words, TruncatedSVD(size, random_state=0).fit(words.transform(known)))


def baselines(parts: Parts) -> dict[str, np.ndarray]:
    """Vectors of the titles to find: random ones of words, TF-IDF, that in 100 dimensions, and the same layers untrained."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    titles = [title for title, *_ in parts.test]
    own = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit([*(title for title, *_ in parts.train), *titles])
    analysis = Analysis.of(parts, 100)
    untrained, vocabulary = new_model(parts)
    ids = [vocabulary.encode(title) for title in titles]
    pooled = torch.nn.Embedding(len(vocabulary), 96)
    with torch.no_grad():
        words = [pooled(torch.as_tensor(one).long()).mean(0).numpy() for one in ids]
    return {
        "mean of random word vectors": np.stack(words),
        "TF-IDF": own.transform(titles).toarray(),
        "mean of TF-IDF's word vectors (SVD, 100)": analysis.dimensions.transform(analysis.words.transform(titles)),
        "the same, untrained": untrained.vectors(ids).numpy(),
    }


def nearest_alike(vectors: np.ndarray, labels: Sequence[str]) -> float:
    """How often the nearest other vector has the same label."""
    scores = runtime.cosines(vectors, vectors)
    np.fill_diagonal(scores, -np.inf)
    names = np.array(labels)
    return float((names[scores.argmax(1)] == names).mean())


def chance(labels: Sequence[str]) -> float:
    """What random vectors would have, nearly: the chance that two have the same label."""
    counts = np.unique(np.array(labels), return_counts=True)[1]
    return float(((counts / len(labels)) ** 2).sum())
