"""Hot swap of models, and counters for Prometheus."""

from __future__ import annotations

import builtins
import gc
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec, causal_file, not_causal_file
from tests.service.alone import alone, assert_same

OLD, NEW = Spec(lengths=True), Spec(lengths=True, learned=True)
A, B = (sequence(OLD, np.random.default_rng(seed), 3) for seed in (1, 2))


def test_old_streams_finish_on_the_old_model() -> None:
    slot = runtime.ModelSlot(runtime.load(causal_file(OLD)))
    stream = slot.model.stream()
    with slot.model.pool() as pool:
        pooled = pool.open()
        first = [stream.push(A), pooled.push(A)]
        old = slot.swap(runtime.load(causal_file(NEW)))
        assert old.fingerprint == model(OLD).fingerprint != slot.model.fingerprint
        del old
        gc.collect()
        for answers in zip(first, [stream.push(B), pooled.push(B)], strict=True):
            for answer, wanted in zip(answers, alone(OLD, [(A,), (B,)]), strict=True):
                assert_same(answer, wanted)
    assert_same(slot.model.stream().push(A), alone(NEW, [(A,)])[0])
    with pytest.raises(runtime.SnapshotError, match="another model"):
        slot.model.restore(stream.save())


@pytest.mark.parametrize(
    "other", [causal_file(Spec(lengths=True, ids=True)), causal_file(Spec(last=True)), not_causal_file()]
)
def test_a_model_that_clients_could_not_use_is_not_swapped_in(other: bytes) -> None:
    slot = runtime.ModelSlot(model(OLD))
    with pytest.raises(runtime.InputError, match="cannot be swapped"):
        slot.swap(runtime.load(other))
    assert slot.model is model(OLD)


def test_prometheus() -> None:
    registry = CollectorRegistry()
    with model(OLD).pool() as pool:
        registry.register(pool.collector("tagger"))
        streams = [pool.open() for _ in range(2)]
        for stream in streams:
            stream.push(A)
        text = generate_latest(registry).decode()
        for line in (
            'rnncore_pool_streams{pool="tagger"} 2.0',
            'rnncore_pool_pushes_total{pool="tagger"} 2.0',
            'rnncore_pool_steps_total{pool="tagger"} 6.0',
            'rnncore_pool_batch_size_bucket{le="1.0",pool="tagger"} 2.0',
            'rnncore_pool_batch_size_count{pool="tagger"} 2.0',
        ):
            assert line in text.splitlines(), text
        assert 'rnncore_pool_call_recent_seconds{pool="tagger",quantile="0.99"}' in text
    del streams, stream, pool
    gc.collect()
    assert generate_latest(registry) == b""


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with (
        model(OLD).pool() as pool,
        pytest.raises(runtime.MissingExtraError, match=r"prometheus_client.*rnncore\[metrics\]"),
    ):
        pool.collector()
