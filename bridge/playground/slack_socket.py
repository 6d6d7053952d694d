"""Socket Mode, the server's side: tickets, WebSockets, frames out and acknowledgements in.

https://docs.slack.dev/apis/events-api/using-socket-mode/ . What the frames carry is `slack_delivery`'s business.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Callable

import structlog
from aiohttp import WSMessage, WSMsgType, web

from bridge.playground.serving import Changes, Json, drop

log = structlog.get_logger()

TICKET_SECONDS = 30
SOCKETS_MAX = 10


class Sockets:
    """The app's open Socket Mode connections."""

    def __init__(self, *, app_id: str, changes: Changes, clock: Callable[[], float]) -> None:
        self._app_id = app_id
        self._changes = changes
        self._clock = clock
        self._tickets: dict[str, float] = {}
        self._open: dict[int, tuple[web.WebSocketResponse, web.Request]] = {}
        self._silent: set[int] = set()
        self._ids = itertools.count(1)
        self._turn = itertools.count()
        self._acks: dict[str, asyncio.Future[Json]] = {}
        self._refusals = 0

    @property
    def count(self) -> int:
        """How many sockets are open, silent ones included."""
        return len(self._open)

    def issue_ticket(self) -> str:
        """Give a new ticket: good for one upgrade, and for 30 s."""
        now = self._clock()
        self._tickets = {ticket: end for ticket, end in self._tickets.items() if end > now}
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = now + TICKET_SECONDS
        return ticket

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket for as long as it lives; the upgrade is refused without a live ticket."""
        expiry = self._tickets.pop(request.query.get("ticket", ""), 0.0)
        if self._refusals:
            self._refusals -= 1
            return web.Response(status=503, text="try again later")
        if expiry <= self._clock():
            return web.Response(status=403, text="the ticket is used or expired")
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        if self.count >= SOCKETS_MAX:
            await socket.send_json(_disconnect("too_many_websockets"))
            await socket.close()
            return socket
        number = next(self._ids)
        self._open[number] = (socket, request)
        try:
            await socket.send_json(self._hello())
            self._changes.publish()
            async for message in socket:
                await self._receive(number, socket, message)
        except ConnectionError:
            log.debug("slack_socket_lost", socket=number)
        finally:
            self._forget(number)
        return socket

    def _hello(self) -> Json:
        return {
            "type": "hello",
            "num_connections": self.count,
            "connection_info": {"app_id": self._app_id},
            "debug_info": {"host": "applink-1", "build_number": 54, "approximate_connection_time": 18060},
        }

    async def _receive(self, number: int, socket: web.WebSocketResponse, message: WSMessage) -> None:
        if message.type == WSMsgType.PING and number not in self._silent:
            await socket.pong(message.data)
        if message.type != WSMsgType.TEXT:
            return
        try:
            reply = json.loads(message.data)
        except ValueError:
            log.warning("slack_socket_frame_not_json", socket=number)
            return
        waiting = self._acks.get(str(reply.get("envelope_id"))) if isinstance(reply, dict) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _forget(self, number: int) -> None:
        self._open.pop(number, None)
        self._silent.discard(number)
        self._changes.publish()

    async def ask(self, frame: Json, ack_seconds: float) -> Json:
        """Send a frame over one of the sockets and give its acknowledgement; raises TimeoutError without one.

        The acknowledgement may come over any socket.
        """
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._acks[frame["envelope_id"]] = future
        try:
            await self._send(frame)
            async with asyncio.timeout(ack_seconds):
                return await future
        finally:
            self._acks.pop(frame["envelope_id"], None)

    async def _send(self, frame: Json) -> None:
        numbers = list(self._open)
        if not numbers:
            return
        number = numbers[next(self._turn) % len(numbers)]
        if number not in self._silent:
            await self._write(number, self._open[number][0], frame)

    async def _write(self, number: int, socket: web.WebSocketResponse, frame: Json) -> None:
        try:
            await socket.send_json(frame)
        except ConnectionError:
            log.debug("slack_socket_lost", socket=number)

    async def disconnect(self, reason: str) -> None:
        """Ask every connection to reconnect: `warning`, `refresh_requested` or `link_disabled`."""
        for number, (socket, _) in list(self._open.items()):
            if number not in self._silent:
                await self._write(number, socket, _disconnect(reason))

    def refuse(self, times: int) -> None:
        """Refuse the next upgrades; their tickets are used up all the same."""
        self._refusals = times

    def silence(self) -> None:
        """Let every open socket go dead: it stays open, but nothing is sent and no ping is answered."""
        self._silent.update(self._open)

    def drop(self) -> None:
        """Break every connection without a word; it counts as gone at once."""
        for number, (_, request) in list(self._open.items()):
            drop(request)
            self._forget(number)

    async def close(self) -> None:
        """Close every connection as a server that goes away does."""
        for socket, _ in list(self._open.values()):
            await socket.close(code=1001, message=b"going away")


def _disconnect(reason: str) -> Json:
    return {"type": "disconnect", "reason": reason, "debug_info": {"host": "wss-playground"}}
