"""The history of the numbers: its maths by tables and by chance, and that it stays small."""

import asyncio
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bridge.history import (
    SAMPLE_SECONDS,
    SAMPLES_OF_A_LONG_STEP,
    STEPS,
    History,
    Interval,
    between,
    increase,
    increases,
    merged,
    quantile,
    read,
)
from bridge.metrics import OWN_SECONDS, SECONDS, Metrics
from bridge.report import percentile
from tests.waiting import Clock, eventually

ANSWERED = (("kind", "question"), ("result", "answered"))
BOUNDS = (1.0, 2.0, 4.0, inf)
SHARES = st.floats(min_value=0.001, max_value=1)
SPREADS = st.lists(st.integers(min_value=0, max_value=50), min_size=4, max_size=4)


def in_buckets(values: list[float], bounds: tuple[float, ...]) -> list[int]:
    edges = [-inf, *bounds]
    return [sum(lower < value <= upper for value in values) for lower, upper in zip(edges, bounds, strict=False)]


# Quantiles


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.5, [0, 0, 0, 0], None),
        (0.5, [], None),
        # One observation is taken to lie where its share of the bucket ends.
        (0.5, [1, 0, 0, 0], 0.5),
        (1.0, [1, 0, 0, 0], 1.0),
        (0.5, [0, 1, 0, 0], 1.5),
        (0.5, [1, 0, 1, 0], 1.0),
        (0.75, [1, 0, 1, 0], 3.0),
        (0.5, [0, 10, 0, 0], 1.5),
        (0.95, [10, 10, 0, 0], 1.9),
        (0.95, [90, 0, 10, 0], 3.0),
        # What is beyond the last bound is known to be no smaller than that.
        (0.5, [0, 0, 0, 3], 4.0),
        (0.95, [1, 0, 0, 1], 4.0),
    ],
)
def test_a_quantile_of_buckets(share: float, counts: list[int], expected: float | None) -> None:
    assert quantile(share, BOUNDS, counts) == (None if expected is None else pytest.approx(expected))


@given(
    st.lists(st.floats(min_value=0, max_value=300), min_size=1, max_size=60),
    SHARES,
    st.sampled_from([(*SECONDS, inf), (*OWN_SECONDS, inf), BOUNDS]),
)
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_estimates(
    values: list[float], share: float, bounds: tuple[float, ...]
) -> None:
    estimate, exact = quantile(share, bounds, in_buckets(values, bounds)), percentile(values, share)
    assert estimate is not None
    assert exact is not None
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0)
    assert lower <= estimate <= min(upper, bounds[-2])


@given(SPREADS.filter(any), SHARES, SHARES)
def test_a_larger_share_is_no_smaller_quantile(counts: list[int], one: float, other: float) -> None:
    smaller, larger = (quantile(share, BOUNDS, counts) for share in sorted((one, other)))
    assert smaller is not None
    assert larger is not None
    assert smaller <= larger + 1e-9


# Increases


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(None, 5, 5), (0, 0, 0), (3, 5, 2), (5, 5, 0), (5, 3, 3), (5, 0, 0)]
)
def test_an_increase_of_a_total(before: float | None, after: float, expected: float) -> None:
    assert increase(before, after) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, (1, 2, 3), (1, 2, 3)),
        ((1, 2, 3), (1, 4, 3), (0, 2, 0)),
        ((1, 2, 3), (1, 2, 3), (0, 0, 0)),
        # It began again: all that is there is new, also in the buckets that did not shrink.
        ((1, 2, 3), (4, 0, 3), (4, 0, 3)),
    ],
)
def test_an_increase_of_buckets(
    before: tuple[int, ...] | None, after: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert increases(before, after) == expected


@given(st.lists(st.tuples(st.booleans(), st.integers(min_value=0, max_value=20))))
def test_increases_add_up_to_what_was_counted_and_to_no_more_where_a_counter_began_again(
    steps: list[tuple[bool, int]],
) -> None:
    total, found = 0, 0.0
    for begins_again, counted in steps:
        before, total = total, (0 if begins_again else total) + counted
        grown = increase(before, total)
        assert grown >= 0
        found += grown
    counted = sum(step for _, step in steps)
    assert found <= counted
    if not any(begins_again for begins_again, _ in steps):
        assert found == counted


# Readings and intervals


class Numbers:
    """One metric of each kind, and the history of them on a clock that a test moves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.work = Counter("bridge_work", "-", ("kind", "result"), registry=self.registry)
        self.wait = Histogram("bridge_wait_seconds", "-", ("budget",), buckets=BOUNDS[:-1], registry=self.registry)
        self.waiting = Gauge("bridge_waiting", "-", registry=self.registry)
        self.clock = Clock(1000.0)
        self.history = History(self.registry, clock=self.clock, sleep=_never)

    def sample(self, seconds: float = SAMPLE_SECONDS) -> None:
        self.clock.now += seconds
        self.history.sample()


async def _never(_: float) -> None:
    await asyncio.Event().wait()


def test_a_reading_has_totals_buckets_and_gauges() -> None:
    numbers = Numbers()
    numbers.work.labels("question", "answered").inc(3)
    for seconds in (0.5, 1.5, 1.6, 9):
        numbers.wait.labels("kapa").observe(seconds)
    numbers.waiting.set(7)
    reading = read(numbers.registry.collect(), 5.0)
    assert reading.at == 5
    assert reading.counts == {
        "bridge_work_total": {ANSWERED: 3},
        "bridge_wait_seconds_count": {(("budget", "kapa"),): 4},
    }
    assert reading.buckets == {"bridge_wait_seconds": {(("budget", "kapa"),): (1, 2, 0, 1)}}
    assert reading.bounds == {"bridge_wait_seconds": BOUNDS}
    assert reading.gauges == {"bridge_waiting": {(): 7}}


def test_an_interval_has_only_what_changed() -> None:
    numbers = Numbers()
    numbers.work.labels("question", "answered").inc()
    numbers.wait.labels("kapa").observe(3)
    numbers.sample()
    numbers.work.labels("question", "answered").inc(2)
    numbers.work.labels("vote", "upvote").inc()
    numbers.sample()
    numbers.sample(25)
    first, second, third = numbers.history.recent
    assert second.counts == {"bridge_work_total": {ANSWERED: 2, (("kind", "vote"), ("result", "upvote")): 1}}
    assert first.buckets == {"bridge_wait_seconds": {(("budget", "kapa"),): (0, 0, 1, 0)}}
    assert (second.buckets, third.counts, third.buckets) == ({}, {}, {})
    assert [(one.end, one.seconds) for one in numbers.history.recent] == [(1010, 10), (1020, 10), (1045, 25)]


def test_a_long_step_has_six_samples_and_the_most_of_each_gauge() -> None:
    numbers = Numbers()
    for level in (1, 5, 2, 0, 0, 3, 4):
        numbers.waiting.set(level)
        numbers.work.labels("question", "answered").inc()
        numbers.wait.labels("kapa").observe(level)
        numbers.sample()
    whole, growing = numbers.history.hour
    assert (whole.end, whole.seconds, growing.end, growing.seconds) == (1060, 60, 1070, 10)
    assert (whole.gauges, growing.gauges) == ({"bridge_waiting": {(): 5}}, {"bridge_waiting": {(): 4}})
    assert whole.counts["bridge_work_total"] == {ANSWERED: 6}
    assert whole.buckets == {"bridge_wait_seconds": {(("budget", "kapa"),): (3, 1, 1, 1)}}


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["kapa", "edits"]), st.floats(min_value=0, max_value=9), st.integers(0, 3)),
            max_size=4,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_steps_of_an_hour_together_are_what_happened_in_it(samples: list[list[tuple[str, float, int]]]) -> None:
    numbers = Numbers()
    before = numbers.history.latest
    for sample in samples:
        for budget, seconds, count in sample:
            numbers.wait.labels(budget).observe(seconds)
            numbers.work.labels("question", budget).inc(count)
        numbers.sample()
    whole = between(before, numbers.history.latest)
    for steps in (numbers.history.recent, numbers.history.hour):
        together = _all_of(list(steps))
        assert _without_zeros(together.counts) == _without_zeros(whole.counts)
        assert together.buckets == whole.buckets
        assert (together.end, together.seconds) == (whole.end, whole.seconds)


def _all_of(steps: list[Interval]) -> Interval:
    first, *others = steps
    for other in others:
        first = merged(first, other)
    return first


def _without_zeros(counts: Any) -> dict[str, dict[Any, float]]:
    return {name: kept for name, series in counts.items() if (kept := {key: n for key, n in series.items() if n})}


# Bounds


def test_the_history_reaches_back_an_hour_and_no_further() -> None:
    numbers = Numbers()
    for number in range(2 * STEPS * SAMPLES_OF_A_LONG_STEP):
        numbers.work.labels("question", "answered").inc()
        numbers.wait.labels(str(number % 2)).observe(1)
        numbers.sample()
    history = numbers.history
    assert (len(history.recent), len(history.hour)) == (STEPS, STEPS)
    assert sum(step.seconds for step in history.recent) == 600
    assert sum(step.seconds for step in history.hour) == 3600
    assert sum(step.counts["bridge_work_total"][ANSWERED] for step in history.hour) == 360
    # There are as many numbers as series, and one copy of their labels.
    keys = [key for step in (*history.recent, *history.hour) for series in step.counts.values() for key in series]
    assert len({id(key) for key in keys}) == len(set(keys)) == 3


# Sampling


class Naps:
    """A sleep that takes no time, moves the clock, and lasts for ever after so many."""

    def __init__(self, clock: Clock, most: int) -> None:
        self.clock, self.most = clock, most
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        if len(self.asked) == self.most:
            await asyncio.Event().wait()
        self.asked.append(seconds)
        self.clock.now += seconds


async def test_samples_are_taken_every_ten_seconds_until_the_end() -> None:
    clock = Clock(1000.0)
    naps = Naps(clock, 8)
    history = History(Metrics().registry, clock=clock, sleep=naps)
    async with history.sampling():
        await eventually(lambda: len(history.recent) == 8)
    assert naps.asked == [10.0] * 8
    assert (history.started, history.latest.at) == (1000, 1080)
    assert len(asyncio.all_tasks()) == 1
