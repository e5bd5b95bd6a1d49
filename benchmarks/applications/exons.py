"""Every base of 210,000 of a human chromosome: in an exon or not; both strands, and what stands for an unknown base."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, step_us
from benchmarks.applications.record import Measured
from rnncore import CellConfig, ReaderConfig, Tagger, runtime
from rnncore.text import Vocabulary, token_vocabulary
from rnncore.training import fit

FLOORS = {"DNA, exons base by base": 0.22}
BLOCK, PIECE, FLANK = 10_000, 500, 100
"""Bases: of a block, which is trained with or not; of what the network reads at once; to each side, read but not told of."""

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
LABELS = ("other", "exon")


class Strand(NamedTuple):
    """Bases of ACGTN, and whether each is in an exon."""

    bases: str
    exon: np.ndarray

    def reversed(self) -> Strand:
        """The other strand, read in its own direction."""
        return Strand(self.bases.translate(COMPLEMENT)[::-1], self.exon[::-1])


def data() -> Split:
    """Every fifth block tests, the one after it validates: what is tested is nowhere near what is learnt."""
    from datasets import exons

    bases, intervals = exons()
    inside = np.zeros(len(bases), bool)
    for first, last in intervals:
        inside[first:last] = True
    blocks = [Strand(bases[i : i + BLOCK].upper(), inside[i : i + BLOCK]) for i in range(0, len(bases), BLOCK)]
    parts: tuple[list[Strand], ...] = ([], [], [])
    for i, block in enumerate(blocks):
        parts[{2: 2, 3: 1}.get(i % 5, 0)].append(block)
    return Split(*parts)


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model, vocabulary = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = files_of(model, vocabulary=vocabulary)

    def f1(path: object) -> float:
        tagger = runtime.Tagger.load(path)  # type: ignore[arg-type]
        at = best_threshold([probabilities(tagger, one.bases) for one in parts.valid], parts.valid)
        return f1_at(at, [probabilities(tagger, one.bases) for one in parts.test], parts.test)

    tagger, piece = runtime.Tagger.load(files.fp32), kmers(parts.test[0].bases[:PIECE])
    return [
        Measured(
            "DNA, exons base by base",
            "hg38.fa and refseq.hg38.gtf of Debian's augustus-doc (chr16:186964-397118), blocks of 10,000 bases",
            tuple(sum(len(one.bases) for one in part) for part in parts),  # type: ignore[arg-type]
            "F1 of bases in exons",
            f1(files.fp32),
            None if files.int8 is None else f1(files.int8),
            baselines(parts),
            files.sizes,
            train_s,
            step_us(tagger.tag, [piece], PIECE),
            "base",
            note="Exons of both strands, untranslated parts too. The answer is the mean over the two strands; where a base "
            f"counts as exon is chosen by the validation blocks, for the baselines as well. {files.why}",
        )
    ]


def kmers(bases: str) -> list[str]:
    """Each base with its neighbours; N beyond the ends."""
    padded = f"N{bases}N"
    return [padded[i : i + 3] for i in range(len(bases))]


def with_unknown(strand: Strand, seed: int, part: float = 0.01) -> Strand:
    """With N in place of some bases, which the genome at hand has none of, so that the network learns to do without."""
    bases = np.array(list(strand.bases))
    bases[np.random.default_rng(seed).random(len(bases)) < part] = "N"
    return Strand("".join(bases), strand.exon)


def pieces(strand: Strand) -> list[tuple[list[str], np.ndarray, slice]]:
    """(tokens, whether each is in an exon, which of them count) of each piece with what stands around it."""
    tokens, found = kmers(strand.bases), []
    for start in range(0, len(tokens), PIECE):
        left, stop = max(0, start - FLANK), min(len(tokens), start + PIECE + FLANK)
        count = slice(start - left, start - left + min(PIECE, len(tokens) - start))
        found.append((tokens[left:stop], strand.exon[left:stop], count))
    return found


def trained(train: Sequence[Strand], valid: Sequence[Strand], *, epochs: int = 8) -> tuple[Tagger, Vocabulary]:
    both = [with_unknown(strand, i) for i, one in enumerate(train) for strand in (one, one.reversed())]
    every = ["".join(bases) for bases in product("ACGTN", repeat=3)]
    vocabulary = token_vocabulary([every], fold=True)  # small letters are read as well
    torch.manual_seed(0)
    config = ReaderConfig(
        (CellConfig.named("gru", 40),),
        len(vocabulary),
        embedding_size=24,
        bidirectional=True,
        dropout=0.3,
        variational=True,
        weight_drop=0.2,
    )
    model = Tagger(config, LABELS)

    def encoded(strands: Sequence[Strand]) -> list[tuple[object, list[str]]]:
        return [
            (vocabulary.encode_tokens(tokens), [LABELS[int(one)] for one in exon])
            for strand in strands
            for tokens, exon, _ in pieces(strand)
        ]

    fit(
        model,
        encoded(both),
        encoded(valid),
        collate=model.collate,
        epochs=epochs,
        batch=16,
        learning_rate=6e-3,
        average=0.99,
    )
    return model, vocabulary


def probabilities(tagger: runtime.Tagger, bases: str) -> np.ndarray:
    """Of being in an exon, the mean of what both strands say."""
    strand = Strand(bases, np.zeros(len(bases), bool))
    found = []
    for one in (strand, strand.reversed()):
        parts = pieces(one)
        told = [tagger.log_probs(tokens)[count, LABELS.index("exon")] for tokens, _, count in parts]
        found.append(np.exp(np.concatenate(told)))
    return np.mean([found[0], found[1][::-1]], axis=0)


def f1_at(threshold: float, found: Sequence[np.ndarray], strands: Sequence[Strand]) -> float:
    said, is_so = np.concatenate(list(found)) >= threshold, np.concatenate([one.exon for one in strands])
    return float(2 * (said & is_so).sum() / max(1, said.sum() + is_so.sum()))


def best_threshold(found: Sequence[np.ndarray], strands: Sequence[Strand]) -> float:
    return max(np.linspace(0.02, 0.9, 45).tolist(), key=lambda at: f1_at(at, found, strands))


def baselines(parts: Split) -> dict[str, float]:
    """All is exon; how much of each codon stands within 60 bases to either side, and logistic regression or a forest."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    always = [np.ones(len(one.bases)) for one in parts.test]
    found = {"all in exons": f1_at(0.5, always, parts.test)}
    both = [strand for one in parts.train for strand in (one, one.reversed())]
    x, y = np.concatenate([codons(one.bases)[::4] for one in both]), np.concatenate([one.exon[::4] for one in both])
    for name, model in (
        ("codon statistics + logistic regression", make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))),
        ("codon statistics + random forest", RandomForestClassifier(60, min_samples_leaf=20, random_state=0)),
    ):
        model.fit(x, y)
        valid, test = (
            [(told[0] + told[1][::-1]) / 2 for told in _both_strands(model, part)] for part in (parts.valid, parts.test)
        )
        found[name] = f1_at(best_threshold(valid, parts.valid), test, parts.test)
    return found


def _both_strands(model: object, strands: Sequence[Strand]) -> list[list[np.ndarray]]:
    return [
        [model.predict_proba(codons(each.bases))[:, 1] for each in (one, one.reversed())]  # type: ignore[attr-defined]
        for one in strands
    ]


def codons(bases: str, around: int = 60) -> np.ndarray:
    """How often each of the 64 codons stands near each base, at any frame [bases, 64]."""
    ids = np.array(["ACGT".find(base) for base in f"{bases}NN"])
    triples = np.where((ids[:-2] < 0) | (ids[1:-1] < 0) | (ids[2:] < 0), 64, ids[:-2] * 16 + ids[1:-1] * 4 + ids[2:])
    sums = np.concatenate([np.zeros((1, 64)), np.eye(65)[triples][:, :64].cumsum(0)])
    place = np.arange(len(bases))
    return sums[np.minimum(place + around, len(bases))] - sums[np.maximum(place - around, 0)]
