"""``<unk>`` is read but never written: by generators token by token, by translators greedily, by beams and step by step."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, Generator, ReaderConfig
from rnncore.export import export_model, export_translator
from rnncore.export.decoding import beam_loop
from rnncore.export.decoding.answers import ModuleAnswers, beginning, what_follows
from rnncore.export.decoding.beam_check import BeamRules, best_of
from rnncore.runtime import Generator as RuntimeGenerator
from rnncore.runtime import InputError, LanguageModel, ModelFileError, Translator
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.text.sampling import sampling_probabilities, token_at
from rnncore.runtime.text.translator import DecoderFeeds
from rnncore.runtime.text.vocabulary import unknown_token_id
from rnncore.text import character_vocabulary, word_vocabulary
from tests.generation.models import END, UNKNOWN, WORDS, randomize, streaming_file, vocabulary
from tests.tolerances import fixed

MAX_TOKENS = 9
CELLS = (CellConfig.named("gru", 7),)


@cache
def model() -> EncoderDecoder:
    """One that would write ``<unk>`` at nearly every step."""
    made = EncoderDecoder(EncoderDecoderConfig(len(WORDS), len(WORDS), CELLS, CELLS)).eval()
    randomize(made, 3)
    with torch.no_grad():
        made.head.bias[UNKNOWN] += 4.0
    return made


@cache
def translator_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.onnx"
        export_translator(model(), path, source_vocabulary=vocabulary(), target_vocabulary=vocabulary())
        return path.read_bytes()


@cache
def translator() -> Translator:
    return Translator.load(translator_file())


@cache
def generator(spoken: bool = True) -> RuntimeGenerator:
    """Half of what it would write is ``<unk>``, if it has a vocabulary that calls the token so."""
    made = Generator(ReaderConfig(CELLS, len(WORDS)), eos_id=END).eval()
    randomize(made, 5)
    with torch.no_grad():
        made.head.bias[UNKNOWN] += 2.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.onnx"
        export_model(made, path, vocabulary=vocabulary() if spoken else None)
        return RuntimeGenerator.load(path)


@given(st.lists(st.integers(0, len(WORDS) - 1), max_size=6), st.integers(1, 4), st.sampled_from([0.0, 0.7]))
def test_no_search_of_a_translator_finds_a_rejected_token(source: list[int], beam: int, penalty: float) -> None:
    options: dict[str, Any] = {"beam": beam, "length_penalty": penalty, "max_tokens": MAX_TOKENS}
    (found,) = translator().translate_ids([source], **options)
    (steps,) = translator().translate_ids([source], **options, one_call=False)
    wanted, gap = best_of(
        what_follows(ModuleAnswers(model()), np.array(source, np.int64)),
        BeamRules(END, beam, MAX_TOKENS, penalty, (UNKNOWN,)),
    )
    for one in (*found, *steps):
        assert UNKNOWN not in one.ids
    if gap > 1e-4:
        own = [tuple(token for token in tokens if token != END) for tokens, _ in wanted]
        assert [tuple(one.ids.tolist()) for one in found] == own
        assert [tuple(one.ids.tolist()) for one in steps] == own
        np.testing.assert_allclose(
            [one.log_prob for one in found], [log_prob for _, log_prob in wanted], atol=fixed("float32 score")
        )


def test_the_model_would_have_written_it_and_says_so() -> None:
    """Otherwise the tests of this file would show nothing; the file's log-probabilities stay the model's."""
    (found,) = translator().translate_ids([[2, 3]], max_tokens=1)
    answer = translator().model.run(
        **beginning(translator().model, np.array([[2, 3]]), max_tokens=np.array([1]), beam=np.array([1])),
        lengths=np.array([2]),
    )
    raw = answer["next_log_probs"][0]
    assert int(raw.argmax()) == UNKNOWN
    assert float(np.logaddexp.reduce(raw)) == pytest.approx(0.0, abs=fixed("float32 long"))
    assert found[0].log_prob == pytest.approx(float(np.delete(raw, UNKNOWN).max()), abs=fixed("float32 long"))


def test_texts_hold_no_unknown_word() -> None:
    for text in ("the apple", "a red moon", "nowhere"):
        for options in ({}, {"beam": 3}, {"beam": 2, "one_call": False}):
            assert "<unk>" not in translator().translate(text, **options)


def test_a_host_of_plain_onnxruntime_gets_none_either() -> None:
    session = onnxruntime.InferenceSession(translator_file(), providers=["CPUExecutionProvider"])
    source, beam = np.arange(12).reshape(3, 4) % len(WORDS), np.array([1, 3, 2])
    feeds = beginning(translator().model, source, max_tokens=np.full(3, 7), beam=beam)
    ids, beams = session.run(["ids", "beam.ids"], {**feeds, "lengths": np.array([4, 2, 0])})
    assert UNKNOWN not in ids and UNKNOWN not in beams


def test_verification_sees_a_translator_that_writes_rejected_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beam_loop, "without", lambda builder, log_probs, *_: log_probs)
    with pytest.raises(VerificationError):
        export_translator(model(), tmp_path / "t.onnx", target_vocabulary=vocabulary())
    assert not list(tmp_path.iterdir())


def test_more_tokens_can_be_rejected_but_not_the_end(tmp_path: Path) -> None:
    for rejected, message in (([END], "cannot be rejected"), ([-1], "rejected is -1"), ([len(WORDS)], "expected 0 to")):
        with pytest.raises(InputError, match=message):
            export_translator(model(), tmp_path / "t.onnx", rejected=rejected)
    assert not list(tmp_path.iterdir())


def test_files_without_rejected_tokens_are_read_as_before() -> None:
    assert DecoderFeeds.from_json('{"end":2,"feeds":{"memory":"memory.next"}}') == DecoderFeeds(
        2, {"memory": "memory.next"}, ()
    )
    assert DecoderFeeds.from_json(DecoderFeeds(2, {}, (1, 5)).to_json()) == DecoderFeeds(2, {}, (1, 5))


@given(st.integers(0, 2**32 - 1), st.sampled_from([{}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.6}]))
def test_a_generator_draws_again_where_it_would_write_an_unknown_word(seed: int, options: dict[str, Any]) -> None:
    """The others share its probability, which is the distribution of drawing until another token comes."""
    ids = list(generator().ids(max_tokens=MAX_TOKENS, seed=seed, **options))
    random, expected = np.random.default_rng(seed), list[int]()
    with generator().model.stream() as stream:
        log_probs = stream.push(np.array([END]))[-1]
        while len(expected) < MAX_TOKENS:
            known = np.delete(np.arange(len(WORDS)), UNKNOWN)
            probabilities = sampling_probabilities(log_probs[known] - np.logaddexp.reduce(log_probs[known]), **options)
            token = int(known[token_at(probabilities, random.random())])
            if token == END:
                break
            expected.append(token)
            log_probs = stream.push(np.array([token]))[-1]
    assert ids == expected
    assert UNKNOWN not in ids


def test_without_a_vocabulary_nobody_knows_which_token_is_unknown() -> None:
    assert any(UNKNOWN in generator(spoken=False).ids(max_tokens=20, seed=seed) for seed in range(5))


def test_a_prefix_and_a_score_may_hold_what_is_never_written() -> None:
    assert "<unk>" not in generator().generate(prefix="the nowhere", seed=1)
    assert np.isfinite(generator().log_prob("the nowhere"))


def test_the_unknown_word_is_found_without_the_library_of_tokenizers() -> None:
    for made in (vocabulary(), word_vocabulary(["a b c"]), character_vocabulary(["abc"])):
        assert unknown_token_id(made.to_json()) == made.unk_id
    pieces = '{"added_tokens": null, "model": {"type": "Unigram", "vocab": [["<eos>", 0.0], ["<unk>", -1.0]]}}'
    assert unknown_token_id(pieces) == 1
    assert unknown_token_id(None) is None
    for broken in ("{", "[]", '{"model": {}}', '{"model": {"vocab": 3}}'):
        with pytest.raises(ModelFileError, match="cannot be read"):
            unknown_token_id(broken)
    assert LanguageModel.load(streaming_file()).vocabulary.unk_id == UNKNOWN
