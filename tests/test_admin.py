import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from bridge import __version__, admin, app
from bridge.history import SAMPLE_SECONDS, History
from bridge.inbox import Backlog
from bridge.metrics import Metrics
from bridge.settings import Role, load
from bridge.status_page import CHECKS
from tests.rig import ADA, GENERAL, Rig, free_port
from tests.waiting import Clock, eventually

# What a test's clock counts from.
EPOCH = 1_700_000_000


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
async def served(states: dict[str, bool], metrics: Metrics, history: History | None = None) -> AsyncIterator[str]:
    def check(name: str) -> admin.Check:
        async def passes() -> bool:
            return states[name]

        return passes

    clock = (lambda: EPOCH + history.clock()) if history else time
    routes = admin.routes({name: check(name) for name in states}, metrics, history=history, clock=clock)
    async with admin.serving(routes, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def test_ready_is_when_every_check_passes() -> None:
    states = {"redis": True, "slack": True}
    async with served(states, Metrics()) as url:
        assert await get(url, "/readyz") == (200, "application/json", json.dumps(states))
        states["slack"] = False
        status, _, text = await get(url, "/readyz")
        assert (status, json.loads(text)) == (503, {"redis": True, "slack": False})
        # Whoever takes events in does so without Slack's Web API.
        assert await get(url, "/readyz?without=slack") == (200, "application/json", json.dumps({"redis": True}))
        states["redis"] = False
        for query in ("without=slack", "without=other&without=slack", "without=", "with=slack"):
            assert (await get(url, f"/readyz?{query}"))[0] == 503
        # Alive it is all the same.
        assert await get(url, "/healthz") == (200, "text/plain", "ok\n")


# The status page


class Life:
    """A bridge's numbers, and the history of them on a clock that a test moves."""

    def __init__(self, role: str = "all") -> None:
        self.metrics, self.clock = Metrics(), Clock(1000.0)
        self.metrics.build(role)
        self.history = History(self.metrics.registry, clock=self.clock, sleep=_never)

    def sample(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.now += SAMPLE_SECONDS
            self.history.sample()

    async def status(self, minutes: int = 60, **states: bool) -> dict[str, Any]:
        """Give what the page is told."""
        async with served(states, self.metrics, self.history) as url:
            status, kind, text = await get(url, f"/status.json?minutes={minutes}")
        assert (status, kind) == (200, "application/json")
        found: dict[str, Any] = json.loads(text)
        return found


async def _never(_: float) -> None:
    await asyncio.Event().wait()


PAGE = Path(admin.__file__).parent / "admin_page"
PARTS = [f"/page/{path.name}" for path in sorted(PAGE.iterdir()) if path.name != "index.html"]
OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/status.json", *PARTS])
async def test_the_page_and_its_parts_are_kept_by_nobody_and_load_nothing_from_elsewhere(
    path: str, method: str
) -> None:
    async with (
        served({}, Metrics()) as url,
        aiohttp.ClientSession() as session,
        session.request(method, url + path) as reply,
    ):
        body = await reply.read()
    assert reply.status == 200
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    policy = dict(rule.strip().split(" ", 1) for rule in reply.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(["script-src", "style-src", "img-src", "connect-src"], "'self'"),
        **dict.fromkeys(["base-uri", "form-action", "frame-ancestors"], "'none'"),
    }
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}
    assert reply.content_type == kinds.get(Path(path).suffix, "text/html")
    assert bool(body) is (method == "GET")


def test_all_that_the_page_asks_for_is_there() -> None:
    asked = set(re.findall(r'(?:href|src)="(page/[^"]+)"', (PAGE / "index.html").read_text(encoding="utf-8")))
    for module in PAGE.glob("*.js"):
        asked |= {f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', module.read_text(encoding="utf-8"))}
    assert asked == {part[1:] for part in PARTS}


@pytest.mark.parametrize("path", PARTS)
def test_no_part_of_the_page_makes_html_of_text_or_names_another_site(path: str) -> None:
    text = (PAGE / Path(path).name).read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert set(re.findall(r"https?://[^\"'\s]+", text)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_what_is_for_programs_is_as_plain_as_ever(path: str) -> None:
    async with served({}, Metrics()) as url, aiohttp.ClientSession() as session, session.get(url + path) as reply:
        assert set(reply.headers) == {"Content-Type", "Content-Length", "Date", "Server"}


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ({"redis": True, "started": True, "not_draining": True}, "ready"),
        ({}, "ready"),
        ({"redis": False, "started": True, "not_draining": True}, "not_ready"),
        ({"redis": True, "started": False, "not_draining": True}, "not_ready"),
        ({"redis": False, "started": True, "not_draining": False}, "draining"),
    ],
)
async def test_there_is_one_state(states: dict[str, bool], state: str) -> None:
    assert (await Life().status(**states))["state"] == state


async def test_a_check_that_fails_says_what_that_means_and_what_to_do() -> None:
    life = Life()
    life.metrics.redis(takes_writes=False)
    redis, slack, other = (await life.status(redis=False, slack=True, another_one=False))["checks"]
    assert redis == {"name": "redis", "passes": False, **CHECKS["redis"]}
    assert slack == {"name": "slack", "passes": True, **CHECKS["slack"]}
    assert other == {"name": "another_one", "passes": False}
    # It takes writes, so something else is wrong with it.
    life.metrics.redis(takes_writes=True)
    [redis] = (await life.status(redis=False))["checks"]
    assert redis == {"name": "redis", "passes": False, **CHECKS["redis_unfit"]}


async def test_every_check_of_a_bridge_has_words_for_it(rig: Rig) -> None:
    async with rig.bridge() as bridge:
        _, _, text = await get(f"http://127.0.0.1:{bridge.ports['admin']}", "/status.json")
    assert [set(check) for check in json.loads(text)["checks"]] == [
        {"name", "passes", "title", "trouble", "means", "do"}
    ] * 4


def test_the_docs_have_what_the_page_points_to() -> None:
    words = [text for check in CHECKS.values() for text in check.values()]
    words += [path.read_text(encoding="utf-8") for path in PAGE.iterdir()]
    titles = {title for text in words for title in re.findall(r"docs/operations\.md, “([^”]+)”", text)}
    events = {name for text in words for name in re.findall(r"\b(?:redis|slack|socket)_[a-z]+_[a-z_]+\b", text)}
    assert titles == {
        "Redis",
        "When Redis refuses writes",
        "Watching",
        "Processes",
        "Dead letters",
        "What the log says",
    }
    assert titles <= set(re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE))
    assert len(events) >= 5
    assert {event for event in events if f"`{event}`" not in OPERATIONS} == set()


async def test_what_was_counted_is_told_step_by_step_and_by_what_became_of_it() -> None:
    life = Life("worker")
    life.sample()
    for result in ("answered", "answered", "dead"):
        life.metrics.work("question", result)
    life.metrics.work("vote", "upvote")
    life.metrics.slack_call("chat.update", "ok", 0.2)
    life.metrics.slack_call("chat.postMessage", "ok", 0.2)
    life.sample()
    life.metrics.work("question", "answered")
    life.metrics.slack_call("chat.update", "busy", 0.2)
    life.sample()
    found = await life.status(10)
    assert found["counted"]["questions"] == {"answered": [0, 2, 1], "dead": [0, 1, 0]}
    assert found["counted"]["votes"] == {"upvote": [0, 1, 0]}
    assert found["counted"]["slack"] == {"ok": [0, 2, 0], "busy": [0, 0, 1]}
    assert found["counted"]["events"] == {}
    # The same hour, in which these were one minute.
    assert found["hour"]["counted"]["questions"] == {"answered": 3, "dead": 1}
    assert found["hour"]["seconds"] == 30
    assert (await life.status(60))["counted"]["questions"] == {"answered": [3], "dead": [1]}


async def test_calls_are_told_by_what_was_called_and_how_it_ended() -> None:
    life = Life()
    for _ in range(2):
        life.metrics.kapa_call("chat_stream", "ok", 7.0)
        life.sample()
    life.metrics.kapa_call("chat_stream", "unavailable", 0.3)
    life.metrics.kapa_call("feedback", "ok", 0.07)
    life.sample()
    rows = (await life.status())["calls"]["kapa"]
    assert [(row["called"], row["outcome"], row["observed"], row["p50"]) for row in rows] == [
        ("chat_stream", "ok", 2, 7.5),
        ("chat_stream", "unavailable", 1, 0.375),
        ("feedback", "ok", 1, 0.075),
    ]


async def test_durations_are_told_as_quantiles_and_as_nothing_where_there_were_none() -> None:
    life = Life()
    life.metrics.answer("failed", 100.0)
    life.sample()
    life.metrics.answer("answered", 3.0)
    life.metrics.answer("answered", 400.0)
    life.sample()
    answer = (await life.status(10))["timed"]["answer"]
    assert answer == {
        "most": 120,
        "observed": [0, 2],
        "p50": [None, 5],
        "p95": [None, 120],
        "all": {"observed": 2, "p50": 5, "p95": 120},
    }
    # Nothing at all was observed, and it is not even known where its buckets end.
    nothing = {"most": None, "observed": [0, 0], "p50": [None, None], "p95": [None, None]}
    assert (await life.status(10))["timed"]["budget"] == nothing | {"all": {"observed": 0, "p50": None, "p95": None}}


async def test_what_all_processes_share_is_unknown_while_redis_cannot_be_asked() -> None:
    life = Life()
    life.sample()
    life.metrics.redis(takes_writes=True)
    life.metrics.backlog("question", Backlog(waiting=2, later=1, unfinished=3, oldest_seconds=41.26, untaken_seconds=0))
    life.metrics.dead_letters(4)
    life.sample()
    found = await life.status(10)
    assert found["shared"]["unfinished"] == {"question": [None, 3]}
    assert found["shared"]["oldest"] == {"question": [None, 41.3]}
    assert found["shared"]["dead_letters"] == {"all": [None, 4]}
    assert found["now"]["shared"]["later"] == {"question": 1}
    assert found["now"]["shared"]["dead_letters"] == {"all": 4}
    life.metrics.redis(takes_writes=False)
    life.sample()
    found = await life.status(10)
    assert found["shared"]["unfinished"] == {"question": [None, 3, None]}
    assert found["now"]["shared"] is None


async def test_a_bridge_s_own_page_tells_the_time() -> None:
    async with served({}, Metrics()) as url:
        before = time()
        _, _, text = await get(url, "/status.json")
        assert before <= json.loads(text)["at"] <= time()


async def test_what_this_process_is_at_work_on_is_asked_at_once() -> None:
    life, running = Life(), [5]
    life.metrics.running("question", lambda: running[0])
    assert (await life.status())["now"]["running"] == {"question": 5}
    running[0] = 0
    assert (await life.status())["now"]["running"] == {"question": 0}


@pytest.mark.parametrize("role", list(Role))
async def test_the_page_is_told_what_this_process_is_and_since_when(role: Role) -> None:
    life = Life(role)
    life.sample(7)
    life.clock.now += 4
    found = await life.status()
    assert (found["version"], found["role"]) == (__version__, role)
    assert (found["started"], found["at"]) == (EPOCH + 1000, EPOCH + 1074)
    assert found["starts"] == [EPOCH + 1000, EPOCH + 1060]
    assert found["ends"] == [EPOCH + 1060, EPOCH + 1070]


@pytest.mark.parametrize("minutes", ["", "1", "60x", "1e1"])
async def test_there_are_two_lengths_of_history(minutes: str) -> None:
    async with served({}, Metrics()) as url:
        assert (await get(url, f"/status.json?minutes={minutes}"))[0] == 400
        assert (await get(url, "/status.json"))[0] == 200


async def test_an_answer_to_the_page_is_small_even_when_everything_has_happened() -> None:
    life = Life()
    words = [f"word_{number}" for number in range(20)]
    for _ in range(60):
        for word in words:
            life.metrics.event(word)
            life.metrics.work("question", word)
            life.metrics.slack_call(word, "ok", 1.0)
        life.sample(6)
    for minutes in (10, 60):
        assert len(json.dumps(await life.status(minutes))) < 40_000


async def test_the_history_goes_on_while_the_server_serves() -> None:
    asked: list[float] = []

    async def nap(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) > 3:
            await asyncio.Event().wait()

    metrics = Metrics()
    async with served({}, metrics, History(metrics.registry, sleep=nap)) as url:
        text = await ask_until(url, "/status.json?minutes=10", lambda _, text: len(json.loads(text)["ends"]) == 3)
    assert json.loads(text)["state"] == "ready"
    assert asked == [SAMPLE_SECONDS] * 4
    assert len(asyncio.all_tasks()) == 1


# Numbers for programs


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


@pytest.mark.parametrize(
    "path", ["/nothing", "/healthz/x", "/metrics/", "/page", "/page/", "/page/index.html", "/page/%2e%2e/admin.py"]
)
async def test_other_paths_are_not_found(path: str) -> None:
    async with served({}, Metrics()) as url:
        assert (await get(url, path))[0] == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/status.json", "/page/page.js", "/nothing"])
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
        _, _, text = await get(url, "/status.json")
        told = json.loads(text)
        assert (told["version"], told["role"], told["state"]) == (__version__, "all", "ready")
        assert told["now"]["running"] == {"question": 0, "vote": 0}
        bridge.is_draining = True
        _, _, text = await get(url, "/status.json")
        assert json.loads(text)["state"] == "draining"
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
