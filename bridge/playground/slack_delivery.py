"""How Slack brings events to an app: signed HTTP requests or Socket Mode, with its schedule of redeliveries.

https://docs.slack.dev/apis/events-api/#errors . What is delivered comes from `slack_events`; the sockets
themselves are `slack_socket`'s.
"""

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

import aiohttp
import structlog
from slack_sdk.signature import SignatureVerifier

from bridge.playground.serving import Changes, Json
from bridge.playground.slack_socket import Sockets

log = structlog.get_logger()

Way = Literal["http", "socket"]
_ATTEMPTS_KEPT = 1_000
RETRY_DELAYS = (0.0, 60.0, 300.0)
"""Seconds that Slack waits before each of its redeliveries."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to bring one payload to the app.

    `event_id` is empty and `type` the payload's own for interactive payloads. `status` is the HTTP status, 200 for
    an acknowledged socket frame, or 0 with `problem` where no answer came. `attempt` counts from 0.
    """

    event_id: str
    type: str
    attempt: int
    way: Way
    status: int
    seconds: float
    problem: str = ""
    body: str = ""

    @property
    def is_acknowledged(self) -> bool:
        """Whether Slack is content and will not send it again."""
        return 200 <= self.status < 300


@dataclass(slots=True)
class Attempt:
    """One attempt as onlookers see it, from its beginning; `seconds` is None while no answer has come."""

    number: int
    at: float
    body: Json
    type: str
    attempt: int
    status: int = 0
    problem: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Payload:
    kind: Literal["events_api", "interactive"]
    body: Json
    envelope_id: str

    @property
    def type(self) -> str:
        return str(self.body.get("event", self.body).get("type", ""))


class Courier:
    """Delivers payloads in the background, each on its own, and remembers how it went."""

    def __init__(
        self,
        *,
        signing_secret: str,
        sockets: Sockets,
        changes: Changes,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        ack_seconds: float,
        keep: int = 10_000,
    ) -> None:
        self.chosen_way: Way | None = None
        self.deliveries: deque[Delivery] = deque(maxlen=keep)
        self.attempts: deque[Attempt] = deque(maxlen=_ATTEMPTS_KEPT)
        self._urls: itertools.cycle[str] | None = None
        self._verifier = SignatureVerifier(signing_secret)
        self._sockets = sockets
        self._changes = changes
        self._clock = clock
        self._sleep = sleep
        self._ack_seconds = ack_seconds
        self._ids = itertools.count(1)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Delivery]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready to send."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Give up everything that is still on its way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def way(self) -> Way:
        """How events travel: as chosen, else over HTTP as soon as there is a request URL."""
        return self.chosen_way or ("http" if self._urls else "socket")

    def send_to(self, *urls: str) -> None:
        """Send to these request URLs from now on, in turn."""
        self._urls = itertools.cycle(urls) if urls else None

    def deliver(self, body: Json, kind: Literal["events_api", "interactive"] = "events_api") -> asyncio.Task[Delivery]:
        """Start to deliver; the task's result is the last attempt."""
        payload = _Payload(kind, body, f"envelope-{next(self._ids)}")
        task = asyncio.create_task(self._deliver(payload))
        self._tasks.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[Delivery]) -> None:
        self._tasks.discard(task)
        self._changes.publish()

    async def idle(self, timeout: float) -> None:  # noqa: ASYNC109 a deadline is what callers think in
        """Wait until nothing is on its way; raises TimeoutError."""
        await self._changes.wait_for(lambda: not self._tasks, timeout)

    async def _deliver(self, payload: _Payload) -> Delivery:
        delivery, reply_headers = await self._attempt(payload, 0, "")
        # Only events are sent again.
        delays = RETRY_DELAYS if payload.kind == "events_api" else ()
        for attempt, delay in enumerate(delays, start=1):
            if delivery.is_acknowledged or reply_headers.get("X-Slack-No-Retry") == "1":
                break
            await self._sleep(delay)
            reason = delivery.problem or "http_error"
            delivery, reply_headers = await self._attempt(payload, attempt, reason)
        return delivery

    async def _attempt(self, payload: _Payload, attempt: int, reason: str) -> tuple[Delivery, Mapping[str, str]]:
        started, way = time.perf_counter(), self.way
        seen = Attempt(next(self._numbers), self._clock(), payload.body, payload.type, attempt)
        self.attempts.append(seen)
        headers: Mapping[str, str] = {}
        if way == "socket":
            status, problem, text = await self._over_socket(payload, attempt, reason)
        else:
            raw, extra = _http_form(payload, attempt, reason)
            status, problem, text, headers = await self.request(raw, self.sign(raw) | extra)
        seconds = time.perf_counter() - started
        seen.status, seen.problem, seen.seconds = status, problem, seconds
        event_id = str(payload.body.get("event_id", ""))
        delivery = Delivery(event_id, payload.type, attempt, way, status, seconds, problem, text)
        self.deliveries.append(delivery)
        self._changes.publish()
        log.debug("slack_delivered", event_id=event_id, type=payload.type, attempt=attempt, status=status)
        return delivery, headers

    async def _over_socket(self, payload: _Payload, attempt: int, reason: str) -> tuple[int, str, str]:
        frame: Json = {
            "envelope_id": payload.envelope_id,
            "type": payload.kind,
            "accepts_response_payload": payload.kind != "events_api",
            "payload": payload.body,
        }
        if payload.kind == "events_api":
            frame |= {"retry_attempt": attempt, "retry_reason": "timeout" if reason else ""}
        if not self._sockets.count:
            return 0, "no_socket", ""
        try:
            reply = await self._sockets.ask(frame, self._ack_seconds)
        except TimeoutError:
            return 0, "timeout", ""
        return 200, "", json.dumps(reply.get("payload", {}))

    async def request(self, raw: bytes, headers: Mapping[str, str]) -> tuple[int, str, str, Mapping[str, str]]:
        """POST to the next request URL; gives status (0: none), problem, body and headers of what comes back."""
        if self._urls is None or self._session is None:
            return 0, "connection_failed", "", {}
        timeout = aiohttp.ClientTimeout(total=self._ack_seconds)
        try:
            async with self._session.post(
                next(self._urls), data=raw, headers=headers, timeout=timeout, allow_redirects=False
            ) as reply:
                return reply.status, "", await reply.text(errors="replace"), reply.headers
        except TimeoutError:
            return 0, "http_timeout", "", {}
        except aiohttp.ClientError:
            return 0, "connection_failed", "", {}

    def sign(self, raw: bytes) -> dict[str, str]:
        """Give the headers that prove a request to be Slack's.

        https://docs.slack.dev/authentication/verifying-requests-from-slack/
        """
        timestamp = str(int(self._clock()))
        signature = self._verifier.generate_signature(timestamp=timestamp, body=raw) or ""
        return {
            "Content-Type": "application/json",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": signature,
        }


def _http_form(payload: _Payload, attempt: int, reason: str) -> tuple[bytes, dict[str, str]]:
    headers = {"User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)"}
    if attempt:
        headers |= {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": reason}
    if payload.kind == "events_api":
        return json.dumps(payload.body).encode(), headers
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    return urlencode({"payload": json.dumps(payload.body)}).encode(), headers
