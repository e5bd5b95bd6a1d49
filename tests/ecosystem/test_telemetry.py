"""OpenTelemetry's own SDK collects what pools count.

CI has no SDK: these run by ``scripts/ecosystem``, which installs it.
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec

pytest.importorskip("opentelemetry.sdk.metrics", reason="the SDK is not installed: scripts/ecosystem installs it")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

SPEC = Spec(lengths=True)
STEPS = 3
X = sequence(SPEC, np.random.default_rng(1), STEPS)


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, Any], float]:
    """Value by name and attributes without the name's prefix."""
    data = reader.get_metrics_data()
    metrics = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    names = [metric.name for metric in metrics]
    assert len(names) == len(set(names)), names
    return {
        (metric.name.removeprefix("rnncore.pool."), *sorted(point.attributes.items())): point.value
        for metric in metrics
        for point in metric.data.data_points
    }


def test_two_pools_share_the_instruments_of_a_meter(caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    caplog.set_level(logging.WARNING)
    with model(SPEC).pool() as one, model(SPEC).pool() as two:
        one.instrument("tagger", meter=meter)
        two.instrument("scorer", meter=meter)
        streams = [one.open() for _ in range(2)]
        for stream in streams:
            stream.push(X)
        found = collected(reader)
        assert found["streams", ("pool", "tagger")] == 2
        assert found["pushes", ("pool", "tagger")] == 2
        assert found["steps", ("pool", "tagger")] == 2 * STEPS
        assert found["calls", ("pool", "tagger"), ("rows_at_most", 1)] == 2
        assert found["call.time", ("pool", "tagger")] > 0
        assert found["pushes", ("pool", "scorer")] == 0
    assert not caplog.records
    del streams, stream, one
    gc.collect()
    assert {key[1] for key in collected(reader)} == {("pool", "scorer")}


def test_the_provider_may_come_later_and_wrong_arguments_are_refused() -> None:
    from opentelemetry import metrics

    with model(SPEC).pool() as pool:
        pool.instrument()
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        pool.open().push(X)
        assert collected(reader)["pushes", ("pool", "default")] == 1
        with pytest.raises(runtime.InputError, match="meter is a str"):
            pool.instrument(meter="rnncore")  # type: ignore[arg-type]
