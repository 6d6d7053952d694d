"""Socket Mode: whatever happens to the connection, the bridge hears again; and a wrong token is said at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from bridge import app
from bridge.app import Bridge, StartError
from bridge.settings import Role
from bridge.slack import socket
from tests.rig import ADA, GENERAL, GRACE, HELP, Rig, markdown, waiting
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def quick_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "PING_SECONDS", 0.1)
    monkeypatch.setattr(socket, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(socket, "MEND_SECONDS", 0.3)
    monkeypatch.setattr(socket, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(socket, "LONGEST_PAUSE_SECONDS", 0.05)


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """Give a rig whose Slack soon gives up on a connection that does not acknowledge."""
    async with Rig.serving(redis_url, tmp_path, ack_seconds=0.2) as rig:
        yield rig


async def assert_hears_again(rig: Rig, redis: Redis, text: str = "How?") -> None:
    """Say something until it arrives: Slack too sends again what a lost connection did not acknowledge."""
    ts = await rig.slack.say(ADA, GENERAL, text)
    await rig.slack.delivered()

    async def arrived() -> bool:
        if any(question.id == ts for question in await waiting(redis)):
            return True
        if rig.slack.sockets:
            last = next(d for d in reversed(rig.slack.deliveries) if d.event_id)
            rig.slack.redeliver(last.event_id)
            await rig.slack.delivered()
        return False

    await eventually(arrived)


def opened(rig: Rig) -> int:
    return len(rig.called("apps.connections.open"))


SHOCKS: dict[str, Callable[[Rig], None]] = {
    "the connection breaks": lambda rig: rig.slack.drop_sockets(),
    "the connection goes silent": lambda rig: rig.slack.silence(),
}


@pytest.mark.parametrize("name", SHOCKS)
async def test_a_lost_connection_is_replaced(rig: Rig, redis: Redis, name: str) -> None:
    async with rig.bridge(Role.INGRESS):
        before = opened(rig)
        SHOCKS[name](rig)
        await rig.slack.wait_for(lambda: opened(rig) > before, 15)
        await rig.slack.wait_for(lambda: rig.slack.sockets, 15)
        await assert_hears_again(rig, redis)


@pytest.mark.parametrize("reason", ["warning", "refresh_requested", "link_disabled", "too_many_websockets"])
async def test_a_disconnect_frame_is_followed(rig: Rig, redis: Redis, reason: str) -> None:
    async with rig.bridge(Role.INGRESS):
        before = opened(rig)
        await rig.slack.send_disconnect(reason)
        await rig.slack.wait_for(lambda: opened(rig) > before, 15)
        await assert_hears_again(rig, redis)


async def test_a_warning_and_a_refresh_at_once(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS):
        await rig.slack.send_disconnect("warning")
        await rig.slack.send_disconnect("refresh_requested")
        await rig.slack.wait_for(lambda: opened(rig) >= 3, 15)
        await assert_hears_again(rig, redis)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_refused_upgrade_does_not_end_the_hearing(rig: Rig, redis: Redis, times: int) -> None:
    # The ticket of a refused upgrade is spent: asking with it again would be refused for ever.
    async with rig.bridge(Role.INGRESS):
        rig.slack.refuse_upgrades(times)
        rig.slack.drop_sockets()
        await rig.slack.wait_for(lambda: rig.slack.sockets, 20)
        await assert_hears_again(rig, redis)


async def test_an_upgrade_refused_at_the_start(rig: Rig, redis: Redis) -> None:
    rig.slack.refuse_upgrades(2)
    async with rig.bridge(Role.INGRESS):
        await assert_hears_again(rig, redis)


@pytest.mark.parametrize("fault", ["500", "429", "drop_before", "garbage", "internal_error"])
async def test_an_address_that_is_not_given_is_asked_for_again(rig: Rig, redis: Redis, fault: str) -> None:
    async with rig.bridge(Role.INGRESS):
        rig.slack.fault("apps.connections.open", fault, 3)
        rig.slack.drop_sockets()
        await rig.slack.wait_for(lambda: rig.slack.sockets, 20)
        await assert_hears_again(rig, redis)


async def test_an_address_that_never_comes_is_asked_for_again(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS):
        rig.slack.fault("apps.connections.open", "hang")
        rig.slack.drop_sockets()
        await rig.slack.wait_for(lambda: rig.slack.sockets, 20)
        await assert_hears_again(rig, redis)


async def test_what_was_asked_while_nobody_heard_is_answered_once(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        rig.slack.drop_sockets()
        ts = await rig.slack.say(GRACE, HELP, "How are threads stored?")
        await rig.slack.delivered()
        await rig.slack.wait_for(lambda: rig.slack.sockets, 15)
        for _ in range(2):
            rig.slack.redeliver(next(d for d in reversed(rig.slack.deliveries) if d.type == "message").event_id)
            await rig.slack.delivered()
        [answer] = await rig.answer(HELP, ts)
        assert "stored in Redis" in markdown(answer)
    assert len(rig.kapa.asked) == 1


async def test_readiness_follows_the_connection(rig: Rig) -> None:

    async def status(bridge: Bridge) -> int:
        url = f"http://127.0.0.1:{bridge.ports['admin']}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return reply.status

    async with rig.bridge(Role.INGRESS) as bridge:

        async def is_ready() -> bool:
            return await status(bridge) == 200

        async def is_not_ready() -> bool:
            return await status(bridge) == 503

        await eventually(is_ready)
        rig.slack.fault("apps.connections.open", "500", 1_000)
        rig.slack.drop_sockets()
        await eventually(is_not_ready)
        rig.slack.clear_faults()
        await eventually(is_ready)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"slack_app_token": "xapp-wrong"}, "SLACK_APP_TOKEN"),
        ({"slack_bot_token": "xoxb-wrong"}, "SLACK_BOT_TOKEN"),
    ],
)
async def test_a_wrong_token_is_said_at_the_start(rig: Rig, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError, match=named) as caught:
        async with asyncio.timeout(10), rig.bridge(**settings):
            pytest.fail("it started")
    assert "wrong" not in str(caught.value)
    assert rig.slack.sockets == 0


async def test_slack_may_be_away_at_the_start(rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(app, "START_AGAIN_SECONDS", 0.01)
    rig.slack.fault("auth.test", "500", 2)
    rig.slack.fault("apps.connections.open", "502", 2)
    async with rig.bridge(Role.INGRESS):
        await assert_hears_again(rig, redis)
