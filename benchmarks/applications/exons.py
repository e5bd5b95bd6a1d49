"""Every base of 210,000 of a human chromosome: in an exon or not; both strands, and what stands for an unknown base."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, step_us
from benchmarks.applications.record import Measured
from rnncore import CellConfig, ReaderConfig, Tagger, runtime
from rnncore.training import fit

FLOORS = {"DNA, exons base by base": 0.29}
BLOCK, STEP, AROUND = 10_000, 10, 60
"""Bases: of a block, which is trained with or not; of a step; to each side of a step, whose codons are counted."""

PIECE, OFFSETS = 50, (0, 5)
"""Steps of what is learnt from at once; where the first of them begins."""

NOTE = (
    "Exons of both strands, untranslated parts too. The answer is the mean over the two strands; where a base counts as "
    "exon is chosen by the validation blocks, for the baselines as well. The network reads how often each codon stands "
    "within 60 bases, every ten bases. Of the validation blocks F1 is 0.48 and average precision 0.54 (logistic regression "
    "on the same counts 0.47 and 0.43); learnt from pieces of 2000 bases 0.47 and 0.50, with counts within 250 bases as "
    "well 0.50 and 0.40, from whole blocks 0.39 and 0.28; reading each base with its neighbours 0.44 and 0.34. The test set "
    "was asked once before, with the last of these: 0.232."
)

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
    model = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = files_of(model)

    def f1(path: object) -> float:
        tagger = runtime.Tagger.load(path)  # type: ignore[arg-type]
        at = best_threshold([probabilities(tagger, one.bases) for one in parts.valid], parts.valid)
        return f1_at(at, [probabilities(tagger, one.bases) for one in parts.test], parts.test)

    tagger, bases = runtime.Tagger.load(files.fp32), parts.test[0].bases
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
            step_us(partial(probabilities, tagger), [bases], len(bases)),
            "base",
            note=f"{NOTE} {files.why}".strip(),
        )
    ]


def features(bases: str, offset: int = 0) -> np.ndarray:
    """How often each codon stands near the middle of each step, float32 [steps, 64]; small letters and N are read as well."""
    middles = np.minimum(np.arange(offset, len(bases), STEP) + STEP // 2, len(bases) - 1)
    return codons(bases.upper(), AROUND)[middles].astype(np.float32)


def labels(exon: np.ndarray, offset: int = 0) -> list[str]:
    """Of each step: what at least half of its bases are."""
    return [LABELS[int(exon[i : i + STEP].mean() >= 0.5)] for i in range(offset, len(exon), STEP)]


def pieces(strand: Strand) -> list[tuple[np.ndarray, list[str]]]:
    """(features, label of each step) of short pieces, as two ways of cutting steps have them."""
    found = []
    for offset in OFFSETS:
        told, wanted = features(strand.bases, offset), labels(strand.exon, offset)
        found += [(told[i : i + PIECE], wanted[i : i + PIECE]) for i in range(0, len(told), PIECE)]
    return found


def trained(train: Sequence[Strand], valid: Sequence[Strand], *, epochs: int = 4) -> Tagger:
    learnt = [piece for one in train for strand in (one, one.reversed()) for piece in pieces(strand)]
    held = [(features(strand.bases), labels(strand.exon)) for one in valid for strand in (one, one.reversed())]
    torch.manual_seed(0)
    config = ReaderConfig(
        (CellConfig.named("gru", 24),), features=64, bidirectional=True, dropout=0.5, variational=True
    )
    model = Tagger(config, LABELS)
    model.reader.standardise([told for told, _ in learnt])
    fit(
        model,
        learnt,
        held,
        collate=model.collate,
        epochs=epochs,
        batch=8,
        learning_rate=3e-3,
        weight_decay=0.3,
        average=0.98,
    )
    return model


def probabilities(tagger: runtime.Tagger, bases: str) -> np.ndarray:
    """Of being in an exon, the mean of what both strands say."""
    found = []
    for one in (bases, bases.translate(COMPLEMENT)[::-1]):
        steps = np.exp(tagger.log_probs(features(one))[:, LABELS.index("exon")])
        found.append(np.repeat(steps, STEP)[: len(bases)])
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
