"""What is bound to onnxruntime stays alive, whatever else the process allocates between two pushes."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rnncore.runtime import InputError, Stream
from tests.runtime.data import BOUND, model, sequence
from tests.runtime.files import IDS, Spec, reference


def test_lengths_that_are_bound_are_not_memory_of_somebody_else() -> None:
    spec = Spec(lengths=True)
    x = sequence(spec, np.random.default_rng(31), 40)
    answers, others = [], []
    with model(spec).stream() as stream:
        for row in x:
            answers.append(stream.push(row[None]))
            others = [np.zeros(1, np.int64) for _ in range(50)]  # freed and taken again where a length may have been
    assert not any(other.any() for other in others)
    np.testing.assert_allclose(np.concatenate(answers), reference(spec, x)["y"], **BOUND)


@example([(-1, "i8"), (IDS, "i8"), (IDS - 1, "i8")])
@given(st.lists(st.tuples(st.integers(-2, IDS + 1), st.sampled_from(["i8", "i4", ">i8", "f4"])), max_size=8))
def test_an_id_pushed_into_bound_buffers_is_read_or_refused_as_at_first(pushes: list[tuple[int, str]]) -> None:
    spec = Spec(ids=True, learned=True, limit=True)
    with model(spec).stream() as stream:
        stream.push(np.array([1]))  # from now on the buffers are bound
        for number, dtype in pushes:
            chunk = np.array([number], dtype)
            before = stream.save()
            with model(spec).restore(before) as anew:
                wanted = _answer(anew, chunk)
                found = _answer(stream, chunk)
                assert type(found) is type(wanted)
                if isinstance(wanted, str):
                    assert found == wanted
                    assert stream.save() == before
                else:
                    np.testing.assert_array_equal(found, wanted)
                    assert stream.save() == anew.save()


def _answer(stream: Stream, chunk: np.ndarray) -> np.ndarray | str:
    try:
        answer: np.ndarray = stream.push(chunk)
    except InputError as error:
        return str(error)
    return answer
