"""What the bridge counts, for Prometheus. Labels are constant words only, so their number is bounded.

Where the numbers are shown lives in `admin`.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)


class Metrics:
    """The bridge's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = Counter(
            "bridge_events", "Events from Slack, by what became of them", ["result"], registry=self.registry
        )
        self._work = Counter(
            "bridge_work",
            "Questions and votes dealt with, by how it ended",
            ["kind", "result"],
            registry=self.registry,
        )
        self._kapa = Histogram(
            "bridge_kapa_call_seconds",
            "Calls to Kapa",
            ["endpoint", "outcome"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._slack = Histogram(
            "bridge_slack_call_seconds",
            "Calls to Slack's Web API",
            ["method", "outcome"],
            buckets=SECONDS,
            registry=self.registry,
        )

        self._redis = Gauge(
            "bridge_redis_takes_writes", "1: Redis takes writes; 0: it does not", registry=self.registry
        )
        self._dead = Gauge("bridge_dead_letters", "Dead letters that there are now", registry=self.registry)
        self._waiting = Gauge(
            "bridge_inbox_waiting", "Lines whose turn it is, or that are dealt with", ["kind"], registry=self.registry
        )
        self._later = Gauge(
            "bridge_inbox_later", "Lines that wait before they are tried again", ["kind"], registry=self.registry
        )

    def event(self, result: str) -> None:
        """Count an event that came in."""
        self._events.labels(result).inc()

    def work(self, kind: str, result: str) -> None:
        """Count an item that was dealt with."""
        self._work.labels(kind, result).inc()

    def kapa_call(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count a finished call to Kapa."""
        self._kapa.labels(endpoint, outcome).observe(seconds)

    def slack_call(self, method: str, outcome: str, seconds: float) -> None:
        """Count a finished call to Slack."""
        self._slack.labels(method, outcome).observe(seconds)

    def redis(self, *, takes_writes: bool) -> None:
        """Note whether Redis takes writes now."""
        self._redis.set(int(takes_writes))

    def backlog(self, waiting: Mapping[str, int], later: Mapping[str, int], dead_letters: int) -> None:
        """Note how much there is in Redis now: lines by kind, and dead letters."""
        for gauge, numbers in ((self._waiting, waiting), (self._later, later)):
            for kind, number in numbers.items():
                gauge.labels(kind).set(number)
        self._dead.set(dead_letters)
