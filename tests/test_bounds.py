"""Nothing in Redis grows for ever: every key has a lifetime or a cap, and an idle thread costs a known few bytes."""

import uuid
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from redis.asyncio import Redis

from bridge import inbox as inbox_module
from bridge.dead_letters import DeadLetters
from bridge.inbox import DEAD, DEAD_LETTERS, JOURNAL, JOURNAL_ENTRIES, TAG, Inbox, Item, Kind
from bridge.playground.kapa import Asked
from bridge.playground.kapa_rules import KapaRefusalError
from bridge.store import Store
from tests.rig import ADA, BOTH_WAYS, GENERAL, GRACE, HELP, Rig, hurry, settled
from tests.waiting import eventually

# What has no lifetime, and what bounds it instead: `None` is empty once all work is done.
WITHOUT_LIFETIME = {
    f"{TAG}:*:ready": None,
    f"{TAG}:*:later": None,
    f"{TAG}:*:line:*": None,
    f"{TAG}:*:turns:*": None,
    f"{TAG}:*:out:*": None,
    f"{TAG}:*:unfinished": None,
    DEAD: DEAD_LETTERS,
    JOURNAL: JOURNAL_ENTRIES + 100,
}
# They fill Redis' tables as a million does, which are as long as the next power of two.
THREADS = 62_500
MOST_BYTES_PER_THREAD = 400


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def _size(redis: Redis, key: str) -> int:
    sizes = {"stream": redis.xlen, "list": redis.llen, "zset": redis.zcard, "hash": redis.hlen, "set": redis.scard}
    return int(await sizes[str(await redis.type(key))](key))


async def unbounded(redis: Redis) -> dict[str, int]:
    """Give the keys that break the rule, with their size."""
    broken = {}
    async for key in redis.scan_iter("*"):
        cap = next((cap for pattern, cap in WITHOUT_LIFETIME.items() if fnmatchcase(key, pattern)), -1)
        if cap == -1:
            if await redis.pttl(key) == -1:
                broken[key] = -1
        elif (size := await _size(redis, key)) > (cap or 0):
            broken[key] = size
    return broken


def _refuse(_: Asked) -> str:
    raise KapaRefusalError(401, {"detail": "Invalid token."})


async def be_busy(rig: Rig, redis: Redis) -> None:
    """Let happen whatever leaves something in Redis: answers, replies, votes, early replies, failures, dead letters."""
    for number in range(5):
        ts, answer = await rig.ask(ADA, GENERAL, f"How are threads stored, for the {number}. time?")
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "x")
        await rig.slack.unreact(GRACE, GENERAL, answer["ts"], "x")
        await rig.slack.say(GRACE, GENERAL, "And keys?", thread=ts)
        await rig.answer(GENERAL, ts, 2)
    # Slack never sends the question that these reply to.
    stranger = await rig.slack.say("U0BUILDS", GENERAL, "A build is done")
    await rig.slack.say(ADA, GENERAL, "Which one?", thread=stranger)
    await rig.slack.react(ADA, GENERAL, stranger, "+1")
    rig.kapa.fault("429", retry_after="1")
    rig.slack.fault("chat.postMessage", "drop_after")
    await rig.ask(ADA, HELP, "How are keys rotated?")
    rig.kapa.answer_with(_refuse)
    for _ in range(2):
        await rig.ask(ADA, HELP, "Are you there?")
    rig.kapa.answer_with("Yes.")
    await settled(rig, redis)
    first, _ = await eventually(DeadLetters(redis).read)
    await DeadLetters(redis).retry([first.id])
    await settled(rig, redis)


@BOTH_WAYS
async def test_everything_in_redis_has_a_lifetime_or_a_cap(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(http=http):
        await be_busy(rig, redis)
        kinds = {key.split(":")[1] async for key in redis.scan_iter("*")}
        assert kinds >= {"thread", "answer", "vote", "seen", "rate", "dead", "journal", "question", "probe"}
        assert [key async for key in redis.scan_iter(f"{TAG}:*:early:*")] != []
        assert await unbounded(redis) == {}
        # While there is work it is in what is empty afterwards, and in nothing else.
        rig.kapa.hold()
        await rig.slack.say(ADA, GENERAL, "How are threads stored, at last?")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        busy = await unbounded(redis)
        parts = {key.removeprefix(f"{TAG}:question:").partition(":")[0] for key in busy}
        assert parts == {"ready", "line", "out", "unfinished"}
        rig.kapa.release()
        await settled(rig, redis)
        assert await unbounded(redis) == {}
    # Nor does a bridge that left leave more behind.
    assert await unbounded(redis) == {}
    assert await redis.xinfo_consumers(f"{TAG}:question:ready", "bridge") == []


async def test_the_journal_is_capped(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "JOURNAL_ENTRIES", 50)
    inbox = Inbox(redis, Kind.QUESTION, worker="a")
    await inbox.open()
    for number in range(400):
        await inbox.put(Item(str(number), f"line{number}", str(number), ""), seen=[])
        [ticket] = await inbox.take(1, wait_seconds=1)
        await inbox.finish(ticket, entry="{}")
    # Redis trims whole nodes, of a hundred entries each.
    assert 50 <= await redis.xlen(JOURNAL) <= 150


async def test_an_idle_thread_costs_few_bytes(redis: Redis, tell: Callable[[str], None]) -> None:
    store = Store(redis, ttl_seconds=90 * 86_400)
    before = (await redis.info("memory"))["used_memory"]
    for first in range(0, THREADS, 500):
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(first, first + 500):
                line, answer = (f"T0123ABCDEF:C0123ABCDEF:{number:010}.000{part}00" for part in (1, 2))
                for write in (store.thread(line, str(uuid.uuid4())), store.answer(answer, str(uuid.uuid4()))):
                    pipe.set(write.key, write.value, ex=write.seconds)
            await pipe.execute()
    bytes_each = ((await redis.info("memory"))["used_memory"] - before) / THREADS
    tell(f"idle threads: {bytes_each:.0f} bytes of Redis for each with one answer")
    assert bytes_each < MOST_BYTES_PER_THREAD
