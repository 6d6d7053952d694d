"""What a million remembered threads cost: Redis memory for each, and the time to look one up.

A thread that nobody writes in is two keys: `thread:` with Kapa's thread id, and `answer:` with the id of its one
answer. Their names, values, lifetimes and their share of Redis' tables are counted. What is known of events for a day,
the journal and dead letters are not: they are bounded whatever the number of threads.
"""

import random
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from time import perf_counter

from redis.asyncio import Redis

from bridge import redis_client
from bridge.store import Store
from tests.benchmarks import harness, table
from tests.benchmarks.harness import Plan
from tests.benchmarks.table import Row, quantile

FEW, MANY = 1_000, 1_000_000
AT_ONCE = 1_000
LOOKUPS = 3_000
TTL_SECONDS = 90 * 86_400


async def fill(redis: Redis, store: Store, numbers: Iterable[int]) -> None:
    """Remember threads with one answer each, as a finished question leaves them."""
    async with redis.pipeline(transaction=False) as pipe:
        for number in numbers:
            thread, answer = _line(number), f"{_line(number)}1"
            for write in (store.thread(thread, str(uuid.uuid4())), store.answer(answer, str(uuid.uuid4()))):
                pipe.set(write.key, write.value, ex=write.seconds)
        await pipe.execute()


def _line(number: int) -> str:
    return f"T0123ABCDEF:C0123ABCDEF:{1_700_000_000 + number}.{number % 1_000_000:06}"


async def _lookup_us(store: Store, threads: int, count: int) -> float:
    """Give the median time to look one of so many threads up, in millionths of a second."""
    chosen, taken = random.Random(threads), []
    for _ in range(count):
        line = _line(chosen.randrange(threads))
        started = perf_counter()
        found = await store.kapa_thread(line)
        taken.append(1e6 * (perf_counter() - started))
        assert found is not None
    return quantile(taken, 0.5)


@asynccontextmanager
async def _holding(count: int) -> AsyncIterator[tuple[Store, float]]:
    """Give a store with so many threads in a Redis of its own, and the bytes of each."""
    async with harness.worlds() as rig:
        redis = redis_client.connect(rig.redis_url)
        # A file that is written on the way would take memory of its own.
        await redis.config_set("appendonly", "no")
        store = Store(redis, ttl_seconds=TTL_SECONDS)
        empty = (await redis.info("memory"))["used_memory"]
        for first in range(0, count, AT_ONCE):
            await fill(redis, store, range(first, min(count, first + AT_ONCE)))
        full = (await redis.info("memory"))["used_memory"]
        yield store, (full - empty) / count
        await redis.aclose()


async def memory(plan: Plan) -> AsyncIterator[Row]:
    """Fill two Redis, weigh the large one, and look things up in both."""
    few, many, lookups = plan.load(FEW), plan.load(MANY), plan.load(LOOKUPS)
    async with _holding(few) as (small, _), _holding(many) as (large, bytes_each):
        quick, slow = [], []
        for _ in range(plan.rounds):
            quick.append(await _lookup_us(small, few, lookups))
            slow.append(await _lookup_us(large, many, lookups))
    yield table.alone(f"{many:,} threads remembered, Redis memory of each", "bytes", [bytes_each], _FEW_BYTES)
    yield table.compared(f"{many:,} threads remembered, a look-up, p50", "µs", slow, f"with {few:,}", quick, _AS_FAST)


_FEW_BYTES = table.Aim("< 400 bytes", lambda row: row.value / 400)
_AS_FAST = table.Aim("as fast (≤ 1.1 x)", lambda row: (row.ratio or 0) / 1.1)
