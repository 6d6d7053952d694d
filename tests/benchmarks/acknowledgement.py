"""How soon an event is acknowledged, and how many can be: the bridge, which writes each to Redis before, and a no-op.

The bridge only takes events in (`--role ingress`), so nothing else is measured. Each event is a question of its own.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.benchmarks import harness, load, table
from tests.benchmarks.harness import Plan, Subject
from tests.benchmarks.table import Row, quantile
from tests.rig import Rig

NOOP = "no-op Bolt app"
RATES = (100, 500)
SECONDS = 4
WARMING = 200
AT_ONCE = 64
EVENTS = 6_000
QUANTILES = {"p50": (0.50, 1.5), "p99": (0.99, 2.0)}

Start = Callable[..., AbstractAsyncContextManager[Subject]]


@asynccontextmanager
async def _ingress(rig: Rig, *, http: bool) -> AsyncIterator[Subject]:
    async with harness.bridge(rig, "--role", "ingress", http=http) as subject:
        yield subject


@asynccontextmanager
async def _noop(rig: Rig, *, http: bool) -> AsyncIterator[Subject]:
    async with harness.floor(rig, "noop", http=http) as subject:
        yield subject


@asynccontextmanager
async def _started(start: Start, count: int, *, http: bool) -> AsyncIterator[tuple[Subject, load.Door]]:
    """Run a subject, warmed up, that takes so many more events."""
    async with harness.worlds() as rig, start(rig, http=http) as subject:
        door = load.door_of(subject, WARMING + count)
        await load.at_rate(door.send, range(count, count + WARMING), 200)
        try:
            yield subject, door
        finally:
            door.close()


async def _latencies(start: Start, plan: Plan, *, http: bool) -> dict[int, list[float]]:
    """Give the milliseconds of every acknowledgement, by rate."""
    counts = {rate: rate * SECONDS if not plan.is_quick else rate for rate in RATES}
    found, first = {}, 0
    async with _started(start, sum(counts.values()), http=http) as (_, door):
        for rate, count in counts.items():
            taken = await load.at_rate(door.send, range(first, first + count), rate)
            found[rate] = [1000 * seconds for seconds in taken]
            first += count
    return found


async def acknowledgement(plan: Plan) -> AsyncIterator[Row]:
    """Time acknowledgements at steady rates, both ways in."""
    for way, http in (("HTTP", True), ("Socket Mode", False)):
        bridges, floors = [], []
        for _ in range(plan.rounds):
            floors.append(await _latencies(_noop, plan, http=http))
            bridges.append(await _latencies(_ingress, plan, http=http))
        for rate in RATES:
            for name, (share, factor) in QUANTILES.items():
                yield table.compared(
                    f"acknowledgement, {way}, {rate} events/s, {name}",
                    "ms",
                    [quantile(found[rate], share) for found in bridges],
                    NOOP,
                    [quantile(found[rate], share) for found in floors],
                    table.at_most_times(factor),
                )


async def _per_second(start: Start, plan: Plan) -> float:
    count = plan.load(EVENTS)
    async with _started(start, count, http=True) as (subject, door), subject.pinned():
        return await load.at_once(door.send, range(count), AT_ONCE)


async def intake(plan: Plan) -> AsyncIterator[Row]:
    """Count the events that one core takes in, with so many under way that it has no pause."""
    bridges, floors = [], []
    for _ in range(plan.rounds):
        floors.append(await _per_second(_noop, plan))
        bridges.append(await _per_second(_ingress, plan))
    yield table.compared(
        f"events taken in by one core, HTTP, {AT_ONCE} at once", "/s", bridges, NOOP, floors, table.at_least_times(0.7)
    )
