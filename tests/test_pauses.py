"""Pauses on a real Redis, and what they do to whole bridges that share one: who is limited waits, and nobody else."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

import bridge.pauses
from bridge import redis_client
from bridge.dead_letters import DeadLetters
from bridge.inbox import TAG
from bridge.pauses import Pauses
from bridge.playground.slack import SlackLimits
from bridge.settings import Role
from tests.rig import ADA, GENERAL, GRACE, HELP, PRIVATE, Rig, hurry, markdown, settled
from tests.waiting import PATIENCE, eventually

LONG = 3600.0
KEY = f"{TAG}:paused:T0PLAY"
LATER = f"{TAG}:question:later"


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    # So that it is certain who has heard of a pause.
    monkeypatch.setattr(bridge.pauses, "FRESH_SECONDS", 0.0)


@pytest.fixture
def pauses(redis: Redis) -> Pauses:
    return Pauses(redis, "T0PLAY")


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=PATIENCE)


# The pauses themselves


async def test_nothing_is_paused_at_first(pauses: Pauses, redis: Redis) -> None:
    assert await pauses.left(["a", "b"]) == 0
    assert await redis.keys() == []


@pytest.mark.parametrize(
    ("scopes", "left"),
    [(["a"], 100), (["b"], 1000), (["a", "b"], 1000), (["b", "a"], 1000), (["a", "c"], 100), (["c"], 0), (["a "], 0)],
)
async def test_the_longest_pause_of_all_scopes_counts(pauses: Pauses, scopes: list[str], left: float) -> None:
    await pauses.pause("a", 100)
    await pauses.pause("b", 1000)
    assert await pauses.left(scopes) == about(left)
    assert (await pauses.left(scopes) > 0) is (left > 0)


@pytest.mark.parametrize(("asked_for", "left"), [([100, 1000], 1000), ([1000, 100], 1000), ([1000, 1000, 0.001], 1000)])
async def test_a_longer_pause_that_lasts_is_kept(pauses: Pauses, asked_for: list[float], left: float) -> None:
    for seconds in asked_for:
        assert await pauses.pause("a", seconds) == {"a"}
    assert await pauses.left(["a"]) == about(left)


async def test_a_pause_is_everyones(pauses: Pauses, redis_url: str) -> None:
    async with redis_client.connect(redis_url) as other:
        assert await Pauses(other, "T0PLAY").pause("a", 100) == {"a"}
        assert await Pauses(other, "T0OTHER").left(["a"]) == 0
        assert await Pauses(other, "T0PLAY").pause("b", 10) == {"a", "b"}
    assert await pauses.left(["a"]) == about(100)


async def test_what_is_over_is_forgotten(pauses: Pauses, redis: Redis) -> None:
    await pauses.pause("a", 100)
    await redis.zadd(KEY, {"a": 1_700_000_000_000, "b": 1_700_000_000_000})
    assert await pauses.left(["a", "b"]) == 0
    assert await pauses.pause("c", 100) == {"c"}
    assert await redis.zrange(KEY, 0, -1) == ["c"]


async def test_what_is_remembered_lives_as_long_as_the_longest_pause(pauses: Pauses, redis: Redis) -> None:
    await pauses.pause("a", 1000)
    await pauses.pause("b", 100)
    assert await redis.pttl(KEY) == pytest.approx(1_000_000, abs=PATIENCE * 1000)


async def test_a_pause_ends_by_itself(pauses: Pauses, redis: Redis) -> None:
    await pauses.pause("a", 0.05)

    async def is_over() -> bool:
        return await pauses.left(["a"]) == 0

    await eventually(is_over)

    async def is_gone() -> bool:
        return not await redis.exists(KEY)

    await eventually(is_gone)


async def test_what_was_learned_is_fresh_for_a_moment(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge.pauses, "FRESH_SECONDS", 1.0)
    now = 1000.0
    pauses, other = Pauses(redis, "T0PLAY", clock=lambda: now), Pauses(redis, "T0PLAY")
    await pauses.refresh()
    await other.pause("a", 100)
    now += 0.9
    assert await pauses.left(["a"]) == 0
    now += 0.1
    assert await pauses.left(["a"]) == about(100)
    # It runs down by the process' own clock, and what this process is asked itself counts at once.
    now += 0.5
    assert 0 < await pauses.left(["a"]) <= 99.5
    await pauses.pause("b", 1000)
    assert await pauses.left(["a", "b"]) == about(1000)


async def test_a_pause_that_is_made_while_they_are_read_is_known_at_once(pauses: Pauses, redis: Redis) -> None:
    _, made, _ = await asyncio.gather(pauses.refresh(), pauses.pause("a", 100), pauses.refresh())
    assert made == {"a"}
    assert await pauses.left(["a"]) == about(100)


async def test_a_pause_ends_no_sooner_because_the_way_to_redis_is_long(redis: Redis) -> None:
    times = iter([1000.0, 1005.0, 1005.0])
    await Pauses(redis, "T0PLAY").pause("a", 3)
    assert await Pauses(redis, "T0PLAY", clock=lambda: next(times)).left(["a"]) == pytest.approx(3, abs=1)


# Whole bridges


async def paused(redis: Redis, *scopes: str) -> None:
    """Wait until these scopes are paused, and no others."""

    async def are_paused() -> bool:
        return set(await redis.zrange(KEY, 0, -1)) == set(scopes)

    await eventually(are_paused)


async def put_off(redis: Redis, count: int) -> None:
    """Wait until so many questions have been tried and wait."""

    async def are_waiting() -> bool:
        return int(await redis.zcard(LATER)) == count

    await eventually(are_waiting)


async def let_it_be_over(redis: Redis) -> None:
    """End all pauses, and the waits for their end."""
    await redis.delete(KEY)
    for line in await redis.zrange(LATER, 0, -1):
        await redis.zadd(LATER, {str(line): 0})


def posts(rig: Rig, channel: str) -> int:
    return [call["channel"] for call in rig.called("chat.postMessage")].count(channel)


async def test_no_worker_posts_where_one_was_limited_and_all_go_on_elsewhere(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="off"), rig.bridge(Role.WORKER, bridge_streaming="off"):
        rig.slack.fault("chat.postMessage", "429", retry_after="3600")
        asked = [await rig.slack.say(ADA, GENERAL, "How are threads stored?")]
        await paused(redis, f"chat.postMessage {GENERAL}")
        asked += [await rig.slack.say(GRACE, GENERAL, "How are threads stored?") for _ in range(7)]
        await put_off(redis, len(asked))
        for channel in (HELP, PRIVATE, "D0ADA"):
            _, answer = await rig.ask(ADA, channel, "How are threads stored?")
            assert "stored in Redis" in markdown(answer)
        assert posts(rig, GENERAL) == 1
        await let_it_be_over(redis)
        for ts in asked:
            [answer] = await rig.answer(GENERAL, ts)
            assert "stored in Redis" in markdown(answer)
        await settled(rig, redis)
        assert posts(rig, GENERAL) == 1 + len(asked)
    # The answers were kept: Kapa was asked for each of them once, and no waiting was a failure.
    assert len(rig.kapa.asked) == len(asked) + 3
    assert await DeadLetters(redis).read() == []


async def test_a_worker_that_starts_later_keeps_the_pause(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS):
        async with rig.bridge(Role.WORKER, bridge_streaming="off"):
            rig.slack.fault("chat.postMessage", "429", retry_after="3600")
            await rig.slack.say(ADA, GENERAL, "How are threads stored?")
            await put_off(redis, 1)
        async with rig.bridge(Role.WORKER, bridge_streaming="off"):
            await rig.slack.say(ADA, GENERAL, "How are keys rotated?")
            await put_off(redis, 2)
            assert posts(rig, GENERAL) == 1


async def test_a_limit_that_two_channels_meet_is_the_workspaces(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="off"), rig.bridge(Role.WORKER, bridge_streaming="off"):
        rig.slack.fault("chat.postMessage", "429", 2, retry_after="3600")
        places = [
            (channel, await rig.slack.say(ADA, channel, "How are threads stored?")) for channel in (GENERAL, HELP)
        ]
        await paused(redis, f"chat.postMessage {GENERAL}", f"chat.postMessage {HELP}", "chat.postMessage")
        places.append((PRIVATE, await rig.slack.say(ADA, PRIVATE, "How are threads stored?")))
        await put_off(redis, 3)
        assert len(rig.called("chat.postMessage")) == 2
        await let_it_be_over(redis)
        for channel, ts in places:
            [answer] = await rig.answer(channel, ts)
            assert "stored in Redis" in markdown(answer)


async def draft_in(rig: Rig, channel: str) -> str:
    """Ask, and hold the answer back once its draft is there."""
    rig.kapa.hold(after_pieces=1)
    ts = await rig.slack.say(ADA, channel, "How are threads stored?")
    await rig.slack.wait_for(lambda: rig.replies(channel, ts))
    return ts


async def test_edits_that_are_limited_keep_no_post_from_going_out(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="edit"), rig.bridge(Role.WORKER, bridge_streaming="edit"):
        here = await draft_in(rig, GENERAL)
        rig.slack.fault("chat.update", "429", retry_after="3600")
        rig.kapa.release()
        await put_off(redis, 1)
        await paused(redis, "chat.update")
        # Its first draft is posted; its end waits like that of the other.
        there = await draft_in(rig, HELP)
        rig.kapa.release()
        await put_off(redis, 2)
        assert len(rig.called("chat.update")) == 1
        await let_it_be_over(redis)
        for channel, ts in ((GENERAL, here), (HELP, there)):
            [answer] = await rig.answer(channel, ts)
            assert "stored in Redis" in markdown(answer)
    assert len(rig.kapa.asked) == 2


async def test_a_status_line_is_left_out_while_it_is_limited(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(bridge_streaming="off"):
        await Pauses(redis, "T0PLAY").pause("assistant.threads.setStatus", LONG)
        rig.kapa.hold()
        with capture_logs() as logs:
            ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
            await eventually(lambda: any(entry["event"] == "status_failed" for entry in logs))
        rig.kapa.release()
        [answer] = await rig.answer(GENERAL, ts)
        assert "stored in Redis" in markdown(answer)
        await settled(rig, redis)
    assert rig.called("assistant.threads.setStatus") == []


async def test_a_flood_in_one_channel_is_answered_at_slacks_pace(redis_url: str, tmp_path: Path, redis: Redis) -> None:
    limits = SlackLimits(per_minute={}, posts_per_second=1, post_burst=2)
    async with Rig.serving(redis_url, tmp_path, limits=limits) as rig:
        async with rig.bridge(bridge_streaming="off"), rig.bridge(Role.WORKER, bridge_streaming="off"):
            flood = [await rig.slack.say(ADA, GENERAL, "How are threads stored?") for _ in range(5)]
            _, answer = await rig.ask(GRACE, HELP, "How are keys rotated?")
            assert "Rotate keys" in markdown(answer)
            for ts in flood:
                [answer] = await rig.answer(GENERAL, ts, within=30)
                assert "stored in Redis" in markdown(answer)
            await settled(rig, redis)
        assert rig.slack.rate_limited["chat.postMessage"] > 0
        assert len(rig.kapa.asked) == 6
