"""The proxies before Redis, Slack and Kapa: real sockets, where each call asks the gate what is to become of it.

Which calls there are and which of them fail is the gate's business.
"""

import asyncio
import hashlib
import importlib
import pkgutil
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web

import bridge
from bridge.app import VOTES_AT_ONCE, tickets_of_a_channel
from bridge.inbox import TICKETS_OF_A_CHANNEL
from bridge.inbox_scripts import bound
from bridge.playground.serving import Changes, drop, hang, served
from tests.faults.gate import KAPA, MIDWAY, REDIS, SLACK, Action, Call, Gate, Passage

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
_GARBAGE: Final = b'{"chunk": {"type": "partial_ans\xff\xe2\x90\x9e{{{\xe2\x90\x9e\r\n'


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
            if held and passage.action in MIDWAY:
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
                bounds = {TICKETS_OF_A_CHANNEL, tickets_of_a_channel(VOTES_AT_ONCE)}
                for script in (value, *(bound(value, tickets) for tickets in bounds)):
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
        hands_out = label == "PROMOTE" and reply[:1] == b":" and reply != b":0\r\n"
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
