"""Answers that grow by Slack's own streaming: what they are like, what ends them, and where Slack shows none."""

import asyncio
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from redis.asyncio import Redis

from bridge import app, display
from bridge.chat import Extent
from bridge.display import GATHER_SECONDS, Display, Painter
from bridge.inbox import TAG
from bridge.models import Place, Reply
from bridge.playground.kapa import Pace
from bridge.playground.slack import SHARED, STRANGER
from bridge.settings import Role
from bridge.streams import Streams
from tests.rig import ADA, GENERAL, GRACE, HELP, Rig, hurry, is_draft, markdown, settled
from tests.waiting import Naps

ANSWER = "one two three four five six seven eight nine"
STREAM = ("chat.startStream", "chat.appendStream", "chat.stopStream")
SHOWING = ("chat.postMessage", "chat.update", *STREAM)


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def begin(rig: Rig, answer: str = ANSWER, *, pieces: int = 2, channel: str = GENERAL, user: str = ADA) -> str:
    """Ask, and wait until the first pieces of the answer are shown; give the question's ts."""
    rig.kapa.answer_with(answer)
    rig.kapa.hold(after_pieces=pieces)
    ts = await rig.slack.say(user, channel, "Count")
    await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
    await rig.slack.wait_for(lambda: rig.replies(channel, ts), 10)
    return ts


async def finish(rig: Rig, redis: Redis, ts: str, channel: str = GENERAL) -> dict[str, Any]:
    """Let Kapa go on, and give the one message that is there once all work is done."""
    rig.kapa.release()
    await rig.answer(channel, ts)
    await settled(rig, redis)
    [answer] = rig.replies(channel, ts)
    return answer


def showing(rig: Rig) -> list[str]:
    return [call.method for call in rig.slack.calls if call.method in SHOWING]


# What a stream is like


async def test_an_answer_grows_and_ends_with_its_sources_and_buttons(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        [draft] = await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        assert is_draft(draft)
        assert not markdown(draft).endswith("…")
        assert rig.slack.status(GENERAL, ts) == {}
        answer = await finish(rig, redis, ts)
    assert answer["ts"] == draft["ts"]
    assert markdown(answer).startswith(markdown(draft))
    assert "stored in Redis" in markdown(answer)
    assert [block["type"] for block in answer["blocks"]] == ["markdown", "context", "context_actions"]
    assert answer["metadata"]["event_payload"] == {"question": ts, "part": 0}
    assert (showing(rig)[0], showing(rig)[-1]) == ("chat.startStream", "chat.stopStream")
    assert set(showing(rig)) <= set(STREAM)
    [start] = rig.called("chat.startStream")
    assert (start["recipient_user_id"], start["recipient_team_id"], start["thread_ts"]) == (ADA, "T0PLAY", ts)


@pytest.mark.parametrize(
    ("mode", "methods"),
    [
        ("auto", {"chat.startStream", "chat.stopStream"}),
        ("native", {"chat.startStream", "chat.stopStream"}),
        ("edit", {"chat.postMessage", "chat.update"}),
        ("off", {"chat.postMessage"}),
    ],
)
async def test_every_mode_shows_the_answer_once(rig: Rig, redis: Redis, mode: str, methods: set[str]) -> None:
    async with rig.bridge(bridge_streaming=mode):
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=2)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        if mode != "off":
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
        assert markdown(await finish(rig, redis, ts)) == ANSWER
    assert set(showing(rig)) - {"chat.appendStream"} == methods


async def test_an_answer_that_comes_at_once_is_posted_whole(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long this machine takes for it.
    monkeypatch.setattr(display, "GATHER_SECONDS", 1.0)
    async with rig.bridge():
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
    assert "stored in Redis" in markdown(answer)
    assert showing(rig) == ["chat.postMessage"]


async def test_people_of_another_company_get_streams_too(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="native"):
        ts = await begin(rig, channel=SHARED, user=STRANGER.id)
        assert markdown(await finish(rig, redis, ts, SHARED)) == ANSWER
    [start] = rig.called("chat.startStream")
    assert (start["recipient_user_id"], start["recipient_team_id"]) == (STRANGER.id, "T0ACME")
    assert showing(rig)[-1] == "chat.stopStream"


async def test_a_long_answer_streams_on_in_a_second_message(rig: Rig, redis: Redis) -> None:
    text = "\n\n".join(f"Paragraph {number}" + " of some words" * 20 for number in range(60))
    async with rig.bridge():
        ts = await begin(rig, text)
        rig.kapa.pace = Pace(between_pieces=0.001)
        rig.kapa.release()
        first, second = await rig.answer(GENERAL, ts, 2, within=20)
        await settled(rig, redis)
    assert "\n\n".join([markdown(first), markdown(second)]) == text
    assert [len(rig.replies(GENERAL, ts)), rig.slack.rate_limited.total()] == [2, 0]


async def test_the_first_words_wait_for_no_more_than_a_moment() -> None:
    """Between Kapa's first piece and the call that shows it there is one short wait, and no other."""
    naps, shown = Naps(), asyncio.Event()

    class Shown:
        async def draft(self, reply: Reply) -> None:
            assert (reply.text, naps.asked) == ("Words", [GATHER_SECONDS])
            shown.set()

    async with Painter(cast("Display", Shown()), naps) as painter:
        painter.add("Words")
        await shown.wait()
    assert GATHER_SECONDS <= 0.1


async def test_white_space_begins_no_message(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        ts = await begin(rig, f" \n {ANSWER}", pieces=3)
        assert markdown(await finish(rig, redis, ts)).strip() == ANSWER


# What ends a stream


@pytest.mark.parametrize("by", ["slack", "a person"])
@pytest.mark.parametrize("when", ["while it grows", "at its end"])
async def test_a_stream_that_is_ended_is_finished_by_an_edit(rig: Rig, redis: Redis, by: str, when: str) -> None:
    async with rig.bridge():
        ts = await begin(rig)
        [draft] = rig.replies(GENERAL, ts)
        if by == "slack":
            rig.slack.expire_streams()
        else:
            rig.slack.stop_stream(GENERAL, draft["ts"])
        if when == "while it grows":
            rig.kapa.release()
            rig.kapa.hold(after_pieces=3)
        answer = await finish(rig, redis, ts)
    assert markdown(answer) == ANSWER
    assert answer["ts"] == draft["ts"]
    assert [block["type"] for block in answer["blocks"]] == ["markdown", "context_actions"]
    assert "chat.update" in showing(rig)


FAULTS = ["drop_before", "drop_after", "hang", "hang_after", "500", "502", "garbage", "internal_error", "429"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", STREAM)
async def test_a_call_that_fails_loses_and_doubles_nothing(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch, method: str, fault: str
) -> None:
    monkeypatch.setattr(app, "SLACK_TIMEOUT", aiohttp.ClientTimeout(total=0.4))
    async with rig.bridge():
        if method == "chat.startStream":
            rig.slack.fault(method, fault)
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=1)
        ts = await rig.slack.say(ADA, GENERAL, "Count")
        await rig.slack.wait_for(lambda: rig.called("chat.startStream"))
        if method != "chat.startStream":
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts))
            rig.slack.fault(method, fault)
        answer = await finish(rig, redis, ts)
    assert markdown(answer) == ANSWER
    assert not is_draft(answer)
    assert [block["type"] for block in answer["blocks"]] == ["markdown", "context_actions"]


async def test_what_a_dead_worker_left_growing_is_finished_by_the_next(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS):
        async with rig.process("--role", "worker", bridge_lease_seconds=1) as worker:
            ts = await begin(rig)
            [draft] = rig.replies(GENERAL, ts)
            worker.kill()
            await worker.wait()
        async with rig.process("--role", "worker", bridge_lease_seconds=1):
            rig.kapa.release()
            await settled(rig, redis)
            [answer] = rig.replies(GENERAL, ts)
    assert answer["ts"] == draft["ts"]
    assert markdown(answer) == ANSWER
    # It can be found again, by whoever edits or deletes the question.
    assert answer["metadata"]["event_payload"] == {"question": ts, "part": 0}


# Where Slack shows none


@pytest.mark.parametrize(
    ("refusal", "again_here", "again_elsewhere"),
    [
        ("unknown_method", False, False),
        ("missing_scope", False, False),
        ("channel_type_not_supported", False, True),
        ("user_not_found", True, True),
    ],
)
async def test_where_slack_refuses_streams_answers_are_edited_and_that_is_remembered(
    rig: Rig, redis: Redis, refusal: str, again_here: bool, again_elsewhere: bool
) -> None:
    rig.slack.stream_refusal = refusal
    async with rig.bridge():
        for channel, tries in ((GENERAL, True), (GENERAL, again_here), (HELP, again_elsewhere)):
            before = len(rig.called("chat.startStream"))
            ts = await begin(rig, channel=channel)
            assert is_draft(rig.replies(channel, ts)[0])
            assert markdown(await finish(rig, redis, ts, channel)) == ANSWER
            assert len(rig.called("chat.startStream")) - before == tries


async def test_who_asks_for_streams_alone_gets_an_answer_all_the_same(rig: Rig, redis: Redis) -> None:
    rig.slack.stream_refusal = "unknown_method"
    async with rig.bridge(bridge_streaming="native"):
        for number in (1, 2):
            ts = await begin(rig)
            assert markdown(await finish(rig, redis, ts)) == ANSWER
            assert len(rig.called("chat.startStream")) == number


async def test_a_channel_that_is_gone_says_nothing_of_streams(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.slack.fault("chat.startStream", "is_archived")
        rig.kapa.answer_with(ANSWER)
        rig.kapa.hold(after_pieces=1)
        await rig.slack.say(ADA, GENERAL, "Count")
        await rig.slack.wait_for(lambda: rig.called("chat.startStream"))
        rig.kapa.release()
        await settled(rig, redis)
        assert [key async for key in redis.scan_iter("{bridge}:unstreamable:*")] == []


# Slack's limits


async def test_many_answers_at_once_stay_within_slacks_limits(
    redis_url: str, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "APPENDS", 3)
    async with Rig.serving(redis_url, tmp_path) as rig, rig.bridge(kapa_requests_per_minute=0):
        rig.kapa.answer_with(" ".join(f"word{number}" for number in range(60)))
        rig.kapa.hold(after_pieces=2)
        asked = [
            (channel, await rig.slack.say(user, channel, "Count"))
            for channel in (GENERAL, HELP)
            for user in (ADA, GRACE)
            for _ in range(6)
        ]
        await rig.kapa.wait_for(lambda: rig.kapa.held >= len(asked), 20)
        rig.kapa.pace = Pace(between_pieces=0.02)
        rig.kapa.release()
        for channel, ts in asked:
            [answer] = await rig.answer(channel, ts, within=30)
            assert markdown(answer).endswith("word59")
        await settled(rig, redis)
    assert 0 < len(rig.called("chat.startStream")) == len(rig.called("chat.stopStream")) <= app.STREAMS_PER_MINUTE
    assert {method: count for method, count in rig.slack.rate_limited.items() if method in STREAM} == {}


async def test_a_stream_has_its_place_until_a_minute_after_its_end(redis: Redis) -> None:
    places = f"{TAG}:streams:T1"
    here, elsewhere = Place("T1", "C1", "1.0"), Place("T2", "C1", "1.0")
    two = Streams(redis, limit=2)
    assert [await two.admit(here, who) for who in ("a", "b", "c")] == [True, True, False]
    assert await two.admit(elsewhere, "c")
    await two.ended(here, "a")
    assert not await two.admit(here, "c")
    seconds, _ = await redis.time()
    ends = await redis.zscore(places, "a")
    assert ends is not None
    assert 55_000 < ends - seconds * 1000 <= 62_000
    await redis.zadd(places, {"a": seconds * 1000 - 1})
    assert await two.admit(here, "c")
    # What never started has no place to give back.
    await two.ended(here, "nobody")
    assert not await two.admit(here, "d")


async def test_a_refusal_is_remembered_for_as_far_as_it_reaches(redis: Redis) -> None:
    here, beside, elsewhere = Place("T1", "C1", "1.0"), Place("T1", "C2", "1.0"), Place("T2", "C1", "1.0")
    many, forgetful = Streams(redis, limit=100), Streams(redis, limit=100, remembers=False)
    await forgetful.refused(here, Extent.WORKSPACE)
    await many.refused(here, Extent.ONCE)
    assert await many.admit(here, "a")
    await many.refused(here, Extent.CHANNEL)
    assert [await many.admit(place, "b") for place in (here, beside, elsewhere)] == [False, True, True]
    await many.refused(beside, Extent.WORKSPACE)
    assert [await many.admit(place, "c") for place in (here, beside, elsewhere)] == [False, False, True]
    assert await forgetful.admit(here, "d")
