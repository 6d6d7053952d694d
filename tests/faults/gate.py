"""The gate: the sockets through which a worker leaves its process, where every call is named, recorded and may fail.

Nothing here knows which calls a journey makes: those that carry the cell's marks are found as they pass. What the
faults mean for the bridge's promises lives in `verdict`, when they come in `lane`.
"""

import asyncio
import hashlib
import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final

import aiohttp
from aiohttp import web

import bridge
from bridge.inbox import TICKETS_OF_A_CHANNEL
from bridge.inbox_scripts import bound
from bridge.playground.serving import Changes, drop, hang, served

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
_MIDWAY: Final = (Action.DIE_MIDWAY, Action.DROP_MIDWAY, Action.SILENT_MIDWAY, Action.GARBAGE_MIDWAY)
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
_JSON, _HTML, _SECONDS = "application/json", "text/html", {"Retry-After": "1"}
_ANSWERS: Final[Mapping[Action, tuple[int, str, str, Mapping[str, str]]]] = {
    Action.LIMITED: (429, _JSON, '{"ok":false,"error":"ratelimited","detail":"Request was throttled."}', {}),
    Action.LIMITED_FOR: (429, _JSON, '{"ok":false,"error":"ratelimited","detail":"Request was throttled."}', _SECONDS),
    Action.ERROR_400: (400, _JSON, '{"query":["This question cannot be answered."]}', {}),
    Action.ERROR_500: (500, _JSON, '{"ok":false,"error":"internal_error","detail":"Internal server error."}', {}),
    Action.ERROR_502: (502, _HTML, "<html><body><h1>502 Bad Gateway</h1></body></html>", {}),
}
_ERRORS: Final[Mapping[Action, bytes]] = {
    Action.FULL: b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    Action.READ_ONLY: b"-READONLY You can't write against a read only replica.\r\n",
    Action.LOADING: b"-LOADING Redis is loading the dataset in memory\r\n",
}
# A ticket of a Redis stream, and a message's ts.
_NAMES: Final = re.compile(rb"\b\d{13}-\d+\b|\b\d{10}\.\d{6}\b")
_GARBAGE: Final = b'{"chunk": {"type": "partial_ans\xff\xe2\x90\x9e{{{\xe2\x90\x9e\r\n'


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
        if self.call.seam == REDIS:
            return (*_ENDS, *_REDIS) if self.is_early else _AFTER_ONLY
        return (*_ENDS, *_HTTP, *_MIDWAY) if self.is_streamed else (*_ENDS, *_HTTP)


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


# HTTP


@asynccontextmanager
async def http_proxy(gate: Gate, seam: str, target: str) -> AsyncIterator[str]:
    """Serve a proxy before the server at `target`; gives its base URL."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", _HttpProxy(gate, seam, target, session).handle)
        async with served(app, "127.0.0.1", 0) as url:
            yield url


@dataclass(slots=True)
class _HttpProxy:
    gate: Gate
    seam: str
    target: str
    session: aiohttp.ClientSession

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        sent = f"{request.method} {request.path_qs}\n".encode() + body
        if not self._belongs(sent):
            return await self._forward(request, body, Passage(Call(self.seam, "", 0), sent, 0))
        async with self.gate.passing():
            passage = self.gate.enter(self.seam, self._label(request.path), sent)
            if passage.action is not None and passage.action in _ANSWERS:
                status, kind, text, headers = _ANSWERS[passage.action]
                return web.Response(status=status, content_type=kind, text=text, headers=headers)
            if passage.action in (Action.DIE_BEFORE, Action.DROP_BEFORE, Action.SILENT_BEFORE):
                return await self._fail(request, passage.action)
            return await self._forward(request, body, passage)

    def _belongs(self, sent: bytes) -> bool:
        # Kapa is asked by journeys alone; Slack also for the worker's own name.
        return self.seam == KAPA or self.gate.carries_a_mark(sent)

    def _label(self, path: str) -> str:
        if self.seam == SLACK:
            return path.rpartition("/")[2]
        return re.sub(r"(projects|threads)/[^/]+", r"\1/*", path).removeprefix("/query/v1/").strip("/")

    async def _fail(self, request: web.Request, action: Action) -> web.StreamResponse:
        if action in (Action.DIE_BEFORE, Action.DIE_MIDWAY, Action.DIE_AFTER):
            self.gate.end_worker(action)
            return await hang()
        return await hang() if action.startswith("silence") else drop(request)

    async def _forward(self, request: web.Request, body: bytes, passage: Passage) -> web.StreamResponse:
        kept = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        async with self.session.request(
            request.method, self.target + request.path_qs, data=body, headers=kept, allow_redirects=False
        ) as reply:
            if reply.headers.get("Transfer-Encoding") == "chunked":
                return await self._stream(request, reply, passage)
            text = await reply.read()
            if passage.call.label and self.seam == SLACK:
                self.gate.learn(text)
            passage.acted_at = self.gate.tick() if reply.status < 300 else None
            headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-length"}
            if passage.action is Action.GARBAGE:
                return web.Response(status=reply.status, headers=headers, body=_GARBAGE)
            if passage.action is Action.FREEZE_AFTER:
                self.gate.end_worker(passage.action)
            elif passage.action is not None:
                return await self._fail(request, passage.action)
            passage.is_whole = True
            return web.Response(status=reply.status, headers=headers, body=text)

    async def _stream(
        self, request: web.Request, reply: aiohttp.ClientResponse, passage: Passage
    ) -> web.StreamResponse:
        passage.is_streamed = True
        response = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        held = b""
        async for piece in reply.content.iter_any():
            # With a fault to come the stream is one piece late, so that its end can be kept back.
            await response.write(held if passage.action else piece)
            if held and passage.action in _MIDWAY:
                return await self._break_off(request, response, passage.action)
            held = piece
        passage.acted_at = self.gate.tick()
        if passage.action is Action.GARBAGE:
            await response.write(_GARBAGE)
        elif passage.action is Action.FREEZE_AFTER:
            self.gate.end_worker(passage.action)
            await response.write(held)
        elif passage.action is not None:
            return await self._fail(request, passage.action)
        await response.write_eof()
        # A worker that has given up meanwhile did not get it.
        is_there = request.transport is not None and not request.transport.is_closing()
        passage.is_whole = is_there and passage.action in (None, Action.FREEZE_AFTER)
        return response

    async def _break_off(
        self, request: web.Request, response: web.StreamResponse, action: Action
    ) -> web.StreamResponse:
        if action is not Action.GARBAGE_MIDWAY:
            return await self._fail(request, action)
        await response.write(_GARBAGE)
        await response.write_eof()
        return response


# Redis


def script_names() -> dict[bytes, str]:
    """Give the name of every Lua script that is a constant of one of the bridge's modules, by its hash."""
    found: dict[bytes, str] = {}
    for module in pkgutil.walk_packages(bridge.__path__, "bridge."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, str) and "redis.call(" in value:
                for script in (value, bound(value, TICKETS_OF_A_CHANNEL)):
                    hashed = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
                    found[hashed.encode()] = name.strip("_")
    return found


@asynccontextmanager
async def redis_proxy(gate: Gate, socket: str) -> AsyncIterator[int]:
    """Serve a proxy before the Redis at a unix socket; gives its port."""
    proxy = _RedisProxy(gate, socket, script_names())
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await proxy.close()


@dataclass
class _RedisProxy:
    gate: Gate
    socket: str
    scripts: Mapping[bytes, str]
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    changes: Changes = field(default_factory=Changes)

    async def close(self) -> None:
        """Break every connection, and wait until that is noticed: cancelled ones would be reported as errors."""
        for writer in self.open:
            writer.transport.abort()
        await self.changes.wait_for(lambda: not self.open)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, server = await asyncio.open_unix_connection(self.socket, limit=64 * 1024 * 1024)
        self.open |= {writer, server}
        try:
            await _RedisConnection(self, reader, writer, upstream, server).run()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            server.close()
            writer.close()
            self.open -= {writer, server}
            self.changes.publish()


@dataclass
class _RedisConnection:
    proxy: _RedisProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server_reader: asyncio.StreamReader
    server_writer: asyncio.StreamWriter
    has_queued: bool = False

    async def run(self) -> None:
        """Pass requests and replies, one pair after the other, until one side is gone or a fault ends it."""
        gate = self.proxy.gate
        while True:
            request = await _frame(self.reader)
            label = self._label(request)
            if gate.carries_a_mark(request) or (label == "EXEC" and self.has_queued):
                async with gate.passing():
                    goes_on = await self._pass(gate.enter(REDIS, label, request))
            else:
                goes_on = await self._pass_unknown(request, label)
            if not goes_on:
                return

    def _label(self, request: bytes) -> str:
        words = request.split(b"\r\n", 5)
        name = words[2].decode().upper()
        return self.proxy.scripts.get(words[4], name) if name == "EVALSHA" else name

    async def _ask(self, request: bytes) -> bytes:
        self.server_writer.write(request)
        return await _frame(self.server_reader)

    async def _pass_unknown(self, request: bytes, label: str) -> bool:
        """Pass what may turn out by its reply to belong to the cell."""
        gate = self.proxy.gate
        reply = await self._ask(request)
        hands_out = label == "PROMOTE" and reply != b":0\r\n"
        if not hands_out and not gate.carries_a_mark(reply):
            self.writer.write(reply)
            return True
        gate.learn(reply)
        async with gate.passing():
            return await self._give(gate.enter(REDIS, label, request, is_early=False), reply)

    async def _pass(self, passage: Passage) -> bool:
        action = passage.action
        if action is not None and action in _ERRORS:
            if passage.call.label == "EXEC":
                await self._ask(b"*1\r\n$7\r\nDISCARD\r\n")
            self.writer.write(_ERRORS[action])
            return True
        if action in (Action.DIE_BEFORE, Action.DROP_BEFORE, Action.SILENT_BEFORE):
            return await self._fail(action)
        reply = await self._ask(passage.request)
        self.has_queued = reply == b"+QUEUED\r\n"
        return await self._give(passage, reply)

    async def _give(self, passage: Passage, reply: bytes) -> bool:
        gate, action = self.proxy.gate, passage.action
        if not reply.startswith((b"-", b":0")):
            passage.acted_at = gate.tick()
        if action is Action.GARBAGE:
            self.writer.write(_GARBAGE)
            await self.writer.drain()
            return False
        if action is Action.FREEZE_AFTER:
            gate.end_worker(action)
        elif action is not None:
            return await self._fail(action)
        self.writer.write(reply)
        passage.is_whole = True
        return True

    async def _fail(self, action: Action) -> bool:
        if action in (Action.DIE_BEFORE, Action.DIE_AFTER):
            self.proxy.gate.end_worker(action)
        if not action.startswith("drop"):
            # Silence, until the worker is gone or has given up.
            with suppress(OSError):
                await self.reader.read()
        return False


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """Read one value of the Redis protocol as it stands (https://redis.io/docs/latest/develop/reference/protocol-spec)."""
    line = await reader.readuntil(b"\r\n")
    size = int(line[1:]) if line[:1] in b"$*" else -1
    if size < 0:
        return line
    if line[:1] == b"$":
        return line + await reader.readexactly(size + 2)
    return line + b"".join([await _frame(reader) for _ in range(size)])


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
