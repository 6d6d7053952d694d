"""The least that an answer takes: a Redis round trip, a write and a Slack call. Prints the medians, in seconds.

Settings as for the bridge; `CHANNEL` is where it posts.
"""

import json
import os
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import uvloop
from redis.asyncio import Redis
from slack_sdk.web.async_client import AsyncWebClient

WARMING, TIMES = 20, 100


async def _seconds(call: Callable[[], Awaitable[Any]]) -> float:
    """Give the median of how long a call takes, one at a time."""
    taken = []
    for _ in range(WARMING + TIMES):
        started = perf_counter()
        await call()
        taken.append(perf_counter() - started)
    return median(taken[WARMING:])


async def main() -> None:
    """Measure all, and print them."""
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis, aiohttp.ClientSession() as session:
        slack = AsyncWebClient(os.environ["SLACK_BOT_TOKEN"], os.environ["SLACK_API_URL"], session=session)
        channel = os.environ["CHANNEL"]
        found = {
            "redis": await _seconds(lambda: redis.get("nothing")),
            "write": await _seconds(lambda: redis.set("something", "", ex=60)),
            "slack": await _seconds(lambda: slack.chat_postMessage(channel=channel, text="Threads are in Redis.")),
        }
    print(json.dumps(found))  # noqa: T201 - whoever measures reads it


if __name__ == "__main__":
    uvloop.run(main())
