"""The counters of a pool in the form that ``prometheus_client`` collects."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rnncore.runtime.errors import MissingExtraError, PoolClosedError
from rnncore.runtime.pool.metrics import COUNTERS, GAUGES, TIMES

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from rnncore.runtime.pool.pool import Pool


class PoolCollector:
    """Register it with a ``prometheus_client`` registry; it reads the pool whenever it is scraped."""

    def __init__(self, pool: weakref.ref[Pool], name: str) -> None:
        try:
            from prometheus_client import core
        except ImportError:
            raise MissingExtraError("prometheus_client", "metrics", "exporting counters to Prometheus") from None
        self._core = core
        self._pool = pool
        self._name = name

    def collect(self) -> Iterator[Metric]:
        """Every counter as one metric ``rnncore_pool_…`` with the label ``pool``; nothing once the pool is gone."""
        pool = self._pool()
        if pool is None:
            return
        try:
            stats = pool.stats()
        except PoolClosedError:  # in a forked child
            return
        label = [self._name]
        for key, text in GAUGES.items():
            yield self._metric(self._core.GaugeMetricFamily, key, text, stats[key])
        for key, text in COUNTERS.items():
            yield self._metric(self._core.CounterMetricFamily, key, text, stats[key])
        for key, text in TIMES.items():
            yield self._metric(self._core.CounterMetricFamily, f"{key}_seconds", text, stats[f"{key}_total_s"])
            recent = self._core.GaugeMetricFamily(
                f"rnncore_pool_{key}_recent_seconds", f"{text}, quantiles of the last", labels=["pool", "quantile"]
            )
            for quantile, milliseconds in stats[f"{key}_ms"].items():
                recent.add_metric([self._name, str(float(quantile[1:]) / 100)], milliseconds / 1e3)
            yield recent
        sizes = self._core.HistogramMetricFamily("rnncore_pool_batch_size", "Rows of a call", labels=["pool"])
        sizes.add_metric(label, _buckets(stats["batch_sizes"]), sum(n * c for n, c in stats["batch_sizes"].items()))
        yield sizes

    def _metric(self, family: Any, key: str, text: str, value: float) -> Metric:
        metric: Metric = family(f"rnncore_pool_{key}", text, labels=["pool"])
        metric.add_metric([self._name], value)  # type: ignore[attr-defined]
        return metric


def _buckets(counts: dict[int, int]) -> list[tuple[str, float]]:
    """Calls of at most 1, 2, 4, … rows."""
    buckets: list[tuple[str, float]] = []
    edge = 1
    top = max(counts, default=1)
    while True:
        buckets.append((str(float(edge)), float(sum(count for size, count in counts.items() if size <= edge))))
        if edge >= top:
            break
        edge *= 2
    buckets.append(("+Inf", float(sum(counts.values()))))
    return buckets
