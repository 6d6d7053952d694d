"""The rig: the real bridge, in this process or as processes of its own, between a simulated Slack and Kapa."""

import asyncio
import random
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from bridge import app, circuit_breaker, display, policy, worker
from bridge.app import Bridge
from bridge.inbox import TAG, Item
from bridge.models import Question
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.run import bridge_process, simulated_kapa_environment, slack_environment
from bridge.playground.slack import BOT, SimulatedSlack, SlackLimits
from bridge.settings import Role, load
from tests.waiting import eventually

PAGES = {
    "README.md": "# Bridge\n\nThe bridge answers questions from the documentation.\n\n"
    "## Install\n\nRun `make playground` to install and start everything.\n\n"
    "## Keys\n\nRotate keys in the settings of the project.\n",
    "docs/redis.md": "# Redis\n\nThreads are stored in Redis with a lifetime of ninety days.\n",
}
ADA, GRACE, ALAN = "U0ADA", "U0GRACE", "U0ALAN"
GENERAL, HELP, PRIVATE, ELSEWHERE = "C0GENERAL", "C0HELP", "C0PRIVATE", "C0ELSEWHERE"
BOTH_WAYS = pytest.mark.parametrize("http", [True, False], ids=["http", "socket"])

T = TypeVar("T")


@dataclass(slots=True)
class Rig:
    """Both simulated worlds and a Redis; `bridge` runs a bridge between them, `process` one as a real process."""

    slack: SimulatedSlack
    kapa: SimulatedKapa
    redis_url: str
    folder: Path

    @classmethod
    @asynccontextmanager
    async def serving(
        cls,
        redis_url: str,
        folder: Path,
        *,
        limits: SlackLimits | None = SlackLimits(),  # noqa: B008 immutable
        ack_seconds: float = 3.0,
    ) -> AsyncIterator["Rig"]:
        """Serve both worlds; Kapa answers without a pause, and Slack sends again without one."""
        slack = SimulatedSlack(sleep=_no_pause, limits=limits, ack_seconds=ack_seconds)
        kapa = SimulatedKapa(Knowledge(PAGES), pace=Pace(0, 0))
        async with slack.serve(), kapa.serve():
            yield cls(slack, kapa, redis_url, folder)

    def environment(self, **settings: Any) -> dict[str, str]:
        """Give a bridge's settings as environment variables, Socket Mode unless said otherwise."""
        given = {name.upper(): str(value) for name, value in settings.items()}
        own = {"REDIS_URL": self.redis_url, "BRIDGE_ADMIN_PORT": "0", "BRIDGE_PORT": "0", "BRIDGE_LOG_FORMAT": "json"}
        return slack_environment(self.slack) | simulated_kapa_environment(self.kapa) | own | given

    @asynccontextmanager
    async def bridge(self, role: Role = Role.ALL, *, http: bool = False, **settings: Any) -> AsyncIterator[Bridge]:
        """Run a bridge in this process until the end of the block; Slack's events reach it inside."""
        values = {name.lower(): value for name, value in self.environment(**settings).items()}
        if http:
            values |= {"slack_signing_secret": self.slack.signing_secret, "bridge_transport": "http"}
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(app.run(load(overrides=values), role, stop, on_ready=ready.set_result))
        try:
            await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                await task
            bridge = await ready
            await self._connect(bridge, http=http)
            yield bridge
        finally:
            stop.set()
            await task

    async def _connect(self, bridge: Bridge, *, http: bool) -> None:
        if bridge.role is Role.WORKER:
            return
        self.slack.delivery = "http" if http else "socket"
        if http:
            self.slack.subscribe(f"http://127.0.0.1:{bridge.ports['events']}/slack/events")
        else:
            await self.slack.wait_for(lambda: self.slack.sockets > 0, 10)

    @asynccontextmanager
    async def process(self, *arguments: str, **settings: Any) -> AsyncIterator[Process]:
        """Run a bridge as a process of its own until the end of the block."""
        async with bridge_process(self.environment(**settings), self.folder, *arguments) as process:
            yield process

    async def answer(self, channel: str, ts: str, count: int = 1, within: float = 10) -> list[dict[str, Any]]:
        """Wait until `count` finished replies of the bridge stand in a thread; give them, oldest first."""
        return await self.slack.wait_for(lambda: self._finished(channel, ts, count), within)

    def _finished(self, channel: str, ts: str, count: int) -> list[dict[str, Any]]:
        replies = self.replies(channel, ts)
        return replies if len(replies) >= count and not any(is_draft(reply) for reply in replies) else []

    async def ask(self, user: str, channel: str, text: str, **more: Any) -> tuple[str, dict[str, Any]]:
        """Ask a first question; give its ts and the finished answer."""
        ts = await self.slack.say(user, channel, text, **more)
        return ts, (await self.answer(channel, ts))[-1]

    def replies(self, channel: str, ts: str) -> list[dict[str, Any]]:
        """Give the bridge's messages that stand in a thread now."""
        return [message for message in self.slack.thread(channel, ts) if message.get("bot_id") == BOT.bot_id]

    def called(self, method: str) -> list[dict[str, Any]]:
        """Give the arguments of every call of a Slack method, oldest first."""
        return [call.args for call in self.slack.calls if call.method == method]


def markdown(message: dict[str, Any]) -> str:
    """Give the Markdown that a message of the bridge shows."""
    blocks = message.get("blocks") or [{"type": "markdown", "text": message["text"]}]
    return "\n".join(block["text"] for block in blocks if block["type"] == "markdown")


def is_draft(message: dict[str, Any]) -> bool:
    """Say whether a message of the bridge is still growing."""
    # A stream that was only stopped has no name yet: an edit finishes it.
    is_stream = message.get("streaming_state") == "in_progress" or (
        "streaming_state" in message and "metadata" not in message
    )
    return is_stream or markdown(message).endswith(" …")


async def waiting(redis: Redis) -> list[Question]:
    """Give the questions that wait in the inbox, in the order of their asking."""
    keys = [key async for key in redis.scan_iter(f"{TAG}:question:line:*")]
    entries = [str(entry) for key in keys for entry in await redis.lrange(key, 0, -1)]
    questions = [Question.from_json(Item.from_entry("", entry).payload) for entry in entries]
    return sorted(questions, key=lambda question: question.id)


async def settled(rig: Rig, redis: Redis) -> None:
    """Wait until no question and no vote waits or is being worked on."""

    async def nothing_waits() -> bool:
        return not [key async for key in redis.scan_iter(f"{TAG}:*:line:*")]

    await rig.slack.delivered()
    await eventually(nothing_waits)


def free_port() -> int:
    """Give a free port that stays free for a while: below those that the kernel gives to clients, and to port 0."""
    while True:
        port = random.randint(23_000, 29_999)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def count(bridge: Bridge, metric: str, **labels: str) -> float:
    """Give one of the bridge's own numbers."""
    return bridge.metrics.registry.get_sample_value(f"bridge_{metric}", labels) or 0


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bridge in this process take its retries and drafts without the waits that real people need."""
    monkeypatch.setattr(policy, "QUESTION_WAITS", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(policy, "PATIENT_WAITS", (0.0,))
    for name in ("COOL_DOWN_SECONDS", "LONGEST_COOL_DOWN_SECONDS", "PROBE_WAIT_SECONDS"):
        monkeypatch.setattr(circuit_breaker, name, 0.02)
    monkeypatch.setattr(policy, "APART_SECONDS", 0.0)
    monkeypatch.setattr(worker, "UPKEEP_SECONDS", 0.02)
    monkeypatch.setattr(policy, "LOOK_WAITS", (0.02,))
    monkeypatch.setattr(display, "DRAFT_SECONDS", 0.02)


async def _no_pause(seconds: float) -> None:
    await asyncio.sleep(0)
