"""The store on a real Redis: what is written in the inbox's steps is read back, for as long as it should be."""

import pytest
from redis.asyncio import Redis

from bridge.inbox import TAG, Inbox, Item, Kind, Put, Write
from bridge.store import NO_ANSWER, Ballot, Store

LINE, MESSAGE, ADA, GRACE = "t:c:1.0", "t:c:2.0", "U0ADA", "U0GRACE"


async def write(redis: Redis, *writes: Write) -> None:
    """Set what is given the way the bridge does: with a question that is finished."""
    inbox = Inbox(redis, Kind.QUESTION, worker="a")
    await inbox.open()
    assert await inbox.put(Item("q", LINE, "1.0", ""), seen=[], thread_seconds=100) is Put.ACCEPTED
    [ticket] = await inbox.take(1, wait_seconds=0.001)
    await inbox.finish(ticket, writes)


@pytest.fixture
def store(redis: Redis) -> Store:
    """The store under test."""
    return Store(redis, ttl_seconds=5000)


async def test_a_thread_has_no_conversation_before_its_first_answer(redis: Redis, store: Store) -> None:
    assert await store.kapa_thread(LINE) is None
    await write(redis)
    assert await redis.get(f"{TAG}:thread:{LINE}") == ""
    assert await store.kapa_thread(LINE) is None


async def test_a_thread_goes_on_in_the_last_conversation(redis: Redis, store: Store) -> None:
    await write(redis, store.thread(LINE, "first"), store.thread(LINE, "second"))
    assert await store.kapa_thread(LINE) == "second"
    assert await store.kapa_thread("t:c:9.0") is None
    assert 4000 < await redis.ttl(f"{TAG}:thread:{LINE}") <= 5000


@pytest.mark.parametrize("answer", ["qa-1", "", NO_ANSWER])
async def test_a_ballot_tells_what_is_known_of_the_answer(redis: Redis, store: Store, answer: str) -> None:
    assert await store.ballot(MESSAGE, ADA) == Ballot(question_answer_id=None, state=None)
    await write(redis, store.answer(MESSAGE, answer))
    assert await store.ballot(MESSAGE, ADA) == Ballot(answer, state=None)


async def test_each_person_has_a_ballot_for_each_message(redis: Redis, store: Store) -> None:
    await write(redis, store.answer(MESSAGE, "qa-1"), *store.vote(MESSAGE, ADA, "up"), *store.vote("t:c:3.0", ADA, "x"))
    assert await store.ballot(MESSAGE, ADA) == Ballot("qa-1", "up")
    assert await store.ballot(MESSAGE, GRACE) == Ballot("qa-1", None)
    assert await store.ballot("t:c:3.0", ADA) == Ballot(None, "x")


async def test_everything_lives_for_the_same_time_on_one_hash_slot(redis: Redis, store: Store) -> None:
    writes = [store.thread(LINE, "x"), store.answer(MESSAGE, "x"), *store.vote(MESSAGE, ADA, "x")]
    await write(redis, *writes)
    for each in writes:
        assert each.key.startswith("{bridge}:")
        assert 4000 < await redis.ttl(each.key) <= 5000
