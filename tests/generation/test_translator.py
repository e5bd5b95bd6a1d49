"""An encoder-decoder's file in one call, step by step, and PyTorch: the same targets; beam search against all targets."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, ModelFileError, Translator, load
from tests.generation.models import ARCHITECTURES, encoder_decoder, filled, streaming_file, translator, translator_file
from tests.tolerances import fixed

MAX_TOKENS = 13
ROUNDING = 1e-3
"""Of a sum of log-probabilities: with these large weights PyTorch's own float32 is up to 1.1e-4 off its float64."""

CLOSE = fixed("float32 long")
SOURCES, TARGETS = 7, 5

names = st.sampled_from(sorted(ARCHITECTURES))
sources = st.lists(st.lists(st.integers(0, SOURCES - 1), max_size=11), min_size=1, max_size=5)


def by_torch(name: str, several: list[list[int]], max_tokens: int) -> list[list[int]]:
    batch = encoder_decoder(name).collate([(source, []) for source in several])
    if batch["source"].shape[1] == 0:
        batch["source"] = torch.zeros(len(several), 1, dtype=torch.int64)
    return encoder_decoder(name).greedy(batch["source"], batch["source_lengths"], max_tokens)


def log_probs(name: str, source: list[int], target: list[int]) -> np.ndarray:
    """[len(target) + 1, targets]: of each token of ``target``, and of what comes after it."""
    model = encoder_decoder(name)
    read = torch.tensor([[model.config.end_id, *target]])
    with torch.no_grad():
        whole = model(torch.tensor([source or [0]]), torch.tensor([len(source)]), read)
    result: np.ndarray = whole[0].double().numpy()
    return result


def close_call(name: str, source: list[int], target: list[int]) -> bool:
    """Whether some step's two likeliest tokens differ by no more than rounding may."""
    ordered = np.sort(log_probs(name, source, target), axis=1)
    return bool((ordered[:, -1] - ordered[:, -2] < CLOSE).any())


@given(names, sources, st.integers(0, MAX_TOKENS))
def test_greedy_decoding_is_pytorchs_in_one_call_and_step_by_step(
    name: str, several: list[list[int]], max_tokens: int
) -> None:
    expected = by_torch(name, several, max_tokens)
    one_call = translator(name).translate_ids(several, max_tokens=max_tokens)
    stepwise = translator(name).translate_ids(several, max_tokens=max_tokens, one_call=False)
    for source, wanted, (found,), (step,) in zip(several, expected, one_call, stepwise, strict=True):
        if not close_call(name, source, wanted):
            assert found.ids.tolist() == step.ids.tolist() == wanted
            assert found.log_prob == pytest.approx(step.log_prob, abs=ROUNDING)
            if max_tokens:
                tokens = [*wanted, encoder_decoder(name).config.end_id][:max_tokens]
                whole = log_probs(name, source, wanted)[: len(tokens)]
                own = np.take_along_axis(whole, np.array(tokens)[:, None], 1)
                assert found.log_prob == pytest.approx(float(own.sum()), abs=ROUNDING)


@given(names, sources, st.sampled_from([1, 3]), st.sampled_from([0.0, 0.7]), st.booleans())
def test_a_source_is_translated_the_same_alone_and_among_others(
    name: str, several: list[list[int]], beam: int, length_penalty: float, one_call: bool
) -> None:
    options = {"beam": beam, "length_penalty": length_penalty, "max_tokens": 5, "one_call": one_call}
    together = translator(name).translate_ids(several, **options)  # type: ignore[arg-type]
    few = translator(name).translate_ids(several[::-1], batch_size=2, **options)[::-1]  # type: ignore[arg-type]
    for source, found, other in zip(several, together, few, strict=True):
        (alone,) = translator(name).translate_ids([source], **options)  # type: ignore[arg-type]
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], abs=ROUNDING)
        assert [one.score for one in found] == pytest.approx([one.score for one in other], abs=ROUNDING)
        if len(found) == 1 or found[0].score - found[1].score > CLOSE:
            assert found[0].ids.tolist() == alone[0].ids.tolist() == other[0].ids.tolist()


@pytest.mark.parametrize("one_call", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_beam_that_nothing_falls_out_of_finds_the_best_of_all_targets(
    name: str, length_penalty: float, one_call: bool
) -> None:
    longest, source = 3, [1, 4, 4, 6, 0]
    end = encoder_decoder(name).config.end_id
    every: dict[tuple[int, ...], float] = {}
    for tokens in itertools.product(range(TARGETS), repeat=longest):
        cut = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        own = np.take_along_axis(log_probs(name, source, list(cut[:-1])), np.array(cut)[:, None], 1)
        every[cut] = float(own.sum())
    ranked = sorted(every.items(), key=lambda item: -item[1] / len(item[0]) ** length_penalty)
    beam = TARGETS**longest
    (found,) = translator(name).translate_ids(
        [source], beam=beam, max_tokens=longest, length_penalty=length_penalty, one_call=one_call
    )
    assert len(found) == len(every)
    for one, (tokens, log_prob) in zip(found[:9], ranked, strict=False):
        assert one.log_prob == pytest.approx(log_prob, abs=ROUNDING)
        assert one.ids.tolist() == [t for t in tokens if t != end]
    (greedy,) = translator(name).translate_ids([source], max_tokens=longest)
    assert found[0].score >= greedy[0].log_prob / max(1, len(greedy[0].ids)) ** length_penalty - CLOSE or length_penalty


def test_a_host_without_rnncore_makes_one_call() -> None:
    name = "additive, two layers"
    onnx.checker.check_model(onnx.load_from_string(translator_file(name)), full_check=True)
    session = onnxruntime.InferenceSession(translator_file(name), providers=["CPUExecutionProvider"])
    feeds = {
        "source": np.array([[1, 2, 3, 4], [5, 6, 0, 0]]),
        "lengths": np.array([4, 2]),
        "max_tokens": np.array([9, 7]),
    }
    feeds = filled(translator(name).model, feeds)
    assert {value.name for value in session.get_inputs()} == feeds.keys()
    assert session.get_overridable_initializers() == [], "hosts in other languages do not list these"
    ids, lengths = session.run(["ids", "ids_lengths"], feeds)
    expected = [by_torch(name, [[1, 2, 3, 4]], 9)[0], by_torch(name, [[5, 6]], 7)[0]]
    assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == expected
    assert ids.shape[1] <= max(len(row) + 1 for row in expected), "the loop went on after both rows had ended"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0, "batch_size": 0}, "2 problems"),
        ({"beam": 10**9}, "beam is 1000000000, expected at most 1024"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"length_penalty": -1.0}, "length_penalty is -1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        translator("general").translate_ids([[1]], **options)  # type: ignore[arg-type]


def test_sources_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"(?s)2 problems.*source 0.*source 2"):
        translator("general").translate_ids([[1, SOURCES], [2], [-1]])
    with pytest.raises(InputError, match="no tokenizers"):
        translator("general").translate("abc")
    assert translator("general").translate_ids([]) == []
    assert translator("general").translate_ids([[]], max_tokens=3)[0][0].ids.tolist() == by_torch("general", [[]], 3)[0]


def test_other_files_are_refused() -> None:
    with pytest.raises(ModelFileError, match="does not translate"):
        Translator.load(streaming_file())


def test_a_translator_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(translator("general")))
    assert (
        again.translate_ids([[1, 2]])[0][0].ids.tolist()
        == translator("general").translate_ids([[1, 2]])[0][0].ids.tolist()
    )


def test_calls_that_would_be_cut_by_rows_are_refused_with_advice() -> None:
    model = load(translator_file("dot"), max_batch_steps=10)
    with pytest.raises(InputError, match="without max_batch_steps, and bound its calls with batch_size"):
        Translator(model)
