"""A process that owns the embedded Redis of a folder as a bridge does, to be killed by a test.

`redis_holder.py FOLDER KEYS`: prints the URL, writes KEYS keys, prints each once Redis has acknowledged it, then stays.
"""

import asyncio
import sys
from pathlib import Path

import structlog
from redis.asyncio import Redis

from bridge.embedded_redis import EmbeddedRedis


async def hold(folder: Path, keys: int) -> None:
    async with EmbeddedRedis(folder).own() as url, Redis.from_url(url) as client:
        print(url, flush=True)  # noqa: T201 - the test reads it
        for number in range(keys):
            await client.set(f"key:{number}", number)
            print(number, flush=True)  # noqa: T201 - the test reads it
        await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(hold(Path(sys.argv[1]), int(sys.argv[2])))
