"""The counters of pools as instruments of OpenTelemetry.

Instruments belong to a meter and not to a pool: a second one of the same name would be a conflict, so that all pools of a
meter share them and tell themselves apart by the attribute ``pool``.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from rnncore.runtime.errors import InputError, MissingExtraError, PoolClosedError
from rnncore.runtime.pool.metrics import COUNTERS, GAUGES, TIMES

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    from rnncore.runtime.pool.pool import Pool

_lock = threading.Lock()
_metered: weakref.WeakKeyDictionary[Any, _Instruments] = weakref.WeakKeyDictionary()


def observe(pool: weakref.ref[Pool], name: str, meter: Meter | None) -> None:
    """Add a pool to those that a meter reads; see :meth:`rnncore.runtime.Pool.instrument`."""
    try:
        from opentelemetry import metrics
    except ImportError:
        raise MissingExtraError("opentelemetry-api", "opentelemetry", "telling OpenTelemetry of a pool") from None
    if not isinstance(name, str):
        raise InputError(f"name is {name!r}, expected a str")
    if meter is None:
        meter = _default_meter()
    if not isinstance(meter, metrics.Meter):
        raise InputError(f"meter is a {type(meter).__name__}, expected one of opentelemetry.metrics.get_meter")
    with _lock:
        instruments = _metered.get(meter)
        if instruments is None:
            instruments = _metered[meter] = _Instruments(meter, metrics.Observation)
    instruments.add(pool, name)


@cache
def _default_meter() -> Meter:
    from opentelemetry import metrics

    return metrics.get_meter("rnncore")


class _Instruments:
    """Those of one meter, and the pools that they read."""

    def __init__(self, meter: Meter, observation: type[Observation]) -> None:
        self._observation = observation
        self._pools: dict[weakref.ref[Pool], str] = {}
        for key, text in GAUGES.items():
            meter.create_observable_up_down_counter(f"rnncore.pool.{key}", [partial(self._values, key)], "1", text)
        for key, text in COUNTERS.items():
            values = self._calls if key == "calls" else partial(self._values, key)
            meter.create_observable_counter(f"rnncore.pool.{key}", [values], "1", text)
        for key, text in TIMES.items():
            values = partial(self._values, f"{key}_total_s")
            meter.create_observable_counter(f"rnncore.pool.{key}.time", [values], "s", text)

    def add(self, pool: weakref.ref[Pool], name: str) -> None:
        """From now on a pool is read as well; the last name counts."""
        with _lock:
            self._pools = {one: label for one, label in self._pools.items() if one() is not None} | {pool: name}

    def _values(self, key: str, _: CallbackOptions) -> Iterator[Observation]:
        for name, stats in self._stats():
            yield self._observation(stats[key], {"pool": name})

    def _calls(self, _: CallbackOptions) -> Iterator[Observation]:
        """Calls by their rows, rounded up to 1, 2, 4, …"""
        for name, stats in self._stats():
            calls: Counter[int] = Counter({1: 0})
            for rows, count in stats["batch_sizes"].items():
                calls[1 << (rows - 1).bit_length()] += count
            for edge, count in sorted(calls.items()):
                yield self._observation(count, {"pool": name, "rows_at_most": edge})

    def _stats(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for reference, name in self._pools.items():
            pool = reference()
            if pool is None:
                continue
            try:
                yield name, pool.stats()
            except PoolClosedError:  # in a forked child
                continue
