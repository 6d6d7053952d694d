"""A channel that floods does not starve another: neither of the workers' slots nor of Kapa's requests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bridge import app
from bridge.inbox import TICKETS_OF_A_CHANNEL
from bridge.settings import Role
from tests.rig import ADA, GENERAL, GRACE, HELP, Rig, markdown, settled

FLOOD = 40


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """Both worlds, with a Slack that takes any number of calls."""
    async with Rig.serving(redis_url, tmp_path, limits=None) as rig:
        rig.kapa.answer_with(lambda asked: f"You said: {asked.query}")
        yield rig


async def flood(rig: Rig) -> list[str]:
    return [await rig.slack.say(ADA, GENERAL, f"flood {number}") for number in range(FLOOD)]


async def test_a_flood_leaves_slots_to_another_channel(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(kapa_requests_per_minute=0):
        rig.kapa.hold()
        asked = await flood(rig)
        await rig.kapa.wait_for(lambda: rig.kapa.held == TICKETS_OF_A_CHANNEL)
        await rig.slack.say(GRACE, HELP, "quiet")
        await rig.kapa.wait_for(lambda: rig.kapa.asked[-1].query == "quiet")
        assert rig.kapa.held == TICKETS_OF_A_CHANNEL + 1
        rig.kapa.release()
        for number, ts in enumerate(asked):
            assert list(map(markdown, await rig.answer(GENERAL, ts, within=30))) == [f"You said: flood {number}"]
        await settled(rig, redis)


async def test_a_flood_leaves_requests_to_another_channel(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "KAPA_WINDOW_SECONDS", 1.0)
    limit = 8
    # Two workers share one budget, and each has slots enough for all that a channel may have.
    async with rig.bridge(Role.INGRESS):
        asked = await flood(rig)
        await rig.slack.delivered()
        async with (
            rig.bridge(Role.WORKER, kapa_requests_per_minute=limit),
            rig.bridge(Role.WORKER, kapa_requests_per_minute=limit),
        ):
            await rig.kapa.wait_for(lambda: len(rig.kapa.asked) == limit)
            quiet = await rig.slack.say(GRACE, HELP, "quiet")
            await rig.answer(HELP, quiet, within=30)
            before = [asked.query for asked in rig.kapa.asked].index("quiet")
            for ts in asked:
                await rig.answer(GENERAL, ts, within=30)
            await settled(rig, redis)
    # It was among the requests of the next window or two, and not behind all that the flood still had to ask.
    assert before <= 2 * limit
    assert len(rig.kapa.asked) == FLOOD + 1
    times = [asked.at for asked in rig.kapa.asked]
    # Requests reach Kapa a little after their grant: one more than the limit may fall into a window of this length.
    assert min(later - earlier for earlier, later in zip(times, times[limit + 1 :], strict=False)) > 0.5
