import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from bridge import __version__, admin, app
from bridge.metrics import Metrics
from bridge.settings import Role, load
from tests.rig import ADA, GENERAL, Rig
from tests.waiting import eventually


async def get(url: str, path: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as reply:
        return reply.status, reply.content_type, await reply.text()


async def ask_until(url: str, path: str, is_there: Callable[[int, str], bool]) -> str:
    """Ask again and again until the answer is as it should be; give its text."""

    async def ask() -> str | None:
        try:
            status, _, text = await get(url, path)
        except aiohttp.ClientConnectionError:
            return None
        return text if is_there(status, text) else None

    return str(await eventually(ask))


@asynccontextmanager
async def served(states: dict[str, bool], metrics: Metrics) -> AsyncIterator[str]:
    def check(name: str) -> admin.Check:
        async def passes() -> bool:
            return states[name]

        return passes

    async with admin.serving(admin.routes({name: check(name) for name in states}, metrics), "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def test_ready_is_when_every_check_passes() -> None:
    states = {"redis": True, "slack": True}
    async with served(states, Metrics()) as url:
        assert await get(url, "/readyz") == (200, "application/json", json.dumps(states))
        states["slack"] = False
        status, _, text = await get(url, "/readyz")
        assert (status, json.loads(text)) == (503, {"redis": True, "slack": False})
        # Alive it is all the same.
        assert await get(url, "/healthz") == (200, "text/plain", "ok\n")


async def test_the_page_shows_checks_and_counts() -> None:
    states, metrics = {"redis": True, "<slack>": False}, Metrics()
    metrics.event("accepted")
    metrics.event("accepted")
    metrics.slack_call("chat.update", "ok", 0.2)
    async with served(states, metrics) as url:
        status, kind, page = await get(url, "/")
    assert (status, kind) == (200, "text/html")
    assert f"bridge {__version__}: not ready" in page
    assert "<td>redis</td><td>yes</td>" in page
    assert "<td>&lt;slack&gt;</td><td>no</td>" in page
    assert "<td>bridge_events accepted</td><td>2</td>" in page
    assert "<td>bridge_slack_call_seconds chat.update ok</td><td>1</td>" in page


async def test_a_fresh_page_says_that_nothing_was_counted() -> None:
    async with served({"redis": True}, Metrics()) as url:
        _, _, page = await get(url, "/")
    assert f"bridge {__version__}: ready" in page
    assert "Nothing yet." in page


async def test_metrics_are_prometheus_s() -> None:
    metrics = Metrics()
    metrics.event("accepted")
    metrics.work("question", "answered")
    metrics.kapa_call("chat_stream", "ok", 3.0)
    metrics.slack_call("chat.update", "busy", 0.01)
    async with served({}, metrics) as url:
        status, kind, text = await get(url, "/metrics")
    assert (status, kind) == (200, "text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["bridge_events_total", "accepted"] == 1
    assert samples["bridge_work_total", "answered", "question"] == 1
    assert samples["bridge_kapa_call_seconds_sum", "chat_stream", "ok"] == 3
    assert samples["bridge_kapa_call_seconds_bucket", "2.5", "chat_stream", "ok"] == 0
    assert samples["bridge_kapa_call_seconds_bucket", "5.0", "chat_stream", "ok"] == 1
    assert samples["bridge_slack_call_seconds_count", "busy", "chat.update"] == 1


@pytest.mark.parametrize("path", ["/nothing", "/healthz/x", "/metrics/"])
async def test_other_paths_are_not_found(path: str) -> None:
    async with served({}, Metrics()) as url:
        assert (await get(url, path))[0] == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/nothing"])
async def test_a_body_is_refused(method: str, path: str) -> None:
    async with served({}, Metrics()) as url, aiohttp.ClientSession() as session:
        async with session.request(method, url + path, data=b"x" * 100_000) as reply:
            assert reply.status == 413
        async with session.request(method, url + path) as reply:
            assert reply.status == (404 if path == "/nothing" else 200 if method == "GET" else 405)


async def test_a_port_that_is_taken_is_an_error_and_the_server_is_put_away() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            async with admin.serving(admin.routes({}, Metrics()), "127.0.0.1", taken.getsockname()[1]):
                pass
    assert len(asyncio.all_tasks()) == 1


async def test_a_bridge_is_ready_and_counts_what_it_does(rig: Rig) -> None:
    async with rig.bridge() as bridge:
        url = f"http://127.0.0.1:{bridge.ports['admin']}"
        status, _, text = await get(url, "/readyz")
        assert (status, json.loads(text)) == (
            200,
            {"redis": True, "slack": True, "started": True, "not_draining": True},
        )
        await rig.answer(GENERAL, await rig.slack.say(ADA, GENERAL, "How are threads stored?"))
        line = 'bridge_work_total{kind="question",result="answered"} 1.0'
        await ask_until(url, "/metrics", lambda _, text: line in text)
        _, _, page = await get(url, "/")
        assert "<td>bridge_events accepted</td><td>1</td>" in page
        bridge.is_draining = True
        status, _, text = await get(url, "/readyz")
        assert (status, json.loads(text)["not_draining"]) == (503, False)
        bridge.is_draining = False


async def test_a_bridge_without_its_redis_is_alive_and_not_ready(rig: Rig, redis: Redis) -> None:
    async with rig.bridge() as bridge:
        url = f"http://127.0.0.1:{bridge.ports['admin']}"
        # From now on Redis lets nobody in but this test.
        await redis.config_set("maxclients", 1)
        await redis.client_kill_filter(_type="normal", skipme=True)
        text = await ask_until(url, "/readyz", lambda status, _: status == 503)
        assert json.loads(text)["redis"] is False
        assert (await get(url, "/healthz"))[0] == 200
        await redis.config_set("maxclients", 1_000)
        await ask_until(url, "/readyz", lambda status, _: status == 200)


@pytest.mark.parametrize("http", [True, False])
async def test_readiness_tells_that_slack_is_away_from_the_start(rig: Rig, http: bool) -> None:
    rig.slack.fault("auth.test", "500", 1000)
    stop, port = asyncio.Event(), free_port()
    settings = rig.environment(bridge_admin_port=port)
    role = Role.INGRESS if http else Role.WORKER
    values = {name.lower(): value for name, value in settings.items()}
    if http:
        values |= {"slack_signing_secret": rig.slack.signing_secret, "bridge_transport": "http"}
    task = asyncio.create_task(app.run(load(overrides=values), role, stop))
    url = f"http://127.0.0.1:{port}"
    try:
        found = json.loads(await ask_until(url, "/readyz", lambda status, _: status == 503))
        assert (await get(url, "/healthz"))[0] == 200
    finally:
        stop.set()
        await task
    assert found == {"redis": True, "slack": False, "started": False, "not_draining": True}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
