"""A lane: one worker process between a simulated Slack and Kapa and a Redis, with the gate around it, for many cells.

A cell is a scenario with a plan of faults. What a scenario does lives in `scenarios`, what it must leave behind in
`verdict`.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis

from bridge import redis_client
from bridge.dead_letters import DeadLetters
from bridge.inbox import TAG, Inbox, Kind
from bridge.playground import slack_events
from bridge.playground.kapa import Asked, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.run import simulated_kapa_environment, slack_environment
from bridge.playground.serving import Json
from bridge.playground.slack import APP_ID, BOT, GENERAL, SimulatedSlack
from bridge.policy import Rules
from bridge.settings import load
from bridge.slack.app import Intake
from bridge.slack.read import Identity
from bridge.store import Store
from tests.faults.gate import KAPA, SLACK, Action, Call, Gate, Passage, until
from tests.faults.process import WorkerProcess
from tests.faults.proxies import http_proxy, redis_proxy
from tests.faults.verdict import Evidence, Expected, ExpectedVote
from tests.rig import markdown

CELL_SECONDS = 15.0
# What a fault keeps away is not waited for any longer.
QUIET_SECONDS = 0.25
DRAFTED = ("chat.postMessage", "REMEMBER")
STREAMED = ("chat.startStream", "REMEMBER")
SETTINGS = {"BRIDGE_ADMIN_PORT": "0", "KAPA_REQUESTS_PER_MINUTE": "1000", "BRIDGE_DRAIN_SECONDS": "5"}

# KEYS: prefixes of the kinds' keys   Returns the names of all that is still to be done.
_WORK = """
local found = {}
for _, kind in ipairs(KEYS) do
  for _, part in ipairs({':line:*', ':notes:*', ':later'}) do
    for _, key in ipairs(redis.call('KEYS', kind .. part)) do found[#found + 1] = key end
  end
  if redis.call('EXISTS', kind .. ':ready') == 1 then
    if redis.call('XLEN', kind .. ':ready') > 0 then found[#found + 1] = 'a ticket in ' .. kind end
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', kind .. ':ready')) do
      if group[6] > 0 then found[#found + 1] = 'a lease in ' .. kind end
    end
  end
end
return found
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens in each of its cells: `story`, under `settings`.

    `answer` makes Kapa's answer, ending in the question_answer_id. Faults in `first` come in every cell, those in
    `always` at each call with that label. `on_first_death` happens before another worker starts.
    """

    name: str
    story: Callable[["Cell"], Awaitable[None]]
    settings: Mapping[str, str] = field(default_factory=dict)
    answer: Callable[[Asked], str] = lambda asked: f"{asked.query}: one two three four five {asked.question_answer_id}"
    first: Mapping[Call, Action] = field(default_factory=dict)
    always: Mapping[str, Action] = field(default_factory=dict)
    on_first_death: Callable[["Cell"], None] = lambda cell: None


class HeardSlack(SimulatedSlack):
    """A simulated Slack whose events wait in `heard` to be taken in, instead of being sent."""

    heard: asyncio.Queue[Json]

    def deliver(self, event: Json, **envelope_overrides: Any) -> str:
        """Keep the event as the app would get it."""
        body = slack_events.envelope(
            event, team=self.team_id, app=APP_ID, bot_user=BOT.id, event_id="Ev0", time=0, **envelope_overrides
        )
        self.heard.put_nowait(body)
        return "Ev0"


@dataclass
class Cell:
    """One cell as its scenario sees it: what people do, and what must come of it."""

    lane: "Lane"
    questions: list[Expected] = field(default_factory=list)
    votes: list[ExpectedVote] = field(default_factory=list)
    thread: str = ""

    async def ask(
        self,
        text: str,
        *,
        parts: int = 1,
        sentences: Sequence[str] = (),
        is_dead: bool = False,
        held_until: Sequence[str] = DRAFTED,
    ) -> str:
        """Ask in the cell's thread, or begin it; return once all work is done. Gives the question's ts.

        Kapa stands still after its first words until calls with these labels have passed, one after the other.
        """
        lane = self.lane
        if held_until:
            lane.kapa.hold(after_pieces=2)
        ts = await lane.slack.say("U0ADA", GENERAL, text, thread=self.thread or None)
        self.thread = self.thread or ts
        line = f"{lane.slack.team_id}:{GENERAL}:{self.thread}"
        self.questions.append(Expected(text, line, parts, tuple(sentences), is_dead))
        lane.gate.marks |= {ts.encode(), self.thread.encode()}
        await lane.take_in()
        if held_until:
            await lane.passed(held_until)
            lane.kapa.release()
        await lane.settled()
        return ts

    async def edit(self, text: str) -> None:
        """Edit the last question; return once all work is done."""
        lane, last = self.lane, self.questions[-1]
        ts = last.line.rpartition(":")[2]
        await lane.slack.edit("U0ADA", GENERAL, ts, text)
        self.questions[-1] = replace(last, text=text)
        await lane.take_in()
        await lane.settled()

    async def delete(self) -> None:
        """Delete the conversation's first question, the only one; return once all work is done."""
        lane = self.lane
        await lane.slack.delete("U0ADA", GENERAL, self.thread)
        self.questions = []
        await lane.take_in()
        await lane.settled()

    async def vote(self, emoji: str, reaction: str, comment: Json | None) -> None:
        """Put an emoji on the last answer's first message; return once all work is done."""
        lane = self.lane
        answer = lane.replies(self.thread)[-1][0]
        lane.gate.marks.add(answer.encode())
        await lane.slack.react("U0GRACE", GENERAL, answer, emoji)
        self.votes = [ExpectedVote(len(self.questions) - 1, f"slack:{lane.slack.team_id}:U0GRACE", reaction, comment)]
        await lane.take_in()
        await lane.settled()

    def post_copy(self) -> None:
        """Let a second copy of the bridge's first message stand in the thread, as a look-up too early leaves it.

        A worker that was frozen before it had posted left none.
        """
        workspace = self.lane.slack.workspace
        channel = workspace.channel(GENERAL)
        original = next((one for one in channel.thread(self.thread) if one["user"] == BOT.id), None)
        if original is None:
            return
        content: Json = {name: original[name] for name in ("text", "blocks", "metadata") if name in original}
        workspace.post(BOT.id, channel, content, self.thread)


class Lane:
    """See the module. Used as `async with Lane.open(...) as lane`; `run` runs one cell."""

    def __init__(self, redis: Redis, log_file: Path, variant: str) -> None:
        self.redis = redis
        self._find_work = redis.register_script(_WORK)
        settings = load(overrides={"slack_bot_token": "xoxb-playground"})
        self._intake = Intake(
            questions=Inbox(redis, Kind.QUESTION),
            votes=Inbox(redis, Kind.VOTE),
            store=Store(redis, ttl_seconds=settings.thread_ttl_seconds),
            identity=Identity("T0PLAY", BOT.id, BOT.bot_id or "", "https://playground.slack.com/"),
            rules=Rules(),
            reactions=settings.reactions,
            ask_why=lambda trigger, about: None,
        )
        self.log_file = log_file
        self.variant = variant
        self.slack = HeardSlack(limits=None)
        self.slack.heard = asyncio.Queue()
        self.kapa = SimulatedKapa(Knowledge({"README.md": "# Bridge\n\nIt answers.\n"}))
        self.answers: dict[str, str] = {}
        self.gate = Gate(kill=partial(self._strike, signal.SIGKILL), freeze=partial(self._strike, signal.SIGSTOP))
        self.worker: WorkerProcess | None = None
        self.frozen: list[WorkerProcess] = []
        self.woken = (0, 0)
        self._values: dict[str, str] = {}
        self._settings: Mapping[str, str] = {}
        self._replacing: set[asyncio.Task[None]] = set()
        self._on_first_death: Callable[[], None] = lambda: None

    @classmethod
    @asynccontextmanager
    async def open(cls, redis_url: str, number: int, folder: Path, variant: str = "whole") -> AsyncIterator["Lane"]:
        """Serve the worlds of lane `number` (from 0), on a database of its own."""
        socket = unquote(urlsplit(redis_url).path)
        redis = redis_client.connect(f"unix://{socket}?db={number}")
        lane = cls(redis, folder / f"lane-{number}.log", variant)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(redis.aclose)
            await stack.enter_async_context(lane.slack.serve())
            await stack.enter_async_context(lane.kapa.serve())
            slack = await stack.enter_async_context(http_proxy(lane.gate, SLACK, lane.slack.base_url))
            kapa = await stack.enter_async_context(http_proxy(lane.gate, KAPA, lane.kapa.api_url))
            port = await stack.enter_async_context(redis_proxy(lane.gate, socket))
            lane._values = slack_environment(lane.slack) | simulated_kapa_environment(lane.kapa) | SETTINGS
            lane._values |= {"SLACK_API_URL": f"{slack}/api/", "KAPA_API_URL": kapa}
            lane._values |= {"REDIS_URL": f"redis://127.0.0.1:{port}/{number}"}
            stack.push_async_callback(lane.stop)
            yield lane

    # The worker

    def _start(self) -> WorkerProcess:
        values = {name.lower(): value for name, value in (self._values | dict(self._settings)).items()}
        return WorkerProcess(values, self.log_file, self.variant)

    def _strike(self, number: int) -> None:
        """Kill or freeze the worker at once; another one starts as soon as it is over."""
        worker = self.worker
        if worker is None:
            return
        worker.signal(number)
        task = asyncio.create_task(self._replace(worker, is_dead=number == signal.SIGKILL))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, worker: WorkerProcess, *, is_dead: bool) -> None:
        if is_dead:
            await worker.ended()
        else:
            self.frozen.append(worker)
        if len(self.gate.deaths) == 1:
            self._on_first_death()
        self.worker = self._start()

    async def stop(self) -> None:
        """End all processes of the lane."""
        await asyncio.gather(*self._replacing)
        for worker in (*self.frozen, self.worker):
            if worker is not None:
                worker.signal(signal.SIGKILL)
                await worker.ended()
        self.worker, self.frozen = None, []

    async def thaw(self) -> None:
        """Wake the frozen workers, and let them end what they were at."""
        self.woken = (self.gate.tick(), len(self.frozen))
        for worker in self.frozen:
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGTERM)
            if not await worker.ended():
                worker.signal(signal.SIGKILL)
                await worker.ended()
        self.frozen = []

    # What happens in a cell

    async def take_in(self) -> None:
        """Take in what Slack has to tell, as an ingress does."""
        while not self.slack.heard.empty():
            await self._intake.take_in(self.slack.heard.get_nowait())

    async def passed(self, labels: Sequence[str]) -> None:
        """Wait until Kapa stands still and the calls have passed, or nothing happens any more."""
        clock = asyncio.get_running_loop().time

        async def have_passed() -> bool:
            seen = iter([one.call.label for one in self.gate.passages if one.acted_at])
            is_quiet = clock() - self.gate.touched > QUIET_SECONDS
            if self.kapa.held:
                # Each is looked for behind the one before it.
                return all(label in seen for label in labels) or is_quiet
            return await self._is_over()

        await until(self.gate, have_passed)

    async def settled(self) -> None:
        """Wait until no work is left, and nothing of it is on its way."""
        await until(self.gate, self._is_over)

    async def _is_over(self) -> bool:
        # A status line waits for nobody, and its call may be struck while Redis is asked what is left.
        return self._is_at_rest() and not await self._work() and self._is_at_rest()

    def _is_at_rest(self) -> bool:
        return not self.gate.in_flight and not self._replacing

    async def _work(self) -> list[str]:
        """Name what is still to be done."""
        return cast("list[str]", await self._find_work(keys=[f"{TAG}:{kind}" for kind in Kind]))

    def replies(self, thread: str) -> list[tuple[str, str]]:
        """Give the bridge's visible messages, oldest first, as (ts, Markdown)."""
        found = self.slack.thread(GENERAL, thread) if thread else []
        return [(one["ts"], markdown(one)) for one in found if one.get("bot_id") == BOT.bot_id]

    # Cells

    async def run(self, scenario: Scenario, plan: Mapping[Call, Action] | None = None) -> Evidence:
        """Run one cell, and give what it left behind; the lane is clean afterwards."""
        await self._prepare(scenario)
        self.gate.begin({**scenario.first, **(plan or {})}, scenario.always)
        cell, unfinished = Cell(self), ""
        self._on_first_death = partial(scenario.on_first_death, cell)
        try:
            async with asyncio.timeout(CELL_SECONDS):
                await scenario.story(cell)
                await self.thaw()
                await self.settled()
        except TimeoutError:
            unfinished = f"it did not come to an end in {CELL_SECONDS:.0f} s"
        if self.worker is None or not self.worker.is_alive:
            unfinished = unfinished or "the worker ended by itself"
        evidence = await self._evidence(cell, unfinished)
        await self._clean(is_broken=bool(unfinished))
        return evidence

    async def _prepare(self, scenario: Scenario) -> None:
        # A worker that finds questions and no consumer group takes them for tried ones.
        for kind in Kind:
            await Inbox(self.redis, kind).open()
        if self.worker is None or self._settings != scenario.settings:
            await self.stop()
            self._settings = scenario.settings
            self.worker = self._start()
        self.answers = {}
        self.kapa.answer_with(partial(self._answer, scenario))

    def _answer(self, scenario: Scenario, asked: Asked) -> str:
        self.answers[asked.question_answer_id] = answer = scenario.answer(asked)
        return answer

    async def _evidence(self, cell: Cell, unfinished: str) -> Evidence:
        redis: dict[str, str] = {}
        for key in await self._keys():
            is_text = await self.redis.type(key) == "string"
            redis[key] = str(await self.redis.get(key) or "") if is_text else ""
        return Evidence(
            questions=cell.questions,
            votes=cell.votes,
            replies=self.replies(cell.thread),
            redis=redis,
            work=await self._work(),
            dead=[letter.reason for letter in await DeadLetters(self.redis).read()],
            asked=list(self.kapa.asked),
            answers=self.answers,
            feedback=dict(self.kapa.feedback),
            upserts=len(self.kapa.feedback_log),
            passages=self.gate.passages,
            deaths=self.gate.deaths,
            woken=self.woken,
            unfinished=unfinished,
        )

    async def _clean(self, *, is_broken: bool) -> None:
        if is_broken:
            await self.stop()
            await self.redis.flushdb()
        keys = await self._keys()
        if keys:
            await self.redis.delete(*keys)
        self.kapa.release()
        self.kapa.asked.clear()
        self.kapa.feedback.clear()
        self.kapa.feedback_log.clear()
        while not self.slack.heard.empty():
            self.slack.heard.get_nowait()

    async def _keys(self) -> list[str]:
        """Name all keys but the streams, which stay: a worker that lost its consumer group would have to make it."""
        streams = {f"{TAG}:{kind}:ready" for kind in Kind}
        return [key for key in map(str, await self.redis.keys("*")) if key not in streams]


def recorded(passages: Sequence[Passage], scenario: Scenario) -> list[tuple[Call, tuple[Action, ...]]]:
    """Give the calls that a fault can be put on, with the faults: those that come after the scenario's own."""
    start = max((number for number, one in enumerate(passages) if one.call in scenario.first), default=-1)
    return [(one.call, one.actions) for one in passages[start + 1 :] if one.call.label not in scenario.always]
