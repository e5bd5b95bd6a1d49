"""PyTorch, the file and the task's class: the same answers, alone, among others, padded, and in chunks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import runtime
from rnncore.models import pad_sequences
from rnncore.runtime import InputError, load
from tests.strategies import SEEDS, chunkings
from tests.task_models import DEPTH, MODELS, characters, model_file, sequences, torch_model
from tests.tolerances import bound, fixed

CLASSES: dict[str, Any] = {
    "tagger": runtime.Tagger,
    "classifier": runtime.Classifier,
    "rater": runtime.Rater,
    "embedder": runtime.Embedder,
    "recogniser": runtime.Recogniser,
    "generator": runtime.Generator,
}
READERS = [name for name in MODELS if not name.startswith("generator")]
STREAMS = ["tagger", "classifier, last", "recogniser"]
lengths_lists = st.lists(st.integers(0, 13), min_size=1, max_size=5)
LONGEST = 14

_opened: dict[str, Any] = {}


def opened(name: str) -> Any:
    if name not in _opened:
        _opened[name] = CLASSES[torch_model(name).task].load(model_file(name))
    return _opened[name]


def close(got: Any, expected: Any, magnitude: float = 20.0) -> None:
    allowed = bound("float32", "onnx", depth=DEPTH, length=LONGEST, magnitude=magnitude, largest_input=magnitude)
    np.testing.assert_allclose(got, expected, rtol=0, atol=allowed)


def torch_outputs(name: str, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Of PyTorch, for each row alone."""
    model, found = torch_model(name), []
    for row in rows:
        x, lengths = pad_sequences([row])
        with torch.no_grad():
            found.append(model(x, lengths)[0].numpy())
    return found


def answers(task: Any, many: Any, lengths: Any = None) -> tuple[list[Any], list[np.ndarray]]:
    """(answers in words, the same as numbers), by the class's own methods for many inputs."""
    if isinstance(task, runtime.Tagger):
        words = task.tag_many(many, lengths)
        return words, [np.array([task.labels.index(tag) for tag in tags], np.float64) for tags in words]
    if isinstance(task, runtime.Classifier):
        found = task.probabilities_many(many, lengths)
        return task.classify_many(many, lengths), [np.log(list(one.values())) for one in found]
    if isinstance(task, runtime.Rater):
        return [], [np.array(rating) for rating in task.rate_many(many, lengths)]
    if isinstance(task, runtime.Embedder):
        return [], list(task.embed_many(many, lengths))
    return task.recognise_many(many, lengths), []


def alone(task: Any, one: Any) -> tuple[list[Any], list[np.ndarray]]:
    if isinstance(task, runtime.Tagger):
        return [task.tag(one)], [task.scores(one)]
    if isinstance(task, runtime.Classifier):
        return [task.classify(one)], [np.log(list(task.probabilities(one).values()))]
    if isinstance(task, runtime.Rater):
        return [], [np.array(task.rate(one))]
    if isinstance(task, runtime.Embedder):
        return [], [task.embed(one)]
    return [task.recognise(one)], [task.log_probs(one)]


@pytest.mark.parametrize("name", READERS)
@given(lengths_lists, SEEDS)
def test_alone_among_others_and_padded_as_in_pytorch(name: str, lengths: list[int], seed: int) -> None:
    task, rows = opened(name), sequences(name, lengths, seed)
    expected = torch_outputs(name, rows)
    words, numbers = answers(task, rows)
    x, _ = pad_sequences(rows, fill=1)
    padded_words, padded_numbers = answers(task, x.numpy(), lengths)
    assert padded_words == words
    for row, want in zip(rows, expected, strict=True):
        own_words, own_numbers = alone(task, row)
        assert own_words == words[:1]
        if own_numbers:
            close(own_numbers[0], want)
        words = words[1:]
    if name.startswith("tagger"):
        expected = [want.argmax(-1) for want in expected]
    for got, padded, want in zip(numbers, padded_numbers, expected, strict=bool(numbers)):
        close(got, want)
        close(padded, want)


@pytest.mark.parametrize("name", STREAMS)
@given(chunkings(13), SEEDS)
def test_any_chunks_together_are_the_whole(name: str, chunks: list[int], seed: int) -> None:
    task, (row,) = opened(name), sequences(name, [13], seed)
    said: list[Any] = []
    with task.stream() as stream:
        for start, size in zip(np.cumsum([0, *chunks[:-1]]), chunks, strict=True):
            twin = stream.fork()
            said.append(stream.push(row[start : start + size]))
            assert twin.push(row[start : start + size]) == said[-1]
            twin.close()
        last = said[-1] if chunks[-1] else None
        stream.reset()
        again = stream.push(row)
    if name == "tagger":
        assert [tag for part in said for tag in part] == again == task.tag(row)
    elif name == "recogniser":
        assert "".join(said) == again == task.recognise(row)
    else:
        whole = task.probabilities(row)
        close(list(again.values()), list(whole.values()))
        if last is not None:
            close(list(last.values()), list(whole.values()))


@given(st.lists(st.text("abc de|\n", max_size=9), min_size=1, max_size=4), SEEDS)
def test_a_generator_gives_sequences_their_probability(texts: list[str], seed: int) -> None:
    task, model = opened("generator"), torch_model("generator")
    random = np.random.default_rng(seed)
    conditions = [str(condition) for condition in random.choice(task.labels, len(texts))]
    encoded = [(characters().encode(text), condition) for text, condition in zip(texts, conditions, strict=True)]
    costs = []
    for one in encoded:
        loss, count = model.loss(**model.collate([one]))
        costs.append((float(loss.detach()), count))
    found = [-task.log_prob(text, condition) for text, condition in zip(texts, conditions, strict=True)]
    close(found, [cost for cost, _ in costs], magnitude=100.0)
    bits = sum(cost for cost, _ in costs) / sum(count for _, count in costs) / math.log(2)
    assert task.bits(texts, conditions) == pytest.approx(bits, rel=fixed("float32"))
    assert task.bits([ids for ids, _ in encoded], conditions) == task.bits(texts, conditions)


@pytest.mark.parametrize("name", ["generator", "generator from nothing"])
def test_a_generator_draws_what_pytorch_finds_likeliest(name: str) -> None:
    task, model = opened(name), torch_model(name)
    for number, condition in enumerate(task.labels or (None,)):
        ids = [task.eos_id]
        for _ in range(9):
            given_condition = None if condition is None else torch.tensor([number])
            with torch.no_grad():
                best = int(model(torch.tensor([ids]), given_condition)[0, -1].argmax())
            if best == task.eos_id:
                break
            ids.append(best)
        assert list(task.ids(condition, 9, temperature=0)) == ids[1:]
        assert task.generate(condition, 9, temperature=0) == characters().decode(ids[1:])


def test_generation_is_repeatable_goes_on_from_a_prefix_and_depends_on_the_condition() -> None:
    task = opened("generator")
    texts = {label: task.generate(label, 60, seed=3) for label in task.labels}
    assert texts == {label: task.generate(label, 60, seed=3) for label in task.labels}
    assert len(set(texts.values())) == len(texts)
    assert len({task.generate("jig", 30, seed=seed) for seed in range(5)}) > 1
    whole = task.generate("jig", 30, temperature=0)
    assert task.generate("jig", 30 - 4, temperature=0, prefix=whole[:4]) == whole[4:]
    assert task.generate("jig", 0) == ""


def test_draws_follow_the_distribution() -> None:
    """Chi-squared of the first token, 2000 draws."""
    task = opened("generator from nothing")
    with task.model.stream() as stream:
        probabilities = np.exp(stream.push([task.eos_id])[-1].astype(np.float64))
    drawn = [next(iter(task.ids(None, 1, seed=seed)), task.eos_id) for seed in range(2000)]
    expected = 2000 * probabilities / probabilities.sum()
    counts = np.bincount(drawn, minlength=len(expected))
    usual = expected > 5
    chi = ((counts - expected)[usual] ** 2 / expected[usual]).sum()
    assert usual.sum() > 3
    assert chi < usual.sum() + 5 * math.sqrt(2 * usual.sum())


@pytest.mark.parametrize("name", MODELS)
def test_what_the_file_says_of_itself(name: str) -> None:
    task, model = load(model_file(name)), torch_model(name)
    assert task.metadata["rnncore.task"] == model.task
    assert opened(name).labels == model.labels
    assert task.causal == model.streams
    assert task.report["cases"]


@pytest.mark.parametrize("name", ["generator", "generator from nothing"])
def test_many_sequences_are_drawn_as_each_alone(name: str) -> None:
    task = opened(name)
    conditions = ["reel", "jig", "air", "jig"] if task.labels else [None] * 4
    prefixes = ["ab", "", "c", "de a"]
    together = task.generate_many(conditions, 20, prefixes=prefixes, seed=5)
    assert together[0] == task.generate("reel" if task.labels else None, 20, prefix="ab", seed=5)
    greedy = task.generate_many(conditions, 9, prefixes=prefixes, temperature=0)
    assert greedy == [
        task.generate(condition, 9, prefix=prefix, temperature=0)
        for condition, prefix in zip(conditions, prefixes, strict=True)
    ]
    assert len(set(task.generate_many(conditions[:1] * 6, 20, seed=1))) > 1
    assert task.generate_many([]) == []
    with pytest.raises(InputError, match="1 prefixes for 4 conditions"):
        task.generate_many(conditions, prefixes=["a"])
    with pytest.raises(InputError, match="expected a list with one condition for each text"):
        task.generate_many("jig")
