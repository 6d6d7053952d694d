"""The HTTP door: who may knock, what is refused, and that nothing is acknowledged before it is kept."""

import asyncio
import hashlib
import hmac
import io
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.embedded_redis import EmbeddedRedis
from bridge.redis_client import PROBE
from bridge.settings import Role
from bridge.slack import app as slack_app
from tests.rig import ADA, BOTH_WAYS, GENERAL, Rig, count, markdown, waiting

EVENT = {
    "type": "message",
    "channel": GENERAL,
    "channel_type": "channel",
    "user": ADA,
    "text": "How?",
    "ts": "1700000000.000100",
    "event_ts": "1700000000.000100",
}
BODY: dict[str, Any] = {"type": "event_callback", "team_id": "T0PLAY", "event_id": "Ev1", "event": EVENT}


@pytest.fixture
async def door(rig: Rig) -> AsyncIterator[Rig]:
    """Give a rig whose bridge takes events in over HTTP, and leaves them in the inbox."""
    async with rig.bridge(Role.INGRESS, http=True):
        yield rig


async def kept(redis: Redis) -> set[str]:
    """Name what is in Redis, but for the key that only shows whether Redis takes writes."""
    return {str(key) for key in await redis.keys("*")} - {PROBE}


def raw(body: object) -> bytes:
    return json.dumps(body).encode()


def headers(rig: Rig, body: bytes, **changes: str | None) -> dict[str, str]:
    given = rig.slack.sign(body) | {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in given.items() if value is not None}


def signature(rig: Rig, timestamp: str, body: bytes) -> str:
    digest = hmac.new(rig.slack.signing_secret.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256)
    return f"v0={digest.hexdigest()}"


def signed(rig: Rig, body: bytes) -> dict[str, str]:
    timestamp = str(int(time.time()))
    return {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": signature(rig, timestamp, body),
    }


async def test_a_signed_event_is_taken_in(door: Rig, redis: Redis) -> None:
    assert await door.slack.deliver_raw(raw(BODY)) == (200, "")
    assert [question.text for question in await waiting(redis)] == ["How?"]


async def test_a_redelivery_is_acknowledged_and_not_asked_again(door: Rig, redis: Redis) -> None:
    for number in range(3):
        retry = {"X_Slack_Retry_Num": str(number), "X_Slack_Retry_Reason": "http_timeout"} if number else {}
        status, _ = await door.slack.deliver_raw(raw(BODY), headers(door, raw(BODY), **retry))
        assert status == 200
    assert len(await waiting(redis)) == 1


async def test_a_redelivery_is_taken_in_when_the_first_delivery_was_not(door: Rig, redis: Redis) -> None:
    retry = headers(door, raw(BODY), X_Slack_Retry_Num="1", X_Slack_Retry_Reason="connection_failed")
    assert await door.slack.deliver_raw(raw(BODY), retry) == (200, "")
    assert len(await waiting(redis)) == 1


WRONG: dict[str, dict[str, str | None]] = {
    "no signature": {"X_Slack_Signature": None},
    "empty signature": {"X_Slack_Signature": ""},
    "another's signature": {"X_Slack_Signature": "v0=" + "0" * 64},
    "odd signature": {"X_Slack_Signature": "v0=\u00e9"},
    "no timestamp": {"X_Slack_Request_Timestamp": None},
    "empty timestamp": {"X_Slack_Request_Timestamp": ""},
    "wordy timestamp": {"X_Slack_Request_Timestamp": "yesterday"},
    "fractional timestamp": {"X_Slack_Request_Timestamp": "1700000000.5"},
    "odd digits": {"X_Slack_Request_Timestamp": "1\u00b2"},
    "endless timestamp": {"X_Slack_Request_Timestamp": "9" * 5_000},
    "another time": {"X_Slack_Request_Timestamp": str(int(time.time()) - 1)},
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_signature_is_refused(door: Rig, redis: Redis, name: str) -> None:
    status, text = await door.slack.deliver_raw(raw(BODY), headers(door, raw(BODY), **WRONG[name]))
    assert status == 401
    assert "Traceback" not in text
    assert await kept(redis) == set()


@pytest.mark.parametrize("seconds", [-301, 301], ids=["old", "of the future"])
async def test_a_replayed_signature_is_refused(door: Rig, redis: Redis, seconds: int) -> None:
    timestamp = str(int(time.time()) + seconds)
    signed = {"X_Slack_Request_Timestamp": timestamp, "X_Slack_Signature": signature(door, timestamp, raw(BODY))}
    status, _ = await door.slack.deliver_raw(raw(BODY), headers(door, raw(BODY), **signed))
    assert status == 401
    assert await kept(redis) == set()


async def test_a_signature_of_another_body_is_refused(door: Rig, redis: Redis) -> None:
    other = raw({**BODY, "event": {**EVENT, "text": "Something else"}})
    status, _ = await door.slack.deliver_raw(other, headers(door, raw(BODY)))
    assert status == 401
    assert await kept(redis) == set()


MALFORMED = {
    "no JSON": b'{"type": "event_callback", ',
    "no text": b"\xff\xfe{}",
    "a list": b"[]",
    "a string": b'"event_callback"',
    "null": b"null",
    "a deep well": b"[" * 100_000,
    "null event": raw({**BODY, "event": None}),
    "no event": raw({"type": "event_callback"}),
    "event a string": raw({**BODY, "event": "message"}),
    "event a list": raw({**BODY, "event": [EVENT]}),
    "event without a type": raw({**BODY, "event": {"channel": GENERAL}}),
    "event of an odd type": raw({**BODY, "event": {**EVENT, "type": 7}}),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_has_no_shape_is_refused_for_good(door: Rig, redis: Redis, name: str) -> None:
    body = MALFORMED[name]
    url, head = events_url(door), signed(door, body)
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=head) as reply:
        text = await reply.text()
    if name == "no text":
        # Nothing but text can be signed.
        assert reply.status == 401
    else:
        assert reply.status == 400
        assert reply.headers["X-Slack-No-Retry"] == "1"
    assert "Traceback" not in text
    assert await kept(redis) == set()


def events_url(rig: Rig) -> str:
    return str(next(rig.slack._courier._urls))  # type: ignore[arg-type] # subscribed by the rig


ODD = {
    "a field of another kind": {**BODY, "team_id": ["T0PLAY"]},
    "authorizations of another kind": {**BODY, "authorizations": {"team_id": "T0PLAY"}},
    "authorizations of strings": {**BODY, "authorizations": ["T0PLAY"]},
    "null authorizations": {**BODY, "authorizations": None},
    "no authorizations": {**BODY, "authorizations": []},
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_envelope_is_taken_in_or_refused_for_good(door: Rig, redis: Redis, name: str) -> None:
    status, _ = await door.slack.deliver_raw(raw(ODD[name]))
    assert status in {200, 400}
    assert len(await waiting(redis)) == (status == 200)
    if name in {"null authorizations", "no authorizations"}:
        assert status == 200


async def test_a_huge_body_is_refused(door: Rig, redis: Redis) -> None:
    body = raw({**BODY, "padding": "x" * 1_100_000})
    url, data = events_url(door), io.BytesIO(body)
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=signed(door, body)) as reply:
        assert reply.status == 413
    assert await kept(redis) == set()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_only_posts_are_taken(door: Rig, method: str) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, events_url(door)) as reply:
        assert reply.status == 405


async def test_other_addresses_do_not_exist(door: Rig) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{events_url(door)}/more") as reply:
        assert reply.status == 404


async def test_slack_may_verify_the_address(door: Rig) -> None:
    body = raw({"type": "url_verification", "token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWM"})
    status, text = await door.slack.deliver_raw(body)
    assert status == 200
    assert "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWM" in text
    status, _ = await door.slack.deliver_raw(body, headers(door, body, X_Slack_Signature="v0=0"))
    assert status == 401


PAYLOADS: dict[str, bytes] = {
    "an unknown type": raw({"type": "something_new"}),
    "no type": raw({"team_id": "T0PLAY"}),
    "an odd type": raw({"type": {"a": 1}}),
    "an event of an unknown type": raw({**BODY, "event": {"type": "something_new", "user": ADA}}),
    "app_home_opened": raw({**BODY, "event": {"type": "app_home_opened", "user": ADA, "tab": "messages"}}),
    "tokens_revoked": raw({**BODY, "event": {"type": "tokens_revoked", "tokens": {"bot": ["U0BRIDGE"]}}}),
    "a rate limit": raw({"type": "app_rate_limited", "team_id": "T0PLAY", "minute_rate_limited": 1_700_000_000}),
}
CLICK: dict[str, Any] = {
    "type": "block_actions",
    "team": {"id": "T0PLAY"},
    "user": {"id": ADA},
    "actions": [{"type": "button", "action_id": "up", "block_id": "votes", "value": "1"}],
}
FORMS = {
    "a command": urlencode({"command": "/ask", "text": "How?", "team_id": "T0PLAY", "user_id": ADA}).encode(),
    "a click": urlencode({"payload": json.dumps(CLICK)}).encode(),
    "a certificate check": b"ssl_check=1&token=x",
}


@BOTH_WAYS
async def test_what_the_bridge_has_no_use_for_is_acknowledged(rig: Rig, redis: Redis, http: bool) -> None:
    async with rig.bridge(Role.INGRESS, http=http):
        rig.slack.deliver({"type": "something_new", "user": ADA})
        assert (await rig.slack.interact(CLICK)).status == 200
        await rig.slack.delivered()
        assert {delivery.status for delivery in rig.slack.deliveries} == {200}
        assert await kept(redis) == set()


@pytest.mark.parametrize("name", [*PAYLOADS, *FORMS])
async def test_payloads_that_are_no_question(door: Rig, redis: Redis, name: str) -> None:
    body = PAYLOADS.get(name) or FORMS[name]
    kind = "application/json" if name in PAYLOADS else "application/x-www-form-urlencoded"
    with capture_logs() as logs:
        status, text = await door.slack.deliver_raw(body, headers(door, body, Content_Type=kind))
    assert status == 200
    assert "How?" not in text
    assert await kept(redis) == set()
    limited = [line for line in logs if line["event"] == "events_rate_limited"]
    assert [line["minute"] for line in limited] == ([1_700_000_000] if name == "a rate limit" else [])


@pytest.mark.parametrize("payload", ["{not json", "[]", json.dumps({**CLICK, "actions": []})])
async def test_a_form_without_shape_is_refused(door: Rig, payload: str) -> None:
    body = urlencode({"payload": payload}).encode()
    form = headers(door, body, Content_Type="application/x-www-form-urlencoded")
    status, _ = await door.slack.deliver_raw(body, form)
    assert status == 400


# Kept before it is acknowledged


@asynccontextmanager
async def breakable(folder: Path, ack_seconds: float) -> AsyncIterator[tuple[Rig, asyncio.Event]]:
    """Give a rig on a Redis that, once it died, comes back only when the event is set."""
    may_return = asyncio.Event()
    may_return.set()

    async def nap(seconds: float) -> None:
        await may_return.wait()
        await asyncio.sleep(min(seconds, 0.02))

    embedded = EmbeddedRedis(folder / "breakable", sleep=nap)
    async with embedded.own() as url, Rig.serving(url, folder, ack_seconds=ack_seconds) as rig:
        try:
            yield rig, may_return
        finally:
            may_return.set()


def server_pid(folder: Path) -> int:
    return int((folder / "breakable" / "redis.lock").read_text())


@BOTH_WAYS
async def test_nothing_is_acknowledged_while_redis_is_down(tmp_path: Path, http: bool) -> None:
    # A socket's acknowledgement does not come; over HTTP Slack's own three seconds show that the refusal is quick.
    async with breakable(tmp_path, 3.0 if http else 0.2) as (rig, may_return), rig.bridge(http=http) as bridge:
        may_return.clear()
        os.kill(server_pid(tmp_path), signal.SIGKILL)
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.slack.delivered()
        assert len(rig.slack.deliveries) == 4
        assert {delivery.status for delivery in rig.slack.deliveries} == ({503} if http else {0})
        assert count(bridge, "events_total", result="failed") >= 4
        assert rig.replies(GENERAL, ts) == []
        may_return.set()
        await back(bridge.redis)
        rig.slack.redeliver(rig.slack.deliveries[-1].event_id)
        [answer] = await rig.answer(GENERAL, ts)
        assert "stored in Redis" in markdown(answer)
    assert len(rig.kapa.asked) == 1


async def back(redis: Redis) -> None:
    """Wait until Redis answers again."""
    async with asyncio.timeout(10):
        while True:
            try:
                await redis.ping()
            except Exception:  # noqa: BLE001 - whatever it is, it is not back
                await asyncio.sleep(0.01)
            else:
                return


@BOTH_WAYS
async def test_a_redis_that_hangs_is_not_waited_for(
    tmp_path: Path, http: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_app, "TAKE_IN_SECONDS", 0.1)
    async with breakable(tmp_path, 3.0 if http else 0.3) as (rig, _), rig.bridge(Role.INGRESS, http=http) as bridge:
        pid = server_pid(tmp_path)
        os.kill(pid, signal.SIGSTOP)
        try:
            ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
            await rig.slack.delivered()
            assert {delivery.status for delivery in rig.slack.deliveries} == ({503} if http else {0})
        finally:
            os.kill(pid, signal.SIGCONT)
        # Some of the deliveries may have reached Redis after all; together they are one question.
        rig.slack.redeliver(rig.slack.deliveries[-1].event_id)
        await rig.slack.delivered()
        assert rig.slack.deliveries[-1].status == 200
        assert [question.id for question in await waiting(bridge.redis)] == [ts]
