"""The line that says the bridge is at work: at once, honest about waiting, gone whatever becomes of the question."""

from typing import Any

import pytest
from redis.asyncio import Redis

from bridge import status
from bridge.messages import Messages
from bridge.playground.kapa import Pace
from tests.rig import ADA, GENERAL, GRACE, HELP, Rig, hurry, settled

SAYS = Messages()
STATUS = "assistant.threads.setStatus"


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(status, "CHANGE_SECONDS", 0.02)


def said(rig: Rig, ts: str) -> list[dict[str, Any]]:
    return [call for call in rig.called(STATUS) if call["thread_ts"] == ts]


def says(rig: Rig, ts: str) -> str:
    return str(rig.slack.status(GENERAL, ts).get("status", ""))


async def test_it_shows_at_once_with_sentences_that_take_turns(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.slack.wait_for(lambda: rig.slack.status(GENERAL, ts))
        assert rig.slack.status(GENERAL, ts) == {"status": SAYS.thinking, "loading_messages": list(SAYS.loading)}
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        assert rig.slack.status(GENERAL, ts) == {}
    # The answer took it away by itself.
    assert len(said(rig, ts)) == 1


async def test_who_waits_is_told_the_place_in_line(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(kapa_requests_per_minute=1):
        await rig.ask(ADA, HELP, "How are keys rotated?")
        await settled(rig, redis)
        first = await rig.slack.say(ADA, GENERAL, "First?")
        await rig.slack.wait_for(lambda: says(rig, first) == SAYS.waiting.format(place=1), 10)
        second = await rig.slack.say(GRACE, GENERAL, "Second?")
        await rig.slack.wait_for(lambda: says(rig, second) == SAYS.waiting.format(place=2), 10)
        assert says(rig, first) == SAYS.waiting.format(place=1)
        assert rig.slack.status(GENERAL, first)["loading_messages"] == [SAYS.waiting.format(place=1)]
        # The minute is over for the first: the second moves up, and the first is being answered.
        rig.kapa.hold()
        granted = "{bridge}:rate:kapa:granted"
        await redis.delete(granted)
        await rig.slack.wait_for(lambda: says(rig, first) == SAYS.thinking, 10)
        await rig.slack.wait_for(lambda: says(rig, second) == SAYS.waiting.format(place=1), 10)
        rig.kapa.release()
        await rig.answer(GENERAL, first)
        await redis.delete(granted)
        await rig.answer(GENERAL, second)
        await settled(rig, redis)
        assert [rig.slack.status(GENERAL, ts) for ts in (first, second)] == [{}, {}]


@pytest.mark.parametrize("fault", ["500", "429", "error_record"])
async def test_it_goes_away_when_there_is_no_answer(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # Kapa refuses so fast that nothing would show.
    monkeypatch.setattr(status, "STATUS_AFTER_SECONDS", 0.0)
    async with rig.bridge():
        rig.kapa.pace = Pace(first_text=0.2)
        rig.kapa.fault(fault, 10, retry_after="1000")
        ts = await rig.slack.say(ADA, GENERAL, "How?")
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        await rig.slack.wait_for(lambda: rig.slack.status(GENERAL, ts) == {}, 10)
        assert said(rig, ts)


async def test_a_long_wait_shows_it_again_before_slack_takes_it_away(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "SHOW_AGAIN_SECONDS", 0.05)
    async with rig.bridge():
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "How?")
        await rig.slack.wait_for(lambda: len(said(rig, ts)) >= 3, 10)
        assert {call["status"] for call in said(rig, ts)} == {SAYS.thinking}
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        # One that was on its way is taken away once it is there.
        await rig.slack.wait_for(lambda: rig.slack.status(GENERAL, ts) == {}, 10)


async def test_changes_leave_slacks_room_to_others(rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SHOW_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr("bridge.app.STATUS_CHANGES_PER_MINUTE", 3)
    async with rig.bridge():
        rig.kapa.hold()
        ts = await rig.slack.say(ADA, GENERAL, "How?")
        await rig.slack.wait_for(lambda: len(said(rig, ts)) == 4, 10)
        other = await rig.slack.say(ADA, GENERAL, "And how?")
        await rig.slack.wait_for(lambda: len(said(rig, other)) == 1, 10)
        rig.kapa.release()
        await rig.answer(GENERAL, other)
    assert len(said(rig, ts)) == 4
