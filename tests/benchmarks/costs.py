"""What a question costs besides time: commands to Redis, bytes there, calls to Slack, memory of a process that waits.

Figures of docs/scaling.md; they have no floor, and hardly vary.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis

from bridge.dead_letters import DeadLetters
from bridge.inbox import JOURNAL, TAG
from bridge.playground.kapa import Asked, Pace
from bridge.playground.kapa_rules import KapaRefusalError
from tests.benchmarks import harness, load, table
from tests.benchmarks.conversations import Conversations
from tests.benchmarks.harness import CHANNELS, Plan, Subject
from tests.benchmarks.table import Row
from tests.rig import ADA, GRACE, Rig
from tests.waiting import eventually

WAYS: Final = {"streamed": "native", "by edits": "edit", "whole": "off"}
# An answer of some five seconds, so that it grows in several steps.
GROWING: Final = Pace(first_text=1.0, between_pieces=0.2)
ANSWERS: Final = 5
IDLE_SECONDS: Final = 5.0
EVENTS: Final = 2_000
WAITING: Final = 1_000
ROLES: Final = ("ingress", "worker", "all")


async def costs(plan: Plan) -> AsyncIterator[Row]:
    """Count what answers of each way take, what waits, and what is left in Redis."""
    for way, streaming in WAYS.items():
        async for row in _answers(way, streaming):
            yield row
    for role in ROLES:
        yield await _idle(role)
    yield await _events_that_are_no_questions(plan)
    async for row in _bytes(plan):
        yield row


async def _answers(way: str, streaming: str) -> AsyncIterator[Row]:
    """Count commands, appended bytes and calls of answers that grow over some seconds."""
    async with (
        harness.worlds(pace=GROWING) as rig,
        harness.bridge(rig, bridge_streaming=streaming) as subject,
        Conversations(rig).listening() as people,
        Redis.from_url(rig.redis_url) as redis,
    ):
        await people.all_at_once(1)
        idle = await _commands(redis, asyncio.sleep(IDLE_SECONDS))
        if way == "whole":
            yield table.alone("commands to Redis of a bridge that waits, a second", "", [idle / IDLE_SECONDS])
        calls, appended = len(rig.slack.calls), await _appended(rig)
        started = asyncio.get_running_loop().time()
        commands = await _commands(redis, people.all_at_once(ANSWERS))
        took = asyncio.get_running_loop().time() - started
        await _is_idle(subject)
        made = [call.method for call in list(rig.slack.calls)[calls:]]
        appended = await _appended(rig) - appended
    yield table.alone(
        f"commands to Redis for an answer, {way}", "", [(commands - took * idle / IDLE_SECONDS) / ANSWERS]
    )
    yield table.alone(f"bytes that Redis appends for an answer, {way}", "bytes", [appended / ANSWERS])
    yield table.alone(f"calls to Slack for an answer, {way}", "", [len(made) / ANSWERS])


async def _commands(redis: Redis, doing: Any) -> int:
    """Count the commands that clients send while something is done; a script counts as one."""
    seen = 0

    async def count() -> None:
        nonlocal seen
        async with redis.monitor() as monitor:
            async for command in monitor.listen():
                seen += command["client_type"] != "lua"

    counting = asyncio.create_task(count())
    try:
        await doing
    finally:
        counting.cancel()
    return seen


async def _appended(rig: Rig) -> int:
    return int((await harness.redis_info(rig.redis_url, "persistence"))["aof_current_size"])


async def _is_idle(subject: Subject) -> None:
    async def nothing_waits() -> bool:
        async with Redis.from_url(subject.rig.redis_url) as redis:
            return not await redis.zcard(f"{TAG}:question:unfinished")

    await eventually(nothing_waits)


@asynccontextmanager
async def _ready(rig: Rig, role: str) -> AsyncIterator[Subject]:
    port = harness.free_port()
    environment = rig.environment(**{**harness.UNLIMITED, "bridge_admin_port": port})
    async with harness.child(("-m", "bridge", "run", "--role", role), environment, rig.folder) as process:
        await eventually(lambda: _is_ready(port), harness.START_SECONDS)
        yield Subject(rig, process, None)


async def _is_ready(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as reply:
            return reply.status == 200
    except aiohttp.ClientError:
        return False


async def _idle(role: str) -> Row:
    async with harness.worlds() as rig, _ready(rig, role) as subject:
        name = "one that does both" if role == "all" else f"an {role}" if role == "ingress" else f"a {role}"
        return table.alone(f"memory of {name}, waiting", "MiB", [subject.rss_bytes() / 2**20])


async def _events_that_are_no_questions(plan: Plan) -> Row:
    async with harness.worlds() as rig, harness.bridge(rig, "--role", "ingress") as subject:
        count = plan.load(EVENTS)
        messages = [body["event"] for body in load.events(rig.slack, count)]
        cpu = subject.cpu_seconds()
        for start in range(0, count, 100):
            for message in messages[start : start + 100]:
                rig.slack.deliver({**message, "subtype": "channel_join"})
            await rig.slack.delivered()
        return table.alone(
            "processor time of an event that is no question", "ms", [1000 * (subject.cpu_seconds() - cpu) / count]
        )


async def _bytes(plan: Plan) -> AsyncIterator[Row]:
    """Weigh what is left of finished and unfinished work."""
    async with harness.worlds() as rig, Redis.from_url(rig.redis_url, decode_responses=True) as redis:
        async with harness.bridge(rig, bridge_streaming="off") as subject, Conversations(rig).listening() as people:
            await people.all_at_once(20)
            for thread, channel in await _threads(rig):
                await rig.slack.react(GRACE, channel, thread, "+1")
            await rig.kapa.wait_for(lambda: len(rig.kapa.feedback) >= 10, 30)
            await _is_idle(subject)
            rig.kapa.answer_with(_refuse)
            await rig.slack.say(ADA, CHANNELS[0], "How are threads stored, at last?")
            await eventually(DeadLetters(redis).read)
            for what, pattern in PATTERNS.items():
                yield table.alone(what, "bytes", [await _mean(redis, pattern)])
        before = await _used(redis)
        count = plan.load(WAITING)
        async with harness.bridge(rig, "--role", "ingress"):
            for message in (body["event"] for body in load.events(rig.slack, count)):
                rig.slack.deliver({**message, "text": "x" * 200})
            await rig.slack.delivered(120)
            yield table.alone(
                "bytes of a question of 200 characters that waits", "bytes", [(await _used(redis) - before) / count]
            )


def _refuse(_: Asked) -> str:
    raise KapaRefusalError(401, {"detail": "Invalid token."})


PATTERNS: Final[Mapping[str, str]] = {
    "bytes of a further answer in a thread": f"{TAG}:answer:*",
    "bytes of a vote": f"{TAG}:vote:T*",
    "bytes of a mark that an event was seen": f"{TAG}:seen:*",
    "bytes of an entry of the journal": JOURNAL,
    "bytes of a dead letter": f"{TAG}:dead",
}


async def _threads(rig: Rig) -> list[tuple[str, str]]:
    """Give the bridge's messages, with their channels."""
    return [
        (message["ts"], channel)
        for channel in CHANNELS
        for message in rig.slack.messages(channel)
        if message.get("bot_id")
    ]


async def _mean(redis: Redis, pattern: str) -> float:
    """Give what one of the keys, or one entry of a stream, takes."""
    sizes = []
    async for key in redis.scan_iter(pattern):
        used = int(await redis.memory_usage(key, samples=0) or 0)
        sizes.append(used / await redis.xlen(key) if await redis.type(key) == "stream" else used)
    return sum(sizes) / len(sizes)


async def _used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory_dataset"])
