"""The rate limit on a real Redis, by Redis' own clock: what Redis was told to do is read from its MONITOR."""

import asyncio
from collections.abc import AsyncIterator, Sized
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import redis_client
from bridge.inbox import TAG
from bridge.rate_limit import RateLimit, Wait
from tests.waiting import eventually

PATIENCE = 20.0
LONG = 600.0  # a window that no test sees the end of
GRANTED, WAITING, PAUSED = (f"{TAG}:rate:kapa:{part}" for part in ("granted", "waiting", "paused"))


async def forever(_: float) -> None:
    await asyncio.Event().wait()


async def soon(_: float) -> None:
    await asyncio.sleep(0.005)


def limit_of(limit: int, redis: Redis, window_seconds: float = LONG, **options: Any) -> RateLimit:
    return RateLimit(redis, "kapa", limit=limit, window_seconds=window_seconds, **options)


async def line_up(limit: RateLimit, *names: str) -> list["asyncio.Task[None]"]:
    """Let waiters ask one after the other; returns once all of them stand in line."""
    tasks = []
    for name in names:
        waits: list[Wait] = []
        tasks.append(asyncio.create_task(limit.acquire(name, waits.append)))
        await eventually(partial(_has, waits, 1))
    return tasks


async def end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _has(things: Sized, count: int) -> bool:
    return len(things) >= count


class Grants:
    """All that was granted, in order: by whom, and when in milliseconds on Redis' clock."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int]] = []

    def who(self) -> list[str]:
        return [name for name, _ in self.all]

    async def listen(self, redis: Redis, is_listening: asyncio.Event) -> None:
        async with redis.monitor() as monitor:
            is_listening.set()
            async for heard in monitor.listen():
                words = heard["command"].split()
                if words[:2] == ["ZADD", GRANTED]:
                    self.all.append((words[3].partition("|")[0], int(words[2])))

    async def reach(self, count: int) -> None:
        await eventually(partial(_has, self.all, count))


@pytest.fixture
async def grants(redis_url: str) -> AsyncIterator[Grants]:
    """Listen to what is granted."""
    async with redis_client.connect(redis_url) as client:
        grants, is_listening = Grants(), asyncio.Event()
        task = asyncio.create_task(grants.listen(client, is_listening))
        await is_listening.wait()
        yield grants
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("limit", "window_seconds", "asked"), [(1, 0.1, 6), (3, 0.2, 14), (10, 0.3, 35)])
async def test_never_more_than_the_limit_in_any_window_over_all_workers(
    redis: Redis, redis_url: str, grants: Grants, limit: int, window_seconds: float, asked: int
) -> None:
    async with redis_client.connect(redis_url) as other:
        workers = [limit_of(limit, client, window_seconds, sleep=soon) for client in (redis, other, redis)]
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number in range(asked):
                group.create_task(workers[number % 3].acquire(f"q{number}"))
    await grants.reach(asked)
    assert sorted(grants.who()) == sorted(f"q{number}" for number in range(asked))
    times = [at for _, at in grants.all]
    spans = [after - before for before, after in zip(times, times[limit:], strict=False)]
    assert spans
    assert min(spans) >= window_seconds * 1000


async def test_what_the_limit_leaves_is_granted_at_once(redis: Redis) -> None:
    waits: list[Wait] = []
    for number in range(5):
        await limit_of(5, redis).acquire(f"q{number}", waits.append)
    assert waits == []


async def test_who_waits_is_served_in_the_order_of_asking(redis: Redis, redis_url: str, grants: Grants) -> None:
    names = ["z", "a", "m", "b", "y", "c"]
    async with redis_client.connect(redis_url) as other:
        workers = [limit_of(1, client, 0.05, sleep=soon) for client in (redis, other)]
        await workers[0].pause(LONG)
        tasks = [(await line_up(worker, name))[0] for name, worker in zip(names, workers * 3, strict=True)]
        await redis.delete(PAUSED)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks)
    await grants.reach(len(names))
    assert grants.who() == names


async def test_a_channel_that_asks_for_much_does_not_hold_up_another(
    redis: Redis, redis_url: str, grants: Grants
) -> None:
    taken = limit_of(1, redis)
    await taken.acquire("t:other:0")
    asking = limit_of(1, redis, sleep=soon)
    flood = [f"t:flood:{number}" for number in range(5)]
    tasks = await line_up(asking, *flood, "t:quiet:1", "t:quiet:2")
    for _ in tasks:
        before = len(grants.all)
        await redis.delete(GRANTED)
        await eventually(partial(_has, grants.all, before + 1))
    await asyncio.gather(*tasks)
    assert grants.who()[1:] == [flood[0], "t:quiet:1", flood[1], "t:quiet:2", *flood[2:]]


async def test_each_hears_its_place_in_the_line(redis: Redis) -> None:
    limit = limit_of(2, redis, sleep=forever)
    assert [await limit.try_acquire("x"), await limit.try_acquire("y")] == [True, True]
    heard: list[Wait] = []
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(limit.acquire(f"q{number}", heard.append)))
        await eventually(partial(_has, heard, number + 1))
    assert [wait.place for wait in heard] == [1, 2, 3]
    assert all(0 < wait.seconds <= LONG for wait in heard)
    await end(*tasks)


async def test_who_comes_later_does_not_overtake_who_waits_for_what_is_free_by_now(redis: Redis) -> None:
    sleeper = limit_of(1, redis, sleep=forever)
    assert await sleeper.try_acquire("x")
    tasks = await line_up(sleeper, "first")
    await redis.delete(GRANTED)
    heard: list[Wait] = []
    task = asyncio.create_task(sleeper.acquire("second", heard.append))
    await eventually(partial(_has, heard, 1))
    assert heard[0].place == 2
    await sleeper.acquire("first")
    await end(*tasks, task)


async def test_who_died_waiting_loses_its_place(redis: Redis) -> None:
    holds_the_only_grant = limit_of(1, redis)
    assert await holds_the_only_grant.try_acquire("x")
    [dead] = await line_up(limit_of(1, redis, sleep=forever), "dead")
    heard: list[Wait] = []
    living = limit_of(1, redis, patience_seconds=0.2, sleep=soon)
    task = asyncio.create_task(living.acquire("living", heard.append))
    await eventually(lambda: bool(heard) and heard[-1].place == 1)
    # With so little patience a moment's rest costs the living one its place as well, until it asks again.
    await eventually(partial(_is_waiting, redis, "living"))
    await redis.delete(GRANTED)
    async with asyncio.timeout(PATIENCE):
        await task
    await end(dead)


async def _is_waiting(redis: Redis, *who: str) -> bool:
    return await redis.zrange(WAITING, 0, -1) == [*who]


async def test_the_living_keep_their_place_however_long_they_wait(redis: Redis) -> None:
    assert await limit_of(1, redis).try_acquire("x")
    # Patience is far longer than the window: the line must not be forgotten with the window.
    first = limit_of(1, redis, 0.01, sleep=forever)
    await first.pause(LONG)
    tasks = await line_up(first, "first", "second")
    for key in (WAITING, f"{TAG}:rate:kapa:asked"):
        assert 1000 < await redis.pttl(key) <= 10_000
    assert await redis.zrange(WAITING, 0, -1) == ["first", "second"]
    await end(*tasks)


async def test_who_is_cancelled_keeps_its_place_for_whoever_goes_on_for_it(
    redis: Redis, redis_url: str, grants: Grants
) -> None:
    limit = limit_of(1, redis, sleep=forever)
    assert await limit.try_acquire("x")
    first, second = await line_up(limit, "first", "second")
    await end(first, second)
    assert first.cancelled()
    async with redis_client.connect(redis_url) as other:
        asking = limit_of(1, other, sleep=soon)
        tasks = await line_up(asking, "third", "second", "first")
        for number in range(len(tasks)):
            await redis.delete(GRANTED)
            await grants.reach(number + 2)
        await asyncio.gather(*tasks)
    assert grants.who()[1:] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("limit", "share", "granted"), [(4, 0.5, 2), (4, 1, 4), (5, 0.5, 2), (1, 0.5, 1), (3, 0.01, 1), (10, 0.3, 3)]
)
async def test_a_share_leaves_the_rest_to_others(redis: Redis, limit: int, share: float, granted: int) -> None:
    budget = limit_of(limit, redis)
    assert [await budget.try_acquire("draft", share=share) for _ in range(limit + 1)].count(True) == granted
    for number in range(limit - granted):
        await budget.acquire(f"final {number}")
    assert not await budget.try_acquire("draft")
    assert await redis.zcard(GRANTED) == limit


async def test_who_does_not_wait_takes_no_place(redis: Redis) -> None:
    limit = limit_of(1, redis)
    assert await limit.try_acquire("x")
    assert not await limit.try_acquire("y")
    assert not await redis.exists(WAITING)


async def test_nothing_is_granted_during_a_pause(redis: Redis, redis_url: str, grants: Grants) -> None:
    limit = limit_of(5, redis, sleep=soon)
    before = _ms(await redis.time())
    await limit.pause(0.3)
    async with redis_client.connect(redis_url) as other, asyncio.timeout(PATIENCE):
        await limit_of(5, other, sleep=soon).acquire("q")
    await grants.reach(1)
    [(_, at)] = grants.all
    # Redis takes the time before it looks for a pause.
    assert at >= before + 295


def _ms(time: Any) -> int:
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


async def test_a_pause_is_told_to_who_waits_and_refuses_who_does_not(redis: Redis) -> None:
    limit = limit_of(5, redis, sleep=forever)
    await limit.pause(LONG)
    assert not await limit.try_acquire("x")
    heard: list[Wait] = []
    task = asyncio.create_task(limit.acquire("q", heard.append))
    await eventually(partial(_has, heard, 1))
    assert heard[0].place == 1
    assert heard[0].seconds == pytest.approx(LONG, abs=PATIENCE)
    await end(task)


async def test_the_longest_pause_holds(redis: Redis) -> None:
    limit = limit_of(5, redis)
    await limit.pause(100)
    await limit.pause(1)
    assert await redis.pttl(PAUSED) > 50_000
    await limit.pause(1000)
    assert await redis.pttl(PAUSED) > 500_000


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_pause_is_none(redis: Redis, seconds: float) -> None:
    limit = limit_of(1, redis)
    await limit.pause(seconds)
    assert await limit.try_acquire("x")


async def test_limits_of_other_names_have_nothing_to_do_with_each_other(redis: Redis) -> None:
    assert await limit_of(1, redis).try_acquire("x")
    assert await RateLimit(redis, "edits", limit=1).try_acquire("x")


async def test_what_is_remembered_ends_by_itself(redis: Redis) -> None:
    limit = limit_of(1, redis, sleep=forever)
    await limit.acquire("x")
    tasks = await line_up(limit, "y")
    await limit.pause(LONG)
    for key in await redis.keys():
        assert 0 < await redis.pttl(key) <= LONG * 1000, key
    await end(*tasks)
