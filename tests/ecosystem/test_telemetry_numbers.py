"""What OpenTelemetry is given to read, number by number, by its API alone; tests/ecosystem has its SDK collect it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rnncore import runtime
from rnncore.runtime.pool import telemetry
from tests.runtime.data import model
from tests.runtime.files import Spec

metrics = pytest.importorskip("opentelemetry.metrics", reason="the extra opentelemetry is not installed")
SPEC = Spec(lengths=True)


class Meter(metrics.Meter):  # type: ignore[misc]
    """One that keeps the instruments that it makes, and reads them when asked."""

    def __init__(self) -> None:
        super().__init__("test")
        self.made: dict[str, tuple[str, Any, str, str]] = {}

    def _keep(self, kind: str, name: str, callbacks: Any, unit: str, description: str) -> None:
        assert name not in self.made
        self.made[name] = (kind, callbacks, unit, description)

    def create_observable_counter(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        self._keep("counter", name, callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        self._keep("gauge", name, callbacks, unit, description)

    def create_counter(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    create_up_down_counter = create_histogram = create_observable_gauge = create_counter

    def read(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        callbacks: Iterable[Callable[[Any], Iterable[Any]]] = self.made[f"rnncore.pool.{name}"][1]
        return [(point.value, point.attributes) for callback in callbacks for point in callback(None)]


def test_opentelemetry_reads_every_number_of_every_pool() -> None:
    meter = Meter()
    with model(SPEC).pool() as one, model(SPEC).pool() as two:
        one.instrument("old name", meter=meter)
        two.instrument(meter=meter)
        one.instrument("one", meter=meter)
        counters = one._scheduler.counters
        for rows, steps, real, seconds in ((1, 2, 2, 0.5), (2, 2, 3, 0.25), (2, 1, 2, 0.25), (5, 1, 5, 1.0)):
            counters.called(rows, steps, real, seconds)
        counters.waited([0.75])
        stream = one.open()
        gauges = {f"rnncore.pool.{key}": ("gauge", "1", says) for key, says in telemetry.GAUGES.items()}
        counts = {f"rnncore.pool.{key}": ("counter", "1", says) for key, says in telemetry.COUNTERS.items()}
        times = {f"rnncore.pool.{key}.time": ("counter", "s", says) for key, says in telemetry.TIMES.items()}
        found = {name: (kind, unit, says) for name, (kind, _, unit, says) in meter.made.items()}
        assert found == gauges | counts | times
        assert meter.read("streams") == [(1, {"pool": "one"}), (0, {"pool": "default"})]
        assert meter.read("padded_steps")[0] == (1, {"pool": "one"})
        assert meter.read("call.time")[0] == (2.0, {"pool": "one"})
        assert meter.read("queue_wait.time")[0] == (0.75, {"pool": "one"})
        assert meter.read("calls") == [
            *[(n, {"pool": "one", "rows_at_most": edge}) for n, edge in ((1, 1), (2, 2), (1, 8))],
            (0, {"pool": "default", "rows_at_most": 1}),
        ]
        one._scheduler.forked = True
        assert [attributes["pool"] for _, attributes in meter.read("steps")] == ["default"], "nothing in a child"
        one._scheduler.forked = False
        with pytest.raises(runtime.InputError, match=r"^name is 3, expected a str$"):
            two.instrument(3, meter=meter)  # type: ignore[arg-type]
        with pytest.raises(runtime.InputError) as caught:
            two.instrument(meter="rnncore")  # type: ignore[arg-type]
        assert str(caught.value) == "meter is a str, expected one of opentelemetry.metrics.get_meter"
        assert stream.steps == 0
    del stream, one, counters
    assert [attributes["pool"] for _, attributes in meter.read("steps")] == ["default"], "the other one is gone"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with model(SPEC).pool() as pool, pytest.raises(runtime.MissingExtraError) as caught:
        pool.instrument()
    assert str(caught.value) == (
        "telling OpenTelemetry of a pool needs the package 'opentelemetry-api': pip install 'rnncore[opentelemetry]'"
    )
