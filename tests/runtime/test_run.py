"""``Model.run``: arrays, lengths, ragged lists, and every way to get them wrong."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnncore import runtime
from tests.runtime.data import BOUND, model, named, sequence, voice
from tests.runtime.files import ALL, FEATURES, IDS, Spec, not_causal_file, not_causal_reference, reference

RAGGED = st.lists(st.integers(0, 7), min_size=1, max_size=6)


def answer_to_nothing(spec: Spec) -> bool:
    """True when a sequence without steps has an answer."""
    return spec.lengths or not spec.last


def check(spec: Spec, output: Any, items: list[np.ndarray], voices: list[np.ndarray]) -> None:
    """A ragged answer against the reference."""
    output = named(spec, output)
    for i, (item, speaker) in enumerate(zip(items, voices, strict=True)):
        for name, wanted in reference(spec, item, speaker).items():
            assert output[name][i].shape == wanted.shape
            assert output[name][i].dtype == np.float32
            np.testing.assert_allclose(output[name][i], wanted, **BOUND)


@pytest.mark.parametrize("spec", ALL, ids=str)
@given(lengths=RAGGED, seed=st.integers(0, 2**32))
def test_ragged_lists(spec: Spec, lengths: list[int], seed: int) -> None:
    assume(answer_to_nothing(spec) or 0 not in lengths)
    rng = np.random.default_rng(seed)
    items = [sequence(spec, rng, n) for n in lengths]
    voices = [voice(rng) for _ in lengths]
    output = model(spec).run(items, np.stack(voices)) if spec.speaker else model(spec).run(items)
    check(spec, output, items, voices)
    assert all(y.base is None for y in named(spec, output)["y"])


@pytest.mark.parametrize("spec", ALL, ids=str)
@given(lengths=RAGGED, beyond=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_padded_arrays(spec: Spec, lengths: list[int], beyond: int, seed: int) -> None:
    assume(answer_to_nothing(spec) or 0 not in lengths)
    rng = np.random.default_rng(seed)
    steps = max(lengths) + beyond
    whole = np.stack([sequence(spec, rng, steps) for _ in lengths])  # what is in the padding must not matter
    items = [row[:n] for row, n in zip(whole, lengths, strict=True)]
    voices = [voice(rng) for _ in lengths]
    x = whole.swapaxes(0, 1) if spec.time_major else whole
    output = named(spec, model(spec).run(x, *([np.stack(voices)] if spec.speaker else []), lengths=np.array(lengths)))
    y = output["y"].swapaxes(0, 1) if spec.time_major else output["y"]
    assert y.shape[:2] == (len(lengths), steps)
    for row, n in zip(y, lengths, strict=True):
        assert not row[n:].any()
    check(
        spec,
        {**output, "y": [row[:n] for row, n in zip(y, lengths, strict=True)]}
        if spec.last
        else [row[:n] for row, n in zip(y, lengths, strict=True)],
        items,
        voices,
    )


@pytest.mark.parametrize("spec", [spec for spec in ALL if not spec.speaker], ids=str)
@given(
    shape=st.tuples(st.integers(0, 4), st.integers(0, 5)),
    order=st.sampled_from("CF"),
    dtype=st.sampled_from(["<f4", ">f4", "f8", "i4", "i8"]),
    wrong=st.sampled_from([None, None, "rank", "width", "id"]),
    seed=st.integers(0, 2**32),
)
def test_the_short_way_for_arrays_that_are_right_is_the_long_way(
    spec: Spec, shape: tuple[int, int], order: Any, dtype: str, wrong: str | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.array([sequence(spec, rng, shape[1]) for _ in range(shape[0])])
    if wrong == "rank":
        x = x[..., None]
    if wrong == "width":
        x = x[..., :-1]
    if wrong == "id" and x.size:
        x.ravel()[-1] = 10**6
    x = x.astype(dtype, order=order)
    answers = []
    for call in (lambda: model(spec).run(x), lambda: model(spec).run(**{model(spec).signature.inputs[0].name: x})):
        try:
            answers.append({name: value.tobytes() for name, value in named(spec, call()).items()})
        except runtime.InputError as error:
            answers.append(str(error))  # type: ignore[arg-type]
    assert answers[0] == answers[1]


@given(batches=st.lists(st.integers(1, 5), min_size=2, max_size=5), seed=st.integers(0, 2**32))
def test_what_is_kept_for_the_next_call_is_right_for_it(batches: list[int], seed: int) -> None:
    spec = next(spec for spec in ALL if spec.lengths and not spec.speaker)
    rng = np.random.default_rng(seed)
    for batch in batches:
        x = np.stack([sequence(spec, rng, 4) for _ in range(batch)])
        once = model(spec).run(x.swapaxes(0, 1) if spec.time_major else x)
        check(spec, once, list(x), [voice(rng)] * batch)


@pytest.mark.parametrize("with_lengths", [False, True])
@given(lengths=RAGGED, seed=st.integers(0, 2**32))
def test_a_model_that_is_not_causal_never_sees_padding(with_lengths: bool, lengths: list[int], seed: int) -> None:
    backwards = runtime.load(not_causal_file(with_lengths))
    rng = np.random.default_rng(seed)
    items = [sequence(Spec(), rng, n) for n in lengths]
    whole = np.zeros((len(items), max(lengths) + 1, FEATURES), "f")
    for row, item in zip(whole, items, strict=True):
        row[: len(item)] = item
    outputs = (backwards.run(items), backwards.run(whole, lengths=lengths))
    for i, item in enumerate(items):
        wanted = not_causal_reference(item)
        np.testing.assert_allclose(outputs[0][i], wanted, **BOUND)
        np.testing.assert_allclose(outputs[1][i, : len(item)], wanted, **BOUND)
        assert not outputs[1][i, len(item) :].any()


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_running_twice_gives_the_same_bits(spec: Spec) -> None:
    rng = np.random.default_rng(3)
    items, voices = [sequence(spec, rng, n) for n in (5, 2, 3)], np.stack([voice(rng) for _ in range(3)])
    args = (items, voices) if spec.speaker else (items,)
    first, other, second = (named(spec, model(spec).run(*args)) for _ in range(3))
    for name in first:
        for a, b, c in zip(first[name], other[name], second[name], strict=True):
            assert np.array_equal(a, b) and np.array_equal(a, c)


def test_no_steps_at_all() -> None:
    x = np.zeros((3, 0, FEATURES), "f")
    assert model(Spec()).run(x).shape == (3, 0, 11)
    assert [y.shape for y in model(Spec()).run([x[0]])] == [(0, 11)]
    assert model(Spec(ids=True)).run([[], []])[1].shape == (0, 11)
    ids = Spec(ids=True, lengths=True, last=True)
    output = model(ids).run(np.zeros((2, 0), int))
    assert output["y"].shape == (2, 0, 11)
    np.testing.assert_allclose(output["last"], np.zeros((2, 2)))
    with pytest.raises(runtime.InputError, match="sequence 0, 1, 2 has no steps, but output 'last' needs at least one"):
        model(Spec(last=True)).run(x)
    with pytest.raises(runtime.InputError, match="sequence 1 has no steps"):
        model(Spec(last=True)).run([np.ones((2, FEATURES), "f"), x[0]])


def test_learned_states_answer_for_a_sequence_without_steps() -> None:
    spec = Spec(lengths=True, learned=True, last=True, speaker=True)
    rng = np.random.default_rng(11)
    nothing, something, speakers = sequence(spec, rng, 0), sequence(spec, rng, 3), np.stack([voice(rng)] * 2)
    wanted = reference(spec, nothing, speakers[0])["last"]
    np.testing.assert_allclose(model(spec).run([nothing], speakers[:1])["last"][0], wanted, **BOUND)
    np.testing.assert_allclose(model(spec).run([something, nothing], speakers)["last"][1], wanted, **BOUND)


def test_arguments_by_position_and_by_name() -> None:
    spec = Spec(lengths=True, learned=True, last=True, speaker=True)
    rng = np.random.default_rng(5)
    x, s = sequence(spec, rng, 4)[None], voice(rng)[None]
    wanted = model(spec).run(x, s)["y"]
    as_onnxruntime = model(spec).run({"x": x, "speaker": s})
    by_name = model(spec).run(speaker=s, x=x)
    for output in (model(spec).run(x, speaker=s), by_name, as_onnxruntime, model(spec).run([x[0]], [s[0]])):
        assert np.array_equal(output["y"][0], wanted[0])
    for args, names, line in (
        ((), {}, "input 'x' is missing, expected x, speaker\n  - input 'speaker' is missing"),
        ((x,), {"x": x, "speaker": s}, "input 'x' is given twice"),
        (({"x": x},), {}, "input 'speaker' is missing"),
        ((x, s, s), {}, "3 inputs given, expected x, speaker"),
        ((x, s), {"speed": 3}, "there is no input 'speed', expected x, speaker"),
    ):
        with pytest.raises(runtime.InputError, match=line):
            model(spec).run(*args, **names)


def test_casts_that_lose_no_meaning() -> None:
    rng = np.random.default_rng(13)
    x = sequence(Spec(), rng, 5)[None]
    wanted = model(Spec()).run(x)
    assert np.array_equal(model(Spec()).run(x.astype("f8")), wanted)
    assert np.array_equal(model(Spec()).run(x.tolist())[0], wanted[0])
    assert model(Spec()).run(x.astype("f2")).dtype == np.float32
    assert np.array_equal(model(Spec()).run(np.asfortranarray(x)), wanted)
    ids = np.array([[3, 1, 4, 1, 5]])
    by_id = model(Spec(ids=True)).run(ids)
    for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"):
        assert np.array_equal(model(Spec(ids=True)).run(ids.astype(dtype)), by_id)
    assert np.array_equal(model(Spec(ids=True)).run(ids.tolist())[0], by_id[0])


X = np.ones((2, 3, FEATURES), np.float32)
PLAIN, TOKENS, LIMITED = Spec(), Spec(ids=True), Spec(ids=True, learned=True, limit=True)
BIG_ENDIAN = X.astype(">f4")

WRONG_INPUTS = {
    "width": (PLAIN, np.ones((2, 3, 14), "f"), "input 'x' has 14 features, the model expects 13"),
    "rank": (PLAIN, X[0], "has shape [3, 13], the model expects [batch, time, 13]: add a batch axis, x[None]"),
    "rank too high": (PLAIN, X[None], "has shape [1, 2, 3, 13], the model expects [batch, time, 13]"),
    "ints for floats": (PLAIN, X.astype(int), "has dtype int64, the model expects floating-point numbers (float32)"),
    "bools for floats": (PLAIN, X > 0, "has dtype bool, the model expects floating-point"),
    "complex": (PLAIN, X + 1j, "has dtype complex64, the model expects floating-point"),
    "floats for ids": (TOKENS, np.ones((2, 3)), "input 'ids' has dtype float64, the model expects integers (int64)"),
    "bools for ids": (TOKENS, np.ones((2, 3), bool), "has dtype bool, the model expects integers"),
    "objects": (PLAIN, np.full((1, 2, FEATURES), object()), "is a ndarray that holds a object at [0, 0, 0]"),
    "masked": (PLAIN, np.ma.masked_array(X), "is a masked array"),
    "foreign order": (PLAIN, BIG_ENDIAN, "has dtype >f4 in foreign byte order: use .astype('float32')"),
    "too large": (PLAIN, np.full((1, 2, FEATURES), 1e300), "holds numbers too large for float32"),
    "too large an id": (TOKENS, np.full((1, 2), 2**63, "u8"), "which do not fit int64"),
    "text": (TOKENS, "hello", "input 'ids' is a str, expected an array of int64"),
    "None": (PLAIN, None, "input 'x' is a NoneType, expected an array of float32"),
    "a dict": (PLAIN, {"x": {"x": X}}, "input 'x' is a dict"),
    "an empty list": (PLAIN, [], "the list of sequences is empty: hand in at least one"),
    "an empty batch": (PLAIN, X[:0], "the batch is empty: hand in at least one sequence"),
    "a flat list": (TOKENS, [1, 2, 3], "input 'ids', item 0 has shape [], the model expects [time]"),
    "a batch as item": (PLAIN, [X], "item 0 has shape [2, 3, 13], the model expects [time, 13]: hand in one sequence"),
    "a ragged item": (PLAIN, [[[1.0, 2.0], [1.0]]], "input 'x', item 0 cannot be made an array of float32"),
    "id beyond a table": (
        TOKENS,
        np.array([[1, 99]]),
        "holds the id 99, the model's table ends at 16: use ids 0 to 16",
    ),
    "id beyond the limit": (LIMITED, np.array([[1, 17]]), "holds the id 17 at [0, 1], the model knows 0 to 16"),
    "a negative id": (
        LIMITED,
        [[1, 2], [3, -1]],
        "input 'ids', item 1 holds the id -1 at [1], the model knows 0 to 16",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_inputs(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    spec, value, message = WRONG_INPUTS[case]
    right = X if not spec.ids else np.array([[1, 2]])
    before = model(spec).run(right)
    with pytest.raises(runtime.InputError, match=re.escape(message)):
        model(spec).run(value)
    assert np.array_equal(model(spec).run(right), before)
    assert capfd.readouterr() == ("", "")


def test_all_problems_of_a_list_come_at_once() -> None:
    with pytest.raises(runtime.InputError) as caught:
        model(PLAIN).run([X[0], X[0, :, :5], X[0].astype(int), X[0, 0]])
    text = str(caught.value)
    assert text.startswith("3 problems:")
    assert "item 1 has 5 features" in text
    assert "item 2 has dtype int64" in text
    assert "item 3 has shape [13]" in text and "add a time axis" in text


def test_inputs_that_disagree() -> None:
    spec = Spec(lengths=True, learned=True, last=True, speaker=True)
    with pytest.raises(runtime.InputError, match="differ in their number of sequences: 'x' has 2, 'speaker' has 5"):
        model(spec).run(X, np.ones((5, 3), "f"))
    with pytest.raises(runtime.InputError, match="differ in their number of sequences: 'x' has 2, 'speaker' has 5"):
        model(spec).run([X[0], X[1]], np.ones((5, 3), "f"))


WRONG_LENGTHS = {
    "floats": ([1.0, 2.0], "lengths have dtype float64 (1.0 in row 0), expected integers"),
    "NaN": ([float("nan"), 2], "lengths have dtype float64 (nan in row 0)"),
    "text": ("ab", "lengths: is a str, expected an array"),
    "too few": ([3], "lengths have shape [1], expected [2]: one length for each sequence"),
    "a scalar": (3, "lengths have shape [], expected [2]"),
    "a column": ([[3], [2]], "lengths have shape [2, 1], expected [2]"),
    "too long": ([3, 4], "lengths[1] is 4, expected 0 to 3"),
    "negative": (np.array([-1, 4]), "2 problems:\n  - lengths[0] is -1, expected 0 to 3\n  - lengths[1] is 4"),
    "ragged": ([[1], [2, 3]], "lengths cannot be made an array"),
}


@pytest.mark.parametrize("with_input", [False, True])
@pytest.mark.parametrize("case", WRONG_LENGTHS)
def test_wrong_lengths(case: str, with_input: bool) -> None:
    lengths, message = WRONG_LENGTHS[case]
    with pytest.raises(runtime.InputError, match=re.escape(message)):
        model(Spec(lengths=with_input)).run(X, lengths=lengths)


def test_many_wrong_lengths_are_counted() -> None:
    with pytest.raises(runtime.InputError, match="and 6 rows more"):
        model(PLAIN).run(np.repeat(X, 11, axis=0)[:11], lengths=np.full(11, 5))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", "i8"])
def test_lengths_of_any_integer_dtype(dtype: str) -> None:
    for spec in (PLAIN, Spec(lengths=True)):
        y = model(spec).run(X, lengths=np.array([1, 3], dtype))
        assert not y[0, 1:].any() and y[0, 0].all() and y[1].all()


def test_lists_bring_their_own_lengths() -> None:
    with pytest.raises(runtime.InputError, match="each item brings its own length"):
        model(PLAIN).run([X[0]], lengths=[3])


def test_anything_with_an_array_inside_will_do() -> None:
    class Wrapper:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return X

    assert np.array_equal(model(PLAIN).run(Wrapper()), model(PLAIN).run(X))


def test_results_are_the_callers_own() -> None:
    first = model(PLAIN).run(X)
    kept = first.copy()
    model(PLAIN).run(X * 2)
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(model(PLAIN).run(X), kept)


def test_ids_are_all_in_the_table() -> None:
    ids = np.arange(IDS)[None]
    np.testing.assert_allclose(model(TOKENS).run(ids)[0], reference(TOKENS, ids[0])["y"], **BOUND)


HUGE = 1 << 45  # more bytes than an address has bits for, so that no system promises them


@pytest.mark.parametrize("limited", [False, True])
def test_views_of_more_numbers_than_memory_holds_are_refused(limited: bool) -> None:
    """Nothing looks at each of them first: that would take hours."""
    known = model(Spec(ids=True, learned=True, limit=limited))
    ids, items = np.broadcast_to(np.int64(1), (HUGE, 1)), np.broadcast_to(np.int64(1), (HUGE,))
    narrow = np.broadcast_to(np.int32(1), (HUGE,))
    with known.stream() as stream:
        for use in (
            lambda: known.run(ids),
            lambda: known.run([items, items]),
            lambda: known.run([narrow]),
            lambda: list(known.run_iter([items])),
            lambda: stream.push(items),
            lambda: known.push_many([stream], [items]),
            lambda: known.push_many([stream], [narrow]),
        ):
            with pytest.raises(runtime.InputError, match=r"memory"):
                use()
        assert stream.steps == 0 and stream.push([1]).shape == (1, 11)
