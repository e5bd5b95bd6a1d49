"""Beam search inside the graph: over tables made up on the spot it is the runtime's, ties included; in a translator's file,
that of single steps and of PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from rnncore.export.decoding.answers import ModuleAnswers, what_follows
from rnncore.export.decoding.beam_check import BeamRules, best_of
from rnncore.export.decoding.beam_loop import Choices, emit_beam_search
from rnncore.export.decoding.beam_places import Places
from rnncore.export.decoding.loop import Start
from rnncore.export.graph.builder import Builder
from rnncore.runtime.text.beam import Found, beam_search
from rnncore.runtime.text.translator import read_found
from tests.export.backends import Loop
from tests.generation.models import ARCHITECTURES, encoder_decoder, filled, translator, translator_file
from tests.generation.test_translator import CLOSE, ROUNDING, log_probs
from tests.tolerances import fixed

ENTRIES = 31
"""Histories that a table tells apart; the next one is a hash of the last one and the token."""

names = st.sampled_from(sorted(ARCHITECTURES))
options = st.tuples(st.integers(1, 7), st.sampled_from([0.0, 0.6, 1.0]), st.integers(0, 4))
rows = st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=7), options), min_size=1, max_size=3)


# ------------------------------------------------------------------------------------------------------------ tables
@cache
def table_session(vocabulary: int, end: int) -> onnxruntime.InferenceSession:
    """A search whose model looks the log-probabilities up: table [ENTRIES, vocabulary], begin [batch, 1], the first entry."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="Search")
    given = {"table": ("float32", (ENTRIES, vocabulary)), "begin": ("float32", ("batch", 1))}
    given |= {"beam": ("int64", ("batch",)), "penalty": ("float64", ("batch",)), "limit": ("int64", ("batch",))}
    inputs = {
        name: ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))), shape=ir.Shape(shape))
        for name, (dtype, shape) in given.items()
    }
    graph.inputs.extend(inputs.values())
    builder = Builder("search", graph)

    def step(body: Builder, token: ir.Value, states: Sequence[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        hashed = body.op("Add", body.op("Mul", states[0], body.constant(3, np.float32)), body.op("Cast", token, to=1))
        state = body.op("Mod", hashed, body.constant(ENTRIES, np.float32), fmod=1)
        entry = body.op("Squeeze", body.op("Cast", state, to=7), body.constant([1]))
        return body.op("Gather", inputs["table"], entry), [state]

    first = builder.op("Expand", builder.constant(end), builder.op("Shape", inputs["limit"]))
    trips = builder.op("Max", builder.op("ReduceMax", inputs["limit"], keepdims=0), builder.constant(0))
    places = Places(builder, inputs["limit"], inputs["beam"])
    start = Start(first, [inputs["begin"]], inputs["limit"], trips)
    choices = Choices(end, vocabulary, ir.DataType.FLOAT)
    found = emit_beam_search(builder, places, start, inputs["penalty"], step, choices)
    graph.extend(builder.nodes)
    graph.outputs.extend([found.ids, found.log_prob, found.score])
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_table(table: np.ndarray, begin: int, beam: int, penalty: float, limit: int, end: int) -> list[Found]:
    entries = np.array([(begin * 3 + end) % ENTRIES])

    def advance(chosen: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        nonlocal entries
        entries = (entries[chosen] * 3 + tokens) % ENTRIES
        result: np.ndarray = table[entries].astype(np.float64)
        return result

    first = table[entries].astype(np.float64)
    return beam_search(first, advance, beam=beam, end=end, limits=np.array([limit]), length_penalty=penalty)[0]


@given(
    st.sampled_from([(2, 0), (3, 2), (5, 1)]),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.6, 1.0]), st.integers(0, 6)), min_size=1, max_size=4),
    st.sampled_from([1, 64]),
)
def test_it_finds_what_the_runtime_finds_ties_and_impossible_tokens_included(
    sizes: tuple[int, int], seed: int, several: list[tuple[int, float, int]], steps: int
) -> None:
    """Every row has a beam, a penalty and a limit of its own; few different numbers (steps 1) make many scores equal."""
    vocabulary, end = sizes
    random = np.random.default_rng(seed)
    table = (-random.integers(1, 4 * steps, (ENTRIES, vocabulary)) / steps).astype(np.float32)
    table[random.random(table.shape) < 0.15] = -np.inf
    table[:, end] = -1 - random.integers(0, 2, ENTRIES)  # as in any model, something is possible
    begin = random.integers(0, ENTRIES, len(several))
    feeds = {"table": table, "begin": begin.astype(np.float32)[:, None]}
    for name, column in zip(("beam", "penalty", "limit"), zip(*several, strict=True), strict=True):
        feeds[name] = np.array(column)
    ids, log_prob, score = table_session(vocabulary, end).run(None, feeds)
    assert ids.shape[:2] == log_prob.shape == score.shape == (len(several), max(beam for beam, *_ in several))
    for row, (beam, penalty, limit) in enumerate(several):
        expected = by_table(table, int(begin[row]), beam, penalty, limit, end)
        assert np.isfinite(log_prob[row]).sum() == len(expected) <= beam
        for rank, one in enumerate(expected):
            assert [token for token in ids[row, rank].tolist() if token != end] == one.ids.tolist()
            assert log_prob[row, rank] == one.log_prob
            assert score[row, rank] == pytest.approx(one.score, rel=fixed("float64 last bit"))


def test_the_loop_ends_as_soon_as_every_sequence_has_ended() -> None:
    table = np.full((ENTRIES, 3), -9, np.float32)
    table[:, 2] = -0.5
    feeds = {"table": table, "begin": np.zeros((2, 1), np.float32), "penalty": np.zeros(2)}
    ids, *_ = table_session(3, 2).run(None, {**feeds, "beam": np.array([2, 1]), "limit": np.array([1000, 1000])})
    assert ids.shape == (2, 2, 2), "two steps were enough, of a thousand"


# ------------------------------------------------------------------------------------------------- translators' files
@cache
def session_of(name: str) -> onnxruntime.InferenceSession:
    silent = onnxruntime.SessionOptions()
    silent.log_severity_level = 3
    return onnxruntime.InferenceSession(translator_file(name), silent, providers=["CPUExecutionProvider"])


def called(name: str, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    results: list[np.ndarray] = session_of(name).run(outputs, filled(translator(name).model, feeds))
    return results


def searched(name: str, source: list[int], beam: int, penalty: float, limit: int) -> tuple[list[list[int]], float]:
    """Ids that a search over PyTorch finds, and how clear its closest decision was."""
    end = encoder_decoder(name).config.end_id
    found, gap = best_of(
        what_follows(ModuleAnswers(encoder_decoder(name)), np.array(source, np.int64)),
        BeamRules(end, beam, limit, penalty),
    )
    return [[token for token in tokens if token != end] for tokens, _ in found], gap


@given(names, rows)
def test_rows_of_one_call_are_searched_as_by_single_steps_and_by_pytorch(
    name: str, several: list[tuple[list[int], tuple[int, float, int]]]
) -> None:
    longest = max(1, *(len(source) for source, _ in several))
    feeds = {
        "source": np.array([source + [0] * (longest - len(source)) for source, _ in several]),
        "lengths": np.array([len(source) for source, _ in several]),
    }
    for key, column in zip(
        ("beam", "length_penalty", "max_tokens"), zip(*(o for _, o in several), strict=True), strict=True
    ):
        feeds[key] = np.array(column)
    outputs = ["ids", "ids_lengths", "log_probs", "beam.ids", "beam.ids_lengths", "beam.log_prob", "beam.score"]
    answer = dict(zip(outputs, called(name, outputs, feeds), strict=True))
    for row, (source, (beam, penalty, limit)) in enumerate(several):
        found = read_found(answer)[row]
        (steps,) = translator(name).translate_ids(
            [source], beam=beam, length_penalty=penalty, max_tokens=limit, one_call=False
        )
        expected, gap = searched(name, source, beam, penalty, limit)
        assert answer["log_probs"][row].sum() == pytest.approx(found[0].log_prob, abs=ROUNDING)
        assert answer["ids"][row, : answer["ids_lengths"][row]].tolist() == found[0].ids.tolist()
        if gap > CLOSE:
            assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in steps] == expected
            assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in steps], abs=ROUNDING)
            assert [one.score for one in found] == pytest.approx([one.score for one in steps], abs=ROUNDING)


def test_a_host_without_rnncore_searches_in_one_call() -> None:
    name = "additive, two layers"
    feeds = {
        "source": np.array([[1, 2, 3, 4], [5, 6, 0, 0]]),
        "lengths": np.array([4, 2]),
        "max_tokens": np.array([9, 7]),
        "beam": np.array([4, 4]),
    }
    ids, lengths = called(name, ["ids", "ids_lengths"], feeds)
    expected = [searched(name, [1, 2, 3, 4], 4, 0.0, 9)[0][0], searched(name, [5, 6], 4, 0.0, 7)[0][0]]
    assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == expected


def test_onnx_reference_finds_the_same() -> None:
    name = "general"
    model = onnx.load_from_string(translator_file(name))
    feeds = {"source": np.array([[1, 2, 3], [5, 6, 0]]), "lengths": np.array([3, 2]), "max_tokens": np.array([5, 4])}
    feeds |= {"beam": np.array([3, 2]), "length_penalty": np.array([0.0, 1.0])}
    names = ["beam.ids", "beam.ids_lengths", "beam.log_prob"]
    expected = called(name, names, feeds)
    got = ReferenceEvaluator(model, new_ops=[Loop]).run(names, filled(translator(name).model, feeds))
    possible = np.isfinite(expected[2])
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine[possible], theirs[possible], atol=ROUNDING)
    np.testing.assert_array_equal(np.isfinite(got[2]), possible)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_states_of_a_search_go_on_from_its_best_target(name: str) -> None:
    limit, rows, file = 3, 31, translator(name)
    random = np.random.default_rng(5)
    source, lengths = random.integers(0, 7, (rows, 6)), random.integers(0, 7, rows)
    feeds = {"source": source, "lengths": lengths, "max_tokens": np.full(rows, limit)}
    search = {"beam": np.full(rows, 3), "length_penalty": np.full(rows, 5.0)}  # the longer, the better
    outputs = ["ids", "ids_lengths", "next_log_probs", *file.wiring.feeds.values()]
    answer = dict(zip(outputs, called(name, outputs, {**feeds, **search}), strict=True))
    feeds |= {key: answer[output] for key, output in file.wiring.feeds.items()}
    feeds |= {"token": answer["ids"][:, -1], "max_tokens": np.ones(rows, np.int64)}
    (after,) = called(name, ["next_log_probs"], feeds)
    going = [row for row in range(rows) if answer["ids_lengths"][row] == limit]
    assert going, "every target has ended, so there is nothing to go on with"
    for row in going:
        whole = log_probs(name, source[row, : lengths[row]].tolist(), answer["ids"][row].tolist())
        np.testing.assert_allclose(answer["next_log_probs"][row], whole[-2], atol=ROUNDING)
        np.testing.assert_allclose(after[row], whole[-1], atol=ROUNDING)


def test_the_search_stands_in_the_file_once() -> None:
    """One Loop around the decoder, greedy or not, which ends by its condition, and one copy of every weight."""
    graph = onnx.load_from_string(translator_file("additive, two layers")).graph
    loops = [node for node in graph.node if node.op_type == "Loop"]
    assert len(loops) == 1
    arrays = [
        value for value in graph.initializer if value.data_type == onnx.TensorProto.FLOAT and len(value.dims) == 2
    ]
    large = [onnx.numpy_helper.to_array(value).tobytes() for value in arrays if np.prod(value.dims) > 9]
    assert len(large) == len(set(large)) >= 6, "a weight is stored twice"
