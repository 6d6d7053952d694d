"""The inbox on a real Redis: what each of its promises comes to, one by one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import inbox_scripts as scripts
from bridge import redis_client
from bridge.dead_letters import DeadLetters
from bridge.inbox import (
    EARLY_ITEMS,
    EARLY_SECONDS,
    GROUP,
    TAG,
    TICKETS_OF_A_CHANNEL,
    Backlog,
    Inbox,
    Item,
    Kind,
    LeaseLostError,
    Put,
    Ticket,
    Write,
    thread_key,
)
from tests.waiting import eventually

PATIENCE = 20.0
READY = f"{TAG}:question:ready"
LATER = f"{TAG}:question:later"
T = TypeVar("T")
Action = Callable[[Inbox, Ticket], Awaitable[None]]


def item(number: int, line: str = "t:c:1", payload: str = "") -> Item:
    return Item(id=f"q{number}", line=line, order=f"{number:09}.000100", payload=payload or f"payload {number}")


def at(redis: Redis, worker: str = "a", lease_seconds: float = 15) -> Inbox:
    return Inbox(redis, Kind.QUESTION, worker=worker, lease_seconds=lease_seconds)


async def put(inbox: Inbox, *items: Item) -> None:
    for each in items:
        assert await inbox.put(each, seen=[each.id]) is Put.ACCEPTED


async def take(inbox: Inbox, limit: int = 100) -> list[Ticket]:
    return await inbox.take(limit, wait_seconds=0.001)


async def take_one(inbox: Inbox) -> Ticket:
    [ticket] = await take(inbox)
    return ticket


async def content(redis: Any) -> dict[str, Any]:
    """Everything that Redis holds, but for how long a lease has been idle."""
    read = {
        "string": redis.get,
        "list": lambda key: redis.lrange(key, 0, -1),
        "hash": redis.hgetall,
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        "stream": redis.xrange,
    }
    held = {key: await read[await redis.type(key)](key) for key in await redis.keys()}
    return held | {"owners": await owners(redis)}


async def owners(redis: Any) -> dict[str, str]:
    pending = await redis.xpending_range(READY, GROUP, "-", "+", 1000)
    return {entry["message_id"]: entry["consumer"] for entry in pending}


@pytest.fixture
async def inbox(redis: Redis) -> Inbox:
    """The inbox of worker `a`."""
    inbox = at(redis)
    await inbox.open()
    return inbox


# Putting


async def test_what_is_put_is_taken_as_it_was(inbox: Inbox) -> None:
    await put(inbox, item(1))
    ticket = await take_one(inbox)
    assert ticket == Ticket(ticket.id, item(1), failures=0, deaths=0, is_resumed=False, notes={})
    assert await take(inbox) == []


@pytest.mark.parametrize(
    "payload",
    ["x" * 40_000, "😀" * 40_000, "\x00" * 100, "𝔘𐍈\U0010ffff", '"\\\n\r\u2028</script>', "e\u0301 שלום"],
    ids=["long", "long emoji", "nul", "astral", "quotes", "marks"],
)
async def test_any_text_comes_through_as_head_as_follower_and_as_one_that_is_sorted(inbox: Inbox, payload: str) -> None:
    items = [item(1, payload=payload), item(3, payload=payload), item(2, payload=payload)]
    await put(inbox, *items)
    taken = []
    for _ in items:
        ticket = await take_one(inbox)
        taken.append(ticket.item)
        await inbox.finish(ticket)
    assert taken == [items[0], items[2], items[1]]


@pytest.mark.parametrize("mark", ["first", "second"])
async def test_an_event_with_any_mark_that_was_seen_is_a_duplicate(inbox: Inbox, redis: Redis, mark: str) -> None:
    assert await inbox.put(item(1), seen=["first", "second"]) is Put.ACCEPTED
    before = await content(redis)
    assert await inbox.put(item(2), seen=["new", mark], thread_seconds=60) is Put.DUPLICATE
    assert await content(redis) == before


async def test_marks_outlive_the_work_and_end_after_slacks_last_redelivery(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await inbox.finish(await take_one(inbox))
    assert await inbox.put(item(1), seen=["q1"]) is Put.DUPLICATE
    assert 24 * 3600 < await redis.ttl(f"{TAG}:seen:q1") <= 30 * 3600


async def test_marks_are_shared_by_all_kinds_and_lines_are_not(inbox: Inbox, redis: Redis) -> None:
    votes = Inbox(redis, Kind.VOTE, worker="a")
    await votes.open()
    await put(inbox, item(1))
    assert await votes.put(item(1), seen=["q1"]) is Put.DUPLICATE
    await put(votes, item(2))
    assert [ticket.item for ticket in await take(inbox)] == [item(1)]
    assert [ticket.item for ticket in await take(votes)] == [item(2)]


async def test_a_put_whose_connection_broke_and_that_is_repeated_is_accepted_once(
    inbox: Inbox, redis: Redis, redis_url: str
) -> None:
    """The reply of the first put is lost on a connection that is closed once Redis has done it."""
    await put(inbox, item(1))

    async def put_and_lose_the_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = redis_url.removeprefix("unix://").partition("?")[0]
        from_redis, to_redis = await asyncio.open_unix_connection(path)
        while request := await reader.read(65536):
            to_redis.write(request)
            reply = await from_redis.read(65536)
            if b"EVALSHA" in request and not lost.is_set():
                lost.set()
                break
            writer.write(reply)
        writer.close()
        to_redis.close()

    lost = asyncio.Event()
    async with await asyncio.start_server(put_and_lose_the_reply, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        async with redis_client.connect(f"redis://127.0.0.1:{port}/0") as client:
            # The client itself repeats what broke; what it says in the end is that the item is in.
            assert await at(client).put(item(2), seen=["q2"]) is Put.DUPLICATE
    assert lost.is_set()
    assert await redis.llen(f"{TAG}:question:line:t:c:1") == 2


async def test_a_put_that_redis_never_heard_of_is_an_error(redis_url: str, redis: Redis) -> None:
    async with redis_client.connect("redis://127.0.0.1:1/0") as nobody:
        with pytest.raises(RedisError):
            await at(nobody).put(item(1), seen=["q1"])
    assert await redis.keys() == []


# Threads


async def test_a_reply_in_an_unknown_thread_leaves_no_mark(inbox: Inbox, redis: Redis) -> None:
    before = await content(redis)
    ignored = await inbox.put(item(1), seen=["q1"], thread_seconds=60, must_know_thread=True)
    assert ignored is Put.UNKNOWN_THREAD
    await redis.delete(f"{TAG}:question:early:t:c:1")
    assert await content(redis) == before
    # So its twin, which mentions the bridge, is accepted.
    assert await inbox.put(item(1), seen=["q1"], thread_seconds=60) is Put.ACCEPTED


async def test_a_reply_in_a_thread_is_accepted_from_the_moment_its_question_is(inbox: Inbox) -> None:
    assert await inbox.put(item(1), seen=["q1"], thread_seconds=60) is Put.ACCEPTED
    assert await inbox.put(item(2), seen=["q2"], thread_seconds=60, must_know_thread=True) is Put.ACCEPTED
    assert await inbox.put(item(3, "t:c:other"), seen=["q3"], must_know_thread=True) is Put.UNKNOWN_THREAD


async def test_every_question_lets_its_thread_live_on_and_keeps_what_is_known_of_it(inbox: Inbox, redis: Redis) -> None:
    await redis.set(thread_key("t:c:1"), "kapa-thread", ex=10)
    assert await inbox.put(item(1), seen=["q1"], thread_seconds=5000) is Put.ACCEPTED
    assert await redis.get(thread_key("t:c:1")) == "kapa-thread"
    assert 4000 < await redis.ttl(thread_key("t:c:1")) <= 5000


async def test_what_has_no_thread_marks_none(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    assert not await redis.exists(thread_key("t:c:1"))


# Order


@pytest.mark.parametrize(
    ("arrival", "order"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 3, 2], [1, 2, 3]),
        ([1, 4, 3, 2], [1, 2, 3, 4]),
        ([5, 1, 2], [5, 1, 2]),  # the head may be under way already: nothing overtakes it
        ([5, 9, 7, 8, 1], [5, 1, 7, 8, 9]),
    ],
)
async def test_all_that_wait_behind_the_head_are_kept_in_their_order(
    inbox: Inbox, arrival: list[int], order: list[int]
) -> None:
    await put(inbox, *map(item, arrival))
    finished = []
    for _ in arrival:
        ticket = await take_one(inbox)
        finished.append(ticket.item)
        await inbox.finish(ticket)
    assert finished == [item(number) for number in order]
    assert await take(inbox) == []


async def test_items_of_one_order_are_kept_as_they_came(inbox: Inbox) -> None:
    items = [Item(f"q{number}", "t:c:1", "5.0", "x") for number in range(4)]
    await put(inbox, *items)
    for expected in items:
        ticket = await take_one(inbox)
        assert ticket.item == expected
        await inbox.finish(ticket)


async def test_a_line_has_one_ticket_and_lines_run_side_by_side(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2), item(11, "t:c:2"), item(12, "t:c:2"), item(21, "t:c:3"))
    taken = await take(inbox)
    assert [ticket.item for ticket in taken] == [item(1), item(11, "t:c:2"), item(21, "t:c:3")]
    assert await redis.xlen(READY) == 3


async def test_no_more_is_taken_than_there_is_room_for(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, *(item(number, f"t:c:{number}") for number in range(5)))
    assert len(await take(inbox, 2)) == 2
    assert len(await take(at(redis, "b"), 2)) == 2
    assert len(await take(inbox, 2)) == 1


async def test_a_worker_that_waits_hears_of_what_is_put(inbox: Inbox, redis: Redis, redis_url: str) -> None:
    waiting = asyncio.create_task(inbox.take(1, wait_seconds=PATIENCE))
    await eventually(lambda: _blocked(redis))
    await put(inbox, item(1))
    assert [ticket.item for ticket in await waiting] == [item(1)]


async def _blocked(redis: Redis) -> int:
    return int((await redis.info("clients"))["blocked_clients"])


# Finishing


async def test_finish_lets_the_next_one_have_its_turn_and_sets_what_it_was_given(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2))
    first = await take_one(inbox)
    await inbox.remember(first, {"note": "x"})
    await inbox.finish(first, [Write("{bridge}:one", "1", 100), Write("{bridge}:two", "2", 200)])
    assert await redis.mget("{bridge}:one", "{bridge}:two") == ["1", "2"]
    assert 0 < await redis.ttl("{bridge}:one") <= 100 < await redis.ttl("{bridge}:two") <= 200
    assert not await redis.exists(f"{TAG}:question:notes:q1")
    second = await take_one(inbox)
    assert (second.item, second.is_resumed) == (item(2), False)


async def test_what_is_kept_stays_as_it_is_for_longer(inbox: Inbox, redis: Redis) -> None:
    await redis.set("{bridge}:there", "1", ex=10)
    await put(inbox, item(1))
    kept = [Write("{bridge}:there", "", 100, is_kept=True), Write("{bridge}:gone", "", 100, is_kept=True)]
    ticket = await take_one(inbox)
    await inbox.remember(ticket, {"note": "x"}, [*kept, Write("{bridge}:empty", "", 100)])
    assert await redis.mget("{bridge}:there", "{bridge}:gone", "{bridge}:empty") == ["1", None, ""]
    assert 10 < await redis.ttl("{bridge}:there") <= 100
    await inbox.finish(ticket, [Write("{bridge}:there", "", 200, is_kept=True)])
    assert await redis.get("{bridge}:there") == "1"
    assert 100 < await redis.ttl("{bridge}:there") <= 200


# How much there is to do


async def test_the_backlog_of_an_inbox_that_nobody_opened_is_empty(redis: Redis) -> None:
    assert await at(redis).backlog() == Backlog(0, 0, 0, 0, 0)


async def test_the_backlog_counts_what_waits_what_is_dealt_with_and_what_is_tried_later(
    inbox: Inbox, redis: Redis
) -> None:
    await put(inbox, item(1), item(2), item(3, "t:c:2"))
    first = await take_one_of_many(inbox)
    found = await inbox.backlog()
    assert (found.waiting, found.later, found.unfinished) == (2, 0, 3)
    await inbox.retry(first, wait_seconds=60)
    found = await inbox.backlog()
    assert (found.waiting, found.later, found.unfinished) == (1, 1, 3)
    # Another kind's work is not in it.
    assert (await Inbox(redis, Kind.VOTE).backlog()).unfinished == 0


async def take_one_of_many(inbox: Inbox) -> Ticket:
    [ticket] = await take(inbox, 1)
    return ticket


async def test_the_backlog_knows_the_oldest_item_and_the_oldest_ticket_that_nobody_took(
    inbox: Inbox, redis: Redis
) -> None:
    seconds, _ = await redis.time()
    await put(inbox, item(1), item(2, "t:c:2"))
    await redis.zadd(f"{TAG}:question:unfinished", {"t:c:1|q1": (seconds - 500) * 1000})
    found = await inbox.backlog()
    assert 499 < found.oldest_seconds < 530
    assert 0 <= found.untaken_seconds < 30
    # One that was issued long ago, and that nobody took.
    await redis.delete(READY)
    await redis.xadd(READY, {"line": "t:c:1"}, id=f"{(seconds - 100) * 1000}-0")
    await inbox.open()
    found = await inbox.backlog()
    assert found.untaken_seconds < 30, "a ticket that outlived its group was issued anew"
    await take(inbox)
    assert (await inbox.backlog()).untaken_seconds == 0


async def test_what_another_version_finished_is_not_counted_for_ever(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2, "t:c:2"))
    await redis.zadd(f"{TAG}:question:unfinished", {"t:c:9|gone": 1, "t:c:1|gone": 2, "of no form": 3})
    found = await inbox.backlog()
    assert found.unfinished == 2
    assert found.oldest_seconds < 30


async def test_a_ticket_that_nobody_takes_ages(inbox: Inbox, redis: Redis) -> None:
    seconds, _ = await redis.time()
    await redis.xadd(READY, {"line": "t:c:1"}, id=f"{(seconds - 100) * 1000}-0")
    # It is younger than what was delivered last, and so it waits.
    await redis.xgroup_setid(READY, GROUP, "0")
    assert 99 < (await inbox.backlog()).untaken_seconds < 130


async def test_what_is_finished_given_up_or_put_back_is_counted_so(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2, "t:c:2"))
    done, dead = await take(inbox)
    await inbox.finish(done)
    assert (await inbox.backlog()).unfinished == 1
    await inbox.finish(dead, dead_reason="over")
    assert await inbox.backlog() == Backlog(0, 0, 0, 0, 0)
    letters = DeadLetters(redis)
    await letters.retry([letter.id for letter in await letters.read()])
    assert (await inbox.backlog()).unfinished == 1
    await inbox.finish(await take_one(inbox))
    assert await inbox.backlog() == Backlog(0, 0, 0, 0, 0)


async def test_the_last_one_leaves_nothing_behind_but_marks(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    ticket = await take_one(inbox)
    await inbox.remember(ticket, {"note": "x"})
    await inbox.finish(ticket)
    assert set(await redis.keys()) == {READY, f"{TAG}:seen:q1"}
    assert await redis.xlen(READY) == 0
    assert await owners(redis) == {}


async def _finish(inbox: Inbox, ticket: Ticket) -> None:
    await inbox.finish(ticket, [Write("{bridge}:x", "x", 100)])


async def _bury(inbox: Inbox, ticket: Ticket) -> None:
    await inbox.finish(ticket, [Write("{bridge}:x", "x", 100)], dead_reason="broken")


async def _remember(inbox: Inbox, ticket: Ticket) -> None:
    await inbox.remember(ticket, {"note": "new"}, [Write("{bridge}:x", "x", 100)])


async def _retry(inbox: Inbox, ticket: Ticket) -> None:
    await inbox.retry(ticket)


async def _retry_later(inbox: Inbox, ticket: Ticket) -> None:
    await inbox.retry(ticket, wait_seconds=60)


ACTIONS = [_finish, _bury, _remember, _retry, _retry_later]


@pytest.mark.parametrize("act", ACTIONS)
@pytest.mark.parametrize("fate", ["another's", "finished", "handed back", "waiting", "never taken"])
async def test_who_does_not_hold_the_ticket_changes_nothing(inbox: Inbox, redis: Redis, act: Action, fate: str) -> None:
    await put(inbox, item(1), item(2))
    actor = at(redis, "b") if fate == "never taken" else inbox
    ticket = await take_one(inbox)
    if fate == "another's":
        [taken_over] = await at(redis, "b", lease_seconds=0).take_over(1)
        assert taken_over.id == ticket.id
    elif fate == "finished":
        await inbox.finish(ticket)
    elif fate == "handed back":
        assert await inbox.leave() == 1
    elif fate == "waiting":
        await inbox.retry(ticket, wait_seconds=60)
    before = await content(redis)
    with pytest.raises(LeaseLostError, match="q1"):
        await act(actor, ticket)
    assert await content(redis) == before
    assert ticket.notes == {}


# Leases


async def test_a_dead_workers_ticket_is_taken_over_after_its_lease(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2))
    ticket = await take_one(inbox)
    await inbox.remember(ticket, {"posts": '["1.2"]'})
    assert await at(redis, "b", lease_seconds=3600).take_over(9) == []
    heir = at(redis, "b", lease_seconds=0.05)
    [taken_over] = await eventually(lambda: heir.take_over(9))
    assert taken_over == Ticket(ticket.id, item(1), is_resumed=True, is_taken_over=True, notes={"posts": '["1.2"]'})
    await heir.finish(taken_over)
    assert (await take_one(heir)).item == item(2)


async def test_each_death_over_what_was_begun_is_counted(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await inbox.begin(await take_one(inbox))
    for deaths, name in enumerate("bcb", 1):
        worker = at(redis, name, lease_seconds=0)
        [ticket] = await worker.take_over(1)
        assert (ticket.deaths, ticket.failures, ticket.notes) == (deaths, 0, {})
        await worker.begin(ticket)


async def test_a_death_says_nothing_against_what_only_waited(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await inbox.begin(await take_one(inbox))
    for name, deaths in (("b", 1), ("c", 1)):
        # Only the first worker had begun with it.
        [ticket] = await at(redis, name, lease_seconds=0).take_over(1)
        assert (ticket.deaths, ticket.is_taken_over) == (deaths, True)
    await at(redis, "c").retry(ticket)
    await take_one(inbox)
    [ticket] = await at(redis, "b", lease_seconds=0).take_over(1)
    assert ticket.deaths == 1


async def test_a_death_that_is_told_twice_counts_once(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await inbox.begin(await take_one(inbox))
    heir = at(redis, "b", lease_seconds=0)
    [ticket] = await heir.take_over(1)
    keys = [READY, f"{TAG}:question:notes:q1"]
    assert await heir._note_death(keys=keys, args=[GROUP, ticket.id, "b", 100]) == 0  # as redis-py repeats it
    assert await redis.hget(keys[1], "deaths") == "1"


async def test_who_lost_its_lease_cannot_begin(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    ticket = await take_one(inbox)
    await at(redis, "b", lease_seconds=0).take_over(1)
    with pytest.raises(LeaseLostError):
        await inbox.begin(ticket)


async def test_take_over_finds_all_of_many_bit_by_bit(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, *(item(number, f"t:c:{number}") for number in range(7)))
    await take(inbox)
    heir = at(redis, "b", lease_seconds=0)
    found = [ticket.item.id for _ in range(3) for ticket in await heir.take_over(3)]
    assert sorted(found) == [f"q{number}" for number in range(7)]


async def test_what_a_worker_is_at_work_on_is_not_taken_over_from_itself(redis: Redis) -> None:
    inbox = at(redis, lease_seconds=0)
    await inbox.open()
    await put(inbox, item(1), item(2, "t:c:2"))
    running, forgotten = await take(inbox)
    [found] = await inbox.take_over(9, running={running.id})
    assert (found.id, found.is_taken_over) == (forgotten.id, True)
    assert await redis.hgetall(f"{TAG}:question:notes:q1") == {}
    await inbox.finish(running)


async def test_a_renewed_lease_starts_anew(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    ticket = await take_one(inbox)
    await redis.xclaim(READY, GROUP, "a", 0, [ticket.id], idle=3_600_000)
    assert await inbox.renew([ticket]) == {ticket.id}
    assert await at(redis, "b", lease_seconds=3600).take_over(1) == []
    await inbox.finish(ticket)


async def test_a_lease_that_is_not_renewed_ends(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    ticket = await take_one(inbox)
    await redis.xclaim(READY, GROUP, "a", 0, [ticket.id], idle=3_600_000)
    assert [found.id for found in await at(redis, "b", lease_seconds=3600).take_over(1)] == [ticket.id]


async def test_only_what_is_still_owned_is_renewed(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, *(item(number, f"t:c:{number}") for number in range(4)))
    kept, finished, waiting, lost = await take(inbox)
    await inbox.finish(finished)
    await inbox.retry(waiting, wait_seconds=60)
    heir = at(redis, "b", lease_seconds=0)
    await redis.xclaim(READY, GROUP, "b", 0, [lost.id])
    assert await inbox.renew([kept, finished, waiting, lost]) == {kept.id}
    assert await heir.renew([lost]) == {lost.id}
    assert await owners(redis) == {kept.id: "a", lost.id: "b"}
    assert await inbox.renew([]) == set()


# Trying again


async def test_what_is_retried_comes_again_with_its_failures_and_notes(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2))
    for failures in range(3):
        ticket = await take_one(inbox)
        assert (ticket.item, ticket.failures, ticket.deaths) == (item(1), failures, 0)
        assert (ticket.is_resumed, len(ticket.notes)) == (failures > 0, failures)
        await inbox.remember(ticket, {f"attempt {failures}": "🙂"})
        await inbox.retry(ticket)
    assert 0 < await redis.ttl(f"{TAG}:question:notes:q1") <= 7 * 86_400


async def test_what_is_no_failure_is_not_counted(inbox: Inbox) -> None:
    await put(inbox, item(1))
    await inbox.retry(await take_one(inbox), is_failure=False)
    assert (await take_one(inbox)).failures == 0


async def test_notes_outlive_a_take_over(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await inbox.retry(await take_one(inbox))
    ticket = await take_one(inbox)
    await inbox.remember(ticket, {"answer": "42"}, [Write("{bridge}:x", "x", 100)])
    assert ticket.notes == {"answer": "42"}
    assert await redis.get("{bridge}:x") == "x"
    await inbox.begin(ticket)
    [taken_over] = await at(redis, "b", lease_seconds=0).take_over(1)
    assert (taken_over.notes, taken_over.failures, taken_over.deaths) == ({"answer": "42"}, 1, 1)


async def test_what_waits_is_promoted_when_its_time_has_come_and_not_before(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2), item(11, "t:c:2"))
    soon, late = await take(inbox)
    await inbox.retry(late, wait_seconds=3600)
    await inbox.retry(soon, wait_seconds=0.02)
    await put(inbox, item(3))
    assert await take(inbox) == []
    assert await eventually(inbox.promote) == 1
    ticket = await take_one(inbox)
    assert (ticket.item, ticket.failures, ticket.is_resumed) == (item(1), 1, True)
    assert await redis.zrange(LATER, 0, -1) == ["t:c:2"]
    [seconds, _] = await redis.time()
    assert await redis.zscore(LATER, "t:c:2") == pytest.approx((seconds + 3600) * 1000, abs=120_000)


async def test_a_wait_that_is_over_already_is_none(inbox: Inbox) -> None:
    await put(inbox, item(1))
    await inbox.retry(await take_one(inbox), wait_seconds=-5)
    assert await inbox.promote() == 1
    assert (await take_one(inbox)).item == item(1)


# Leaving


async def test_who_leaves_hands_everything_back_at_once(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2), item(11, "t:c:2"))
    first, _ = await take(inbox)
    await inbox.remember(first, {"note": "x"})
    assert await inbox.leave() == 2
    assert await redis.xinfo_consumers(READY, GROUP) == []
    taken = await take(at(redis, "b"))
    assert [ticket.item for ticket in taken] == [item(1), item(11, "t:c:2")]
    assert [(ticket.deaths, ticket.failures, ticket.is_resumed) for ticket in taken] == [(0, 0, True)] * 2
    assert taken[0].notes == {"note": "x"}


async def test_who_leaves_does_not_touch_what_others_hold(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(11, "t:c:2"))
    await take(inbox, 1)
    other = at(redis, "b")
    theirs = await take_one(other)
    assert await inbox.leave() == 1
    assert await owners(redis) == {theirs.id: "b"}
    await other.finish(theirs)
    assert await inbox.leave() == 0


async def test_who_leaves_loses_nothing_however_much_it_holds(inbox: Inbox, redis: Redis) -> None:
    many = 2100
    for number in range(many):
        await put(inbox, item(number, f"t:c{number}:1"))
    assert len(await take(inbox, many)) == many
    assert await inbox.leave() == many
    assert {ticket.item.id for ticket in await take(at(redis, "b"), many)} == {f"q{number}" for number in range(many)}


# Fairness between channels


async def flood(inbox: Inbox, count: int, channel: str = "t:flood") -> None:
    for number in range(count):
        await put(inbox, item(number, f"{channel}:{number}"))


async def test_a_channel_that_floods_leaves_room_for_another(inbox: Inbox) -> None:
    await flood(inbox, 100)
    await put(inbox, item(1000, "t:quiet:1"))
    lines = [ticket.item.line for ticket in await take(inbox, 1000)]
    assert lines == [*(f"t:flood:{number}" for number in range(TICKETS_OF_A_CHANNEL)), "t:quiet:1"]


async def test_a_flood_is_dealt_with_in_order_and_to_its_end(inbox: Inbox) -> None:
    await flood(inbox, 100)
    done = []
    while tickets := await take(inbox, 1000):
        assert len(tickets) <= TICKETS_OF_A_CHANNEL
        for ticket in tickets:
            await inbox.finish(ticket)
            done.append(ticket.item.id)
    assert done == [f"q{number}" for number in range(100)]


async def test_threads_of_a_flooded_channel_take_turns(inbox: Inbox) -> None:
    await put(inbox, *(item(1000 + number, "t:flood:busy") for number in range(3)))
    await flood(inbox, TICKETS_OF_A_CHANNEL + 5)
    done = []
    while tickets := await take(inbox, 1):
        await inbox.finish(tickets[0])
        done.append(tickets[0].item.line)
    assert done.index("t:flood:20") < [at for at, line in enumerate(done) if line == "t:flood:busy"][1]


async def test_what_waits_to_be_tried_again_holds_no_place(inbox: Inbox) -> None:
    await flood(inbox, TICKETS_OF_A_CHANNEL + 1)
    first, *_ = await take(inbox, 1000)
    await inbox.retry(first, wait_seconds=1000)
    assert (await take_one(inbox)).item.line == f"t:flood:{TICKETS_OF_A_CHANNEL}"


async def test_what_is_handed_back_keeps_its_place(inbox: Inbox, redis: Redis) -> None:
    await flood(inbox, 2 * TICKETS_OF_A_CHANNEL)
    taken = [ticket.item.id for ticket in await take(inbox, 1000)]
    await inbox.leave()
    assert [ticket.item.id for ticket in await take(at(redis, "b"), 1000)] == taken


async def test_a_ticket_that_got_lost_does_not_hold_its_channel_up(inbox: Inbox, redis: Redis) -> None:
    await flood(inbox, TICKETS_OF_A_CHANNEL)
    await redis.delete(READY)
    await inbox.open()
    await put(inbox, item(1000, "t:flood:late"))
    assert (await take_one(inbox)).item.line == "t:flood:late"


async def test_a_few_tickets_that_got_lost_are_found_by_and_by(inbox: Inbox, redis: Redis) -> None:
    await flood(inbox, TICKETS_OF_A_CHANNEL)
    taken = await take(inbox, 1000)
    for ticket in taken[:4]:
        await redis.xdel(READY, ticket.id)
    # Each looks at one ticket, by chance: that all look at those that are there is out of the question.
    for number in range(500):
        await put(inbox, item(1000 + number, f"t:flood:late-{number}"))
    assert [ticket.item.line for ticket in await take(inbox, 1000)] == [f"t:flood:late-{number}" for number in range(4)]
    assert await redis.scard(f"{TAG}:question:out:t:flood") == TICKETS_OF_A_CHANNEL


# The consumer group


async def test_tickets_that_outlive_their_group_were_tried_perhaps(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2, "t:c:2"))
    await take(inbox, 1)
    await redis.xgroup_destroy(READY, GROUP)
    other = at(redis, "b")
    await other.open()
    tickets = await take(other)
    assert [(ticket.item.id, ticket.is_resumed) for ticket in tickets] == [("q1", True), ("q2", True)]


async def test_the_group_may_be_there_already(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await at(redis, "b").open()
    assert (await take_one(inbox)).item == item(1)


async def test_what_was_put_before_there_was_a_group_is_taken(redis: Redis) -> None:
    inbox = at(redis)
    await put(inbox, item(1))
    with pytest.raises(RedisError, match="NOGROUP"):
        await take(inbox)
    await inbox.open()
    assert (await take_one(inbox)).item == item(1)


async def test_a_group_that_is_lost_is_made_anew_and_unfinished_work_is_taken_again(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1), item(2))
    stale = await take_one(inbox)
    await redis.xgroup_destroy(READY, GROUP)
    with pytest.raises(RedisError, match="NOGROUP"):
        await inbox.finish(stale)
    await inbox.open()
    with pytest.raises(LeaseLostError):
        await inbox.finish(stale)
    ticket = await take_one(inbox)
    assert ticket.item == item(1)
    await inbox.finish(ticket)
    assert (await take_one(inbox)).item == item(2)


async def test_open_says_what_else_is_wrong(redis: Redis) -> None:
    await redis.set(READY, "not a stream")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await at(redis).open()


# Scripts


async def test_scripts_that_redis_forgot_are_loaded_again(inbox: Inbox, redis: Redis) -> None:
    await put(inbox, item(1))
    await redis.script_flush()
    ticket = await take_one(inbox)
    await inbox.finish(ticket, dead_reason="broken")
    [letter] = await DeadLetters(redis).read()
    assert letter.item == item(1)


async def test_a_reply_that_came_before_its_question_is_accepted_with_it(redis: Redis) -> None:
    inbox = Inbox(redis, Kind.QUESTION, worker="w")
    await inbox.open()

    async def put(id_: str, order: str, *, reply: bool) -> Put:
        item = Item(id_, "T:C:5", order, id_)
        return await inbox.put(item, seen=[id_], thread_seconds=60, must_know_thread=reply)

    assert await put("said before the question", "4", reply=True) is Put.UNKNOWN_THREAD
    assert await put("second reply", "7", reply=True) is Put.UNKNOWN_THREAD
    assert await put("first reply", "6", reply=True) is Put.UNKNOWN_THREAD
    assert await put("first reply", "6", reply=True) is Put.UNKNOWN_THREAD
    assert await put("question", "5", reply=False) is Put.ACCEPTED
    assert await put("second reply", "7", reply=True) is Put.DUPLICATE
    taken = []
    while tickets := await inbox.take(10, wait_seconds=0.01):
        taken += [ticket.item.payload for ticket in tickets]
        for ticket in tickets:
            await inbox.finish(ticket)
    assert taken == ["question", "first reply", "second reply"]
    assert not [key async for key in redis.scan_iter("*early*")]


async def test_what_comes_early_is_forgotten_in_time_and_number(redis: Redis) -> None:
    inbox = Inbox(redis, Kind.QUESTION)
    for number in range(EARLY_ITEMS + 5):
        item = Item(f"i{number}", "T:C:5", f"{number:03}", "")
        await inbox.put(item, seen=[item.id], thread_seconds=60, must_know_thread=True)
    [key] = [key async for key in redis.scan_iter("*early*")]
    assert await redis.llen(key) == EARLY_ITEMS
    assert 0 < await redis.ttl(key) <= EARLY_SECONDS


async def test_a_worker_that_was_killed_long_ago_is_signed_off_and_one_that_holds_something_is_not(
    redis: Redis,
) -> None:
    gone, holder = Inbox(redis, Kind.QUESTION, worker="gone"), Inbox(redis, Kind.QUESTION, worker="holder")
    await gone.open()
    for worker in (gone, holder):
        await worker.put(item(1, f"t:c:{worker.worker}"), seen=[])
        [ticket] = await worker.take(1, wait_seconds=1)
        if worker is gone:
            await worker.finish(ticket)
    sign_off = redis.register_script(scripts.SIGN_OFF)
    assert await sign_off(keys=[READY], args=[GROUP, 60_000]) == 0
    await eventually(lambda: _idle(redis, "gone"))
    assert await sign_off(keys=[READY], args=[GROUP, 1]) == 1
    assert [consumer["name"] for consumer in await redis.xinfo_consumers(READY, GROUP)] == ["holder"]


async def _idle(redis: Redis, name: str) -> bool:
    return any(
        consumer["idle"] > 1 for consumer in await redis.xinfo_consumers(READY, GROUP) if consumer["name"] == name
    )
