"""What the bridge counts, for Prometheus. Labels are constant words only, so their number is bounded.

Where the numbers are shown lives in `admin`.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bridge import __version__
from bridge.inbox import Backlog

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
# The bridge's own time: thousandths of a second, unless something is wrong.
OWN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The bridge's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._build = self._gauge("build_info", "Always 1; which version this is, and what it does", "version", "role")
        self._events = self._counter("events", "Events from Slack, by what became of them", "result")
        self._intake = self._histogram(
            "intake_seconds", "From the arrival of what is put into the inbox until it is there", buckets=OWN_SECONDS
        )
        self._work = self._counter("work", "Questions and votes dealt with, by how it ended", "kind", "result")
        self._running = self._gauge("work_running", "Questions and votes that this process is at work on", "kind")
        self._first_text = self._histogram(
            "first_text_seconds", "From the question in Slack to the first text of its answer there"
        )
        self._answer = self._histogram(
            "answer_seconds", "From the question in Slack to its finished answer there", "result"
        )
        self._added = self._histogram(
            "added_seconds",
            "From the taking of a question to its first text, less the waiting for Kapa and for its turn",
            buckets=OWN_SECONDS,
        )
        self._budget = self._histogram("budget_wait_seconds", "Waits for a turn, where there was one", "budget")
        self._kapa = self._histogram("kapa_call_seconds", "Calls to Kapa", "endpoint", "outcome")
        self._slack = self._histogram("slack_call_seconds", "Calls to Slack's Web API", "method", "outcome")
        self._redis = self._gauge("redis_takes_writes", "1: Redis takes writes; 0: it does not")
        self._dead = self._gauge("dead_letters", "Dead letters that there are now")
        self._waiting = self._gauge("inbox_waiting", "Lines whose turn it is, or that are dealt with", "kind")
        self._later = self._gauge("inbox_later", "Lines that wait before they are tried again", "kind")
        self._unfinished = self._gauge("inbox_unfinished", "Questions and votes that are not finished", "kind")
        self._oldest = self._gauge("inbox_oldest_seconds", "Age of the oldest that is not finished", "kind")
        self._untaken = self._gauge("inbox_untaken_seconds", "How long the first has waited for a worker", "kind")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"bridge_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"bridge_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        return Histogram(f"bridge_{name}", what, labels, buckets=buckets, registry=self.registry)

    def build(self, role: str) -> None:
        """Note what this process is."""
        self._build.labels(__version__, role).set(1)

    def event(self, result: str) -> None:
        """Count an event that came in."""
        self._events.labels(result).inc()

    def intake(self, seconds: float) -> None:
        """Count the time that it took to take an event in."""
        self._intake.observe(seconds)

    def work(self, kind: str, result: str) -> None:
        """Count an item that was dealt with."""
        self._work.labels(kind, result).inc()

    def running(self, kind: str, count: Callable[[], int]) -> None:
        """Show, whenever somebody looks, how many items of a kind are being dealt with."""
        self._running.labels(kind).set_function(count)

    def first_text(self, seconds: float) -> None:
        """Count the first text of an answer, so long after the question."""
        self._first_text.observe(seconds)

    def answer(self, result: str, seconds: float) -> None:
        """Count a finished answer, so long after the question."""
        self._answer.labels(result).observe(seconds)

    def added(self, seconds: float) -> None:
        """Count what the bridge itself added to an answer."""
        self._added.observe(seconds)

    def budget_wait(self, budget: str, seconds: float) -> None:
        """Count a wait for a turn."""
        self._budget.labels(budget).observe(seconds)

    def kapa_call(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count a finished call to Kapa."""
        self._kapa.labels(endpoint, outcome).observe(seconds)

    def slack_call(self, method: str, outcome: str, seconds: float) -> None:
        """Count a finished call to Slack."""
        self._slack.labels(method, outcome).observe(seconds)

    def redis(self, *, takes_writes: bool) -> None:
        """Note whether Redis takes writes now."""
        self._redis.set(int(takes_writes))

    def dead_letters(self, count: int) -> None:
        """Note how many dead letters there are now."""
        self._dead.set(count)

    def backlog(self, kind: str, backlog: Backlog) -> None:
        """Note how much of a kind there is to do now."""
        for gauge, number in (
            (self._waiting, backlog.waiting),
            (self._later, backlog.later),
            (self._unfinished, backlog.unfinished),
            (self._oldest, backlog.oldest_seconds),
            (self._untaken, backlog.untaken_seconds),
        ):
            gauge.labels(kind).set(number)
