"""The gate: every call that leaves a worker's process passes it, is named and recorded there, and may fail.

Nothing here knows which calls a journey makes: those that carry the cell's marks are found as they pass. The sockets
live in `proxies`; what the faults mean for the bridge's promises in `verdict`, when they come in `lane`.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final

from bridge.playground.serving import Changes

REDIS, SLACK, KAPA = "redis", "slack", "kapa"


class Action(StrEnum):
    """What happens to one call; after: once the server has acted."""

    DIE_BEFORE = "die before"
    DIE_MIDWAY = "die midway"
    DIE_AFTER = "die after"
    FREEZE_AFTER = "freeze after"
    DROP_BEFORE = "drop before"
    DROP_MIDWAY = "drop midway"
    DROP_AFTER = "drop after"
    DROP_AGAIN = "drop after, twice"
    SILENT_BEFORE = "silence before"
    SILENT_MIDWAY = "silence midway"
    SILENT_AFTER = "silence after"
    GARBAGE = "garbage"
    GARBAGE_MIDWAY = "garbage midway"
    LIMITED = "429"
    LIMITED_FOR = "429 with Retry-After"
    ERROR_400 = "400"
    ERROR_500 = "500"
    ERROR_502 = "502 with HTML"
    FULL = "OOM"
    READ_ONLY = "READONLY"
    LOADING = "LOADING"


_ENDS: Final = (
    Action.DIE_BEFORE,
    Action.DIE_AFTER,
    Action.FREEZE_AFTER,
    Action.DROP_BEFORE,
    Action.DROP_AFTER,
    Action.SILENT_BEFORE,
    Action.SILENT_AFTER,
    Action.GARBAGE,
)
_DEATHS: Final = (Action.DIE_BEFORE, Action.DIE_AFTER, Action.FREEZE_AFTER)
MIDWAY: Final = (Action.DIE_MIDWAY, Action.DROP_MIDWAY, Action.SILENT_MIDWAY, Action.GARBAGE_MIDWAY)
_HTTP: Final = (Action.LIMITED, Action.LIMITED_FOR, Action.ERROR_500, Action.ERROR_502)
_REDIS: Final = (Action.DROP_AGAIN, Action.FULL, Action.READ_ONLY, Action.LOADING)
# What is known to belong to a journey only by its reply can no longer fail before the server acted.
_AFTER_ONLY: Final = (
    Action.DIE_AFTER,
    Action.FREEZE_AFTER,
    Action.DROP_AFTER,
    Action.DROP_AGAIN,
    Action.SILENT_AFTER,
    Action.GARBAGE,
)
# A ticket of a Redis stream, and a message's ts.
_NAMES: Final = re.compile(rb"\b\d{13}-\d+\b|\b\d{10}\.\d{6}\b")


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """The name of one call of a cell: the `number`-th (from 1) of its label at its seam."""

    seam: str
    label: str
    number: int

    def __str__(self) -> str:
        return f"{self.seam} {self.label} {self.number}"


@dataclass(slots=True)
class Passage:
    """One call on its way. `asked_at`, `acted_at` count the gate's events; `acted_at` is None where nothing was done.

    `is_whole` says that the whole reply went back to the worker.
    """

    call: Call
    request: bytes
    asked_at: int
    action: Action | None = None
    is_early: bool = True
    is_streamed: bool = False
    acted_at: int | None = None
    is_whole: bool = False

    @property
    def actions(self) -> tuple[Action, ...]:
        """Give every fault that can happen to this call."""
        if self.call.label == "REVISED":
            # A look beside the journey: which of its requests were out before a death here, nobody can tell.
            return tuple(action for action in (*_ENDS, *_REDIS) if action not in _DEATHS)
        if self.call.seam == REDIS:
            return (*_ENDS, *_REDIS) if self.is_early else _AFTER_ONLY
        return (*_ENDS, *_HTTP, *MIDWAY) if self.is_streamed else (*_ENDS, *_HTTP)


@dataclass
class Gate:
    """What passes in one cell after another. `kill` and `freeze` are done to the worker that lives now, at once."""

    kill: Callable[[], None]
    freeze: Callable[[], None]
    marks: set[bytes] = field(default_factory=set)
    plan: dict[Call, Action] = field(default_factory=dict)
    always: Mapping[str, Action] = field(default_factory=dict)
    passages: list[Passage] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    in_flight: int = 0
    touched: float = 0.0
    changes: Changes = field(default_factory=Changes)

    def begin(self, plan: Mapping[Call, Action], always: Mapping[str, Action]) -> None:
        """Forget the last cell; calls named in `plan` fail once, those with a label in `always` each time."""
        self.marks, self.plan, self.always = set(), dict(plan), always
        self.passages, self.deaths, self.in_flight = [], [], 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._clock = count(1)

    def tick(self) -> int:
        """Give the number of the next event."""
        return next(self._clock)

    def carries_a_mark(self, data: bytes) -> bool:
        """Say whether something belongs to the cell."""
        return any(mark in data for mark in self.marks)

    def learn(self, reply: bytes) -> None:
        """Take the tickets and the messages that a reply to the cell names for marks of the cell as well."""
        self.marks |= set(_NAMES.findall(reply))

    def enter(self, seam: str, label: str, request: bytes, *, is_early: bool = True) -> Passage:
        """Name a call that belongs to the cell, and say what is to happen to it."""
        if label != "RENEW":
            # A journey that waits for Kapa alone still renews its lease.
            self.touched = asyncio.get_running_loop().time()
        self._counts[seam, label] += 1
        call = Call(seam, label, self._counts[seam, label])
        action = self.plan.pop(call, None) or self.always.get(label)
        if action is Action.DROP_AGAIN:
            self.plan[Call(seam, label, call.number + 1)] = Action.DROP_AFTER
        passage = Passage(call, request, self.tick(), action, is_early)
        self.passages.append(passage)
        return passage

    def end_worker(self, action: Action) -> None:
        """Kill or freeze the worker now."""
        self.deaths.append(self.tick())
        (self.freeze if action is Action.FREEZE_AFTER else self.kill)()
        self.changes.publish()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Count a call of the cell as on its way."""
        passages = self.passages
        self.in_flight += 1
        try:
            yield
        finally:
            # A leftover of the last cell is not counted in this one.
            if passages is self.passages:
                self.in_flight -= 1
            self.changes.publish()


async def until(gate: Gate, ask: Callable[[], Awaitable[bool]], look_again: float = 0.1) -> None:
    """Wait until `ask` says yes: asked whenever something passed the gate, and now and then besides."""
    while not await ask():
        with suppress(TimeoutError):
            await gate.changes.wait_for(_Once(), look_again)


class _Once:
    """False the first time, and true from then on: with it `Changes.wait_for` waits for the next change."""

    def __init__(self) -> None:
        self._is_asked = False

    def __call__(self) -> bool:
        was_asked, self._is_asked = self._is_asked, True
        return was_asked
