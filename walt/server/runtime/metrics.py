"""What the server counts, in Prometheus' form (design D17)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Summary
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

Values = Mapping[str, float]


class _Gauges(Collector):
    """Values read when they are asked for."""

    def __init__(self) -> None:
        self.sources: list[tuple[str, str, str | None, Callable[[], Values]]] = []

    def collect(self) -> Iterable[Metric]:
        for name, text, label, read in self.sources:
            family = GaugeMetricFamily(name, text, labels=[label] if label else [])
            for key, value in read().items():
                family.add_metric([key] if label else [], value)
            yield family


class Metrics:
    """Counters of one server; each object has its own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        self._calls = Summary(
            "walt_rpc_call_seconds", "Calls of the RPC, by command, until answered",
            ["command"], registry=self._registry,
        )
        self._errors = Counter(
            "walt_rpc_call_errors", "Calls of the RPC that failed, by command and error code",
            ["command", "code"], registry=self._registry,
        )
        self._known: dict[bytes, Summary] = {}

    def call(self, command: bytes, seconds: float, code: str) -> None:
        """Count a call of a known command; `code` is empty when it succeeded."""
        known = self._known.get(command)
        if known is None:
            known = self._known[command] = self._calls.labels(command.decode())
        known.observe(seconds)
        if code:
            self._errors.labels(command.decode(), code).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that `read` returns when asked."""
        self._gauges.sources.append((name, text, None, lambda: {"": read()}))

    def gauges(self, name: str, text: str, label: str, read: Callable[[], Values]) -> None:
        """Show values by the words of a label."""
        self._gauges.sources.append((name, text, label, read))

    def page(self) -> bytes:
        """Return all of it, in the text format of Prometheus."""
        return generate_latest(self._registry)
