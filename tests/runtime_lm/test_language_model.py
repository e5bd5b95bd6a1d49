"""Scoring and sampling from a file: streamed equals whole, and both equal PyTorch."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export_model
from rnncore.runtime import (
    InputError,
    LanguageModel,
    ModelFileError,
    NotStreamableError,
    StateError,
    UnknownTokenError,
    load,
)
from rnncore.runtime.text import language_model as module
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.runtime.text.sampling import sampling_probabilities, token_at
from rnncore.text import character_vocabulary
from tests.language_models import CHARACTERS, DEPTH, exported, model_file, runtime_model, torch_model, vocabulary
from tests.tolerances import bound, fixed

TEXT = st.text(st.sampled_from(CHARACTERS), max_size=40)


def allowed(tokens: int) -> float:
    """Bound of a sum of log-probabilities, which lie within 0 to -30 here."""
    return (tokens + 1) * bound("float32", "chunked", depth=DEPTH, length=tokens, magnitude=30)


@cache
def double_model() -> nn.Module:
    return copy.deepcopy(torch_model()).double()


def torch_log_probs(text: str, eos: bool) -> list[float]:
    ids = [0, *vocabulary().encode(text).tolist(), *([0] if eos else [])]
    with torch.no_grad():
        log_probs = double_model()(torch.tensor([ids[:-1]]))[0] if len(ids) > 1 else torch.zeros(0, 1)
    return [float(log_probs[t, token]) for t, token in enumerate(ids[1:])]


@given(TEXT, st.booleans())
def test_whole_streamed_and_pytorch_scores_are_equal(text: str, eos: bool) -> None:
    model = runtime_model()
    streamed = model.token_scores(text, eos=eos)
    expected = torch_log_probs(text, eos)
    assert [score.token for score in streamed] == [*text, *(["<eos>"] if eos else [])]
    step = bound("float32", "chunked", depth=DEPTH, length=len(text) + 1, magnitude=30)
    np.testing.assert_allclose([score.log_prob for score in streamed], expected, rtol=0, atol=step)
    assert model.score(text, eos=eos) == pytest.approx(
        math.fsum(score.log_prob for score in streamed), abs=allowed(len(text))
    )
    if streamed:
        whole = model.score(text, eos=eos)
        assert model.perplexity(text, eos=eos) == pytest.approx(math.exp(-whole / len(streamed)))


@given(TEXT, TEXT)
def test_scores_follow_the_chain_rule(first: str, second: str) -> None:
    model = runtime_model()
    with model.stream() as stream:
        for character in first:
            stream.push(character)
        rest = math.fsum(stream.push(character) for character in second)
    assert model.score(first + second) == pytest.approx(model.score(first) + rest, abs=allowed(len(first + second)))


def test_all_that_can_come_next_sums_to_one() -> None:
    model = runtime_model()
    following = [model.score("ab" + character) for character in CHARACTERS] + [model.score("ab", eos=True)]
    assert math.fsum(map(math.exp, following)) == pytest.approx(math.exp(model.score("ab")), rel=fixed("float32 long"))


def test_long_texts_are_scored_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CHARACTERS * 20)[:250]
    model = runtime_model()
    whole = model.score(text, eos=True)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert model.score(text, eos=True) == pytest.approx(whole, abs=allowed(250))


def test_empty_texts() -> None:
    model = runtime_model()
    assert model.score("") == 0.0
    assert model.token_scores("") == []
    assert len(model.token_scores("", eos=True)) == 1
    assert model.perplexity("", eos=True) == pytest.approx(math.exp(-model.score("", eos=True)))
    with pytest.raises(InputError, match="empty text has no perplexity"):
        model.perplexity("")


def test_encode_and_decode_are_the_vocabularys() -> None:
    model = runtime_model()
    ids = model.encode("abé中\n")
    assert ids.tolist() == vocabulary().encode("abé中\n").tolist()
    assert model.decode(ids) == "abé中\n"


def test_unknown_characters_are_errors_and_the_model_stays_usable() -> None:
    model = runtime_model()
    before = model.score("abc")
    for call in (model.score, model.token_scores, model.perplexity, lambda text: model.sample(3, prefix=text)):
        with pytest.raises(UnknownTokenError, match=r"'z' .* at position 2"):
            call("abz")
    assert model.score("abc") == before


# ------------------------------------------------------------------------------------------------------------ streams
@given(TEXT, st.data())
def test_forks_are_independent(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    model = runtime_model()
    with model.stream() as stream:
        for character in text[:cut]:
            stream.push(character)
        twin = stream.fork()
        detour = [twin.push(character) for character in "edcba"]
        rest = [stream.push(character) for character in text[cut:]]
    scores = [score.log_prob for score in model.token_scores(text[:cut] + "edcba")]
    assert detour == scores[cut:]
    assert rest == [score.log_prob for score in model.token_scores(text)][cut:]
    twin.close()


def test_reset_goes_back_to_the_beginning_of_a_text() -> None:
    with runtime_model().stream() as stream:
        first = stream.next_log_probs()
        scores = [stream.push(character) for character in "abc"]
        stream.reset()
        np.testing.assert_array_equal(stream.next_log_probs(), first)
        assert [stream.push(character) for character in "abc"] == scores


def test_what_comes_next_is_a_copy_and_what_push_returns() -> None:
    with runtime_model().stream() as stream:
        log_probs = stream.next_log_probs()
        assert log_probs.shape == (len(vocabulary()),)
        log_probs[:] = 7
        expected = stream.next_log_probs()
        assert stream.push(3) == expected[3]
        assert stream.push("<eos>") < 0


@pytest.mark.parametrize("token", ["z", "ab", "", -1, 10_000, True, 1.5, None])
def test_a_push_that_fails_leaves_the_stream_as_it_was(token: object) -> None:
    with runtime_model().stream() as stream:
        stream.push("a")
        before = stream.next_log_probs()
        with pytest.raises(InputError):
            stream.push(token)  # type: ignore[arg-type]
        np.testing.assert_array_equal(stream.next_log_probs(), before)
        assert [stream.push(c) for c in "bc"] == [s.log_prob for s in runtime_model().token_scores("abc")][1:]


def test_a_closed_stream_says_so() -> None:
    stream = runtime_model().stream()
    stream.close()
    for call in (lambda: stream.push("a"), stream.fork, stream.reset):
        with pytest.raises(StateError, match="closed"):
            call()


# ----------------------------------------------------------------------------------------------------------- sampling
def test_samples_are_reproducible_with_a_seed() -> None:
    model = runtime_model()
    texts = [model.sample(60, seed=seed, temperature=1.5) for seed in range(6)]
    assert texts == [model.sample(60, seed=seed, temperature=1.5) for seed in range(6)]
    assert len(set(texts)) > 1
    assert set("".join(texts)) <= set(CHARACTERS)


def test_temperature_zero_takes_the_likeliest_token_each_time() -> None:
    model = runtime_model()
    written = model.sample(25, temperature=0, prefix="ab")
    with model.stream() as stream:
        for character in "ab":
            stream.push(character)
        for character in written:
            best = int(stream.next_log_probs().argmax())
            assert vocabulary().token(best) == character
            stream.push(best)
        assert len(written) == 25 or int(stream.next_log_probs().argmax()) == vocabulary().eos_id
    assert model.sample(25, temperature=3.0, top_k=1, prefix="ab") == written
    assert model.sample(25, temperature=3.0, top_p=1e-9, prefix="ab") == written


def test_samples_end_at_eos_or_at_the_limit() -> None:
    model = runtime_model()
    lengths = [len(model.sample(12, seed=seed, temperature=2.0)) for seed in range(30)]
    assert max(lengths) <= 12
    assert min(lengths) < 12, "eos comes up somewhere in 30 texts"
    assert model.sample(0) == ""


def test_first_tokens_are_drawn_as_often_as_the_model_says() -> None:
    model = runtime_model()
    with model.stream() as stream:
        expected = np.exp(stream.next_log_probs().astype(np.float64)) * 2000
    counts = np.zeros(len(vocabulary()))
    for seed in range(2000):
        text = model.sample(1, seed=seed)
        counts[vocabulary().token_id(text) if text else vocabulary().eos_id] += 1
    often = expected > 5
    chi_square = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert chi_square < 40, f"{often.sum()} kinds of tokens"


def test_many_prefixes_are_written_on_as_each_alone() -> None:
    """Text i draws from row i of the random numbers; a greedy text draws nothing."""
    model = runtime_model()
    prefixes = ["", "ab", "e", "abcde os", "ab"]
    together = model.sample(30, prefix=prefixes, seed=7, temperature=2.0)
    assert together == model.sample(30, prefix=np.array(prefixes), seed=7, temperature=2.0)
    assert together[0] == model.sample(30, seed=7, temperature=2.0)
    assert together[1] != together[4]
    uniforms = np.random.default_rng(7).random((5, 30))
    for prefix, row, text in zip(prefixes, uniforms, together, strict=True):
        with model.stream() as stream:
            for character in prefix:
                stream.push(character)
            ids = []
            for uniform in row:
                token = token_at(sampling_probabilities(stream.next_log_probs(), temperature=2.0), uniform)
                if token == vocabulary().eos_id:
                    break
                ids.append(token)
                stream.push(token)
        assert model.decode(ids) == text
    assert model.sample(9, prefix=prefixes, temperature=0) == [
        model.sample(9, prefix=p, temperature=0) for p in prefixes
    ]
    assert model.sample(9, prefix=[]) == []
    assert model.sample(0, prefix=["a", "b"]) == ["", ""]
    with pytest.raises(UnknownTokenError, match="z"):
        model.sample(3, prefix=["a", "z"])
    with pytest.raises(InputError, match="prefix is a int"):
        model.sample(3, prefix=["a", 3])


def test_wrong_sampling_options_are_refused() -> None:
    with pytest.raises(InputError, match="top_p is 3"):
        runtime_model().sample(0, top_p=3)
    with pytest.raises(InputError, match="max_tokens is -1"):
        runtime_model().sample(-1)


# -------------------------------------------------------------------------------------------------------- other files
class Numbers(nn.Module):
    """Token ids in, numbers out; a text model in some ways only."""

    def __init__(self, *, normalised: bool = False, bidirectional: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary()), 3)
        self.rnn = nn.GRU(3, 5, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(10 if bidirectional else 5, len(vocabulary()))
        self.normalised = normalised

    def forward(self, ids: Tensor) -> Tensor:
        y = self.head(self.rnn(self.embedding(ids))[0])
        return torch.log_softmax(y, 2) if self.normalised else y


class Altered:
    """A loaded model of which some attributes say something else."""

    def __init__(self, **changes: object) -> None:
        self._changes = changes

    def __getattr__(self, name: str) -> object:
        return self._changes[name] if name in self._changes else getattr(runtime_model().model, name)


def test_a_file_without_a_tokenizer_says_what_to_do() -> None:
    with pytest.raises(ModelFileError, match=r"no tokenizer, so it is no text model: export .*rnncore\.tokenizer"):
        LanguageModel(Altered(metadata={}))  # type: ignore[arg-type]


def test_another_vocabulary_is_refused() -> None:
    metadata = {TOKENIZER_KEY: character_vocabulary(["ab"]).to_json()}
    with pytest.raises(ModelFileError, match=r"expected \['batch', 'time', 3\] for a tokenizer of 3 tokens"):
        LanguageModel(Altered(metadata=metadata))  # type: ignore[arg-type]


def test_other_inputs_are_refused() -> None:
    signature = runtime_model().model.signature
    floats = replace(signature.inputs[0], dtype="float32")
    with pytest.raises(ModelFileError, match=r"input 'ids' is float32 .* expected int64"):
        LanguageModel(Altered(signature=replace(signature, inputs=(floats,))))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="2 inputs and 1 outputs, expected token ids in"):
        LanguageModel(Altered(signature=replace(signature, inputs=(floats, floats))))  # type: ignore[arg-type]


@pytest.mark.slow
def test_scores_that_are_no_log_probabilities_are_refused() -> None:
    data = exported(Numbers(), vocabulary())
    with pytest.raises(ModelFileError, match=r"not log-probabilities .* log_softmax"):
        LanguageModel.load(data)


@pytest.mark.slow
def test_a_model_that_is_not_causal_is_refused() -> None:
    model = Numbers(normalised=True, bidirectional=True)
    data = exported(model, vocabulary(), streaming=False)
    with pytest.raises(NotStreamableError):
        LanguageModel.load(data)


def test_a_model_can_be_wrapped_after_loading() -> None:
    model = load(model_file())
    assert LanguageModel(model).model is model


def test_a_language_model_can_be_sent_to_another_process() -> None:
    twin = pickle.loads(pickle.dumps(runtime_model()))
    assert twin.score("abc") == runtime_model().score("abc")
    states = pickle.loads(pickle.dumps(runtime_model().initial_states(2)))
    np.testing.assert_array_equal(twin.next_log_probs(states)[0], runtime_model().stream().next_log_probs())


def test_export_model_writes_the_file_of_a_language_model(tmp_path: Path) -> None:
    report = export_model(torch_model(), tmp_path / "letters.onnx", vocabulary=vocabulary())
    assert report.causal
    assert report.signature.pick is not None
    model = LanguageModel.load(tmp_path / "letters.onnx")
    assert model.token_scores("abc de") == runtime_model().token_scores("abc de")
    with pytest.raises(InputError, match=r"the vocabulary has \d+ tokens"):
        export_model(torch_model(), tmp_path / "other.onnx", vocabulary=character_vocabulary(["xy"]))
