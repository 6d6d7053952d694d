"""Socket Mode: keeps a connection to Slack on which events come in.

The SDK reconnects by itself in the common cases, but not in all: it tries a spent address for ever when an upgrade
was refused, and never says that a token is wrong. So a watchdog throws a client that hears nothing away, with all its
state, and makes a new one. What is done with an event lives in `app`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final

import structlog
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bridge.chat import ChatError
from bridge.slack.web_api import call
from bridge.work import end

PING_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 1.0
# The SDK gets this long to mend a connection by itself, which covers Slack's regular refreshes.
MEND_SECONDS: Final = 8.0
CONNECT_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 30.0

Sleep = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class _Handler(AsyncSocketModeHandler):
    """Bolt's handler, whose tasks never end in an exception that nobody hears of."""

    async def handle(self, client: Any, req: Any) -> None:
        try:
            await super().handle(client, req)
        except Exception as error:  # noqa: BLE001 - whatever it is, the SDK would drop it unread
            # Without an acknowledgement Slack sends it again; the connection goes on.
            log.warning("payload_failed", error=type(error).__name__)


async def address(client: AsyncWebClient, app_token: str) -> str:
    """Ask for the address of a connection, good for one use; raises ChatError, also when the app token is wrong.

    Source: https://docs.slack.dev/reference/methods/apps.connections.open.
    """
    reply = await call("apps.connections.open", client.apps_connections_open(app_token=app_token))
    return str(reply.get("url"))


class Socket:
    """A connection that is always mended. Used as `async with Socket(...).listening()`."""

    def __init__(self, app: AsyncApp, client: AsyncWebClient, app_token: str, *, sleep: Sleep = asyncio.sleep) -> None:
        self._app = app
        self._client = client
        self._app_token = app_token
        self._sleep = sleep
        self._handler: _Handler | None = None
        self._heard_at = monotonic()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Connect, and stay connected until the end of the block."""
        watchdog = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            await end(watchdog)
            await self._drop()

    async def is_connected(self) -> bool:
        """Say whether events can come in right now."""
        return self._handler is not None and await self._handler.client.is_connected()

    async def _watch(self) -> None:
        failures = 0
        while True:
            if await self.is_connected():
                self._heard_at, failures = monotonic(), 0
            elif self._handler is None or monotonic() - self._heard_at > MEND_SECONDS:
                failures += 1
                await self._renew(failures)
                continue
            await self._sleep(WATCH_SECONDS)

    async def _renew(self, failures: int) -> None:
        await self._drop()
        self._heard_at = monotonic()
        try:
            # The SDK's client would ask with a wrong token without end and without a word.
            url = await address(self._client, self._app_token)
            self._handler = _Handler(
                self._app,
                self._app_token,
                logger=logging.getLogger("slack_sdk.socket_mode"),
                web_client=self._client,
                ping_interval=PING_SECONDS,
            )
            self._handler.client.wss_uri = url
            # As for the Web API: the SDK would take a proxy out of the environment.
            self._handler.client.proxy = None
            await asyncio.wait_for(self._handler.connect_async(), CONNECT_SECONDS)  # type: ignore[no-untyped-call] # Bolt's
        except (ChatError, TimeoutError) as error:
            pause = min(2.0**failures, LONGEST_PAUSE_SECONDS)
            log.warning("socket_not_connected", reason=str(error) or type(error).__name__, again_in=pause)
            await self._drop()
            await self._sleep(pause)
            return
        log.info("socket_connected")

    async def _drop(self) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        try:
            await asyncio.wait_for(handler.close_async(), CONNECT_SECONDS)  # type: ignore[no-untyped-call] # Bolt's
        except Exception as error:  # noqa: BLE001 - whatever it is, hearing goes on
            # A client that cannot be closed is left behind; a new one takes its place.
            log.warning("socket_not_closed", error=type(error).__name__)
