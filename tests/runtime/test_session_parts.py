"""One call of onnxruntime, part by part: how rows are cut, what is kept for the next call, what its errors become."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rnncore import runtime
from rnncore.runtime import InputError, ModelFileError, Signature, StateError, TensorSpec
from rnncore.runtime.session import cpu_features, opening, row_sharing, threads
from rnncore.runtime.session.failures import enough_memory, of_runtime, readable, run_error
from rnncore.runtime.session.helpers import Task, dismiss, start_helpers
from rnncore.runtime.session.opening import Graph, open_session
from rnncore.runtime.session.process_fork import abandon
from rnncore.runtime.session.providers import CPU, check_started, read_providers
from rnncore.runtime.session.row_sharing import RowSharing, rows_are_independent
from rnncore.runtime.session.row_splitting import JoinedRows, cut, joined, row_parts
from rnncore.runtime.session.run import item_views, own_arrays, run_arrays, split_items
from rnncore.runtime.tensors.specs import Layout
from tests.runtime.data import BOUND, model
from tests.runtime.files import Spec, causal_file

SPEC = Spec(lengths=True, learned=True, last=True, speaker=True)
Z = TensorSpec("z", "float32", ("time", "batch", 2))


def refused(call: Any, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------------- rows
def test_rows_of_each_call_are_as_many_as_may_be() -> None:
    def parts(*given: Any) -> list[tuple[int, int]]:
        return [(rows.start, rows.stop) for rows in row_parts(*given)]

    assert parts(10, 3, 12) == [(0, 4), (4, 8), (8, 10)]
    assert parts(3, 5, 4) == [(0, 1), (1, 2), (2, 3)], "one row at least"
    assert parts(10, 3, None) == parts(10, 3, 30) == parts(10, 0, 10) == [(0, 10)]
    assert parts(10, 3, 29) == [(0, 9), (9, 10)]


def test_rows_are_cut_and_joined_along_the_batch_axis() -> None:
    layout = Layout.of(Signature((Z, TensorSpec("s", "float32", ("batch", 1))), (Z,), causal=True))
    whole = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    part = cut(layout, {"z": whole, "s": np.arange(4)[:, None]}, slice(1, 3))
    assert part["z"].flags.c_contiguous and part["s"].tolist() == [[1], [2]]
    np.testing.assert_array_equal(part["z"], whole[:, 1:3])
    assert list(cut(layout, {"z": whole}, slice(0, 1))) == ["z"], "options may be missing"
    pieces = [{"z": whole[:, rows]} for rows in (slice(0, 1), slice(1, 4))]
    np.testing.assert_array_equal(joined(layout, pieces)["z"], whole)
    beside = JoinedRows(layout, 4)
    for rows in (slice(1, 4), slice(0, 1)):
        beside.put(rows, {"z": whole[:, rows]})
    np.testing.assert_array_equal(beside.arrays["z"], whole)
    states = model(SPEC).engine.layout
    names = [*("y", "last"), *(state.output for state in states.states)]
    one = {name: np.ones((2, 3)) for name in names}
    assert {name: array.shape for name, array in joined(states, [one, one]).items()} == dict.fromkeys(names, (4, 3))


def test_calls_in_parts_give_what_one_call_gives() -> None:
    rng = np.random.default_rng(5)
    x, speakers = rng.standard_normal((5, 4, 13)).astype(np.float32), rng.standard_normal((5, 3)).astype(np.float32)
    limited = runtime.load(causal_file(SPEC), max_batch_steps=8)
    for lengths in (None, [4, 1, 0, 2, 4]):
        found, wanted = (net.run(x, speakers, lengths=lengths) for net in (limited, model(SPEC)))
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], **BOUND)
    assert refused(lambda: limited.engine.check_in_one_call("a generator", "ask for less")) == (
        "a generator takes all its rows at once: load the model without max_batch_steps, and ask for less"
    )
    model(SPEC).engine.check_in_one_call("a generator", "ask for less")


# ----------------------------------------------------------------------------------------------------------- one call
def test_what_every_call_needs_is_kept_and_cannot_be_changed() -> None:
    engine = runtime.load(causal_file(SPEC)).engine
    for batch in (3, 256, 3, 257, 1):
        states = engine.initial_states(batch)
        assert {name: array.shape for name, array in states.items()} == {"c": (batch, 7), "h": (batch, 5)}
        assert not any(array.flags.writeable for array in states.values())
        np.testing.assert_array_equal(states["h"][-1], engine.layout.states[1].initial)
        again = engine.initial_states(batch)
        assert (again["c"] is states["c"]) == (batch <= 256) and again is not states
        assert sum(engine._starts) <= 256
    for batch, steps in ((2, 5), (2, 6), (257, 6), (2, 6)):
        lengths, nothing = engine._full_lengths(batch, steps), engine._nothing_asked(batch, steps)
        assert lengths.tolist() == [steps] * batch and lengths.dtype == np.int64 and not lengths.flags.writeable
        assert nothing.shape == (batch, steps, 1) and nothing.dtype == np.int64 and not nothing.flags.writeable
        assert (engine._full_lengths(batch, steps) is lengths) == (batch <= 256)
        assert (engine._nothing_asked(batch, steps) is nothing) == (batch <= 256)


def test_a_graph_that_makes_other_states_than_it_says_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model(SPEC)
    layout, call = net.engine.layout, type(net.engine).call
    arrays = {"x": np.zeros((2, 1, 13), "f"), "speaker": np.zeros((2, 3), "f")}
    starts = list(net.engine.initial_states(2).values())
    for change, says in (
        (lambda h: h[:1], "float32[1, 5]"),
        (lambda h: h.astype(np.float64), "float64[2, 5]"),
        (lambda h: h[:, :4], "float32[2, 4]"),
    ):

        def other(engine: Any, *given: Any, change: Any = change) -> Any:
            values = call(engine, *given)
            return values | {"h_out": change(values["h_out"])}

        monkeypatch.setattr(type(net.engine), "call", other)
        assert refused(lambda: run_arrays(net.engine, arrays, np.array([1, 1]), 1, starts)) == (
            f"the model made {says} of the state 'h', expected float32[2, 5]: its graph does not do what it says for "
            "this input"
        )
    assert [state.name for state in layout.states] == ["c", "h"]


def test_outputs_are_handed_out_to_the_sequences_that_they_belong_to() -> None:
    layout = model(SPEC).engine.layout
    y, last = np.arange(24).reshape(2, 3, 4), np.arange(4).reshape(2, 2)
    first, second = split_items(layout, [y, last], [3, 1], 3)
    assert first[0].shape == (3, 4) and second[0].tolist() == [[12, 13, 14, 15]] and second[1].tolist() == [2, 3]
    assert not any(np.shares_memory(own, y) for own in (first[0], second[0])) and first[0].base is None
    views = item_views(layout.outputs[0], y, [3, 3], 3)
    assert all(np.shares_memory(view, y) for view in views) and [len(view) for view in views] == [3, 3]
    assert [len(own) for own in own_arrays(layout.outputs[0], y, [2, 0], 3)] == [2, 0]
    assert [own.tolist() for own in own_arrays(layout.outputs[1], last, [2, 0], 3)] == [[0, 1], [2, 3]]


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : idx=99 must be within the inclusive range [-17,16]",
            "an input holds the id 99, the model's table ends at 16: use ids 0 to 16",
        ),
        (
            "idx=0 must be within the inclusive range [0,-1]",
            "the model looks up place 0 along an axis that has no entry at these sizes",
        ),
        (
            f"idx={2**63 - 1} must be within the inclusive range [-17,16]",
            "an input gives an id below 0, the model's table ends at 16: use ids 0 to 16",
        ),
        (
            f"idx={2**31 - 1} must be within the inclusive range [-3,2]",
            "an input gives an id below 0, the model's table ends at 2: use ids 0 to 2",
        ),
        ("invalid indice found, indice = 7", "an input holds or gives the id 7 that the model's tables do not hold"),
        (
            f"invalid index found, index = {2**63 - 1}",
            "an input holds or gives an id that the model's tables do not hold",
        ),
        ("Out of range value in index tensor", "an input holds or gives an id that the model's tables do not hold"),
        (
            "std::bad_alloc",
            "there is not enough memory to run the model on so many steps at once: use shorter chunks or fewer rows, or "
            "load the model with max_steps and max_batch_steps (std::bad_alloc)",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /build/onnxruntime/core/x.cc:12 Something\n   odd",
            "onnxruntime could not run the model on this input: Something odd",
        ),
    ],
)
def test_errors_of_a_run_say_what_to_do(text: str, says: str) -> None:
    assert str(run_error(RuntimeError(text))) == says


def test_errors_of_the_library_are_told_from_others() -> None:
    class Theirs(Exception):
        pass

    Theirs.__module__ = "onnxruntime.capi.x"
    assert of_runtime(Theirs()) and of_runtime(RuntimeError()) and of_runtime(MemoryError())
    assert not of_runtime(KeyError()) and not of_runtime(OSError())
    for library in ("failed to allocate memory", "Failed to allocate memory", "bad_alloc"):
        assert str(run_error(RuntimeError(library))).startswith("there is not enough memory")
    with pytest.raises(InputError) as caught, enough_memory():
        raise MemoryError("9 GB")
    assert str(caught.value).endswith("max_batch_steps (9 GB)") and isinstance(caught.value.__cause__, MemoryError)
    with pytest.raises(ZeroDivisionError), enough_memory():
        raise ZeroDivisionError
    assert readable(ValueError("  a\n b  ")) == "a b"


# ------------------------------------------------------------------------------------------------------------ sessions
def test_a_model_that_onnxruntime_does_not_take_is_refused_by_name() -> None:
    says = refused(
        lambda: open_session(Graph(b"nothing", {}, frozenset(), True), threads=1, arena=False), ModelFileError
    )
    assert says.startswith(f"onnxruntime {onnxruntime.__version__} does not accept the model: ")
    assert "\n" not in says and "[ONNXRuntimeError]" not in says


def test_a_session_is_set_up_as_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = onnxruntime.InferenceSession

    def noting(data: bytes, options: Any, **more: Any) -> Any:
        made.append((options, more))
        return real(data, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    for foldable in (True, False):
        session = open_session(Graph(causal_file(SPEC), {}, frozenset(), foldable), threads=2, arena=foldable)
        options, more = made[-1]
        assert (options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level) == (2, 1, 4)
        assert options.enable_cpu_mem_arena is foldable and options.enable_mem_pattern is True
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.get_session_config_entry("session.load_model_format") == "ONNX"
        assert options.get_session_config_entry(opening._FOLDER) == "/dev/null/none"
        assert more == {"providers": [(CPU, {})], "disabled_optimizers": [] if foldable else ["ConstantFolding"]}
        assert vars(session).get("_model_bytes", b"") == b"", "not kept a second time"
    inputs, outputs = opening.graph_values(session)
    assert ("x", "tensor(float)") in [(value.name, value.type) for value in inputs]
    assert [value.name for value in outputs] == ["y", "last", "c_out", "h_out"]
    assert next(value for value in outputs if value.name == "h_out").shape[1] == 5


def test_providers_are_named_in_full_with_the_cpu_last() -> None:
    assert read_providers(None) == ((CPU, {}),) == read_providers("CPU") == read_providers([CPU])
    assert read_providers([("cpu", {"a": 1})]) == ((CPU, {"a": 1}),)
    has = ", ".join(sorted(onnxruntime.get_available_providers()))
    assert refused(lambda: read_providers("quantum")) == (
        f"providers asks for 'quantum', this onnxruntime {onnxruntime.__version__} has {has}: install the package of "
        "onnxruntime that brings it"
    )
    assert refused(lambda: read_providers([])) == 'providers is [], expected names such as ["CUDAExecutionProvider"]'
    assert refused(lambda: read_providers([("cpu", 1)])) == (  # type: ignore[list-item]
        "providers holds ('cpu', 1), expected a name, or a name and its options: ('cuda', {'device_id': 0})"
    )
    session = model(SPEC).engine.session
    check_started(session, [(CPU, {})])
    assert refused(lambda: check_started(session, [("A", {}), (CPU, {}), ("B", {})])) == (
        "onnxruntime cannot start A, B: its libraries or its device are missing here, or its options are wrong; load "
        "without it to run on the CPU"
    )


def test_the_processor_chooses_the_kernel_of_one_row() -> None:
    given: list[str] = []

    class Options:
        def add_initializer(self, name: str, value: Any) -> None:
            given.append(name)
            assert value.numpy().tolist() == [0] and value.numpy().dtype == np.int64

    with cpu_features.supposing(True):
        cpu_features.suit_processor(Options())  # type: ignore[arg-type]
        with cpu_features.supposing(False):
            cpu_features.suit_processor(Options())  # type: ignore[arg-type]
    assert given == ["rnncore.gemv"]


# ------------------------------------------------------------------------------------------------------------- threads
def test_a_shared_pool_of_threads_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing = threads._Sharing()
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(threads, "_sharing", sharing)
    monkeypatch.setattr(onnxruntime, "set_global_thread_pool_sizes", lambda *sizes: made.append(sizes))
    threads.check_threads(None), threads.check_threads(2)
    assert refused(lambda: threads.share_threads(0)) == "count is 0, expected an integer of at least 1, or None"
    for count in (3, None, 3):
        threads.share_threads(count)
    assert made == [(3, 1)]
    assert refused(lambda: threads.share_threads(2), StateError) == (
        "the shared pool has 3 threads already: call share_threads once, at first"
    )
    threads.check_threads(None)
    assert refused(lambda: threads.check_threads(2), StateError) == (
        "the models of this process share a pool of threads, a model with 2 of its own cannot be loaded any more: load it "
        "with threads='shared', or before the first model that shares"
    )
    sharing.after_process_fork()
    for use in (lambda: threads.check_threads(None), lambda: threads.share_threads(3)):
        assert refused(use, StateError) == (
            "this process was forked from one whose models share a pool of threads, which stayed behind: fork before the "
            "first model is loaded, use processes started with 'spawn', or do not share threads"
        )
    unshared = threads._Sharing()
    unshared.after_process_fork()
    assert not unshared.forked


def test_quotas_of_all_groups_around_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "3:cpuset:/else\n2:cpu,cpuacct:/a/b\n1:memory:/m\n0::/c\n"
    read = Path.read_text
    ours = Path("/proc/self/cgroup")
    monkeypatch.setattr(Path, "read_text", lambda self: lines if self == ours else read(self))
    found = threads._own_folders(tmp_path)
    cpu = tmp_path / "cpu"
    assert found == [tmp_path, cpu, cpu / "a" / "b", cpu / "a", tmp_path / "c"]
    (cpu / "a").mkdir(parents=True)
    (cpu / "a" / "cpu.cfs_quota_us").write_text("150000")
    assert threads._quota(cpu / "a") is None, "no period"
    (cpu / "a" / "cpu.cfs_period_us").write_text("100000")
    assert threads._quota(cpu / "a") == 1.5 and threads._quota(tmp_path) is None
    (cpu / "a" / "cpu.cfs_period_us").write_text("0")
    assert threads._quota(cpu / "a") is None
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert threads._quota(tmp_path) == 0.5


def test_helpers_do_what_they_are_handed_and_go() -> None:
    tasks = start_helpers(2, "rnncore-test")
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("rnncore-test")]
    assert sorted(thread.name for thread in ours) == ["rnncore-test_0", "rnncore-test_1"] and ours[0].daemon
    right, wrong = Task(lambda: 5), Task(lambda: 1 / 0)
    for task in (right, wrong):
        tasks.put(task)
        task.wait()
    assert right.result() == 5 and right.error is None
    with pytest.raises(ZeroDivisionError):
        wrong.result()
    dismiss(tasks, 2)
    for thread in ours:
        thread.join(30)
    assert not any(thread.is_alive() for thread in ours)
    abandon(None)


def test_rows_are_shared_out_in_fours_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(sharing: RowSharing, *given: int) -> list[tuple[int, int]]:
        return [(rows.start, rows.stop) for rows in sharing.parts(*given)]

    sharing = RowSharing(3)
    assert parts(sharing, 20, 99) == [(0, 20)] and parts(sharing, 20, 100) == [(0, 4), (4, 12), (12, 20)]
    sharing.timed(10, 1.0)  # 0.1 s for a row and step
    sharing.timed(10, 2.0)
    assert sharing._pace_s == 0.1
    assert parts(sharing, 13, 0) == [(0, 4), (4, 8), (8, 13)] and parts(sharing, 7, 1) == [(0, 7)]
    assert parts(sharing, 9, 1) == [(0, 4), (4, 9)] and parts(sharing, 3, 1) == [(0, 3)]
    sharing.timed(0, 1e-6)
    assert sharing._pace_s == 1e-6
    monkeypatch.setattr(row_sharing, "_LEAST_S", 1e-3)
    assert parts(sharing, 8, 124) == [(0, 8)] and parts(sharing, 8, 125) == [(0, 4), (4, 8)]


def test_rows_are_independent_where_the_export_found_it() -> None:
    right = [{"kind": "rows", "batch": 1, "passed": True}, {"kind": "whole", "passed": False}]
    assert rows_are_independent({"cases": right})
    for wrong in (
        None,
        {},
        [],
        [3],
        [{"kind": "whole", "batch": 1, "passed": True}],
        [{"kind": "rows", "batch": 2, "passed": True}],
        [{"kind": "rows", "batch": 1, "passed": False}],
        [{"kind": "rows", "batch": 1, "passed": 1}],
        [{"kind": "rows", "batch": 1, "passed": True}, {"kind": "rows", "batch": 2, "passed": None}],
    ):
        assert not rows_are_independent({"cases": wrong}), wrong
    assert not rows_are_independent({})
