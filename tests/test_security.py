"""What SECURITY.md promises: who is believed, who is called, where a token may go, and that no secret ever shows."""

import gzip
import hashlib
import hmac
import inspect
import io
import json
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis
from slack_sdk.signature import SignatureVerifier
from yarl import URL

from bridge import app, redis_client
from bridge.admin import serving
from bridge.kapa.client import KapaClient
from bridge.metrics import Metrics
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.run import bridge_process
from bridge.playground.slack import SimulatedSlack
from bridge.settings import SECRETS, Role, SettingsError, load
from tests.rig import ADA, BOTH_WAYS, GENERAL, PAGES, Rig, free_port, markdown, waiting

EVENT = {"type": "message", "channel": GENERAL, "channel_type": "channel", "user": ADA, "text": "How?"}
EVENT |= {"ts": "1700000000.000100", "event_ts": "1700000000.000100"}
BODY = json.dumps({"type": "event_callback", "team_id": "T0PLAY", "event_id": "Ev1", "event": EVENT}).encode()


def signed(secret: str, body: bytes, *, age: int = 0, kind: str = "application/json") -> dict[str, str]:
    """Give the headers with which Slack sends `body`, `age` seconds ago."""
    timestamp = str(int(time.time()) - age)
    digest = hmac.new(secret.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    return {"Content-Type": kind, "X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}


async def posted(url: str, body: Any, headers: dict[str, str]) -> int:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as reply:
        return reply.status


# Who is believed


def test_signatures_are_compared_in_constant_time() -> None:
    assert "hmac.compare_digest(" in inspect.getsource(SignatureVerifier.is_valid)


async def test_a_signature_counts_for_five_minutes_and_once(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        url = f"http://127.0.0.1:{bridge.ports['events']}/slack/events"
        # The very same signed bytes, again and again within the window, are one question.
        replayed = signed(rig.slack.signing_secret, BODY, age=290)
        assert [await posted(url, BODY, replayed) for _ in range(3)] == [200] * 3
        assert len(await waiting(redis)) == 1
        assert await posted(url, BODY, signed(rig.slack.signing_secret, BODY, age=-290)) == 200
        assert await posted(url, BODY, signed(rig.slack.signing_secret, BODY, age=310)) == 401
        assert await posted(url, BODY, signed(rig.slack.signing_secret, BODY, age=-310)) == 401
        assert await posted(url, BODY, signed("another", BODY)) == 401
        assert len(await waiting(redis)) == 1


async def test_neither_door_opens_the_other(rig: Rig) -> None:
    async with rig.bridge(Role.INGRESS, http=True) as bridge, aiohttp.ClientSession() as session:
        for path in ("/metrics", "/healthz", "/readyz", "/"):
            async with session.get(f"http://127.0.0.1:{bridge.ports['events']}{path}") as reply:
                assert reply.status == 404
        url = f"http://127.0.0.1:{bridge.ports['admin']}/slack/events"
        async with session.post(url, headers=signed(rig.slack.signing_secret, b"")) as reply:
            assert reply.status == 404


# How much is read


@pytest.mark.parametrize("is_said", [True, False], ids=["length said", "chunked"])
async def test_no_more_than_a_mebibyte_is_read(rig: Rig, redis: Redis, is_said: bool) -> None:
    body = BODY[:-1] + b', "padding": "' + b"x" * (1024 * 1024) + b'"}'
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        url = f"http://127.0.0.1:{bridge.ports['events']}/slack/events"
        headers = signed(rig.slack.signing_secret, body)
        assert await posted(url, io.BytesIO(body) if is_said else _in_chunks(body), headers) == 413
        assert await waiting(redis) == []


async def _in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


async def test_compression_does_not_hide_size(rig: Rig, redis: Redis) -> None:
    body = gzip.compress(b" " * 50_000_000)
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        url = f"http://127.0.0.1:{bridge.ports['events']}/slack/events"
        headers = signed(rig.slack.signing_secret, body) | {"Content-Encoding": "gzip"}
        assert await posted(url, body, headers) in {400, 413}
        assert await posted(url, BODY, signed(rig.slack.signing_secret, BODY)) == 200
        assert len(await waiting(redis)) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_body_that_cannot_be_unpacked_is_refused(rig: Rig, encoding: str) -> None:
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        url = f"http://127.0.0.1:{bridge.ports['events']}/slack/events"
        assert await posted(url, b"no such thing", {"Content-Encoding": encoding}) == 400


# Who is called


@BOTH_WAYS
async def test_no_proxy_of_the_environment_hears_a_token(rig: Rig, monkeypatch: pytest.MonkeyPatch, http: bool) -> None:
    heard: list[str] = []

    async def trap(request: web.Request) -> web.Response:
        heard.append(str(request.url))
        return web.Response(status=502)

    server = web.Application()
    server.router.add_route("*", "/{path:.*}", trap)
    async with serving(server, "127.0.0.1", 0) as port:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        async with rig.bridge(http=http):
            _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
    assert "stored in Redis" in markdown(answer)
    assert heard == []


@BOTH_WAYS
@pytest.mark.parametrize("way", ["click", "command"])
async def test_no_address_in_a_payload_is_ever_called(rig: Rig, http: bool, way: str) -> None:
    called: list[str] = []

    async def note(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    server = web.Application()
    server.router.add_route("*", "/{path:.*}", note)
    async with serving(server, "127.0.0.1", 0) as port, rig.bridge(http=http):
        trap = f"http://127.0.0.1:{port}/hook"
        if way == "click":
            click: dict[str, Any] = {
                "type": "block_actions",
                "team": {"id": "T0PLAY"},
                "user": {"id": ADA},
                "response_url": trap,
            }
            click |= {"response_urls": [{"response_url": trap}], "trigger_id": "1.2.3"}
            click |= {"container": {"message_ts": "1700000000.000200", "channel_id": GENERAL}}
            for action in ("up", "kapa_feedback"):
                pressed = {"action_id": action, "value": "downvote", "action_ts": "1700000000.000300"}
                assert (await rig.slack.interact(click | {"actions": [pressed]})).status == 200
        elif http:
            form = {"command": "/ask", "text": "How?", "team_id": "T0PLAY", "user_id": ADA, "response_url": trap}
            body = urlencode(form).encode()
            headers = signed(rig.slack.signing_secret, body, kind="application/x-www-form-urlencoded")
            assert await rig.slack.deliver_raw(body, headers) == (200, "")
        # What is answered after it shows that it was dealt with; links in what people write are not followed either.
        await rig.ask(ADA, GENERAL, f"What is <{trap}|this>?")
        await rig.slack.delivered()
    assert called == []


# Where a token may go

TRICKY = [
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    "http://localhost:80@evil.example",
    "http://127.0.0.1:pass@evil.example",
    "http://evil.example#@127.0.0.1",
    "http://evil.example/@127.0.0.1",
    "http://evil.example?@localhost",
    "http://evil.example\\@127.0.0.1",
    "http://127.0.0.1\\.evil.example",
    "http://127.0.0.1%2eevil.example",
    "http://localhost%00.evil.example",
    "http://localhost.",
    "http://127.1",
    "http://127.1.1",
    "http://0x7f000001",
    "http://0177.0.0.1",
    "http://127.0.0.01",
    "http://2130706433",
    "http://0.0.0.0",
    "http://0",
    "http://[::]",
    "http://[::ffff:10.0.0.1]",
    "http://[::2]",
    "http://[fe80::1]",
    "http://１２７.０.０.１",
    "http://ⓛocalhost",
    "http://10.0.0.1",
    "http://192.168.0.1",
    "http://169.254.169.254",
    "http:/127.0.0.1",
    "http:127.0.0.1",
    "//127.0.0.1",
    "ftp://127.0.0.1",
    "HTTP+unix://127.0.0.1",
]
NAMES = ("kapa_api_url", "slack_api_url")


def accepted(name: str, url: str) -> bool:
    try:
        load(overrides={name: url})
    except SettingsError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("url", TRICKY)
def test_a_token_goes_in_the_clear_to_this_machine_alone(name: str, url: str) -> None:
    for end in ("", "/", "/api/"):
        assert not accepted(name, url + end)


PIECES = ["http", "https", "HTTP", ":", "//", "/", "\\", "@", "#", "?", ".", "[", "]", "%", "%2e", "%40", "\t", "\n"]
PIECES += ["localhost", "127.0.0.1", "127.1", "::1", "::ffff:127.0.0.1", "evil.example", "user", "80", "0", "é", "。"]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), st.sampled_from(["http://", "https://", ""]))
@example("[::1%25evil.example]", "http://")
def test_what_the_settings_take_for_this_machine_the_client_does_too(rest: str, scheme: str) -> None:
    url = f"{scheme}{rest}/api/"
    for name in NAMES:
        if accepted(name, url):
            # aiohttp goes where yarl says.
            host = URL(url).host or ""
            is_here = host == "localhost" or host.startswith(("127.", "::1", "::ffff:127.", "::ffff:7f"))
            assert URL(url).scheme == "https" or is_here, url
            assert URL(url).user is URL(url).password is None, url


# What shows

MARK = "M4rk3r"
MARKED: dict[str, Any] = {
    "slack_bot_token": f"xoxb-{MARK}bot",
    "slack_app_token": f"xapp-{MARK}app",
    "slack_signing_secret": f"{MARK}signing",
    "kapa_api_key": f"{MARK}kapa",
    "redis_url": f"redis://:{MARK}redis@127.0.0.1:1/0",
}


def test_every_secret_is_marked_here() -> None:
    assert set(MARKED) == set(SECRETS)


def test_no_secret_shows_in_what_holds_it() -> None:
    settings = load(overrides=MARKED)
    metrics = Metrics()
    bridge = app.Bridge(settings, Role.ALL, MARKED["redis_url"], redis_client.connect(MARKED["redis_url"]), metrics)
    kapa: KapaClient = app.kapa_client(settings, metrics)
    for thing in (settings, settings.model_dump(), settings.model_dump_json(), vars(settings), kapa):
        assert MARK not in repr(thing)
        assert MARK not in str(thing)
    assert MARK not in repr([getattr(bridge, name) for name in ("settings", "role", "metrics", "ports")])
    # The repr of a client of Redis has its password in it: the bridge's own leaves it out.
    assert MARK not in repr(bridge)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("broken", ["{} with spaces", "{}\nline", "{}\x00", "?{} "])
def test_no_secret_shows_in_what_is_said_of_it(name: str, broken: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(overrides={name: broken.format(MARKED[name])})
    assert name.upper() in str(raised.value)
    assert MARK not in "".join(traceback.format_exception(raised.value))


@asynccontextmanager
async def marked_world(redis_url: str, folder: Path) -> AsyncIterator[Rig]:
    tokens = {name: MARKED[f"slack_{name}"] for name in ("bot_token", "app_token", "signing_secret")}
    slack = SimulatedSlack(limits=None, **tokens)
    kapa = SimulatedKapa(Knowledge(PAGES), api_key=MARKED["kapa_api_key"], pace=Pace(0, 0))
    async with slack.serve(), kapa.serve():
        yield Rig(slack, kapa, redis_url, folder)


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_secret_shows_in_logs_at_any_level_nor_on_a_page(
    redis: Redis, redis_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], log_format: str
) -> None:
    await redis.acl_setuser("marked", enabled=True, passwords=[f"+{MARK}redis"], commands=["+@all"], keys=["*"])
    url = redis_url.replace("unix://", f"unix://marked:{MARK}redis@")
    async with marked_world(url, tmp_path) as rig:
        settings = {"bridge_log_level": "debug", "bridge_log_format": log_format}
        pages = await _pages_of_a_troubled_bridge(rig, redis, settings)
    said = "".join(capfd.readouterr())
    assert "question_accepted" in said
    assert "bridge_stopped" in said
    assert "bridge_work_total" in pages
    assert MARK not in said
    assert MARK not in pages


async def _pages_of_a_troubled_bridge(rig: Rig, redis: Redis, settings: dict[str, Any]) -> str:
    """Run a bridge that is answered with every kind of fault; give all that its pages say."""
    port = free_port()
    async with bridge_process(rig.environment(**(settings | {"bridge_admin_port": port})), rig.folder):
        await rig.slack.wait_for(lambda: rig.slack.sockets, 20)
        rig.kapa.fault("500")
        rig.slack.fault("chat.postMessage", "drop_after")
        await rig.answer(GENERAL, await rig.slack.say(ADA, GENERAL, "How are threads stored?"), within=20)
        rig.kapa.fault("502html")
        await rig.answer(GENERAL, await rig.slack.say(ADA, GENERAL, "And keys?"), within=20)
        # Redis throws everybody out, and lets the bridge in again.
        await redis.client_kill_filter(_type="normal", skipme=True)
        await rig.answer(GENERAL, await rig.slack.say(ADA, GENERAL, "How are keys rotated?"), within=20)
        async with aiohttp.ClientSession() as session:
            return "".join([await _page(session, port, path) for path in ("", "healthz", "readyz", "metrics")])


async def _page(session: aiohttp.ClientSession, port: int, path: str) -> str:
    async with session.get(f"http://127.0.0.1:{port}/{path}") as reply:
        return f"{dict(reply.headers)}{await reply.text()}"


@pytest.mark.parametrize("name", [name for name in SECRETS if name != "redis_url"])
def test_a_token_that_no_header_can_carry_is_refused_at_once(name: str) -> None:
    for odd in ("é", "日本", "١"):
        with pytest.raises(SettingsError):
            load(overrides={name: MARKED[name] + odd})
