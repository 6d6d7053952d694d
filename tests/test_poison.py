"""A question over which workers die: it is tried apart from others, then given up in words, and takes nobody along."""

import pytest
from redis.asyncio import Redis

from bridge import policy
from bridge.dead_letters import DeadLetters
from bridge.inbox import Inbox, Kind
from bridge.messages import Messages
from bridge.settings import Role
from tests.rig import ADA, GENERAL, Rig, hurry, markdown, settled
from tests.waiting import eventually


async def deaths(redis: Redis, count: int, *, begun: bool = True) -> None:
    """Let so many workers die over the one question that waits, the last of them long ago."""
    for number in range(count + 1):
        worker = Inbox(redis, Kind.QUESTION, worker=f"dead {number}", lease_seconds=0)
        await worker.open()
        [ticket] = await (worker.take_over(1) if number else worker.take(1, wait_seconds=0.001))
        if begun and number < count:
            await worker.begin(ticket)
    assert ticket.deaths == (count if begun else 0)
    await worker.begin(ticket)


async def asked(rig: Rig) -> str:
    async with rig.bridge(Role.INGRESS):
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.slack.delivered()
    return ts


async def test_after_so_many_deaths_the_person_is_told(rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    ts = await asked(rig)
    await deaths(redis, policy.MOST_DEATHS)
    async with rig.bridge(Role.WORKER, bridge_lease_seconds=1):
        assert list(map(markdown, await rig.answer(GENERAL, ts))) == [Messages().failed]
        await settled(rig, redis)
    assert not rig.kapa.asked
    [letter] = await DeadLetters(redis).read()
    assert letter.reason == "workers died over it"


async def test_a_question_that_only_waited_as_workers_died_is_answered(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    ts = await asked(rig)
    await deaths(redis, policy.MOST_DEATHS + 3, begun=False)
    async with rig.bridge(Role.WORKER, bridge_lease_seconds=1):
        [answer] = await rig.answer(GENERAL, ts)
        await settled(rig, redis)
    assert "stored in Redis" in markdown(answer)


async def test_questions_over_which_workers_died_are_tried_apart_from_each_other(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "APART_SECONDS", 1_000_000.0)
    ts = await asked(rig)
    await deaths(redis, 1)
    async with rig.bridge(Role.WORKER, bridge_lease_seconds=1):
        await eventually(lambda: redis.zcard("{bridge}:question:later"))
        assert not rig.kapa.asked
        await redis.zadd("{bridge}:question:later", {f"T0PLAY:{GENERAL}:{ts}": 0})
        [answer] = await rig.answer(GENERAL, ts)
        await settled(rig, redis)
    assert "stored in Redis" in markdown(answer)
