"""A great many events at a subject's door: at a steady rate whatever comes back, or so many under way at once.

The requests are made before anything is measured, and sent by as little code as possible, so that what is timed is the
subject. What is measured lives in the benchmarks themselves.
"""

import asyncio
import gc
import itertools
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Protocol, cast

from bridge.playground import slack_events
from bridge.playground.serving import Json
from bridge.playground.slack import APP_ID, BOT, SimulatedSlack
from tests.benchmarks.harness import CHANNELS, Subject
from tests.rig import ADA

PATIENCE_SECONDS: Final = 60.0
LEAD_SECONDS: Final = 0.05

Send = Callable[[int], Awaitable[None]]
"""Sends the event with this number, and returns when it is acknowledged."""


def events(slack: SimulatedSlack, count: int) -> list[Json]:
    """Give messages that people just wrote, each its own question, over all channels."""
    channels = itertools.cycle(CHANNELS)
    return [_message(slack, next(channels), number) for number in range(count)]


def _message(slack: SimulatedSlack, channel: str, number: int) -> Json:
    text = f"How are threads stored? {number}"
    message = {
        "type": "message",
        "user": ADA,
        "ts": slack.workspace.next_ts(),
        "team": slack.team_id,
        "client_msg_id": str(uuid.uuid4()),
        "text": text,
        "blocks": slack_events.rich_text(text),
    }
    return slack_events.envelope(
        slack_events.message_event(message, channel, "channel"),
        team=slack.team_id,
        app=APP_ID,
        bot_user=BOT.id,
        event_id=f"Ev{uuid.uuid4().hex[:10].upper()}",
        time=int(time.time()),
    )


class Door(Protocol):
    """Where a subject takes events in."""

    async def send(self, number: int) -> None:
        """Send the event with this number, and return when it is acknowledged; raises RuntimeError where it is not."""

    def close(self) -> None:
        """Send no more."""


def door_of(subject: Subject, count: int) -> Door:
    """Get so many events ready to be sent to a subject, the way that it takes them."""
    slack = subject.rig.slack
    return SocketDoor(slack, count) if subject.port is None else HttpDoor(slack, subject.port, count)


class HttpDoor:
    """Posts events as Slack does, over as many connections as are needed, each used again and again."""

    def __init__(self, slack: SimulatedSlack, port: int, count: int) -> None:
        self._port = port
        self._requests = [_request(slack, port, json.dumps(body).encode()) for body in events(slack, count)]
        self._idle: deque[_Connection] = deque()
        self._all: list[_Connection] = []

    async def send(self, number: int) -> None:
        """Send one event; raises RuntimeError for another answer than 200."""
        connection = self._idle.popleft() if self._idle else await self._connect()
        status = await connection.ask(self._requests[number])
        self._idle.append(connection)
        if status != 200:
            raise RuntimeError(f"an event was answered with {status}")

    async def _connect(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
        self._all.append(connection)
        return connection

    def close(self) -> None:
        """Break all connections."""
        for connection in self._all:
            connection.close()


def _request(slack: SimulatedSlack, port: int, body: bytes) -> bytes:
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Accept": "*/*",
        "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
        "Content-Length": str(len(body)),
        **slack.sign(body),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /slack/events HTTP/1.1\r\n{lines}\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One HTTP connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._reply: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future gives the status of the answer."""
        self._reply = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(request)
        return self._reply

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        status, _, headers = head.lower().partition(b"\r\n")
        length = headers.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._received = b""
        if self._reply and not self._reply.done():
            self._reply.set_result(int(status.split()[1]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._reply and not self._reply.done():
            self._reply.set_exception(error or ConnectionResetError("the connection was closed"))

    def close(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()


class SocketDoor:
    """Sends events over the subject's socket to the simulated Slack."""

    def __init__(self, slack: SimulatedSlack, count: int) -> None:
        self._courier = slack._courier
        self._events = events(slack, count)

    async def send(self, number: int) -> None:
        """Send one event; raises RuntimeError where it is not acknowledged."""
        delivery = await self._courier.deliver(self._events[number])
        if not delivery.is_acknowledged or delivery.attempt:
            raise RuntimeError(f"an event was not acknowledged: {delivery.problem}")

    def close(self) -> None:
        """Leave the socket as it is."""


async def at_rate(send: Send, numbers: Sequence[int], per_second: float) -> list[float]:
    """Send so many events each second; give the seconds from when each was due to its acknowledgement.

    What is sent late, because the subject keeps this process waiting or for any other reason, counts as late.
    """
    loop, taken = asyncio.get_running_loop(), []
    tasks: list[asyncio.Task[None]] = []
    start = perf_counter() + LEAD_SECONDS

    async def one(number: int, due: float) -> None:
        await send(number)
        taken.append(perf_counter() - due)

    def begin(number: int, due: float) -> None:
        tasks.append(loop.create_task(one(number, due)))

    def beat() -> None:
        # An event loop counts in thousandths of a second, which is longer than an acknowledgement takes.
        for place, number in enumerate(numbers):
            due = start + place / per_second
            time.sleep(max(0.0, due - perf_counter()))
            loop.call_soon_threadsafe(begin, number, due)

    with _undisturbed():
        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        async with asyncio.timeout(len(numbers) / per_second + PATIENCE_SECONDS):
            await asyncio.to_thread(beating.join)
            await asyncio.sleep(0)
            await asyncio.gather(*tasks)
    return taken


async def at_once(send: Send, numbers: Sequence[int], width: int) -> float:
    """Keep so many events under way until all are acknowledged; give how many were acknowledged in a second."""
    left = iter(numbers)

    async def one_after_the_other() -> None:
        for number in left:
            await send(number)

    started = perf_counter()
    with _undisturbed():
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(one_after_the_other())
    return len(numbers) / (perf_counter() - started)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector from stopping this process in the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
