"""The floor: an async Bolt bot that asks Kapa and posts, in memory, with nothing durable at all. `floor.py noop|bot`.

Settings as for the bridge; `PORT` set means HTTP mode. A `noop` acknowledges events and does nothing about them.
"""

import asyncio
import os
import re
import sys
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp

KAPA = os.environ.get("KAPA_API_URL", "")
HEADERS = {"X-API-KEY": os.environ.get("KAPA_API_KEY", "")}


async def noop() -> None:
    """Let Bolt acknowledge."""


class Bot:
    """Remembers which Kapa thread a Slack thread goes on in, until it ends."""

    def __init__(self, kapa: aiohttp.ClientSession) -> None:
        self._kapa = kapa
        self._threads: dict[str, str] = {}

    async def answer(self, event: dict[str, Any], client: Any) -> None:
        """Ask Kapa and post what it says."""
        if event.get("bot_id") or event.get("subtype"):
            return
        thread = event.get("thread_ts", event["ts"])
        known = self._threads.get(thread)
        way = f"threads/{known}" if known else f"projects/{os.environ['KAPA_PROJECT_ID']}"
        body = {"query": event["text"], "integration_id": os.environ["KAPA_INTEGRATION_ID"]}
        async with self._kapa.post(f"{KAPA}/query/v1/{way}/chat/", json=body) as reply:
            answer = await reply.json()
        self._threads[thread] = answer["thread_id"]
        await client.chat_postMessage(channel=event["channel"], thread_ts=thread, text=answer["answer"])


async def main() -> None:
    """Serve until killed."""
    app = AsyncApp(token=os.environ["SLACK_BOT_TOKEN"], signing_secret=os.environ.get("SLACK_SIGNING_SECRET", "-"))
    app.client.base_url = os.environ["SLACK_API_URL"]
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=0)) as kapa:
        app.event("message")(Bot(kapa).answer) if sys.argv[1] == "bot" else app.event(re.compile(""))(noop)
        if port := os.environ.get("PORT"):
            server = web.AppRunner(app.web_app(), access_log=None)
            await server.setup()
            await web.TCPSite(server, "127.0.0.1", int(port)).start()
            await asyncio.Event().wait()
        else:
            await AsyncSocketModeHandler(app, os.environ["SLACK_APP_TOKEN"]).start_async()  # type: ignore[no-untyped-call] # Bolt's


if __name__ == "__main__":
    uvloop.run(main())
