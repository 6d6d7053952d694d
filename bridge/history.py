"""A short history of what `metrics` counts, for people without a Prometheus: sampled now and then, kept in memory.

It reaches back ten minutes in steps of ten seconds, and an hour in steps of a minute: STEPS intervals each, which hold
no more than one number a series and one a bucket of each histogram. What is shown of it lives in `status_page`.
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile
from math import isinf
from operator import add
from time import monotonic
from typing import Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

from bridge.work import end

SAMPLE_SECONDS: Final = 10.0
STEPS: Final = 60
SAMPLES_OF_A_LONG_STEP: Final = 6

Labels = tuple[tuple[str, str], ...]
"""The labels of a series, as name and value, in the order in which its metric declares them."""
Numbers = Mapping[str, Mapping[Labels, float]]
"""A number for each series, under the name that its samples have in Prometheus."""
Buckets = Mapping[str, Mapping[Labels, tuple[int, ...]]]
"""How many observations fell into each bucket of a histogram's series, each counted once, under the family's name."""

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a registry said at `at` (monotonic seconds); `counts` and `buckets` are totals since the start.

    `bounds` has the upper bounds of each histogram's buckets, the last one infinite.
    """

    at: float
    counts: dict[str, dict[Labels, float]] = field(default_factory=dict)
    buckets: dict[str, dict[Labels, tuple[int, ...]]] = field(default_factory=dict)
    gauges: dict[str, dict[Labels, float]] = field(default_factory=dict)
    bounds: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened in the `seconds` before `end` (monotonic); what did not change is not in `counts` and `buckets`.

    `gauges` has the most that each showed.
    """

    end: float
    seconds: float
    counts: Numbers
    buckets: Buckets
    gauges: Numbers


def read(families: Iterable[Metric], at: float, same: dict[Labels, Labels] | None = None) -> Reading:
    """Take down what a registry says at `at`; `same` keeps one copy of each set of labels over many readings."""
    reading, same = Reading(at), {} if same is None else same
    for family in families:
        if family.type == "counter":
            name = f"{family.name}_total"
            reading.counts[name] = {_labels(one, same): one.value for one in family.samples if one.name == name}
        elif family.type == "gauge":
            reading.gauges[family.name] = {_labels(one, same): one.value for one in family.samples}
        elif family.type == "histogram":
            _read_histogram(family, reading, same)
    return reading


def _read_histogram(family: Metric, reading: Reading, same: dict[Labels, Labels]) -> None:
    counts, buckets, totals = {}, {}, [0.0]
    # The buckets of a series come in order, each with what fell into those before it, and then the series' count.
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            totals.append(sample.value)
        elif sample.name.endswith("_count"):
            labels = _labels(sample, same)
            counts[labels] = sample.value
            buckets[labels] = tuple(int(upper - lower) for lower, upper in pairwise(totals))
            totals = [0.0]
    of_first = takewhile(lambda sample: "le" in sample.labels, family.samples)
    reading.bounds[family.name] = tuple(float(sample.labels["le"]) for sample in of_first)
    reading.counts[f"{family.name}_count"], reading.buckets[family.name] = counts, buckets


def _labels(sample: Sample, same: dict[Labels, Labels]) -> Labels:
    labels = tuple(sample.labels.items())
    return same.setdefault(labels, labels)


def increase(before: float | None, after: float) -> float:
    """Say by how much a running total grew between two samples; one that is new, or shrank, began at 0."""
    return after if before is None or after < before else after - before


def increases(before: Sequence[int] | None, after: Sequence[int]) -> tuple[int, ...]:
    """Say how many observations fell into each bucket between two samples; as `increase`, for the whole histogram."""
    if before is None or any(new < old for old, new in zip(before, after, strict=True)):
        return tuple(after)
    return tuple(new - old for old, new in zip(before, after, strict=True))


def added(*counts: Sequence[int]) -> tuple[int, ...]:
    """Add up, bucket by bucket, what fell into the buckets of one histogram at several times; of nothing, nothing."""
    return tuple(map(sum, zip(*counts, strict=True)))


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Estimate the value that `share` (more than 0, at most 1) of the observations do not exceed; None of none.

    `counts` says how many fell into each bucket, and `bounds` where each ends, the last at infinity: what is in there
    counts as the bound below. Within a bucket observations are taken to lie evenly, as Prometheus'
    `histogram_quantile` does.
    """
    totals = list(accumulate(counts))
    if not totals or not totals[-1]:
        return None
    rank = share * totals[-1]
    place = bisect_left(totals, rank)
    lower = bounds[place - 1] if place else 0.0
    if isinf(bounds[place]):
        return lower
    return lower + (bounds[place] - lower) * (rank - totals[place] + counts[place]) / counts[place]


def between(before: Reading, after: Reading) -> Interval:
    """Say what happened between two readings of one registry."""
    return Interval(
        after.at,
        after.at - before.at,
        _changes(before.counts, after.counts, increase),
        _changes(before.buckets, after.buckets, increases),
        after.gauges,
    )


def _changes(
    before: Mapping[str, Mapping[Labels, T]],
    after: Mapping[str, Mapping[Labels, T]],
    grow: Callable[[T | None, T], T],
) -> dict[str, dict[Labels, T]]:
    changes = {}
    for name, series in after.items():
        then = before.get(name, {})
        changed = {labels: grow(then.get(labels), now) for labels, now in series.items() if then.get(labels) != now}
        if changed:
            changes[name] = changed
    return changes


def merged(first: Interval, second: Interval) -> Interval:
    """Make one interval of two that follow each other."""
    return Interval(
        second.end,
        first.seconds + second.seconds,
        _united(first.counts, second.counts, add),
        _united(first.buckets, second.buckets, added),
        _united(first.gauges, second.gauges, max),
    )


def _united(
    first: Mapping[str, Mapping[Labels, T]],
    second: Mapping[str, Mapping[Labels, T]],
    combine: Callable[[T, T], T],
) -> dict[str, dict[Labels, T]]:
    united = {name: dict(series) for name, series in first.items()}
    for name, series in second.items():
        mine = united.setdefault(name, {})
        for labels, value in series.items():
            mine[labels] = combine(mine[labels], value) if labels in mine else value
    return united


class History:
    """What a registry counted of late: `recent` in steps of SAMPLE_SECONDS, `hour` in steps six times as long.

    The last step of `hour` may still be growing.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.registry = registry
        self.clock = clock
        self.recent: deque[Interval] = deque(maxlen=STEPS)
        self.hour: deque[Interval] = deque(maxlen=STEPS)
        self._sleep = sleep
        self._same: dict[Labels, Labels] = {}
        self._samples = 0
        self.latest = self._read()
        self.started = self.latest.at

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Take a sample every SAMPLE_SECONDS until the end of the block."""
        task = asyncio.create_task(self._sample_on())
        try:
            yield
        finally:
            await end(task)

    async def _sample_on(self) -> None:
        while True:
            await self._sleep(SAMPLE_SECONDS)
            try:
                self.sample()
            except Exception:  # a page without its last ten seconds is better than one that stands still
                log.exception("history_not_sampled")

    def sample(self) -> None:
        """Note what happened since the last sample."""
        reading = self._read()
        interval = between(self.latest, reading)
        self.latest = reading
        self.recent.append(interval)
        if self._samples % SAMPLES_OF_A_LONG_STEP:
            self.hour[-1] = merged(self.hour[-1], interval)
        else:
            self.hour.append(interval)
        self._samples += 1

    def _read(self) -> Reading:
        return read(self.registry.collect(), self.clock(), self._same)
