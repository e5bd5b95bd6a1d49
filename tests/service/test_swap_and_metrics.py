"""Hot swap of models, and counters for Prometheus."""

from __future__ import annotations

import builtins
import gc
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rnncore import runtime
from rnncore.runtime.pool.metrics import COUNTERS, GAUGES, TIMES
from rnncore.runtime.pool.prometheus import _buckets
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


def test_every_number_is_exported_by_name_with_what_it_is() -> None:
    registry = CollectorRegistry()
    with model(OLD).pool() as pool:
        registry.register(pool.collector())
        stream = pool.open()
        counters = pool._scheduler.counters
        counters.totals.update(dict.fromkeys(COUNTERS, 0) | {"failed": 3, "evicted": 2})
        counters.waited([0.5, 0.5])
        for rows, steps, real, seconds in ((1, 2, 2, 0.5), (2, 2, 3, 0.25), (2, 1, 2, 0.25), (5, 1, 5, 1.0)):
            counters.called(rows, steps, real, seconds)
        families = {family.name: family for family in registry.collect()}
        text = generate_latest(registry).decode().splitlines()
    assert stream.steps == 0
    values = {sample.name: sample.value for family in families.values() for sample in family.samples}
    stats = {"failed": 3, "evicted": 2, "calls": 4, "steps": 12, "padded_steps": 1}
    for key, says in COUNTERS.items():
        family = families[f"rnncore_pool_{key}"]
        assert (family.type, family.documentation) == ("counter", says)
        assert values[f"rnncore_pool_{key}_total"] == stats.get(key, 0)
    for key, says in GAUGES.items():
        family = families[f"rnncore_pool_{key}"]
        assert (family.type, family.documentation) == ("gauge", says)
        assert values[f"rnncore_pool_{key}"] == {"streams": 1, "resident": 1}.get(key, 0)
    for key, says, total in (("queue_wait", TIMES["queue_wait"], 1.0), ("call", TIMES["call"], 2.0)):
        assert families[f"rnncore_pool_{key}_seconds"].documentation == says
        assert values[f"rnncore_pool_{key}_seconds_total"] == total
        recent = families[f"rnncore_pool_{key}_recent_seconds"]
        assert recent.documentation == f"{says}, quantiles of the last"
        assert [sample.labels for sample in recent.samples] == [
            {"pool": "default", "quantile": quantile} for quantile in ("0.5", "0.9", "0.99")
        ]
    assert 'rnncore_pool_queue_wait_recent_seconds{pool="default",quantile="0.5"} 0.5' in text
    sizes = families["rnncore_pool_batch_size"]
    assert (sizes.type, sizes.documentation) == ("histogram", "Rows of a call")
    assert [
        (sample.name.removeprefix("rnncore_pool_batch_size_"), sample.labels.get("le"), sample.value)
        for sample in sizes.samples
    ] == [
        ("bucket", "1.0", 1.0),
        ("bucket", "2.0", 3.0),
        ("bucket", "4.0", 3.0),
        ("bucket", "8.0", 4.0),
        ("bucket", "+Inf", 4.0),
        ("count", None, 4.0),
        ("sum", None, 10.0),
    ]
    assert _buckets({}) == [("1.0", 0.0), ("+Inf", 0.0)] and _buckets({4: 1})[-2:] == [("4.0", 1.0), ("+Inf", 1.0)]


def test_a_pool_in_a_forked_child_has_nothing_to_tell() -> None:
    with model(OLD).pool() as pool:
        collector = pool.collector()
        pool._scheduler.forked = True
        assert list(collector.collect()) == []
        pool._scheduler.forked = False


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with (
        model(OLD).pool() as pool,
        pytest.raises(runtime.MissingExtraError) as caught,
    ):
        pool.collector()
    assert str(caught.value) == (
        "exporting counters to Prometheus needs the package 'prometheus_client': pip install 'rnncore[metrics]'"
    )
