"""Looks on at the life of tickets in Redis, through its MONITOR, which tells every command as it comes.

https://redis.io/docs/latest/commands/monitor/ . The inbox does all in scripts: which one runs is known by its hash, and
what it did by the commands that Redis says it ran within. How lines are read is `redis_words`' business, whose thread a
step belongs to `bonnet`'s. Heartbeats (renewed leases, looks for revisions) are left out.
"""

import asyncio
import hashlib
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import inbox_scripts as scripts
from bridge.app import VOTES_AT_ONCE, tickets_of_a_channel
from bridge.playground.redis_words import Command, command_of, line_of, noted
from bridge.playground.serving import Json, end

_KEPT = 5_000
_TICKETS_KEPT = 1_000
_READS_KEPT = 500
_AGAIN_SECONDS = 0.25
_ID_SECONDS = 0.002
# What a script writes once it does what it was asked for, and what that says of it.
_WRITES = {
    "put": {"rpush early": "early", "rpush line": "accepted"},
    "revise": {"lset line": "revised", "rpush line": "accepted"},
    "finish": {"lpop line": "ok"},
    "retry": {"srem out": "ok"},
    "remember": {"expire notes": "ok"},
    "begin": {"expire notes": "ok"},
    "death": {"hincrby notes": "ok"},
}
_WITHOUT_A_WRITE = {"put": "duplicate", "revise": "unknown"}
_SETTLED = ("accepted", "revised", "early")

log = structlog.get_logger()


@dataclass(slots=True)
class Step:
    """One step of a ticket's life. `line` is its conversation (of a vote: the answer), `at` is Redis' own time."""

    number: int
    at: float
    label: str
    kind: str
    line: str
    outcome: str
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Read:
    at: float
    label: str
    kind: str
    worker: str


@dataclass(frozen=True, slots=True)
class _Held:
    worker: str
    line: str


class RedisWatch:
    """Keeps the latest steps of all tickets of one Redis, and outlives its absences.

    `concurrency` is what the bridge's workers have: it is part of the scripts' text.
    """

    def __init__(
        self, redis: Redis, *, concurrency: int, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self.steps: deque[Step] = deque(maxlen=_KEPT)
        self._redis = redis
        self._sleep = sleep
        self._scripts = _scripts(concurrency)
        self._names = {_sha(text): name for text, name in self._scripts.items()}
        self._numbers = itertools.count(1)
        self._reads: deque[_Read] = deque(maxlen=_READS_KEPT)
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._running: Step | None = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look on until the block ends; from its beginning on where Redis is there."""
        listening = asyncio.Event()
        task = asyncio.create_task(self._watch(listening))
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(listening.wait(), 1.0)
            yield
        finally:
            await end(task)

    async def _watch(self, listening: asyncio.Event) -> None:
        while True:
            try:
                await self._listen(listening)
            except (RedisError, OSError) as error:
                log.debug("redis_watch_lost", error=str(error))
            await self._sleep(_AGAIN_SECONDS)

    async def _listen(self, listening: asyncio.Event) -> None:
        # A script that Redis knows already is called once, another one twice.
        for text in self._scripts:
            await self._redis.script_load(text)
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
        try:
            await connection.connect()
            await connection.send_command("MONITOR")
            await connection.read_response()
            listening.set()
            while True:
                self.hear(str(await connection.read_response(timeout=math.inf)))
        finally:
            await connection.disconnect(nowait=True)

    def hear(self, text: str) -> None:
        """Take in one line of MONITOR."""
        command = command_of(text)
        if command is None:
            return
        if command.is_inside:
            self._see_inside(command)
            return
        self._running = None
        if command.name == "evalsha" and (name := self._names.get(command.word(1))):
            self._script(name, command)
        elif command.name == "xreadgroup":
            group = command.words.index("GROUP") if "GROUP" in command.words else 0
            self._reads.append(_Read(command.at, "take", _kind(command.word(-2)), command.word(group + 2)))
        elif command.name == "xautoclaim":
            self._reads.append(_Read(command.at, "take over", _kind(command.word(1)), command.word(3)))

    def _see_inside(self, command: Command) -> None:
        """Tell by what a script does which of its outcomes it has."""
        step = self._running
        if step is None or step.outcome in _SETTLED:
            return
        sort = command.word(1).removeprefix(f"{{bridge}}:{step.kind}:").partition(":")[0]
        step.outcome = _WRITES[step.label].get(f"{command.name} {sort}", step.outcome)

    def _script(self, name: str, command: Command) -> None:
        keys, args = command.keys_and_args()
        kind = _kind(keys[0])
        if name in {"put", "revise"}:
            item = noted(args[1]) if name == "put" else args[3]
            self._running = self._add(command.at, name, kind, args[0], {"item": item})
            return
        ticket, worker = args[1], args[2]
        line = self._line(name, keys, args)
        detail: Json = {"item": _item(keys), "ticket": ticket, "worker": worker}
        self._note_holder(command.at, kind, line, detail)
        label, more = _act(name, args)
        self._running = self._add(command.at, label, kind, line, detail | more)

    def _line(self, name: str, keys: list[str], args: list[str]) -> str:
        if name == "remember":
            return line_of(keys[2])
        if name == "death":
            held = self._held.get(args[1])
            return held.line if held else ""
        return args[3]

    def _note_holder(self, at: float, kind: str, line: str, detail: Json) -> None:
        """Add the step with which a worker came by its ticket: that is seen only when it does something with it."""
        ticket, worker = str(detail["ticket"]), str(detail["worker"])
        before = self._held.get(ticket)
        if before is not None and before.worker == worker:
            return
        self._held[ticket] = _Held(worker, line)
        while len(self._held) > _TICKETS_KEPT:
            self._held.popitem(last=False)
        mine = [read for read in self._reads if (read.worker, read.kind) == (worker, kind) and read.at <= at]
        if before is None:
            # A read that was served is followed at once by the next, and the ticket's id says since when it was there.
            issued = self._issued(ticket, line)
            label, found = "take", [read.at for read in mine if read.label == "take" and read.at >= issued][:1]
        else:
            label, found = "take over", [read.at for read in mine if read.label == "take over"][-1:]
        self._add(found[0] if found else at, label, kind, line, dict(detail)).outcome = "ok"

    def _issued(self, ticket: str, line: str) -> float:
        """Give when a ticket was issued: its id says that to the millisecond, and the step that issued it more."""
        by_its_id = int(ticket.partition("-")[0]) / 1000
        steps = [step.at for step in self.steps if step.line == line and step.at < by_its_id + _ID_SECONDS]
        return max([by_its_id, *steps[-1:]])

    def _add(self, at: float, label: str, kind: str, line: str, detail: Json) -> Step:
        step = Step(next(self._numbers), at, label, kind, line, _WITHOUT_A_WRITE.get(label, "lost"), detail)
        self.steps.append(step)
        return step


def _scripts(concurrency: int) -> dict[str, str]:
    """Give the scripts that are steps of a ticket's life, as the ingress and the workers have them, and their names."""
    named = {
        "put": scripts.PUT,
        "revise": scripts.REVISE,
        "finish": scripts.FINISH,
        "retry": scripts.RETRY,
        "remember": scripts.REMEMBER,
        "death": scripts.NOTE_DEATH,
    }
    bounds = {tickets_of_a_channel(concurrency), tickets_of_a_channel(VOTES_AT_ONCE)}
    return {scripts.bound(text, bound): name for name, text in named.items() for bound in bounds}


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()  # noqa: S324 Redis' own name for a script


def _kind(key: str) -> str:
    return key.removeprefix("{bridge}:").partition(":")[0]


def _item(keys: list[str]) -> str:
    notes = next((key for key in keys if ":notes:" in key), "")
    return notes.partition(":notes:")[2]


def _act(name: str, args: list[str]) -> tuple[str, Json]:
    """Give what is worth knowing of a script's arguments, and the name of what it does with these."""
    if name == "remember":
        notes = args[6 : 6 + 2 * int(args[4]) : 2]
        return ("begin", {}) if "begun" in notes else ("remember", {"notes": notes})
    if name == "retry":
        return name, {"wait_seconds": int(args[4]) / 1000, "is_failure": args[5] == "1"}
    if name == "finish":
        return name, {"gave_up": args[5]} if args[5] else {}
    return name, cast("Json", {})
