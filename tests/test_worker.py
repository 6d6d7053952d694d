"""The worker on a real Redis, with small journeys of the tests' own, and as processes that are killed and frozen."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from bridge import redis_client, worker
from bridge.dead_letters import DeadLetters
from bridge.inbox import GROUP, TAG, Inbox, Item, Kind, LeaseLostError, Put, Ticket, Write
from bridge.work import Again, Done, GaveUp, Lease, Outcome, end
from bridge.worker import MOST_FAULTS, Worker
from tests.waiting import eventually

PATIENCE = 30.0
READY, LATER = f"{TAG}:question:ready", f"{TAG}:question:later"
PROCESS = Path(__file__).with_name("worker_process.py")
Do = Callable[[Lease], Awaitable[Outcome]]


def item(number: int, line: str = "t:c:1") -> Item:
    return Item(id=f"q{number}", line=line, order=f"{number:09}.0", payload="")


def at(redis: Redis, worker: str = "a", lease_seconds: float = 60) -> Inbox:
    return Inbox(redis, Kind.QUESTION, worker=worker, lease_seconds=lease_seconds)


async def put(redis: Redis, *items: Item) -> None:
    for each in items:
        assert await at(redis).put(each, seen=[each.id]) is Put.ACCEPTED


async def quick(seconds: float) -> None:
    await asyncio.sleep(seconds / 50)


async def forever(_: float) -> None:
    await asyncio.Event().wait()


async def assert_settled(work: "Working", *results: str) -> None:
    """Wait until so many are settled, and see that they are these."""
    await eventually(partial(_has, work.settled, len(results)))
    assert work.settled == list(results)


async def _has(things: list[Any], count: int) -> bool:
    return len(things) >= count


async def pending(redis: Any) -> list[Any]:
    return list(await redis.xpending_range(READY, GROUP, "-", "+", 100))


async def owners(redis: Any) -> list[str]:
    return [entry["consumer"] for entry in await pending(redis)]


async def steal(redis: Redis, worker: str = "b") -> None:
    """Give every ticket to another worker, as a take-over does."""
    ids = [entry["message_id"] for entry in await pending(redis)]
    assert len(await redis.xclaim(READY, GROUP, worker, 0, ids)) == len(ids) > 0


async def hurry(redis: Any) -> None:
    """Let no line wait for its next attempt."""
    while True:
        for line in await redis.zrange(LATER, 0, -1):
            await redis.zadd(LATER, {line: 0}, xx=True)
        await asyncio.sleep(0.005)


@dataclass(slots=True)
class Journey:
    """A journey of one function, that remembers what it was given."""

    do: Do
    started: list[Ticket] = field(default_factory=list)
    surrendered: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def run(self, lease: Lease) -> Outcome:
        self.started.append(lease.ticket)
        try:
            return await self.do(lease)
        except asyncio.CancelledError:
            self.cancelled.append(lease.ticket.item.id)
            raise

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        self.surrendered.append(lease.ticket.item.id)
        return GaveUp(reason, [Write("{bridge}:told", lease.ticket.item.id, 100)])

    @property
    def ids(self) -> list[str]:
        return [ticket.item.id for ticket in self.started]


async def done(lease: Lease) -> Outcome:
    return Done("done")


async def endless(lease: Lease) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


@dataclass(slots=True)
class Working:
    """A worker at work."""

    worker: Worker
    task: "asyncio.Task[None]"
    stop: asyncio.Event
    settled: list[str]

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(PATIENCE):
            await self.task


@asynccontextmanager
async def working(inbox: Inbox, journey: Any, **options: Any) -> AsyncIterator[Working]:
    """Let a worker work until the end of the block."""
    results: list[str] = []
    stop = asyncio.Event()
    given: dict[str, Any] = {"concurrency": 8, "drain_seconds": 0, "sleep": quick} | options
    worker = Worker(inbox, journey, on_settled=lambda _, result: results.append(result), **given)
    work = Working(worker, asyncio.create_task(worker.run(stop)), stop, results)
    try:
        yield work
    finally:
        if not work.task.cancelled():
            await work.end()


# Side by side, and in order


async def test_lines_run_side_by_side(redis: Redis) -> None:
    barrier = asyncio.Barrier(5)

    async def meet(lease: Lease) -> Outcome:
        await barrier.wait()
        return Done("met")

    await put(redis, *(item(number, f"t:c:{number}") for number in range(5)))
    async with working(at(redis), Journey(meet)) as work:
        await assert_settled(work, *["met"] * 5)


async def test_a_line_is_dealt_with_one_at_a_time_and_in_order_by_all_workers(redis: Redis) -> None:
    busy: Counter[str] = Counter()
    most: Counter[str] = Counter()
    finished: list[Item] = []

    async def deal(lease: Lease) -> Outcome:
        line = lease.ticket.item.line
        busy[line] += 1
        most[line] = max(most[line], busy[line])
        await asyncio.sleep(0.002)
        busy[line] -= 1
        finished.append(lease.ticket.item)
        return Done("done")

    items = [item(10 * line + number, f"t:c:{line}") for number in range(4) for line in range(10)]
    journey = Journey(deal)
    async with working(at(redis), journey, concurrency=3) as one, working(at(redis, "b"), journey) as other:
        await put(redis, *items)
        await eventually(lambda: len(one.settled) + len(other.settled) >= 40)
        await eventually(lambda: _is_zero(redis.xlen(READY)))
    assert set(most.values()) == {1}
    assert len(one.settled) + len(other.settled) == len(finished) == 40
    for line in range(10):
        name = f"t:c:{line}"
        assert [each for each in finished if each.line == name] == [each for each in items if each.line == name]


async def _is_zero(number: Awaitable[int]) -> bool:
    return await number == 0


async def test_a_ticket_that_redis_forgot_it_had_handed_out_is_not_dealt_with_twice(redis: Redis) -> None:
    gate = asyncio.Event()
    dealt: list[str] = []

    async def wait(lease: Lease) -> Outcome:
        dealt.append(lease.ticket.item.id)
        await gate.wait()
        return Done("done")

    await put(redis, item(1, "t:c:1"))
    async with working(at(redis), Journey(wait)) as work:
        await eventually(partial(_has, dealt, 1))
        # As after a failover to a replica that had not heard of it.
        await redis.xgroup_setid(READY, GROUP, "0")
        await put(redis, item(2, "t:c:2"))
        await eventually(partial(_has, dealt, 2))
        gate.set()
        await assert_settled(work, "done", "done")
    assert dealt == ["q1", "q2"]


async def test_no_more_run_at_once_than_there_is_room_for(redis: Redis) -> None:
    gate = asyncio.Event()
    running: list[int] = []

    async def wait(lease: Lease) -> Outcome:
        running.append(work.worker.running())
        await gate.wait()
        return Done("done")

    await put(redis, *(item(number, f"t:c:{number}") for number in range(7)))
    async with working(at(redis), Journey(wait), concurrency=2) as work:
        await eventually(partial(_has, running, 2))
        assert await owners(redis) == ["a", "a"]
        gate.set()
        await assert_settled(work, *["done"] * 7)
    assert max(running) == 2


# Outcomes


async def test_what_is_done_is_finished_with_its_writes(redis: Redis) -> None:
    async def write(lease: Lease) -> Outcome:
        await lease.remember({"note": "x"}, [Write("{bridge}:early", "1", 100)])
        return Done("written", [Write("{bridge}:late", "2", 100)])

    await put(redis, item(1), item(2))
    async with working(at(redis), Journey(write)) as work:
        await assert_settled(work, "written", "written")
    assert await redis.mget("{bridge}:early", "{bridge}:late") == ["1", "2"]
    assert set(await redis.keys("*question*")) == {READY}


async def test_a_ticket_does_not_come_back_to_work_that_knows_nothing_of_another_s(redis: Redis) -> None:
    """Frozen past its lease, taken over by another that dies in turn: the old work ends, and new work begins."""
    journey = Journey(endless)
    await put(redis, item(1))
    async with working(at(redis, lease_seconds=0.05), journey, sleep=forever):
        await eventually(partial(_has, journey.started, 1))
        await at(redis, "b").begin((await at(redis, "b", lease_seconds=0).take_over(1))[0])
        await eventually(partial(_has, journey.started, 2))
    assert journey.cancelled[0] == "q1"
    assert [ticket.deaths for ticket in journey.started[:2]] == [0, 1]


class ReplyLost(Inbox):
    """An inbox whose Redis does the first settling of each ticket, and whose connection breaks before the reply."""

    lost: frozenset[str] = frozenset()

    async def finish(self, ticket: Ticket, *args: Any, **options: Any) -> None:
        await super().finish(ticket, *args, **options)
        self.lose(ticket)

    async def retry(self, ticket: Ticket, **options: Any) -> None:
        await super().retry(ticket, **options)
        self.lose(ticket)

    def lose(self, ticket: Ticket) -> None:
        if ticket.id not in self.lost:
            self.lost |= {ticket.id}
            raise RedisConnectionError("the connection broke")


async def test_what_was_settled_though_the_reply_was_lost_counts_as_settled(redis: Redis) -> None:
    async def second_time(lease: Lease) -> Outcome:
        return Done("done") if lease.ticket.failures else Again("busy", 0.001)

    await put(redis, item(1), item(2))
    async with working(ReplyLost(redis, Kind.QUESTION, worker="a"), Journey(second_time)) as work:
        await eventually(partial(_has, work.settled, 4))
    # An attempt may be settled before it is known that the one before it was.
    assert sorted(work.settled) == ["again", "again", "done", "done"]


async def test_what_is_to_be_tried_again_is_with_what_was_remembered(redis: Redis) -> None:
    async def third_time(lease: Lease) -> Outcome:
        ticket = lease.ticket
        await lease.remember({f"attempt {len(ticket.notes)}": "x"})
        if len(ticket.notes) == 1:
            return Again("busy", 0.01)
        return Again("busy", 0, is_failure=False) if len(ticket.notes) == 2 else Done("done")

    journey = Journey(third_time)
    await at(redis).open()
    await put(redis, item(1), item(2))
    async with working(at(redis), journey) as work:
        await eventually(partial(_has, work.settled, 6))
    assert work.settled == ["again", "again", "done"] * 2
    assert journey.ids == ["q1"] * 3 + ["q2"] * 3
    assert [ticket.failures for ticket in journey.started[:3]] == [0, 1, 1]
    assert [ticket.is_resumed for ticket in journey.started[:3]] == [False, True, True]


async def test_what_is_given_up_becomes_a_dead_letter_and_the_next_has_its_turn(redis: Redis) -> None:
    async def give_up(lease: Lease) -> Outcome:
        if lease.ticket.item.id == "q2":
            return Done("done")
        await lease.remember({"note": "x"})
        return GaveUp("kapa: gone", [Write("{bridge}:told", "1", 100)])

    await put(redis, item(1), item(2))
    async with working(at(redis), Journey(give_up)) as work:
        await assert_settled(work, "dead", "done")
    [letter] = await DeadLetters(redis).read()
    assert (letter.item, letter.reason, letter.notes) == (item(1), "kapa: gone", {"note": "x"})
    assert await redis.get("{bridge}:told") == "1"


# Faults of ours


async def test_a_fault_is_tried_again_then_surrendered_and_ends_nothing_else(redis: Redis) -> None:
    async def fail(lease: Lease) -> Outcome:
        if lease.ticket.item.id == "q1":
            raise ZeroDivisionError
        return Done("done")

    journey = Journey(fail)
    await put(redis, item(1), item(2), item(11, "t:c:2"))
    hurrying = asyncio.create_task(hurry(redis))
    async with working(at(redis), journey) as work:
        await eventually(partial(_has, work.settled, 5))
    await end(hurrying)
    assert Counter(work.settled) == Counter({"again": MOST_FAULTS - 1, "dead": 1, "done": 2})
    assert [id_ for id_ in journey.ids if id_ != "q11"] == ["q1"] * MOST_FAULTS + ["q2"]
    assert journey.surrendered == ["q1"]
    [letter] = await DeadLetters(redis).read()
    assert (letter.item, letter.reason) == (item(1), "fault of the bridge: see its log")
    assert await redis.get("{bridge}:told") == "q1"


async def test_what_cannot_even_be_surrendered_becomes_a_dead_letter(redis: Redis) -> None:
    class Hopeless(Journey):
        async def surrender(self, lease: Lease, reason: str) -> Outcome:
            raise ZeroDivisionError

    async def fail(lease: Lease) -> Outcome:
        raise ZeroDivisionError

    await put(redis, item(1))
    hurrying = asyncio.create_task(hurry(redis))
    async with working(at(redis), Hopeless(fail)) as work:
        await assert_settled(work, *["again"] * (MOST_FAULTS - 1), "dead")
    await end(hurrying)
    [letter] = await DeadLetters(redis).read()
    assert (letter.item, letter.reason) == (item(1), "fault of the bridge: see its log")


async def test_a_journey_that_finds_no_redis_is_gone_on_with_after_its_lease(redis: Redis) -> None:
    async def no_redis_at_first(lease: Lease) -> Outcome:
        if len(journey.started) == 1:
            raise RedisConnectionError
        return Done("done")

    journey = Journey(no_redis_at_first)
    await put(redis, item(1), item(2))
    async with working(at(redis, lease_seconds=0.05), journey) as work:
        await assert_settled(work, "away", "done", "done")
    assert journey.ids == ["q1", "q1", "q2"]
    assert journey.started[1].is_resumed


# Leases


async def test_the_lease_of_a_long_journey_is_renewed(redis: Redis) -> None:
    gate = asyncio.Event()

    async def wait(lease: Lease) -> Outcome:
        await gate.wait()
        return Done("done")

    async def is_renewed() -> bool:
        [entry] = await pending(redis)
        return int(entry["time_since_delivered"]) < 1_800_000

    await put(redis, item(1))
    # An hour's lease on a clock that runs so fast that renewals follow each other in tenths of a second.
    inbox, journey = at(redis, lease_seconds=3600), Journey(wait)
    async with working(inbox, journey, clock=lambda: monotonic() * 10_000) as work:
        await eventually(partial(_has, journey.started, 1))
        for _ in range(3):
            [entry] = await pending(redis)
            await redis.xclaim(READY, GROUP, "a", 0, [entry["message_id"]], idle=1_800_000, justid=True)
            await eventually(is_renewed)
        gate.set()
        await assert_settled(work, "done")


async def test_who_lost_its_lease_is_stopped_and_settles_nothing(redis: Redis) -> None:
    journey = Journey(endless)
    await put(redis, item(1), item(2))
    async with working(at(redis, lease_seconds=60), journey, clock=lambda: monotonic() * 1000) as work:
        await eventually(partial(_has, journey.started, 1))
        await steal(redis)
        await assert_settled(work, "lost")
        await eventually(lambda: _is_zero(_number(work.worker.running())))
    assert journey.cancelled == ["q1"]
    assert await owners(redis) == ["b"]
    assert await redis.llen(f"{TAG}:question:line:t:c:1") == 2


async def _number(number: int) -> int:
    return number


@pytest.mark.parametrize("outcome", [Done("done"), Again("busy", 0), Again("busy", 60), GaveUp("broken")])
async def test_an_outcome_that_comes_too_late_changes_nothing(redis: Redis, outcome: Outcome) -> None:
    async def lose_it(lease: Lease) -> Outcome:
        await steal(redis)
        return outcome

    await put(redis, item(1), item(2))
    async with working(at(redis), Journey(lose_it), sleep=forever) as work:
        await assert_settled(work, "lost")
    assert await owners(redis) == ["b"]
    assert await redis.llen(f"{TAG}:question:line:t:c:1") == 2
    assert not await redis.exists(f"{TAG}:dead", LATER, f"{TAG}:question:notes:q1")


async def test_who_was_frozen_past_its_lease_notices_before_it_shows_anything(redis: Redis) -> None:
    now, thaw, shown = [1000.0], asyncio.Event(), []

    async def freeze(lease: Lease) -> Outcome:
        await lease.confirm()
        await thaw.wait()
        await lease.confirm()
        shown.append(lease.ticket.item.id)
        return Done("shown")

    await put(redis, item(1))
    journey = Journey(freeze)
    async with working(at(redis), journey, clock=lambda: now[0], sleep=forever) as work:
        await eventually(partial(_has, journey.started, 1))
        await steal(redis)
        now[0] += 61
        thaw.set()
        await assert_settled(work, "lost")
    assert shown == []
    assert await owners(redis) == ["b"]


async def test_who_was_frozen_and_still_holds_its_ticket_goes_on(redis: Redis) -> None:
    now, thaw = [1000.0], asyncio.Event()

    async def freeze(lease: Lease) -> Outcome:
        await thaw.wait()
        await lease.confirm()
        return Done("shown")

    await put(redis, item(1))
    journey = Journey(freeze)
    async with working(at(redis), journey, clock=lambda: now[0], sleep=forever) as work:
        await eventually(partial(_has, journey.started, 1))
        now[0] += 61
        thaw.set()
        await assert_settled(work, "shown")


async def test_nobody_takes_over_from_itself_what_it_is_at_work_on(redis: Redis) -> None:
    gate, leases = asyncio.Event(), list[Lease]()

    async def wait(lease: Lease) -> Outcome:
        leases.append(lease)
        await gate.wait()
        return Done("done")

    journey = Journey(wait)
    await put(redis, item(1))
    # Nothing is renewed in time, as after a freeze or while Redis is away.
    async with working(at(redis, lease_seconds=0.05), journey, sleep=forever) as work:
        await eventually(partial(_has, leases, 1))
        first = leases[0]._until
        await eventually(lambda: leases[0]._until > first + 0.25)
        assert work.worker.running() == 1
        gate.set()
        await assert_settled(work, "done")
    assert journey.ids == ["q1"]


async def test_a_lease_is_sure_of_itself_only_as_long_as_it_lasts(redis: Redis) -> None:
    inbox, now = at(redis), [1000.0]
    await inbox.open()
    await put(redis, item(1))
    [ticket] = await inbox.take(1, wait_seconds=0.001)
    async with redis_client.connect("redis://127.0.0.1:1/0") as nobody:
        blind = Lease(at(nobody), ticket, now[0], lambda: now[0])
        now[0] += 59.9
        await blind.confirm()
        now[0] += 0.1
        with pytest.raises(RedisError):
            await blind.confirm()
        blind.renewed(now[0])
        await blind.confirm()
    seeing = Lease(inbox, ticket, 1000.0, lambda: now[0])
    await seeing.confirm()
    await steal(redis)
    await seeing.confirm()
    now[0] += 60
    with pytest.raises(LeaseLostError):
        await seeing.confirm()


# Draining


async def test_what_is_in_flight_is_finished_and_nothing_new_is_taken(redis: Redis) -> None:
    gate = asyncio.Event()

    async def wait(lease: Lease) -> Outcome:
        await gate.wait()
        return Done("done")

    journey = Journey(wait)
    await put(redis, item(1), item(2))
    with capture_logs() as logs:
        async with working(at(redis), journey, drain_seconds=PATIENCE) as work:
            await eventually(partial(_has, journey.started, 1))
            work.stop.set()
            await eventually(lambda: _is_logged(logs, "draining"))
            await put(redis, item(11, "t:c:2"))
            gate.set()
            async with asyncio.timeout(PATIENCE):
                await work.task
    assert (work.settled, journey.ids) == (["done"], ["q1"])
    assert await redis.xinfo_consumers(READY, GROUP) == []
    assert {ticket.item.id for ticket in await at(redis, "b").take(9, wait_seconds=0.001)} == {"q2", "q11"}


async def test_what_only_waits_is_handed_back_before_the_rest_is_finished(redis: Redis) -> None:
    gate, go_on = asyncio.Event(), asyncio.Event()

    async def wait(lease: Lease) -> Outcome:
        if lease.ticket.item.id == "q2":
            await gate.wait()
            return Done("done")
        with lease.waiting():
            await go_on.wait()
        await asyncio.Event().wait()
        raise AssertionError

    journey = Journey(wait)
    await put(redis, *(item(number, f"t:c:{number}") for number in (1, 2, 3)))
    async with working(at(redis), journey, drain_seconds=PATIENCE) as work:
        await eventually(partial(_has, journey.started, 3))
        work.stop.set()
        other = at(redis, "b")
        await eventually(lambda: _has(journey.cancelled, 2))
        handed_back = [await eventually(lambda: other.take(1, wait_seconds=0.001)) for _ in range(2)]
        assert sorted(ticket.item.id for tickets in handed_back for ticket in tickets) == ["q1", "q3"]
        # The one in flight is still being finished.
        assert work.worker.running() == 1
        gate.set()
    assert work.settled == ["done"]


async def _is_logged(logs: Any, event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


@pytest.mark.parametrize("way", ["stopped", "cancelled"])
async def test_what_is_not_finished_in_time_is_handed_back_at_once(redis: Redis, way: str) -> None:
    async def note(lease: Lease) -> Outcome:
        await lease.remember({"note": "x"})
        return await endless(lease)

    journey = Journey(note)
    await put(redis, item(1), item(2), item(11, "t:c:2"))
    async with working(at(redis, lease_seconds=3600), journey, drain_seconds=0.01) as work:
        await eventually(partial(_has, journey.started, 2))
        await eventually(partial(_has_notes, redis, 2))
        if way == "cancelled":
            work.task.cancel()
            await asyncio.wait([work.task])
    assert (sorted(journey.cancelled), work.settled) == (["q1", "q11"], [])
    taken = await at(redis, "b").take(9, wait_seconds=0.001)
    assert {ticket.item.id for ticket in taken} == {"q1", "q11"}
    assert [(ticket.deaths, ticket.failures, ticket.is_resumed) for ticket in taken] == [(0, 0, True)] * 2
    assert [ticket.notes for ticket in taken] == [{"note": "x"}] * 2


async def test_a_worker_does_not_wait_for_a_redis_that_is_silent_when_it_leaves(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(lease: Lease) -> Outcome:
        with lease.waiting():
            return await endless(lease)

    async def silent(*_: object, **__: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    journey = Journey(wait)
    await put(redis, item(1), item(11, "t:c:2"))
    with capture_logs() as logs:
        async with working(at(redis), journey, drain_seconds=PATIENCE) as work:
            await eventually(partial(_has, journey.started, 2))
            monkeypatch.setattr(worker, "LEAVE_SECONDS", 0.01)
            monkeypatch.setattr(Inbox, "retry", silent)
            monkeypatch.setattr(Inbox, "leave", silent)
    assert work.settled == []
    failed = [(line["event"], line["error"]) for line in logs if "error" in line]
    assert failed == [("not_handed_back", "TimeoutError")] * 2 + [("leave_failed", "TimeoutError")]


async def _has_notes(redis: Redis, count: int) -> bool:
    return len(await redis.keys(f"{TAG}:question:notes:*")) == count


async def test_an_idle_worker_leaves_nothing_of_itself(redis: Redis) -> None:
    async with working(at(redis), Journey(done)):
        await eventually(lambda: redis.exists(READY))
    assert await redis.xinfo_consumers(READY, GROUP) == []


# Redis in trouble


async def test_work_goes_on_after_redis_lost_everything(redis: Redis) -> None:
    async with working(at(redis), Journey(done)) as work:
        await put(redis, item(1))
        await assert_settled(work, "done")
        await redis.flushall()
        await put(redis, item(1))
        await assert_settled(work, "done", "done")


async def test_work_goes_on_after_redis_was_killed(redis: Redis) -> None:
    """The embedded Redis is started again on its files; what was under way is finished exactly once."""

    async def kill_redis_once(lease: Lease) -> Outcome:
        if len(journey.started) == 1:
            os.kill(int((await redis.info("server"))["process_id"]), signal.SIGKILL)
            await eventually(partial(_is_away, redis))
        return Done("done", [Write(f"done:{lease.ticket.item.id}", "x", 100)])

    journey = Journey(kill_redis_once)
    await put(redis, item(1), item(2))
    async with working(at(redis, lease_seconds=0.5), journey) as work:
        await eventually(partial(_holds, redis, "done:q1", "done:q2"))
        await put(redis, item(3))
        await eventually(partial(_holds, redis, "done:q3"))
        await eventually(lambda: _is_zero(redis.xlen(READY)))
    assert work.settled.count("done") + work.settled.count("lost") == 3
    assert journey.ids[-2:] == ["q2", "q3"]
    assert set(journey.ids[:-2]) == {"q1"}


async def _is_away(redis: Redis) -> bool:
    try:
        await redis.ping()
    except RedisError:
        return True
    return False


async def _holds(redis: Redis, *keys: str) -> bool:
    try:
        return int(await redis.exists(*keys)) == len(keys)
    except RedisError:
        return False


# Processes


class Child:
    """A worker in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self) -> str:
        """Give the next line that it prints."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def child(url: str, name: str, lease_seconds: float) -> AsyncIterator[Child]:
    """Run a worker as a process until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROCESS),
        url,
        name,
        str(lease_seconds),
        stdout=PIPE,
        env=os.environ | {"PYTHONPATH": str(PROCESS.parent.parent)},
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_work_of_a_killed_process_is_taken_over_and_its_line_goes_on_in_order(
    redis: Redis, redis_url: str
) -> None:
    await put(redis, item(1), item(2))
    async with child(redis_url, "a", 1) as first:
        assert await first.line() == "started q1 0"
        async with child(redis_url, "b", 1) as second:
            first.process.kill()
            assert await second.line() == "started q1 1"
            await redis.set("go", "")
            lines = [await second.line() for _ in range(3)]
    # The second may have its turn before the worker hears that the first is settled.
    assert sorted(lines) == ["settled done", "settled done", "started q2 0"]
    assert await redis.mget("done:q1", "done:q2") == ["b", "b"]


async def test_a_process_that_was_frozen_past_its_lease_settles_nothing(redis: Redis, redis_url: str) -> None:
    await put(redis, item(1))
    async with child(redis_url, "a", 1) as frozen:
        assert await frozen.line() == "started q1 0"
        frozen.process.send_signal(signal.SIGSTOP)
        heir = at(redis, "b", lease_seconds=1)
        found: list[Ticket] = []

        async def take_over() -> bool:
            found.extend(await heir.take_over(1))
            return bool(found)

        await eventually(take_over)
        await redis.set("go", "")
        await heir.finish(found[0], [Write("done:q1", "b", 100)])
        frozen.process.send_signal(signal.SIGCONT)
        assert await frozen.line() == "settled lost"
    assert await redis.get("done:q1") == "b"
