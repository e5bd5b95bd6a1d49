"""Whole generation in one call gives what step by step gives, and what PyTorch gives."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from rnncore.export.decoding.generator_check import close_decision
from rnncore.runtime import InputError, ModelFileError, TextGenerator, UnknownTokenError
from rnncore.runtime.text.sampling import sampling_probabilities, token_at
from tests.export.backends import Loop
from tests.generation.models import (
    END,
    MAX_TOKENS,
    UNKNOWN,
    WORDS,
    filled,
    generator,
    generator_file,
    step_by_step,
    streaming_file,
    torch_model,
)
from tests.tolerances import bound, fixed

DEPTH = 4  # embedding, two layers, head
CLOSE = fixed("float32")  # a choice closer than that may go the other way by rounding

prefixes = st.lists(st.integers(0, len(WORDS) - 1), max_size=7)
options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        "top_k": st.integers(1, 13),
        "top_p": st.floats(0.05, 1.0),
    },
)


def sampled_step_by_step(prefix: Sequence[int], uniforms: np.ndarray, chosen: dict[str, Any]) -> list[int]:
    """The tokens that a stream and NumPy give, "end" included."""
    tokens: list[int] = []
    with step_by_step().stream() as stream:
        for token in prefix:
            stream.push(token)
        for uniform in uniforms.tolist():
            probabilities = sampling_probabilities(stream.next_log_probs(), **chosen, rejected=[UNKNOWN])
            tokens.append(token_at(probabilities, uniform))
            if tokens[-1] == END:
                break
            stream.push(tokens[-1])
    return tokens


def torch_log_probs(prefix: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
    """[tokens, vocabulary], what each of ``tokens`` is chosen from."""
    with torch.no_grad():
        log_probs: np.ndarray = torch_model()(torch.tensor([[END, *prefix, *tokens[:-1]]]))[0, len(prefix) :].numpy()
    return log_probs


def too_close(prefix: Sequence[int], tokens: Sequence[int], uniforms: np.ndarray, chosen: dict[str, Any]) -> bool:
    log_probs = torch_log_probs(prefix, tokens)
    rules = generator().rules
    return any(close_decision(row, u, rules, **chosen) < CLOSE for row, u in zip(log_probs, uniforms, strict=False))


@given(st.lists(prefixes, min_size=1, max_size=5), options, st.integers(0, 2**32 - 1), st.integers(0, MAX_TOKENS))
def test_one_call_writes_what_step_by_step_writes(
    several: list[list[int]], chosen: dict[str, Any], seed: int, max_tokens: int
) -> None:
    uniforms = np.random.default_rng(seed).random((len(several), max_tokens))
    written = generator().generate_ids(several, max_tokens=max_tokens, uniforms=uniforms, **chosen)
    assert len(written) == len(several)
    for prefix, row, (ids, log_probs) in zip(several, uniforms, written, strict=True):
        expected = sampled_step_by_step(prefix, row, chosen)
        tokens = [*ids.tolist(), *([END] if len(log_probs) > len(ids) else [])]
        if tokens != expected:
            assert too_close(prefix, expected, row, chosen), (tokens, expected)
        if tokens:
            own = np.take_along_axis(torch_log_probs(prefix, tokens), np.array(tokens)[:, None], 1)[:, 0]
            size = {"depth": DEPTH, "length": len(prefix) + len(tokens), "magnitude": float(np.abs(own).max())}
            np.testing.assert_allclose(log_probs, own, atol=bound("float32", "onnx", **size), rtol=0)  # type: ignore[arg-type]


@given(st.lists(prefixes, min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_a_row_is_the_same_alone_and_among_others(several: list[list[int]], seed: int) -> None:
    uniforms = np.random.default_rng(seed).random((len(several), MAX_TOKENS))
    together = generator().generate_ids(several, max_tokens=MAX_TOKENS, uniforms=uniforms)
    backwards = generator().generate_ids(several[::-1], max_tokens=MAX_TOKENS, uniforms=uniforms[::-1])[::-1]
    again = generator().generate_ids(several, max_tokens=MAX_TOKENS, uniforms=uniforms)
    for i, prefix in enumerate(several):
        (alone,) = generator().generate_ids([prefix], max_tokens=MAX_TOKENS, uniforms=uniforms[i : i + 1])
        assert again[i].ids.tolist() == together[i].ids.tolist()
        assert again[i].log_probs.tolist() == together[i].log_probs.tolist(), "other bits the second time"
        for other in (alone, backwards[i]):
            if other.ids.tolist() != together[i].ids.tolist():
                assert too_close(prefix, together[i].ids.tolist(), uniforms[i], {})


@pytest.mark.parametrize("chosen", [{}, {"temperature": 0.0}, {"temperature": 1.7, "top_k": 5}, {"top_p": 0.6}])
def test_texts_are_those_of_the_language_model_with_the_same_seed(chosen: dict[str, Any]) -> None:
    for seed, prefix in enumerate(["", "the apple", "and pear salad", "of"]):
        expected = step_by_step().sample(MAX_TOKENS, seed=seed, prefix=prefix, **chosen)
        assert generator().generate(prefix, max_tokens=MAX_TOKENS, seed=seed, **chosen) == expected
    assert generator().generate(["the", "a red moon"], seed=1, max_tokens=3, **chosen)[0] == generator().generate(
        "the", seed=1, max_tokens=3, **chosen
    )


# ------------------------------------------------------------------------------------------------- plain onnxruntime
NAMES = ["ids", "ids_lengths", "log_probs"]


def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(generator_file(), providers=["CPUExecutionProvider"])


def called(given: dict[str, np.ndarray]) -> list[np.ndarray]:
    results: list[np.ndarray] = session().run(NAMES, filled(generator().model, given))
    return results


def feeds(draws: int = MAX_TOKENS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    prefix = random.integers(2, len(WORDS), (3, 5))
    return {"prefix": prefix, "lengths": np.array([5, 0, 2]), "uniforms": random.random((3, draws))}


def test_a_host_without_rnncore_makes_one_call() -> None:
    given = feeds()
    assert {value.name for value in session().get_inputs()} == filled(generator().model, given).keys()
    assert session().get_overridable_initializers() == [], "hosts in other languages do not list these"
    ids, lengths, log_probs = called(given)
    rows = [row[:n].tolist() for row, n in zip(given["prefix"], given["lengths"], strict=True)]
    written = generator().generate_ids(rows, max_tokens=MAX_TOKENS, uniforms=given["uniforms"])
    assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == [one.ids.tolist() for one in written]
    assert ids.shape == log_probs.shape
    for row, n, one in zip(log_probs, lengths, written, strict=True):
        np.testing.assert_array_equal(row[: len(one.log_probs)], one.log_probs)
        assert not row[n + 1 :].any()
    for row, n in zip(ids, lengths, strict=True):
        assert (row[n:] == END).all()


def test_rows_of_one_call_have_options_of_their_own() -> None:
    given = feeds() | {
        "temperature": np.array([0.0, 1.0, 2.0]),
        "top_k": np.array([99, 3, 2]),
        "top_p": np.array([1.0, 0.7, 1.0]),
        "max_tokens": np.array([4, 9, 7]),
    }
    ids, lengths, _ = called(given)
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in given.items()}
        alone, length, _ = called(one)
        assert ids[i, : lengths[i]].tolist() == alone[0, : length[0]].tolist()
    assert (lengths <= given["max_tokens"]).all()


def test_the_loop_ends_as_soon_as_every_row_has_ended() -> None:
    """Random numbers of 0 draw token 0, the end; 0.999... draw another one."""
    given = feeds(draws=1000) | {"uniforms": np.full((3, 1000), np.nextafter(1.0, 0.0))}
    given["uniforms"][:, 4] = 0.0
    given["uniforms"][1, 2] = 0.0
    ids, lengths, _ = called(given)
    assert lengths.tolist() == [4, 2, 4]
    assert ids.shape == (3, 5), "five steps were enough, of a thousand"


@pytest.mark.parametrize("draws", [0, 1])
def test_no_token_and_one_token(draws: int) -> None:
    ids, lengths, log_probs = called(feeds(draws))
    assert ids.shape == log_probs.shape == (3, draws)
    assert (lengths <= draws).all()


def test_no_prefix_at_all() -> None:
    given = feeds() | {"prefix": np.zeros((3, 0), np.int64), "lengths": np.zeros(3, np.int64)}
    ids, lengths, _ = called(given)
    assert ids[0, : lengths[0]].tolist() == [t for t in sampled_step_by_step([], given["uniforms"][0], {}) if t != END]


def test_onnx_reference_writes_the_same() -> None:
    """Its Loop, out of the box, joins what each step puts out along the first axis instead of a new one; mended here."""
    model = onnx.load_from_string(generator_file())
    onnx.checker.check_model(model, full_check=True)
    given = feeds()
    expected = called(given)
    got = ReferenceEvaluator(model, new_ops=[Loop]).run(NAMES, filled(generator().model, given))
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(got[2], expected[2], atol=fixed("float32"))


def test_the_loop_stands_in_the_file() -> None:
    """One explicit Loop in the main graph, with the recurrences inside it, and one copy of every weight."""
    graph = onnx.load_from_string(generator_file()).graph
    loops = [node for node in graph.node if node.op_type == "Loop" and len(node.output) > 4]
    body = next(a.g for a in loops[-1].attribute if a.name == "body")
    assert any(node.op_type in ("Loop", "If") for node in body.node)
    arrays = [
        value for value in graph.initializer if value.data_type == onnx.TensorProto.FLOAT and len(value.dims) == 2
    ]
    large = [onnx.numpy_helper.to_array(value).tobytes() for value in arrays if np.prod(value.dims) > 9]
    assert len(large) == len(set(large)) >= 6, "a weight is stored twice"


# ---------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_k": 0, "top_p": 2.0}, "2 problems"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"max_tokens": 2, "uniforms": np.zeros((1, 3))}, "uniforms has"),
        ({"max_tokens": 2, "uniforms": np.full((1, 2), 1.0)}, "below 1"),
        ({"max_tokens": 2, "uniforms": np.zeros((1, 2)), "seed": 1}, "nothing to seed"),
    ],
)
def test_options_out_of_range_are_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generator().generate_ids([[2, 3]], **chosen)


def test_prefixes_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"(?s)2 problems.*prefix 0.*prefix 2"):
        generator().generate_ids([[2, 11], [3], [-1]])
    with pytest.raises(InputError, match="use generate for texts"):
        generator().generate_ids("the")
    with pytest.raises(InputError):
        generator().generate(["the", 5])  # type: ignore[list-item]
    assert generator().generate_ids([]) == []


def test_other_files_are_refused() -> None:
    with pytest.raises(ModelFileError, match="does not generate"):
        TextGenerator.load(streaming_file())


def test_a_generator_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(generator()))
    assert again.generate("the", seed=3) == generator().generate("the", seed=3)


def test_unknown_words_of_a_prefix_are_read_as_unknown() -> None:
    try:
        text = generator().generate("the zebra", seed=3, max_tokens=5)
    except UnknownTokenError:
        return  # a vocabulary may refuse them
    assert text == generator().vocabulary.decode(  # type: ignore[union-attr]
        generator().generate_ids([[2, UNKNOWN]], seed=3, max_tokens=5)[0].ids
    )
