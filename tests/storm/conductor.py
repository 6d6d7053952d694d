"""Carries a storm's plan out on real processes and a real Redis, and gathers the evidence.

What happens when is said in `plan`, what it should have led to in `judge`.
"""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import redis_client
from bridge.inbox import TAG
from bridge.playground.kapa import Asked as AskedOfKapa
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.serving import Json
from bridge.playground.slack import BOT, SimulatedSlack
from bridge.slack import write
from bridge.store import Store
from tests.rig import PAGES, Rig, free_port, is_draft, markdown
from tests.storm import judge
from tests.storm.fleet import Bridge, Fleet
from tests.storm.judge import Evidence, Verdict
from tests.storm.plan import (
    CHANNELS,
    INGRESSES,
    OVER_HTTP,
    WORKERS,
    Event,
    Freeze,
    Mishap,
    Plan,
    RedisKill,
    Say,
    Stop,
    Switch,
    Vote,
)
from tests.storm.redis_server import RedisServer
from tests.waiting import eventually

LEASE_SECONDS = 1
TICK_SECONDS = 0.02
READY_SECONDS = 60.0
# Slack's redeliveries after a minute and five come after two seconds and ten.
REDELIVERY_SCALE = 1 / 30
ACK_SECONDS = 2.0
PACE = Pace(first_text=0.2, between_pieces=0.03)
ANSWER = re.compile(r"Answer (\S+) to (Thread \d+ question \d+): one two three four five six seven eight nine ten\.")
FAULTS_OF_ITS_OWN = {"journey_failed", "surrender_failed", "entry_unreadable"}


def answer(asked: AskedOfKapa) -> str:
    """Answer a question by naming it and the answer's id."""
    return f"Answer {asked.question_answer_id} to {asked.query}: one two three four five six seven eight nine ten."


async def _sooner(seconds: float) -> None:
    await asyncio.sleep(seconds * REDELIVERY_SCALE)


async def _nap(naps: set[float], seconds: float) -> None:
    naps.add(seconds)
    await asyncio.sleep(seconds)


class HeardSlack(SimulatedSlack):
    """A simulated Slack that keeps in mind what it sent to the app, and when it was first acknowledged."""

    def __init__(self, **options: Any) -> None:
        self.sent: dict[str, Json] = {}
        self.acknowledged: dict[str, float] = {}
        super().__init__(**options)

    def deliver(self, event: Json, **envelope_overrides: Any) -> str:
        """Send an event, and remember it where it is a person's doing."""
        event_id = super().deliver(event, **envelope_overrides)
        if event.get("user") != BOT.id and not event.get("subtype"):
            self.sent[event_id] = event
        return event_id

    async def listen(self) -> None:
        """Take note of every acknowledgement, until cancelled."""
        while True:
            await self.wait_for(lambda: self.deliveries, 3600)
            while self.deliveries:
                delivery = self.deliveries.popleft()
                if delivery.is_acknowledged:
                    self.acknowledged.setdefault(delivery.event_id, time())


@dataclass(slots=True)
class World:
    """Everything around the bridges of a storm, and the bridges by the name of their place.

    `naps` are the lengths of all pauses that Kapa made or is making, in seconds.
    """

    rig: Rig
    slack: HeardSlack
    kapa: SimulatedKapa
    redis: RedisServer
    client: Redis
    fleet: Fleet
    naps: set[float]
    http_port: int
    settings: dict[str, Any]
    bridges: dict[str, Bridge] = field(default_factory=dict)
    answered: dict[str, Json] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def around(cls, folder: Path, **settings: Any) -> AsyncIterator["World"]:
        """Serve both simulated services and a Redis; no bridge runs yet. `settings` are every bridge's."""
        async with AsyncExitStack() as stack:
            slack = HeardSlack(limits=None, ack_seconds=ACK_SECONDS, sleep=_sooner)
            naps: set[float] = set()
            kapa = SimulatedKapa(Knowledge(PAGES), pace=PACE, sleep=partial(_nap, naps))
            kapa.answer_with(answer)
            await stack.enter_async_context(slack.serve())
            await stack.enter_async_context(kapa.serve())
            redis = await stack.enter_async_context(RedisServer.running())
            client = redis_client.connect(redis.url)
            stack.push_async_callback(client.aclose)
            fleet = await stack.enter_async_context(Fleet.ready(folder))
            rig = Rig(slack, kapa, redis.url, folder)
            world = cls(rig, slack, kapa, redis, client, fleet, naps, free_port(), settings)
            slack.subscribe(f"http://127.0.0.1:{world.http_port}/slack/events")
            slack.delivery = "socket"
            for watch in (slack.listen(), world._watch()):
                task = asyncio.create_task(watch)
                stack.callback(task.cancel)
            yield world

    async def _watch(self) -> None:
        """Keep the answers that stand in Slack, by the question that they reply to."""
        async for change in self.slack.subscribe_changes():
            message = change.get("message", {})
            found = write.read_metadata(message)
            if found and ANSWER.fullmatch(markdown(message)):
                self.answered[found[0]] = message

    def start(self, name: str, *, breakage: str = "", **settings: Any) -> Bridge:
        """Start the bridge of a place, such as `worker-0`."""
        own = {"bridge_lease_seconds": LEASE_SECONDS, "bridge_drain_seconds": 0.3} | self.settings | settings
        if name == OVER_HTTP:
            own |= {"slack_signing_secret": self.slack.signing_secret, "bridge_transport": "http"}
            own |= {"bridge_port": self.http_port}
        environment = self.rig.environment(**own)
        self.bridges[name] = self.fleet.start(name, name.partition("-")[0], environment, breakage=breakage)
        return self.bridges[name]

    async def ready(self, *names: str) -> None:
        """Wait until the bridges of these places have started, and Slack can reach those that listen."""
        for name in names:
            await eventually(partial(is_ready, self.bridges[name]), READY_SECONDS)
        sockets = len([name for name in names if name in INGRESSES and name != OVER_HTTP])
        await eventually(lambda: self.slack.sockets >= sockets)

    async def idle(self) -> bool:
        """Say whether every event was delivered or given up, and nothing waits or is being worked on."""
        try:
            await self.slack.delivered(0.01)
            return not [key async for key in self.client.scan_iter(f"{TAG}:*:line:*")]
        except (TimeoutError, RedisError):
            return False

    async def evidence(self, **more: Any) -> Evidence:
        """Gather what can be seen now."""
        shown = [_shown(message) for channel in CHANNELS for message in self._own_messages(channel)]
        places = {message["ts"]: channel for channel in CHANNELS for message in self.slack.messages(channel)}
        store = Store(self.client, ttl_seconds=60)
        remembered = {
            one.ts: (await store.ballot(f"{self.slack.team_id}:{places[one.ts]}:{one.ts}", "")).question_answer_id
            for one in shown
            if one.part == 0
        }
        return Evidence(
            said=self._said(),
            shown=shown,
            asked=[
                judge.Asked(a.query, a.thread_id, a.is_follow_up, a.question_answer_id, a.at, a.ended)
                for a in self.kapa.asked
            ],
            emoji=self._emoji(),
            feedback={
                (answer, person.rpartition(":")[2]): body["reaction"]
                for (answer, person), body in self.kapa.feedback.items()
            },
            remembered=remembered,
            taken_over=[
                (event["item"].rpartition(":")[2], _seconds(event))
                for event in self._logged("work_taken_over")
                if event["kind"] == "question"
            ],
            # Kapa itself is always there: where no status came, it had taken the question.
            asked_in_vain=sum(event["status"] is None for event in self._logged("kapa_failed")),
            **more,
        )

    def _logged(self, name: str) -> Iterator[Json]:
        return (event for bridge in self.fleet.bridges for event in bridge.logged() if event["event"] == name)

    def _own_messages(self, channel: str) -> list[Json]:
        return [message for message in self.slack.messages(channel) if message.get("bot_id") == BOT.bot_id]

    def _said(self) -> list[judge.Said]:
        found: dict[str, judge.Said] = {}
        for event_id, event in self.slack.sent.items():
            if event["type"] not in {"message", "app_mention"}:
                continue
            before = found.get(event["ts"])
            times = [before.acknowledged if before else None, self.slack.acknowledged.get(event_id)]
            acknowledged = min((at for at in times if at is not None), default=None)
            query = event["text"].removeprefix(f"<@{BOT.id}> ")
            thread = str(event.get("thread_ts", event["ts"]))
            found[event["ts"]] = judge.Said(event["ts"], thread, query, float(event["ts"]), acknowledged)
        return list(found.values())

    def _emoji(self) -> list[judge.Emoji]:
        return [
            judge.Emoji(
                event["item"]["ts"],
                event["user"],
                event["reaction"],
                event["type"] == "reaction_added",
                event["event_ts"],
                event_id in self.slack.acknowledged,
            )
            for event_id, event in self.slack.sent.items()
            if event["type"].startswith("reaction_")
        ]

    def faults(self) -> list[str]:
        """Name what no bridge may log, and every bridge that ended as none may."""
        stumbled = [
            f"{bridge.id}: {event['event']} {event.get('exception', '')}"
            for bridge in self.fleet.bridges
            for event in bridge.logged()
            if event["event"] in FAULTS_OF_ITS_OWN or "exception" in event
        ]
        ended = [bridge for bridge in self.fleet.bridges if not bridge.is_alive and not _ended_well(bridge)]
        return [*stumbled, *(f"{bridge.id} ended with {bridge.exit.result()}" for bridge in ended)]


def _ended_well(bridge: Bridge) -> bool:
    """Say whether a bridge was killed, stopped in order, or could not start as it should not."""
    code = bridge.exit.result()
    could_not_start = not is_ready(bridge) and (
        code == -signal.SIGTERM or "Redis cannot be used" in bridge.log.read_text("utf-8", "replace")
    )
    return code in (0, -signal.SIGKILL) or could_not_start


def is_ready(bridge: Bridge) -> bool:
    """Say whether a bridge has started."""
    return any(event["event"] == "bridge_ready" for event in bridge.logged())


def _seconds(event: Json) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _shown(message: Json) -> judge.Shown:
    question, part = write.read_metadata(message) or ("", 0)
    text = markdown(message)
    found = ANSWER.fullmatch(text)
    finished = float(message.get("edited", message)["ts"])
    answer, query = (found[1], found[2]) if found else ("", "")
    thread = message.get("thread_ts", "")
    return judge.Shown(message["ts"], thread, question, part, answer, query, not is_draft(message), finished)


class Storm:
    """One storm in one world."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self._posted: dict[tuple[int, int], tuple[str, str]] = {}
        self._votes: list[Vote] = []
        self._away: set[str] = set()
        self._stopped: list[float] = []
        self._woken: list[float] = []
        self._kills = 0

    async def rage(self, settle_seconds: float) -> Verdict:
        """Carry the plan out, wait until all is done (for so long at most), stop every bridge, and judge."""
        for name in (*INGRESSES, *WORKERS):
            self._world.start(name)
        await self._world.ready(*INGRESSES, *WORKERS)
        keeper = asyncio.create_task(self._keep())
        async with asyncio.TaskGroup() as group:
            await self._follow(group)
        self._world.slack.clear_faults()
        self._world.kapa.clear_faults()
        with suppress(TimeoutError):  # what is not done by then is judged as lost
            await eventually(self._is_settled, settle_seconds)
        keeper.cancel()
        await asyncio.gather(*(self._world.fleet.stopped(one) for one in self._world.bridges.values()))
        return judge.judge(
            await self._world.evidence(
                stopped=self._stopped,
                woken=self._woken,
                kills=self._kills,
                per_minute=self._plan.kapa_per_minute,
                faults=self._world.faults(),
            )
        )

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for event in self._plan.events:
            while loop.time() < start + event.at:
                await self._vote()
                await asyncio.sleep(min(TICK_SECONDS, max(0.0, start + event.at - loop.time())))
            await self._do(event, group)

    async def _do(self, event: Event, group: asyncio.TaskGroup) -> None:
        match event:
            case Say():
                await self._say(event)
            case Vote():
                self._votes.append(event)
            case Stop():
                group.create_task(self._stop(event))
            case Freeze():
                group.create_task(self._freeze(event))
            case RedisKill():
                group.create_task(self._kill_redis(event))
            case Mishap():
                self._mishap(event)
            case Switch():
                self._world.slack.delivery = "http" if event.to_http else "socket"

    async def _say(self, event: Say) -> None:
        thread = self._posted[event.thread, 0][1] if event.number else None
        text = f"Thread {event.thread} question {event.number}"
        is_mention = event.number == 0 and event.thread % 4 == 0
        ts = await self._world.slack.say(event.user, event.channel, text, thread=thread, mention=is_mention)
        self._posted[event.thread, event.number] = event.channel, ts

    async def _vote(self) -> None:
        """Cast the votes whose answers are there; the order of one person's votes on one answer is kept."""
        waiting, self._votes = self._votes, []
        for vote in waiting:
            channel, ts = self._posted[vote.thread, vote.number]
            message = self._world.answered.get(ts)
            if message is None:
                self._votes.append(vote)
            else:
                await self._toggle(vote, channel, message["ts"])

    async def _toggle(self, vote: Vote, channel: str, ts: str) -> None:
        slack = self._world.slack
        reactions = slack.workspace.message(slack.workspace.channel(channel), ts).get("reactions", [])
        is_there = any(one["name"] == vote.emoji and vote.user in one["users"] for one in reactions)
        await (slack.unreact if is_there else slack.react)(vote.user, channel, ts, vote.emoji)

    async def _stop(self, event: Stop) -> None:
        self._away.add(event.slot)
        self._kills += 1
        bridge = self._world.bridges[event.slot]
        self._stopped.append(time())
        way: Callable[[Bridge], Any] = self._world.fleet.killed if event.by_force else self._world.fleet.stopped
        await way(bridge)
        await asyncio.sleep(event.down)
        self._world.start(event.slot)
        self._away.discard(event.slot)

    async def _freeze(self, event: Freeze) -> None:
        self._away.add(event.slot)
        self._kills += 1
        bridge = self._world.bridges[event.slot]
        self._world.fleet.signal(bridge, signal.SIGSTOP)
        await asyncio.sleep(event.seconds)
        self._woken.append(time())
        self._world.fleet.signal(bridge, signal.SIGCONT)
        self._away.discard(event.slot)

    async def _kill_redis(self, event: RedisKill) -> None:
        self._kills += 1
        self._stopped.append(time())
        await self._world.redis.away(event.down)

    def _mishap(self, event: Mishap) -> None:
        # One that found nobody is forgotten: many that waited would all meet the same question.
        if event.target:
            self._world.slack.clear_faults()
            self._world.slack.fault(event.target, event.kind)
        else:
            self._world.kapa.clear_faults()
            self._world.kapa.fault(event.kind)

    async def _keep(self) -> None:
        """Start again what ended by itself, as whoever runs a bridge does: one cannot start while Redis is away."""
        while True:
            for name, bridge in list(self._world.bridges.items()):
                if name not in self._away and not bridge.is_alive:
                    self._world.start(name)
            await asyncio.sleep(0.2)

    async def _is_settled(self) -> bool:
        await self._vote()
        still_to_come = [
            vote for vote in self._votes if self._posted[vote.thread, vote.number][1] in self._world.answered
        ]
        return not still_to_come and await self._world.idle()
