"""Embedders: each loss against its formula in NumPy; whitening; hard negatives; learning without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import CellConfig, Embedder, Pretrainer, ReaderConfig
from rnncore.models.embedding_losses import pair_loss, ranking_loss, triplet_loss
from rnncore.runtime import InputError
from rnncore.training import Observer, fit, hard_negatives
from tests.strategies import SEEDS
from tests.tolerances import bound, fixed

FEATURES, VOCABULARY = 3, 12
EXACT = bound("float64", "oracle", length=9, magnitude=9.0)  # sums of up to nine terms


def embedder(*, tokens: bool = False, both_ways: bool = False, **options: Any) -> Embedder:
    source: dict[str, Any] = {"vocabulary_size": VOCABULARY} if tokens else {"features": FEATURES}
    torch.manual_seed(3)
    config = ReaderConfig((CellConfig.named("gru", 7),), embedding_size=5, bidirectional=both_ways, **source)
    return Embedder(config, 5, **options)


def unit(rows: int, seed: int, size: int = 5) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, size))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def recordings(count: int, seed: int, tokens: bool = False) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 9, count)
    if tokens:
        return [random.integers(0, VOCABULARY, n) for n in lengths]
    return [random.standard_normal((n, FEATURES)).astype(np.float32) for n in lengths]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.floats(0.05, 1.5), SEEDS)
def test_the_triplet_loss_takes_the_hardest_of_the_batch(labels: list[int], margin: float, seed: int) -> None:
    vectors = unit(len(labels), seed)
    leaf = torch.from_numpy(vectors).requires_grad_()
    loss, count = triplet_loss(leaf, torch.tensor(labels), margin)
    terms = []
    for i, label in enumerate(labels):
        mates = [vectors[i] @ vectors[j] for j in range(len(labels)) if labels[j] == label and j != i]
        others = [vectors[i] @ vectors[j] for j in range(len(labels)) if labels[j] != label]
        if mates and others:
            terms.append(max(0.0, max(others) - min(mates) + margin))
    assert count == len(terms)
    assert float(loss.detach()) == pytest.approx(sum(terms), abs=EXACT)
    loss.backward()
    assert leaf.grad is None or bool(torch.isfinite(leaf.grad).all())


@given(st.integers(1, 6), st.integers(0, 7), st.floats(0.05, 2.0), SEEDS)
def test_the_ranking_loss_is_a_softmax_over_all_likes_and_negatives(
    pairs: int, negatives: int, temperature: float, seed: int
) -> None:
    vectors = unit(2 * pairs + negatives, seed)
    numbers = [*range(pairs), *range(pairs), *[-1] * negatives]
    loss, count = ranking_loss(torch.from_numpy(vectors), torch.tensor(numbers), temperature)
    expected = 0.0
    for i in range(pairs):
        scores = vectors[pairs:] @ vectors[i] / temperature
        expected += np.logaddexp.reduce(scores) - scores[i]
    assert count == pairs
    assert float(loss) == pytest.approx(
        expected, abs=bound("float64", "oracle", length=19, magnitude=9.0 / temperature)
    )


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.floats(0.05, 2.0), SEEDS)
def test_the_loss_of_pairs_pulls_some_and_pushes_others(alike: list[bool], margin: float, seed: int) -> None:
    vectors = unit(2 * len(alike), seed)
    loss, count = pair_loss(torch.from_numpy(vectors), torch.tensor(alike), margin)
    cosines = [float(vectors[i] @ vectors[len(alike) + i]) for i in range(len(alike))]
    terms = [1 - c if same else max(0.0, c - 1 + margin) for c, same in zip(cosines, alike, strict=True)]
    assert (float(loss), count) == (pytest.approx(sum(terms), abs=EXACT), len(alike))


def of_kinds(count: int, seed: int, tokens: bool = False) -> list[np.ndarray]:
    """Sequence i is of kind i % 6: ids from a pair of its own, or floats around a mean of its own."""
    random = np.random.default_rng(seed)
    means = random.standard_normal((6, FEATURES))
    rows = []
    for i in range(count):
        length = int(random.integers(4, 9))
        noise = random.normal(0, 0.3, (length, FEATURES))
        rows.append(
            2 * (i % 6) + random.integers(0, 2, length) if tokens else (means[i % 6] + noise).astype(np.float32)
        )
    return rows


def _examples(loss: str, rows: list[np.ndarray]) -> list[tuple[Any, ...]]:
    if loss in ("contrastive", "triplet"):
        return [(row, f"kind {i % 6}") for i, row in enumerate(rows)]
    half = len(rows) // 2
    if loss == "pairs":
        return [(rows[i], rows[half + i + i % 2], i % 2 == 0) for i in range(half - 1)]
    return [
        (rows[i], rows[half + i], *rows[4 : 4 + i % 3]) for i in range(4)
    ]  # 0, 1 or 2 hard negatives, of kinds 4 and 5


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("loss", ["contrastive", "triplet", "ranking", "pairs"])
def test_every_loss_brings_together_what_is_alike(loss: str, tokens: bool) -> None:
    model = embedder(tokens=tokens, loss=loss, pooling="statistics")
    examples = _examples(loss, of_kinds(12, 5, tokens))
    before = model.loss(**model.collate(examples))
    report = fit(model, examples, examples, collate=model.collate, epochs=30, learning_rate=0.03, observer=Observer())
    assert report.best.held_out_loss < 0.7 * float(before[0].detach()) / before[1]
    assert set(report.best.metrics) == {"ordered" if loss == "pairs" else "nearest"}
    assert next(iter(report.best.metrics.values())) == 1.0
    new = of_kinds(12, 5, tokens)
    vectors = model.vectors(new)
    assert (vectors @ vectors.t() - 2 * torch.eye(12)).argmax(1).tolist() == [(i + 6) % 12 for i in range(12)]


def test_metrics_of_pairs_are_counted_by_hand() -> None:
    model = embedder(loss="pairs")
    rows = recordings(8, 1)
    examples = [(rows[i], rows[4 + i], i % 2 == 0) for i in range(4)]
    vectors = model.vectors(rows).numpy()
    cosines = (vectors[:4] * vectors[4:]).sum(1)
    ordered = sum(cosines[i] > cosines[j] for i in (0, 2) for j in (1, 3))
    assert model.metrics(**model.collate(examples)) == {"ordered": (float(ordered), 4)}
    ranking = embedder(loss="ranking")
    found = (vectors[:4] @ vectors[4:].T).argmax(1)
    batch = ranking.collate([one[:2] for one in examples])
    assert ranking.metrics(**batch) == {"nearest": (float((found == np.arange(4)).sum()), 4)}


@given(st.integers(4, 40), st.integers(1, 3), st.sampled_from((0.01, 0.3, 1.0)), SEEDS)
def test_whitened_classes_differ_within_equally_in_all_directions(
    count: int, labels: int, shrinkage: float, seed: int
) -> None:
    """By their definition: the map makes the (shrunk) covariance within classes the identity, and the mean zero."""
    config = ReaderConfig((CellConfig.named("gru", 5),), features=FEATURES)
    model = Embedder(config, 5, pooling="mean").double()
    rows = [one.astype(np.float64) for one in recordings(count, seed)]
    names = [i % labels for i in range(count)]
    model.whiten(zip(rows, names, strict=True), shrinkage=shrinkage)
    pooled = np.concatenate([model._evaluated(model.features, [row]).numpy() for row in rows])
    means = np.stack([pooled[np.array(names) == name].mean(0) for name in names])
    within = (pooled - means).T @ (pooled - means) / count
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / 5 * np.eye(5)
    weight = model.head.weight.detach().numpy()
    np.testing.assert_allclose(weight @ shrunk @ weight.T, np.eye(5), atol=fixed("float32 same steps"))
    np.testing.assert_allclose(
        (pooled @ weight.T + model.head.bias.detach().numpy()).mean(0), 0, atol=fixed("float32 same steps")
    )


def test_whitening_tells_new_classes_apart_where_one_direction_is_noise() -> None:
    """What differs within known classes drowns what differs between new ones, until it is whitened."""
    random = np.random.default_rng(0)

    def recording(kind: int) -> np.ndarray:
        steps = random.normal(0, 0.1, (int(random.integers(4, 9)), FEATURES))
        angle = 2 * np.pi * kind / 12
        steps += [0.5 * np.cos(angle), 0.5 * np.sin(angle), random.normal(0, 3)]
        return steps.astype(np.float32)

    known, new = (
        [(recording(kind), kind) for kind in kinds for _ in range(8)] for kinds in (range(0, 12, 2), range(1, 12, 2))
    )
    model = embedder(pooling="statistics")

    def found() -> float:
        return model.metrics(**model.collate(new))["nearest"][0] / len(new)

    before = found()
    model.eval().whiten(known, shrinkage=0.01)
    assert found() >= 0.9 > before + 0.2


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_a_reader_learns_without_labels_what_comes_next_or_was_hidden(tokens: bool, both_ways: bool) -> None:
    """Sequences that repeat themselves: what is hidden follows from the rest."""
    model = embedder(tokens=tokens, both_ways=both_ways)
    random = np.random.default_rng(1)
    wave = np.sin(np.arange(40)[:, None] * [0.5, 0.7, 0.9]).astype(np.float32)
    starts = random.integers(0, 20, 24)
    rows: list[Any] = [np.arange(s, s + 12) % 4 if tokens else wave[s : s + 12] for s in starts]
    pretrainer = Pretrainer(model.reader)
    weights = {name: value.clone() for name, value in model.reader.state_dict().items()}
    report = fit(
        pretrainer,
        rows,
        rows[:8],
        collate=pretrainer.collate,
        epochs=25,
        batch=8,
        learning_rate=0.03,
        observer=Observer(),
    )
    assert report.best.held_out_loss < 0.5 * report.epochs[0].held_out_loss
    assert any(not torch.equal(value, weights[name]) for name, value in model.reader.state_dict().items())


@given(st.booleans(), st.booleans(), st.lists(st.integers(1, 7), min_size=1, max_size=4), SEEDS)
def test_pretraining_counts_valid_steps_only_and_sees_nothing_of_the_padding(
    tokens: bool, both_ways: bool, lengths: list[int], seed: int
) -> None:
    model = embedder(tokens=tokens, both_ways=both_ways)
    pretrainer = Pretrainer(model.reader).double().eval()
    random = np.random.default_rng(seed)
    rows = [random.integers(0, VOCABULARY, n) if tokens else random.standard_normal((n, FEATURES)) for n in lengths]
    batch = {k: v.double() if v.is_floating_point() else v for k, v in pretrainer.collate(rows).items()}
    clean, count = pretrainer.loss(**batch)
    dirty = batch["x"].clone()
    for row, length in enumerate(lengths):
        dirty[row, length:] = 3 if tokens else 1e30
    again, _ = pretrainer.loss(dirty, batch["lengths"])
    assert torch.isfinite(clean) and torch.equal(clean, again)
    if both_ways:
        assert len(lengths) <= count <= sum(lengths)
    else:
        assert count == sum(lengths) - len(lengths)


@given(st.integers(3, 12), st.integers(1, 2), SEEDS)
def test_hard_negatives_are_the_nearest_likes_of_other_pairs(pairs: int, count: int, seed: int) -> None:
    model = embedder(loss="ranking")
    rows = recordings(2 * pairs, seed)
    given_pairs = [(rows[i], rows[pairs + i]) for i in range(pairs)]
    given_pairs[2] = (rows[2], given_pairs[0][1])  # the same like twice: never a negative of either
    vectors, likes = (model.vectors([pair[part] for pair in given_pairs]).numpy() for part in (0, 1))
    for number, (mined, pair) in enumerate(zip(hard_negatives(model, given_pairs, 1), given_pairs, strict=True)):
        assert mined[:2] == pair and len(mined) == 3
        order = np.argsort(-(likes @ vectors[number]), kind="stable")
        allowed = [i for i in order if not np.array_equal(given_pairs[i][1], pair[1])]
        score = vectors[number] @ model.vectors([mined[2]]).numpy()[0]
        assert score == pytest.approx(likes[allowed[0]] @ vectors[number], abs=bound("float32", "chunked", depth=4))
    if pairs > count + 3:
        skipped = hard_negatives(model, given_pairs, count, skip=1)
        assert all(len(mined) == 2 + count for mined in skipped)
        assert len(model.collate(skipped)["x"]) == (2 + count) * pairs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: embedder(loss="cosine"), "unknown loss 'cosine'; known: contrastive, triplet, ranking, pairs"),
        (lambda: embedder(margin=3.0), "margin is 3.0, expected above 0 and at most 2"),
        (lambda: embedder(loss="pairs").collate([(np.zeros((2, 3)), np.zeros((2, 3)))]), "whether they are alike"),
        (lambda: embedder(loss="ranking").collate([(np.zeros((2, 3)),)]), "its like, hard negatives"),
        (lambda: embedder().whiten([]), "there is no example"),
        (lambda: embedder().whiten([(np.zeros((2, 3), "f"), "a")]), "expected some label with several examples"),
        (
            lambda: embedder().whiten([(np.zeros((2, 3), "f"), "a")] * 2, shrinkage=0),
            "shrinkage is 0, expected above 0",
        ),
        (lambda: Pretrainer(embedder().reader, hidden=1.0), "hidden is 1.0"),
        (lambda: hard_negatives(embedder(loss="ranking"), [(np.ones((2, 3), "f"),) * 2] * 3), "likes of others"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()
