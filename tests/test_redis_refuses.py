"""A Redis that goes away or refuses writes under a running bridge: refused aloud, and nothing lost or doubled by it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from structlog.typing import EventDict

from bridge import check, redis_client, watch
from bridge.app import Bridge
from bridge.dead_letters import DeadLetters
from bridge.embedded_redis import EmbeddedRedis
from bridge.inbox import TAG
from bridge.metrics import Metrics
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.slack import SimulatedSlack
from bridge.redis_client import PROBE, PROBE_SECONDS
from bridge.settings import Role, load
from bridge.watch import Watch
from tests.rig import ADA, BOTH_WAYS, GENERAL, PAGES, Rig, count, hurry, markdown
from tests.waiting import eventually

ANSWER = "stored in Redis"
TROUBLE = ("redis_refuses_writes", "redis_not_reached", "redis_takes_writes_again")


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.02)


class World:
    """A rig whose Slack waits with its second redelivery, and whose Redis comes back, only when they may."""

    def __init__(self, folder: Path, *, http: bool) -> None:
        self.folder = folder
        self.may_send_again, self.may_return = asyncio.Event(), asyncio.Event()
        self._slack = SimulatedSlack(sleep=self._until_sent_again, limits=None, ack_seconds=3.0 if http else 0.5)
        self._kapa = SimulatedKapa(Knowledge(PAGES), pace=Pace(0, 0))

    async def _until_sent_again(self, seconds: float) -> None:
        if seconds:
            await self.may_send_again.wait()

    async def _until_back(self, seconds: float) -> None:
        if seconds >= 0.1 and self.pid is None:
            await self.may_return.wait()
        await asyncio.sleep(min(seconds, 0.02))

    @property
    def pid(self) -> int | None:
        """The living server's process."""
        pid = int((self.folder / "redis.lock").read_text() or 0)
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, 0)
            return None if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z" else pid
        return None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Rig]:
        embedded = EmbeddedRedis(self.folder, sleep=self._until_back)
        async with embedded.own() as url, self._slack.serve(), self._kapa.serve():
            try:
                yield Rig(self._slack, self._kapa, url, self.folder)
            finally:
                self.may_return.set()
                self.may_send_again.set()


async def readiness(bridge: Bridge) -> tuple[int, bool]:
    url = f"http://127.0.0.1:{bridge.ports['admin']}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return reply.status, (await reply.json())["redis"]


def troubles(logs: list[EventDict]) -> list[tuple[str, str, str]]:
    """Give what the log says of Redis: level, event and reason, in order."""
    return [(line["log_level"], line["event"], line.get("reason", "")) for line in logs if line["event"] in TROUBLE]


async def ask_before_and_meanwhile(
    rig: Rig, bridge: Bridge, redis: Redis, *, http: bool, break_redis: Callable[[], Awaitable[None]]
) -> list[str]:
    """Have one question asked of Kapa and one waiting behind it, break Redis, and ask two more that are refused."""
    rig.kapa.hold()
    first = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
    await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
    await rig.slack.say(ADA, GENERAL, "How are threads stored, again?", thread=first)
    await rig.slack.wait_for(lambda: count(bridge, "events_total", result="accepted") == 2, 10)
    await break_redis()
    assert await eventually(lambda: _is_unready(bridge))
    accepted = len(rig.slack.deliveries)
    late = await rig.slack.say(ADA, GENERAL, "How are threads stored, though?")
    await rig.slack.say(ADA, GENERAL, "How are threads stored, still?", thread=first)
    await rig.slack.wait_for(lambda: len(rig.slack.deliveries) >= accepted + 4, 10)
    refused = list(rig.slack.deliveries)[accepted:]
    assert {delivery.status for delivery in refused} == ({503} if http else {0})
    assert count(bridge, "events_total", result="accepted") == 2
    rig.kapa.release()
    return [first, late]


async def _is_unready(bridge: Bridge) -> bool:
    return await readiness(bridge) == (503, False)


async def _is_ready(bridge: Bridge) -> bool:
    return await readiness(bridge) == (200, True)


async def all_answered_once(rig: Rig, redis: Redis, first: str, late: str) -> None:
    """Wait for the four answers, and see that there is no fifth and nothing left to do."""
    await rig.answer(GENERAL, first, 3, within=20)
    await rig.answer(GENERAL, late, 1, within=20)

    async def nothing_waits() -> bool:
        return not [key async for key in redis.scan_iter(f"{TAG}:*:line:*")]

    await eventually(nothing_waits)
    await rig.slack.delivered()
    assert [len(rig.replies(GENERAL, ts)) for ts in (first, late)] == [3, 1]
    assert all(ANSWER in markdown(reply) for ts in (first, late) for reply in rig.replies(GENERAL, ts))
    assert await DeadLetters(redis).read() == []


# Away


@BOTH_WAYS
async def test_a_redis_that_is_killed_and_comes_back(tmp_path: Path, http: bool) -> None:
    world = World(tmp_path / "redis", http=http)
    async with world.serving() as rig, rig.bridge(http=http, bridge_lease_seconds=1) as bridge:
        with capture_logs() as logs:

            async def kill() -> None:
                os.kill(world.pid or 0, signal.SIGKILL)

            asked = await ask_before_and_meanwhile(rig, bridge, bridge.redis, http=http, break_redis=kill)
            assert rig.replies(GENERAL, asked[1]) == []
            world.may_return.set()
            await eventually(lambda: _is_ready(bridge))
            world.may_send_again.set()
            await all_answered_once(rig, bridge.redis, *asked)
    assert troubles(logs)[0] == ("error", "redis_not_reached", "")
    assert troubles(logs)[-1] == ("info", "redis_takes_writes_again", "")


# There, and refusing

Change = Callable[[Redis, Path], Awaitable[object]]


async def _full(redis: Redis, _: Path) -> None:
    await redis.config_set("maxmemory", 1)


async def _with_room(redis: Redis, _: Path) -> None:
    await redis.config_set("maxmemory", 0)


async def _read_only(redis: Redis, _: Path) -> None:
    await redis.replicaof("127.0.0.1", 1)


async def _primary(redis: Redis, _: Path) -> None:
    await redis.replicaof("NO", "ONE")


async def _alone(redis: Redis, _: Path) -> None:
    await redis.config_set("min-replicas-to-write", 1)


async def _in_company(redis: Redis, _: Path) -> None:
    await redis.config_set("min-replicas-to-write", 0)


async def _cannot_save(redis: Redis, folder: Path) -> None:
    """Let a snapshot fail, as on a full disk: its folder is gone."""
    await asyncio.to_thread(folder.mkdir)
    await redis.config_set("dir", str(folder))
    await asyncio.to_thread(folder.rmdir)
    await redis.config_set("save", "3600 1")
    await redis.bgsave()

    async def has_failed() -> bool:
        return bool((await redis.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await eventually(has_failed)


async def _need_not_save(redis: Redis, _: Path) -> None:
    await redis.config_set("save", "")


REFUSALS: dict[str, tuple[Change, Change]] = {
    "OOM": (_full, _with_room),
    "READONLY": (_read_only, _primary),
    "NOREPLICAS": (_alone, _in_company),
    "MISCONF": (_cannot_save, _need_not_save),
}


@BOTH_WAYS
@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_redis_that_refuses_writes_and_takes_them_again(tmp_path: Path, reason: str, http: bool) -> None:
    refuse, relent = REFUSALS[reason]
    world = World(tmp_path / "redis", http=http)
    async with world.serving() as rig, rig.bridge(http=http, bridge_lease_seconds=1) as bridge:
        redis = redis_client.connect(rig.redis_url)
        with capture_logs() as logs:
            asked = await ask_before_and_meanwhile(
                rig, bridge, redis, http=http, break_redis=lambda: _done(refuse(redis, tmp_path / "gone"))
            )
            assert rig.replies(GENERAL, asked[1]) == []
            assert count(bridge, "redis_takes_writes") == 0
            await relent(redis, tmp_path)
            await eventually(lambda: _is_ready(bridge))
            world.may_send_again.set()
            await all_answered_once(rig, redis, *asked)
            await eventually(lambda: count(bridge, "redis_takes_writes") == 1)
        await redis.aclose()
    # Each change is told once, however often it is looked.
    assert troubles(logs) == [("error", "redis_refuses_writes", reason), ("info", "redis_takes_writes_again", "")]


async def _done(change: Awaitable[object]) -> None:
    await change


@pytest.mark.parametrize("reason", REFUSALS)
async def test_the_word_of_refusal(redis: Redis, tmp_path: Path, reason: str) -> None:
    refuse, relent = REFUSALS[reason]
    assert await redis_client.refusal(redis) == ""
    assert 0 < await redis.ttl(PROBE) <= PROBE_SECONDS
    await refuse(redis, tmp_path / "gone")
    assert await redis_client.refusal(redis) == reason
    await relent(redis, tmp_path)
    assert await redis_client.refusal(redis) == ""


async def test_a_key_that_may_not_be_written_is_a_refusal(redis: Redis, redis_url: str) -> None:
    await redis.acl_setuser("reader", enabled=True, nopass=True, commands=["+@all", "-@write"], keys=["*"])
    guest = redis_client.connect(redis_url.replace("unix://", "unix://reader:x@"))
    assert await redis_client.refusal(guest) == "NOPERM"
    await guest.aclose()


async def test_a_full_redis_takes_no_question_and_a_role_of_its_own_says_so(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        await redis.config_set("maxmemory", 1)
        await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.slack.delivered()
        assert {delivery.status for delivery in rig.slack.deliveries} == {503}
        assert await readiness(bridge) == (503, False)
        assert [key async for key in redis.scan_iter(f"{TAG}:[^p]*")] == []
        await redis.config_set("maxmemory", 0)
        assert await readiness(bridge) == (200, True)


async def test_a_check_says_that_redis_refuses(rig: Rig, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    settings = load(overrides={name.lower(): text for name, text in rig.environment().items()})
    problems = [finding.problem async for finding in check.run(settings) if finding.problem]
    assert problems == ["REDIS_URL: Redis refuses writes (OOM); see docs/operations.md, When Redis refuses writes"]


# Looking


class Changes:
    """A sleep that takes no time, and makes Redis full and roomy again as it goes."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        if len(self.asked) > 8:
            await asyncio.Event().wait()
        await self.redis.config_set("maxmemory", 1 if len(self.asked) in {2, 3, 6} else 0)


async def test_nobody_needs_to_ask_whether_redis_takes_writes(redis: Redis) -> None:
    naps = Changes(redis)
    with capture_logs() as logs:
        async with Watch(redis, Metrics(), sleep=naps).watching():
            await eventually(lambda: len(naps.asked) > 8)
    assert set(naps.asked) == {watch.LOOK_SECONDS}
    assert [event for _, event, _ in troubles(logs)] == ["redis_refuses_writes", "redis_takes_writes_again"] * 2


async def test_a_redis_that_is_told_to_evict_while_it_runs_is_not_ready(redis: Redis) -> None:
    watch = Watch(redis, Metrics())
    assert await watch.is_fit()
    await redis.config_set("maxmemory", 100 * 1024 * 1024)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    with capture_logs() as logs:
        for _ in range(2):
            await watch.examine()
        assert not await watch.is_fit()
        await redis.config_set("maxmemory-policy", "noeviction")
        await watch.examine()
        assert await watch.is_fit()
    [problem] = [line for line in logs if line["event"] == "redis_at_risk"]
    assert problem["log_level"] == "error"
    assert "noeviction" in problem["problem"]


async def test_what_was_told_at_the_start_is_not_told_again(redis: Redis) -> None:
    await redis.config_set("maxmemory-policy", "volatile-lru")
    _, risky = await redis_client.shortcomings(redis)
    assert risky
    with capture_logs() as logs:
        await Watch(redis, Metrics(), known=risky).examine()
        assert logs == []
        await Watch(redis, Metrics()).examine()
        assert [line["problem"] for line in logs] == risky


async def test_one_refusal_after_another_is_told(redis: Redis, tmp_path: Path) -> None:
    watch = Watch(redis, Metrics())
    with capture_logs() as logs:
        await _full(redis, tmp_path)
        assert not await watch.takes_writes()
        await _with_room(redis, tmp_path)
        await _alone(redis, tmp_path)
        assert not await watch.takes_writes()
        assert not await watch.takes_writes()
    assert [reason for *_, reason in troubles(logs)] == ["OOM", "NOREPLICAS"]


async def test_a_look_that_was_overtaken_tells_nothing(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = asyncio.Event(), asyncio.Event()
    watch = Watch(redis, (metrics := Metrics()))
    looks = iter([(slow, ""), (quick, "READONLY")])

    async def refused(_: Redis) -> str:
        may_go_on, word = next(looks)
        await may_go_on.wait()
        return word

    monkeypatch.setattr("bridge.watch.refusal", refused)
    with capture_logs() as logs:
        first = asyncio.create_task(watch.takes_writes())
        await asyncio.sleep(0)
        quick.set()
        assert not await watch.takes_writes()
        slow.set()
        assert await first
    assert troubles(logs) == [("error", "redis_refuses_writes", "READONLY")]
    assert metrics.registry.get_sample_value("bridge_redis_takes_writes") == 0


async def test_a_redis_that_hangs_takes_no_writes(
    redis_url: str, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.1)
    lookout = Watch(redis, Metrics())
    pid = int((tmp_path / "redis" / "redis.lock").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        with capture_logs() as logs:
            assert not await lookout.takes_writes()
            assert not await lookout.takes_writes()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [event for _, event, _ in troubles(logs)] == ["redis_not_reached"]
    assert await eventually(lookout.takes_writes)


async def test_the_watch_goes_on_when_nothing_can_be_measured(redis: Redis) -> None:
    await redis.set(f"{TAG}:question:ready", "no stream")
    naps = Changes(redis)
    with capture_logs() as logs:
        async with Watch(redis, Metrics(), sleep=naps).watching():
            await eventually(lambda: len(naps.asked) > 8)
    assert [line["error"] for line in logs if line["event"] == "backlog_not_measured"] == ["ResponseError"] * 6


async def test_what_waits_is_measured_and_old_dead_letters_go(rig: Rig, redis: Redis) -> None:
    seconds, _ = await redis.time()
    fields: Any = {"line": "T:C:1", "entry": "[]", "kind": "vote", "reason": "", "notes": "{}"}
    for days in (31, 29):
        await redis.xadd(f"{TAG}:dead", fields, f"{(seconds - days * 86_400) * 1000}-0")
    await redis.zadd(f"{TAG}:vote:later", {"T:C:1": 4e12, "T:C:2": 4e12})
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        # A quiet bridge: nothing is given up that would trim them.
        await eventually(lambda: count(bridge, "dead_letters") == 1)
        for number in range(3):
            await rig.slack.say(ADA, GENERAL, f"Question {number}")
        await eventually(lambda: count(bridge, "inbox_waiting", kind="question") == 3)
        assert count(bridge, "inbox_later", kind="vote") == 2
        assert count(bridge, "inbox_waiting", kind="vote") == count(bridge, "inbox_later", kind="question") == 0
    assert await redis.xlen(f"{TAG}:dead") == 1


async def test_the_metrics_are_there_while_redis_hangs(rig: Rig, redis: Redis, tmp_path: Path) -> None:
    async with rig.bridge(Role.INGRESS, http=True) as bridge:
        sample = bridge.metrics.registry.get_sample_value
        await eventually(lambda: sample("bridge_inbox_waiting", {"kind": "question"}) is not None)
        pid = int((tmp_path / "redis" / "redis.lock").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            url = f"http://127.0.0.1:{bridge.ports['admin']}/metrics"
            async with aiohttp.ClientSession() as session, session.get(url) as reply:
                text = await reply.text()
        finally:
            os.kill(pid, signal.SIGCONT)
    assert 'bridge_inbox_waiting{kind="question"} 0.0' in text
    assert "bridge_dead_letters 0.0" in text


async def test_a_bridge_starts_on_a_full_redis_and_says_so(rig: Rig, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    with capture_logs() as logs:
        async with rig.bridge(Role.INGRESS, http=True) as bridge:
            assert await readiness(bridge) == (503, False)
            await redis.config_set("maxmemory", 0)
            await eventually(lambda: _is_ready(bridge))
    assert [event for _, event, _ in troubles(logs)] == ["redis_refuses_writes", "redis_takes_writes_again"]
