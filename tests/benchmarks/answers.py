"""Whole answers: how many in a second, what each costs, how soon a crowd has theirs, and what a crowd weighs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from bridge.playground.kapa import Pace
from tests.benchmarks import harness, table
from tests.benchmarks.conversations import Conversations
from tests.benchmarks.harness import Plan, Subject
from tests.benchmarks.table import Row
from tests.rig import Rig

BOT = "in-memory bot"
STREAMINGS = ("off", "auto")
THREADS, TURNS = 50, 10
WARMING = (10, 2)
SECOND = Pace(first_text=1.0)
CROWD = 1_000
CROWD_PACE = Pace(first_text=15.0, between_pieces=0.1)
SAMPLE_SECONDS = 0.1

Start = Callable[[Rig], AbstractAsyncContextManager[Subject]]


def subjects() -> dict[str, Start]:
    """Give what is measured: the bot, and the bridge with each way to stream."""
    bridges = {name: partial(harness.bridge, bridge_streaming=name) for name in STREAMINGS}
    return {BOT: lambda rig: harness.floor(rig, "bot"), **bridges}


@asynccontextmanager
async def _started(start: Start) -> AsyncIterator[tuple[Subject, Conversations]]:
    """Run a subject, warmed up, and people who ask it."""
    async with harness.worlds() as rig, start(rig) as subject, Conversations(rig).listening() as people:
        await people.all_at_once(*WARMING)
        yield subject, people


@dataclass(frozen=True, slots=True)
class Work:
    """What it took to answer: answers in a second, and milliseconds of processor time for each, Redis' too."""

    per_second: float
    cpu: float
    redis_cpu: float


async def _work(start: Start, plan: Plan) -> Work:
    async with _started(start) as (subject, people):
        url, count = subject.rig.redis_url, plan.load(THREADS) * TURNS
        redis, cpu = await harness.redis_cpu_seconds(url), subject.cpu_seconds()
        took, _ = await people.all_at_once(plan.load(THREADS), TURNS)
        cpu, redis = subject.cpu_seconds() - cpu, await harness.redis_cpu_seconds(url) - redis
    return Work(count / took, 1000 * cpu / count, 1000 * redis / count)


async def throughput(plan: Plan) -> AsyncIterator[Row]:
    """Count the answers that one process gives in a second, with an instant Kapa, and what each costs."""
    found: dict[str, list[Work]] = {name: [] for name in subjects()}
    for _ in range(plan.rounds):
        for name, start in subjects().items():
            found[name].append(await _work(start, plan))
    bots = found.pop(BOT)
    for name, works in found.items():
        speeds = [work.per_second for work in works]
        what = f"answers a second, {THREADS} threads of {TURNS} turns, streaming {name}"
        of_bots = [work.per_second for work in bots]
        yield table.alone(what, "/s", speeds, table.at_least(250, "/s"))
        yield table.compared(f"{what}, beside a bot", "/s", speeds, BOT, of_bots, table.at_least_times(0.7))
        yield table.compared(
            f"processor time of an answer, streaming {name}",
            "ms",
            [work.cpu for work in works],
            BOT,
            [one.cpu for one in bots],
            table.at_most_times(1.4),
        )
        yield table.alone(
            f"processor time of Redis for an answer, streaming {name}", "ms", [work.redis_cpu for work in works]
        )


async def _last_of(start: Start, plan: Plan, channels: int = THREADS) -> float:
    """Give the seconds until the last of many questions that were asked at once is answered; Kapa takes one."""
    async with _started(start) as (subject, people):
        subject.rig.kapa.pace = SECOND
        took, _ = await people.all_at_once(plan.load(THREADS), channels=channels)
        return took


async def at_once(plan: Plan) -> AsyncIterator[Row]:
    """Time the last of 50 questions that were asked at once, where Kapa takes a second."""
    found: dict[str, list[float]] = {name: [] for name in subjects()}
    for _ in range(plan.rounds):
        for name, start in subjects().items():
            found[name].append(await _last_of(start, plan))
    bots = found.pop(BOT)
    for name, seconds in found.items():
        what = f"{THREADS} threads at once, Kapa takes 1 s, the last answer, streaming {name}"
        yield table.compared(what, "s", seconds, BOT, bots, table.at_most(1.15, "s"))
    # One channel that floods is answered in turns, so that it does not hold up others.
    flooded = [await _last_of(harness.bridge, plan, channels=1) for _ in range(min(2, plan.rounds))]
    yield table.alone(f"{THREADS} threads at once in one channel, Kapa takes 1 s, the last answer", "s", flooded)


@dataclass(frozen=True, slots=True)
class Crowd:
    """How a crowd fared: so many at Kapa at the same time, the most memory in MB, and seconds until all were answered.

    `idle` is the memory before they came.
    """

    at_kapa: int
    memory: float
    idle: float
    seconds: float


async def _crowd(start: Start, plan: Plan) -> Crowd:
    async with _started(start) as (subject, people):
        subject.rig.kapa.pace = CROWD_PACE
        idle = subject.rss_bytes() / 1e6
        started = perf_counter()
        asking = asyncio.create_task(people.all_at_once(plan.load(CROWD)))
        most = idle
        while not asking.done():
            most = max(most, subject.rss_bytes() / 1e6)
            await asyncio.wait([asking], timeout=SAMPLE_SECONDS)
        await asking
        return Crowd(subject.rig.kapa.max_in_flight, most, idle, perf_counter() - started)


async def crowd(plan: Plan) -> AsyncIterator[Row]:
    """Weigh a bridge with a thousand conversations that all wait for a slow Kapa at the same time."""
    crowds = [await _crowd(partial(harness.bridge), plan) for _ in range(min(2, plan.rounds))]
    count = plan.load(CROWD)
    what = f"{count:,} conversations waiting for a slow Kapa"
    everyone = table.at_least(count, "conversations")
    yield table.alone(f"{what}, at Kapa at once", "conversations", [one.at_kapa for one in crowds], everyone)
    yield table.alone(f"{what}, memory at most", "MB", [one.memory for one in crowds], table.at_most(150, "MB"))
    yield table.alone(f"{what}, memory before", "MB", [one.idle for one in crowds])
    alone = CROWD_PACE.first_text
    yield table.alone(f"{what}, all answered (first text after {alone:g} s)", "s", [one.seconds for one in crowds])
