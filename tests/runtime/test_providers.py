"""What computes a model: chosen by name, refused by name, verified like the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rnncore import runtime
from rnncore.runtime.errors import InputError
from rnncore.runtime.session.providers import CPU, check_started, read_providers
from tests.tolerances import fixed

FILE = Path(__file__).parent / "format1" / "causal.onnx"
OTHERS = [name for name in onnxruntime.get_available_providers() if name != CPU]
ABSENT = next(name for name in onnxruntime.get_all_providers() if name not in onnxruntime.get_available_providers())


def answers(model: runtime.Model) -> list[np.ndarray]:
    (port,) = model.signature.inputs
    x = np.zeros((2, 7, *(int(size) for size in port.shape[2:])), port.dtype)
    with model.stream() as stream:
        return [np.asarray(model.run(x)), np.asarray(stream.push(x[0, :4])), np.asarray(stream.push(x[0, 4:]))]


@pytest.mark.parametrize("providers", ["cpu", "CPUExecutionProvider", ["CPU"], [("cpu", {})], *OTHERS])
def test_every_provider_that_is_there_gives_the_answers_of_the_cpu(providers: Any) -> None:
    model = runtime.load(FILE, providers=providers)
    assert runtime.verify(model).passed
    for mine, plain in zip(answers(model), answers(runtime.load(FILE)), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=fixed("float32 long"), atol=fixed("float32"))


def test_verify_takes_providers_in_its_own_process_too() -> None:
    assert runtime.verify(FILE, providers="cpu", isolated=True).passed
    with pytest.raises(InputError, match=ABSENT):
        runtime.verify(FILE, providers=ABSENT, isolated=True)


@pytest.mark.parametrize(
    "providers",
    [ABSENT, ABSENT.removesuffix("ExecutionProvider").lower(), ["cpu", ABSENT], [(ABSENT, {"device_id": 0})]],
)
def test_what_this_onnxruntime_lacks_is_refused_by_name(providers: Any) -> None:
    with pytest.raises(
        InputError, match=rf"(?i){ABSENT.removesuffix('ExecutionProvider')}.*this onnxruntime .* has .*{CPU}"
    ):
        runtime.load(FILE, providers=providers)


@pytest.mark.parametrize("providers", ["", [], 3, [3], [("cpu",)], [("cpu", 1)], [(1, {})], b"cpu", {"cpu"}])
def test_what_names_no_provider_is_refused(providers: Any) -> None:
    with pytest.raises(InputError, match="providers"):
        runtime.load(FILE, providers=providers)


def test_a_provider_that_did_not_start_is_refused() -> None:
    """As onnxruntime does it for a CUDA build without a graphics card: it opens the session on the CPU alone."""
    session = onnxruntime.InferenceSession(FILE.read_bytes(), providers=[CPU])
    with pytest.raises(InputError, match="cannot start CUDAExecutionProvider"):
        check_started(session, [("CUDAExecutionProvider", {}), (CPU, {})])


def test_the_cpu_comes_last_unless_it_was_placed() -> None:
    for one in OTHERS:
        assert [name for name, _ in read_providers([one])] == [one, CPU]
        assert [name for name, _ in read_providers([CPU, one])] == [CPU, one]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_computes_where_its_parent_did() -> None:
    model = runtime.load(FILE, providers=OTHERS or "cpu")
    before = answers(model)
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(a, b) for a, b in zip(answers(model), before, strict=True))
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
