"""The ready models in PyTorch: padding, losses, metrics."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnncore import CellConfig, Classifier, Embedder, Generator, Rater, ReaderConfig, Recogniser, Tagger
from rnncore.models import CELLS, POOLINGS, TaskModel, pad_sequences
from rnncore.runtime import InputError
from rnncore.runtime.tasks.ctc import collapse
from rnncore.training import Observer, fit
from tests.strategies import SEEDS, randomize
from tests.tolerances import bound, fixed

FEATURES, VOCABULARY, LABELS = 3, 11, ("B-x", "I-x", "O", "B-y", "I-y")
KINDS = ("tagger", "classifier", "rater", "embedder", "recogniser", "generator")
lengths_lists = st.lists(st.integers(0, 7), min_size=2, max_size=5)
FEWER = settings(max_examples=min(40, settings.default.max_examples))  # each one builds and runs a network


@st.composite
def models(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> TaskModel:
    kind = draw(st.sampled_from(kinds))
    names = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=2))
    stack = tuple(CellConfig.named(name, size) for name, size in zip(names, (7, 5), strict=False))
    tokens = kind == "generator" or (kind != "recogniser" and draw(st.booleans()))
    both_ways = kind != "generator" and draw(st.booleans())
    source: dict[str, Any] = {"vocabulary_size": VOCABULARY} if tokens else {"features": FEATURES}
    config = ReaderConfig(stack, embedding_size=2, bidirectional=both_ways, **source)
    pooling = draw(st.sampled_from(POOLINGS))
    made: dict[str, Any] = {
        "tagger": lambda: Tagger(config, LABELS),
        "classifier": lambda: Classifier(config, LABELS, pooling=pooling),
        "rater": lambda: Rater(config, -2.0, 3.0, pooling=pooling),
        "embedder": lambda: Embedder(config, 13, pooling=pooling),
        "recogniser": lambda: Recogniser(config, LABELS),
        "generator": lambda: Generator(config, LABELS if both_ways else draw(st.sampled_from((LABELS, ())))),
    }
    model: TaskModel = randomize(made[kind]().double().eval(), draw(SEEDS))
    return model


def examples(model: TaskModel, lengths: list[int], seed: int) -> list[tuple[Any, Any]]:
    random = np.random.default_rng(seed)
    made = []
    for length in lengths:
        if model.reader.config.vocabulary_size is None:
            x: Any = random.standard_normal((length, FEATURES))
        else:
            x = random.integers(0, VOCABULARY, length)
        names = [str(name) for name in random.choice(LABELS, length)]
        target: Any = names[0] if names else LABELS[1]
        if model.task == "tagger":
            target = names
        elif model.task == "rater":
            target = float(random.uniform(-2, 3))
        elif model.task == "recogniser":
            target = names[: length // 2]
        made.append((x, target))
    return made


def collated(model: Any, rows: list[tuple[Any, Any]], *, dirty: bool = False) -> dict[str, Tensor]:
    """A batch in float64; ``dirty``: NaN, or other ids, where a row has ended."""
    batch = {k: v.double() if v.is_floating_point() else v for k, v in model.collate(rows).items()}
    if dirty:
        for row, length in enumerate(batch["lengths"].tolist()):
            batch["x"][row, length:] = 3 if model.reader.embedding is not None else float("nan")
    return batch


@FEWER
@given(models(), lengths_lists, SEEDS)
def test_padding_and_neighbours_change_nothing(model: Any, lengths: list[int], seed: int) -> None:
    rows = examples(model, lengths, seed)
    batch = collated(model, rows, dirty=True)
    inputs = {name: batch[name] for name in ("x", "lengths", "condition") if name in batch}
    together = model(**inputs)
    assert torch.isfinite(together).all()
    allowed = bound("float64", "chunked", depth=4, length=9, magnitude=9.0)
    for i, row in enumerate(rows):
        own = collated(model, [row])
        alone = model(**{name: own[name] for name in inputs})
        got = together[i : i + 1]
        if got.dim() == 3:
            assert not got[:, alone.shape[1] :].any()
            got = got[:, : alone.shape[1]]
        torch.testing.assert_close(got, alone, rtol=0, atol=allowed)


@FEWER
@given(models(tuple(kind for kind in KINDS if kind != "embedder")), lengths_lists, SEEDS)
def test_a_batch_costs_what_its_rows_cost_alone(model: Any, lengths: list[int], seed: int) -> None:
    """Values and gradients of all weights; and none at all in the padding."""
    rows = examples(model, lengths, seed)

    def costs(batches: list[dict[str, Tensor]]) -> tuple[float, int, dict[str, Tensor]]:
        model.zero_grad()
        parts = [model.loss(**batch) for batch in batches]
        total = sum((part for part, _ in parts), torch.zeros((), dtype=torch.float64))
        total.backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return float(total.detach()), sum(count for _, count in parts), found

    batch = collated(model, rows, dirty=True)
    if batch["x"].is_floating_point():
        batch["x"].requires_grad_()
    total, count, gradients = costs([batch])
    if batch["x"].is_floating_point() and batch["x"].grad is not None:
        for row, length in enumerate(lengths):
            assert not batch["x"].grad[row, length:].any()
    own_total, own_count, own_gradients = costs([collated(model, [row]) for row in rows])
    assert count == own_count or model.task == "recogniser"  # which counts an empty batch as one
    assert math.isclose(total, own_total, rel_tol=fixed("float64 sum"), abs_tol=fixed("float64 sum"))
    for name, gradient in gradients.items():
        own = own_gradients.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(
            gradient, own, rtol=fixed("float64 model gradient"), atol=fixed("float64 model gradient")
        )


@given(st.integers(0, 3), st.integers(1, 4), SEEDS)
def test_ctc_is_the_sum_over_all_alignments(size: int, time: int, seed: int) -> None:
    model = randomize(Recogniser(ReaderConfig((CellConfig.named("gru", 7),), features=FEATURES), "ab").double(), seed)
    random = np.random.default_rng(seed)
    x, text = random.standard_normal((time, FEATURES)), "".join(random.choice(["a", "b"], size))
    try:
        batch = collated(model, [(x, text)])
    except InputError as error:
        assert "its labels need at least" in str(error)
        return
    log_probs = model(batch["x"])[0].detach().numpy()
    wanted = [1 + "ab".index(letter) for letter in text]
    paths = [path for path in product(range(3), repeat=time) if collapse(path) == wanted]
    expected = -np.logaddexp.reduce([log_probs[range(time), path].sum() for path in paths])
    loss, count = model.loss(**batch)
    assert (float(loss.detach()), count) == (pytest.approx(expected, rel=fixed("float64 sum")), max(1, size))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), SEEDS)
def test_the_contrastive_loss_is_the_papers(labels: list[int], seed: int) -> None:
    config = ReaderConfig((CellConfig.named("gru", 7),), features=FEATURES)
    model = randomize(Embedder(config, 5, temperature=0.3).double().eval(), seed)
    random = np.random.default_rng(seed)
    batch = collated(model, [(random.standard_normal((3, FEATURES)), label) for label in labels])
    vectors = model(batch["x"], batch["lengths"]).detach().numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=fixed("float64 sum"))
    total, anchors, right, asked = 0.0, 0, 0, 0
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        mates = [j for j in others if labels[j] == label]
        if not mates:
            continue
        asked += 1
        right += labels[max(others, key=lambda j: vectors[i] @ vectors[j])] == label
        anchors += 1
        scores = {j: vectors[i] @ vectors[j] / 0.3 for j in others}
        total -= sum(scores[j] - np.logaddexp.reduce(list(scores.values())) for j in mates) / len(mates)
    loss, count = model.loss(**batch)
    assert count == anchors
    assert float(loss.detach()) == pytest.approx(total, rel=fixed("float64 sum"), abs=fixed("float64"))
    assert model.metrics(**batch)["nearest"] == (right, asked)


class _Says(Tagger):
    """A tagger that says what it is told, for counting by hand."""

    def __init__(self, answers: list[list[str]]) -> None:
        super().__init__(ReaderConfig((CellConfig.named("gru", 7),), features=FEATURES), LABELS)
        self.answers = answers

    def forward(self, x: Tensor, lengths: Tensor | None = None, extra: Tensor | None = None) -> Tensor:
        scores = torch.zeros(*x.shape[:2], len(LABELS))
        for row, tags in enumerate(self.answers):
            for step, tag in enumerate(tags):
                scores[row, step, LABELS.index(tag)] = 1.0
        return scores


def test_metrics_of_a_tagger_are_those_counted_by_hand() -> None:
    wanted = [["B-x", "I-x", "O", "B-y"], ["O", "B-x"]]
    model = _Says([["B-x", "I-x", "O", "B-x"], ["B-x", "B-x"]])  # right: x at 0-2, x at 1-2; wrong: x at 3, x at 0
    batch = model.collate([(np.zeros((len(tags), FEATURES)), tags) for tags in wanted])
    assert model.metrics(**batch) == {"accuracy": (4.0, 6), "precision": (2.0, 4), "recall": (2.0, 3)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_trains_with_fit(kind: str) -> None:
    torch.manual_seed(1)
    stack = (CellConfig.named("gru", 11),)
    source: Any = {"vocabulary_size": VOCABULARY} if kind == "generator" else {"features": FEATURES}
    config = ReaderConfig(stack, dropout=0.1, **source)
    made: dict[str, Any] = {
        "tagger": lambda: Tagger(config, LABELS),
        "classifier": lambda: Classifier(config, LABELS),
        "rater": lambda: Rater(config, -2.0, 3.0),
        "embedder": lambda: Embedder(config, 13),
        "recogniser": lambda: Recogniser(config, LABELS),
        "generator": lambda: Generator(config, LABELS),
    }
    model = made[kind]()
    rows = examples(model, [5, 2, 7, 3, 6, 4, 1, 7], 1)
    rows = [(x, y) for x, y in rows if kind != "recogniser" or 2 * len(y) <= len(x)]
    report = fit(model, rows, rows, collate=model.collate, epochs=12, batch=4, learning_rate=0.03, observer=Observer())
    assert report.best.held_out_loss < 0.9 * report.epochs[0].held_out_loss
    assert report.best.metrics.keys() == model.metrics(**model.collate(rows)).keys()


def test_one_to_one_is_a_tagger_of_one_step() -> None:
    model = randomize(Tagger(ReaderConfig((CellConfig.named("rnn", 7),), features=FEATURES), LABELS).double(), 1)
    x = torch.randn(5, 1, FEATURES, dtype=torch.float64)
    cell = model.reader.stack.layers[0].cell
    hidden = torch.tanh(x[:, 0] @ cell.weight_ih.T + cell.bias_ih + cell.bias_hh)
    torch.testing.assert_close(model(x)[:, 0], torch.log_softmax(hidden @ model.head.weight.T + model.head.bias, 1))


def test_standardised_floats_have_mean_0_and_deviation_1() -> None:
    model = Rater(ReaderConfig((CellConfig.named("gru", 7),), features=FEATURES), 1, 5)
    rows = [np.random.default_rng(i).normal((5, -3, 7), (2, 0, 0.1), (n, 3)) for i, n in enumerate((7, 1, 13))]
    model.reader.standardise(rows)
    read = (np.concatenate(rows) - model.reader.mean.numpy()) * model.reader.scale.numpy()
    np.testing.assert_allclose(read.mean(0), 0, atol=fixed("float32"))
    np.testing.assert_allclose(read.std(0), (1, 0, 1), atol=fixed("float32"))  # a feature that never changes stays 0


def test_sequences_are_padded_to_the_longest() -> None:
    ids, lengths = pad_sequences([[5, 2], np.zeros(0), [3]], 7)
    assert (ids.tolist(), ids.dtype, lengths.tolist()) == ([[5, 2], [7, 7], [3, 7]], torch.int64, [2, 0, 1])
    x, _ = pad_sequences([np.ones((1, 2)), np.zeros((0, 2))])
    assert (x.tolist(), x.dtype) == ([[[1.0, 1.0]], [[0.0, 0.0]]], torch.float32)


CONFIG = ReaderConfig((CellConfig.named("gru", 7),), features=FEATURES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReaderConfig((), embedding_size=0), "3 problems"),
        (lambda: ReaderConfig(CONFIG.cells, 5, 3), "expected one of them"),
        (lambda: Tagger(CONFIG, ()), "at least one tag"),
        (lambda: Tagger(CONFIG, ("a", "a")), "expected different strings"),
        (lambda: Classifier(CONFIG, ("a",)), "expected at least two"),
        (lambda: Rater(CONFIG, 3, 3), "low below high"),
        (lambda: Embedder(CONFIG, 3, temperature=0), "temperature is 0"),
        (lambda: Recogniser(CONFIG, ""), "at least one"),
        (lambda: Generator(CONFIG), "token ids in one direction"),
        (lambda: Tagger(CONFIG, ("a",)).label_id("b"), "unknown label 'b'; known: a"),
        (lambda: Tagger(CONFIG, ("a",)).collate([(np.zeros((2, 3)), ["a"])]), "example 0 has 2 steps and 1 tags"),
        (lambda: Recogniser(CONFIG, "a").collate([(np.zeros((2, 3)), "aa")]), "2 frames, its labels need at least 3"),
        (lambda: Tagger(CONFIG, ("a",))(torch.zeros(2, 3, 5)), r"expected floats \[batch, time, 3\]"),
        (lambda: Tagger(CONFIG, ("a",)).reader.standardise([np.zeros((2, 5))]), r"expected \[steps, 3\]"),
        (lambda: pad_sequences([]), "no sequence"),
    ],
)
def test_what_is_wrong_is_said(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_fit_puts_sequences_of_one_label_into_one_batch() -> None:
    """With many labels and small batches nearly every row would be alone, and teach nothing."""
    random = np.random.default_rng(0)
    examples = [(random.standard_normal((3, FEATURES)).astype(np.float32), str(i // 2)) for i in range(200)]
    model = Embedder(ReaderConfig((CellConfig.named("gru", 7),), features=FEATURES), 5)
    counted: dict[bool, list[int]] = {True: [], False: []}
    loss = model.loss

    def spy(**batch: Tensor) -> tuple[Tensor, int]:
        result = loss(**batch)
        counted[model.training].append(result[1])
        return result

    model.loss = spy  # type: ignore[method-assign]
    fit(model, examples, examples[:30], collate=model.collate, epochs=1, batch=16, observer=Observer())
    assert sum(counted[True]) == 200
    assert sum(counted[False]) == 30
