"""Parts of a pool one by one: who is told and how, what is counted, which pushes share a call."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime import Signature, TensorSpec
from rnncore.runtime.pool.metrics import PoolCounters
from rnncore.runtime.pool.notifier import Notifier
from rnncore.runtime.pool.request import OVER, WAITING, PushRequest, StreamQueue, join_parts
from rnncore.runtime.pool.slices import plan_slice, plan_whole
from rnncore.runtime.tensors.specs import Layout
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec

SPEC = Spec(lengths=True, learned=True)
ENGINE = model(SPEC).engine
CHUNK = sequence(SPEC, np.random.default_rng(4), 3)


# ------------------------------------------------------------------------------------------------------ who is told, how


def test_threads_are_told_by_their_gates_and_all_others_in_their_order() -> None:
    told: list[str] = []
    notifier = Notifier(lambda request: told.append("lost"))
    queue = StreamQueue("k", -1, 0)
    gate, first, second = (PushRequest(queue, {}, 1, None) for _ in range(3))
    lock = gate.wait_in_thread()
    assert lock.locked() and gate.waits_by_lock and not first.waits_by_lock
    first.wait_in_thread()
    for request, name in ((first, "first"), (second, "second")):
        request.deliver = lambda over, name=name: told.append(name)
        request.stage = OVER
    assert not first.waits_by_lock
    assert notifier.hand_in([gate]) == [gate] and not notifier._due
    assert notifier.hand_in([first, gate, second]) == [gate]
    notifier.tell_now()
    assert told == ["first", "second"] and first.gate is not None and not first.gate.locked()
    assert lock.locked(), "its gate is whose it was returned to"
    notifier.tell_later([first])
    notifier.close()
    assert told == ["first", "second"], "nobody is told twice"
    assert not notifier.thread.is_alive() and notifier.thread.daemon


def test_a_callback_comes_when_the_push_is_over_not_when_it_has_a_place() -> None:
    told: list[PushRequest] = []
    notifier = Notifier(told.append)
    request = PushRequest(StreamQueue("k", -1, 0), {}, 1, None)
    gate, request.deliver, request.stage = request.wait_in_thread(), told.append, WAITING
    notifier.tell_later([request])
    assert gate.acquire(timeout=10) and told == []
    request.stage = OVER
    notifier.tell_later([request])
    notifier.close()
    assert told == [request]


def test_threads_of_the_pool_may_not_wait_for_it() -> None:
    notifier = Notifier(lambda request: None)
    assert not notifier.in_own_thread
    notifier.check_may_wait()
    notifier.join_pool()
    assert notifier.in_own_thread
    with pytest.raises(runtime.PoolError) as caught:
        notifier.check_may_wait()
    assert str(caught.value) == (
        "a callback waits for its own pool here, in a thread that the pool needs to answer: use submit(), which does not "
        "wait, or push from a thread of your own"
    )
    notifier.leave_pool()
    notifier.check_may_wait()
    notifier.close()


def test_event_loops_are_told_again_if_they_have_not_heard_and_lost_ones_reported() -> None:
    lost: list[PushRequest] = []
    notifier = Notifier(lost.append)
    loop = asyncio.new_event_loop()
    requests = [PushRequest(StreamQueue("k", -1, 0), {}, 1, None) for _ in range(3)]
    futures = [request.wait_in_loop(loop) for request in requests]
    futures[1].cancel()
    notifier.hand_in(requests)
    notifier.tell_now()
    posted = list(notifier._posted)
    assert [(told_loop, list(due)) for _, told_loop, due in posted] == [(loop, futures)]
    notifier._post_again()
    assert list(notifier._posted) == posted, "not yet: it may hear of it by itself"
    notifier._post_again(patience_s=0)
    loop.run_until_complete(asyncio.sleep(0))
    assert [future.done() for future in futures] == [True, True, True] and futures[1].cancelled()
    assert not posted[0][2], "it has heard"
    notifier._post_again(patience_s=0)
    assert not notifier._posted
    loop.close()
    notifier.hand_in(requests[:1])
    notifier.tell_now()
    assert lost == requests[:1] and not notifier._posted
    notifier.close()


# --------------------------------------------------------------------------------------------------------- small parts


def test_counters_add_up_and_quantiles_are_of_the_latest() -> None:
    counters = PoolCounters()
    nothing = {"p50": 0.0, "p90": 0.0, "p99": 0.0}
    assert counters.read()["queue_wait_ms"] == counters.read()["call_ms"] == nothing
    counters.called(3, 5, 11, 0.25)
    counters.called(2, 1, 2, 0.75)
    counters.called(2, 1, 2, 0.5)
    counters.waited([0.001 * i for i in range(101)])
    found = counters.read()
    assert (found["calls"], found["steps"], found["padded_steps"]) == (3, 15, 4)
    assert list(found["batch_sizes"].items()) == [(2, 2), (3, 1)]
    assert found["call_total_s"] == 1.5 and found["call_ms"]["p50"] == 500
    assert found["queue_wait_ms"] == pytest.approx({"p50": 50.0, "p90": 90.0, "p99": 99.0})
    assert found["queue_wait_total_s"] == pytest.approx(5.05)
    for name in ("pushes", "failed", "overloaded", "expired", "cancelled", "evicted"):
        assert found[name] == 0
    counters.waited([7.0] * 4096)
    for _ in range(4096):
        counters.called(1, 1, 1, 2.0)
    assert set(counters.read()["queue_wait_ms"].values()) == {7000.0}
    assert set(counters.read()["call_ms"].values()) == {2000.0}


def test_a_request_cuts_its_steps_and_leaves_what_has_none() -> None:
    spec = Spec(lengths=True, learned=True, last=True, speaker=True)
    layout = model(spec).engine.layout
    speaker = np.ones(3, np.float32)
    request = PushRequest(StreamQueue("k", -1, 0), {"x": CHUNK, "speaker": speaker}, 3, np.float32(2))
    assert request.deadline == request.queued_at + 2 and type(request.deadline) is float
    for whole in (3, 4):
        assert request.slice(layout, whole) is request.items
    part = request.slice(layout, 2)
    np.testing.assert_array_equal(part["x"], CHUNK[:2])
    assert part["speaker"] is speaker
    request.done = 1
    np.testing.assert_array_equal(request.slice(layout, 3)["x"], CHUNK[1:])
    request.open_gate()  # nobody waits
    with pytest.raises(AssertionError, match="not over"):
        request.result()
    parts = [[np.full((n, 4), n, "f")] for n in (2, 1)]
    assert join_parts(ENGINE.layout, parts)[0][:, 0].tolist() == [2, 2, 1]
    behind = Signature(
        (TensorSpec("x", "float32", ("batch", 4, "time")),), (TensorSpec("y", "float32", ("batch", 4, "time")),)
    )
    (joined,) = join_parts(Layout.of(behind), [[part.T] for (part,) in parts])
    assert joined.shape == (4, 3) and joined[0].tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("remaining", "paddable", "wanted"),
    [
        ([4, 4], True, ([0, 1], 4)),
        ([4, 4], False, ([0, 1], 4)),
        ([0, 0], False, ([0, 1], 0)),
        ([0, 5, 0], False, ([0, 2], 0)),
        ([3, 5, 4], False, ([0, 1, 2], 3)),
        ([4, 5, 5], True, ([0, 1, 2], 5)),
        ([1, 4, 4, 4], True, ([0, 1, 2, 3], 4)),  # 3 of padding beside 13
        ([4, 4, 4, 0], True, ([0, 1, 2, 3], 4)),  # 4 beside 12 is too much, but there is no less to run
        ([1, 2, 2, 2, 0, 0], True, ([0, 1, 2, 3, 4, 5], 1)),
        ([1, 3, 9], True, ([0, 1, 2], 1)),
    ],
)
def test_slices(remaining: list[int], paddable: bool, wanted: tuple[list[int], int]) -> None:
    assert plan_slice(remaining, paddable=paddable) == wanted


@pytest.mark.parametrize(
    ("steps", "paddable", "wanted"),
    [
        ([3, 4, 3, 2], False, ([0, 2], 3)),
        ([4, 5, 3, 4], True, ([0, 3, 2], 4)),  # longer ones never, the longest first
        ([4, 3, 2], True, ([0, 1], 4)),  # 1 of padding beside 7; 3 beside 9 would be too much
        ([4, 1, 1], True, ([0], 4)),  # 3 beside 5
        ([1], True, ([0], 1)),
        ([0, 3], True, ([0], 0)),
        ([5, 3, 5], True, ([0, 2, 1], 5)),  # 2 beside 13
    ],
)
def test_whole_chunks(steps: list[int], paddable: bool, wanted: tuple[list[int], int]) -> None:
    assert plan_whole(steps, paddable=paddable) == wanted
