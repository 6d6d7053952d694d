"""The playground's own Redis: real, as the bridge's embedded one is, and ended with the playground whatever happens.

What is kept in it is the bridge's; `redis_watch` looks on.
"""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from redis.exceptions import RedisError

from bridge import redis_client
from bridge.embedded_redis import EmbeddedRedis, find_server

AWAY_SECONDS = 5.0
_PATIENCE_SECONDS = 0.5
# PR_SET_PDEATHSIG of prctl(2). SIGKILL: a server that stands still hears nothing else, and every write is on disk.
_LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


class RedisHouse:
    """The Redis of a playground's folder, and a client for looking into it; raises EmbeddedRedisError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = EmbeddedRedis(folder).url
        self.client = redis_client.connect(self.url)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Own the server until the block ends; raises EmbeddedRedisError."""
        async with EmbeddedRedis(self._folder, server=_leashed(self._folder)).own():
            try:
                yield
            finally:
                await self.client.aclose()

    async def has_worker(self) -> bool:
        """Say whether a worker takes tickets: it waits in the stream nearly all the time."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                clients = await self.client.client_list()
        except (RedisError, TimeoutError):
            return False
        return any(client.get("cmd", "").startswith("xreadgroup") for client in clients)

    async def stand_still(
        self, seconds: float = AWAY_SECONDS, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """Let the server's process answer nobody for so long; raises OSError where it cannot be stopped."""
        try:
            pid = int(cast("dict[str, int]", await self.client.info("server"))["process_id"])
        except RedisError as error:
            raise ConnectionError(str(error)) from None
        os.kill(pid, signal.SIGSTOP)
        try:
            await sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)


def _leashed(folder: Path) -> Path | None:
    """Give a redis-server that is killed with its starter, where the kernel offers that; None: one that is not."""
    if sys.platform != "linux":
        return None
    leash = folder / "redis-server"
    try:
        command = shlex.join([sys.executable, "-SI", "-c", _LEASH, str(find_server())])
        leash.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        leash.chmod(0o700)
    except OSError:
        # Whoever owns the folder says in words what is wrong with it.
        return None
    return leash
